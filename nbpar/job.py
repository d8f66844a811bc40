"""What a user holds of one map call: :class:`Job`.

A job is the sink of its backend: the dispatcher's thread hands it events, values and the end; the user's threads read
results, wait, iterate, cancel; the ticker's thread takes snapshots for its view. Made by :mod:`nbpar.pool`.

What bounds its queues: results are the user's to keep; of a streamed job they are given out and forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, TypeVar

from nbpar.backends.base import Backend, StateEvent, Wait
from nbpar.backends.rerun import Recipe
from nbpar.display import Display, Lines
from nbpar.engine.events import OutputLine, Snapshot, Status
from nbpar.engine.state import JobState
from nbpar.errors import JobCancelledError, JobInterrupt, NbparError, PoolClosedError, TaskError
from nbpar.options import OnError
from nbpar.views.ticker import Watch
from nbpar.waiting import Latch, Waiters

__all__ = ["Job", "as_raised"]

R = TypeVar("R")

SHORT_S = 0.2
"""A call that is over within this time never makes a view."""

_MISSING = object()

_log = logging.getLogger("nbpar")


class Job(Generic[R]):
    """One map call: results, errors, progress; it can be awaited, iterated, paused and cancelled.

    `nbpar.map_async` returns one at once; the jobs of blocking calls are in ``nbpar.jobs()``.

    Attributes
    ----------
    id : int
        Counts the jobs of this session from 1.
    name : str
        What the dashboard calls it.

    Examples
    --------
    >>> import nbpar
    >>> with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
    ...     job = pool.map_async(abs, [-1, -2])
    ...     job.result()
    [1, 2]
    >>> job.status, job.n_done
    ('done', 2)
    """

    def __init__(
        self,
        *,
        job_id: int,
        name: str,
        n_tasks: int | None,
        n_workers: int,
        backend: Backend,
        on_error: OnError,
        make_watch: Callable[[Job[Any]], Watch],
    ) -> None:
        self.id = job_id
        self.name = name
        self._backend = backend
        self._on_error = on_error
        self._begin_s = time.perf_counter()
        self._state = JobState(job_id=job_id, name=name, n_tasks=n_tasks, n_workers=n_workers, begin_s=self._begin_s)
        self._state.status = "running"
        self.is_held = True  # set by the pool: whether the caller has this job, not only its results
        self.is_taken = False  # whether a blocking call has given the results to its caller
        self.are_gone = False  # whether its results were let go
        self._pool: object = None  # set by the pool: a pool whose handle was dropped lives until its jobs have ended
        self._streamed = n_tasks is None
        self._values: list[Any] = [] if n_tasks is None else [_MISSING] * n_tasks
        self._ready: dict[int, Any] = {}  # of a streamed job: values and errors that were not given out yet
        self._errors: dict[int, TaskError] = {}
        self._recipe: Recipe | None = None  # set by the pool; kept when there are failures
        self._error: BaseException | None = None
        self._traceback: tuple[TracebackType | None] | None = None
        self._lock = threading.RLock()  # guards the state, values, errors and callbacks
        self._waiters = Waiters()
        self._over = Latch()
        self._callbacks: list[Callable[[Job[R]], None]] = []
        self._lines = Lines()
        self._display = Display(lambda: make_watch(self))

    # --- what a user asks ---------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """``"running"``, ``"paused"``, ``"done"``, ``"failed"`` or ``"cancelled"``."""
        return self._state.status

    @property
    def n_tasks(self) -> int | None:
        """Tasks in all; None while the length of the input is not known."""
        return self._state.n_tasks

    @property
    def n_done(self) -> int:
        """Tasks that have ended, failed ones included."""
        with self._lock:
            return self._state.n_done

    @property
    def results(self) -> list[R]:
        """Values that are there by now, in the order of the input; after a cancel or an error, what had finished."""
        return list(self.results_by_index.values())

    @property
    def results_by_index(self) -> dict[int, R]:
        """Values that are there by now, by the position of their item."""
        with self._lock:
            self._check_kept()
            if self._streamed:
                return {i: value for i, value in sorted(self._ready.items()) if i not in self._errors}
            found = {i: value for i, value in enumerate(self._values) if value is not _MISSING}
        if self._on_error == "return":
            found = {i: value for i, value in found.items() if i not in self._errors}
        return found

    @property
    def errors(self) -> list[TaskError]:
        """The failures so far; each knows its `index`, `item_repr` and, as ``__cause__``, its exception."""
        with self._lock:
            return [error for _, error in sorted(self._errors.items())]

    def let_results_go(self) -> None:
        """Forget the values of a job that is done; for jobs that only `nbpar.jobs()` still knows."""
        with self._lock:
            if self._state.status == "done":
                self._values, self._ready, self.are_gone = [], {}, True

    def _check_kept(self) -> None:
        if self.are_gone:
            raise NbparError(
                f"the results of {self!r} were let go when the next job began; keep what map() returns, or the Job of "
                f"map_async()"
            )

    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether the job has ended.
        """
        ended = self._over.wait(timeout)
        if ended:
            self._display.finish(wait=True)
        return ended

    def result(self, timeout: float | None = None) -> list[R]:
        """The results in order; waits for them.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; the job goes on when they have passed.

        Returns
        -------
        list
            One value for each item; with ``on_error="return"`` a failed item has its :class:`TaskError` there, with
            ``on_error="skip"`` it has no place.

        Raises
        ------
        Exception
            What the first failed task raised, with ``on_error="raise"``.
        JobCancelledError
            When the job was cancelled; ``job.results`` has what had finished.
        TimeoutError
            When the time has passed first.
        """
        __tracebackhide__ = True
        if not self.wait(timeout):
            raise TimeoutError(f"{self!r} has not ended within {timeout} s; it goes on")
        self._raise_error()
        self._check_kept()
        if self._streamed:
            raise NbparError("the results of imap() were given out one by one; there is no list of them")
        if self._on_error == "skip" and self._errors:
            return [value for value in self._values if value is not _MISSING]
        return self._values

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise; None for a job that succeeded. Waits for the end."""
        try:
            self.result(timeout)
        except TimeoutError:
            if not self.done():
                raise
            return self._failure()
        except BaseException:  # it is returned, as in concurrent.futures
            if not self.done():
                raise
            return self._failure()
        return None

    def cancel(self) -> bool:
        """Stop the job: nothing more is begun, running tasks are interrupted, finished results stay.

        Returns
        -------
        bool
            False when the job had ended already.
        """
        if self._over.is_set():
            return False
        with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
            self._backend.cancel(self.id)
        return True

    def pause(self) -> None:
        """Let running tasks end and begin no more until :meth:`resume`."""
        self._hold(paused=True)

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._hold(paused=False)

    def _hold(self, *, paused: bool) -> None:
        with self._lock:
            if self._over.is_set() or not self._backend.can_pause:
                return
            self._state.status = "paused" if paused else "running"
        self._backend.pause(self.id, paused=paused)

    def add_done_callback(self, function: Callable[[Job[R]], None]) -> None:
        """Call ``function(job)`` when the job ends; at once if it has. It must not block: the dispatcher calls it."""
        with self._lock:
            if not self._over.is_set():
                self._callbacks.append(function)
                return
        self._call_back(function)

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self._awaited().__await__()

    async def _awaited(self) -> list[R]:
        import asyncio  # slow to load, and loaded already where anything is awaited

        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not over.done():
                over.set_result(None)

        def wake(_job: Job[R]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell)

        self.add_done_callback(wake)
        await over
        return self.result()

    def __iter__(self) -> Iterator[R]:
        """Results in order, each as soon as it and all before it are there; a failed task raises at its turn."""
        for index in range(len(self._values)):
            while True:
                with self._lock:
                    if self._values[index] is not _MISSING or index in self._errors or self._over.is_set():
                        break
                    waiter = self._waiters.add()
                Waiters.wait(waiter)
            value = self._values[index]
            if value is not _MISSING:
                yield value
            elif index not in self._errors or self._on_error == "raise":
                self.wait()
                self._raise_error()

    def __len__(self) -> int:
        if self._state.n_tasks is None:
            raise TypeError("the length of this job's input is not known")
        return self._state.n_tasks

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        of = "" if self._state.n_tasks is None else f" of {self._state.n_tasks}"
        with self._lock:
            failed = f", {n_failed} failed" if (n_failed := self._state.n_failed) else ""
        return f"<Job {self.id} {self.name!r}: {self.status}, {self.n_done}{of} tasks{failed}>"

    def snapshot(self) -> Snapshot:
        """An immutable picture of the job now, for views."""
        activities = {} if self._over.is_set() else self._backend.activities(self.id)
        with self._lock:
            return self._state.snapshot(time.perf_counter(), activities)

    def take_lines(self) -> list[OutputLine]:
        """Lines that tasks wrote since the last call; for the view."""
        return self._lines.take()

    def show_now(self) -> None:
        """Begin to show the job without waiting to see whether it lasts."""
        self._display.begin()

    # --- for the blocking calls ---------------------------------------------------------------------------------------

    def until_shown(self, meanwhile: Callable[[], None]) -> Wait:
        """What a blocking call waits for before it shows anything."""
        return Wait(self._over.is_set, SHORT_S, meanwhile)

    def finish(self) -> list[R]:
        """The results for a caller that blocks: shows the view when it takes long."""
        __tracebackhide__ = True  # IPython then shows the user's frames only
        if not self._over.wait(max(0.0, self._begin_s + SHORT_S - time.perf_counter())):
            self._display.begin()
            self._over.wait()
        results = self.result()
        self.is_taken = True
        return results

    def interrupt(self, interrupt: KeyboardInterrupt) -> NoReturn:
        """Cancel on the user's Ctrl-C and say so in one line; an interrupt that a task raised is raised as it is."""
        if isinstance(interrupt, JobInterrupt) or any(interrupt is error.__cause__ for error in self.errors):
            raise interrupt
        self.cancel()
        self._over.wait(1.0)
        self.ended("cancelled", None)  # for one that its backend never got
        self._display.finish(wait=True)
        raise JobInterrupt(f"Interrupted: {self._cancelled()}") from None

    def _cancelled(self) -> str:
        of = "" if self._state.n_tasks is None else f" of {self._state.n_tasks}"
        where = "the job's results" if self.is_held else "nbpar.jobs()[-1].results"
        return f"{self.name} was cancelled; {len(self.results_by_index)}{of} results are kept in {where}"

    def _failure(self) -> BaseException | None:
        """Why there is no list of results: the exception to raise."""
        if self._error is not None:
            return self._error
        if self._state.status == "failed" and self._errors:
            return as_raised(next(iter(self._errors.values())))
        if self._state.status == "cancelled":
            return JobCancelledError(self._cancelled())
        return None

    def _raise_error(self) -> None:
        __tracebackhide__ = True
        error = self._failure()
        if error is None:
            return
        if self._traceback is None:
            self._traceback = (error.__traceback__,)
        # As it came from the task: each raise would add the caller's frames to those of the last one.
        raise error.with_traceback(*self._traceback)

    # --- streaming (imap), for nbpar.streaming ------------------------------------------------------------------------

    def next_streamed(self, n_out: int, *, ordered: bool) -> list[tuple[int, Any]]:
        """Outcomes by index that can be given out now, at least one; waits for it.

        Parameters
        ----------
        n_out : int
            Outcomes given out so far; with `ordered` the next one has this index.
        """
        shown_at_s = self._begin_s + SHORT_S
        while True:
            with self._lock:
                found = self._take_ready(n_out, ordered=ordered)
                waiter = self._waiters.add()
            if found:
                return found
            if self._over.is_set():
                self._raise_error()
                raise JobCancelledError(f"{self.name} was cancelled")
            wait_s = shown_at_s - time.perf_counter()
            if wait_s <= 0:
                self._display.begin()
            Waiters.wait(waiter, wait_s if wait_s > 0 else None)

    def _take_ready(self, n_out: int, *, ordered: bool) -> list[tuple[int, Any]]:
        if not ordered:
            found = list(self._ready.items())
            self._ready.clear()
            return found
        found = []
        while n_out + len(found) in self._ready:
            index = n_out + len(found)
            found.append((index, self._ready.pop(index)))
        return found

    def has_ready(self, index: int, *, ordered: bool) -> bool:
        """Whether an outcome can be given out without waiting."""
        return index in self._ready if ordered else bool(self._ready)

    def input_ended(self, n_tasks: int) -> None:
        """The input has ended after so many items."""
        self._state.n_tasks = n_tasks

    def error_of(self, index: int) -> TaskError | None:
        """The failure of one task."""
        return self._errors.get(index)

    def _rerun(self, index: int) -> Callable[[], R]:
        """A function that runs a failed task once more, here; raises LookupError when its item was not kept."""
        if self._recipe is None:
            raise LookupError(index)
        return self._recipe.task(index)

    # --- what the backend tells (JobSink) -----------------------------------------------------------------------------

    def apply(self, event: StateEvent) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            self._state.apply(event)

    def write(self, line: OutputLine) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        self._lines.put(line)
        self._display.begin()

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            if self._over.is_set():
                return
            if self._streamed:
                self._ready.update(enumerate(values, start))
            else:
                self._values[start : start + len(values)] = values
            self._waiters.wake()

    def failed(self, error: TaskError) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            self._errors[error.index] = error
            if self._recipe is not None:
                self._recipe.keep(error.index)
            if self._streamed:
                self._ready[error.index] = error
            elif self._on_error == "return":
                self._values[error.index] = error
            self._waiters.wake()

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """See :class:`nbpar.backends.base.JobSink`."""
        with self._lock:
            if self._over.is_set():
                return
            self._error = error
            self._pool = None
            self._recipe = None if self._recipe is None else self._recipe.ended()
            self._state.finish(status, time.perf_counter())
            callbacks, self._callbacks = self._callbacks, []
            self._over.set()
            self._waiters.wake()
        self._display.finish(wait=False)
        for callback in callbacks:
            self._call_back(callback)

    def _call_back(self, function: Callable[[Job[R]], None]) -> None:
        try:
            function(self)
        except BaseException:  # noqa: BLE001  # a user's: it must not end the dispatcher
            _log.exception("nbpar: a done callback of %r failed", self)


def as_raised(error: TaskError) -> BaseException:
    """The exception that a blocking call raises for a failed task: the task's own type, with a note on the item."""
    cause = error.__cause__
    if type(error) is not TaskError or cause is None:
        return error
    note = f"nbpar: {error.where}" + ("" if error.worker_id is None else f", on worker {error.worker_id}")
    if note not in getattr(cause, "__notes__", ()):
        with contextlib.suppress(Exception):  # an exception class that refuses new attributes (a frozen dataclass)
            cause.add_note(note)
    return cause
