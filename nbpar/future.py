"""What `nbpar.submit` returns: a future for one task.

A :class:`TaskFuture` is the sink of its backend as a :class:`nbpar.job.Job` is, without the state that a picture needs.
What it has of a future is :class:`LatchFuture`, which :mod:`nbpar.interop.futures` hands out as well.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Literal, TypeVar

from nbpar.backends.base import Backend, StateEvent, Wait
from nbpar.display import Display, Lines
from nbpar.engine.events import OutputLine
from nbpar.errors import JobCancelledError, PoolClosedError, TaskError
from nbpar.raising import as_raised_inside
from nbpar.views.ticker import Watch
from nbpar.waiting import Latch, until_done

__all__ = ["LatchFuture", "TaskFuture"]

R = TypeVar("R")

HELP_S = 0.2
"""How long a waiting caller does the backend's work itself."""

LOCK_WAIT_S = 1.0
"""Methods of the base class hold their lock for microseconds."""


class LatchFuture(Future[R]):
    """A :class:`concurrent.futures.Future` that can be awaited, and whose waiting an interrupt may break off anywhere.

    Parameters
    ----------
    backend : Backend
        Helped while the main thread waits.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend
        self._over = Latch()
        self._values: Sequence[R] = ()  # the one value
        self._error: BaseException | None = None
        self._told: TaskError | None = None  # what stands for a StopIteration where none can be raised

    def result(self, timeout: float | None = None) -> R:
        """The task's value, or raise its exception; waits for it, at most `timeout` seconds."""
        error = self.exception(timeout)
        if error is None:
            return self._values[0]
        try:
            raise error
        finally:
            del self, error  # the traceback would keep what its frame refers to

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The task's exception, None when it succeeded; waits for the end, at most `timeout` seconds."""
        # Not by the base class, whose waiting an interrupt can break off with its lock held (see nbpar.waiting).
        if not self._over.is_set() and not self.cancelled():  # a done callback of a cancelled one may ask
            begin_s = time.perf_counter()
            self._backend.help(Wait(self._over.is_set, HELP_S if timeout is None else min(timeout, HELP_S)))
            left_s = None if timeout is None else timeout - (time.perf_counter() - begin_s)
            if not self._over.wait(left_s):
                raise TimeoutError
        if not self._values and self._error is None:
            raise CancelledError
        return self._error

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        import asyncio  # slow to load, and loaded already where anything is awaited

        # Not by asyncio's way for such futures, which refuses a StopIteration and then never ends.
        try:
            try:
                await until_done(self.add_done_callback)
            except (asyncio.CancelledError, KeyboardInterrupt):
                self.cancel()
                raise
            if self.cancelled():
                raise asyncio.CancelledError
            if self._told is not None:
                raise as_raised_inside(self._told)
            return self.result()
        finally:
            del self  # as in `result`

    def _settle(self, values: Sequence[Any], error: BaseException | None) -> None:
        """Take the outcome, unless the future was cancelled meanwhile."""
        self._free_lock()
        if not self._over.is_set():  # else it was cancelled
            self._values, self._error = values, error
            self._over.set()  # first: a done callback, which the next lines call, may ask for the result
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.set_result(values[0])
            else:
                self.set_exception(error)

    def _free_lock(self) -> None:
        """Make sure that the base class's lock can be had."""
        if not self._condition.acquire(timeout=LOCK_WAIT_S):
            # An interrupt has hit a method of the base class in the one place where that leaves the lock held for ever.
            self._condition = threading.Condition()
        else:
            self._condition.release()


class TaskFuture(LatchFuture[R]):
    """What `nbpar.submit` returns: a :class:`concurrent.futures.Future` that can be awaited as well.

    Cancelling it stops its task, also while it runs.
    """

    def __init__(self, backend: Backend, job_id: int, make_watch: Callable[[TaskFuture[Any]], Watch]) -> None:
        super().__init__(backend)
        self._job_id = job_id
        self._lines = Lines()
        self._display = Display(lambda: make_watch(self))
        self._pool: object = None  # set by the pool, which lives until the task has ended
        self.task_error: TaskError | None = None  # what is known of the failure: worker, item, traceback as text

    def cancel(self) -> bool:
        """Stop the task; True unless it had ended."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if not was_cancelled:
            with contextlib.suppress(InvalidStateError, RuntimeError):  # another thread cancelled it in this moment
                self.set_running_or_notify_cancel()
            self._over.set()
            with contextlib.suppress(PoolClosedError):  # then the task ends with its pool
                self._backend.cancel(self._job_id)
        return True

    def take_lines(self) -> list[OutputLine]:
        """Lines that the task wrote since the last call."""
        return self._lines.take()

    # JobSink
    def apply(self, event: StateEvent) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""

    def write(self, line: OutputLine) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self._lines.put(line)
        self._display.begin()

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self._settle(values, None)

    def failed(self, error: TaskError) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        cause, self.task_error = error.__cause__, error
        self._told = error if isinstance(cause, StopIteration) else None
        self._settle((), cause if type(error) is TaskError and cause is not None else error)

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        if not self._over.is_set():
            self._settle((), error or JobCancelledError("the task was cancelled"))
        self._pool = None
        self._display.finish(wait=False)
