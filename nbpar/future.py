"""What `nbpar.submit` returns: a future for one task.

A :class:`TaskFuture` is the sink of its backend as a :class:`nbpar.job.Job` is, without the state that a picture needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Literal, TypeVar

from nbpar.backends.base import Backend, StateEvent
from nbpar.display import Display, Lines
from nbpar.engine.events import OutputLine
from nbpar.errors import JobCancelledError, PoolClosedError, TaskError
from nbpar.views.ticker import Watch

__all__ = ["TaskFuture"]

R = TypeVar("R")


class TaskFuture(Future[R]):
    """What `nbpar.submit` returns: a :class:`concurrent.futures.Future` that can be awaited as well.

    Cancelling it stops its task, also while it runs.
    """

    def __init__(self, backend: Backend, job_id: int, make_watch: Callable[[TaskFuture[Any]], Watch]) -> None:
        super().__init__()
        self._backend = backend
        self._job_id = job_id
        self._lines = Lines()
        self._display = Display(lambda: make_watch(self))
        self._pool: object = None  # set by the pool, which lives until the task has ended

    def cancel(self) -> bool:
        """Stop the task; True unless it had ended."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if not was_cancelled:
            with contextlib.suppress(InvalidStateError, RuntimeError):  # another thread cancelled it in this moment
                self.set_running_or_notify_cancel()
            with contextlib.suppress(PoolClosedError):  # then the task ends with its pool
                self._backend.cancel(self._job_id)
        return True

    def __await__(self) -> Generator[Any, None, R]:
        import asyncio  # slow to load, and loaded already where anything is awaited

        return asyncio.wrap_future(self).__await__()

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
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            self.set_result(values[0])

    def failed(self, error: TaskError) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        cause = error.__cause__
        with contextlib.suppress(InvalidStateError):
            self.set_exception(cause if type(error) is TaskError and cause is not None else error)

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        if not self.done():
            with contextlib.suppress(InvalidStateError):
                self.set_exception(error or JobCancelledError("the task was cancelled"))
        self._pool = None
        self._display.finish(wait=False)
