"""Front doors of other libraries: change one import line and keep the code.

=================================  ==============================================================
``nbpar.interop.mpire``            MPIRE: ``WorkerPool`` and its helpers
``nbpar.interop.futures``          ``concurrent.futures``: ``Executor``
``nbpar.interop.multiprocessing``  ``multiprocessing.Pool``
``nbpar.interop.tqdm``             ``tqdm.contrib.concurrent``: ``process_map``, ``thread_map``
``nbpar.interop.joblib``           joblib and scikit-learn: ``register``
``nbpar.interop.pandas``           pandas: ``df.nbpar.apply`` and its kin
=================================  ==============================================================

Each is a thin shell over :class:`nbpar.WorkerPool`: names, defaults, argument order and rules are the other library's,
the work is nbpar's. None is imported before it is asked for; ``docs/reference/`` has a table of every parameter.
"""
