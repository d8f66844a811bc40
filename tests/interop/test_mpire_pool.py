"""MPIRE's pool: the map family, its arguments, order, laziness and exceptions."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nbpar.interop.mpire
from nbpar.errors import OptionsError, SerializationError
from nbpar.interop.mpire import WorkerPool
from nbpar.interop.mpire.hooks import split_arguments
from nbpar.interop.mpire.shift import PinningError
from tests.helpers import alive, no_leftovers, until

pytestmark = pytest.mark.filterwarnings("ignore:start_method=.fork.:RuntimeWarning")  # tests before may leave threads

PROCESSES = ("forkserver", "spawn", "fork")


def threads(**options: Any) -> WorkerPool:
    return WorkerPool(2, start_method="threading", **options)


@pytest.fixture(scope="module")
def warm() -> Iterator[WorkerPool]:
    """Processes that stay over the tests; each finds them, or new ones."""
    with WorkerPool(2, keep_alive=True) as pool:
        yield pool


def square(x: Any) -> Any:
    return x * x


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map", "map_unordered", "imap", "imap_unordered"])
@pytest.mark.parametrize("is_generator", [False, True])
def test_map_gives_what_the_function_returns(warm: WorkerPool, name: str, is_generator: bool) -> None:
    items: Any = (x for x in range(20)) if is_generator else range(20)
    results = getattr(warm, name)(square, items, iterable_len=20)
    assert type(results) is (types.GeneratorType if name.startswith("imap") else list)
    results = list(results)
    assert (sorted(results) if name.endswith("unordered") else results) == [x * x for x in range(20)]


@pytest.mark.parametrize("name", ["map", "map_unordered", "imap", "imap_unordered"])
def test_nothing_maps_to_nothing(name: str) -> None:
    with threads() as pool:
        assert list(getattr(pool, name)(square, [])) == []
        assert list(getattr(pool, name)(square, iter([]), chunk_size=1)) == []


@pytest.mark.parametrize("start_method", PROCESSES)
def test_each_start_method_runs_a_lambda(start_method: str) -> None:
    with WorkerPool(1, start_method=start_method) as pool:
        results = pool.map(lambda x: (x + 1, os.getpid()), range(3))
    assert [value for value, _ in results] == [1, 2, 3]
    assert os.getpid() not in {pid for _, pid in results}


def test_workers_of_a_map_are_gone_when_it_has_ended_unless_they_are_kept_alive() -> None:
    def pid(_: int) -> int:
        return os.getpid()

    with WorkerPool(1) as pool:
        first, second = (pool.map(pid, [0])[0] for _ in range(2))
        assert first != second
        until(lambda: not alive(second))
        pool.set_keep_alive()
        third, fourth = (pool.map(pid, [0])[0] for _ in range(2))
        assert third == fourth
        assert alive(third)
    until(lambda: not alive(third))


def test_no_more_is_taken_than_the_announced_length() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for x in range(100):
            taken.append(x)
            yield x

    with threads() as pool:
        assert pool.map(square, items(), iterable_len=3) == [0, 1, 4]
        assert pool.map(square, range(10), iterable_len=4) == [0, 1, 4, 9]
    assert len(taken) == 3


def test_input_shorter_than_announced_gives_what_there_is() -> None:
    with threads() as pool:
        assert pool.map(square, iter(range(3)), iterable_len=10) == [0, 1, 4]


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"x": 5, "y": 2}, ((), {"x": 5, "y": 2})),
        ((1, 2), ((1, 2), {})),
        ([1, 2], ((1, 2), {})),
        (range(2), ((0, 1), {})),
        ({3}, ((3,), {})),
        ("ab", (("ab",), {})),
        (b"ab", ((b"ab",), {})),
        (None, ((None,), {})),
        (3, ((3,), {})),
    ],
)
def test_item_becomes_arguments(item: Any, expected: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, kwargs = split_arguments(item)
    assert (tuple(args), kwargs) == expected


def test_arrays_and_frames_are_one_argument() -> None:
    pd = pytest.importorskip("pandas")
    for item in (np.arange(3), pd.DataFrame({"a": [1, 2]}), pd.Series([1, 2]), pd.Index([1])):
        (args, kwargs) = split_arguments(item)
        assert next(iter(args)) is item
        assert not kwargs


def test_missing_and_unknown_keyword_arguments_are_the_functions_error() -> None:
    with threads() as pool:
        assert pool.map(lambda x, y: x - y, [{"x": 5, "y": 2}, {"y": 5, "x": 2}]) == [3, -3]
        with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
            pool.map(lambda x, y: x - y, [{"x": 5, "y": 2, "z": 2}])


def test_array_is_cut_into_slices_and_put_together() -> None:
    array = np.random.default_rng(1).random((100, 2))
    with threads() as pool:
        assert np.array_equal(pool.map(np.square, array), np.square(array))
        slices = pool.map(np.square, array, n_splits=3, concatenate_numpy_output=False)
        assert len(slices) == 3
        assert np.array_equal(np.concatenate(slices), np.square(array))
        assert np.array_equal(np.concatenate(list(pool.imap(np.square, array))), np.square(array))
        assert len(pool.map_unordered(np.square, array, chunk_size=30)) == 4


def test_results_that_are_arrays_are_put_together_whatever_the_input(warm: WorkerPool) -> None:
    assert warm.map(np.arange, [2, 3]).tolist() == [0, 1, 0, 1, 2]


# --- order, laziness, back-pressure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map", "imap_unordered"])
@pytest.mark.parametrize(("chunk_size", "expected"), [(1, [0, 1] * 5), (2.5, [0, 0, 0, 1, 1] * 2)])
def test_chunks_go_to_workers_in_turn_when_tasks_are_ordered(
    warm: WorkerPool, name: str, chunk_size: float, expected: list[int]
) -> None:
    warm.set_order_tasks()
    warm.pass_on_worker_id()
    try:
        results = getattr(warm, name)(lambda worker_id, x: (x, worker_id), range(10), chunk_size=chunk_size)
        assert [worker_id for _, worker_id in sorted(results)] == expected
    finally:
        warm.set_order_tasks(False)
        warm.pass_on_worker_id(False)


def test_imap_does_nothing_before_the_first_result_is_asked_for() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for x in range(3):
            read.append(x)
            yield x

    with threads() as pool:
        results = pool.imap(square, items(), chunk_size=1)
        assert not read
        assert next(results) == 0
        assert read
        assert list(results) == [1, 4]


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_input_is_read_no_further_ahead_than_tasks_may_be_active(name: str) -> None:
    n_read = 0

    def items() -> Iterator[int]:
        nonlocal n_read
        for x in range(1000):
            n_read += 1
            yield x

    with threads() as pool:
        for n_out, _ in enumerate(getattr(pool, name)(square, items(), max_tasks_active=5, chunk_size=1)):
            assert n_read <= n_out + 5 + 1
            if n_out == 50:
                break


def test_loop_that_breaks_off_an_imap_is_followed_by_a_map() -> None:
    for keep_alive in (False, True):
        with threads(keep_alive=keep_alive) as pool:
            for _ in pool.imap(square, range(1000)):
                break
            gc.collect()
            assert pool.map(square, range(3)) == [0, 1, 4]


def test_map_while_another_runs_is_refused_and_leaves_that_alone() -> None:
    with threads() as pool:
        results = pool.imap(square, range(5))
        assert next(results) == 0
        with pytest.raises(RuntimeError, match="Cannot call 'map' while another 'map' is running"):
            pool.map(square, range(3))
        with pytest.raises(RuntimeError, match="another 'map' is running"):
            next(pool.imap_unordered(square, range(3)))
        assert list(results) == [1, 4, 9, 16]
        assert pool.map(square, range(3)) == [0, 1, 4]


# --- what goes wrong --------------------------------------------------------------------------------------------------


class OwnError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def fail_at_three(x: int) -> int:
    if x == 3:
        raise OwnError(7, "three")
    return x


@pytest.mark.parametrize("name", ["map", "map_unordered", "imap", "imap_unordered"])
def test_exception_of_a_task_is_raised_with_the_traceback_of_the_worker(warm: WorkerPool, name: str) -> None:
    with pytest.raises(OwnError, match="three") as caught:
        list(getattr(warm, name)(fail_at_three, range(5)))
    assert caught.value.code == 7
    text = str(caught.value.__cause__)
    assert "Exception occurred in Worker-" in text
    assert "Arg 0: 3" in text
    assert 'raise OwnError(7, "three")' in text
    assert warm.map(square, range(3)) == [0, 1, 4]


def test_cause_of_a_tasks_exception_is_kept_behind_the_traceback() -> None:
    def task(x: int) -> int:
        try:
            return 1 // x
        except ZeroDivisionError as error:
            raise ValueError("not this one") from error

    with threads() as pool, pytest.raises(ValueError, match="not this one") as caught:
        pool.map(task, [0])
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)


def leave(_: int) -> None:
    sys.exit(3)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def give_a_lock(_: int) -> Any:
    return (x for x in range(3))


@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        (leave, SystemExit, "3"),
        (interrupt, KeyboardInterrupt, "^\nnbpar: item 0 = 1"),
        (kill_itself, RuntimeError, r"Worker-0 died unexpectedly: item 0 = 1: .*SIGKILL"),
        (give_a_lock, SerializationError, "the result cannot be sent back"),
    ],
)
def test_no_task_makes_a_map_hang(task: Callable[[int], Any], error: type[BaseException], text: str) -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(error, match=text):
            pool.map(task, [1])
        assert pool.map(square, [3]) == [9]


def test_argument_that_cannot_be_sent_is_an_error_that_names_it(warm: WorkerPool) -> None:
    with pytest.raises(SerializationError, match="item"):
        warm.map(square, [1, (x for x in range(2))], chunk_size=1)


def test_exception_that_the_input_raises_is_the_callers() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more of it")

    with threads() as pool, pytest.raises(OSError, match="no more of it"):
        pool.map(square, items(), chunk_size=1)


def test_task_that_takes_too_long_ends_the_map() -> None:
    gate = threading.Event()

    def task(x: int) -> int:
        while x and not gate.wait(0.02):
            pass
        return x

    with threads() as pool, pytest.raises(TimeoutError, match=r"Worker-\d task timed out \(timeout=0.2\)"):
        pool.map(task, [0, 1], task_timeout=0.2)
    gate.set()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunk_size": 0}, ValueError),
        ({"n_splits": "2"}, TypeError),
        ({"worker_lifespan": 0}, ValueError),
        ({"task_timeout": -1}, ValueError),
    ],
)
def test_argument_that_is_not_allowed_is_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    pool = threads()
    for name in ("map", "imap"):
        with pytest.raises(error):
            getattr(pool, name)(square, [1], **options)
    with pytest.raises(OptionsError, match="function"):
        pool.map("square", [1])  # type: ignore[arg-type]


def test_threads_cannot_be_pinned() -> None:
    pool = threads(cpu_ids=[0])
    with pytest.raises(PinningError, match="cpu_ids"):
        pool.map(square, [1])
    assert issubclass(PinningError, AttributeError)


def test_workers_are_pinned_to_their_cpus() -> None:
    cpu = min(os.sched_getaffinity(0))
    with WorkerPool(2, cpu_ids=[cpu]) as pool:
        assert pool.map(lambda _: os.sched_getaffinity(0), range(4)) == [{cpu}] * 4


# --- nested pools -----------------------------------------------------------------------------------------------------


def map_within(x: int) -> list[int]:
    with WorkerPool(1) as pool:
        results: list[int] = pool.map(square, [x, x + 1])
    return results


def test_pool_within_a_task_needs_a_pool_that_is_no_daemon() -> None:
    with WorkerPool(1) as pool, pytest.raises(AssertionError, match="daemonic processes are not allowed"):
        pool.map(map_within, [2])
    with WorkerPool(1, daemon=False) as pool:
        assert pool.map(map_within, [2]) == [[4, 9]]


def test_pool_of_threads_within_a_task_is_never_refused() -> None:
    def task(x: int) -> Any:
        with WorkerPool(2, start_method="threading") as inner:
            return inner.map(square, range(x))

    with WorkerPool(1) as pool:
        assert pool.map(task, [3]) == [[0, 1, 4]]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_forgotten_pool_ends_its_workers() -> None:
    pool = WorkerPool(1, keep_alive=True)
    (pid,) = pool.map(lambda _: os.getpid(), [0])
    del pool
    gc.collect()
    until(lambda: not alive(pid))


def test_with_block_ends_what_still_runs() -> None:
    with WorkerPool(1) as warm_up:  # the fork server stays
        warm_up.map(square, [1])
    begin_s = time.perf_counter()
    with no_leftovers(), WorkerPool(1) as pool:
        running = pool.apply_async(time.sleep, (60,))
        until(lambda: pool._shift is not None and pool._shift.pool.pids())
        assert not running.ready()
    assert time.perf_counter() - begin_s < 20


def test_pool_works_in_a_thread_that_is_not_the_main_one() -> None:
    found: list[Any] = []

    def run() -> None:
        with WorkerPool(1) as pool:
            found.append(pool.map(square, range(3)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[0, 1, 4]]


def test_programs_written_for_mpire_find_it_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one == "mpire" or one.startswith("mpire.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mpire", nbpar.interop.mpire)
    namespace: dict[str, Any] = {}
    program = "from mpire import WorkerPool, cpu_count\nfrom mpire.async_result import AsyncResult\nimport mpire.utils"
    exec(program, namespace)
    assert namespace["WorkerPool"] is WorkerPool
    for name in [one for one in sys.modules if one.startswith("mpire.")]:
        del sys.modules[name]
