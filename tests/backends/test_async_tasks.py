"""Coroutine functions as tasks: those of a chunk run at once, and each has all that a task has, on all backends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import nbpar
from nbpar.errors import JobCancelledError, SerializationError, TaskError, TaskTimeoutError, WorkerDiedError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, only
from tests.helpers import no_leftovers, until

Pool = Any  # results have the type that awaiting them gives, which `Callable[..., R]` does not say


async def square(x: int) -> int:
    await asyncio.sleep(0.001)
    return x * x


class Asker:
    async def __call__(self, x: int) -> int:
        return await square(x)


async def _met(folder: Path, n: int) -> None:
    """Wait until so many have left a file."""
    await _until(lambda: len(list(folder.iterdir())) >= n)


async def _until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, "it never came to be: did the others not run at the same time?"
        await asyncio.sleep(0.002)  # what is waited for happens in another process


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_come_in_the_order_of_the_items(pool: Pool) -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0.002 * (x % 7))
        return x * x

    assert pool.map(later, range(100)) == [x * x for x in range(100)]
    assert list(pool.imap(later, iter(range(100)))) == [x * x for x in range(100)]
    assert sorted(pool.imap(later, range(40), ordered=False)) == [x * x for x in range(40)]
    assert pool.starmap(functools.partial(_added, z=1), [(1, 2), (3, 4)]) == [4, 8]
    assert pool.map(Asker(), [3, 4]) == [9, 16]
    assert pool.map(square, []) == []


async def _added(x: int, y: int, z: int) -> int:
    await asyncio.sleep(0)
    return x + y + z


def test_tasks_of_a_chunk_wait_for_one_another(pool: Pool, tmp_path: Path) -> None:
    async def meet(x: int) -> int:
        (tmp_path / str(x)).touch()
        await _met(tmp_path, 10)
        return x

    assert pool.map(meet, range(10), chunk_size=10) == list(range(10))


@only(*WITH_WORKERS)
def test_tasks_are_shared_out_among_the_workers_and_wait_for_all(pool: Pool, tmp_path: Path) -> None:
    async def meet(x: int) -> int:
        (tmp_path / str(x)).touch()
        await _met(tmp_path, 30)
        return nbpar.current_task().worker_id

    assert Counter(pool.map(meet, range(30))) == {0: 15, 1: 15}


@only("forkserver", "serial")
def test_no_more_run_at_once_than_were_asked_for(pool: Pool) -> None:
    running = [0, 0]

    async def count(_: int) -> int:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.002)
        running[0] -= 1
        return running[1]

    assert max(pool.map(count, range(200))) == 32
    running[:] = [0, 0]
    assert max(pool.map(count, range(40), chunk_size=4)) == 4


def test_submit_gives_the_value_of_the_coroutine(pool: Pool) -> None:
    assert pool.submit(square, 5).result() == 25
    assert pool.submit(_added, 1, z=3, y=2).result() == 6


def test_job_can_be_awaited_while_its_coroutines_run(pool: Pool) -> None:
    async def main() -> list[int]:
        return list(await pool.map_async(square, range(20)))

    assert asyncio.run(main()) == [x * x for x in range(20)]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failure_is_that_of_its_task_alone_and_shows_its_line(pool: Pool) -> None:
    async def inner(x: int) -> int:
        await asyncio.sleep(0.001)
        if x % 4 == 1:
            raise ValueError(f"no {x}")
        return x

    async def outer(x: int) -> int:
        return await inner(x)

    found = pool.map(outer, range(10), on_error="return")
    errors: list[Any] = [one for one in found if isinstance(one, TaskError)]
    assert [one.index for one in errors] == [1, 5, 9]
    assert [str(one.__cause__) for one in errors] == ["no 1", "no 5", "no 9"]
    assert [one for one in found if not isinstance(one, TaskError)] == [0, 2, 3, 4, 6, 7, 8]
    assert "in inner" in errors[0].remote_traceback
    assert "nbpar" not in errors[0].remote_traceback
    assert pool.map(outer, range(10), on_error="skip") == [0, 2, 3, 4, 6, 7, 8]


def test_first_failure_ends_the_job_while_others_wait(pool: Pool) -> None:
    async def task(x: int) -> None:
        if x == 5:
            raise LookupError("five")
        await asyncio.sleep(60)

    begin_s = time.monotonic()
    with pytest.raises(LookupError, match="five"):
        pool.map(task, range(8), chunk_size=8)
    assert time.monotonic() - begin_s < 20


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_failure_is_the_tasks_own_whatever_it_raises(pool: Pool, error: type[BaseException]) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(0)
        if x == 1:
            raise error
        return x

    good, bad, also_good = pool.map(task, range(3), chunk_size=3, on_error="return")
    assert (good, also_good) == (0, 2)
    assert type(bad.__cause__) is error


def test_failed_tasks_run_again_when_retries_are_allowed(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> tuple[int, int]:
        attempt = nbpar.current_task().attempt
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        await asyncio.sleep(0.001)
        if x == 3 and attempt < 3:
            raise OSError("not yet")
        return x, attempt

    assert pool.map(task, range(6), retries=2) == [(x, 3 if x == 3 else 1) for x in range(6)]
    assert [(tmp_path / str(x)).read_text() for x in range(6)] == ["x", "x", "x", "xxx", "x", "x"]


@only("forkserver")
def test_coroutine_that_nobody_awaits_is_an_error_that_says_what_to_map(pool: Pool) -> None:
    with pytest.raises(SerializationError, match=r"\(coroutine\).*map the `async def` function itself"):
        pool.map(lambda x: square(x + 1), [1])


@only("forkserver", "threads")
def test_results_are_there_while_others_of_their_chunk_run(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> int:
        if x == 0:
            await _until((tmp_path / "go").exists)
        return x

    job = pool.map_async(task, range(8), chunk_size=8)
    until(lambda: sorted(job.results) == [1, 2, 3, 4, 5, 6, 7])
    (tmp_path / "go").touch()
    assert job.result() == list(range(8))


# --- time -------------------------------------------------------------------------------------------------------------


def test_timeout_ends_one_task_and_no_other(pool: Pool) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(60 if x == 2 else 0.01)
        return x

    pids = pool.pids()
    found: list[Any] = pool.map(task, range(5), timeout=0.2, on_error="return")
    assert [one for one in found if not isinstance(one, TaskError)] == [0, 1, 3, 4]
    assert isinstance(found[2], TaskTimeoutError)
    assert found[2].message == "ran longer than timeout=0.2 s and was cancelled"
    assert pool.pids() == pids, "a worker was ended for it"


@only("forkserver", "threads", "serial")
def test_timeout_ends_a_task_that_does_not_let_itself_be_cancelled(pool: Pool) -> None:
    async def task(x: int) -> int:
        while x == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        return x

    good, bad = pool.map(task, range(2), timeout=0.1, on_error="return", chunk_size=2)
    assert good == 0
    assert isinstance(bad, TaskTimeoutError)
    assert pool.map(square, range(4)) == [0, 1, 4, 9]


@only("forkserver")
def test_timeout_ends_the_worker_of_a_task_that_never_waits(pool: Pool) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(0)
        if x == 1:
            time.sleep(60)  # noqa: ASYNC251  # this is the fault
        return x

    good, bad, also_good = pool.map(task, range(3), timeout=0.5, on_error="return", chunk_size=3)
    assert (good, also_good) == (0, 2)
    assert isinstance(bad, TaskTimeoutError)


# --- stopping ---------------------------------------------------------------------------------------------------------


@only(*WITH_WORKERS)
def test_cancelled_job_ends_at_once_and_its_tasks_clean_up(pool: Pool, tmp_path: Path) -> None:
    async def task(name: str) -> None:
        (tmp_path / name).touch()
        try:
            await asyncio.sleep(60)
        finally:
            (tmp_path / f"{name}.ended").touch()

    for attempt in range(5):
        pids = pool.pids()
        job = pool.map_async(task, [f"{attempt}-{x}" for x in range(6)])
        until(lambda: len(list(tmp_path.iterdir())) == 6)
        job.cancel()
        with pytest.raises(JobCancelledError):
            job.result()
        until(functools.partial(lambda pids: len(list(tmp_path.glob("*.ended"))) == 6 or pool.pids() != pids, pids))
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
        if pool.pids() == pids:
            return
        for path in tmp_path.iterdir():  # a worker that had no CPU for a second was ended: once more
            path.unlink()
    pytest.fail("a worker was ended each time")


@only("forkserver", "threads")
def test_cancelled_job_ends_at_once_when_a_task_never_waits(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> None:
        (tmp_path / str(x)).touch()
        while x == 1:
            pass
        await asyncio.sleep(60)

    job = pool.map_async(task, range(2), chunk_size=2)
    until((tmp_path / "1").exists)
    job.cancel()
    until(job.done, within_s=10.0)
    assert pool.map(square, range(4)) == [0, 1, 4, 9]


@only("serial")
def test_interrupt_cancels_what_waits_in_the_callers_thread(pool: Pool) -> None:
    ended = []

    async def task(x: int) -> None:
        if x == 3:
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(x)

    with pytest.raises(KeyboardInterrupt):
        pool.map(task, range(5))
    assert sorted(ended) == [0, 1, 2, 3, 4]


@only("serial")
def test_interrupt_cancels_what_waits_in_a_thread_of_its_own(pool: Pool) -> None:
    ended = []

    async def task(x: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(x)

    async def cell() -> None:
        asyncio.get_running_loop()
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            pool.map(task, range(5))

    loop = asyncio.new_event_loop()  # as in a kernel, where an interrupt is Python's own
    try:
        loop.run_until_complete(cell())
    finally:
        loop.close()
    assert sorted(ended) == [0, 1, 2, 3, 4]


# --- death ------------------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_death_within_a_task_is_blamed_on_it_alone(pool: Pool) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(0.01)
        if x == 3:
            os._exit(7)
        await asyncio.sleep(0.05)
        return x

    found: list[Any] = pool.map(task, range(8), chunk_size=8, on_error="return")
    assert [one for one in found if not isinstance(one, TaskError)] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(found[3], WorkerDiedError)
    assert found[3].exit_code == 7


@only("forkserver")
def test_death_between_two_steps_costs_no_task_and_none_that_had_ended_runs_again(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> int:
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        if x >= 4 and not (tmp_path / "again").exists():
            await asyncio.sleep(60)  # in one go: the death is to come between two steps
        return x

    job = pool.map_async(task, range(8), chunk_size=8)
    until(lambda: sorted(job.results) == [0, 1, 2, 3])
    worker = next(lane.worker_id for lane in job.snapshot().lanes if lane.spans)
    (tmp_path / "again").touch()
    os.kill(pool.pids()[worker], signal.SIGKILL)
    assert job.result() == list(range(8))
    assert [(tmp_path / str(x)).read_text() for x in range(4)] == ["x"] * 4


# --- a task's surroundings --------------------------------------------------------------------------------------------


def test_current_task_is_ones_own_also_in_what_it_begins(pool: Pool) -> None:
    async def part() -> int:
        await asyncio.sleep(0.001)
        return nbpar.current_task().index

    async def task(_: int) -> tuple[int, list[int], int]:
        parts = list(await asyncio.gather(part(), part()))
        in_thread = await asyncio.to_thread(lambda: nbpar.current_task().index)
        return nbpar.current_task().index, parts, in_thread

    assert pool.map(task, range(20)) == [(x, [x, x], x) for x in range(20)]
    with pytest.raises(nbpar.NbparError, match="outside a task"):
        nbpar.current_task()
    until(lambda: not any("to-thread" in one.name or "asyncio" in one.name for one in threading.enumerate()))


def test_printed_lines_have_their_task(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    async def task(x: int) -> None:
        print(f"begin {x}")
        await asyncio.sleep(0.002)
        print(f"end {x}")

    pool.map(task, range(6), progress=True)
    out = capsys.readouterr().out
    for x in range(6):
        assert out.index(f"begin {x}") < out.index(f"end {x}")
        if pool.start_method != "serial":  # there they go straight to the notebook
            assert any(str(x) in line.split("end")[0] for line in out.splitlines() if f"end {x}" in line)


def test_random_numbers_are_those_of_the_seed_however_tasks_take_turns(pool: Pool) -> None:
    async def draw(x: int) -> list[float]:
        first = random.random()
        await asyncio.sleep(0.001 * (x % 3))
        return [float(nbpar.current_task().rng.random()), first, random.random()]

    def at_once(x: int) -> list[float]:
        return [float(nbpar.current_task().rng.random()), random.random(), random.random()]

    before = random.getstate()
    # All threads draw from one global generator, so there only the task's own can be relied on.
    n_same = 1 if pool.start_method == "threads" else 3
    expected = [one[:n_same] for one in pool.map(at_once, range(12), seed=4)]
    assert [one[:n_same] for one in pool.map(draw, range(12), seed=4)] == expected
    assert [one[:n_same] for one in pool.map(draw, range(12), seed=4, chunk_size=3)] == expected
    random.setstate(before)


def test_what_each_worker_has_built_outlives_the_job(pool: Pool) -> None:
    class Client:
        def __init__(self) -> None:
            self.lock = asyncio.Lock()
            self.n_asked = 0

    client = nbpar.per_worker(Client)

    async def ask(x: int) -> tuple[int, int]:
        async with client().lock:  # bound to the event loop that has waited for it
            await asyncio.sleep(0.001)
            client().n_asked += 1
            return x, client().n_asked

    assert [x for x, _ in pool.map(ask, range(10))] == list(range(10))
    if pool.start_method != "serial":  # there a job has an event loop
        again = pool.map(ask, range(10))
        assert [x for x, _ in again] == list(range(10))


def test_async_for_with_and_comprehensions_run(pool: Pool) -> None:
    class Held:
        async def __aenter__(self) -> int:
            await asyncio.sleep(0)
            return 10

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(0)

    async def count(n: int) -> AsyncIterator[int]:
        for x in range(n):
            await asyncio.sleep(0)
            yield x

    async def task(n: int) -> int:
        total = 0
        async with Held() as ten:
            async for x in count(n):
                total += x
        return total + ten + sum([x async for x in count(3)])

    assert pool.map(task, range(5)) == [13, 13, 14, 16, 19]


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_what_a_task_has_begun_and_not_waited_for_is_cancelled(pool: Pool, tmp_path: Path) -> None:
    async def forever(x: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            (tmp_path / str(x)).touch()
            raise

    async def task(x: int) -> int:
        asyncio.create_task(forever(x))  # noqa: RUF006  # this is the fault
        await asyncio.sleep(0.001)
        return x

    assert pool.map(task, range(4)) == [0, 1, 2, 3]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["0", "1", "2", "3"]


@only("forkserver", "threads", "serial")
def test_what_is_left_behind_and_goes_on_is_told_and_the_worker_stays_good(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def task(x: int) -> int:
        asyncio.create_task(stubborn())  # noqa: RUF006  # this is the fault
        await asyncio.sleep(0.001)
        return x

    assert pool.map(task, [5], progress=True) == [5]
    assert pool.map(square, range(4)) == [0, 1, 4, 9]
    out, err = capsys.readouterr()
    assert "left behind by a task, and goes on although it was cancelled: " in out + err
    assert "stubborn" in out + err


@only("forkserver", "spawn", "threads")
def test_event_loops_end_with_their_pool(make_pool: Callable[..., Any]) -> None:
    make_pool().map(square, range(4))  # the servers are there
    with no_leftovers(), make_pool() as pool:
        assert pool.map(square, range(40)) == [x * x for x in range(40)]


# --- beside event loops of others -------------------------------------------------------------------------------------


def test_asyncio_run_works_in_a_plain_task(pool: Pool) -> None:
    assert pool.map(lambda x: asyncio.run(square(x)), range(4)) == [0, 1, 4, 9]
    assert pool.map(square, range(4)) == [0, 1, 4, 9]
    assert pool.map(lambda x: asyncio.run(square(x)), range(4)) == [0, 1, 4, 9]


def test_map_runs_where_an_event_loop_runs_already(pool: Pool) -> None:
    async def cell() -> Any:
        return pool.map(square, range(50))

    assert asyncio.run(cell()) == [x * x for x in range(50)]


@only("forkserver", "threads", "serial")
def test_map_of_coroutines_within_a_coroutine_runs(pool: Pool) -> None:
    inside: Any = nbpar.map

    async def outer(x: int) -> Any:
        await asyncio.sleep(0)
        return sum(inside(square, range(x))) + sum(inside(lambda y: y, range(x))) + nbpar.current_task().index

    assert pool.map(outer, range(4)) == [0, 1, 4, 11]
    assert pool.map(lambda x: sum(inside(square, range(x))), range(4)) == [0, 0, 1, 5]


@only("serial")
def test_map_on_the_pool_of_the_coroutine_itself_runs(pool: Pool) -> None:
    async def outer(x: int) -> Any:
        await asyncio.sleep(0)
        inner = pool.map(square, range(x)), pool.map(lambda y: nbpar.current_task().index, range(x))
        return inner, nbpar.current_task().index

    async def cell() -> Any:
        return pool.map(outer, range(3))

    expected = [(([], []), 0), (([0], [0]), 1), (([0, 1], [0, 1]), 2)]
    assert pool.map(outer, range(3)) == expected
    assert asyncio.run(cell()) == expected


@only("threads")
def test_futures_of_other_threads_can_be_awaited(pool: Pool) -> None:
    future: Future[int] = Future()

    async def task(x: int) -> int:
        if x == 0:
            threading.Timer(0.01, future.set_result, (5,)).start()
        return await asyncio.wrap_future(future) + x

    assert pool.map(task, range(3), chunk_size=3) == [5, 6, 7]


# --- the rest of a job ------------------------------------------------------------------------------------------------


def test_checkpoint_keeps_what_coroutines_gave(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> int:
        with (tmp_path / f"run-{x}").open("a") as file:
            file.write("x")
        await asyncio.sleep(0.001)
        return x * x

    for _ in range(2):
        assert pool.map(task, range(5), checkpoint=tmp_path / "kept") == [0, 1, 4, 9, 16]
    assert [(tmp_path / f"run-{x}").read_text() for x in range(5)] == ["x"] * 5


def test_insights_tell_how_long_one_task_took(pool: Pool) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(0.2)
        return x

    job = pool.map_async(task, range(20))
    job.result()
    snapshot = job.snapshot()
    assert (snapshot.n_done, snapshot.n_failed) == (20, 0)
    assert snapshot.slowest[0].duration_s >= 0.19
    assert min(one.from_s for one in snapshot.durations) > 0.1, "a task's share of the time was taken for its time"
    assert snapshot.elapsed_s < 20 * 0.2, "they ran one by one"


@only("forkserver")
def test_profile_of_coroutines_names_their_lines(pool: Pool) -> None:
    async def task(x: int) -> int:
        end_s = time.perf_counter() + 0.1
        while time.perf_counter() < end_s:  # noqa: ASYNC110  # it shall take CPU time
            await asyncio.sleep(0)
        return x

    job = pool.map_async(task, range(4), profile=True)
    assert job.result() == [0, 1, 2, 3]
    assert "task" in str(job.profile)


@only("forkserver", "threads")
def test_retry_failed_runs_coroutines_again(pool: Pool, tmp_path: Path) -> None:
    async def task(x: int) -> int:
        await asyncio.sleep(0.001)
        if x == 2 and not (tmp_path / "mended").exists():
            raise OSError("away")
        return x

    job = pool.map_async(task, range(5), on_error="return")
    job.wait()
    (tmp_path / "mended").touch()
    assert job.retry_failed().result() == [0, 1, 2, 3, 4]
    assert sys.exc_info() == (None, None, None)
