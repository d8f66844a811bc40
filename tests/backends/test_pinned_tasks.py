"""Tasks on a worker of their own, and parts of tasks with a limit of their own: on every backend that has workers."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

import nbpar
from nbpar.errors import TaskTimeoutError
from nbpar.options import JobOptions
from nbpar.worker.context import timed_part
from tests.backends.conftest import WITH_WORKERS, MakePool

pytestmark = pytest.mark.parametrize("method", WITH_WORKERS, indirect=True)

MANY_S = 100.0


def where(_item: object) -> int:
    return nbpar.current_task().worker_id


def prepare(item: tuple[str, float | None]) -> str:
    """A task whose first part and the rest of which take as long as the item says."""
    what, limit_s = item
    with timed_part("worker_init", limit_s):
        if what == "init":
            wait_for_ever()
    if what == "task":
        wait_for_ever()
    return what


def wait_for_ever() -> None:
    """In small steps, which a thread can be stopped between."""
    gate = threading.Event()
    while not gate.wait(0.02):
        pass


def prepare_in_c(limit_s: float) -> None:
    with timed_part("worker_init", limit_s):
        ctypes.PyDLL(None).usleep(30_000_000)  # it holds the GIL: no signal is heard


def test_tasks_of_a_pinned_job_run_on_their_workers(pool: nbpar.WorkerPool) -> None:
    job = pool._start(where, (range(12),), JobOptions(pin=2.5, chunk_size=3))
    assert job.finish() == [int(i // 2.5) % 2 for i in range(12)]


def test_single_task_runs_on_the_worker_that_is_asked_for(pool: nbpar.WorkerPool) -> None:
    futures = [pool._submit(where, (None,), JobOptions(pin=1.0), worker_id=one) for one in (1, 0, 1)]
    assert [future.result(20) for future in futures] == [1, 0, 1]


@pytest.mark.parametrize(("what", "part"), [("init", "worker_init"), ("task", "")])
def test_part_of_a_task_that_takes_too_long_is_named(make_pool: MakePool, what: str, part: str) -> None:
    pool = make_pool(n_workers=1)
    limit_s, timeout = (0.2, MANY_S) if what == "init" else (None, 0.2)
    named = r"worker_init ran longer than 0\.2 s" if part else r"timeout=0\.2"
    with pytest.raises(TaskTimeoutError, match=named) as caught:
        pool._start(prepare, ([(what, limit_s)],), JobOptions(timeout=timeout)).finish()
    assert caught.value.part == part


def test_part_may_take_longer_than_the_task(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=1)

    def task(_item: int) -> int:
        with timed_part("worker_init", None):
            time.sleep(0.6)
        return 1

    assert pool.map(task, [0], timeout=0.3) == [1]


def test_part_that_is_stuck_in_c_is_stopped(make_pool: MakePool, method: str) -> None:
    if method == "threads":
        pytest.skip("a thread in C code cannot be stopped")
    pool = make_pool(n_workers=1)
    with pytest.raises(TaskTimeoutError, match="worker_init"):
        pool._start(prepare_in_c, ([0.2],), JobOptions(timeout=MANY_S)).finish()
    assert pool.map(abs, [-1]) == [1]
