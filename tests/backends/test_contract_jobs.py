"""What every backend promises of jobs that are waited for in other ways: async, futures, streams, several at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import JobCancelledError, OptionsError, PoolClosedError, TaskError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, MakePool, only
from tests.helpers import until

Pool = nbpar.WorkerPool


class Gate:
    """Holds tasks until it is opened; works across processes, through a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, x: int) -> int:
        (self.folder / f"begun-{x}").touch()
        while not (self.folder / "open").exists():
            time.sleep(0.005)
        return x

    def open(self) -> None:
        (self.folder / "open").touch()

    @property
    def n_begun(self) -> int:
        return len(list(self.folder.glob("begun-*")))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.open()


# --- map_async --------------------------------------------------------------------------------------------------------


def test_job_has_results_when_it_is_done(pool: Pool) -> None:
    job = pool.map_async(lambda x: x + 1, range(10), name="plus one")
    assert job.result() == list(range(1, 11))
    assert (job.status, job.done(), job.n_done, job.n_tasks, job.name) == ("done", True, 10, 10, "plus one")
    assert job.exception() is None
    assert job.results == list(range(1, 11))
    assert len(job) == 10
    assert job in nbpar.jobs()
    assert not job.cancel()
    snapshot = job.snapshot()
    assert (snapshot.n_done, snapshot.status) == (10, "done")
    assert sum(lane.n_done for lane in snapshot.lanes) == 10


def test_job_tells_its_error_when_a_task_failed(pool: Pool) -> None:
    job = pool.map_async(lambda x: 1 // x, [0])
    assert isinstance(job.exception(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        job.result()
    assert job.status == "failed"
    (failure,) = job.snapshot().failures
    assert (failure.index, failure.error_type, failure.item_repr) == (0, "ZeroDivisionError", "0")


@only(*WITH_WORKERS)
def test_call_returns_at_once_when_tasks_take_long(pool: Pool, gate: Gate) -> None:
    job = pool.map_async(gate, range(4))
    assert not job.done()
    assert not job.wait(timeout=0.01)
    with pytest.raises(TimeoutError):
        job.result(timeout=0.01)
    assert job.status == "running"
    gate.open()
    assert job.wait(timeout=20)
    assert job.result() == [0, 1, 2, 3]


@only(*WITH_WORKERS)
def test_results_so_far_are_there_when_the_job_still_runs(pool: Pool, gate: Gate) -> None:
    job = pool.map_async(lambda x: gate(x) if x == 3 else 10 * x, range(4), chunk_size=1)
    until(lambda: len(job.results) == 3)
    assert job.results_by_index == {0: 0, 1: 10, 2: 20}
    gate.open()
    assert job.result() == [0, 10, 20, 3]


@only(*WITH_WORKERS)
def test_job_stops_when_cancelled(pool: Pool, gate: Gate) -> None:
    def task(x: int) -> int:
        return gate(x) if x > 1 else x

    job = pool.map_async(task, range(100), chunk_size=1)
    until(lambda: gate.n_begun == pool.n_workers and len(job.results) == 2)
    begin_s = time.monotonic()
    assert job.cancel()
    assert job.wait(timeout=20)
    assert time.monotonic() - begin_s < 2
    assert job.status == "cancelled"
    assert job.results_by_index == {0: 0, 1: 1}
    assert gate.n_begun <= 2 * pool.n_workers
    with pytest.raises(JobCancelledError):
        job.result()
    assert isinstance(job.exception(), JobCancelledError)
    assert not job.cancel()


@only(*PROCESSES)
def test_worker_is_freed_when_a_cancelled_task_swallows_its_interrupt(pool: Pool, tmp_path: Path) -> None:
    def stubborn(_: int) -> None:
        (tmp_path / "begun").touch()
        while True:
            with contextlib.suppress(BaseException):  # that is the stubbornness
                time.sleep(1000)

    job = pool.map_async(stubborn, [0])
    until((tmp_path / "begun").exists)
    pids = pool.pids()
    job.cancel()
    assert job.wait(timeout=2)
    until(lambda: len(pool.pids()) == 2 and pool.pids() != pids)


@only(*WITH_WORKERS)
def test_except_exception_lets_the_interrupt_pass_when_cancelled(pool: Pool, tmp_path: Path) -> None:
    def task(_: int) -> None:
        (tmp_path / "begun").touch()
        while True:
            with contextlib.suppress(Exception):  # as users write it
                time.sleep(0.01)

    job = pool.map_async(task, [0])
    until((tmp_path / "begun").exists)
    pids = pool.pids()
    job.cancel()
    assert job.wait(timeout=5)
    pool.map(abs, range(4), chunk_size=1)
    assert pool.pids() == pids


@only(*WITH_WORKERS)
def test_nothing_more_begins_when_paused(pool: Pool, gate: Gate) -> None:
    job = pool.map_async(gate, range(10), chunk_size=1)
    until(lambda: gate.n_begun == 2)
    job.pause()
    assert job.status == "paused"
    gate.open()
    until(lambda: job.n_done == 2)
    assert pool.map(abs, [-1]) == [1]
    assert (gate.n_begun, job.n_done, job.done()) == (2, 2, False)
    job.resume()
    assert job.result() == list(range(10))


@only(*WITH_WORKERS)
def test_paused_job_ends_when_cancelled(pool: Pool) -> None:
    job = pool.map_async(lambda x: time.sleep(0.01), range(10_000))
    job.pause()
    job.cancel()
    assert job.wait(timeout=5)
    assert job.status == "cancelled"


def test_results_come_in_order_when_a_job_is_iterated(pool: Pool) -> None:
    job = pool.map_async(lambda x: x * x, range(20))
    assert list(job) == [x * x for x in range(20)]
    assert list(job) == job.result()


def test_error_comes_at_its_turn_when_a_job_is_iterated(pool: Pool) -> None:
    results = iter(pool.map_async(lambda x: 1 // x, [1, 2, 0], chunk_size=1))
    with pytest.raises(ZeroDivisionError):
        list(results)
    got = list(pool.map_async(lambda x: 1 // x, [1, 0, 2], on_error="return"))
    assert (got[0], type(got[1]), got[2]) == (1, TaskError, 0)
    assert list(pool.map_async(lambda x: 1 // x, [1, 0, 2], on_error="skip")) == [1, 0]


def test_callback_is_called_once_when_the_job_ends(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[nbpar.Job[Any]] = []
    job = pool.map_async(abs, [-1])

    def broken(_: object) -> None:
        raise ValueError("in a callback")

    job.add_done_callback(broken)
    job.add_done_callback(seen.append)
    job.wait()
    until(lambda: seen)
    job.add_done_callback(seen.append)
    assert seen == [job, job]


def test_job_can_be_awaited_by_several_when_in_a_loop(pool: Pool) -> None:
    async def main() -> Any:
        job = pool.map_async(lambda x: x + 1, range(5))
        other = pool.map_async(lambda x: 1 // x, [0])
        return await asyncio.gather(job, job, other, pool.submit(pow, 2, 3), return_exceptions=True)

    first, second, error, power = asyncio.run(main())
    assert first == second == [1, 2, 3, 4, 5]
    assert isinstance(error, ZeroDivisionError)
    assert power == 8


@only(*WITH_WORKERS)
def test_loop_goes_on_when_a_job_is_awaited(pool: Pool, gate: Gate) -> None:
    async def main() -> list[int]:
        job = pool.map_async(gate, [7])
        waiting = asyncio.ensure_future(job)
        for _ in range(3):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        gate.open()
        return await waiting

    assert asyncio.run(main()) == [7]


# --- submit -----------------------------------------------------------------------------------------------------------


def test_future_has_the_result_when_done(pool: Pool) -> None:
    future = pool.submit(int, "ff", base=16)
    assert future.result(timeout=20) == 255
    assert (future.done(), future.cancelled(), future.exception()) == (True, False, None)
    assert not future.cancel()
    assert pool.submit(lambda: None).result() is None
    assert pool.submit(dict, function=1, self=2).result() == {"function": 1, "self": 2}


def test_future_has_the_exception_when_the_task_failed(pool: Pool) -> None:
    future = pool.submit(lambda: 1 / 0)
    assert isinstance(future.exception(timeout=20), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        future.result()


def test_futures_work_with_the_standard_library_when_many(pool: Pool) -> None:
    futures: dict[Any, int] = {pool.submit(pow, x, 2): x for x in range(50)}
    assert {futures[one]: one.result() for one in as_completed(futures, timeout=20)} == {x: x * x for x in range(50)}


@only(*WITH_WORKERS)
def test_task_stops_when_its_future_is_cancelled(pool: Pool, gate: Gate) -> None:
    futures = [pool.submit(gate, i) for i in range(10)]
    until(lambda: gate.n_begun == 2)
    for _ in range(2):
        assert all(future.cancel() for future in reversed(futures))
    assert all(future.cancelled() for future in futures)
    with pytest.raises(CancelledError):
        futures[0].result()
    assert pool.submit(abs, -1).result(timeout=20) == 1
    assert gate.n_begun <= 4


@only(*WITH_WORKERS)
def test_nothing_breaks_when_futures_are_cancelled_as_they_end(pool: Pool) -> None:
    for _ in range(200):
        future = pool.submit(abs, -1)
        threading.Thread(target=future.cancel).start()
        assert future.cancelled() or not future.cancel() or future.cancelled()
    assert pool.submit(abs, -2).result(timeout=20) == 2


@only(*WITH_WORKERS)
def test_task_is_cancelled_when_its_awaiting_is(pool: Pool, gate: Gate) -> None:
    async def main() -> None:
        future = pool.submit(gate, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.05)
        assert future.cancelled()

    asyncio.run(main())


# --- imap -------------------------------------------------------------------------------------------------------------


def counted(reads: list[int], n: int | None = None) -> Iterator[int]:
    for i in itertools.count() if n is None else range(n):
        reads.append(i)
        yield i


@pytest.mark.parametrize("n_items", [0, 1, 7, 1000])
def test_stream_is_in_order_when_ordered(pool: Pool, n_items: int) -> None:
    assert list(pool.imap(lambda x: x * x, counted([], n_items))) == [x * x for x in range(n_items)]


def test_stream_is_complete_when_not_ordered(pool: Pool) -> None:
    assert sorted(pool.imap(lambda x: x * x, range(300), ordered=False)) == [x * x for x in range(300)]


@only(*WITH_WORKERS)
def test_stream_gives_what_is_ready_when_not_ordered(pool: Pool, gate: Gate) -> None:
    results = pool.imap(lambda x: gate(x) if x == 0 else x, range(6), ordered=False, chunk_size=1)
    assert sorted(itertools.islice(results, 5)) == [1, 2, 3, 4, 5]
    gate.open()
    assert list(results) == [0]


def test_stream_ends_when_the_loop_over_endless_input_breaks(pool: Pool) -> None:
    reads: list[int] = []
    for value in pool.imap(lambda x: x, counted(reads)):
        if value == 20:
            break
    n_read = len(reads)
    assert pool.map(abs, [-1]) == [1]
    assert len(reads) == n_read, "the input is read on"
    until(nbpar.jobs()[-2].done)


def test_error_of_the_input_comes_at_its_turn_when_streaming(pool: Pool) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(pool.imap(lambda x: x, items()))


@pytest.mark.parametrize("ordered", [True, False])
def test_errors_follow_the_option_when_streaming(pool: Pool, ordered: bool) -> None:
    def task(x: int) -> float:
        return 1 // x

    with pytest.raises(ZeroDivisionError) as caught:
        list(pool.imap(task, [1, 0, 2], ordered=ordered))
    assert "item 1 = 0" in caught.value.__notes__[0]
    got = list(pool.imap(task, [1, 0, 2], ordered=ordered, on_error="return"))
    assert sorted(type(one).__name__ for one in got) == ["TaskError", "int", "int"]
    assert sorted(pool.imap(task, [1, 0, 2], ordered=ordered, on_error="skip")) == [0, 1]


def test_task_runs_again_when_streaming_with_retries(pool: Pool) -> None:
    def task(x: int) -> int:
        if nbpar.current_task().attempt == 1 and x % 3 == 0:
            raise OSError
        return x

    assert list(pool.imap(task, counted([], 50), retries=1, chunk_size=7)) == list(range(50))


@pytest.mark.parametrize("window", [1, 3])
def test_input_is_read_no_further_than_the_window_when_the_consumer_is_slow(pool: Pool, window: int) -> None:
    reads: list[int] = []
    n_out = 0
    for _ in pool.imap(lambda x: x, counted(reads, 30), max_in_flight=window):
        n_out += 1
        assert len(reads) <= n_out - 1 + window
    assert n_out == 30


def test_input_is_read_a_bounded_way_ahead_when_nothing_was_taken(pool: Pool) -> None:
    reads: list[int] = []
    results = pool.imap(lambda x: x, counted(reads), chunk_size=5)
    assert reads == []
    next(results)
    assert len(reads) <= 4 * 5 * pool.n_workers
    results.close()  # type: ignore[attr-defined]  # a generator


def test_nothing_stays_when_a_stream_is_dropped(pool: Pool) -> None:
    for n_taken in (0, 3):
        results = pool.imap(lambda x: x, counted([]))
        list(itertools.islice(results, n_taken))
        job = nbpar.jobs()[-1]
        del results
        assert job.wait(timeout=10)


def test_streams_do_not_mix_when_two_are_read_in_turns(pool: Pool) -> None:
    a, b = pool.imap(lambda x: x, range(50)), pool.imap(lambda x: -x, range(50))
    assert list(zip(a, b, strict=True)) == [(i, -i) for i in range(50)]


def test_items_are_paired_when_streaming_several_iterables(pool: Pool) -> None:
    assert list(pool.imap(pow, itertools.count(1), [2, 2, 2])) == [1, 4, 9]


def test_ordered_is_checked_when_streaming(pool: Pool) -> None:
    with pytest.raises(OptionsError, match="ordered"):
        pool.imap(abs, [1], ordered="yes")  # type: ignore[arg-type]


def test_large_items_do_not_pile_up_when_streaming(pool: Pool) -> None:
    total = 0.0
    for array in pool.imap(lambda i: np.ones(1 << 17), range(40), max_in_flight=4):
        total += float(array[0])
    assert total == 40


# --- bounds and fairness ----------------------------------------------------------------------------------------------


@only(*WITH_WORKERS)
def test_no_more_tasks_are_out_than_allowed_when_max_in_flight(pool: Pool, gate: Gate) -> None:
    job = pool.map_async(gate, range(20), max_in_flight=1)
    until(lambda: gate.n_begun == 1)
    assert pool.map(abs, [-1]) == [1]
    assert gate.n_begun == 1
    gate.open()
    assert job.result() == list(range(20))


@only(*WITH_WORKERS)
def test_small_job_is_not_held_up_when_a_large_one_runs(pool: Pool) -> None:
    large = pool.map_async(lambda x: time.sleep(0.005), range(2000), chunk_size=1)
    assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    assert not large.done()
    large.cancel()
    large.wait()


@only("forkserver", "threads")
@pytest.mark.parametrize("long_first", [True, False])
def test_two_jobs_get_the_same_time_of_workers_when_their_tasks_differ_in_length(pool: Pool, long_first: bool) -> None:
    def rest(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    lengths = (0.06, 0.003) if long_first else (0.003, 0.06)
    jobs = [pool.map_async(rest, [seconds] * 2000) for seconds in lengths]
    until(lambda: sum(sum(job.results) for job in jobs) > 1.5)
    first_s, second_s = (sum(job.results) for job in jobs)
    for job in jobs:
        job.cancel()
        job.wait()
    assert 0.5 < first_s / second_s < 2.0


@only(*WITH_WORKERS)
def test_everyone_gets_their_own_when_threads_share_a_pool(pool: Pool) -> None:
    got: dict[int, Any] = {}

    def use(n: int) -> None:
        mine: list[Any] = [pool.map(lambda x: x * n, range(50)), list(pool.imap(lambda x: x + n, range(50)))]
        mine.append(pool.submit(pow, n, 2).result())
        try:
            pool.map(lambda x: 1 // (x - n), range(10))
        except ZeroDivisionError:
            mine.append("failed")
        got[n] = mine

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert got[n] == [[x * n for x in range(50)], [x + n for x in range(50)], n * n, "failed"]


# --- the end of a pool ------------------------------------------------------------------------------------------------


def refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except PoolClosedError:
        return True
    return False


def test_pool_refuses_work_when_it_was_shut_down(make_pool: MakePool) -> None:
    pool = make_pool()
    assert pool.map(abs, [-1]) == [1]
    results = pool.imap(abs, range(100))
    pool.shutdown()
    pool.shutdown()
    calls: list[Callable[[], object]] = [
        lambda: pool.map(abs, [1]),
        lambda: pool.starmap(abs, [(1,)]),
        lambda: pool.imap(abs, [1]),
        lambda: pool.map_async(abs, [1]),
        lambda: pool.submit(abs, 1),
        pool.warm,
        pool.restart,
    ]
    assert all(refuses(call) for call in calls)
    with pytest.raises((JobCancelledError, PoolClosedError)):
        next(results)
    assert pool.pids() == {} or pool.start_method == "serial"
    assert "shut down" in repr(pool)


def test_nothing_happens_when_an_unused_pool_is_shut_down(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.shutdown()
    with make_pool() as other:
        pass
    assert refuses(lambda: other.map(abs, [1]))


@only(*WITH_WORKERS)
def test_jobs_are_waited_for_when_the_block_ends(make_pool: MakePool) -> None:
    def task(x: int) -> int:
        time.sleep(0.05)
        return x

    with make_pool() as pool:
        job = pool.map_async(task, range(4))
    assert job.results == [0, 1, 2, 3]
    assert job.status == "done"


@only(*WITH_WORKERS)
def test_jobs_are_cancelled_when_the_block_ends_by_an_exception(make_pool: MakePool) -> None:
    begin_s = time.monotonic()
    with pytest.raises(KeyError), make_pool() as pool:  # noqa: PT012  # the block is what is tested
        job = pool.map_async(lambda x: time.sleep(1000), range(4))
        raise KeyError
    assert time.monotonic() - begin_s < 10
    assert job.status == "cancelled"


@only(*WITH_WORKERS)
def test_shutdown_returns_at_once_when_it_need_not_wait(make_pool: MakePool, gate: Gate) -> None:
    pool = make_pool()
    job = pool.map_async(gate, range(4))
    until(lambda: gate.n_begun == 2)
    pool.shutdown(wait=False)
    assert not job.done()
    gate.open()
    assert job.result(timeout=20) == [0, 1, 2, 3]


@only(*WITH_WORKERS)
def test_tasks_are_cancelled_when_shut_down_with_cancel(make_pool: MakePool, gate: Gate) -> None:
    pool = make_pool()
    job, future = pool.map_async(gate, range(4)), pool.submit(gate, 5)
    until(lambda: gate.n_begun == 2)
    pool.shutdown(cancel=True)
    assert job.status == "cancelled"
    assert future.done()
    with pytest.raises(JobCancelledError):
        future.result()


@only(*WITH_WORKERS)
def test_shutdown_does_not_hang_when_a_stream_is_half_read(make_pool: MakePool) -> None:
    with make_pool() as pool:
        results = pool.imap(lambda x: x, counted([]))
        next(results)
    with pytest.raises((JobCancelledError, PoolClosedError)):
        for _ in results:
            pass


@only(*WITH_WORKERS)
def test_nothing_is_lost_when_jobs_begin_while_the_pool_closes(make_pool: MakePool) -> None:
    for _ in range(20):
        pool = make_pool()
        jobs: list[nbpar.Job[int]] = []

        def begin(pool: Pool, jobs: list[nbpar.Job[int]]) -> None:
            try:
                while True:
                    jobs.append(pool.map_async(abs, [-1]))
            except PoolClosedError:
                pass

        thread = threading.Thread(target=begin, args=(pool, jobs))
        thread.start()
        until(jobs.copy)
        pool.shutdown(wait=False, cancel=True)
        thread.join()
        assert all(job.wait(timeout=10) for job in jobs)
