"""Jobs whose outcomes go to an outlet, the order in which they may be fed, and what is drained of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytest

import nbpar
from nbpar.backends.base import Listed
from nbpar.engine.instructions import EndJob, Recall, Send
from nbpar.engine.plans import JobPlan
from nbpar.engine.scheduler import Scheduler
from nbpar.errors import TaskError
from nbpar.options import JobOptions
from nbpar.outlet import OutletJob
from tests.helpers import until


class Kept:
    """An outlet that keeps what it is told."""

    def __init__(self, then: Callable[[int], None] = lambda _: None) -> None:
        self.values: dict[int, Any] = {}
        self.errors: list[TaskError] = []
        self.ends: list[tuple[str, BaseException | None]] = []
        self._then = then

    def completed(self, start: int, values: Sequence[Any]) -> None:
        self.values.update(enumerate(values, start))
        self._then(start)

    def failed(self, error: TaskError) -> None:
        self.errors.append(error)

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        self.ends.append((status, error))


@pytest.fixture(scope="module")
def threads() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=2, start_method="threads") as pool:
        yield pool


def test_outcomes_are_told_without_being_asked_for(threads: nbpar.WorkerPool) -> None:
    kept = Kept()
    one = OutletJob(threads, lambda x: 6 // x, Listed([1, 2, 0, 3]), kept, JobOptions(on_error="return"))
    one.begin()
    one.feed(2)
    until(lambda: kept.values == {0: 6, 1: 3})
    assert not kept.ends
    one.feed(4, closed=True)
    until(lambda: kept.ends)
    assert kept.values == {0: 6, 1: 3, 3: 2}
    assert [(error.index, type(error.__cause__)) for error in kept.errors] == [(2, ZeroDivisionError)]
    assert kept.ends == [("done", None)]
    assert one.job.n_done == 4 and one.job.n_tasks == 4


def test_drained_job_ends_what_has_begun_and_begins_no_more(threads: nbpar.WorkerPool) -> None:
    kept, begun, gate = Kept(), threading.Semaphore(0), threading.Event()

    def wait(x: int) -> int:
        begun.release()
        gate.wait(20)
        return x

    one = OutletJob(threads, wait, Listed(range(10)), kept, JobOptions(chunk_size=1, on_error="return"))
    one.begin()
    one.feed(10)
    for _ in range(2):
        assert begun.acquire(timeout=20)
    one.drain(10)
    gate.set()
    until(lambda: kept.ends)
    assert kept.ends == [("done", None)]
    assert set(kept.values) <= {0, 1, 2, 3}  # two that ran, and two that waited for them in their threads
    assert {0, 1} <= set(kept.values)


def test_job_is_listed_from_when_it_is_shown(threads: nbpar.WorkerPool) -> None:
    one = OutletJob(threads, abs, Listed([-1]), Kept(), JobOptions(), is_listed=False)
    one.begin()
    assert one.job not in nbpar.jobs()
    one.show()
    assert one.job in nbpar.jobs()
    one.feed(1, closed=True)
    assert one.job.wait(20)


def test_outlet_that_raises_leaves_the_pool_in_order(
    threads: nbpar.WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(start: int) -> None:
        raise SystemExit(start)

    kept = Kept(then=fail)
    one = OutletJob(threads, abs, Listed([-1]), kept, JobOptions())
    one.begin()
    one.feed(1, closed=True)
    until(lambda: kept.ends)
    assert "a callback of" in caplog.text
    assert threads.map(abs, [-2]) == [2]


def test_feeds_that_come_in_another_order_close_a_job_all_the_same() -> None:
    scheduler = Scheduler(n_workers=1)
    scheduler.add_job(JobPlan(job_id=1, n_available=0, closed=False))
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    scheduler.feed(1, 1, closed=True)
    scheduler.feed(1, 0, closed=False)
    (send,) = scheduler.decide(0.0, {})
    assert isinstance(send, Send) and (send.chunk.start, send.chunk.stop) == (0, 1)
    scheduler.tasks_ended(0, send.chunk.chunk_id, done_to=1, final=True, work_s=0.0)
    assert scheduler.decide(0.0, {}) == [EndJob(1, "done")]


def test_job_that_is_stopped_gently_lets_running_tasks_end_and_begins_no_more(threads: nbpar.WorkerPool) -> None:
    kept, begun, gate = Kept(), threading.Semaphore(0), threading.Event()

    def wait(x: int) -> int:
        begun.release()
        gate.wait(20)
        return x

    # Each thread has a chunk of ten, of which it has begun the first.
    one = OutletJob(threads, wait, Listed(range(40)), kept, JobOptions(chunk_size=10, on_error="return"))
    one.begin()
    one.feed(40)
    for _ in range(2):
        assert begun.acquire(timeout=20)
    one.stop()
    one.stop()
    backend: Any = threads._backend
    slots = [thread.context.slot for thread in backend._workers._threads.values()]
    until(lambda: all(slot.drops(slot.chunk_id) for slot in slots))
    assert not kept.ends
    gate.set()
    until(lambda: kept.ends)
    assert kept.ends == [("cancelled", None)]
    assert kept.values == {0: 0, 10: 10}


def test_job_that_was_stopped_gently_can_still_be_cancelled(threads: nbpar.WorkerPool) -> None:
    kept, begun, gate = Kept(), threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        while not gate.wait(0.01):
            pass

    one = OutletJob(threads, wait, Listed([1]), kept, JobOptions(on_error="return"))
    one.begin()
    one.feed(1, closed=True)
    assert begun.wait(20)
    one.stop()
    one.job.cancel()
    until(lambda: kept.ends)
    gate.set()
    assert kept.ends == [("cancelled", None)] and not kept.values


def test_scheduler_recalls_what_a_job_that_is_stopped_gently_has_sent() -> None:
    scheduler = Scheduler(n_workers=1)
    scheduler.add_job(JobPlan(job_id=1, n_available=9, closed=True, chunk_size=3))
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    (send,) = [one for one in scheduler.decide(0.0, {}) if isinstance(one, Send)]
    scheduler.stop_job(1, EndJob(1, "cancelled"), 1.0, gently=True)
    assert scheduler.decide(1.0, {}) == [Recall(0, send.chunk.chunk_id)]
    assert scheduler.decide(1000.0, {}) == []  # however long the task takes
    assert (scheduler.next_look_s(1000.0) or 0.0) < float("inf")
    scheduler.tasks_ended(0, send.chunk.chunk_id, done_to=1, final=True, work_s=1.0)
    assert scheduler.decide(1001.0, {}) == [EndJob(1, "cancelled")]
