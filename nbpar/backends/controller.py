"""The work that drives a pool: what workers tell goes to the scheduler, what the scheduler decides to the workers.

Owns the scheduler's surroundings: the jobs under way, what is known of started workers, how long tasks took. Its caller
is :mod:`nbpar.backends.dispatcher`, one thread at a time; what becomes of tasks is told to each job (a ``JobSink``).

Bounds: results are handed to the job as they come and are not kept here; of speeds the last 64 are.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from nbpar.backends.base import (
    Gone,
    Heavy,
    JobSpec,
    Left,
    NoJob,
    NotReady,
    Prepared,
    Printed,
    Ready,
    ShuttingDown,
    Streamed,
    TasksEnded,
    WorkerEvent,
    Workers,
    safe_str,
    task_error,
)
from nbpar.backends.losses import describe_end, loss_error, lost_time
from nbpar.backends.measures import Measures
from nbpar.backends.memory import MemoryWatch
from nbpar.engine.events import (
    ChunkDone,
    Failure,
    LostUpdate,
    Note,
    OutputLine,
    Sampled,
    WorkerEnded,
    WorkerStarted,
    WorkLost,
)
from nbpar.engine.instructions import EndJob, Instruction, Interrupt, Kill, Recall, Send, StartWorker, StopWorker, Tell
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.scheduler import Scheduler
from nbpar.errors import LostUpdateError, NbparError, PoolClosedError, TaskError, WorkerStartError
from nbpar.options import PoolOptions
from nbpar.sizes import in_words

__all__ = ["Controller", "Record"]

QUICK_MEAN_S = 0.0005
"""Tasks shorter than this run at the quick pace: half of what makes them travel one at a time."""

MAX_SPEEDS = 64


class Record:
    """A job with what the workers prepared for it."""

    __slots__ = ("error", "heavy", "job", "mean_s", "measures", "prepared", "quick")

    def __init__(self, job: JobSpec, prepared: Prepared) -> None:
        self.job = job
        self.prepared = prepared
        self.measures = Measures(together=job.at_once > 0)
        self.quick = False
        self.mean_s: float | None = None
        self.error: BaseException | None = None
        self.heavy: set[int] = set()  # workers of which it was told that they were replaced for their memory


class Controller:
    """Scheduler and workers of one pool, joined.

    Attributes
    ----------
    scheduler : Scheduler
    closing : bool
        Whether the pool takes no more jobs.
    """

    def __init__(self, workers: Workers, options: PoolOptions) -> None:
        self.scheduler = Scheduler(
            n_workers=options.count,
            tasks_per_worker=options.tasks_per_worker,
            idle_timeout_s=options.idle_timeout,
        )
        self.closing = False
        self._workers = workers
        self._n_workers = options.count
        self._limit_bytes = options.memory_limit_bytes
        self._has_exit_hook = options.worker_exit is not None
        has_processes = options.start_method not in ("threads", "serial")
        self._memory = MemoryWatch(options.memory_limit_bytes) if has_processes else None
        self._jobs: dict[int, Record] = {}
        self._started: dict[int, WorkerStarted] = {}
        self._stopping: dict[int, str] = {}  # reason by worker, for workers asked to end
        self._killed: set[int] = set()  # workers that were sent SIGKILL or SIGTERM
        self._exits: dict[int, float] = {}  # time of `worker_exit` by worker, until that has ended
        self._start_error = ""
        self._speeds: OrderedDict[object, float] = OrderedDict()  # mean duration of tasks, by function

    @property
    def is_over(self) -> bool:
        """Whether the pool is to end and nothing is waited for: no job, and no `worker_exit`."""
        return self.closing and not self._jobs and not (self._has_exit_hook and self.scheduler.has_workers)

    # --- turns --------------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Take in what has happened."""
        for event in self._workers.poll():
            self._handle(event)

    def act(self) -> float | None:
        """Do what is to be done now.

        Returns
        -------
        float or None
            Seconds until there is more to do by the clock; None when only news count.
        """
        retired = self.closing and not self._jobs
        if retired:
            self.scheduler.retire()
        now_s = time.perf_counter()
        seen = {}
        if self.scheduler.needs_board:
            looks = ((worker_id, self._workers.look(worker_id)[0]) for worker_id in range(self._n_workers))
            seen = {worker_id: running for worker_id, running in looks if running is not None}
        if self._memory is not None and self._memory.is_due(now_s):
            self._watch_memory(self._memory, now_s)
        for instruction in self.scheduler.decide(now_s, seen):
            self._carry_out(instruction)
        if self.scheduler.start_failed:
            self.fail_everything(WorkerStartError(f"workers cannot be started: {self._start_error}"))
            self.scheduler.give_up_starting()
        if self.closing and not self._jobs and not retired:
            return 0.0
        due_s, rest_s = self.scheduler.next_look_s(now_s), self._workers.rest_in_s(now_s)
        if self._memory is not None and (look_s := self._memory.rest_in_s(now_s, is_busy=self.scheduler.is_busy)):
            rest_s = look_s if rest_s is None else min(look_s, rest_s)
        return due_s if rest_s is None else rest_s if due_s is None else min(due_s, rest_s)

    def _watch_memory(self, memory: MemoryWatch, now_s: float) -> None:
        """Stop the workers that must be: with their task, or, of those that have none, by and by."""
        busy = {worker_id for worker_id in self._started if self.scheduler.held_chunks(worker_id)}
        for stop in memory.look(now_s, busy):
            running = self._workers.look(stop.worker_id)[0]
            if running is not None:
                self.scheduler.kill_for_memory(stop.worker_id, running)
            elif stop.worker_id in busy:  # its task has ended just now, or the next not begun
                memory.spare(stop.worker_id)
            else:
                self.scheduler.replace(stop.worker_id)

    # --- what users ask -----------------------------------------------------------------------------------------------

    def add(self, record: Record) -> None:
        """Begin a job."""
        job = record.job
        if self.closing:
            job.sink.ended("cancelled", PoolClosedError("the pool was shut down before the job began"))
            return
        self._jobs[job.job_id] = record
        for started in self._started.values():
            job.sink.apply(started)
        options = job.options
        known_s = self._speeds.get(record.prepared.speed_key)
        record.quick = known_s is not None and known_s < QUICK_MEAN_S and options.timeout is None
        self.scheduler.add_job(
            JobPlan(
                job_id=job.job_id,
                n_available=job.n_available,
                closed=job.closed,
                chunk_size=options.chunk_size,
                timeout_s=options.timeout,
                retries=options.retries,
                max_in_flight=options.max_in_flight,
                mean_s=known_s,
                todo=job.todo,
                together=job.at_once > 0,
                pin=options.pin,
            )
        )

    def make_room(self, job_id: int) -> None:
        """New tasks of a job may be begun again, now that its consumer has taken results."""
        record = self._jobs.get(job_id)
        if record is not None and isinstance(record.job.source, Streamed):
            self.scheduler.fill(job_id, is_full=record.job.source.is_full())

    def recycle(self, reason: str) -> None:
        """Replace all workers as they get free, and tell the jobs why."""
        self.scheduler.recycle()
        for record in self._jobs.values():
            record.job.sink.apply(Note(reason))

    def close(self, *, cancel: bool) -> None:
        """Take no more jobs, and wait for those under way or cancel them."""
        self.closing = True
        now_s = time.perf_counter()
        for job_id in self._jobs:
            # A stream that is still read would be waited for by its own consumer.
            if cancel or self.scheduler.is_open(job_id):
                self.scheduler.stop_job(job_id, EndJob(job_id, "cancelled"), now_s)

    # --- instructions -------------------------------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(worker_id, chunk):
                record = self._jobs[chunk.job_id]
                begin_s = time.perf_counter()
                n_bytes = self._workers.send(worker_id, chunk, record.job, record.prepared, quick=record.quick)
                self.scheduler.sent(worker_id, chunk.chunk_id, n_bytes)
                record.measures.sent(chunk.chunk_id, time.perf_counter() - begin_s, n_bytes)
            case Interrupt(worker_id, chunk_id):
                self._workers.interrupt(worker_id, chunk_id)
            case Recall(worker_id, chunk_id):
                self._workers.recall(worker_id, chunk_id)
            case Kill(worker_id, gently):
                self._killed.add(worker_id)
                self._workers.kill(worker_id, gently=gently)
            case StartWorker(worker_id):
                self._workers.start(worker_id)
            case StopWorker(worker_id, reason):
                self._stopping[worker_id] = reason
                self._workers.stop(worker_id)
            case Tell(job_id, text):
                self._jobs[job_id].job.sink.apply(Note(text))
            case EndJob(job_id, status):
                self._end_job(job_id, status)

    def _end_job(self, job_id: int, status: Any) -> None:
        record = self._jobs.pop(job_id, None)
        if record is not None:
            if status != "done":
                self._tell_lost_work(record)
            self._remember_speed(record)
            self._workers.end_job(job_id)
            record.job.sink.ended(status, record.error)

    def _tell_lost_work(self, record: Record) -> None:
        """What workers are in the midst of when the job ends counts as work."""
        for worker_id in range(self._n_workers):
            running = self._workers.look(worker_id)[0]
            if running is not None and self._job_of(worker_id, running) == record.job.job_id:
                record.job.sink.apply(WorkLost(worker_id, running.since_s, time.perf_counter()))

    def _job_of(self, worker_id: int, running: Running | None) -> int | None:
        """The job of the task that a worker runs."""
        held = next(iter(self.scheduler.held_chunks(worker_id)), None)
        if held is None or running is None or running.index is None or held.chunk_id != running.chunk_id:
            return None
        return held.job_id

    def _remember_speed(self, record: Record) -> None:
        key = record.prepared.speed_key
        if key is not None and record.mean_s is not None:
            self._speeds[key] = record.mean_s
            self._speeds.move_to_end(key)
            if len(self._speeds) > MAX_SPEEDS:
                self._speeds.popitem(last=False)

    def fail_everything(self, error: NbparError) -> None:
        """End all jobs with an error that is none of theirs."""
        for record in list(self._jobs.values()):
            self._jobs.pop(record.job.job_id)
            self._workers.end_job(record.job.job_id)
            record.job.sink.ended("failed", error)
            self.scheduler.stop_job(record.job.job_id, EndJob(record.job.job_id, "failed"), time.perf_counter())

    def _fail_job(self, job_id: int, error: BaseException) -> None:
        record = self._jobs.get(job_id)
        if record is not None and record.error is None:
            record.error = error
            self.scheduler.stop_job(job_id, EndJob(job_id, "failed"), time.perf_counter())

    # --- events -------------------------------------------------------------------------------------------------------

    def _handle(self, event: WorkerEvent) -> None:
        match event:
            case TasksEnded():
                self._tasks_ended(event)
            case Printed():
                self._printed(event)
            case Ready():
                self._worker_ready(event)
            case Left():
                self._exits[event.worker_id] = event.exit_s
            case Gone():
                self._worker_gone(event)
            case Heavy():
                self._worker_heavy(event)
            case Sampled() | LostUpdate():
                self._seen_in_worker(event)
            case NoJob():
                self._fail_job(event.job_id, event.error)
            case ShuttingDown():
                self.fail_everything(WorkerStartError("the fork server was ended: is the kernel shutting down?"))
                self.scheduler.give_up_starting()
            case NotReady():
                error = WorkerStartError(f"worker_init failed: {type(event.error).__name__}: {safe_str(event.error)}")
                error.__cause__ = event.error
                self.scheduler.worker_refused(event.worker_id)
                self.fail_everything(error)
                self.scheduler.give_up_starting()

    def _seen_in_worker(self, event: Sampled | LostUpdate) -> None:
        record = self._jobs.get(event.job_id)
        if record is not None and isinstance(event, LostUpdate) and record.job.options.strict is not None:
            self._fail_job(event.job_id, LostUpdateError(event.names))
        elif record is not None:
            record.job.sink.apply(event)

    def _worker_ready(self, event: Ready) -> None:
        started = WorkerStarted(event.worker_id, event.pid, event.begin_s, event.ready_s, event.init_s)
        self._started[event.worker_id] = started
        self.scheduler.worker_ready(event.worker_id)
        if self._memory is not None:
            self._memory.began(event.worker_id, event.pid, event.inherited_bytes)
        for record in self._jobs.values():
            record.job.sink.apply(started)

    def _tasks_ended(self, event: TasksEnded) -> None:
        chunk = self.scheduler.tasks_ended(
            event.worker_id,
            event.chunk_id,
            done_to=event.first + event.n_ended,
            first=event.first,
            final=event.final,
            work_s=event.end_s - event.begin_s,
            n_bytes=event.n_bytes,
        )
        record = self._jobs.get(chunk.job_id) if chunk is not None else None
        if record is None or chunk is None:
            return
        if not event.n_ended:
            record.measures.dropped(event.chunk_id)
            if event.end_s > event.begin_s:
                record.job.sink.apply(WorkLost(event.worker_id, event.begin_s, event.end_s))
            return
        job, first, stop = record.job, event.first, event.first + event.n_ended
        if event.longest_s > record.measures.slow_above_s:
            job.sink.apply(record.measures.slow_task(job, event.worker_id, event.longest_index, event.longest_s))
        record.quick = job.options.timeout is None and (event.end_s - event.begin_s) / event.n_ended < QUICK_MEAN_S
        record.mean_s = self.scheduler.mean_s(job.job_id)
        n_failed = n_again = 0
        values, taken, at, dropped = event.values, 0, first, first
        each_bytes = event.n_bytes // max(1, len(values))
        for index, error, traceback in event.failures:
            if index > at:
                self._count(job, at, index, each_bytes)
                job.sink.completed(at, values[taken : taken + index - at])
                taken += index - at
            at = index + 1
            if self.scheduler.task_failed(job.job_id, index, time.perf_counter()):
                n_again += 1
                job.source.drop(dropped, index)
                dropped = index + 1
                continue
            n_failed += 1
            item = job.source.take(index, index + 1)[0]
            outcome = task_error(error, index=index, item=item, worker_id=event.worker_id, traceback=traceback)
            self._task_failed(record, outcome)
        if stop > at:
            self._count(job, at, stop, each_bytes)
            job.sink.completed(at, values[taken:] if taken else values)
        job.source.drop(dropped, stop)
        job.sink.apply(record.measures.done(event, n_failed, n_again))

    def _count(self, job: JobSpec, start: int, stop: int, each_bytes: int) -> None:
        """Before the job has them: its consumer counts them off."""
        if isinstance(job.source, Streamed) and job.source.results_come(start, stop, each_bytes):
            self.scheduler.fill(job.job_id, is_full=True)

    def _task_failed(self, record: Record, error: TaskError) -> None:
        sink = record.job.sink
        cause = error.__cause__
        sink.failed(error)
        told = None if type(error) is not TaskError else cause
        sink.apply(
            Failure(
                index=error.index,
                item_repr=error.item_repr,
                error_type=type(told or error).__name__,
                message=error.message if told is None else safe_str(told),
                worker_id=error.worker_id,
                traceback=error.remote_traceback,
            )
        )
        if record.job.options.on_error == "raise":
            job_id = record.job.job_id
            self.scheduler.stop_job(job_id, EndJob(job_id, "failed"), time.perf_counter())

    def _printed(self, event: Printed) -> None:
        chunk = next(iter(self.scheduler.held_chunks(event.worker_id)), None)
        record = self._jobs.get(chunk.job_id) if chunk is not None else None
        if record is None:  # between jobs: the newest one that runs, else the text has no cell to go to
            record = next(reversed(self._jobs.values()), None)
        if record is not None:
            for text in event.lines:
                record.job.sink.write(OutputLine(event.worker_id, event.index, event.stream, text))

    def _worker_heavy(self, event: Heavy) -> None:
        worker_id = event.worker_id
        self.scheduler.replace(worker_id)
        chunk = next(iter(self.scheduler.held_chunks(worker_id)), None)
        record = self._jobs.get(chunk.job_id) if chunk is not None else None
        if record is not None and self._limit_bytes is not None and worker_id not in record.heavy:
            record.heavy.add(worker_id)  # told once, though it may be so after each task
            limit = in_words(self._limit_bytes)
            held = f"Worker {worker_id} was replaced after its task: it held {in_words(event.used_bytes)}"
            record.job.sink.apply(Note(f"{held}, memory_limit is {limit}."))

    def _worker_gone(self, event: Gone) -> None:
        worker_id = event.worker_id
        reason = self._stopping.pop(worker_id, None)
        started = self._started.pop(worker_id, None)
        stop = out_of_memory = None
        if self._memory is not None:
            stop, out_of_memory = self._memory.ended(worker_id, killed=event.exit_code == -9)
        by_nbpar = worker_id in self._killed
        self._killed.discard(worker_id)
        how = describe_end(event, stop, self._limit_bytes, by_nbpar=by_nbpar, out_of_memory=out_of_memory)
        self._start_error = event.start_error or f"a worker {how} before it was ready. {event.last_words}".strip()
        job_id = self._job_of(worker_id, event.running)
        lost = self.scheduler.worker_lost(worker_id, event.running, time.perf_counter())
        expected, exit_s = reason is not None, self._exits.pop(worker_id, 0.0)
        ended = WorkerEnded(worker_id, event.pid, time.perf_counter(), reason or how, expected, exit_s)
        for record in self._jobs.values():
            if started is not None:
                record.job.sink.apply(ended)
        if lost is None:
            if job_id in self._jobs:
                self._jobs[job_id].job.sink.apply(WorkLost(worker_id, *lost_time(event)))
            return
        failed = self._jobs.get(lost.job_id)
        if failed is None:
            return
        error = loss_error(lost.loss, event, failed.job, how, stop, n_deaths=lost.n_deaths)
        if lost.loss == "function":
            self._fail_job(lost.job_id, error)
            return
        begin_s, end_s = lost_time(event)
        if end_s - begin_s > failed.measures.slow_above_s:
            failed.job.sink.apply(failed.measures.slow_task(failed.job, worker_id, lost.index, end_s - begin_s))
        item = failed.job.source.take(lost.index, lost.index + 1)[0]
        task_error(error, index=lost.index, item=item, worker_id=worker_id, traceback=event.last_words)
        failed.job.sink.apply(ChunkDone(worker_id, lost.index, lost.index + 1, begin_s, end_s, 1))
        self._task_failed(failed, error)
        failed.job.source.drop(lost.index, lost.index + 1)
