"""MPIRE's ``mpire.utils``: helpers that programs import beside the pool.

What cuts inputs into chunks is in :mod:`nbpar.interop.mpire.chunks`, and is named here as MPIRE names it.
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections.abc import Callable, MutableSequence, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nbpar.interop.mpire.chunks import apply_numpy_chunking, chunk_tasks, get_n_chunks, make_single_arguments

if TYPE_CHECKING:
    from multiprocessing.managers import SyncManager

__all__ = [
    "NonPickledSyncManager",
    "TimeIt",
    "apply_numpy_chunking",
    "chunk_tasks",
    "create_sync_manager",
    "format_seconds",
    "get_n_chunks",
    "make_single_arguments",
    "set_cpu_affinity",
]


def format_seconds(seconds: float | None, with_milliseconds: bool) -> str:
    """A duration as hours, minutes and seconds, cut off after the milliseconds.

    Parameters
    ----------
    seconds : float or None
        None gives an empty string.
    with_milliseconds : bool
        Without them, they are cut off. A duration of whole seconds has none in either case.

    Examples
    --------
    >>> format_seconds(3661.23456, with_milliseconds=True), format_seconds(59.9, with_milliseconds=False)
    ('1:01:01.234', '0:00:59')
    """
    if seconds is None:
        return ""
    whole, _, fraction = str(timedelta(seconds=seconds)).partition(".")
    return f"{whole}.{fraction[:3]}" if with_milliseconds and fraction else whole


class TimeIt:
    """Measures a ``with`` block and adds its duration to a place in a sequence.

    Parameters
    ----------
    cum_time_array : sequence of float, optional
        Where durations are summed up, in seconds.
    array_idx : int
        The place.
    max_time_array : list of (float, str), optional
        A heap with the longest durations so far; its smallest makes room for a longer one.
    format_args_func : callable, optional
        Gives the text that goes with a duration there; asked only for those that are kept.

    Examples
    --------
    >>> times = [0.0, 0.0]
    >>> with TimeIt(times, 1):
    ...     time.sleep(0.01)
    >>> times[0], times[1] >= 0.009
    (0.0, True)
    """

    def __init__(
        self,
        cum_time_array: MutableSequence[float] | None,
        array_idx: int,
        max_time_array: list[Any] | None = None,
        format_args_func: Callable[[], str] | None = None,
    ) -> None:
        self.cum_time_array = cum_time_array
        self.array_idx = array_idx
        self.max_time_array = max_time_array
        self.format_args_func = format_args_func
        self.start_time: float | None = None

    def __enter__(self) -> None:
        self.start_time = time.perf_counter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        assert self.start_time is not None
        duration_s = time.perf_counter() - self.start_time
        if self.cum_time_array is not None:
            self.cum_time_array[self.array_idx] += duration_s
        if self.max_time_array is not None and duration_s > self.max_time_array[0][0]:
            text = None if self.format_args_func is None else self.format_args_func()
            heapq.heapreplace(self.max_time_array, (duration_s, text))


def set_cpu_affinity(pid: int, mask: Sequence[int]) -> None:
    """Let a process run on these CPUs alone; on macOS, which has no such call, nothing happens.

    Examples
    --------
    >>> import os
    >>> if hasattr(os, "sched_getaffinity"):
    ...     set_cpu_affinity(os.getpid(), sorted(os.sched_getaffinity(0)))
    """
    if sys.platform == "darwin":
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, mask)
        return
    import psutil  # Windows; a dependency of nbpar

    psutil.Process(pid).cpu_affinity(list(mask))


def create_sync_manager(use_dill: bool = False) -> SyncManager:
    """A manager of :mod:`multiprocessing`, not started yet, with a key of its own.

    Parameters
    ----------
    use_dill : bool
        What goes through it is pickled by dill; needs ``pip install multiprocess``.

    Raises
    ------
    ImportError
        With `use_dill` and without multiprocess.
    """
    authkey = os.urandom(24)
    if not use_dill:
        from multiprocessing.managers import SyncManager

        return SyncManager(authkey=authkey)
    try:
        from multiprocess.managers import SyncManager as DillSyncManager
    except ImportError as error:
        raise ImportError("create_sync_manager(use_dill=True) needs multiprocess (pip install multiprocess)") from error
    return DillSyncManager(authkey=authkey)  # type: ignore[no-any-return]


class NonPickledSyncManager:
    """A manager that is left behind when what refers to it is pickled.

    Examples
    --------
    >>> import pickle
    >>> pickle.loads(pickle.dumps(NonPickledSyncManager())).manager is None
    True
    """

    def __init__(self, use_dill: bool = False) -> None:
        self.manager: SyncManager | None = create_sync_manager(use_dill)

    def __getattr__(self, item: str) -> Any:
        if item == "manager":  # not there yet: `pickle` asks an empty object
            raise AttributeError(item)
        return getattr(self.manager, item)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"manager": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
