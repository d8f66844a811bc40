"""Jobs whose tasks belong to workers: the scheduler sends each to its own, and to no other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.engine.instructions import Recall, Send
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.scheduler import Scheduler
from nbpar.wire.board import Slot


def ready(n_workers: int, tasks_per_worker: int | None = None) -> Scheduler:
    scheduler = Scheduler(n_workers=n_workers, tasks_per_worker=tasks_per_worker)
    scheduler.warm()
    scheduler.decide(0.0, {})
    for worker_id in range(n_workers):
        scheduler.worker_ready(worker_id)
    return scheduler


def sends(scheduler: Scheduler, now_s: float) -> list[Send]:
    return [one for one in scheduler.decide(now_s, {}) if isinstance(one, Send)]


def finish(scheduler: Scheduler, send: Send) -> None:
    start, stop = send.chunk.start, send.chunk.stop
    scheduler.tasks_ended(send.worker_id, send.chunk.chunk_id, first=start, done_to=stop, final=True, work_s=1e-3)


def run_all(scheduler: Scheduler) -> dict[int, int]:
    """The worker of each task, in the end."""
    worker_of: dict[int, int] = {}
    for turn in range(10_000):
        sent = sends(scheduler, turn * 0.01)
        if not sent:
            return worker_of
        for send in sent:
            for index in range(send.chunk.start, send.chunk.stop):
                assert index not in worker_of, "a task was sent twice"
                worker_of[index] = send.worker_id
            finish(scheduler, send)
    raise AssertionError("it never ended")


@given(
    n_tasks=st.integers(0, 60),
    n_workers=st.integers(1, 4),
    pin=st.one_of(st.integers(1, 7).map(float), st.floats(1.0, 7.0)),
    chunk_size=st.one_of(st.none(), st.integers(1, 9)),
    first_part=st.integers(0, 60),
)
def test_each_pinned_task_is_sent_to_its_worker_once(
    n_tasks: int, n_workers: int, pin: float, chunk_size: int | None, first_part: int
) -> None:
    scheduler = ready(n_workers)
    first = min(first_part, n_tasks)
    plan = JobPlan(job_id=1, n_available=first, closed=False, chunk_size=chunk_size, pin=pin)
    scheduler.add_job(plan)
    worker_of = run_all(scheduler)
    scheduler.feed(1, n_tasks, closed=True)
    worker_of |= run_all(scheduler)
    assert worker_of == {i: int(i // pin) % n_workers for i in range(n_tasks)}


@pytest.mark.parametrize("pin", [2.0, None])
def test_pinned_tasks_that_wait_behind_a_long_one_are_not_asked_back(pin: float | None) -> None:
    scheduler = ready(2)
    scheduler.add_job(JobPlan(job_id=1, n_available=4, chunk_size=1, pin=pin, mean_s=1e-5))
    for send in sends(scheduler, 1.0):
        if send.worker_id == 1:
            finish(scheduler, send)
    told = scheduler.decide(1.1, {})
    assert [type(one) for one in told] == ([Recall] if pin is None else [])


def test_pinned_task_of_a_worker_that_died_waits_for_the_worker_that_takes_its_place() -> None:
    scheduler = ready(2)
    scheduler.add_job(JobPlan(job_id=1, n_available=4, chunk_size=1, pin=1.0, retries=1))
    first = {send.worker_id: send for send in sends(scheduler, 1.0)}
    scheduler.worker_lost(0, None, 1.0)
    finish(scheduler, first[1])
    assert [send.worker_id for send in sends(scheduler, 1.1)] == [1]
    scheduler.worker_ready(0)
    again = sends(scheduler, 1.2)
    assert [(send.worker_id, send.chunk.start) for send in again] == [(0, 0)]


def test_pinned_tasks_are_shared_out_by_what_a_worker_may_still_do() -> None:
    scheduler = ready(1, tasks_per_worker=2)
    scheduler.add_job(JobPlan(job_id=1, n_available=3, chunk_size=3, pin=3.0))
    (send,) = sends(scheduler, 1.0)
    assert (send.chunk.start, send.chunk.stop) == (0, 2)
    finish(scheduler, send)
    assert sends(scheduler, 1.1) == []
    scheduler.worker_lost(0, None, 1.2)
    sends(scheduler, 1.2)
    scheduler.worker_ready(0)
    (rest,) = sends(scheduler, 1.3)
    assert (rest.chunk.start, rest.chunk.stop) == (2, 3)


def test_pinned_job_does_not_hold_up_another_job() -> None:
    scheduler = ready(2)
    scheduler.add_job(JobPlan(job_id=1, n_available=30, chunk_size=10, pin=30.0))
    scheduler.add_job(JobPlan(job_id=2, n_available=20, chunk_size=10))
    served: set[tuple[int, int]] = set()
    while sent := sends(scheduler, 1.0):
        served |= {(send.worker_id, send.chunk.job_id) for send in sent}
        for send in sent:
            finish(scheduler, send)
    assert (0, 1) in served
    assert (1, 1) not in served
    assert (1, 2) in served


@pytest.mark.parametrize(("limit_s", "expected"), [(None, math.inf), (0.25, 0.25)])
def test_part_of_a_task_has_a_limit_of_its_own(limit_s: float | None, expected: float) -> None:
    slot = Slot.alone()
    slot.begin_chunk(1)
    slot.begin_task(0)
    began_s = slot.since_s
    slot.begin_part("worker_init", limit_s)
    begun = slot.part
    assert begun == (expected, "worker_init")
    assert slot.since_s >= began_s
    plan = JobPlan(job_id=1, n_available=1, timeout_s=5.0)
    assert plan.limit_s(Running(1, 0, slot.since_s, 1, *begun)) == expected
    slot.end_part()
    own = slot.part
    assert own == (None, "")
    assert plan.limit_s(Running(1, 0, slot.since_s, 1, *own)) == 5.0
