"""What a user holds of one map call: :class:`Job`.

The user's threads read results, wait, iterate, cancel, and have what failed run again; the ticker's thread takes
snapshots for the view. What the backend tells is in :mod:`nbpar.ledger`. Made by :mod:`nbpar.pool`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from nbpar.backends.base import Backend, Wait
from nbpar.display import picture, show
from nbpar.engine.snapshot import Profile, Snapshot, Status
from nbpar.errors import JobCancelledError, JobInterrupt, NbparError, PoolClosedError, TaskError
from nbpar.ledger import Ledger
from nbpar.options import OnError
from nbpar.raising import add_note, as_raised, as_raised_inside, carry_results, drop_own_frames
from nbpar.usage import UsageLog
from nbpar.views.cell import Cell
from nbpar.views.ticker import Watch
from nbpar.waiting import Waiters, until_done
from nbpar.worker.context import current_context

if TYPE_CHECKING:
    from nbpar.insights import JobInsights

__all__ = ["Job"]

R = TypeVar("R")

SHORT_S = 0.2
"""A call that is over within this time never makes a view."""


class Job(Ledger[R]):
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
        super().__init__(
            job_id=job_id, name=name, n_tasks=n_tasks, n_workers=n_workers, on_error=on_error, make_watch=make_watch
        )
        self._backend = backend
        self._usage: UsageLog | None = None  # made when somebody looks
        self._state.can_pause = backend.can_pause
        self.is_held = True  # set by the pool: whether the caller has this job, not only its results
        self.begun_in: Cell | None = None  # set by the pool
        self.is_taken = False  # whether a blocking call has given the results to its caller
        self._retry: Callable[[Job[R]], Job[R]] | None = None  # set by the pool
        self._traceback: tuple[TracebackType | None] | None = None

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
            return self._outcomes.by_index()

    @property
    def errors(self) -> list[TaskError]:
        """The failures so far; each knows its `index`, `item_repr` and, as ``__cause__``, its exception."""
        with self._lock:
            return [error for _, error in sorted(self._outcomes.errors.items())]

    def let_results_go(self) -> None:
        """Forget the values of a job that is done; for jobs that only `nbpar.jobs()` still knows."""
        with self._lock:
            if self._state.status == "done":
                self._outcomes.let_go()
        self.let_input_go()

    def let_input_go(self) -> None:
        """Forget the input of a job that is over, which only `retry_failed` would need."""
        with self._lock:
            if not self._over.is_set():
                return
            if self._recipe is not None:
                self._recipe.trim()
            if self._traceback is not None and self._outcomes.errors:
                drop_own_frames(as_raised(next(iter(self._outcomes.errors.values()))))

    @property
    def are_gone(self) -> bool:
        """Whether its results were let go."""
        return self._outcomes.are_gone

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
        if not self._over.is_set():
            with self._display.waited_for(self.name):
                self._over.wait(timeout)
        if ended := self._over.is_set():
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
        if self._outcomes.is_streamed:
            raise NbparError("the results of imap() were given out one by one; there is no list of them")
        return self._outcomes.as_list()

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

    def retry_failed(self) -> Job[R]:
        """Run once more what failed, was lost or never began, and keep the rest.

        The function is the one of the first call, pickled afresh: what it refers to counts as it is now, so mend what
        it reads and call this. (A function that was defined anew is another one: map it over the items of `errors`.)
        Options are the same, a checkpoint included; so is the seed of each task, and each has its `retries` again.

        What is needed for that is kept: the items of the failures of a job that is done, the input of one that failed
        or was cancelled. After a `map`, until the next job begins; after a `map_async`, as long as you have the job
        (of those that did not end well the last five keep their input in any case).

        Returns
        -------
        Job
            A new one, at once. Its ``result()`` is the whole list, with what was there in its place. The job itself
            when there is nothing to run.

        Raises
        ------
        NbparError
            While the job runs; when its results or its items were let go; for `imap`, which keeps neither.
        PoolClosedError
            When its pool was shut down, unless it was the notebook's own.

        Examples
        --------
        >>> import nbpar
        >>> limits = {"largest": 2}
        >>> def check(x):
        ...     assert x <= limits["largest"], x
        ...     return x
        >>> with nbpar.WorkerPool(start_method="serial") as pool:
        ...     job = pool.map_async(check, [1, 2, 3], on_error="return")
        ...     limits["largest"] = 3
        ...     job.retry_failed().result()
        [1, 2, 3]
        """
        if not self._over.is_set():
            raise NbparError(f"{self!r} has not ended; wait for it, or cancel it, before what failed is run again")
        if self._outcomes.is_streamed:
            raise NbparError(
                f"{self!r} gave out its results one by one and has kept no items; use map() or map_async() for what is "
                f"to be run again"
            )
        self._check_kept()
        if self._retry is None or self._recipe is None:
            return self
        return self._retry(self)

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
        with self._display.waited_for(self.name):
            await until_done(self.add_done_callback)
        try:
            return self.result()
        except StopIteration as error:
            raise self._inside(error) from error

    def __iter__(self) -> Iterator[R]:
        """Results in order, each as soon as it and all before it are there; a failed task raises at its turn."""
        outcomes = self._outcomes
        for index in range(len(outcomes)):
            while True:
                with self._lock:
                    if outcomes.has(index) or self._over.is_set():
                        break
                    waiter = self._waiters.add()
                with self._display.waited_for(self.name):
                    Waiters.wait(waiter)
            is_there, value = outcomes.get(index)
            if is_there:
                yield value
            elif index not in outcomes.errors or self._on_error == "raise":
                self.wait()
                try:
                    self._raise_error()
                except StopIteration as error:
                    raise self._inside(error) from error

    def _inside(self, error: StopIteration) -> BaseException:
        """What is raised in its place where Python would make a RuntimeError of it, which names no item."""
        return next((as_raised_inside(one) for one in self.errors if one.__cause__ is error), error)

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

    def show(self) -> None:
        """Draw the job in the cell that runs now, wherever it came from; outside a notebook, write it as text.

        While it runs it is a live card, beside others that there are of it; once it has ended, the picture that stays.

        Examples
        --------
        >>> import nbpar
        >>> with nbpar.WorkerPool(start_method="serial") as pool:
        ...     pool.map_async(abs, [-1, -2], name="both").show()  # doctest: +ELLIPSIS
        both: done, 2 of 2 tasks...
        """
        show(self, self._display, self._lines)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What Jupyter draws of a cell's last expression."""
        has_card = self.begun_in is not None and self.begun_in.is_current  # or will have, once it has lasted
        return ({} if has_card else picture(self.snapshot())) | {"text/plain": repr(self)}

    @property
    def profile(self) -> Profile | None:
        """Where the tasks' time went, of a job with ``profile=True`` that has ended; else None."""
        return self.snapshot().profile

    def snapshot(self) -> Snapshot:
        """An immutable picture of the job now, for views."""
        log = self._usage = self._usage or UsageLog()
        activities = {} if (is_over := self._over.is_set()) else self._backend.activities(self.id)
        usage = log.samples if is_over else log.look(time.perf_counter() - self._begin_s, self._backend.pids)
        with self._lock:
            self._state.adviser.threads_cpu = self._usage.threads_cpu
            return self._state.snapshot(time.perf_counter(), activities, usage)

    @property
    def insights(self) -> JobInsights:
        """Where its time went, as of now or of its end: print it, or take its numbers; see :class:`JobInsights`.

        Examples
        --------
        >>> import nbpar
        >>> with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
        ...     job = pool.map_async(abs, [-1, -2])
        ...     _ = job.result()
        >>> job.insights.n_done, job.insights.n_failed
        (2, 0)
        """
        from nbpar.insights import JobInsights

        return JobInsights.of(self.snapshot())

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
        raised = JobInterrupt(f"Interrupted: {self.name} was cancelled; {self._kept()}")
        carry_results(raised, self.results)
        raise raised from None

    def _kept(self) -> str:
        """Where the results are that there are, in words."""
        of = "" if self._state.n_tasks is None else f" of {self._state.n_tasks}"
        where = "the job's results" if self.is_held else "nbpar.jobs()[-1].results"
        return f"{len(self.results_by_index)}{of} results are kept in {where}"

    def _failure(self) -> BaseException | None:
        """Why there is no list of results: the exception to raise, with what there is."""
        status, errors = self._state.status, self._outcomes.errors
        error = self._error
        if error is None and status == "failed" and errors:
            error = as_raised(next(iter(errors.values())))
        elif error is None and status == "cancelled":
            error = JobCancelledError(f"{self.name} was cancelled; {self._kept()}")
        # In a worker, by a map within a task: the exception leaves it, and `nbpar.jobs()` of the kernel has other jobs.
        if error is None or self._outcomes.is_streamed or current_context() is not None:
            return error
        if (results := self.results) and not isinstance(error, JobCancelledError):
            call = "the job's retry_failed()" if self.is_held else "nbpar.jobs()[-1].retry_failed()"
            add_note(error, f"nbpar: {self._kept()}; {call} runs the others")
        carry_results(error, results)
        return error

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
                found = self._outcomes.take_ready(n_out, ordered=ordered)
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

    def _rerun(self, index: int) -> Callable[[], R]:
        """A function that runs a failed task once more, here; raises LookupError when its item was not kept."""
        if self._recipe is None:
            raise LookupError(index)
        return self._recipe.task(index)
