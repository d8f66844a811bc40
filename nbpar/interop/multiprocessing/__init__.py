"""The front door of ``multiprocessing``: `Pool` and `ThreadPool`, on nbpar's workers.

::

    from nbpar.interop.multiprocessing import Pool  # for: from multiprocessing import Pool
    import nbpar.interop.multiprocessing as mp  # for: import multiprocessing as mp

General layout: :mod:`~nbpar.interop.multiprocessing.pool` has the pools,
:mod:`~nbpar.interop.multiprocessing.results` what their calls return,
:mod:`~nbpar.interop.multiprocessing.worker` what workers run of it; a worker imports no more than that. Names that are
not here are multiprocessing's own; locks, queues and shared values come from its ``spawn`` context, so that workers
which were there before can open them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing import TimeoutError  # noqa: A004  # its name there

    from nbpar.interop.multiprocessing.contexts import cpu_count, get_context
    from nbpar.interop.multiprocessing.pool import Pool, ThreadPool
    from nbpar.interop.multiprocessing.results import AsyncResult, MaybeEncodingError

__all__ = ["AsyncResult", "MaybeEncodingError", "Pool", "ThreadPool", "TimeoutError", "cpu_count", "get_context"]

_HOMES = {
    "AsyncResult": "results",
    "MaybeEncodingError": "results",
    "Pool": "pool",
    "ThreadPool": "pool",
    "cpu_count": "contexts",
    "get_context": "contexts",
}

_SYNCHRONIZED = ("Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore")
_SHARED = frozenset((*_SYNCHRONIZED, "Array", "JoinableQueue", "Queue", "RawArray", "RawValue", "SimpleQueue", "Value"))


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import multiprocessing

    return getattr(multiprocessing.get_context("spawn") if name in _SHARED else multiprocessing, name)


def __dir__() -> list[str]:
    import multiprocessing

    return sorted({*__all__, *multiprocessing.__all__})
