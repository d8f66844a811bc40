"""What an executor is made of, and what outlives it: the pool, the jobs under way, and how all of it ends.

A :class:`Crew` belongs to one :class:`~nbpar.interop.futures.executor.Executor`. An executor that is dropped without
`shutdown` lets its crew end: what was submitted is done first. So it is at the interpreter's exit, which waits for
every crew, as that of the standard library does and nbpar's own pools do not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from nbpar.errors import SerializationError, WorkerStartError
from nbpar.inputs import name_of
from nbpar.interop.futures.errors import BROKEN, as_raised, broken
from nbpar.interop.futures.runs import CallFuture, Mapped, Submitted
from nbpar.job import Job
from nbpar.options import Progress
from nbpar.pool import WorkerPool
from nbpar.views.cell import kernel_shell

__all__ = ["Crew"]

_log = logging.getLogger("concurrent.futures")

MAX_UNDRAWN = 8
"""Jobs that may end within the tenth of a second that their lines take to be written."""

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()  # those with work under way are held by their jobs
_crews_lock = threading.RLock()  # guards the set
_is_exiting = False


class Crew:
    """A pool and its jobs.

    Parameters
    ----------
    pool : WorkerPool
        Ended with the crew.
    progress
        As of `WorkerPool.map`.

    Attributes
    ----------
    reason : str
        Why the crew is broken; empty while it is not.
    is_shut : bool
        Whether it takes no more calls.
    """

    def __init__(self, pool: WorkerPool, progress: Progress) -> None:
        self.pool = pool
        self.backend = pool._backend
        # In a terminal the standard library draws nothing.
        self.progress: Progress = False if progress is None and kernel_shell() is None else progress
        self.is_remote = pool.start_method != "threads"
        self.reason = ""
        self.is_shut = False
        self._cause: BaseException | None = None
        self._lock = threading.RLock()  # guards the two below, and what runs count; never held while a job is told
        self._runs: set[Submitted | Mapped] = set()
        self._open: Submitted | None = None  # takes the calls that are submitted now
        self._ended: deque[weakref.ref[Job[Any]]] = deque(maxlen=MAX_UNDRAWN)  # whose last lines may not be out yet
        with _crews_lock:
            _crews.add(self)

    def check_open(self) -> None:
        """Raise what the standard library raises when no call is taken any more."""
        if self.reason:
            raise broken(self.reason, self._cause)
        if self.is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallFuture:
        """Have a call made."""
        with self._lock:
            self.check_open()
            old, run = None, self._open
            is_new = run is None or run.is_past
            if run is None or is_new:
                old, run = run, Submitted(self, name_of(function))
                self._open = run
                self._runs.add(run)
            future = run.add(function, args, kwargs)
            is_to_show = not run.is_shown and run.n_added - run.n_ended > 1  # calls that are made in turn need no card
            run.is_shown = run.is_shown or is_to_show
            n_added = run.n_added
        if old is not None:
            old.close()
        if is_new:
            self._begin(run)
        else:
            run.has_begun.wait()
        run.job.feed(n_added)
        if is_to_show:
            run.job.show()
        return future

    def _begin(self, run: Submitted) -> None:
        try:
            run.job.begin()
        except BaseException as error:
            self.has_ended(run)
            reason = f"no worker can be had: {error}"
            run.fail(lambda: broken(reason, None))  # calls that other threads have added
            raise
        finally:
            run.has_begun.set()

    def map(
        self,
        function: Callable[..., Any],
        items: Iterator[Any],
        *,
        star: bool,
        chunk_size: int | None,
        n_ahead: int | None,
    ) -> Mapped:
        """Have calls made for all items; of an input that is read by and by, for the first `n_ahead`."""
        run = Mapped(self, function, items, star=star, chunk_size=chunk_size)
        with self._lock:
            self.check_open()
            self._runs.add(run)
        try:
            run.job.begin()
        except SerializationError as error:
            self.has_ended(run)
            raise as_raised(error) from None
        except BaseException:
            self.has_ended(run)
            raise
        try:
            run.read(n_ahead)
        except BaseException:  # the input's own
            run.stop()
            raise
        if run.n_added > 1:
            run.job.show()
        return run

    # --- the backend's thread -----------------------------------------------------------------------------------------

    def close_if_idle(self, run: Submitted) -> None:
        """Let a job of submitted calls end when no call is under way, if anybody sees that it goes on."""
        with self._lock:
            if self._open is not run or run.n_ended < run.n_added:
                return
            run.idle_since_s = time.monotonic()
            if not run.is_seen and self.pool.options.idle_timeout is None:
                return
            self._open = None
        run.job.feed(run.n_added, closed=True)

    def has_ended(self, run: Submitted | Mapped) -> None:
        """A job is over, or could not begin."""
        with self._lock:
            self._runs.discard(run)
            if (job := getattr(run.job, "job", None)) is not None:
                self._ended.append(weakref.ref(job))
            if self._open is run:
                self._open = None

    def break_down(self, error: BaseException) -> None:
        """A worker died, or none can be had: no call is taken any more, and those under way fail."""
        if isinstance(error, WorkerStartError) and error.__cause__ is not None:
            _log.critical("Exception in initializer:", exc_info=error.__cause__)
            reason = f"A process of the process pool could not be initialized: {error}"
        else:
            reason = f"{BROKEN} {error}"
        self.end_broken(reason, error)

    def end_broken(self, reason: str, cause: BaseException | None) -> None:
        """Fail everything."""
        with self._lock:
            if self.reason:
                return
            self.reason, self._cause = reason, cause
            runs, self._open = list(self._runs), None
        for run in runs:  # before the jobs say that they were cancelled
            run.fail(lambda: broken(reason, cause))
        self.pool.shutdown(wait=False, cancel=True)

    # --- the end ------------------------------------------------------------------------------------------------------

    def shutdown(self, *, wait: bool, cancel: bool, interrupt: bool = False) -> None:
        """Take no more calls.

        Parameters
        ----------
        wait : bool
            Return when those under way have ended and nothing is left of the workers.
        cancel : bool
            Cancel the calls that were not sent yet.
        interrupt : bool
            Stop those that run.
        """
        with self._lock:
            self.is_shut = True
            runs, self._open = list(self._runs), None
        if cancel:
            for one in runs:
                one.cancel_pending()
        else:
            for one in runs:
                one.close()
        self.pool.shutdown(wait=wait, cancel=interrupt)
        if wait:
            for reference in tuple(self._ended):
                if (job := reference()) is not None:
                    job.wait()  # until what its tasks have printed is out: the interpreter may end now

    def stop_workers(self, number: int) -> None:
        """Send all workers a signal; nothing of the crew goes on."""
        pids = self.pool.pids().values() if self.is_remote else ()
        with self._lock:
            self.is_shut = True
        self.end_broken("the workers were stopped by terminate_workers() or kill_workers()", None)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


# --- the interpreter's exit, and forks --------------------------------------------------------------------------------


def _wait_for_all() -> None:
    """The interpreter's exit waits for what was submitted, like that of the standard library."""
    global _is_exiting
    _is_exiting = True
    with _crews_lock:
        crews = list(_crews)
    for crew in crews:
        crew.shutdown(wait=True, cancel=False)


def _after_fork() -> None:
    global _crews_lock
    _crews_lock = threading.RLock()
    _crews.clear()  # their threads and workers belong to the parent


# Before the interpreter's daemon threads stop, and before handlers of `atexit`, where nbpar ends its pools: there is no
# public name for that moment, and the standard library's own executors use this one.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
