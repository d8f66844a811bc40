"""`Pool` and `ThreadPool` as programs that were written for multiprocessing use them."""

from __future__ import annotations

import builtins
import gc
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbpar
import nbpar.interop.multiprocessing as mp
from nbpar.errors import JobCancelledError, JobInterrupt, OptionsError, WorkerDiedError
from nbpar.interop.multiprocessing import MaybeEncodingError, Pool, ThreadPool, TimeoutError  # noqa: A004
from nbpar.interop.multiprocessing.arguments import start_method_of
from tests.helpers import jobs_since, no_leftovers, run_script, until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pipes and shared memory are looked up in /proc")


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPool]:
    with ThreadPool(2) as pool:
        yield pool


@pytest.fixture(params=["processes", "threads"])
def pool(request: pytest.FixtureRequest) -> Pool:
    found: Pool = request.getfixturevalue(request.param)
    return found


def reciprocal(x: int) -> float:
    return 1 / x


def generated(n: int, fails_at: int | None = None) -> Iterator[int]:
    for i in range(n):
        if i == fails_at:
            raise KeyError("input")
        yield i


# --- calls ------------------------------------------------------------------------------------------------------------


def test_apply_passes_arguments_by_place_and_by_name(pool: Pool) -> None:
    assert pool.apply(int, ("ff",), {"base": 16}) == 255
    assert pool.apply(int) == 0


def test_map_gives_the_values_in_order(pool: Pool) -> None:
    assert pool.map(abs, [-2, 1, -3]) == [2, 1, 3]
    assert pool.map(abs, generated(5), chunksize=2) == list(range(5))
    assert pool.map(abs, []) == []


def test_starmap_unpacks_the_items(pool: Pool) -> None:
    assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    assert pool.starmap_async(pow, zip([2, 3], [3, 2], strict=True), chunksize=1).get(30) == [8, 9]


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap_gives_the_values_one_by_one(pool: Pool, chunksize: int) -> None:
    values = pool.imap(abs, generated(20), chunksize)
    assert next(values) == 0
    assert values.next(timeout=30) == 1
    assert list(values) == list(range(2, 20))
    with pytest.raises(StopIteration):
        values.next()
    assert sorted(pool.imap_unordered(abs, range(20), chunksize)) == list(range(20))


def test_calls_that_overlap_are_one_job_that_ends_with_the_last_of_them(threads: ThreadPool) -> None:
    go_on = threading.Event()
    results = [threads.apply_async(go_on.wait, (10,)) for _ in range(5)]
    job = nbpar.jobs()[-1]
    assert (job.name, job.n_tasks) == ("apply wait", 5)
    assert not job.done()
    go_on.set()
    assert [result.get(10) for result in results] == [True] * 5
    assert job.wait(10)
    assert (job.status, job.n_done) == ("done", 5)
    known = nbpar.jobs()
    assert [threads.apply(abs, (-x,)) for x in range(3)] == [0, 1, 2]  # one after another: they are not listed
    assert jobs_since(known) == []


def test_a_burst_that_is_cancelled_by_its_card_tells_each_call(threads: ThreadPool) -> None:
    go_on = threading.Event()
    told: list[BaseException] = []
    results = [threads.apply_async(go_on.wait, (30,), error_callback=told.append) for _ in range(5)]
    nbpar.jobs()[-1].cancel()
    for result in results:
        with pytest.raises(JobCancelledError):
            result.get(10)
    go_on.set()
    assert told == []
    assert threads.apply_async(abs, (-1,)).get(10) == 1


def test_many_threads_make_calls_at_once(threads: ThreadPool) -> None:
    found: list[list[int]] = []

    def make_calls() -> None:
        found.append([result.get(20) for result in [threads.apply_async(abs, (-x,)) for x in range(100)]])

    makers = [threading.Thread(target=make_calls) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(20)
    assert found == [list(range(100))] * 4


def test_an_exception_of_a_call_names_the_call(processes: Pool) -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        processes.apply_async(int, ("x",), {"base": 8}).get(30)
    assert "int('x', base=8)" in caught.value.__notes__[0]


def test_a_coroutine_function_is_run_to_its_end(threads: ThreadPool) -> None:
    async def answer(x: int) -> int:
        return x + 1

    values: Any = threads.apply_async(answer, (41,)).get(10), threads.map(answer, [1])
    assert values == (42, [2])


def test_calls_without_workers_have_ended_when_they_are_made() -> None:
    with Pool(start_method="serial") as pool:
        assert pool.apply_async(abs, (-1,)).ready()
        with pytest.raises(ZeroDivisionError):
            pool.apply(reciprocal, (0,))


def test_functions_of_a_notebook_are_called(processes: Pool) -> None:
    factor = 3
    assert processes.map(lambda x: factor * x, [1, 2]) == [3, 6]


def test_options_of_nbpar_come_beside_those_of_multiprocessing(threads: ThreadPool) -> None:
    tries: list[int] = []

    def second_time_lucky(_: int) -> int:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        return 7

    assert threads.map(second_time_lucky, [1], retries=1, name="stubborn") == [7]
    assert nbpar.jobs()[-1].name == "stubborn"
    assert list(threads.imap(abs, [-1], name="streamed")) == [1]
    assert nbpar.jobs()[-1].name == "streamed"
    with pytest.raises(OptionsError, match="retries"):
        threads.map(abs, [1], retries=-1)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_an_exception_of_a_task_is_raised_with_its_item_and_the_traceback_of_its_worker(processes: Pool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        processes.map(reciprocal, [1, 0, 2])
    error: Any = caught.value
    assert "item 1 = 0" in error.__notes__[0]
    assert error.results == [1.0, 0.5]
    assert type(error.__cause__).__name__ == "RemoteTraceback"
    assert "return 1 / x" in str(error.__cause__)


def test_the_exception_of_a_thread_is_raised_as_it_is(threads: ThreadPool) -> None:
    thrown = ValueError("mine")

    def throw() -> None:
        raise thrown

    with pytest.raises(ValueError, match="mine") as caught:
        threads.apply(throw)
    assert caught.value is thrown
    assert caught.value.__cause__ is None


def test_all_tasks_run_although_one_fails(threads: ThreadPool) -> None:
    ran: list[int] = []

    def work(x: int) -> None:
        ran.append(x)
        if x == 0:
            raise ValueError(x)

    with pytest.raises(ValueError, match="0"):
        threads.map(work, range(50), chunksize=1)
    assert sorted(ran) == list(range(50))


def test_imap_goes_on_after_a_task_that_failed(pool: Pool) -> None:
    values = pool.imap(reciprocal, [0, 2])
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert next(values) == 0.5


def test_what_the_input_raises_is_raised_at_its_turn(threads: ThreadPool) -> None:
    values = threads.imap(abs, generated(9, fails_at=2))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(KeyError, match="input"):
        next(values)
    with pytest.raises(KeyError, match="input"):
        threads.map(abs, generated(9, fails_at=2))


def test_a_stop_iteration_of_a_task_does_not_end_the_stream(threads: ThreadPool) -> None:
    empty: Iterator[int] = iter(())
    values = threads.imap(lambda x: x or next(empty), [0, 1])
    with pytest.raises(nbpar.TaskError, match="StopIteration"):
        next(values)
    assert next(values) == 1


def test_an_argument_that_cannot_travel_is_a_pickling_error_that_names_it(processes: Pool) -> None:
    with pytest.raises(pickle.PicklingError, match=r"item.*generator"):
        processes.map(len, [generated(3)])
    with pytest.raises(pickle.PicklingError, match="generator"):
        processes.apply(len, (generated(3),))


def test_a_function_that_cannot_travel_is_told_by_its_result(processes: Pool) -> None:
    numbers = generated(3)
    told: list[BaseException] = []
    result = processes.map_async(lambda _: next(numbers), [1], error_callback=told.append)
    assert not result.successful()
    with pytest.raises(pickle.PicklingError, match="numbers") as caught:
        result.get()
    assert told == [caught.value]
    with pytest.raises(pickle.PicklingError, match="numbers"):
        processes.imap(lambda _: next(numbers), [1])
    assert processes.apply(abs, (-1,)) == 1


def test_a_result_that_cannot_travel_is_multiprocessings_error(processes: Pool) -> None:
    with pytest.raises(MaybeEncodingError, match="generator") as caught:
        processes.apply(lambda: (i for i in range(3)))
    kind: Any = multiprocessing.pool
    assert isinstance(caught.value, kind.MaybeEncodingError)
    assert "TypeError" in caught.value.exc
    assert "generator" in caught.value.value
    with pytest.raises(MaybeEncodingError, match="generator"):
        processes.map(lambda i: (i for _ in range(3)), [1, 2])


def test_a_dead_worker_costs_its_task_and_not_the_pool(processes: Pool) -> None:
    result = processes.map_async(lambda x: x or os._exit(3), [1, 0, 2], chunksize=1)
    with pytest.raises(WorkerDiedError, match="exit code 3") as caught:
        result.get(30)
    assert caught.value.results == [1, 2]
    with pytest.raises(WorkerDiedError, match="exit code 4"):
        processes.apply(os._exit, (4,))
    assert processes.map(abs, [-1, -2]) == [1, 2]


def test_what_cannot_be_called_or_gone_through_is_refused_at_once(threads: ThreadPool) -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="not callable"):
        threads.apply_async(wrong)
    with pytest.raises(TypeError, match="not callable"):
        threads.map(wrong, [1])
    with pytest.raises(TypeError, match="not iterable"):
        threads.map(abs, wrong)
    with pytest.raises(TypeError, match="not iterable"):
        threads.imap(abs, wrong)
    with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
        threads.imap(abs, [1], chunksize=0)
    with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"):
        threads.map(abs, [1], chunksize=0)


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_waited_for_at_most_so_long(threads: ThreadPool) -> None:
    go_on = threading.Event()
    one, many, stream = (
        threads.apply_async(go_on.wait, (10,)),
        threads.map_async(go_on.wait, [10, 10]),
        threads.imap(go_on.wait, [10]),
    )
    for wait in (one.get, many.get, stream.next):
        with pytest.raises(TimeoutError):
            wait(timeout=0.01)
    for result in (one, many):
        result.wait(0.01)
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
    go_on.set()
    assert (one.get(10), many.get(10), stream.next(10)) == (True, [True, True], True)
    assert one.ready()
    assert one.successful()


def test_the_time_limit_of_a_wait_is_not_taken_for_a_timeout_of_a_task(threads: ThreadPool) -> None:
    def timed_out(_: int) -> None:
        raise builtins.TimeoutError("the task's own")

    for ask in (lambda: threads.map(timed_out, [1]), lambda: next(threads.imap(timed_out, [1]))):
        with pytest.raises(builtins.TimeoutError, match="own") as caught:
            ask()
        assert not isinstance(caught.value, TimeoutError)


def test_callbacks_have_been_called_when_a_result_is_ready(pool: Pool) -> None:
    told: list[Any] = []
    pool.apply_async(abs, (-1,), callback=told.append, error_callback=told.append).wait(30)
    pool.map_async(abs, [-2, -3], callback=told.append, error_callback=told.append).wait(30)
    pool.starmap_async(pow, [(2, 2)], callback=told.append).wait(30)
    assert told == [1, [2, 3], [4]]
    result = pool.map_async(reciprocal, [0, 1], callback=told.append, error_callback=told.append)
    result.wait(30)
    assert isinstance(told[3], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError) as caught:
        result.get()
    assert caught.value is told[3]
    assert not result.successful()


def test_a_callback_may_make_the_next_call(threads: ThreadPool) -> None:
    chain: list[Any] = []
    threads.apply_async(abs, (-1,), callback=lambda value: chain.append(threads.apply_async(abs, (-value - 1,)))).wait(
        10
    )
    assert chain[0].get(10) == 2


def test_a_callback_that_raises_is_logged_and_the_result_stays(
    threads: ThreadPool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise ValueError("in the callback")

    with caplog.at_level(logging.ERROR):
        assert threads.map_async(abs, [-1], callback=broken).get(10) == [1]
        assert threads.apply_async(abs, (-1,), callback=broken).get(10) == 1
    assert "in the callback" in caplog.text


# --- the life of a pool -----------------------------------------------------------------------------------------------


def test_a_closed_pool_ends_what_it_was_given_and_takes_no_more() -> None:
    pool = Pool(1, start_method="threads")
    go_on = threading.Event()
    result, values = pool.map_async(go_on.wait, [10]), pool.imap(abs, generated(10))
    pool.close()
    for call in (lambda: pool.apply(abs, (1,)), lambda: pool.map(abs, [1]), lambda: pool.imap(abs, [1])):
        with pytest.raises(ValueError, match="Pool not running"):
            call()
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass
    go_on.set()
    pool.join()
    assert result.get(0) == [True]
    assert list(values) == list(range(10))


def test_join_waits_for_tasks_whose_results_nobody_takes() -> None:
    ran: list[int] = []
    pool = ThreadPool(2)
    values = pool.imap_unordered(ran.append, generated(30_000))
    pool.close()
    pool.join()
    assert len(ran) == 30_000
    del values
    pool = ThreadPool(2)
    pool.imap(ran.append, generated(100))
    pool.close()
    pool.join()
    assert len(ran) == 30_100


def test_join_asks_for_the_pool_to_be_closed_first() -> None:
    with ThreadPool(1) as pool, pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.join()
    pool.join()


def test_leaving_the_block_terminates_and_nothing_is_left() -> None:
    with Pool(1) as pool:  # so that the fork server runs, which stays
        pool.map(abs, [1])
    pool.join()
    begin_s = time.monotonic()
    with no_leftovers():
        with Pool(2) as pool:
            told: list[Any] = []
            result = pool.map_async(time.sleep, [60] * 100, chunksize=1, error_callback=told.append)
            assert pool.apply_async(abs, (-1,)).ready() is False
        with pytest.raises(JobCancelledError):
            result.get(10)
        assert told == []
        pool.join()
        del pool, result
    assert time.monotonic() - begin_s < 30


def test_a_pool_that_is_dropped_warns_as_multiprocessings_does_and_ends() -> None:
    pool = ThreadPool(1)
    (worker,) = pool.map(lambda _: threading.current_thread(), [1])
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        pools.clear()
    until(lambda: not worker.is_alive())
    pool = ThreadPool(1)
    pool.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool
        gc.collect()


def test_a_result_outlives_the_names_of_its_pool() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        result = ThreadPool(1).map_async(abs, [-1])
        values = ThreadPool(1).imap(abs, generated(3))
        gc.collect()
        assert result.get(10) == [1]
        assert list(values) == [0, 1, 2]


def test_a_program_ends_although_its_pool_was_never_closed() -> None:
    code = (
        "from nbpar.interop.multiprocessing import Pool\n"
        "import time\n"
        "other, pool = Pool(1), Pool(2)\n"
        "values = other.imap(abs, iter(range(-5, 5)))\n"
        "pool.map_async(time.sleep, [60, 60])\n"
        "print(next(values))\n"
    )
    assert run_script(code) == "5\n"


def test_a_pool_cannot_be_pickled_and_says_what_it_is(threads: ThreadPool) -> None:
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(threads)
    assert "state=RUN pool_size=2" in repr(threads)


def test_an_interrupt_ends_the_map_and_leaves_the_pool(processes: Pool) -> None:
    processes.map(abs, [1])
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        until(lambda: processes._workers._backend.activities(nbpar.jobs()[-1].id))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(JobInterrupt, match="cancelled"):
        processes.map(time.sleep, [30, 30], name="to be interrupted")
    thread.join()
    assert processes.map(abs, [-1]) == [1]


def test_an_interrupt_of_a_wait_for_a_value_ends_the_stream(threads: ThreadPool) -> None:
    main = threading.main_thread().ident
    assert main is not None
    go_on = threading.Event()
    values = threads.imap(go_on.wait, [30, 30])
    job = nbpar.jobs()[-1]

    def interrupt() -> None:
        until(lambda: job._waiters._locks)  # somebody waits for it
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(JobInterrupt, match="cancelled"):
        next(values)
    thread.join()
    go_on.set()
    assert job.status == "cancelled"
    assert threads.map(abs, [-1]) == [1]


# --- arguments of a pool ----------------------------------------------------------------------------------------------


def test_arguments_are_checked_as_multiprocessing_checks_them() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(number)
    for limit in (0, -1, 0.5, "12"):
        wrong: Any = limit
        with pytest.raises(ValueError, match="maxtasksperchild must be a positive int"):
            Pool(1, maxtasksperchild=wrong)
    not_callable: Any = 3
    with pytest.raises(TypeError, match="must be a callable"):
        Pool(1, not_callable)
    with pytest.raises(OptionsError, match="context"):
        Pool(1, context="threads")
    with pytest.raises(OptionsError, match="memory_limit"):
        Pool(1, memory_limit=-1)


def test_a_context_says_how_workers_start() -> None:
    assert start_method_of(None) is None
    for method in multiprocessing.get_all_start_methods():
        assert start_method_of(method) == start_method_of(multiprocessing.get_context(method)) == method
    with mp.get_context("spawn").Pool(1) as pool:
        assert pool._workers.start_method == "spawn"
    assert mp.get_context("spawn").get_start_method() == "spawn"


def test_the_default_number_of_workers_is_that_of_the_cpus_that_may_be_used() -> None:
    with Pool() as pool:
        assert f"pool_size={mp.cpu_count()}" in repr(pool)


def remember(value: str, lock: Any) -> None:
    global remembered
    remembered = value
    assert lock.acquire(timeout=10)
    lock.release()


def recall(_: int) -> str:
    return f"{remembered} in {multiprocessing.current_process().name}"


remembered = "nothing"


def test_an_initializer_sets_globals_that_tasks_read() -> None:
    with Pool(2, remember, ("it", mp.Lock())) as pool:
        assert set(pool.map(recall, range(20))) <= {"it in PoolWorker-1", "it in PoolWorker-2"}
    assert remembered == "nothing"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("context", ["None", "'fork'"])
def test_a_forked_worker_inherits_what_cannot_be_pickled(context: str) -> None:
    code = (
        "import multiprocessing, threading\n"
        "from nbpar.interop.multiprocessing import Pool\n"
        "def begin(a_lock, items):\n"
        "    global lock, numbers\n"
        "    lock, numbers = a_lock, items\n"
        "def work(i):\n"
        "    with lock:\n"
        "        return next(numbers) + i\n"
        "lock = None\n"
        "made = multiprocessing.get_context('fork').Lock(), (i for i in range(9))\n"
        f"with Pool(1, begin, made, context={context}) as pool:\n"
        "    print(pool.map(work, [10, 20]), pool._workers.start_method)\n"
    )
    assert run_script(code) == "[10, 21] fork\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_what_only_a_fork_can_pass_on_is_refused_where_another_start_was_asked_for() -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(pickle.PicklingError, match=r"initargs\[1\] \(Lock\).*get_context\('spawn'\)"):
        Pool(1, remember, ("it", lock), start_method="forkserver")


def test_an_initializer_that_fails_is_told_once_with_its_exception() -> None:
    def broken() -> None:
        raise ValueError("no licence")

    with Pool(2, broken) as pool:
        with pytest.raises(nbpar.WorkerStartError, match="no licence") as caught:
            pool.map(abs, [1])
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(nbpar.WorkerStartError, match="no licence"):
            pool.apply_async(abs, (1,)).get(30)
        with pytest.raises(nbpar.WorkerStartError, match="no licence"):
            next(pool.imap(abs, [1]))


def test_workers_live_for_so_many_chunks() -> None:
    with Pool(1, maxtasksperchild=1) as pool:
        pids = pool.map(lambda _: os.getpid(), range(8))
        assert len(set(pids)) == 4  # four chunks for each worker, as multiprocessing cuts them
        assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2, 2]
        assert pool.starmap(pow, [(2, 2), (2, 3)], chunksize=2) == [4, 8]
        streamed = list(pool.imap(lambda _: os.getpid(), range(6), chunksize=3))
        assert len(set(streamed)) == 2
        with pytest.raises(ZeroDivisionError):
            pool.map(reciprocal, [1, 0], chunksize=2)


# --- inside a worker --------------------------------------------------------------------------------------------------


def test_a_pool_inside_a_task_runs_there_unless_it_is_asked_for_workers(processes: Pool) -> None:
    def inner(n_workers: int | None) -> tuple[bool, list[int]]:
        with Pool(n_workers) as pool:
            pids = pool.map(lambda _: os.getpid(), range(2))
            return os.getpid() in pids, pool.map(abs, [-1, -2])

    assert processes.map(inner, [None, 1]) == [(True, [1, 2]), (False, [1, 2])]


# --- what processes have in common ------------------------------------------------------------------------------------


def test_proxies_of_a_manager_arrive_in_arguments_and_closures(processes: Pool) -> None:
    with mp.Manager() as manager:
        listed, queue, lock, counts = manager.list(), manager.Queue(), manager.Lock(), manager.dict(n=0)

        def work(x: int) -> int:
            with lock:
                counts["n"] += x
            queue.put(x)
            return x

        assert processes.map(work, [1, 2, 3]) == [1, 2, 3]
        processes.starmap(lambda there, x: there.append(x), [(listed, 1), (listed, 2)])
        assert sorted(listed) == [1, 2]
        assert counts["n"] == 6
        assert sorted(queue.get() for _ in range(3)) == [1, 2, 3]


@on_linux
def test_locks_values_and_queues_of_the_door_arrive_in_arguments(processes: Pool) -> None:
    lock, total, queue = mp.Lock(), mp.Value("i", 0), mp.SimpleQueue()

    def work(_: int) -> None:
        for _ in range(200):
            with lock:
                total.value += 1
        queue.put(os.getpid())

    processes.map(work, range(4), chunksize=1)
    assert total.value == 800
    assert {queue.get() for _ in range(4)} <= set(processes._workers.pids().values())


@on_linux
def test_what_workers_put_into_a_queue_is_there_after_join() -> None:
    queue = mp.Queue()
    pool = Pool(2)
    pool.map_async(queue.put, range(50))
    pool.close()
    pool.join()
    assert sorted(queue.get(timeout=10) for _ in range(50)) == list(range(50))
    queue.close()
    queue.join_thread()


@on_linux
def test_a_worker_ends_when_all_that_it_put_into_a_queue_is_written() -> None:
    queue = mp.Queue()
    large = "x" * 100_000  # more than a pipe holds
    pool = Pool(2)
    pool.map_async(lambda i: queue.put((i, large)), range(20))
    pool.close()
    assert sorted(queue.get(timeout=30)[0] for _ in range(20)) == list(range(20))
    pool.join()
    queue.close()
    queue.join_thread()


def test_other_names_of_the_module_are_multiprocessings_own() -> None:
    assert mp.Manager == multiprocessing.Manager
    assert mp.current_process() is multiprocessing.current_process()
    assert mp.TimeoutError is multiprocessing.TimeoutError
    assert {"Pool", "Lock", "cpu_count"} <= set(dir(mp))
    with pytest.raises(AttributeError):
        _ = mp.nothing_like_that
    star: dict[str, Any] = {}
    exec("from nbpar.interop.multiprocessing import *", star)
    assert star["Pool"] is Pool


def test_a_program_needs_one_changed_line(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "from nbpar.interop.multiprocessing import Pool, cpu_count\n"
        "def square(x):\n"
        "    return x * x\n"
        "if __name__ == '__main__':\n"
        "    with Pool(min(2, cpu_count())) as pool:\n"
        "        print(sum(pool.imap_unordered(square, range(100), chunksize=10)))\n"
    )
    assert run_script(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") == "328350\n"
