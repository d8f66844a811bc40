"""The door of ``concurrent.futures``: its names, with `ProcessPoolExecutor` on nbpar's workers.

::

    from nbpar.interop.futures import ProcessPoolExecutor, as_completed

======================  =======================================================================================
``Executor``            the executor; ``ProcessPoolExecutor`` is another name of it
``as_completed``, ...   everything else that ``concurrent.futures`` exports, as it is, `ThreadPoolExecutor` too
``BrokenProcessPool``   as in ``concurrent.futures.process``
======================  =======================================================================================

``docs/reference/futures.md`` has a table of every parameter. :mod:`~nbpar.interop.futures.executor` checks arguments,
:mod:`~nbpar.interop.futures.crew` owns the pool and how it ends, :mod:`~nbpar.interop.futures.runs` has the jobs, and
:mod:`~nbpar.interop.futures.errors` the exceptions.
"""

from __future__ import annotations

from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    TimeoutError,  # noqa: A004  # a name of the library whose door this is
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool

from nbpar.interop.futures.errors import NotPicklableError, NotRebuiltError, TaskOutOfMemoryError
from nbpar.interop.futures.executor import Executor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenProcessPool",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "NotPicklableError",
    "NotRebuiltError",
    "ProcessPoolExecutor",
    "TaskOutOfMemoryError",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]

ProcessPoolExecutor = Executor
