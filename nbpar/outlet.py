"""A job whose outcomes go to whoever began it, each as soon as it is there, instead of waiting to be asked for.

:class:`OutletJob` stands between a backend and the :class:`~nbpar.job.Job` that the card and ``nbpar.jobs()`` show: the
job hears of everything, an :class:`Outlet` gets the values and the errors, in the backend's thread. For doors that hand
out futures (:mod:`nbpar.interop.futures`); whoever would rather take outcomes in a thread of his own, at his own pace,
uses :mod:`nbpar.feeding`.

What bounds it: whoever feeds it. Nothing is kept here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

from nbpar.backends.base import ItemSource, StateEvent, Wait
from nbpar.engine.events import UNLABELLED, OutputLine
from nbpar.errors import PoolClosedError, TaskError
from nbpar.history import forget, remember
from nbpar.job import Job
from nbpar.options import JobOptions
from nbpar.pool import WorkerPool

__all__ = ["Outlet", "OutletJob"]

_log = logging.getLogger("nbpar")


class Outlet(Protocol):
    """Where outcomes go. Called by one thread at a time, the backend's; it must not block."""

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Tasks from `start` on ended with these values."""

    def failed(self, error: TaskError) -> None:
        """A task failed for good; its item can still be taken from the source."""

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """The job is over: tasks without an outcome will have none. `error` ended it, where one did."""


class OutletJob:
    """A job that is fed, and whose outcomes go to an outlet.

    Parameters
    ----------
    pool : WorkerPool
        Runs it.
    function : callable
        Called with each item, or with ``*item`` where `star` is true.
    source : ItemSource
        Gives out the items; the backend's thread asks.
    outlet : Outlet
        Gets the outcomes.
    options : JobOptions
        As of `WorkerPool.map`.
    is_listed : bool
        Whether ``nbpar.jobs()`` has it from the beginning; else from :meth:`show` on, if ever.

    Attributes
    ----------
    job : Job
        What its card and ``nbpar.jobs()`` show; from :meth:`begin` on.
    has_written : bool
        Whether a task has written a line.

    Examples
    --------
    >>> import nbpar
    >>> from nbpar.backends.base import Listed
    >>> class Printed:
    ...     def completed(self, start, values):
    ...         print(start, values)
    ...
    ...     def failed(self, error):
    ...         print(error)
    ...
    ...     def ended(self, status, error):
    ...         print(status)
    >>> with nbpar.WorkerPool(start_method="serial") as pool:
    ...     one = OutletJob(pool, abs, Listed([-1, -2]), Printed(), JobOptions())
    ...     one.begin()
    ...     one.feed(2, closed=True)
    0 [1]
    1 [2]
    done
    """

    job: Job[Any]

    def __init__(
        self,
        pool: WorkerPool,
        function: Callable[..., Any],
        source: ItemSource,
        outlet: Outlet,
        options: JobOptions,
        *,
        star: bool = False,
        is_listed: bool = True,
    ) -> None:
        self._pool: WorkerPool | None = pool
        self._backend = pool._backend
        self._begin = (function, source, options, star)
        self._outlet: Outlet | None = outlet
        self._is_listed = is_listed
        self.has_written = False

    # --- whoever feeds it ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the job, without items.

        Raises
        ------
        PoolClosedError, SerializationError, WorkerStartError
            As `WorkerPool.map`.
        """
        function, source, options, star = self._begin
        pool, self._pool = self._pool, None
        assert pool is not None
        # Like a checkpoint, this stands between the backend and the job.
        checkpoint = cast("Any", self)
        pool._begin(function, source, None, options, star=star, is_held=False, checkpoint=checkpoint)
        if not self._is_listed:
            self._forget()

    def feed(self, n_available: int, *, closed: bool = False) -> None:
        """So many items are there in all; `closed`: no more will come."""
        self.job.input_ended(n_available)
        with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
            self._backend.feed(self.job.id, n_available, closed=closed)

    def drain(self, n_available: int) -> None:
        """Begin no further task of the `n_available`; the job ends when those that have begun have ended."""
        with contextlib.suppress(PoolClosedError):
            self._backend.feed(self.job.id, n_available, closed=True, todo=())

    def stop(self) -> None:
        """As :meth:`drain`, also of tasks that a worker has got and not begun; the job then counts as cancelled."""
        with contextlib.suppress(PoolClosedError):
            self._backend.cancel(self.job.id, gently=True)

    def show(self) -> None:
        """Show the card as soon as the job has lasted long enough for one; from now on ``nbpar.jobs()`` has it."""
        if not self._is_listed:
            self._is_listed = True
            remember(self.job, is_held=False)
        self.job.show_now()

    def help(self, wait: Wait) -> None:
        """Do the backend's work in the calling thread while it waits, where that serves."""
        self._backend.help(wait)

    # --- the pool, when the job begins --------------------------------------------------------------------------------

    def attach(self, job: Job[Any]) -> tuple[OutletJob, None]:
        """Take the place of the job where the backend tells its news."""
        self.job = job
        return self, None

    def close(self) -> None:
        """The job could not be begun: there is nothing to undo."""

    # --- what the backend tells (JobSink) -----------------------------------------------------------------------------

    def apply(self, event: StateEvent) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self.job.apply(event)

    def write(self, line: OutputLine) -> None:
        """See :class:`nbpar.backends.base.JobSink`. Outside a notebook a program's output stays what it was."""
        self.has_written = True
        self.job.write(line if self.job.begun_in is not None else replace(line, worker_id=UNLABELLED))

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        if self._outlet is not None:
            self._guard(self._outlet.completed, start, values)

    def failed(self, error: TaskError) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self.job.failed(error)
        if self._outlet is not None:
            self._guard(self._outlet.failed, error)

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        outlet, self._outlet = self._outlet, None  # the job may be kept in the session's history, with this
        self.job.is_taken = True
        self.job.ended(status, error)
        if outlet is not None:
            self._guard(outlet.ended, status, error)

    def _forget(self) -> None:
        with contextlib.suppress(ValueError):  # a hundred later ones have taken its place
            forget(self.job)

    def _guard(self, tell: Callable[..., None], *args: Any) -> None:
        try:
            tell(*args)
        except BaseException:  # noqa: BLE001  # a done callback of the user's: it must not end the dispatcher
            _log.exception("nbpar: a callback of %r failed", self.job)
