"""The scheduler without workers: a model of them that does anything at any time, and single rules beside it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbpar.engine.backoff import FIRST_S, MAX_S, SPREAD, delay_s
from nbpar.engine.crew import EXIT_WAIT_S, KILL_AFTER_S, MAX_START_FAILURES, TERMINATE_AFTER_S
from nbpar.engine.instructions import (
    Chunk,
    EndJob,
    FailTask,
    Instruction,
    Interrupt,
    Kill,
    Recall,
    Send,
    StartWorker,
    StopWorker,
    Tell,
)
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.quarantine import ALONE_AFTER, ALONE_S, DRAIN_S, MAX_DEATHS, REST_S
from nbpar.engine.recalling import RECALL_AFTER_S
from nbpar.engine.scheduler import STOP_WAIT_S, Scheduler

N_WORKERS = 2


@dataclass
class FakeChunk:
    chunk: Chunk
    at: int  # the next task to run
    told: int  # reported up to here
    dropped: bool = False
    recalled: bool = False


@dataclass
class FakeWorker:
    """What a worker process is to the scheduler, and what its board says of it."""

    state: str = "absent"
    inbox: deque[FakeChunk] = field(default_factory=deque)
    begun: bool = False  # it has taken up the first chunk of its inbox
    running: int | None = None
    since_s: float = 0.0
    n_tasks: int = 0
    doomed: bool = False
    timed_out: bool = False
    asked_at_s: float | None = None


@dataclass
class FakeJob:
    n_available: int
    closed: bool
    retries: int
    max_in_flight: int | None
    timeout_s: float | None
    n_failures: Counter[int] = field(default_factory=Counter)
    n_deaths: Counter[int] = field(default_factory=Counter)
    not_before_s: dict[int, float] = field(default_factory=dict)  # failed tasks: when they may run again
    good: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    paused: bool = False
    stopped_at_s: float | None = None
    status: str | None = None
    todo: set[int] | None = None  # the only tasks to be done
    n_sent: int = 0
    n_settled: int = 0


class SchedulerMachine(RuleBasedStateMachine):
    """Events in any order; after each one the scheduler decides, and the fake workers obey."""

    @initialize(
        tasks_per_worker=st.one_of(st.none(), st.integers(1, 5)), idle_timeout_s=st.one_of(st.none(), st.just(5.0))
    )
    def begin(self, tasks_per_worker: int | None, idle_timeout_s: float | None) -> None:
        self.now_s = 100.0
        self.tasks_per_worker = tasks_per_worker
        self.scheduler = Scheduler(
            n_workers=N_WORKERS, tasks_per_worker=tasks_per_worker, idle_timeout_s=idle_timeout_s
        )
        self.workers = [FakeWorker() for _ in range(N_WORKERS)]
        self.jobs: dict[int, FakeJob] = {}
        self.alone: tuple[Chunk, float] | None = None  # the last chunk that was to run alone, and when it was sent

    # --- what the dispatcher does -------------------------------------------------------------------------------------

    def decide(self) -> None:
        board = {
            worker_id: Running(worker.inbox[0].chunk.chunk_id, worker.running, worker.since_s)
            for worker_id, worker in enumerate(self.workers)
            if worker.begun
        }
        for instruction in self.scheduler.decide(self.now_s, board):
            self.obey(instruction)
        if self.scheduler.start_failed:
            for job_id, job in self.jobs.items():
                if job.status is None:
                    job.status = "failed"
                    self.scheduler.stop_job(job_id, EndJob(job_id, "failed"), self.now_s)
            self.scheduler.give_up_starting()

    def obey(self, instruction: Instruction) -> None:  # noqa: C901  # one case for each instruction
        match instruction:
            case Send(worker_id, chunk):
                worker, job = self.workers[worker_id], self.jobs[chunk.job_id]
                assert worker.state == "ready", "a chunk for a worker that is not ready"
                assert not job.paused, "a chunk of a paused job"
                assert job.stopped_at_s is None
                assert job.status is None
                assert 0 <= chunk.start < chunk.stop <= job.n_available
                assert job.todo is None or job.todo.issuperset(range(chunk.start, chunk.stop))
                assert chunk.attempt == 1 or len(chunk) == 1
                if chunk.attempt > 1:
                    assert chunk.attempt == job.n_failures[chunk.start] + 1
                    assert self.now_s >= job.not_before_s[chunk.start] - 1e-9, "tried again too soon"
                in_flight = [one for other in range(N_WORKERS) for one in self.scheduler.held_chunks(other)]
                in_flight.remove(chunk)
                if self.alone is not None and self.alone[0] in in_flight:
                    assert self.now_s >= self.alone[1] + ALONE_S, "a task is sent beside one that runs alone"
                if job.n_deaths[chunk.start] >= ALONE_AFTER:
                    # What this very decision sends is in flight as well; nothing may be that a worker has.
                    assert not in_flight, "a task that killed two workers runs beside others"
                    self.alone = chunk, self.now_s
                worker.inbox.append(FakeChunk(chunk, chunk.start, chunk.start))
                job.n_sent += len(chunk)
                self.scheduler.sent(worker_id, chunk.chunk_id, 10)
            case Interrupt(worker_id, chunk_id):
                for one in self.workers[worker_id].inbox:
                    if one.chunk.chunk_id == chunk_id:
                        one.dropped = True
            case Recall(worker_id, chunk_id):
                for one in self.workers[worker_id].inbox:
                    if one.chunk.chunk_id == chunk_id:
                        one.recalled = True
            case Kill(worker_id, gently):
                worker = self.workers[worker_id]
                assert worker.state in ("ready", "stopping"), "nobody there to kill"
                head = worker.inbox[0] if worker.inbox else None
                innocent = head is not None and worker.running is not None and not head.dropped
                if innocent and worker.state == "ready":
                    assert head is not None
                    timeout_s = self.jobs[head.chunk.job_id].timeout_s
                    assert timeout_s is not None, "a task was killed that nobody wanted to end"
                    assert self.now_s - worker.since_s > timeout_s
                    worker.timed_out = True
                if not gently:
                    worker.doomed = True
            case Tell(job_id, text):
                assert self.jobs[job_id].status is None
                assert text.endswith(".")
            case StartWorker(worker_id):
                assert self.workers[worker_id].state == "absent"
                self.workers[worker_id] = FakeWorker("starting")
            case StopWorker(worker_id):
                worker = self.workers[worker_id]
                assert worker.state == "ready"
                assert all(one.recalled for one in worker.inbox), "it holds a chunk that is still to be run"
                worker.state = "stopping"
            case EndJob(job_id, status):
                job = self.jobs[job_id]
                if job.status == "failed":  # by workers that cannot be started
                    return
                assert job.status is None, "a job ends once"
                job.status = status
                if status == "done":
                    assert job.good | job.bad == (set(range(job.n_available)) if job.todo is None else job.todo)
                    assert not job.good & job.bad

    def settle(self, job: FakeJob, index: int, *, failed: bool) -> None:
        """A task has ended for good."""
        assert index not in job.good | job.bad, f"task {index} ended twice"
        (job.bad if failed else job.good).add(index)

    def wait(self, job: FakeJob, index: int) -> None:
        """A task has failed and is to be tried again later."""
        job.not_before_s[index] = self.now_s + delay_s(index, job.n_failures[index])

    # --- jobs ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(job.status is None for job in self.jobs.values()) < 3)
    @rule(
        n_tasks=st.integers(0, 12),
        closed=st.booleans(),
        chunk_size=st.one_of(st.none(), st.integers(1, 4)),
        retries=st.integers(0, 4),
        max_in_flight=st.one_of(st.none(), st.integers(1, 3)),
        timeout_s=st.one_of(st.none(), st.just(1.0)),
        mask=st.one_of(st.none(), st.integers(0, 4095)),
    )
    def add_job(
        self,
        *,
        n_tasks: int,
        closed: bool,
        chunk_size: int | None,
        retries: int,
        max_in_flight: int | None,
        timeout_s: float | None,
        mask: int | None,
    ) -> None:
        job_id = len(self.jobs) + 1
        job = self.jobs[job_id] = FakeJob(n_tasks, closed, retries, max_in_flight, timeout_s)
        job.todo = None if mask is None else set()
        self.scheduler.add_job(
            JobPlan(
                job_id=job_id,
                n_available=n_tasks,
                closed=closed,
                chunk_size=chunk_size,
                timeout_s=timeout_s,
                retries=retries,
                max_in_flight=max_in_flight,
                todo=self.chosen(job, range(n_tasks), mask),
            )
        )
        self.decide()

    @staticmethod
    def chosen(job: FakeJob, items: range, mask: int | None) -> list[tuple[int, int]] | None:
        """The ranges of the items whose bits are set, which are the only ones to be done."""
        if job.todo is None:
            return None
        todo: list[tuple[int, int]] = []
        for place, index in enumerate(items):
            if (mask or 0) >> place & 1:
                job.todo.add(index)
                start = todo.pop()[0] if todo and todo[-1][1] == index else index
                todo.append((start, index + 1))
        return todo

    def some_job(self, number: int) -> int:
        alive = [job_id for job_id, job in self.jobs.items() if job.status is None]
        return alive[number % len(alive)]

    @precondition(lambda self: any(job.status is None for job in self.jobs.values()))
    @rule(number=st.integers(0, 2), n_more=st.integers(0, 5), closed=st.booleans(), mask=st.integers(0, 31))
    def feed(self, number: int, n_more: int, closed: bool, mask: int) -> None:
        job_id = self.some_job(number)
        job = self.jobs[job_id]
        if job.closed:
            return
        todo = self.chosen(job, range(job.n_available, job.n_available + n_more), mask)
        job.n_available += n_more
        job.closed = closed
        self.scheduler.feed(job_id, job.n_available, closed=closed, todo=todo)
        self.decide()

    @precondition(lambda self: any(job.status is None for job in self.jobs.values()))
    @rule(number=st.integers(0, 2), paused=st.booleans())
    def pause(self, number: int, paused: bool) -> None:
        job_id = self.some_job(number)
        self.jobs[job_id].paused = paused
        self.scheduler.pause(job_id, paused=paused)
        self.decide()

    @precondition(lambda self: any(job.status is None for job in self.jobs.values()))
    @rule(number=st.integers(0, 2))
    def cancel(self, number: int) -> None:
        job_id = self.some_job(number)
        job = self.jobs[job_id]
        if job.stopped_at_s is None:
            job.stopped_at_s = self.now_s
        self.scheduler.stop_job(job_id, EndJob(job_id, "cancelled"), self.now_s)
        self.decide()

    @rule()
    def recycle(self) -> None:
        self.scheduler.recycle()
        self.decide()

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(worker_id=st.integers(0, N_WORKERS - 1))
    def get_ready(self, worker_id: int) -> None:
        if self.workers[worker_id].state == "starting":
            self.workers[worker_id].state = "ready"
            self.scheduler.worker_ready(worker_id)
            self.decide()

    def take_up(self, worker: FakeWorker) -> bool:
        """Begin the first chunk; False when there is none to run, or it is to be dropped."""
        if not worker.inbox or worker.doomed or worker.state != "ready":
            return False
        worker.begun = True
        return True

    def report(self, worker_id: int, *, final: bool, failed: bool = False) -> None:
        """Tell what has ended of the running chunk; with `failed` the last of it failed."""
        worker = self.workers[worker_id]
        one = worker.inbox[0]
        first, n_ended = one.told, one.at - one.told
        chunk = self.scheduler.tasks_ended(
            worker_id, one.chunk.chunk_id, done_to=one.at, final=final, work_s=0.0001 * n_ended, n_bytes=n_ended
        )
        one.told = one.at
        worker.n_tasks += n_ended
        job = self.jobs[one.chunk.job_id]
        if chunk is not None and job.status is None:
            for index in range(first, one.at):
                if failed and index == one.at - 1:
                    if job.stopped_at_s is None:
                        job.n_failures[index] += 1
                        assert job.n_failures[index] <= job.retries + 1
                    if self.scheduler.task_failed(one.chunk.job_id, index, self.now_s):
                        self.wait(job, index)
                    else:
                        self.settle(job, index, failed=True)
                else:
                    self.settle(job, index, failed=False)
        if final:
            worker.inbox.popleft()
            worker.begun = False
        self.decide()

    @rule(worker_id=st.integers(0, N_WORKERS - 1))
    def begin_task(self, worker_id: int) -> None:
        worker = self.workers[worker_id]
        if not self.take_up(worker) or worker.running is not None:
            return
        one = worker.inbox[0]
        if one.dropped or one.recalled or one.at == one.chunk.stop:
            self.report(worker_id, final=True)
        else:
            worker.running, worker.since_s = one.at, self.now_s
            self.decide()

    @rule(worker_id=st.integers(0, N_WORKERS - 1), told=st.booleans(), failed=st.booleans(), given_back=st.booleans())
    def end_task(self, worker_id: int, told: bool, failed: bool, given_back: bool) -> None:
        worker = self.workers[worker_id]
        if worker.running is None or worker.doomed:
            return
        one = worker.inbox[0]
        worker.running = None
        if one.dropped:
            self.report(worker_id, final=True)
            return
        one.at += 1
        final = one.at == one.chunk.stop or given_back or one.recalled
        if told or failed or final:
            self.report(worker_id, final=final, failed=failed)

    @rule(worker_id=st.integers(0, N_WORKERS - 1))
    def die(self, worker_id: int) -> None:
        """At any moment: while starting, idle, before, in or after a task, while stopping."""
        worker = self.workers[worker_id]
        if worker.state == "absent":
            return
        head = worker.inbox[0] if worker.inbox else None
        running = Running(head.chunk.chunk_id, worker.running, worker.since_s) if head and worker.begun else None
        expected = self.expected_loss(worker_id, head)
        lost = self.scheduler.worker_lost(worker_id, running, self.now_s)
        if lost is not None and lost.loss == "function":
            self.scheduler.stop_job(lost.job_id, EndJob(lost.job_id, "failed"), self.now_s)
            job = self.jobs[lost.job_id]
            job.stopped_at_s = self.now_s if job.stopped_at_s is None else job.stopped_at_s
        else:
            assert lost == expected
        if lost is not None and lost == expected:
            self.settle(self.jobs[lost.job_id], lost.index, failed=True)
        self.workers[worker_id] = FakeWorker()
        self.decide()

    @rule(
        worker_id=st.integers(0, N_WORKERS - 1),
        outcomes=st.lists(st.sampled_from(["value", "error", "death", "death", "long"]), min_size=1, max_size=6),
        seconds=st.sampled_from([0.1, 0.6, 3.0]),
    )
    def work(self, worker_id: int, outcomes: list[str], seconds: float) -> None:
        """A worker gets on: some tasks in a row, each with another end."""
        for outcome in outcomes:
            self.time_passes(seconds)
            self.the_doomed_die()
            self.get_ready(worker_id)
            self.begin_task(worker_id)
            if outcome == "death":
                self.die(worker_id)
            elif outcome != "long":
                self.end_task(worker_id, told=True, failed=outcome == "error", given_back=False)

    def expected_loss(self, worker_id: int, head: FakeChunk | None) -> FailTask | None:
        """What is to become of the task that the worker dies in: the one that ran, or the only one that may have."""
        worker = self.workers[worker_id]
        if head is None or not worker.begun or head.chunk not in self.scheduler.held_chunks(worker_id):
            return None
        job_id, index = head.chunk.job_id, worker.running
        job = self.jobs[job_id]
        if job.status is not None or job.stopped_at_s is not None:
            return None
        if index is None:
            if head.chunk.stop - head.told != 1:
                return None
            index = head.told
        job.n_failures[index] += 1
        job.n_deaths[index] += not worker.timed_out
        n_failures, n_deaths = job.n_failures[index], job.n_deaths[index]
        assert n_failures <= job.retries + 1, "run more often than was asked"
        if n_deaths == MAX_DEATHS and not worker.timed_out:
            return FailTask(job_id, index, "died", n_deaths)
        if n_failures > job.retries:
            return FailTask(job_id, index, "timeout" if worker.timed_out else "died", n_deaths)
        self.wait(job, index)
        return None

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 1.2, 2.5, 25.0]))
    def time_passes(self, seconds: float) -> None:
        # The dispatcher never sleeps past the moment at which the scheduler wants to look.
        until_s = self.now_s + seconds
        while (look_s := self.look_s()) is not None and self.now_s + look_s < until_s:
            self.now_s += max(look_s, 0.01)
            self.decide()
        self.now_s = max(self.now_s, until_s)
        self.decide()

    def look_s(self) -> float | None:
        """When the scheduler wants to look; it must not oversleep the time of a task that is to be tried again."""
        look_s = self.scheduler.next_look_s(self.now_s)
        for job_id, job in self.jobs.items():
            known = self.scheduler._jobs.get(job_id)
            if known is not None and known.delayed and not job.paused:
                due_s = min(due_s for due_s, *_ in known.delayed)
                assert due_s > self.now_s, "its time has come, but it was not made ready"
                assert look_s is not None and self.now_s + look_s <= due_s
        return look_s

    @rule()
    def the_doomed_die(self) -> None:
        for worker_id, worker in enumerate(self.workers):
            if worker.doomed:
                self.die(worker_id)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def workers_hold_at_most_two_chunks(self) -> None:
        for worker_id, worker in enumerate(self.workers):
            held = list(self.scheduler.held_chunks(worker_id))
            assert len(worker.inbox) <= 2
            taken_back = [one for one in worker.inbox if one.chunk not in held]
            assert all(one.recalled and one.at == one.chunk.start for one in taken_back)
            assert not (taken_back and worker.inbox[0] in taken_back and worker.running is not None)
            assert [one.chunk for one in worker.inbox if one not in taken_back] == held

    @invariant()
    def workers_are_replaced_in_time(self) -> None:
        if self.tasks_per_worker is not None:
            for worker in self.workers:
                promised = sum(one.chunk.stop - one.told for one in worker.inbox)
                assert worker.n_tasks + promised <= self.tasks_per_worker

    @invariant()
    def in_flight_is_bounded(self) -> None:
        for job_id, job in self.jobs.items():
            mine = [
                one
                for worker_id, worker in enumerate(self.workers)
                for one in worker.inbox
                if one.chunk.job_id == job_id and one.chunk in self.scheduler.held_chunks(worker_id)
            ]
            n_in_flight = sum(one.chunk.stop - one.told for one in mine)
            if job.max_in_flight is not None:
                assert n_in_flight <= job.max_in_flight
            known = self.scheduler._jobs.get(job_id)
            if known is not None:
                assert known.n_in_flight == n_in_flight
                assert known.n_again == sum(stop - start for start, stop, _ in known.waiting)

    @invariant()
    def stopped_jobs_end_soon(self) -> None:
        for job in self.jobs.values():
            if job.stopped_at_s is not None and self.now_s >= job.stopped_at_s + STOP_WAIT_S + 0.02:
                assert job.status is not None

    def teardown(self) -> None:
        """When workers work, every job that can end ends."""
        if not hasattr(self, "jobs"):
            return
        for job_id, job in self.jobs.items():
            if job.status is None:
                job.paused, job.closed = False, True
                self.scheduler.pause(job_id, paused=False)
                self.scheduler.feed(job_id, job.n_available, closed=True, todo=None if job.todo is None else [])
                self.decide()
        for _ in range(2000):
            if all(job.status is not None for job in self.jobs.values()):
                break
            self.time_passes(0.1)
            self.the_doomed_die()
            for worker_id, worker in enumerate(self.workers):
                if worker.state == "stopping":
                    self.die(worker_id)
                self.get_ready(worker_id)
                self.begin_task(worker_id)
                self.end_task(worker_id, told=True, failed=False, given_back=False)
        else:
            pytest.fail(f"jobs that never end: {[job for job in self.jobs.values() if job.status is None]}")


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_scheduler_keeps_its_promises_when_anything_happens = SchedulerMachine.TestCase


# --- single rules -----------------------------------------------------------------------------------------------------


def ready_scheduler(n_workers: int = 1, **options: float | int | None) -> Scheduler:
    scheduler = Scheduler(n_workers=n_workers, **options)  # type: ignore[arg-type]
    scheduler.warm()
    scheduler.decide(0.0, {})
    for worker_id in range(n_workers):
        scheduler.worker_ready(worker_id)
    return scheduler


def sends(instructions: list[Instruction]) -> list[Send]:
    return [one for one in instructions if isinstance(one, Send)]


def finish(scheduler: Scheduler, send: Send, work_s: float = 0.1) -> None:
    scheduler.tasks_ended(send.worker_id, send.chunk.chunk_id, done_to=send.chunk.stop, final=True, work_s=work_s)


def test_no_worker_is_started_when_nothing_is_asked() -> None:
    assert Scheduler(n_workers=2).decide(0.0, {}) == []


def test_workers_are_shared_fairly_when_two_jobs_wait() -> None:
    scheduler = ready_scheduler(2)
    for job_id in (1, 2):
        scheduler.add_job(JobPlan(job_id=job_id, n_available=100, chunk_size=1))
    counts: Counter[int] = Counter()
    waiting = sends(scheduler.decide(1.0, {}))
    for _ in range(40):
        send = waiting.pop(0)
        counts[send.chunk.job_id] += 1
        finish(scheduler, send)
        waiting += sends(scheduler.decide(1.0, {}))
    assert abs(counts[1] - counts[2]) <= 2


def test_small_job_is_served_at_once_when_a_large_one_with_long_tasks_runs() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1000, chunk_size=1))
    (send,) = sends(scheduler.decide(1.0, {}))
    scheduler.add_job(JobPlan(job_id=2, n_available=1))
    finish(scheduler, send, work_s=1.0)
    served = []
    for _ in range(2):
        (send,) = sends(scheduler.decide(1.0, {}))
        served.append(send.chunk.job_id)
        finish(scheduler, send, work_s=1.0)
    assert 2 in served


@pytest.mark.parametrize("mean_s", [1e-6, 0.005])
def test_small_job_is_served_soon_when_the_chunks_of_a_large_one_follow_one_another(mean_s: float) -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1000, chunk_size=1, mean_s=mean_s))
    waiting = sends(scheduler.decide(1.0, {}))
    assert len(waiting) == 2
    scheduler.add_job(JobPlan(job_id=2, n_available=1))
    served = []
    for _ in range(5):
        send = waiting.pop(0)
        served.append(send.chunk.job_id)
        finish(scheduler, send, mean_s)
        waiting += sends(scheduler.decide(1.0, {}))
    assert served.count(2) == 1, served


def quick_job(scheduler: Scheduler, job_id: int) -> list[Send]:
    """A job whose tasks are known to be quick, so that a worker is given two chunks."""
    scheduler.add_job(JobPlan(job_id=job_id, n_available=1000, chunk_size=10, mean_s=1e-6))
    return sends(scheduler.decide(1.0, {}))


def test_other_jobs_task_is_not_killed_when_a_waiting_chunk_is_cancelled() -> None:
    scheduler = ready_scheduler(1)
    first, second = quick_job(scheduler, 1)
    scheduler.pause(1, paused=True)
    scheduler.add_job(JobPlan(job_id=2, n_available=10, chunk_size=10, mean_s=1e-6))
    finish(scheduler, first, 1e-5)
    (behind,) = sends(scheduler.decide(1.0, {}))
    assert behind.chunk.job_id == 2
    scheduler.stop_job(2, EndJob(2, "cancelled"), 1.0)
    running = {0: Running(second.chunk.chunk_id, second.chunk.start, 1.0)}
    later = [one for at_s in (1.0, 2.0, 5.0) for one in scheduler.decide(at_s, running)]
    assert Interrupt(0, behind.chunk.chunk_id) in later
    assert not [one for one in later if isinstance(one, Kill)]


def test_other_jobs_task_is_not_killed_when_the_chunk_before_it_was_cancelled() -> None:
    scheduler = ready_scheduler(1)
    first, second = quick_job(scheduler, 1)
    scheduler.pause(1, paused=True)
    scheduler.add_job(JobPlan(job_id=2, n_available=10, chunk_size=10, mean_s=1e-6))
    finish(scheduler, first, 1e-5)
    (behind,) = sends(scheduler.decide(1.0, {}))
    scheduler.stop_job(1, EndJob(1, "cancelled"), 1.0)
    scheduler.decide(1.0, {})
    scheduler.tasks_ended(0, second.chunk.chunk_id, done_to=second.chunk.start, final=True, work_s=0.0)
    running = {0: Running(behind.chunk.chunk_id, 0, 1.0)}
    later = [one for at_s in (1.1, 2.0, 5.0) for one in scheduler.decide(at_s, running)]
    assert not [one for one in later if isinstance(one, Kill)]


def test_worker_is_killed_when_it_ignores_its_interrupt() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1))
    scheduler.decide(1.0, {})
    scheduler.stop_job(1, EndJob(1, "cancelled"), 1.0)
    told = {at_s: scheduler.decide(at_s, {}) for at_s in (1.0, 1.0 + TERMINATE_AFTER_S, 1.0 + KILL_AFTER_S, 9.0)}
    assert [type(one) for one in told[1.0]] == [Interrupt]
    assert Kill(0, gently=True) in told[1.0 + TERMINATE_AFTER_S]
    assert Kill(0) in told[1.0 + KILL_AFTER_S]
    assert told[9.0] == []
    assert scheduler.next_look_s(9.0) is None


def test_worker_has_its_time_to_yield_when_it_was_interrupted_before() -> None:
    scheduler = ready_scheduler(1)
    for job_id, at_s in ((1, 1.0), (2, 50.0)):
        scheduler.add_job(JobPlan(job_id=job_id, n_available=1))
        (send,) = sends(scheduler.decide(at_s, {}))
        scheduler.stop_job(job_id, EndJob(job_id, "cancelled"), at_s)
        assert [type(one) for one in scheduler.decide(at_s, {})] == [Interrupt]
        finish(scheduler, send)
        scheduler.decide(at_s, {})


def test_worker_is_replaced_when_it_survived_a_gentle_kill() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1))
    (send,) = sends(scheduler.decide(1.0, {}))
    scheduler.stop_job(1, EndJob(1, "cancelled"), 1.0)
    scheduler.decide(1.0, {})
    scheduler.decide(1.0 + TERMINATE_AFTER_S, {})
    finish(scheduler, send)
    assert [type(one) for one in scheduler.decide(2.0, {})] == [StopWorker]


def test_idle_worker_comes_back_with_the_next_job_when_it_was_killed() -> None:
    scheduler = ready_scheduler(2)
    scheduler.worker_lost(0, None, 1.0)
    assert scheduler.decide(1.0, {}) == [], "neither is a worker started nor the other one stopped"
    scheduler.add_job(JobPlan(job_id=1, n_available=1))
    told = scheduler.decide(1.0, {})
    assert StartWorker(0) in told
    assert [send.worker_id for send in sends(told)] == [1]


def test_worker_is_killed_when_its_exit_hangs() -> None:
    scheduler = ready_scheduler(1)
    scheduler.recycle()
    assert [type(one) for one in scheduler.decide(1.0, {})] == [StopWorker]
    assert scheduler.next_look_s(1.0) is not None
    scheduler.decide(1.1, {})
    assert scheduler.decide(1.1 + EXIT_WAIT_S, {}) == [Kill(0)]


def test_chunk_goes_elsewhere_when_it_waits_behind_a_long_task() -> None:
    scheduler = ready_scheduler(2)
    quick_job(scheduler, 1)
    held = {worker_id: list(scheduler.held_chunks(worker_id)) for worker_id in (0, 1)}
    scheduler.pause(1, paused=True)
    for chunk in held[1]:
        scheduler.tasks_ended(1, chunk.chunk_id, done_to=chunk.stop, final=True, work_s=1e-5)
    head, parked = held[0]
    board = {0: Running(head.chunk_id, head.start, 1.0)}
    assert scheduler.decide(1.01, board) == []
    assert scheduler.next_look_s(1.01) == RECALL_AFTER_S
    (recall,) = scheduler.decide(1.1, board)
    assert recall == Recall(0, parked.chunk_id)
    assert isinstance(recall, Recall)
    scheduler.pause(1, paused=False)
    moved = sends(scheduler.decide(1.2, board))
    assert {send.worker_id for send in moved} == {1}
    assert moved[0].chunk.start == parked.start
    assert scheduler.tasks_ended(0, parked.chunk_id, done_to=parked.start, final=True, work_s=0.0) is None


def test_chunk_stays_when_the_worker_took_it_up_just_before_it_was_asked_back() -> None:
    scheduler = ready_scheduler(2)
    quick_job(scheduler, 1)
    held = {worker_id: list(scheduler.held_chunks(worker_id)) for worker_id in (0, 1)}
    scheduler.pause(1, paused=True)
    for chunk in held[1]:
        scheduler.tasks_ended(1, chunk.chunk_id, done_to=chunk.stop, final=True, work_s=1e-5)
    _, parked = held[0]
    assert len(scheduler.decide(1.1, {})) == 1
    assert scheduler.decide(1.2, {0: Running(parked.chunk_id, parked.start, 1.1)}) == []
    assert parked in scheduler.held_chunks(0)


def test_task_is_not_blamed_when_the_timeout_was_another_ones() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=4, chunk_size=4, timeout_s=1.0))
    (send,) = sends(scheduler.decide(1.0, {}))
    late = Running(send.chunk.chunk_id, 0, 1.0)
    assert scheduler.decide(2.5, {0: late}) == [Kill(0)]
    assert scheduler.worker_lost(0, Running(send.chunk.chunk_id, 1, 2.5), 2.5) is None


def test_task_is_blamed_when_its_timeout_has_passed() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=4, chunk_size=4, timeout_s=1.0))
    (send,) = sends(scheduler.decide(1.0, {}))
    late = Running(send.chunk.chunk_id, 2, 1.0)
    assert scheduler.decide(1.9, {0: late}) == []
    assert scheduler.decide(2.5, {0: late}) == [Kill(0)]
    assert scheduler.worker_lost(0, late, 2.5) == FailTask(1, 2, "timeout")


def test_job_fails_when_no_worker_survives_loading_its_function() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=10, retries=5))
    lost = None
    for attempt in range(1, MAX_START_FAILURES + 1):
        assert lost is None
        assert sends(scheduler.decide(attempt, {}))
        lost = scheduler.worker_lost(0, None, 1.0)
        scheduler.decide(attempt, {})
        scheduler.worker_ready(0)
    assert lost is not None
    assert lost.loss == "function"


def test_starting_stops_when_no_worker_gets_ready() -> None:
    scheduler = Scheduler(n_workers=1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1))
    now_s = 0.0
    for _ in range(MAX_START_FAILURES):
        assert not scheduler.start_failed
        assert scheduler.decide(now_s, {}) == [StartWorker(0)]
        scheduler.worker_lost(0, None, 1.0)
        assert scheduler.decide(now_s, {}) == []
        now_s += 6.0
    assert scheduler.start_failed
    assert scheduler.decide(now_s, {}) == []
    scheduler.stop_job(1, EndJob(1, "failed"), now_s)
    scheduler.give_up_starting()
    scheduler.add_job(JobPlan(job_id=2, n_available=1))
    assert StartWorker(0) in scheduler.decide(now_s, {})


def test_a_failed_start_is_tried_again_later_when_another_worker_is_up() -> None:
    scheduler = Scheduler(n_workers=2)
    scheduler.add_job(JobPlan(job_id=1, n_available=100))
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    now_s = 0.0
    for _ in range(MAX_START_FAILURES + 2):
        scheduler.worker_lost(1, None, 1.0)
        assert StartWorker(1) not in scheduler.decide(now_s, {})
        assert not scheduler.start_failed
        now_s += 6.0
        assert StartWorker(1) in scheduler.decide(now_s, {})


def test_workers_end_when_the_pool_was_idle_long_enough() -> None:
    scheduler = ready_scheduler(1, idle_timeout_s=10.0)
    assert scheduler.decide(1.0, {}) == []
    assert scheduler.next_look_s(1.0) == pytest.approx(10.0, abs=1.0)
    assert scheduler.decide(20.0, {}) == [StopWorker(0, "idle")]
    scheduler.worker_lost(0, None, 1.0)
    assert scheduler.decide(21.0, {}) == []


def test_dispatcher_looks_again_when_the_last_job_has_just_ended() -> None:
    scheduler = ready_scheduler(1, idle_timeout_s=10.0)
    scheduler.add_job(JobPlan(job_id=1, n_available=1))
    (send,) = sends(scheduler.decide(1.0, {}))
    finish(scheduler, send)
    assert [type(one) for one in scheduler.decide(2.0, {})] == [EndJob]
    assert scheduler.next_look_s(2.0) == pytest.approx(10.0)


def test_workers_start_again_when_warmed_after_a_long_rest() -> None:
    scheduler = Scheduler(n_workers=1, idle_timeout_s=10.0)
    scheduler.decide(0.0, {})
    scheduler.decide(100.0, {})
    scheduler.warm()
    assert scheduler.decide(101.0, {}) == [StartWorker(0)]


def test_chunk_is_redone_singly_when_nobody_knows_which_task_killed_the_worker() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=3, chunk_size=3))
    (send,) = sends(scheduler.decide(0.0, {}))
    assert scheduler.worker_lost(0, Running(send.chunk.chunk_id, None, 0.0), 0.0) is None
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    sizes = []
    for _ in range(3):
        (send,) = sends(scheduler.decide(0.0, {}))
        sizes.append((send.chunk.start, len(send.chunk)))
        finish(scheduler, send)
    assert sizes == [(0, 1), (1, 1), (2, 1)]


def test_only_running_task_is_lost_when_its_worker_dies() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=10, chunk_size=10))
    (send,) = sends(scheduler.decide(0.0, {}))
    scheduler.tasks_ended(0, send.chunk.chunk_id, done_to=3, final=False, work_s=0.0)
    assert scheduler.worker_lost(0, Running(send.chunk.chunk_id, 6, 0.0), 0.0) == FailTask(1, 6, "died", 1)
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    again: list[int] = []
    while found := sends(scheduler.decide(0.0, {})):
        for one in found:
            again += range(one.chunk.start, one.chunk.stop)
            finish(scheduler, one)
    assert again == [3, 4, 5, 7, 8, 9]


def test_deciding_stays_cheap_when_many_tasks_are_to_be_done_again() -> None:
    scheduler = ready_scheduler(1)
    n_tasks = 20_000
    scheduler.add_job(JobPlan(job_id=1, n_available=n_tasks, chunk_size=n_tasks, retries=1))
    (send,) = sends(scheduler.decide(0.0, {}))
    finish(scheduler, send, 1e-9)
    for index in range(n_tasks):
        assert scheduler.task_failed(1, index, 0.0)
    n_again = 0
    while found := sends(scheduler.decide(1.0, {})):
        n_again += sum(len(one.chunk) for one in found)
        for one in found:
            finish(scheduler, one, 1e-9)
    assert n_again == n_tasks


# --- tasks that are tried again ---------------------------------------------------------------------------------------


def fail(scheduler: Scheduler, send: Send, now_s: float) -> bool:
    """The one task of a chunk fails; whether it will be tried again."""
    finish(scheduler, send)
    return scheduler.task_failed(send.chunk.job_id, send.chunk.start, now_s)


def test_waits_double_up_to_their_limit_and_differ_from_task_to_task() -> None:
    for index in range(200):
        waits_s = [delay_s(index, n_runs) for n_runs in range(1, 12)]
        assert waits_s[:6] == sorted(waits_s[:6])
        assert all(0 < wait_s <= MAX_S for wait_s in waits_s)
        for n_runs in range(1, 6):
            exact_s = FIRST_S * 2 ** (n_runs - 1)
            assert exact_s <= waits_s[n_runs - 1] <= exact_s * (1 + SPREAD)
    assert len({delay_s(index, 3) for index in range(200)}) == 200
    assert delay_s(7, 10**9) <= MAX_S


def test_failed_task_waits_for_its_time_while_others_go_on() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=3, chunk_size=1, retries=1))
    (send,) = sends(scheduler.decide(1.0, {}))
    assert fail(scheduler, send, 1.0)
    for index in (1, 2):
        (other,) = sends(scheduler.decide(1.0, {}))
        assert other.chunk.start == index
        finish(scheduler, other)
    assert scheduler.decide(1.0, {}) == [], "the job is not over while a task waits"
    wait_s = delay_s(0, 1)
    assert scheduler.next_look_s(1.0) == pytest.approx(wait_s)
    assert scheduler.decide(1.0 + wait_s - 0.001, {}) == []
    (again,) = sends(scheduler.decide(1.0 + wait_s, {}))
    assert (again.chunk.start, again.chunk.attempt) == (0, 2)
    assert scheduler.next_look_s(1.0 + wait_s) is None
    finish(scheduler, again)
    assert scheduler.decide(1.2, {}) == [EndJob(1, "done")]


def test_failed_tasks_come_before_new_ones_when_their_time_has_come() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=10, chunk_size=1, retries=1))
    for at_s in (1.0, 1.01):
        (send,) = sends(scheduler.decide(at_s, {}))
        assert fail(scheduler, send, at_s)
    order = []
    for _ in range(3):
        (send,) = sends(scheduler.decide(2.0, {}))
        order.append((send.chunk.start, send.chunk.attempt))
        finish(scheduler, send)
    assert order == [(0, 2), (1, 2), (2, 1)]


def test_waiting_task_is_dropped_when_its_job_is_stopped() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1, retries=5))
    (send,) = sends(scheduler.decide(1.0, {}))
    assert fail(scheduler, send, 1.0)
    scheduler.stop_job(1, EndJob(1, "cancelled"), 1.01)
    assert scheduler.decide(1.01, {}) == [EndJob(1, "cancelled")]
    assert scheduler.next_look_s(1.01) is None
    assert scheduler.decide(9.0, {}) == []


def test_waiting_task_is_held_while_its_job_is_paused() -> None:
    scheduler = ready_scheduler(1)
    scheduler.add_job(JobPlan(job_id=1, n_available=1, retries=5))
    (send,) = sends(scheduler.decide(1.0, {}))
    assert fail(scheduler, send, 1.0)
    scheduler.pause(1, paused=True)
    assert scheduler.next_look_s(1.0) is None
    assert scheduler.decide(9.0, {}) == []
    scheduler.pause(1, paused=False)
    (again,) = sends(scheduler.decide(9.0, {}))
    assert again.chunk.attempt == 2


# --- tasks that kill workers ------------------------------------------------------------------------------------------


class Deadly:
    """A job whose task 0 kills workers, on a scheduler whose worker 0 is the one that it gets at first."""

    def __init__(self, n_workers: int, retries: int = 9, **options: int) -> None:
        self.now_s = 1.0
        self.scheduler = ready_scheduler(n_workers, **options)
        self.scheduler.add_job(JobPlan(job_id=1, n_available=1, retries=retries))
        (self.send,) = sends(self.scheduler.decide(self.now_s, {}))

    def die(self) -> FailTask | None:
        """Task 0 kills its worker."""
        running = Running(self.send.chunk.chunk_id, 0, self.now_s)
        return self.scheduler.worker_lost(self.send.worker_id, running, self.now_s)

    def decide(self, wait_s: float = 0.0) -> list[Instruction]:
        self.now_s += wait_s
        told = self.scheduler.decide(self.now_s, {})
        for one in told:
            if isinstance(one, StartWorker):
                self.scheduler.worker_ready(one.worker_id)
        return told + self.scheduler.decide(self.now_s, {})

    def die_twice(self) -> list[Instruction]:
        """Until it is to run alone; what was told by then."""
        assert self.die() is None
        (self.send,) = sends(self.decide(1.0))
        assert self.die() is None
        return self.decide()

    def busy(self) -> list[Send]:
        """Another job's tasks, one on each worker, at the moment at which task 0 is to run alone."""
        self.die_twice()
        self.scheduler.add_job(JobPlan(job_id=2, n_available=100, chunk_size=1))
        others = sends(self.decide())
        assert {send.chunk.job_id for send in others} == {2}
        assert sends(self.decide(1.0)) == [], "something is handed out although the pool is to get quiet"
        return others


def test_task_that_killed_two_workers_is_said_to_run_alone() -> None:
    deadly = Deadly(1)
    told = deadly.die_twice()
    assert [one.text for one in told if isinstance(one, Tell)] == [
        "Item 0 has killed 2 workers: its next try runs alone in the pool."
    ]


def test_task_is_given_up_when_it_kills_a_third_worker_whatever_its_retries() -> None:
    deadly = Deadly(1)
    deadly.die_twice()
    (deadly.send,) = sends(deadly.decide(1.0))
    assert deadly.send.chunk.attempt == 3
    assert deadly.die() == FailTask(1, 0, "died", 3)
    assert EndJob(1, "done") in deadly.decide()


@pytest.mark.parametrize("retries", [0, 1])
def test_task_is_given_up_earlier_when_that_is_all_that_was_asked(retries: int) -> None:
    deadly = Deadly(1, retries)
    for _ in range(retries):
        assert deadly.die() is None
        (deadly.send,) = sends(deadly.decide(1.0))
    assert deadly.die() == FailTask(1, 0, "died", retries + 1)
    assert sends(deadly.decide(9.0)) == []


def test_task_goes_on_running_alone_when_it_fails_otherwise() -> None:
    deadly = Deadly(2)
    first, second = deadly.busy()
    for send in (first, second):
        finish(deadly.scheduler, send)
    (alone,) = sends(deadly.decide())
    assert fail(deadly.scheduler, alone, deadly.now_s)
    first, second = sends(deadly.decide())
    assert sends(deadly.decide(1.0)) == []
    for send in (first, second):
        finish(deadly.scheduler, send)
    (deadly.send,) = sends(deadly.decide())
    assert deadly.send.chunk.attempt == 4
    assert deadly.die() == FailTask(1, 0, "died", 3)


def test_nothing_is_handed_out_beside_a_task_that_runs_alone() -> None:
    deadly = Deadly(2)
    first, second = deadly.busy()
    finish(deadly.scheduler, first)
    assert deadly.decide(0.1) == []
    finish(deadly.scheduler, second)
    told = deadly.decide(0.1)
    (alone,) = sends(told)
    assert (alone.chunk.job_id, alone.chunk.attempt) == (1, 3)
    assert [one.job_id for one in told if isinstance(one, Tell)] == [2], "the other job is told why it is held"
    assert deadly.decide(5.0) == []
    finish(deadly.scheduler, alone)
    assert [send.chunk.job_id for send in sends(deadly.decide())] == [2, 2]


def test_others_go_on_when_the_task_that_runs_alone_takes_long() -> None:
    deadly = Deadly(2)
    for send in deadly.busy():
        finish(deadly.scheduler, send)
    (alone,) = sends(deadly.decide())
    assert deadly.scheduler.next_look_s(deadly.now_s) == pytest.approx(ALONE_S)
    (other,) = sends(deadly.decide(ALONE_S))
    assert other.worker_id != alone.worker_id
    assert deadly.scheduler.next_look_s(deadly.now_s) is None


def test_others_go_on_when_the_pool_does_not_get_quiet() -> None:
    deadly = Deadly(2)
    first, _ = deadly.busy()
    finish(deadly.scheduler, first)
    assert deadly.decide(0.5) == []
    assert deadly.scheduler.next_look_s(deadly.now_s) == pytest.approx(DRAIN_S - 0.5)
    told = deadly.decide(DRAIN_S - 0.5)
    (other,) = sends(told)
    assert other.worker_id == first.worker_id
    assert [one.text for one in told if isinstance(one, Tell)] == [
        "Item 0 waits to run alone: other tasks take longer than 2 s."
    ]
    assert deadly.scheduler.next_look_s(deadly.now_s) == pytest.approx(REST_S)
    finish(deadly.scheduler, other)
    (other,) = sends(deadly.decide(REST_S - 0.1))
    finish(deadly.scheduler, other)
    assert deadly.decide(0.2) == [], "after a while it is tried again"


def test_task_runs_alone_as_soon_as_all_is_quiet_by_chance() -> None:
    deadly = Deadly(1)
    (other,) = deadly.busy()
    assert [type(one) for one in deadly.decide(DRAIN_S)] == [Tell]
    finish(deadly.scheduler, other)
    (alone,) = sends(deadly.decide())
    assert alone.chunk.job_id == 1


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_others_go_on_when_the_task_that_was_to_run_alone_does_not(how: str) -> None:
    deadly = Deadly(2)
    first, _ = deadly.busy()
    finish(deadly.scheduler, first)
    if how == "stop":
        deadly.scheduler.stop_job(1, EndJob(1, "cancelled"), deadly.now_s)
    else:
        deadly.scheduler.pause(1, paused=True)
    assert [send.chunk.job_id for send in sends(deadly.decide())] == [2]
    assert deadly.scheduler.next_look_s(deadly.now_s) is None


def test_task_is_to_run_alone_still_when_its_worker_died_before_it_began() -> None:
    deadly = Deadly(2)
    first, second = deadly.busy()
    for send in (first, second):
        finish(deadly.scheduler, send)
    (alone,) = sends(deadly.decide())
    assert deadly.scheduler.worker_lost(alone.worker_id, None, deadly.now_s) is None
    (again,) = sends(deadly.decide())
    assert (again.chunk.start, again.chunk.attempt) == (alone.chunk.start, alone.chunk.attempt)
    assert sends(deadly.decide(1.0)) == []


def test_one_worker_is_replaced_when_it_is_free() -> None:
    scheduler = ready_scheduler(2)
    scheduler.add_job(JobPlan(job_id=1, n_available=10, chunk_size=1))
    first, second = sends(scheduler.decide(1.0, {}))
    scheduler.replace(first.worker_id)
    assert scheduler.decide(1.0, {}) == []
    finish(scheduler, second)
    finish(scheduler, first)
    told = scheduler.decide(1.0, {})
    assert StopWorker(first.worker_id, "replaced") in told
    assert [send.worker_id for send in sends(told)] == [second.worker_id]
