"""The front door of ``tqdm.contrib.concurrent``: `process_map` and `thread_map`, on nbpar's workers.

::

    from nbpar.interop.tqdm import process_map  # for: from tqdm.contrib.concurrent import process_map

`process_map` runs on the notebook's own pool, whose workers stay warm, unless its arguments ask for other workers;
`thread_map` on threads of its own. Progress is nbpar's: in a notebook its card, in a terminal its bar, both by the name
in `desc`. Whoever asks for a bar of another class, or for one that looks or behaves in a way of its own, gets tqdm's,
driven by nbpar's job; tqdm itself is imported then only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from operator import length_hint
from typing import Any, TypeVar

from nbpar.default import default_pool
from nbpar.errors import WorkerDiedError
from nbpar.job import Job
from nbpar.options import Progress
from nbpar.pool import WorkerPool
from nbpar.raising import carry_results
from nbpar.views.cell import Cell
from nbpar.worker.context import current_context

__all__ = ["ensure_lock", "process_map", "thread_map"]

R = TypeVar("R")

_JOB = ("retries", "seed", "checkpoint", "profile")
"""Options of :func:`nbpar.map` beside tqdm's arguments."""

_SERVED = frozenset(
    {"desc", "disable", "dynamic_ncols", "maxinterval", "mininterval", "miniters", "smoothing", "total"}
)
"""What nbpar's own progress does, or has no need to be told."""

_LOOKS: dict[str, Any] = {
    "ascii": None,
    "bar_format": None,
    "colour": None,
    "delay": 0,
    "gui": False,
    "initial": 0,
    "leave": True,
    "lock_args": None,
    "ncols": None,
    "nrows": None,
    "position": None,
    "postfix": None,
    "unit": "it",
    "unit_divisor": 1000,
    "unit_scale": False,
    "write_bytes": False,
}
"""What only a bar of tqdm's own does, with tqdm's defaults. A card in a notebook has a look of its own."""

_STEP_S = 0.1
"""tqdm's own bars are brought up to date so often."""


def process_map(
    fn: Callable[..., R], *iterables: Iterable[Any], lock_name: str = "mp_lock", **tqdm_kwargs: Any
) -> list[R]:
    """Do as ``list(map(fn, *iterables))``, on all cores and with progress.

    Parameters
    ----------
    fn : callable
        Any function the notebook has.
    *iterables : iterable
        Gone through side by side.
    max_workers : int, optional
        Workers for this call alone; by default those of the notebook's pool.
    timeout : float, optional
        Seconds after which the call gives up.
    chunksize : int, optional
        Items that travel together; chosen while the job runs by default.
    buffersize : int, optional
        Items handed out and not finished, at most.
    max_tasks_per_child : int, optional
        A worker of this call is replaced after so many tasks.
    mp_context : context, optional
        How the workers of this call start, as of ``multiprocessing.get_context``.
    tqdm_class : type, optional
        Draw a bar of this class instead of nbpar's progress.
    lock_name : str
        Of the lock of `tqdm_class` that is held while it draws.
    retries, seed, checkpoint, profile
        As for :func:`nbpar.map`.
    **tqdm_kwargs
        Of tqdm: ``desc`` names the job, ``disable`` hides it, and what makes a bar look or behave in a way of its own
        (``leave=False``, ``unit``, ``bar_format``, ...) makes it one of tqdm's.

    Returns
    -------
    list
        Results in the order of the items.

    Raises
    ------
    Exception
        What the first failed task raised.
    TimeoutError
        When `timeout` seconds have passed first.
    concurrent.futures.process.BrokenProcessPool
        When a worker died; its cause is nbpar's :class:`~nbpar.errors.WorkerDiedError`, which names the item.

    Examples
    --------
    >>> import nbpar
    >>> from nbpar.interop.tqdm import process_map
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> process_map(abs, [-1, -2, 3], desc="absolute")
    [1, 2, 3]
    """
    __tracebackhide__ = True
    max_workers = tqdm_kwargs.pop("max_workers", None)
    n_tasks = tqdm_kwargs.pop("max_tasks_per_child", None)
    context = tqdm_kwargs.pop("mp_context", None)
    is_own = current_context() is None and not (max_workers is None and n_tasks is None and context is None)
    with contextlib.ExitStack() as stack:
        pool = _processes(max_workers, n_tasks, context, stack) if is_own else default_pool()
        try:
            return _map(pool, fn, iterables, lock_name, tqdm_kwargs)
        except WorkerDiedError as error:
            broken = BrokenProcessPool(str(error))
            carry_results(broken, list(error.results))
            raise broken from error


def thread_map(fn: Callable[..., R], *iterables: Iterable[Any], **tqdm_kwargs: Any) -> list[R]:
    """Do as ``list(map(fn, *iterables))``, in threads and with progress.

    Takes the arguments of :func:`process_map`, but for `max_tasks_per_child` and `mp_context`. By default there are as
    many threads as with tqdm: four more than CPUs, and 32 at most. `chunksize` and `thread_name_prefix` are taken and
    have no effect.

    Examples
    --------
    >>> from nbpar.interop.tqdm import thread_map
    >>> thread_map(pow, [2, 3], [5, 2], max_workers=2)
    [32, 9]
    """
    __tracebackhide__ = True
    max_workers = tqdm_kwargs.pop("max_workers", None)
    if max_workers is None:
        max_workers = min(32, (os.cpu_count() or 1) + 4)
    _check_workers(max_workers)
    for name in ("chunksize", "thread_name_prefix"):
        tqdm_kwargs.pop(name, None)
    with WorkerPool(n_workers=max_workers, start_method="threads") as pool:
        return _map(pool, fn, iterables, tqdm_kwargs.pop("lock_name", ""), tqdm_kwargs)


@contextlib.contextmanager
def ensure_lock(tqdm_class: Any, lock_name: str = "", lock: Any = None) -> Iterator[Any]:
    """Have `tqdm_class` use a lock, or the part of its own that is called `lock_name`; restore its own afterwards.

    Examples
    --------
    >>> from tqdm import tqdm
    >>> from nbpar.interop.tqdm import ensure_lock
    >>> with ensure_lock(tqdm) as lock:
    ...     tqdm.get_lock() is lock
    True
    """
    before = getattr(tqdm_class, "_lock", None)
    if lock is None:
        lock = before or tqdm_class.get_lock()
    lock = getattr(lock, lock_name, lock)
    tqdm_class.set_lock(lock)
    try:
        yield lock
    finally:
        if before is None:
            del tqdm_class._lock
        else:
            tqdm_class.set_lock(before)


# --- workers ----------------------------------------------------------------------------------------------------------


def _processes(max_workers: Any, n_tasks: int | None, context: Any, stack: contextlib.ExitStack) -> WorkerPool:
    """A pool for one call; of the notebook's own, whose options hold for every call, it has nothing."""
    if max_workers is not None:
        _check_workers(max_workers)
    start_method: Any = context if isinstance(context, str | None) else context.get_start_method()
    pool = WorkerPool(n_workers=max_workers, tasks_per_worker=n_tasks, start_method=start_method)
    return stack.enter_context(pool)


def _check_workers(max_workers: int) -> None:
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")


# --- the call ---------------------------------------------------------------------------------------------------------


def _map(
    pool: WorkerPool, fn: Callable[..., R], iterables: tuple[Iterable[Any], ...], lock_name: str, kwargs: dict[str, Any]
) -> list[R]:
    __tracebackhide__ = True
    timeout, chunksize = kwargs.pop("timeout", None), kwargs.pop("chunksize", None)
    options = {name: kwargs.pop(name) for name in _JOB if name in kwargs}
    options["max_in_flight"] = kwargs.pop("buffersize", None)
    tqdm_class = kwargs.pop("tqdm_class", None)
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if not iterables:
        return []
    desc = kwargs.get("desc")
    if desc is not None:
        options["name"] = str(desc)
    has_bar = _wants_bar(tqdm_class, kwargs)
    options["progress"] = False if has_bar else _progress(kwargs.get("disable", False))
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(_bar(iterables, tqdm_class, lock_name, kwargs)) if has_bar else None
        job = pool.map_async(fn, *iterables, chunk_size=chunksize, **options)
        job.is_held = False  # its results are those of this call
        if bar is not None and "total" not in kwargs:
            bar.total = job.n_tasks
        try:
            _follow(job, bar, timeout)
            results = job.result()
        except KeyboardInterrupt as interrupt:
            job.interrupt(interrupt)
        except BaseException:
            job.cancel()
            raise
        job.is_taken = True
        return results


def _follow(job: Job[Any], bar: Any, timeout: float | None) -> None:
    """Wait for the end of a job, and keep a bar of tqdm's up to date meanwhile."""
    end_s = None if timeout is None else time.perf_counter() + timeout
    n_shown, is_over = 0, False
    while not is_over:
        left_s = None if end_s is None else end_s - time.perf_counter()
        if left_s is not None and left_s <= 0 and not job.done():
            raise TimeoutError(f"{job!r} has not ended within {timeout} s and is cancelled")
        if bar is not None:
            left_s = _STEP_S if left_s is None else min(_STEP_S, left_s)
        job.wait_for(lambda _: None, left_s)
        is_over = job.done()
        if bar is not None and (n_done := job.n_done) > n_shown:
            bar.update(n_done - n_shown)
            n_shown = n_done


# --- progress ---------------------------------------------------------------------------------------------------------


def _progress(disable: bool | None) -> Progress:
    """What ``disable`` asks for; None is "where the output is no terminal"."""
    if disable is None:
        return None
    return not disable


def _wants_bar(tqdm_class: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a bar of tqdm's own is asked for."""
    if kwargs.keys() - _SERVED - _LOOKS.keys() - {"file"}:  # of the class, or for tqdm to refuse
        return True
    if kwargs.get("disable") is True and tqdm_class is None:
        return False
    if tqdm_class is not None or kwargs.get("file") is not None:
        return True
    return Cell.current() is None and any(kwargs.get(name, default) != default for name, default in _LOOKS.items())


@contextlib.contextmanager
def _bar(iterables: Iterable[Any], tqdm_class: Any, lock_name: str, kwargs: dict[str, Any]) -> Iterator[Any]:
    if tqdm_class is None:
        try:
            from tqdm.auto import tqdm as tqdm_class
        except ImportError as error:
            raise ImportError("a bar of tqdm's own needs tqdm: pip install tqdm") from error
    looks = {"total": min(map(length_hint, iterables)), "smoothing": 0.0, **kwargs}
    with ensure_lock(tqdm_class, lock_name), tqdm_class(**looks) as bar:
        yield bar
