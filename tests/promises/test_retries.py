"""Nothing runs again unless that was asked, and never more often; what kills workers is tried alone, then given up."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nbpar
from nbpar.engine.backoff import delay_s
from nbpar.errors import WorkerDiedError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, only
from tests.helpers import run_script, until

Pool = nbpar.WorkerPool


class Log:
    """A file in which tasks of any worker note what they do: a word, the item, the time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def note(self, word: str, item: int) -> None:
        data = f"{word} {item} {time.perf_counter()}\n".encode()
        fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, data)
        os.close(fd)

    def read(self, word: str) -> list[tuple[int, float]]:
        lines = (line.split() for line in self._file.read_text().splitlines())
        return [(int(item), float(at_s)) for one, item, at_s in lines if one == word]

    def count(self, word: str) -> Counter[int]:
        return Counter(item for item, _ in self.read(word)) if self._file.exists() else Counter()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- how often --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_that_always_fails_runs_once_more_than_the_retries(pool: Pool, log: Log, retries: int) -> None:
    def task(x: int) -> int:
        log.note("run", x)
        if x == 3:
            raise OSError("always")
        return x

    got: Any = pool.map(task, range(8), retries=retries, on_error="return")
    assert log.count("run") == {x: retries + 1 if x == 3 else 1 for x in range(8)}
    assert [got[:3], got[4:]] == [[0, 1, 2], [4, 5, 6, 7]]
    assert (nbpar.jobs()[-1].n_done, len(nbpar.jobs()[-1].errors)) == (8, 1)


@only(*PROCESSES)
@pytest.mark.parametrize(("retries", "n_runs"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_a_task_that_always_kills_runs_as_often_as_asked_and_thrice_at_most(
    pool: Pool, log: Log, retries: int, n_runs: int
) -> None:
    def task(x: int) -> int:
        log.note("run", x)
        if x == 3:
            kill_oneself()
        return x

    got: Any = pool.map(task, range(8), retries=retries, on_error="return", chunk_size=1)
    assert log.count("run") == {x: n_runs if x == 3 else 1 for x in range(8)}
    assert [got[:3], got[4:]] == [[0, 1, 2], [4, 5, 6, 7]]
    assert isinstance(got[3], WorkerDiedError)
    assert (got[3].index, got[3].n_deaths, got[3].exit_code) == (3, n_runs, -9)
    assert ("killed 3 workers; not tried again" in str(got[3])) == (n_runs == 3)
    assert ("killed 2 workers" in str(got[3])) == (n_runs == 2)


def test_a_stream_tries_again_as_often_as_a_map(pool: Pool, log: Log) -> None:
    def task(x: int) -> int:
        log.note("run", x)
        if x % 5 == 2 and nbpar.current_task().attempt < 3:
            raise OSError("not yet")
        return x

    assert list(pool.imap(task, iter(range(12)), retries=2)) == list(range(12))
    assert log.count("run") == {x: 3 if x % 5 == 2 else 1 for x in range(12)}


# --- when -------------------------------------------------------------------------------------------------------------


def test_each_retry_waits_twice_as_long_as_the_one_before(pool: Pool, log: Log) -> None:
    def task(x: int) -> None:
        log.note("run", x)
        raise OSError("always")

    with pytest.raises(OSError, match="always"):
        pool.map(task, [0], retries=3)
    times_s = [at_s for _, at_s in log.read("run")]
    waits_s = [after - before for before, after in itertools.pairwise(times_s)]
    assert [round(delay_s(0, n), 1) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert all(wait_s >= delay_s(0, n) for n, wait_s in enumerate(waits_s, 1))


def test_others_go_on_while_a_failed_task_waits(pool: Pool, log: Log) -> None:
    def task(x: int) -> int:
        log.note("run", x)
        if x == 0 and nbpar.current_task().attempt == 1:
            raise OSError("not yet")
        time.sleep(0.002)
        return x

    assert pool.map(task, range(40), retries=1, chunk_size=1) == list(range(40))
    order = [item for item, _ in log.read("run")]
    assert order.count(0) == 2
    assert len(order[: order.index(0, order.index(0) + 1)]) > 5, "nothing ran between its first run and its second"


@only(*WITH_WORKERS)
def test_a_cancel_does_not_wait_for_the_time_of_a_failed_task(pool: Pool, log: Log) -> None:
    def task(x: int) -> None:
        log.note("run", x)
        raise OSError("always")

    job = pool.map_async(task, [0], retries=100)
    until(lambda: log.count("run")[0] >= 3)  # the next wait is one of 0.4 s or more
    job.cancel()
    assert job.wait(timeout=5)
    assert job.status == "cancelled"
    n_runs = log.count("run")[0]
    assert pool.map(abs, [-1]) == [1]
    assert log.count("run")[0] == n_runs


def test_an_interrupt_ends_the_wait_without_workers() -> None:
    out = run_script("""
import faulthandler, signal, threading, time
import nbpar
faulthandler.dump_traceback_later(25, exit=True)

def task(x):
    raise OSError("always")

with nbpar.WorkerPool(start_method="serial") as pool:
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    begin_s = time.perf_counter()
    try:
        pool.map(task, [0], retries=100)
    except nbpar.JobInterrupt as interrupt:
        print("interrupted", time.perf_counter() - begin_s < 5)
    print(nbpar.jobs()[-1].status, pool.map(abs, [-1]))
""")
    assert out.split() == ["interrupted", "True", "cancelled", "[1]"]


# --- alone ------------------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_a_task_that_killed_two_workers_runs_its_next_try_while_nothing_else_runs(pool: Pool, log: Log) -> None:
    def deadly(x: int) -> None:
        log.note("deadly", x)
        if nbpar.current_task().attempt == 3:
            time.sleep(0.3)
            log.note("dies", x)
        kill_oneself()

    def other(x: int) -> int:
        log.note("begin", x)
        time.sleep(0.005)
        log.note("end", x)
        return x

    job = pool.map_async(deadly, [0], retries=5, on_error="return", chunk_size=1)
    others = pool.map(other, range(400), chunk_size=1)
    error: Any = job.result()[0]
    assert others == list(range(400)), "the other job has lost something"
    assert isinstance(error, WorkerDiedError)
    assert "Item 0 has killed 2 workers: its next try runs alone in the pool." in job.snapshot().notes
    (*_, (_, begin_s)), ((_, end_s),) = log.read("deadly"), log.read("dies")
    ends_s = dict(log.read("end"))
    beside = [x for x, at_s in log.read("begin") if at_s < end_s and ends_s[x] > begin_s]
    assert beside == []
    assert {x for x, at_s in log.read("begin") if at_s > end_s}, "it was not tried while there was other work"


@only(*PROCESSES)
def test_a_task_that_only_dies_beside_others_has_its_value_when_it_runs_alone(pool: Pool, log: Log) -> None:
    def victim(x: int) -> int:
        log.note("run", x)
        if x == 1 and nbpar.current_task().attempt < 3:
            kill_oneself()
        return x * x

    assert pool.map(victim, range(6), retries=2, chunk_size=2) == [0, 1, 4, 9, 16, 25]
    assert log.count("run")[1] == 3


@only(*PROCESSES)
def test_all_tasks_come_to_an_end_when_all_are_deadly(pool: Pool, log: Log) -> None:
    def deadly(x: int) -> None:
        log.note("run", x)
        kill_oneself()

    job = pool.map_async(deadly, range(4), retries=2, on_error="return", chunk_size=1)
    assert pool.map(abs, range(50)) == list(range(50))
    errors: Any = job.result(timeout=50)
    assert [error.n_deaths for error in errors] == [3] * 4
    assert log.count("run") == dict.fromkeys(range(4), 3)
