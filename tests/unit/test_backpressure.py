"""Large results that wait for the consumer of `imap`: when no new task is begun, and when one is again."""

from __future__ import annotations

import pytest

from nbpar.backends.base import FULL_BYTES, LARGE_RESULT_BYTES, Streamed
from nbpar.engine.instructions import Instruction, Send
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.scheduler import Scheduler

HALF = FULL_BYTES // 2


def test_source_is_full_when_as_many_bytes_wait_as_may() -> None:
    source = Streamed()
    assert not source.results_come(0, 1, HALF)
    assert source.results_come(1, 2, HALF)
    assert source.sizes == {0: HALF, 1: HALF}


def test_consumer_makes_room_only_when_it_was_full() -> None:
    source = Streamed()
    source.results_come(0, 1, HALF)
    assert not source.result_taken(0)
    assert source.results_come(1, 4, HALF)
    assert not source.result_taken(1)  # as much as may wait is left
    assert source.result_taken(2)
    assert not source.is_full()
    assert not source.result_taken(3)


def test_source_is_full_still_when_more_came_before_the_room_was_used() -> None:
    source = Streamed()
    source.results_come(0, 2, HALF)
    assert source.result_taken(0)
    assert source.results_come(2, 3, HALF)  # before the workers heard of it
    assert source.is_full()
    assert source.result_taken(1)


def test_small_results_and_errors_are_not_counted() -> None:
    source = Streamed()
    assert not source.results_come(0, 1_000_000, LARGE_RESULT_BYTES - 1)
    assert source.sizes == {}
    assert not source.result_taken(7)


def sends(scheduler: Scheduler, now_s: float = 0.0) -> list[range]:
    found: list[Instruction] = scheduler.decide(now_s, {})
    return [range(one.chunk.start, one.chunk.stop) for one in found if isinstance(one, Send)]


@pytest.fixture
def scheduler() -> Scheduler:
    """One worker that is ready."""
    scheduler = Scheduler(n_workers=1)
    scheduler.warm()
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    return scheduler


@pytest.mark.parametrize("todo", [None, [(0, 10)]])
def test_no_new_task_is_sent_while_a_job_is_full(scheduler: Scheduler, todo: list[tuple[int, int]] | None) -> None:
    scheduler.add_job(JobPlan(1, 10, closed=False, chunk_size=2, todo=todo))
    assert sends(scheduler) == [range(2)]
    scheduler.fill(1, is_full=True)
    scheduler.tasks_ended(0, 1, done_to=2, final=True, work_s=1.0)
    assert sends(scheduler) == []
    scheduler.feed(1, 12, closed=True, todo=None if todo is None else [(10, 12)])
    assert sends(scheduler) == []
    scheduler.fill(1, is_full=False)
    assert sends(scheduler) == [range(2, 4)]


@pytest.mark.parametrize("todo", [None, [(0, 10)]])
def test_task_that_was_begun_goes_on_when_its_job_is_full(
    scheduler: Scheduler, todo: list[tuple[int, int]] | None
) -> None:
    """The consumer may wait for it, and takes nothing before."""
    scheduler.add_job(JobPlan(1, 10, chunk_size=3, retries=1, todo=todo))
    assert sends(scheduler) == [range(3)]
    scheduler.fill(1, is_full=True)
    scheduler.worker_lost(0, Running(1, 1, 0.0), 0.0)
    scheduler.decide(1.0, {})
    scheduler.worker_ready(0)
    sent = []
    for chunk_id in range(2, 6):  # each is put back in parts: what was not ended before, the lost one, what is left
        if not (chunks := sends(scheduler, 10.0)):
            break
        sent += [index for chunk in chunks for index in chunk]
        scheduler.tasks_ended(0, chunk_id, done_to=chunks[0].stop, final=True, work_s=1.0)
    assert sorted(sent) == [0, 1, 2]


def test_other_jobs_go_on_when_one_is_full(scheduler: Scheduler) -> None:
    scheduler.add_job(JobPlan(1, 10, chunk_size=1))
    scheduler.fill(1, is_full=True)
    scheduler.add_job(JobPlan(2, 10, chunk_size=1))
    (send,) = (one for one in scheduler.decide(0.0, {}) if isinstance(one, Send))
    assert send.chunk.job_id == 2


def test_job_that_is_full_ends_when_it_is_stopped(scheduler: Scheduler) -> None:
    from nbpar.engine.instructions import EndJob

    scheduler.add_job(JobPlan(1, 10, chunk_size=1))
    scheduler.fill(1, is_full=True)
    scheduler.stop_job(1, EndJob(1, "cancelled"), 0.0)
    assert EndJob(1, "cancelled") in scheduler.decide(0.0, {})
