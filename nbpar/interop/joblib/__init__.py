"""joblib's backend "nbpar", for `joblib.Parallel` and everything in scikit-learn that has an `n_jobs`.

============  ==========================================================================================
module        its job
============  ==========================================================================================
`backend`     what joblib calls: options, and one job of nbpar for each call of `Parallel`
`workers`     that job, the thread that calls joblib back, and errors in joblib's types
`calls`       one call on its way to a worker, and what joblib holds of a batch of them
`arguments`   large arrays in shared memory, and memory maps by the name of their file
`pools`       which pool runs a call, and who ends it
`naming`      what the dashboard calls a call, and how many tasks it will have
============  ==========================================================================================

Importing this loads none of them, and not joblib; :func:`register` does.
"""

from __future__ import annotations

__all__ = ["register", "shutdown"]


def register(*, make_default: bool = False) -> None:
    """Make ``backend="nbpar"`` known to joblib; to call it again changes nothing.

    Parameters
    ----------
    make_default : bool
        Have `joblib.Parallel` use it where nobody names a backend.

    Raises
    ------
    ImportError
        When joblib is not there, or older than 1.4.

    Examples
    --------
    >>> import nbpar.interop.joblib
    >>> from joblib import Parallel, delayed, parallel_config
    >>> nbpar.interop.joblib.register()
    >>> with parallel_config(backend="nbpar", n_jobs=2):
    ...     Parallel()(delayed(pow)(x, 2) for x in range(4))
    [0, 1, 4, 9]
    """
    try:
        import joblib
    except ImportError as error:
        raise ImportError("nbpar.interop.joblib needs joblib: pip install 'nbpar[joblib]'") from error
    if tuple(int(part) for part in joblib.__version__.split(".")[:2]) < (1, 4):
        raise ImportError(
            f"nbpar.interop.joblib needs joblib 1.4 or newer, and {joblib.__version__} is there: "
            f"pip install -U 'nbpar[joblib]'"
        )
    from nbpar.interop.joblib.backend import NbparBackend

    joblib.register_parallel_backend("nbpar", NbparBackend, make_default=make_default)


def shutdown(wait: bool = True) -> None:
    """End the pools that were made for calls of `Parallel`; the next call makes another one.

    The notebook's own pool, which serves calls with as many jobs as it has workers, is :func:`nbpar.shutdown`'s.

    Parameters
    ----------
    wait : bool
        Return when their jobs have ended and nothing is left of their workers.

    Examples
    --------
    >>> import nbpar.interop.joblib
    >>> nbpar.interop.joblib.shutdown()
    """
    from nbpar.interop.joblib import pools

    pools.shutdown(wait=wait)
