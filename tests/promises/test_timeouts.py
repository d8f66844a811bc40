"""A timeout is each task's own, counts from its start, ends what is stuck in C, names the item, and keeps the rest."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import nbpar
from nbpar.errors import TaskTimeoutError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, only

Pool = nbpar.WorkerPool


def be_stuck(how: str) -> None:
    """Do not come back, and hear no signal but SIGKILL."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if how == "in C":
        sum(range(10**13))  # holds the GIL
    time.sleep(1000)


def slept(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x


def runs(folder: Path, x: int) -> int:
    """How often a task has begun."""
    file = folder / str(x)
    return len(file.read_text()) if file.exists() else 0


def note(folder: Path, x: int) -> None:
    with (folder / str(x)).open("a") as file:
        file.write("x")


@only(*PROCESSES)
@pytest.mark.parametrize("how", ["in C", "in a sleep"])
@pytest.mark.parametrize("chunk_size", [None, 6])
def test_a_stuck_task_alone_is_lost(pool: Pool, tmp_path: Path, how: str, chunk_size: int | None) -> None:
    def task(x: int) -> int:
        note(tmp_path, x)
        if x == 2:
            be_stuck(how)
        return x

    got: Any = pool.map(task, range(12), timeout=0.4, on_error="return", chunk_size=chunk_size)
    assert got[:2] + got[3:] == [0, 1, *range(3, 12)]
    assert isinstance(got[2], TaskTimeoutError)
    assert (got[2].index, got[2].item_repr) == (2, "2")
    assert str(got[2]) == "item 2 = 2: ran longer than timeout=0.4 s and was stopped"
    assert runs(tmp_path, 2) == 1


@only(*PROCESSES)
def test_the_error_that_is_raised_names_the_item_and_has_the_rest(pool: Pool) -> None:
    def task(item: dict[str, int]) -> int:
        if item["n"] == 3:
            be_stuck("in C")
        return item["n"]

    with pytest.raises(TimeoutError, match=r"item 3 = {'n': 3}: ran longer than timeout=0.4 s") as caught:
        pool.map(task, [{"n": n} for n in range(4)], timeout=0.4, chunk_size=1)
    assert isinstance(caught.value, TaskTimeoutError)
    assert caught.value.results == nbpar.jobs()[-1].results
    assert {0, 1, 2}.issuperset(caught.value.results)


@only(*PROCESSES)
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_others_of_the_chunk_are_not_charged_with_a_run(pool: Pool, tmp_path: Path, chunk_size: int | None) -> None:
    def task(x: int) -> int:
        note(tmp_path, x)
        if x == 2 and nbpar.current_task().attempt == 1:
            be_stuck("in a sleep")
        if x in {1, 3} and nbpar.current_task().attempt == 1:
            raise OSError("not yet")
        return nbpar.current_task().attempt

    got = pool.map(task, range(5), timeout=0.4, retries=1, chunk_size=chunk_size)
    assert got == [1, 2, 2, 2, 1]
    assert runs(tmp_path, 2) == 2


@only(*PROCESSES)
def test_a_task_that_always_times_out_runs_as_often_as_asked(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> None:
        note(tmp_path, x)
        time.sleep(1000)

    error: Any = pool.map(task, [0], timeout=0.2, retries=4, on_error="return")[0]
    assert isinstance(error, TaskTimeoutError)
    assert runs(tmp_path, 0) == 5, "workers that were stopped for a timeout are no deaths of theirs"


def test_time_counts_from_each_tasks_start(pool: Pool) -> None:
    begin_s = time.perf_counter()
    assert pool.map(lambda x: slept(0.06, x), range(12), timeout=0.5, chunk_size=12) == list(range(12))
    assert time.perf_counter() - begin_s > 0.5, "the chunk as a whole was within the time of one task"


@only("serial")
def test_short_tasks_are_not_charged_together_without_workers(pool: Pool) -> None:
    got: Any = pool.map(lambda x: slept(0.5 if x == 3 else 0.001, x), range(20), timeout=0.2, on_error="return")
    assert got[:3] + got[4:] == [0, 1, 2, *range(4, 20)]
    assert isinstance(got[3], TaskTimeoutError)
    assert "seen when it had ended" in str(got[3])


@only(*PROCESSES)
def test_a_stuck_task_is_found_among_many_quick_ones(pool: Pool) -> None:
    def task(x: int) -> int:
        if x == 7000:
            be_stuck("in C")
        return x

    pool.map(abs, range(2000))
    got: Any = pool.map(task, range(10_000), timeout=1.0, on_error="return")
    assert isinstance(got[7000], TaskTimeoutError)
    assert got[:7000] + got[7001:] == [x for x in range(10_000) if x != 7000]


@only(*PROCESSES)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_goes_on_when_a_task_is_stuck(pool: Pool, ordered: bool) -> None:
    def task(x: int) -> int:
        if x in {3, 17}:
            be_stuck("in a sleep")
        return x

    got: Any = list(pool.imap(task, iter(range(30)), ordered=ordered, timeout=0.3, on_error="return"))
    assert sorted(one.index for one in got if isinstance(one, TaskTimeoutError)) == [3, 17]
    values = [one for one in got if isinstance(one, int)]
    assert (values if ordered else sorted(values)) == [x for x in range(30) if x not in {3, 17}]


@only(*WITH_WORKERS)
def test_a_timeout_of_one_job_leaves_another_alone(pool: Pool) -> None:
    stuck = pool.map_async(lambda x: threading.Event().wait(30), [0], timeout=0.3, on_error="return")
    assert pool.map(lambda x: slept(0.01, x), range(60)) == list(range(60))
    error: Any = stuck.result(timeout=20)[0]
    assert isinstance(error, TaskTimeoutError)
    assert pool.submit(os.getpid).result(timeout=20) > 0


@only("threads")
def test_it_is_said_that_a_thread_may_go_on(pool: Pool) -> None:
    release = threading.Event()
    error: Any = pool.map(lambda x: release.wait(30), [0], timeout=0.2, on_error="return")[0]
    release.set()
    assert "ran longer than timeout=0.2 s; a thread cannot be stopped while it is in C code, so it may" in str(error)
