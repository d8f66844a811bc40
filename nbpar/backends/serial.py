"""No workers: tasks run in the caller's thread, as the job is given. For debugging, and for maps inside a worker.

The same options, outcomes and errors as everywhere, with three differences that having one thread makes: a job has
ended when `submit` returns (one that streams: when `feed` does), a timeout is only seen once its task has ended (a
coroutine that waits is cancelled in time), and when only failed tasks are left whose time has not come, the thread
sleeps until then.
"""

from __future__ import annotations

import heapq
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nbpar.backends.base import JobSpec, Wait, safe_str, task_error
from nbpar.backends.isolation import Isolated, pack
from nbpar.backends.measures import Measures
from nbpar.engine.backoff import delay_s
from nbpar.engine.events import ChunkDone, Failure, Sampled, WorkerStarted
from nbpar.engine.state import Activity
from nbpar.errors import LostUpdateError, PoolClosedError, TaskError, TaskTimeoutError, WorkerStartError
from nbpar.options import PoolOptions
from nbpar.wire.board import Slot
from nbpar.wire.exceptions import strip_own_frames, traceback_text
from nbpar.worker.bars import catch_bars
from nbpar.worker.context import Context, TaskInterrupt, current_context, set_context
from nbpar.worker.execute import Report, run_chunk, unwrapped

__all__ = ["SerialBackend"]

NAP_S = 0.05
"""Sleeping for a task's time, the thread looks so often whether the job was cancelled; an interrupt ends a nap at once,
but not in a worker thread, where it waits for the next bytecode."""


class _Run:
    """A job under way: how far its input has been run."""

    def __init__(self, job: JobSpec, context: Context) -> None:
        self.job = job
        self.context = context
        self.isolated = None if job.options.strict is None else Isolated(job, pack(job))
        self.work = job.work if self.isolated is None else self.isolated.work
        self.error: BaseException | None = None
        self.n_run = 0
        self.later: list[tuple[float, int, int]] = []  # a heap of (due_s, index, attempt): failed tasks
        # Then each has its own time, and what failed need not wait for all the others.
        self.is_one_by_one = (job.options.timeout is not None or job.options.retries > 0) and not self.work.at_once
        self.measures = Measures()
        self.failed = False
        self.cancelled = False
        self.sampler: Any = None


class SerialBackend:
    """A backend without workers."""

    can_pause = False

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        outer = current_context()
        self._worker_id = 0 if outer is None else outer.worker_id
        # Inside a worker, what per_worker built there serves here as well.
        self._values = {} if outer is None or outer.values is None else outer.values
        self._contexts = threading.local()  # each thread that calls runs tasks of its own
        self._runs: dict[int, _Run] = {}
        self._n_chunks = 0
        self._began = False
        self._closed = False

    @property
    def _context(self) -> Context:
        context: Context | None = getattr(self._contexts, "here", None)
        if context is None:
            slot = Slot.alone()
            context = self._contexts.here = Context(self._worker_id, slot, values=self._values)
        return context

    def submit(self, job: JobSpec, wait: Wait | None = None) -> None:
        """Run a job."""
        if self._closed:
            raise PoolClosedError("this pool was shut down; make another one")
        begin_s, is_first = time.perf_counter(), not self._began
        if is_first:
            self._begin()
        ready_s = time.perf_counter() if is_first and self._options.worker_init is not None else begin_s
        catch_bars(own_process=False)
        self._runs[job.job_id] = run = _Run(job, self._context)
        if job.options.profile:
            from nbpar.worker.profile import Sampler

            run.sampler = Sampler(lambda data: job.sink.apply(Sampled(self._worker_id, job.job_id, data)))
        job.sink.apply(WorkerStarted(self._worker_id, os.getpid(), begin_s, ready_s, ready_s - begin_s))
        self.feed(job.job_id, job.n_available, closed=job.closed, todo=job.todo)

    def _begin(self) -> None:
        self._began = True
        if self._options.worker_init is not None:
            try:
                self._options.worker_init()
            except Exception as error:
                self._began = False
                raise WorkerStartError(f"worker_init failed: {type(error).__name__}: {error}") from error

    def feed(
        self, job_id: int, n_available: int, *, closed: bool, todo: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Run the items that are there."""
        run = self._runs.get(job_id)
        if run is None:
            return
        try:
            self._run_to(run, n_available, todo)
        except (KeyboardInterrupt, TaskInterrupt):
            self._end(run, "cancelled")
            raise
        if closed and not run.cancelled:
            self._look(run, 0.0, is_last=True)
        if run.failed:
            self._end(run, "failed")
        elif run.cancelled:
            self._end(run, "cancelled")
        elif closed:
            self._end(run, "done")

    def _end(self, run: _Run, status: Any) -> None:
        if run.work.at_once and run.context.together is None:
            from nbpar.worker.eventloop import close_loop

            close_loop(run.context)
        if self._runs.pop(run.job.job_id, None) is not None:  # else the pool was shut down meanwhile
            if run.isolated is not None:
                run.isolated.close()
            run.job.sink.ended(status, run.error)

    def _run_to(self, run: _Run, n_available: int, todo: Sequence[tuple[int, int]] | None) -> None:
        if todo is None:
            todo = [(run.n_run, n_available)]
        waiting = list(reversed(todo))
        run.n_run = n_available
        while (waiting or run.later) and not run.failed and not run.cancelled:
            if run.later and (not waiting or run.later[0][0] <= time.perf_counter()):
                due_s, index, attempt = heapq.heappop(run.later)
                _sleep_until(due_s, run)
                if not run.cancelled:
                    self._run_chunk(run, run.job.source.take(index, index + 1), index, attempt)
                continue
            start, stop = waiting.pop()
            if run.is_one_by_one and stop - start > 1:
                waiting.append((start + 1, stop))
                stop = start + 1
            self._run_chunk(run, run.job.source.take(start, stop), start, 1)

    def _run_chunk(self, run: _Run, items: Sequence[Any], start: int, attempt: int) -> None:
        self._n_chunks += 1
        chunk_id, context = self._n_chunks, self._context
        slot = context.slot
        context.attempt, context.seed = attempt, run.job.seed
        interrupts: list[BaseException] = []

        def report(one: Report) -> None:
            self._report(run, one, attempt, interrupts)
            if run.failed or run.cancelled or interrupts:
                slot.drop(chunk_id)
                if context.together is not None:
                    context.together.interrupt()

        outer, words, together = current_context(), bytes(slot.words), context.together
        context.together = None
        set_context(context, whole_process=False)
        try:
            usable = [unwrapped(item) for item in items] if run.isolated is None else run.isolated.take(items)
            if run.sampler is not None:
                run.sampler.start()
            run_chunk(
                run.work,
                usable,
                chunk_id=chunk_id,
                start=start,
                context=context,
                quick=False,
                report=report,
            )
        finally:
            if run.sampler is not None:
                run.sampler.stop()
            set_context(outer, whole_process=False)
            slot.words.cast("B")[:] = words  # a map inside a task of this very pool leaves the task as it was
            context.together = together
        if interrupts:
            raise interrupts[0]

    def _look(self, run: _Run, work_s: float, *, is_last: bool = False) -> None:
        """Whether the tasks of a strict job have changed what they must not."""
        if run.isolated is not None and (changed := run.isolated.look(work_s, is_last=is_last)):
            run.failed, run.error = True, run.error or LostUpdateError(changed)

    def _report(self, run: _Run, report: Report, attempt: int, interrupts: list[BaseException]) -> None:
        if run.isolated is not None:
            run.isolated.give(report.values, report.failures, report.first)
            self._look(run, report.end_s - report.begin_s)
        job, timeout_s = run.job, run.job.options.timeout
        first, stop = report.first, report.first + report.n_ended
        failures = dict(report.failures)
        values = iter(report.values)
        if report.longest_s > run.measures.slow_above_s:
            job.sink.apply(run.measures.slow_task(job, self._worker_id, report.longest_index, report.longest_s))
        n_failed = n_again = 0
        for index in range(first, stop):
            error = failures.get(index)
            if error is None:
                value = next(values)
                if timeout_s is None or run.work.at_once or report.end_s - report.begin_s <= timeout_s:
                    job.sink.completed(index, [value])
                    continue
                error = TaskTimeoutError(f"ran longer than timeout={timeout_s:g} s (seen when it had ended)")
            elif isinstance(error, KeyboardInterrupt):  # here this is the user's: tasks run in the main thread
                interrupts.append(error)
                return
            if attempt <= job.options.retries:
                heapq.heappush(run.later, (time.perf_counter() + delay_s(index, attempt), index, attempt + 1))
                n_again += 1
                continue
            n_failed += 1
            self._failed(run, error, index)
        if stop > first:
            job.sink.apply(
                ChunkDone(
                    self._worker_id,
                    first,
                    stop - n_again,
                    report.begin_s,
                    report.end_s,
                    n_failed,
                    longest_index=report.longest_index,
                    longest_s=report.longest_s,
                    n_again=n_again,
                    together=run.work.at_once > 0,
                )
            )

    def _failed(self, run: _Run, error: BaseException, index: int) -> None:
        job = run.job
        item = job.source.take(index, index + 1)[0]
        worker_id = self._worker_id
        outcome: TaskError = task_error(
            strip_own_frames(error), index=index, item=item, worker_id=worker_id, traceback=traceback_text(error)
        )
        job.sink.failed(outcome)
        message = safe_str(error) if outcome.__cause__ is error else outcome.message
        failure = Failure(index, outcome.item_repr, type(error).__name__, message, worker_id, outcome.remote_traceback)
        job.sink.apply(failure)
        run.failed = run.failed or job.options.on_error == "raise"

    def help(self, wait: Wait) -> bool:
        """There is nothing to help with: a call returns when its tasks have ended."""
        return False

    def cancel(self, job_id: int, *, gently: bool = False) -> None:  # it is gentle in any case
        """Stop a job after its running task."""
        run = self._runs.get(job_id)
        if run is not None:
            run.cancelled = True
            if run.context.together is not None:
                run.context.together.interrupt()
            if run.job.closed is False:  # a stream that nobody reads on
                self._end(run, "cancelled")

    def pause(self, job_id: int, *, paused: bool) -> None:
        """Nothing could resume it: not offered (`can_pause`)."""

    def make_room(self, job_id: int) -> None:
        """Nothing runs ahead of the consumer."""

    def chunk_size(self, job_id: int) -> int:
        """Always one."""
        return 1

    def activities(self, job_id: int) -> Mapping[int, Activity]:
        """What runs now, as the ticker's thread sees it."""
        run = self._runs.get(job_id)
        if run is None or run.context.index is None:
            return {}
        slot = run.context.slot
        return {self._worker_id: Activity(slot.index, slot.since_s, 0, slot.tracked)}

    def pids(self) -> Mapping[int, int]:
        """The kernel's own."""
        return {0: os.getpid()} if self._began else {}

    def warm(self) -> None:
        """Nothing to start."""

    def recycle(self, reason: str) -> None:
        """Nothing to replace."""

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """End; whatever ran has ended."""
        was_open, self._closed = not self._closed, True
        for run in list(self._runs.values()):
            run.cancelled = True  # a task of it has called this, or another thread
            self._end(run, "cancelled")
        if self._began and was_open and self._options.worker_exit is not None:
            try:
                self._options.worker_exit()
            except Exception as error:  # noqa: BLE001  # nobody waits for it: it is printed, as workers do
                sys.stderr.write(f"worker_exit failed: {error!r}\n")


def _sleep_until(due_s: float, run: _Run) -> None:
    while not run.cancelled and (left_s := due_s - time.perf_counter()) > 0:
        time.sleep(min(left_s, NAP_S))
