"""Workers that die among retries, streams, other jobs; each way and place: tests/promises/test_crash_matrix.py."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import nbpar
from nbpar.backends.forkserver import server
from nbpar.errors import WorkerDiedError
from tests.helpers import alive, no_leftovers, until

Pool = nbpar.WorkerPool

NOTICED_S = 2.0
SLACK_S = 3.0  # for a loaded machine: a hang would be minutes


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


def test_death_is_raised_when_errors_are(pool: Pool) -> None:
    with pytest.raises(WorkerDiedError, match="item 2 = 2: ") as caught:
        pool.map(lambda x: os._exit(7) if x == 2 else x, range(5), chunk_size=1)
    assert caught.value.exit_code == 7
    assert set(nbpar.jobs()[-1].results) <= {0, 1, 3, 4}


def test_last_words_are_told_when_the_worker_crashed(pool: Pool) -> None:
    def task(_: int) -> None:
        os.write(2, b"the last thing I saw\n")
        os._exit(9)

    with pytest.raises(WorkerDiedError, match="the last thing I saw"):
        pool.map(task, [0])


def test_task_runs_again_when_retries_are_allowed(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> int:
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        if x == 2 and nbpar.current_task().attempt < 3:
            kill_oneself()
        return x

    assert pool.map(task, range(6), retries=2, chunk_size=3) == list(range(6))
    assert (tmp_path / "2").read_text() == "xxx"
    # Tasks of the same chunk that had ended unreported run again, none of them more often than a worker died.
    assert all(len((tmp_path / str(x)).read_text()) <= 3 for x in range(6))


def test_task_is_given_up_when_it_kills_every_worker(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> int:
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        if x == 2:
            kill_oneself()
        return x

    got = pool.map(task, range(6), retries=1, on_error="skip")
    assert got == [0, 1, 3, 4, 5]
    assert (tmp_path / "2").read_text() == "xx"


def test_every_task_is_lost_alone_when_all_kill(pool: Pool) -> None:
    def task(x: int) -> Any:
        os._exit(1)

    got: Any = pool.map(task, range(4), on_error="return")
    assert [error.index for error in got] == [0, 1, 2, 3]


def test_nothing_is_lost_when_an_idle_worker_is_killed(pool: Pool) -> None:
    victims = list(pool.pids().values())
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    begin_s = time.monotonic()
    assert pool.map(lambda x: x, range(50)) == list(range(50))
    assert time.monotonic() - begin_s < NOTICED_S + SLACK_S
    until(lambda: not set(victims) & set(pool.pids().values()))


def test_nothing_is_lost_when_workers_are_killed_between_many_quick_tasks(pool: Pool) -> None:
    job = pool.map_async(lambda x: x, range(300_000), retries=5)
    for _ in range(3):
        until(lambda: job.done() or pool.pids())
        for pid in list(pool.pids().values())[:1]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: job.done() or len(pool.pids()) == 2)
    assert job.result() == list(range(300_000))


def test_one_task_at_most_is_lost_when_killed_while_sending_large_results(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> Any:
        (tmp_path / f"{x} {os.getpid()}").touch()
        return np.full(3 << 20, x)

    job = pool.map_async(task, range(8), chunk_size=1, on_error="return")
    until(lambda: list(tmp_path.iterdir()))
    pid = int(next(tmp_path.iterdir()).name.split()[1])
    os.kill(pid, signal.SIGKILL)
    got: list[Any] = job.result(timeout=30)
    lost = [one for one in got if isinstance(one, WorkerDiedError)]
    assert len(lost) <= 1
    for x, one in enumerate(got):
        assert one in lost if isinstance(one, WorkerDiedError) else (one == x).all()


def test_one_task_at_most_is_lost_when_killed_while_receiving_large_arguments(pool: Pool) -> None:
    items = [np.full(4 << 20, x, dtype=np.uint8) for x in range(24)]
    job = pool.map_async(lambda array: int(array[0]), items, chunk_size=1, on_error="return")
    for pid in list(pool.pids().values()):
        os.kill(pid, signal.SIGKILL)
    got: list[Any] = job.result(timeout=30)
    assert sum(isinstance(one, WorkerDiedError) for one in got) <= 2
    assert all(isinstance(one, WorkerDiedError) or one == x for x, one in enumerate(got))


def test_worker_is_replaced_when_a_task_closes_all_its_descriptors(pool: Pool) -> None:
    got: Any = pool.map(lambda x: os.closerange(0, 1000) if x == 1 else x, range(4), on_error="return", chunk_size=1)
    assert [got[0], *got[2:]] == [0, 2, 3]
    assert isinstance(got[1], WorkerDiedError)


def test_workers_are_replaced_when_a_task_leaves_a_process_behind(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> int:
        if x == 0:
            pid = os.fork()
            if pid == 0:
                while not (tmp_path / "end").exists():
                    time.sleep(0.01)
                os._exit(0)
            os._exit(8)
        return x

    try:
        got: Any = pool.map(task, range(3), on_error="return", chunk_size=1)
        assert isinstance(got[0], WorkerDiedError)
        assert (got[0].exit_code, got[1:]) == (8, [1, 2])
    finally:
        (tmp_path / "end").touch()


def test_stream_goes_on_when_workers_die(pool: Pool) -> None:
    got = list(pool.imap(lambda x: os._exit(1) if x % 10 == 5 else x, range(40), on_error="skip"))
    assert got == [x for x in range(40) if x % 10 != 5]


def test_future_has_the_death_when_its_worker_died(pool: Pool) -> None:
    future: nbpar.TaskFuture[Any] = pool.submit(os._exit, 3)
    error = future.exception(timeout=20)
    assert isinstance(error, WorkerDiedError)
    assert error.exit_code == 3


def test_others_go_on_when_one_job_kills_its_workers(pool: Pool) -> None:
    def task(x: int) -> Any:
        os._exit(1)

    deadly = pool.map_async(task, range(5), on_error="return")
    assert pool.map(lambda x: x, range(200), retries=0) == list(range(200))
    assert all(isinstance(error, WorkerDiedError) for error in deadly.result(timeout=30))


@pytest.mark.parametrize("die", [kill_oneself, crash], ids=["kill", "segfault"])
def test_nothing_is_left_when_workers_died(pool: Pool, method: str, die: Callable[[], object]) -> None:
    with no_leftovers():
        with nbpar.WorkerPool(n_workers=2, start_method=method) as other:  # type: ignore[arg-type]
            other.map(lambda x: die(), range(4), on_error="return")
            assert other.map(abs, [-1]) == [1]
        del other


def test_pool_heals_when_the_fork_server_is_killed(pool: Pool, method: str) -> None:
    if method != "forkserver":
        pytest.skip("it has no server")
    before = set(pool.pids().values())
    assert server.pid is not None
    family = [(psutil.Process(pid), psutil.Process(pid).ppid()) for pid in (server.pid, *before)]
    os.kill(server.pid, signal.SIGKILL)
    try:
        until(lambda: not any(alive(pid) for pid in before))
    except AssertionError:
        pytest.fail(f"server {server.pid}, pool {pool.pids()}: {family}")
    assert pool.map(lambda x: x, range(20), retries=3) == list(range(20))


def test_stopped_worker_is_killed_when_its_task_times_out(pool: Pool) -> None:
    def task(x: int) -> int:
        if x == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    got: Any = pool.map(task, range(4), timeout=0.3, on_error="return", chunk_size=1)
    assert [got[0], *got[2:]] == [0, 2, 3]
    assert isinstance(got[1], TimeoutError)
