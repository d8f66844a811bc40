"""Which worker gets which tasks next: events in, instructions out; no process, no socket, no clock of its own.

Owned and called by one dispatcher thread (:mod:`nbpar.backends.dispatcher`), so nothing here is locked.

::

    job added / fed / cancelled --+                       +--> Send, Interrupt, Kill, Recall
    worker ready / lost ----------+--> Scheduler.decide --+--> StartWorker, StopWorker
    tasks ended, time ------------+    (after each batch) +--> Tell, EndJob

What it asks: :mod:`~nbpar.engine.turns` whose turn it is, :mod:`~nbpar.engine.crew` which workers there should be,
:mod:`~nbpar.engine.recalling` what waits behind a long task, :mod:`~nbpar.engine.backoff` when a failed task is tried
again, :mod:`~nbpar.engine.quarantine` whether one may run alone.

What bounds it: a worker holds at most two chunks; a job's tasks are ranges, not objects, apart from some numbers for
each task that was tried more than once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from nbpar.engine.chunking import ChunkSizer
from nbpar.engine.crew import MAX_START_FAILURES, Crew
from nbpar.engine.instructions import Chunk, EndJob, FailTask, Instruction, Interrupt, Kill, Loss, Recall, Send, Tell
from nbpar.engine.plans import Held, JobPlan, JobRecord, Running, WorkerRecord
from nbpar.engine.quarantine import ALONE_AFTER, ALONE_S, DRAIN_S, MAX_DEATHS, Quarantine
from nbpar.engine.recalling import RECALL_AFTER_S, is_waiting_for, recall, take_back
from nbpar.engine.turns import Turns

__all__ = ["Scheduler"]

STOP_WAIT_S = 0.25
"""How long the end of a stopped job waits for its running tasks; then the user has control and they are seen to."""


class Scheduler:
    """Shares the workers of one pool among its jobs.

    Parameters
    ----------
    n_workers : int
        Workers the pool is meant to have; ids are ``0`` to ``n_workers - 1``.
    tasks_per_worker : int, optional
        A worker is replaced after so many tasks.
    idle_timeout_s : float, optional
        Workers are stopped after so many seconds without a job.
    """

    def __init__(
        self, *, n_workers: int, tasks_per_worker: int | None = None, idle_timeout_s: float | None = None
    ) -> None:
        self._crew = Crew(n_workers=n_workers, tasks_per_worker=tasks_per_worker, idle_timeout_s=idle_timeout_s)
        self._workers = self._crew.workers
        self._jobs: dict[int, JobRecord] = {}
        self._turns = Turns(self._jobs, self._workers)
        self._touched: set[int] = set()  # jobs that may have ended since the last decision: not all are looked at
        self._later: set[int] = set()  # jobs that may have failed tasks which wait for their time, or to run alone
        self._quarantine = Quarantine()
        self._n_timed = 0  # jobs with a timeout
        self._n_chunks = 0
        self._pending: list[Instruction] = []

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def add_job(self, plan: JobPlan) -> None:
        """Take a job; its tasks are sent by the next :meth:`decide`."""
        n_workers, size, mean_s = len(self._workers), plan.chunk_size, plan.mean_s
        sizer = ChunkSizer(n_workers=n_workers, fixed=size, mean_s=mean_s, together=plan.together)
        lanes = [] if plan.pin is None else [deque[tuple[int, int, int]]() for _ in self._workers]
        job = self._jobs[plan.job_id] = JobRecord(plan, sizer, plan.n_available, plan.closed, lanes)
        job.offer(plan.n_available, plan.todo)
        self._turns.joins(plan.job_id)
        self._touched.add(plan.job_id)
        self._n_timed += plan.timeout_s is not None
        self._crew.warm()

    def feed(
        self, job_id: int, n_available: int, *, closed: bool, todo: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """More items of a job are there: `n_available` in all, of the new ones `todo` to be done; `closed`: no more."""
        if (job := self._jobs.get(job_id)) is not None:
            if job.n_waiting < 1:
                self._turns.joins(job_id)
            if job.stopping is None:
                job.offer(n_available, todo)
            job.closed = job.closed or closed  # two threads may tell in another order than they added
            self._touched.add(job_id)

    def pause(self, job_id: int, *, paused: bool) -> None:
        """Hold a job: what runs ends, nothing more is sent until it is resumed."""
        if (job := self._jobs.get(job_id)) is not None:
            job.paused = paused
            if not paused:
                self._turns.joins(job_id)

    def fill(self, job_id: int, *, is_full: bool) -> None:
        """Begin no new task of a job while its results wait to be taken; what was begun before is ended."""
        if (job := self._jobs.get(job_id)) is not None:
            if job.is_full and not is_full:
                self._turns.joins(job_id)
            job.is_full = is_full

    def chunk_size(self, job_id: int) -> int:
        """The size of a job's chunks now; 1 for a job that is unknown."""
        return job.sizer.size if (job := self._jobs.get(job_id)) is not None else 1

    def stop_job(self, job_id: int, status: EndJob, now_s: float, *, gently: bool = False) -> None:
        """Send nothing more of a job, and interrupt what runs of it or let that end; the first decides the status."""
        job = self._jobs.get(job_id)
        if job is None or (job.stopping is not None and (gently or job.stop_at_s != math.inf)):
            return
        job.stopping = job.stopping or status
        self._touched.add(job_id)
        job.stop_at_s = math.inf if gently else now_s + STOP_WAIT_S
        job.drop_all()
        for worker_id, worker in enumerate(self._workers):
            mine = [held for held in worker.held if held.chunk.job_id == job_id]
            for held in mine:
                held.interrupted = not gently
            # The chunk that waits goes first: else the worker would begin it when the running one is interrupted.
            stop = Recall if gently else Interrupt
            self._pending.extend(stop(worker_id, held.chunk.chunk_id) for held in reversed(mine))

    def mean_s(self, job_id: int) -> float | None:
        """Mean duration of a job's recent tasks; None when not known."""
        return job.sizer.mean_s if (job := self._jobs.get(job_id)) is not None else None

    def is_open(self, job_id: int) -> bool:
        """Whether a job ends only if more is fed, or that nothing more will come."""
        return (job := self._jobs.get(job_id)) is not None and not job.closed

    # --- workers ------------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Want workers although there is no job yet."""
        self._crew.warm()

    def retire(self) -> None:
        """Want no workers any more: the pool is closing."""
        self._crew.retire()

    @property
    def has_all_workers(self) -> bool:
        """Whether every worker is ready."""
        return self._crew.has_all

    @property
    def has_workers(self) -> bool:
        """Whether a worker that was ready has not ended yet."""
        return self._crew.has_any

    def recycle(self) -> None:
        """Replace every worker as soon as it holds no chunk."""
        self._crew.recycle()

    @property
    def is_busy(self) -> bool:
        """Whether a worker holds a chunk."""
        return any(worker.held for worker in self._workers)

    def replace(self, worker_id: int) -> None:
        """Replace one worker as soon as it holds no chunk; it gets no other meanwhile."""
        self._crew.replace(worker_id)

    def worker_ready(self, worker_id: int) -> None:
        """A started worker takes chunks from now on."""
        self._crew.ready(worker_id)

    def worker_refused(self, worker_id: int) -> None:
        """A starting worker said why it cannot work; it ends by itself, and that is not news."""
        self._crew.refused(worker_id)

    def worker_lost(self, worker_id: int, running: Running | None, now_s: float) -> FailTask | None:
        """A worker is gone; its board said that it was in `running`.

        Only the task that ran is to blame. Tasks that had not begun are done elsewhere at no cost; so are those of
        the same chunk that had ended without their results having been sent (chunks hold 10 ms of work).

        Returns
        -------
        FailTask or None
            The task that is lost with the worker; None when none was, or when it will be tried again.
        """
        worker = self._crew.lost(worker_id, has_jobs=bool(self._jobs))
        held = worker.held
        self._later.update(one.chunk.job_id for one in held)  # what was to run alone may be to do again
        failed = self._lost_unbegun(held[0].chunk, running) if held else None
        for one in reversed(held):
            index = self._requeue(one, running)
            if index is None:
                continue
            if not _is_blamed(worker, one.chunk.chunk_id, index):  # the one that it was killed for ended just in time
                self._jobs[one.chunk.job_id].put_back(index, index + 1, one.chunk.attempt)
            else:
                failed = self._lost_task(self._jobs[one.chunk.job_id], index, worker.loss, now_s) or failed
        return failed

    def _lost_task(self, job: JobRecord, index: int, loss: Loss, now_s: float) -> FailTask | None:
        """The task that a worker was lost with: whether and how it is tried again."""
        job_id = job.plan.job_id
        n_deaths = job.deaths.get(index, 0)
        if has_died := loss != "timeout":
            n_deaths += 1
            job.deaths[index] = n_deaths
        if has_died and n_deaths >= MAX_DEATHS:
            job.give_up(index)
            return FailTask(job_id, index, loss, n_deaths)
        if not self.task_failed(job_id, index, now_s):
            return FailTask(job_id, index, loss, n_deaths)
        if has_died and n_deaths >= ALONE_AFTER:
            self._tell(job_id, f"Item {index} has killed {n_deaths} workers: its next try runs alone in the pool.")
        return None

    def _tell(self, job_id: int, text: str) -> None:
        self._pending.append(Tell(job_id, text))

    def _lost_unbegun(self, chunk: Chunk, running: Running | None) -> FailTask | None:
        job = self._jobs.get(chunk.job_id)
        if job is None or job.stopping is not None or (running is not None and running.chunk_id == chunk.chunk_id):
            return None
        job.n_unbegun += 1
        return FailTask(chunk.job_id, chunk.start, "function") if job.n_unbegun >= MAX_START_FAILURES else None

    def _requeue(self, held: Held, running: Running | None) -> int | None:
        """Put back what a lost worker had not ended of a chunk; the index of the task that is to blame, if any."""
        chunk = held.chunk
        job = self._jobs.get(chunk.job_id)
        if job is None:
            return None
        self._touched.add(chunk.job_id)
        job.n_in_flight -= held.n_left
        if job.stopping is not None or held.done_to >= chunk.stop:
            return None
        return job.put_back_lost(held, running)

    @property
    def start_failed(self) -> bool:
        """Whether workers cannot be started: several in a row ended before they were ready, and none is up."""
        return self._crew.start_failed

    def give_up_starting(self) -> None:
        """Stop trying to start workers; the next job tries again."""
        self._crew.give_up_starting()

    # --- tasks --------------------------------------------------------------------------------------------------------

    def sent(self, worker_id: int, chunk_id: int, n_bytes: int) -> None:
        """A chunk went out as `n_bytes` bytes."""
        for held in self._workers[worker_id].held:
            if held.chunk.chunk_id == chunk_id:
                held.sent_bytes = n_bytes

    def tasks_ended(
        self,
        worker_id: int,
        chunk_id: int,
        *,
        first: int = 0,
        done_to: int,
        final: bool,
        work_s: float,
        n_bytes: int = 0,
    ) -> Chunk | None:
        """Tasks of a chunk before `done_to` have ended; `final` when the worker is through with the chunk.

        Of coroutines only those from `first` on have, where that is not the next one to end.

        Returns
        -------
        Chunk or None
            None for a chunk that is not held (its job was given up): its results are to be dropped.
        """
        worker = self._workers[worker_id]
        held = next((one for one in worker.held if one.chunk.chunk_id == chunk_id), None)
        if held is None:
            return None
        chunk, n_new = held.chunk, held.ended(first, done_to)
        held.work_s += work_s
        worker.n_tasks += n_new
        job = self._jobs.get(chunk.job_id)
        if job is not None:
            job.spent_s += work_s
            self._touched.add(chunk.job_id)
            job.n_in_flight -= n_new
            job.n_unbegun = 0
            job.sizer.observe(n_tasks=n_new, work_s=work_s, n_bytes=n_bytes + held.sent_bytes * n_new // len(chunk))
        if final:
            worker.held.remove(held)
            worker.slow = False
            if worker.n_signals == 0:
                worker.asked_at_s = None  # the next chunk's own time starts when its turn has come
            if job is not None and held.done_to < chunk.stop:
                job.n_in_flight -= held.n_left
                if job.stopping is None:
                    job.put_back_parts(held, held.done_to, chunk.stop)
                    self._later.add(chunk.job_id)
        return chunk if job is not None else None

    def task_failed(self, job_id: int, index: int, now_s: float) -> bool:
        """A task failed; True when it will be tried again, False when that was its last run."""
        job = self._jobs.get(job_id)
        if job is None or job.stopping is not None or not job.retry(index, now_s):
            return False
        self._later.add(job_id)
        return True

    # --- decisions ----------------------------------------------------------------------------------------------------

    def decide(self, now_s: float, running: Mapping[int, Running]) -> list[Instruction]:
        """All that is to be done now.

        Parameters
        ----------
        now_s : float
            ``time.perf_counter()``.
        running : mapping of worker_id to Running
            What the board says; needed only when :attr:`needs_board` is set.
        """
        # Most calls come between two chunks of a job that goes well: they find nothing to do in most of these.
        is_parked = is_yielding = False
        for worker in self._workers:
            is_parked = is_parked or len(worker.held) > 1
            is_yielding = is_yielding or worker.must_yield
        if is_yielding:
            self._pending.extend(self._crew.escalate(now_s))
        if running:
            self._check_timeouts(now_s, running)
        self._pending.extend(self._crew.keep(now_s, has_jobs=bool(self._jobs)))
        if is_parked:
            take_back(self._workers, self._jobs, now_s, running)
        if self._later:
            self._release(now_s)
        is_held = (self._later or self._quarantine.is_on) and self._is_held(now_s)
        if not is_held and any(job.n_waiting > 0 for job in self._jobs.values()):
            self._hand_out(now_s)
        if is_parked:
            self._pending.extend(recall(self._workers, self._jobs, now_s))
        self._end_jobs(now_s)
        instructions, self._pending = self._pending, []
        return instructions

    def next_look_s(self, now_s: float) -> float | None:
        """Seconds until :meth:`decide` must be called although nothing happened; None when events suffice."""
        looks = list(self._crew.looks(now_s))
        if any(len(worker.held) > 1 for worker in self._workers):
            looks.append(RECALL_AFTER_S)
        later = (self._jobs[job_id] for job_id in self._later if job_id in self._jobs)
        looks.extend(job.delayed[0][0] - now_s for job in later if job.delayed and not job.paused)
        if (due_s := self._quarantine.due_s(now_s)) is not None:
            looks.append(due_s - now_s)
        # Those that wait to be stopped stay among the touched; those with a timeout that run are on some worker.
        jobs = {held.chunk.job_id for worker in self._workers for held in worker.held} if self._n_timed else set()
        for job in (self._jobs[job_id] for job_id in jobs | self._touched if job_id in self._jobs):
            if job.stop_at_s is not None and job.stop_at_s < math.inf:
                looks.append(job.stop_at_s - now_s)
            if job.plan.timeout_s is not None:
                looks.append(min(0.05, job.plan.timeout_s / 5))
        return max(0.0, min(looks)) if looks else None

    def _check_timeouts(self, now_s: float, running: Mapping[int, Running]) -> None:
        for worker_id, worker in enumerate(self._workers):
            if worker.condemned is not None or (seen := running.get(worker_id)) is None or seen.index is None:
                continue
            for held in worker.held:
                job = self._jobs.get(held.chunk.job_id)
                if held.chunk.chunk_id != seen.chunk_id or job is None:
                    continue
                if now_s - seen.since_s > job.plan.limit_s(seen):
                    self._condemn(worker_id, seen, "timeout")

    def kill_for_memory(self, worker_id: int, running: Running) -> None:
        """Kill a worker at the next :meth:`decide` and blame the task that it runs."""
        if self._workers[worker_id].condemned is None:
            self._condemn(worker_id, running, "memory")

    def _condemn(self, worker_id: int, running: Running, loss: Loss) -> None:
        worker = self._workers[worker_id]
        worker.condemned = running.chunk_id, running.index if running.n_block <= 1 else None
        worker.loss, worker.stale = loss, True
        self._pending.append(Kill(worker_id))

    def _hand_out(self, now_s: float) -> None:
        """Give chunks to workers, the emptiest first, each from the job whose turn it is."""
        for depth in (0, 1):
            for worker_id, worker in self._crew.takes():
                if len(worker.held) != depth or (depth and worker.slow):
                    continue
                if (chunk := self._next_chunk(worker_id, worker, depth, now_s)) is not None:
                    worker.held.append(Held(chunk, chunk.start, sent_at_s=now_s))
                    self._pending.append(Send(worker_id, chunk))

    def _release(self, now_s: float) -> None:
        """Failed tasks whose time has come are to be done again."""
        for job_id in list(self._later):
            job = self._jobs.get(job_id)
            if job is None or not (job.delayed or job.alone):
                self._later.discard(job_id)
            elif not job.paused:
                job.release(now_s)

    def _is_held(self, now_s: float) -> bool:
        """Whether nothing is handed out, for the sake of a task that is to run alone; begins it when all is quiet."""
        waiting = (self._jobs[job_id] for job_id in sorted(self._later))
        job = next((one for one in waiting if one.alone and not one.paused), None)
        in_flight = {held.chunk.chunk_id for worker in self._workers for held in worker.held}
        step = self._quarantine.step(now_s, is_wanted=job is not None, in_flight=in_flight)
        if step == "go" and job is not None:
            self._run_alone(job, now_s)
        elif step == "give up" and job is not None:
            text = f"Item {job.alone[0][0]} waits to run alone: other tasks take longer than {DRAIN_S:g} s."
            self._tell(job.plan.job_id, text)
        return step in ("go", "hold")

    def _run_alone(self, job: JobRecord, now_s: float) -> None:
        for worker_id, worker in self._crew.takes():
            allowance = self._crew.allowance(worker)
            if allowance is not None and allowance < 1:
                continue
            index, attempt = job.alone.popleft()
            chunk = self._to_send(job, index, index + 1, attempt)
            worker.held.append(Held(chunk, chunk.start, sent_at_s=now_s))
            self._pending.append(Send(worker_id, chunk))
            self._quarantine.began(chunk.chunk_id, now_s)
            for job_id in self._jobs.keys() - {job.plan.job_id}:
                self._tell(job_id, f"Held for {ALONE_S:g} s at most: a task that killed workers runs alone.")
            return

    @property
    def needs_board(self) -> bool:
        """Whether :meth:`decide` has to know what workers run."""
        return self._n_timed > 0 or is_waiting_for(self._workers)

    def _next_chunk(self, worker_id: int, worker: WorkerRecord, depth: int, now_s: float) -> Chunk | None:
        allowance = self._crew.allowance(worker)
        if allowance is not None and (allowance < 1 or depth > 0):
            return None
        for job_id in self._turns.order(now_s):
            job = self._jobs[job_id]
            if job.paused or job.stopping is not None:
                continue
            if depth >= job.sizer.depth(job.n_waiting):
                if job.may_send:
                    # Its turn, but not behind another chunk: the worker gets free for it, or it would never be served
                    # while another job's chunks follow one another.
                    return None
                continue
            if depth and any(held.chunk.attempt > 1 for held in worker.held):
                continue
            if depth and worker.held[0].chunk.job_id != job_id and not self._turns.may_wait_behind(worker.held[0]):
                continue
            if (taken := job.take(allowance, worker_id)) is not None:
                self._turns.served(job_id, taken[1] - taken[0])
                return self._to_send(job, *taken)
        return None

    def _to_send(self, job: JobRecord, start: int, stop: int, attempt: int) -> Chunk:
        job.n_in_flight += stop - start
        self._n_chunks += 1
        return Chunk(self._n_chunks, job.plan.job_id, start, stop, attempt)

    def _end_jobs(self, now_s: float) -> None:
        touched, self._touched = self._touched, set()
        for job_id in sorted(touched):
            job = self._jobs.get(job_id)
            if job is None:
                continue
            if job.stopping is not None:
                if job.n_in_flight > 0 and job.stop_at_s is not None and now_s < job.stop_at_s:
                    self._touched.add(job_id)
                    continue
                self._pending.append(job.stopping)
            elif job.exhausted:
                self._pending.append(EndJob(job_id, "done"))
            else:
                continue
            del self._jobs[job_id]
            self._turns.leaves(job_id)
            self._n_timed -= job.plan.timeout_s is not None
            self._crew.rest_from(None if self._jobs else now_s)

    def ended_to(self, worker_id: int) -> int:
        """How far the chunk that a worker runs has been reported."""
        held = list(self._workers[worker_id].held)  # a copy in one step: views look from other threads
        return held[0].done_to if held else 0

    def held_chunks(self, worker_id: int) -> Iterable[Chunk]:
        """Chunks a worker holds, the running one first."""
        return [held.chunk for held in list(self._workers[worker_id].held)]


def _is_blamed(worker: WorkerRecord, chunk_id: int, index: int) -> bool:
    """Whether a lost worker was killed for this task, or for none in particular."""
    if worker.condemned is None:
        return True
    return worker.condemned[0] == chunk_id and worker.condemned[1] in (None, index)
