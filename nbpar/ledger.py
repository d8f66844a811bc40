"""The books of one map call: what its backend tells of it, and what its views and the reader of a stream look at.

Owns :class:`Ledger`, the half of a :class:`nbpar.job.Job` that faces the backend, as its
:class:`~nbpar.backends.base.JobSink`; the half that faces the user is the job itself. One thread at a time tells, any
number look: the lock is held for moments.

What bounds its queues: results are the user's to keep; of a streamed job they are given out and forgotten.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from nbpar.backends.base import StateEvent
from nbpar.backends.rerun import Recipe
from nbpar.display import Display, Lines
from nbpar.engine.events import LostUpdate, Note, OutputLine, Restored
from nbpar.engine.state import JobState
from nbpar.errors import TaskError
from nbpar.options import OnError
from nbpar.outcomes import Outcomes
from nbpar.views.cell import name_cell
from nbpar.views.ticker import Watch
from nbpar.waiting import Latch, Waiters

__all__ = ["Ledger"]

R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger("nbpar")


class Ledger(Generic[R]):
    """State, outcomes and lines of one job.

    Parameters
    ----------
    make_watch : callable
        Begins to watch the job with its view.
    """

    def __init__(
        self,
        *,
        job_id: int,
        name: str,
        n_tasks: int | None,
        n_workers: int,
        on_error: OnError,
        make_watch: Callable[[Any], Watch],
    ) -> None:
        self.id = job_id
        self.name = name
        self._on_error = on_error
        self._begin_s = time.perf_counter()
        self._state = JobState(job_id=job_id, name=name, n_tasks=n_tasks, n_workers=n_workers, begin_s=self._begin_s)
        self._state.status = "running"
        self._pool: object = None  # set by the pool: a pool whose handle was dropped lives until its jobs have ended
        self._outcomes: Outcomes[R] = Outcomes(n_tasks, on_error)
        self._recipe: Recipe | None = None  # set by the pool; kept when there is something to be run again
        self._error: BaseException | None = None
        self._lock = threading.RLock()  # guards the state, the outcomes and the callbacks
        self._waiters = Waiters()
        self._over = Latch()
        self._callbacks: list[Callable[[Any], None]] = []
        self._lines = Lines()
        self._display = Display(lambda: make_watch(self))

    # --- what the backend tells (JobSink) -----------------------------------------------------------------------------

    def apply(self, event: StateEvent) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            self._state.apply(event)
        if type(event) is LostUpdate:  # to be read however short the job
            self._display.begin()

    def gather_profile(self) -> None:
        """Put together what workers' profilers see, from now on, and show the job however short it is."""
        from nbpar.engine.profile import Merged

        self._state.merged = Merged(name_cell)

    def write(self, line: OutputLine) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self._lines.put(line)
        self._display.begin()

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            if self._over.is_set():
                return
            self._outcomes.put(start, values)
            self._waiters.wake()

    def failed(self, error: TaskError) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            self._outcomes.fail(error)
            if self._recipe is not None:
                self._recipe.keep(error.index)
            self._waiters.wake()

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            if self._over.is_set():
                return
            self._error = error
            if status == "failed" and error is not None:  # no task's, which would be among the failures
                self._state.apply(Note(f"{type(error).__name__}: {error}"))
            self._pool = None
            self._recipe = None if self._recipe is None else self._recipe.ended(status)
            self._state.finish(status, time.perf_counter())
            if self._state.merged is not None:
                self._display.begin()  # a profile is shown however short the job was; before anyone knows that it ended
            callbacks, self._callbacks = self._callbacks, []
            self._over.set()
            self._waiters.wake()
        self._display.finish(wait=False)
        for callback in callbacks:
            self._call_back(callback)

    def _call_back(self, function: Callable[[Any], None]) -> None:
        try:
            function(self)
        except BaseException:  # noqa: BLE001  # a user's: it must not end the dispatcher
            _log.exception("nbpar: a done callback of %r failed", self)

    # --- what is run again --------------------------------------------------------------------------------------------

    def left(self) -> tuple[Recipe | None, list[tuple[int, int]]]:
        """How tasks of this job are run, and those that failed or have not ended; for a job that is over."""
        with self._lock:
            return self._recipe, self._outcomes.split()[1]

    def take_over(self, before: Ledger[R]) -> list[tuple[int, int]]:
        """Have what a job that is over has already; what is left to be done."""
        with before._lock:
            known, left = before._outcomes.split()
        n_known = sum(len(values) for _, values in known)
        n_tasks = n_known + sum(stop - start for start, stop in left)
        with self._lock:
            for start, values in known:
                self._outcomes.put(start, values)
            self._state.apply(Restored(n_known))
            text = f"{n_known:,} of {n_tasks:,} results are those of job {before.id}; the others are run again."
            self._state.apply(Note(text))
        return left

    # --- what views ask -----------------------------------------------------------------------------------------------

    def take_lines(self) -> list[OutputLine]:
        """Lines that tasks wrote since the last call; for the view."""
        return self._lines.take()

    def show_now(self) -> None:
        """Begin to show the job without waiting to see whether it lasts."""
        self._display.begin()

    @property
    def is_waited_for(self) -> bool:
        """Whether the kernel's main thread does nothing but wait for this job."""
        return self._display.is_waited_for

    # --- what the reader of a stream asks (nbpar.streaming) -----------------------------------------------------------

    def has_ready(self, index: int, *, ordered: bool) -> bool:
        """Whether an outcome can be given out without waiting."""
        ready = self._outcomes.ready
        return index in ready if ordered else bool(ready)

    def wait_for(self, look: Callable[[Outcomes[R]], T | None], timeout: float | None = None) -> T | None:
        """What `look` finds in the outcomes, as soon as it finds something.

        Parameters
        ----------
        look : callable
            Looks at the outcomes, and may take of them; called while the job stands still, so it must be quick.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        object
            None when the time has passed, or when the job is over and nothing was found.
        """
        end_s = None if timeout is None else time.perf_counter() + timeout
        while True:
            with self._lock:
                found = look(self._outcomes)
                if found is not None or self._over.is_set():
                    return found
                waiter = self._waiters.add()
            left_s = None if end_s is None else end_s - time.perf_counter()
            if left_s is not None and left_s <= 0:
                return None
            Waiters.wait(waiter, left_s)

    def look_again(self) -> None:
        """Have all that wait by `wait_for` look again."""
        with self._lock:
            self._waiters.wake()

    def input_ended(self, n_tasks: int) -> None:
        """The input has ended after so many items."""
        self._state.n_tasks = n_tasks

    def error_of(self, index: int) -> TaskError | None:
        """The failure of one task."""
        return self._outcomes.errors.get(index)
