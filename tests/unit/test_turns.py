"""Jobs of one pool share its workers' time: the real scheduler, and workers that only let time pass."""

from __future__ import annotations

import heapq
import itertools
from collections import deque

import pytest

from nbpar.engine.instructions import Chunk, Send, StartWorker
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.scheduler import Scheduler

ROUND_TRIP_S = 0.0002
ENDLESS = 10**7


class Workers:
    """Workers whose tasks take what `task_s` says; the clock goes from one end to the next."""

    def __init__(self, n_workers: int, task_s: dict[int, float]) -> None:
        self.scheduler = Scheduler(n_workers=n_workers)
        self.now_s = 0.0
        self.worked_s = dict.fromkeys(task_s, 0.0)
        self._task_s = task_s
        self._inbox: list[deque[Chunk]] = [deque() for _ in range(n_workers)]
        self._busy: list[tuple[Chunk, float] | None] = [None] * n_workers
        self._ends: list[tuple[float, int, int]] = []
        self._count = itertools.count()
        self.begun: list[int] = []  # the job of each chunk

    def begin(self, job_id: int, n_tasks: int = ENDLESS, *, mean_s: float | None = None) -> None:
        self.scheduler.add_job(JobPlan(job_id=job_id, n_available=n_tasks, mean_s=mean_s))
        self._decide()
        self._decide()  # the workers are there now

    def run(self, seconds: float) -> dict[int, float]:
        """Let time pass; how long the workers have worked for each job meanwhile."""
        before, until_s = dict(self.worked_s), self.now_s + seconds
        while self._ends and self._ends[0][0] < until_s:
            self.now_s, _, worker_id = heapq.heappop(self._ends)
            ended = self._busy[worker_id]
            assert ended is not None
            self._busy[worker_id] = None
            chunk = ended[0]
            work_s = self._task_s[chunk.job_id] * len(chunk)
            self.worked_s[chunk.job_id] += work_s
            self.scheduler.tasks_ended(worker_id, chunk.chunk_id, done_to=chunk.stop, final=True, work_s=work_s)
            self._begin_next(worker_id)
            self._decide()
        self.now_s = until_s
        return {job_id: worked_s - before[job_id] for job_id, worked_s in self.worked_s.items()}

    def _decide(self) -> None:
        running = {i: Running(busy[0].chunk_id, busy[0].start, busy[1]) for i, busy in enumerate(self._busy) if busy}
        for instruction in self.scheduler.decide(self.now_s, running):
            if isinstance(instruction, StartWorker):
                self.scheduler.worker_ready(instruction.worker_id)
            elif isinstance(instruction, Send):
                self.begun.append(instruction.chunk.job_id)
                self._inbox[instruction.worker_id].append(instruction.chunk)
                self._begin_next(instruction.worker_id)

    def _begin_next(self, worker_id: int) -> None:
        if self._busy[worker_id] is None and self._inbox[worker_id]:
            chunk = self._inbox[worker_id].popleft()
            self._busy[worker_id] = chunk, self.now_s
            end_s = self.now_s + self._task_s[chunk.job_id] * len(chunk) + ROUND_TRIP_S
            heapq.heappush(self._ends, (end_s, next(self._count), worker_id))


LENGTHS = [(0.001, 0.001), (0.001, 0.1), (0.00002, 0.3), (0.1, 0.7), (0.02, 0.03)]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("task_s", LENGTHS)
def test_two_jobs_get_the_same_time_of_workers_whatever_their_tasks_take(
    task_s: tuple[float, float], n_workers: int
) -> None:
    workers = Workers(n_workers, dict(enumerate(task_s)))
    workers.begin(0)
    workers.begin(1)
    workers.run(2.0)  # until it is known how long their tasks are
    worked_s = workers.run(6.0)
    assert worked_s[0] == pytest.approx(worked_s[1], rel=0.15, abs=n_workers * max(task_s))
    assert sum(worked_s.values()) > 0.8 * 6.0 * n_workers


def test_three_jobs_get_a_third_each() -> None:
    workers = Workers(4, {0: 0.001, 1: 0.05, 2: 0.4})
    for job_id in range(3):
        workers.begin(job_id)
    workers.run(2.0)
    worked_s = workers.run(9.0)
    assert list(worked_s.values()) == pytest.approx([12.0] * 3, rel=0.2)


def test_job_that_comes_later_gets_its_share_and_no_more() -> None:
    workers = Workers(2, {0: 0.01, 1: 0.01})
    workers.begin(0)
    workers.run(20.0)
    workers.begin(1)
    worked_s = workers.run(4.0)
    assert worked_s[0] == pytest.approx(worked_s[1], rel=0.1)


def test_job_that_was_paused_does_not_make_up_for_it() -> None:
    workers = Workers(2, {0: 0.01, 1: 0.01})
    for job_id in range(2):
        workers.begin(job_id)
    workers.scheduler.pause(1, paused=True)
    assert workers.run(10.0)[1] < 0.1
    workers.scheduler.pause(1, paused=False)
    worked_s = workers.run(4.0)
    assert worked_s[0] == pytest.approx(worked_s[1], rel=0.1)


@pytest.mark.parametrize("is_full", [True, False])
def test_stream_that_had_nothing_to_send_does_not_make_up_for_it(is_full: bool) -> None:
    workers = Workers(2, {0: 0.01, 1: 0.01})
    workers.begin(0)
    workers.scheduler.add_job(JobPlan(job_id=1, n_available=10, closed=False))
    if is_full:
        workers.scheduler.fill(1, is_full=True)
        workers.scheduler.feed(1, ENDLESS, closed=True)
    workers.run(10.0)
    if is_full:
        workers.scheduler.fill(1, is_full=False)
    else:
        workers.scheduler.feed(1, ENDLESS, closed=True)
    worked_s = workers.run(4.0)
    assert worked_s[0] == pytest.approx(worked_s[1], rel=0.1)


def test_short_job_is_through_soon_when_a_large_one_runs() -> None:
    workers = Workers(2, {0: 0.1, 1: 0.001})
    workers.begin(0)
    workers.run(30.0)
    workers.begin(1, 100)
    assert workers.run(0.5)[1] == pytest.approx(0.1)


def test_no_chunk_waits_behind_a_long_task_of_another_job() -> None:
    workers = Workers(2, {0: 30.0, 1: 0.005})
    workers.begin(0, 1)
    workers.begin(1, 1000, mean_s=0.005)
    assert workers.run(10.0)[1] == pytest.approx(5.0)


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("pause_s", [0.0, 0.004, 0.03])
def test_single_tasks_are_begun_in_the_order_in_which_they_came(n_workers: int, pause_s: float) -> None:
    workers = Workers(n_workers, dict.fromkeys(range(30), 0.01))
    for job_id in range(30):
        workers.begin(job_id, 1)
        workers.run(pause_s)
    workers.run(10.0)
    assert workers.begun == list(range(30))
