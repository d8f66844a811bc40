"""The one thread of a pool: it alone drives the scheduler and talks to the workers.

::

    user's threads                      the dispatcher's thread                                workers
    --------------                      -----------------------                                -------
    submit, feed, cancel --commands--> Scheduler --instructions--> Workers.send, start --> ... run tasks
                                           ^                                                       |
    Job (JobSink) <----- events, values ---+--------------- Workers.poll <--- results, output, deaths

Bounds: `commands` holds what users' threads asked for since the last turn (a few entries); results are handed to the
job as they come and are not kept here. Nothing is locked but the command queue, a deque with atomic ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from nbpar.backends.base import (
    Gone,
    JobSpec,
    NoJob,
    NotReady,
    Prepared,
    Printed,
    Ready,
    ShuttingDown,
    TasksEnded,
    WorkerEvent,
    Workers,
    safe_str,
    task_error,
)
from nbpar.backends.losses import describe_exit, loss_error, lost_time
from nbpar.engine.events import ChunkDone, Failure, Note, OutputLine, WorkerEnded, WorkerStarted
from nbpar.engine.instructions import (
    EndJob,
    Instruction,
    Interrupt,
    Kill,
    Recall,
    Send,
    StartWorker,
    StopWorker,
)
from nbpar.engine.plans import JobPlan
from nbpar.engine.scheduler import Scheduler
from nbpar.engine.state import Activity
from nbpar.errors import (
    InternalError,
    NbparError,
    PoolClosedError,
    TaskError,
    WorkerStartError,
)
from nbpar.options import PoolOptions

__all__ = ["Dispatcher"]

QUICK_MEAN_S = 0.0005
"""Tasks shorter than this run at the quick pace: half of what makes them travel one at a time."""

MAX_SPEEDS = 64

_log = logging.getLogger("nbpar")


class _Record:
    """A job with what the workers prepared for it."""

    __slots__ = ("error", "job", "mean_s", "prepared", "quick")

    def __init__(self, job: JobSpec, prepared: Prepared) -> None:
        self.job = job
        self.prepared = prepared
        self.quick = False
        self.mean_s: float | None = None
        self.error: BaseException | None = None


class Dispatcher:
    """A backend whose workers run beside the kernel's main thread: processes or threads.

    Parameters
    ----------
    workers : Workers
        Owned from now on: its methods are called by the dispatcher's thread, which also closes it.
    options : PoolOptions
    """

    can_pause = True

    def __init__(self, workers: Workers, options: PoolOptions) -> None:
        self._workers = workers
        self._n_workers = options.count
        self._scheduler = Scheduler(
            n_workers=options.count,
            tasks_per_worker=options.tasks_per_worker,
            idle_timeout_s=options.idle_timeout,
        )
        self._jobs: dict[int, _Record] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._started: dict[int, Ready] = {}
        self._stopping: dict[int, str] = {}  # reason by worker, for workers asked to end
        self._start_error = ""
        self._speeds: OrderedDict[object, float] = OrderedDict()  # mean duration of tasks, by function
        self._closing = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        # Guards the start of the thread and the refusal of commands once it has ended. Reentrant: the garbage collector
        # may drop a stream, which cancels its job, while the lock is held.
        self._thread_lock = threading.RLock()
        self._has_exit_hook = options.worker_exit is not None
        self._owner_pid = os.getpid()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def submit(self, job: JobSpec) -> None:
        """Begin a job."""
        __tracebackhide__ = True
        record = _Record(job, self._workers.prepare(job))
        self._post(lambda: self._add(record))

    def feed(self, job_id: int, n_available: int, *, closed: bool) -> None:
        """More items of a streamed job are there."""
        self._post(lambda: self._scheduler.feed(job_id, n_available, closed=closed))

    def cancel(self, job_id: int) -> None:
        """Stop a job."""
        self._post(lambda: self._scheduler.stop_job(job_id, EndJob(job_id, "cancelled"), time.perf_counter()))

    def pause(self, job_id: int, *, paused: bool) -> None:
        """Hold a job or let it go on."""
        self._post(lambda: self._scheduler.pause(job_id, paused=paused))

    def chunk_size(self, job_id: int) -> int:
        """Tasks that travel together at the moment."""
        return self._scheduler.chunk_size(job_id)

    def activities(self, job_id: int) -> Mapping[int, Activity]:
        """What each worker does for a job now."""
        found = {}
        for worker_id in range(self._n_workers):
            running, activity = self._workers.look(worker_id)
            if running is None or activity.index is None:
                continue
            # Another thread's data, read without a lock: a chunk that ended a moment ago is simply not found.
            for chunk in list(self._scheduler.held_chunks(worker_id)):
                if chunk.chunk_id == running.chunk_id and chunk.job_id == job_id:
                    ended_to = max(chunk.start, self._scheduler.ended_to(worker_id))
                    n_done = max(0, min(activity.index, chunk.stop) - ended_to)
                    found[worker_id] = Activity(activity.index, activity.since_s, n_done, activity.track)
        return found

    def pids(self) -> Mapping[int, int]:
        """Process id of each worker that is up."""
        pids = ((worker_id, self._workers.pid(worker_id)) for worker_id in range(self._n_workers))
        return {worker_id: pid for worker_id, pid in pids if pid is not None}

    def warm(self) -> None:
        """Start workers ahead of the first job."""
        self._post(self._scheduler.warm)

    def recycle(self, reason: str) -> None:
        """Replace all workers as they get free."""
        self._post(lambda: self._recycle(reason))

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """End the pool; with `wait` it returns when nothing is left of it."""
        if os.getpid() != self._owner_pid:  # after a fork: the thread and the workers are the parent's
            return
        with self._thread_lock:
            if self._thread is None:
                self._closing = True
                if not self._closed.is_set():
                    self._closed.set()
                    self._workers.close()
                return
        with contextlib.suppress(PoolClosedError):
            self._post(lambda: self._close(cancel=cancel))
        if wait and self._thread is not threading.current_thread():
            self._closed.wait()
            self._thread.join()

    def _post(self, command: Callable[[], None]) -> None:
        if os.getpid() != self._owner_pid:
            raise PoolClosedError("this pool belongs to the process that made it; make one of your own after a fork")
        with self._thread_lock:
            if self._closed.is_set():
                raise PoolClosedError("this pool was shut down; make another one")
            self._commands.append(command)
            if self._thread is None:
                self._start_thread()
        self._workers.wake()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="nbpar-dispatcher", daemon=True)
        try:
            thread.start()
        except BaseException:  # no more threads, or a Ctrl-C after it has begun
            if thread.ident is None:
                self._commands.pop()
            else:
                self._thread = thread
            raise
        self._thread = thread

    # --- the dispatcher's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # Ctrl-C is for the main thread, and workers are started from here
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            while not self._is_over():
                self._turn()
        except BaseException as error:  # noqa: BLE001  # a defect of nbpar's own must not leave anyone waiting
            _log.exception("nbpar's dispatcher failed")
            self._fail_everything(InternalError(f"nbpar's dispatcher failed: {error!r}; please report this"))
        finally:
            with self._thread_lock:
                self._closed.set()
            self._closing = True
            for command in list(self._commands):  # jobs that came too late
                command()
            self._fail_everything(PoolClosedError("the pool was shut down before the job began"))
            self._workers.close()

    def _is_over(self) -> bool:
        """Whether the pool is to end and nothing is waited for: no job, and no `worker_exit`."""
        if not self._closing or self._jobs or self._commands:
            return False
        return not (self._has_exit_hook and self._scheduler.has_workers)

    def _turn(self) -> None:
        while self._commands:
            self._commands.popleft()()
        retired = self._closing and not self._jobs
        if retired:
            self._scheduler.retire()
        now_s = time.perf_counter()
        seen = {}
        if self._scheduler.needs_board:
            looks = ((worker_id, self._workers.look(worker_id)[0]) for worker_id in range(self._n_workers))
            seen = {worker_id: running for worker_id, running in looks if running is not None}
        instructions = self._scheduler.decide(now_s, seen)
        for instruction in instructions:
            self._carry_out(instruction)
        if self._scheduler.start_failed:
            self._fail_everything(WorkerStartError(f"workers cannot be started: {self._start_error}"))
            self._scheduler.give_up_starting()
        again = self._commands or self._is_over() or (self._closing and not self._jobs and not retired)
        timeout_s = 0.0 if again else self._scheduler.next_look_s(now_s)
        for event in self._workers.poll(timeout_s):
            self._handle(event)

    def _add(self, record: _Record) -> None:
        job = record.job
        if self._closing:
            job.sink.ended("cancelled", PoolClosedError("the pool was shut down before the job began"))
            return
        self._jobs[job.job_id] = record
        for ready in self._started.values():
            job.sink.apply(WorkerStarted(ready.worker_id, ready.pid, ready.begin_s, ready.ready_s))
        options = job.options
        known_s = self._speeds.get(record.prepared.speed_key)
        record.quick = known_s is not None and known_s < QUICK_MEAN_S and options.timeout is None
        self._scheduler.add_job(
            JobPlan(
                job_id=job.job_id,
                n_available=job.n_available,
                closed=job.closed,
                chunk_size=options.chunk_size,
                timeout_s=options.timeout,
                retries=options.retries,
                max_in_flight=options.max_in_flight,
                mean_s=known_s,
            )
        )

    def _recycle(self, reason: str) -> None:
        self._scheduler.recycle()
        for record in self._jobs.values():
            record.job.sink.apply(Note(reason))

    def _close(self, *, cancel: bool) -> None:
        self._closing = True
        now_s = time.perf_counter()
        for job_id in self._jobs:
            # A stream that is still read would be waited for by its own consumer.
            if cancel or self._scheduler.is_open(job_id):
                self._scheduler.stop_job(job_id, EndJob(job_id, "cancelled"), now_s)

    # --- instructions -------------------------------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(worker_id, chunk):
                record = self._jobs[chunk.job_id]
                n_bytes = self._workers.send(worker_id, chunk, record.job, record.prepared, quick=record.quick)
                self._scheduler.sent(worker_id, chunk.chunk_id, n_bytes)
            case Interrupt(worker_id, chunk_id):
                self._workers.interrupt(worker_id, chunk_id)
            case Recall(worker_id, chunk_id):
                self._workers.recall(worker_id, chunk_id)
            case Kill(worker_id, gently):
                self._workers.kill(worker_id, gently=gently)
            case StartWorker(worker_id):
                self._workers.start(worker_id)
            case StopWorker(worker_id, reason):
                self._stopping[worker_id] = reason
                self._workers.stop(worker_id)
            case EndJob(job_id, status):
                self._end_job(job_id, status)

    def _end_job(self, job_id: int, status: Any) -> None:
        record = self._jobs.pop(job_id, None)
        if record is not None:
            self._remember_speed(record)
            self._workers.end_job(job_id)
            record.job.sink.ended(status, record.error)

    def _remember_speed(self, record: _Record) -> None:
        key = record.prepared.speed_key
        if key is not None and record.mean_s is not None:
            self._speeds[key] = record.mean_s
            self._speeds.move_to_end(key)
            if len(self._speeds) > MAX_SPEEDS:
                self._speeds.popitem(last=False)

    def _fail_everything(self, error: NbparError) -> None:
        for record in list(self._jobs.values()):
            self._jobs.pop(record.job.job_id)
            self._workers.end_job(record.job.job_id)
            record.job.sink.ended("failed", error)
            self._scheduler.stop_job(record.job.job_id, EndJob(record.job.job_id, "failed"), time.perf_counter())

    def _fail_job(self, job_id: int, error: BaseException) -> None:
        record = self._jobs.get(job_id)
        if record is not None and record.error is None:
            record.error = error
            self._scheduler.stop_job(job_id, EndJob(job_id, "failed"), time.perf_counter())

    # --- events -------------------------------------------------------------------------------------------------------

    def _handle(self, event: WorkerEvent) -> None:
        match event:
            case TasksEnded():
                self._tasks_ended(event)
            case Printed():
                self._printed(event)
            case Ready():
                self._started[event.worker_id] = event
                self._scheduler.worker_ready(event.worker_id)
                started = WorkerStarted(event.worker_id, event.pid, event.begin_s, event.ready_s)
                for record in self._jobs.values():
                    record.job.sink.apply(started)
            case Gone():
                self._worker_gone(event)
            case NoJob():
                self._fail_job(event.job_id, event.error)
            case ShuttingDown():
                self._fail_everything(WorkerStartError("the fork server was ended: is the kernel shutting down?"))
                self._scheduler.give_up_starting()
            case NotReady():
                error = WorkerStartError(f"worker_init failed: {type(event.error).__name__}: {safe_str(event.error)}")
                error.__cause__ = event.error
                self._scheduler.worker_refused(event.worker_id)
                self._fail_everything(error)
                self._scheduler.give_up_starting()

    def _tasks_ended(self, event: TasksEnded) -> None:
        chunk = self._scheduler.tasks_ended(
            event.worker_id,
            event.chunk_id,
            done_to=event.first + event.n_ended,
            final=event.final,
            work_s=event.end_s - event.begin_s,
            n_bytes=event.n_bytes,
        )
        record = self._jobs.get(chunk.job_id) if chunk is not None else None
        if record is None or chunk is None or not event.n_ended:
            return
        job, first, stop = record.job, event.first, event.first + event.n_ended
        record.quick = job.options.timeout is None and (event.end_s - event.begin_s) / event.n_ended < QUICK_MEAN_S
        record.mean_s = self._scheduler.mean_s(job.job_id)
        n_failed = n_again = 0
        values, taken, at, dropped = event.values, 0, first, first
        for index, error, traceback in event.failures:
            if index > at:
                job.sink.completed(at, values[taken : taken + index - at])
                taken += index - at
            at = index + 1
            if self._scheduler.task_failed(job.job_id, index):
                n_again += 1
                job.source.drop(dropped, index)
                dropped = index + 1
                continue
            n_failed += 1
            item = job.source.take(index, index + 1)[0]
            outcome = task_error(error, index=index, item=item, worker_id=event.worker_id, traceback=traceback)
            self._task_failed(record, outcome)
        if stop > at:
            job.sink.completed(at, values[taken:] if taken else values)
        job.source.drop(dropped, stop)
        n_over = event.n_ended - n_again
        job.sink.apply(ChunkDone(event.worker_id, first, first + n_over, event.begin_s, event.end_s, n_failed))

    def _task_failed(self, record: _Record, error: TaskError) -> None:
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
            self._scheduler.stop_job(job_id, EndJob(job_id, "failed"), time.perf_counter())

    def _printed(self, event: Printed) -> None:
        chunk = next(iter(self._scheduler.held_chunks(event.worker_id)), None)
        record = self._jobs.get(chunk.job_id) if chunk is not None else None
        if record is None:  # between jobs: the newest one that runs, else the text has no cell to go to
            record = next(reversed(self._jobs.values()), None)
        if record is not None:
            for text in event.lines:
                record.job.sink.write(OutputLine(event.worker_id, event.index, event.stream, text))

    def _worker_gone(self, event: Gone) -> None:
        worker_id = event.worker_id
        reason = self._stopping.pop(worker_id, None)
        started = self._started.pop(worker_id, None)
        how = describe_exit(event.exit_code)
        self._start_error = event.start_error or f"a worker {how} before it was ready. {event.last_words}".strip()
        lost = self._scheduler.worker_lost(worker_id, event.running)
        ended = WorkerEnded(worker_id, event.pid, time.perf_counter(), reason or how, expected=reason is not None)
        for record in self._jobs.values():
            if started is not None:
                record.job.sink.apply(ended)
        if lost is None:
            return
        failed = self._jobs.get(lost.job_id)
        if failed is not None and lost.loss == "function":
            self._fail_job(lost.job_id, loss_error(lost.loss, event, failed.job))
        elif failed is not None:
            error = loss_error(lost.loss, event, failed.job)
            item = failed.job.source.take(lost.index, lost.index + 1)[0]
            task_error(error, index=lost.index, item=item, worker_id=worker_id, traceback=event.last_words)
            failed.job.sink.apply(ChunkDone(worker_id, lost.index, lost.index + 1, *lost_time(event), 1))
            self._task_failed(failed, error)
            failed.job.source.drop(lost.index, lost.index + 1)
