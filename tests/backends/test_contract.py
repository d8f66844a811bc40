"""What every backend promises of a map: items in, results and errors out."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import (
    OptionsError,
    RemoteError,
    SerializationError,
    TaskError,
    TaskTimeoutError,
)
from tests.backends.conftest import PROCESSES, WITH_WORKERS, MakePool, only

Pool = nbpar.WorkerPool


def square(x: int) -> int:
    return x * x


# --- items and results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_items", [0, 1, 2, 17, 5000])
def test_results_are_in_order_when_items_are_many_or_few(pool: Pool, n_items: int) -> None:
    assert pool.map(square, range(n_items)) == [x * x for x in range(n_items)]


def test_results_are_in_order_when_the_first_tasks_are_the_slowest(pool: Pool) -> None:
    def task(x: int) -> int:
        time.sleep(0.02 / (x + 1))
        return x

    assert pool.map(task, range(10)) == list(range(10))


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_results_are_in_order_when_chunks_are_fixed(pool: Pool, chunk_size: int) -> None:
    assert pool.map(square, range(50), chunk_size=chunk_size) == [x * x for x in range(50)]


def test_items_are_the_same_when_given_in_any_container(pool: Pool) -> None:
    def given() -> Iterator[int]:
        yield from range(5)

    class Indexed:
        def __getitem__(self, i: int) -> int:
            if i > 4:
                raise IndexError
            return i

    for items in ([0, 1, 2, 3, 4], (0, 1, 2, 3, 4), range(5), given(), dict.fromkeys(range(5)), Indexed(), {*range(5)}):
        assert pool.map(square, items) == [0, 1, 4, 9, 16]  # type: ignore[arg-type]
    assert pool.map(str.upper, "abc") == ["A", "B", "C"]
    assert pool.map(square, range(10, 0, -3)) == [100, 49, 16, 1]


@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 2, 2), (0, 3), (3, 0)])
def test_rows_are_items_when_the_input_is_an_array(pool: Pool, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    got = pool.map(lambda row: row * 2, array)
    assert len(got) == len(array)
    for result, row in zip(got, array, strict=True):
        np.testing.assert_array_equal(result, row * 2)


def test_item_is_one_argument_when_it_is_a_container(pool: Pool) -> None:
    items: list[Any] = [(1, 2), {"a": 1}, None, [3, 4], "text", (), b"x"]
    assert pool.map(lambda item: (type(item).__name__, item), items) == [(type(one).__name__, one) for one in items]


def test_items_are_paired_when_there_are_several_iterables(pool: Pool) -> None:
    assert pool.map(pow, [2, 3, 4], [3, 2, 1]) == [8, 9, 4]
    assert pool.map(lambda a, b, c: (a, b, c), "ab", range(10), iter([None, (1,)])) == [("a", 0, None), ("b", 1, (1,))]


def test_items_are_unpacked_when_starmapped(pool: Pool) -> None:
    assert pool.starmap(pow, [(2, 3), [3, 2]]) == [8, 9]
    assert pool.starmap(lambda *args: args, [(), (1,), "ab"]) == [(), (1,), ("a", "b")]


def test_none_is_a_result_when_tasks_return_it(pool: Pool) -> None:
    assert pool.map(lambda _: None, range(5)) == [None] * 5


def test_function_may_be_anything_that_can_be_called(pool: Pool) -> None:
    from functools import partial

    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + self.n

        def method(self, x: int) -> int:
            return x - self.n

    for function in (Adder(2), partial(pow, 2), Adder(1).method, int):
        assert pool.map(function, [1, 2, 3]) == [function(x) for x in (1, 2, 3)]


def test_values_of_now_are_seen_when_a_closure_changes_between_calls(pool: Pool) -> None:
    factor = 2
    assert pool.map(lambda x: x * factor, [1, 2]) == [2, 4]
    factor = 3
    assert pool.map(lambda x: x * factor, [1, 2]) == [3, 6]


def test_result_is_an_instance_of_the_kernels_class_when_made_in_a_task(pool: Pool) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    points = pool.map(Point, range(3))
    assert all(type(point) is Point for point in points)
    assert pool.map(lambda point: isinstance(point, Point), points) == [True] * 3


def test_arguments_are_writable_when_they_are_arrays(pool: Pool) -> None:
    def add_in_place(array: Any) -> float:
        array += 1
        return float(array.sum())

    for n in (3, 100_000):
        arrays = [np.zeros(n) for _ in range(4)]
        assert pool.map(add_in_place, arrays) == [n] * 4


@only(*PROCESSES)
def test_kernels_arrays_stay_as_they_were_when_tasks_write_to_them(pool: Pool) -> None:
    array = np.zeros((4, 50_000))
    pool.map(lambda row: row.fill(1), array)
    assert not array.any()


def test_results_stay_when_they_are_arrays_and_the_pool_goes(make_pool: MakePool) -> None:
    pool = make_pool()
    got = pool.map(lambda i: np.full(100_000, i), range(4))
    pool.shutdown()
    for i, array in enumerate(got):
        array[:] += 1
        assert (array == i + 1).all()


def test_nothing_deadlocks_when_arguments_and_results_are_large(pool: Pool) -> None:
    n_bytes = 12 << 20
    blocks = [bytes([i]) * n_bytes for i in range(8)]
    got = pool.map(lambda block: block[:1] + block, blocks)
    assert [len(one) for one in got] == [n_bytes + 1] * 8
    assert [one[-1] for one in got] == list(range(8))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_exception_is_the_tasks_own_when_one_fails(pool: Pool) -> None:
    def divide(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        pool.map(divide, [2, 1, 0])
    assert "item 2 = 0" in caught.value.__notes__[0]
    frames = [step.name for step in caught.traceback]
    assert frames[-1] == "divide"


def test_chain_is_kept_when_an_exception_has_a_cause(pool: Pool) -> None:
    def fail(x: int) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        pool.map(fail, [1])
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.args == ("inner",)


def test_exception_keeps_type_and_state_when_its_init_is_odd(pool: Pool) -> None:
    class OddError(Exception):
        def __init__(self, code: int, *, where: str) -> None:
            super().__init__(f"{code} at {where}")
            self.code = code

    def fail(x: int) -> None:
        raise OddError(x, where="home")

    with pytest.raises(OddError, match="7 at home") as caught:
        pool.map(fail, [7])
    assert caught.value.code == 7


@only(*PROCESSES)
def test_error_names_the_type_when_the_exception_cannot_travel(pool: Pool) -> None:
    class StubbornError(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("not me")

        def __str__(self) -> str:
            return f"stubborn {id(self)}"

    def fail(x: int) -> None:
        raise StubbornError(threading.Lock())

    with pytest.raises(RemoteError, match="StubbornError") as caught:
        pool.map(fail, [1])
    assert "in fail" in caught.value.remote_traceback
    assert caught.value.index == 0


def test_nothing_breaks_when_the_message_of_an_exception_cannot_be_had(pool: Pool) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def fail(x: int) -> None:
        raise MuteError

    error: Any
    (error,) = pool.map(fail, [1], on_error="return")
    assert isinstance(error, TaskError)


def test_nothing_breaks_when_an_exception_is_huge(pool: Pool) -> None:
    def fail(x: int) -> None:
        raise ValueError("x" * (18 << 20))

    error: Any
    (error,) = pool.map(fail, [1], on_error="return")
    assert len(str(error.__cause__)) == 18 << 20


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, BaseException])
def test_error_is_the_tasks_when_it_is_an_unusual_one(pool: Pool, kind: type[BaseException]) -> None:
    def fail(x: int) -> int:
        if x == 3:
            raise kind("odd")
        return x

    got: Any = pool.map(fail, range(6), on_error="return")
    assert [type(value) for value in got] == [int, int, int, TaskError, int, int]
    assert type(got[3].__cause__) is kind
    with pytest.raises(kind):
        pool.map(fail, range(6))


@only(*WITH_WORKERS)
def test_error_is_the_tasks_when_it_raises_keyboard_interrupt(pool: Pool) -> None:
    def fail(x: int) -> int:
        if x == 3:
            raise KeyboardInterrupt
        return x

    got: Any = pool.map(fail, range(6), on_error="return")
    assert type(got[3].__cause__) is KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        pool.map(fail, range(6))
    assert not isinstance(caught.value, nbpar.JobInterrupt)


@only(*PROCESSES)
def test_exit_function_is_only_an_error_when_a_task_calls_it(pool: Pool) -> None:
    with pytest.raises(SystemExit):
        pool.map(sys.exit, [3])


def test_errors_stand_in_place_when_they_are_to_be_returned(pool: Pool) -> None:
    got: Any = pool.map(lambda x: 1 // x, [1, 0, 2, 0], on_error="return")
    assert (got[0], got[2]) == (1, 0)
    for index in (1, 3):
        error = got[index]
        assert isinstance(error, TaskError)
        assert (error.index, error.item_repr) == (index, "0")
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert "ZeroDivisionError" in error.remote_traceback


def test_failed_items_have_no_place_when_skipped(pool: Pool) -> None:
    assert pool.map(lambda x: 1 // x, [1, 0, 2, 0], on_error="skip") == [1, 0]
    assert pool.map(lambda x: 1 // x, [0], on_error="skip") == []
    job = nbpar.jobs()[-1]
    assert [error.index for error in job.errors] == [0]
    assert (job.status, job.n_done) == ("done", 1)


def test_nothing_more_begins_when_a_task_has_failed(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> None:
        (tmp_path / str(x)).touch()
        if x == 0:
            raise OSError("stop")
        time.sleep(0.005)

    with pytest.raises(OSError, match="stop"):
        pool.map(task, range(1000))
    assert len(list(tmp_path.iterdir())) < 500
    assert nbpar.jobs()[-1].status == "failed"


def test_results_so_far_are_kept_when_a_task_fails(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda x: 1 // x, [1, 2, 0], chunk_size=1)
    job = nbpar.jobs()[-1]
    assert set(job.results_by_index.items()) <= {(0, 1), (1, 0)}
    assert [error.index for error in job.errors] == [2]


def test_error_object_is_not_mixed_up_when_it_is_only_returned(pool: Pool) -> None:
    error = ValueError("a value like any other")
    (got,) = pool.map(lambda _: error, [1])
    assert str(got) == str(error)


# --- objects that cannot travel ---------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_only_its_task_fails_when_an_argument_cannot_be_sent(pool: Pool) -> None:
    items: list[Any] = [1, {"generator": (x for x in "ab")}, 3]
    got: Any = pool.map(lambda x: x, items, on_error="return")
    assert (got[0], got[2]) == (1, 3)
    assert isinstance(got[1], SerializationError)
    assert got[1].index == 1
    assert "generator" in str(got[1])
    with pytest.raises(SerializationError, match="generator"):
        pool.map(lambda x: x, items)


@only(*PROCESSES)
def test_only_its_task_fails_when_a_result_cannot_be_sent(pool: Pool) -> None:
    got: Any = pool.map(lambda x: [x, (y for y in "ab")] if x == 1 else x, [0, 1, 2], on_error="return")
    assert (got[0], got[2]) == (0, 2)
    assert isinstance(got[1], SerializationError)
    assert "generator" in str(got[1])


class Unreadable:
    """Its pickle can be made and not be read."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def __reduce__(self) -> Any:
        return _rebuild, (self.fails,)


def _rebuild(fails: bool) -> Unreadable:
    if fails:
        raise LookupError("lost on the way")
    return Unreadable(fails=False)


@only(*PROCESSES)
def test_only_its_task_fails_when_an_argument_cannot_be_rebuilt(pool: Pool) -> None:
    got: Any = pool.map(lambda one: one.fails, [Unreadable(fails=i == 2) for i in range(5)], on_error="return")
    assert got[:2] + got[3:] == [False] * 4
    assert isinstance(got[2], SerializationError)
    assert "lost on the way" in str(got[2])


@only(*PROCESSES)
def test_only_its_task_fails_when_a_result_cannot_be_rebuilt(pool: Pool) -> None:
    got: Any = pool.map(lambda i: Unreadable(fails=i == 2), range(5), on_error="return")
    assert [type(one) for one in got] == [Unreadable, Unreadable, SerializationError, Unreadable, Unreadable]
    assert "lost on the way" in str(got[2])


@only(*PROCESSES)
def test_error_comes_at_once_when_the_function_cannot_be_sent(pool: Pool) -> None:
    held = (x for x in "ab")
    with pytest.raises(SerializationError, match="held"):
        pool.map(lambda x: next(held), [1, 2])


@only(*PROCESSES)
def test_job_fails_when_the_function_cannot_be_rebuilt(pool: Pool) -> None:
    broken = Unreadable(fails=True)
    with pytest.raises(LookupError, match="lost on the way"):
        pool.map(lambda x: broken, [1, 2])


# --- options of a call ------------------------------------------------------------------------------------------------


def test_task_runs_again_when_retries_are_allowed(pool: Pool, tmp_path: Path) -> None:
    def flaky(x: int) -> tuple[int, int]:
        log = tmp_path / f"{x}"
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) < 3 and x % 2:
            raise OSError("not yet")
        return x, nbpar.current_task().attempt

    assert pool.map(flaky, range(6), retries=2) == [(x, 3 if x % 2 else 1) for x in range(6)]
    assert [len((tmp_path / str(x)).read_text()) for x in range(6)] == [1, 3, 1, 3, 1, 3]


def test_task_runs_no_more_than_allowed_when_it_always_fails(pool: Pool, tmp_path: Path) -> None:
    def fail(x: int) -> None:
        with (tmp_path / "log").open("a") as file:
            file.write("x")
        raise OSError("never")

    with pytest.raises(OSError, match="never"):
        pool.map(fail, [0], retries=2)
    assert (tmp_path / "log").read_text() == "xxx"


@only(*PROCESSES)
@pytest.mark.parametrize("how", ["sleep", "C"])
def test_only_the_slow_task_fails_when_a_timeout_is_set(pool: Pool, how: str) -> None:
    def task(x: int) -> int:
        if x == 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            sum(range(10**12)) if how == "C" else time.sleep(1000)
        return x

    begin_s = time.monotonic()
    got: Any = pool.map(task, range(6), timeout=0.3, on_error="return")
    assert time.monotonic() - begin_s < 5
    assert [x for x in got if isinstance(x, int)] == [0, 1, 3, 4, 5]
    assert isinstance(got[2], TaskTimeoutError)
    assert (got[2].index, got[2].item_repr) == (2, "2")
    assert "timeout=0.3 s" in str(got[2])


@only("threads")
def test_only_the_slow_task_fails_when_a_thread_times_out(pool: Pool) -> None:
    release = threading.Event()
    got: Any = pool.map(lambda x: release.wait(30) if x == 2 else x, range(6), timeout=0.3, on_error="return")
    release.set()
    assert [x for x in got if isinstance(x, int)] == [0, 1, 3, 4, 5]
    assert isinstance(got[2], TaskTimeoutError)


def test_timeout_is_seen_when_the_task_has_ended_at_last(pool: Pool) -> None:
    with pytest.raises(TimeoutError):
        pool.map(lambda x: time.sleep(0.3), [1], timeout=0.05)


@only(*PROCESSES)
def test_task_is_tried_again_when_it_timed_out(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> int:
        if nbpar.current_task().attempt == 1 and x == 1:
            time.sleep(1000)
        return x

    assert pool.map(task, range(3), timeout=0.3, retries=1) == [0, 1, 2]


def draws(_: int) -> tuple[float, float, float]:
    legacy = np.random.random()  # noqa: NPY002  # that the global generator is seeded is what is tested
    return float(nbpar.current_task().rng.random()), random.random(), float(legacy)


_drawn: dict[str, Any] = {}


def test_draws_are_the_same_when_seeded_whatever_runs_them(pool: Pool, make_pool: MakePool, method: str) -> None:
    got = pool.map(draws, range(8), seed=42, chunk_size=3)
    with nbpar.WorkerPool(start_method="serial") as serial:
        expected = serial.map(draws, range(8), seed=42)
    # All threads draw from one global generator, so there only the task's own can be relied on.
    n_same = 1 if method == "threads" else 3
    assert [one[:n_same] for one in got] == [one[:n_same] for one in expected]
    assert len({one[0] for one in got}) == 8


def test_draws_differ_when_not_seeded(pool: Pool) -> None:
    got = [pool.map(draws, range(4)) for _ in range(2)]
    values = [value for run in got for triple in run for value in triple]
    assert len(set(values)) == len(values)


def test_tasks_know_who_they_are_when_they_ask(pool: Pool) -> None:
    def who(_: str) -> tuple[int, int, int]:
        task = nbpar.current_task()
        return task.index, task.worker_id, task.attempt

    got = pool.map(who, "abcdef")
    assert [index for index, _, _ in got] == list(range(6))
    assert {worker for _, worker, _ in got} <= set(range(pool.n_workers))
    assert {attempt for _, _, attempt in got} == {1}


def test_current_task_is_refused_when_there_is_none() -> None:
    with pytest.raises(nbpar.NbparError, match="outside a task"):
        nbpar.current_task()


def test_track_gives_the_items_when_in_a_task_or_not(pool: Pool) -> None:
    assert pool.map(lambda n: list(nbpar.track(range(n))), [3]) == [[0, 1, 2]]
    assert list(nbpar.track(iter("ab"))) == ["a", "b"]


@only(*WITH_WORKERS)
def test_progress_within_a_task_is_in_the_snapshot_when_it_tracks(pool: Pool, tmp_path: Path) -> None:
    from tests.helpers import until

    def task(_: int) -> None:
        for i in nbpar.track(range(10)):
            while i == 4 and not (tmp_path / "go").exists():
                time.sleep(0.005)

    job = pool.map_async(task, [0])
    until(lambda: any(lane.track == (4, 10) for lane in job.snapshot().lanes))
    (tmp_path / "go").touch()
    job.result()


def test_object_is_built_once_in_each_worker_when_per_worker(pool: Pool, tmp_path: Path) -> None:
    def build() -> list[int]:
        with (tmp_path / "built").open("a") as file:
            file.write("x")
        return []

    numbers = nbpar.per_worker(build)

    def task(x: int) -> int:
        numbers().append(x)
        return len(numbers())

    got = pool.map(task, range(20)) + pool.map(task, range(20))
    n_built = len((tmp_path / "built").read_text())
    assert 1 <= n_built <= pool.n_workers
    assert got.count(1) == n_built
    with pytest.raises(OptionsError, match="factory"):
        nbpar.per_worker(5)  # type: ignore[arg-type]


def test_error_is_the_tasks_when_building_per_worker_fails(pool: Pool) -> None:
    broken = nbpar.per_worker(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda _: broken(), [1])


# --- shared objects ---------------------------------------------------------------------------------------------------


def test_shared_object_arrives_unwrapped_when_it_is_an_argument(pool: Pool) -> None:
    array = np.arange(200_000)
    big = nbpar.share(array)
    assert pool.map(lambda a: int(a.sum()), [big] * 3) == [int(array.sum())] * 3
    assert pool.starmap(lambda a, i: int(a[i]), [(big, 5), (big, 7)]) == [5, 7]
    assert pool.map(lambda i, a: int(a[i]), [5, 7], [big, big]) == [5, 7]


def test_shared_object_is_a_handle_when_in_a_closure_or_a_container(pool: Pool) -> None:
    big = nbpar.share({"a": np.arange(100_000)})
    assert pool.map(lambda i: int(big.value["a"][i]), [3, 4]) == [3, 4]
    assert pool.map(lambda item: int(item["big"].value["a"][9]), [{"big": big}]) == [9]
    assert int(big.value["a"][5]) == 5
    assert pool.submit(lambda one: int(one["a"][2]), big).result() == 2


@only(*PROCESSES)
def test_writing_stays_private_when_an_object_is_shared(pool: Pool) -> None:
    big = nbpar.share(np.zeros(100_000))

    def write(i: int) -> float:
        big.value[:] += 1
        return float(big.value[0])

    assert min(pool.map(write, range(4))) == 1.0
    assert not big.value.any()


@only(*PROCESSES)
def test_memory_goes_back_when_a_shared_object_is_dropped(pool: Pool) -> None:
    def n_mapped(_: int) -> tuple[int, int]:
        with open("/proc/self/maps") as file:
            n_maps = sum("nbpar-shared" in line for line in file)
        held = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
        return os.getpid(), n_maps + sum("nbpar-shared" in one for one in held)

    def n_in_workers() -> dict[int, int]:
        return dict(pool.map(n_mapped, range(20), chunk_size=1))

    import gc

    # Other tests may have left something: a forked worker has what the kernel had.
    gc.collect()
    before, before_in_workers = n_mapped(0), n_in_workers()
    big = nbpar.share(np.zeros(1_000_000))
    pool.map(lambda i, big=big: float(big.value[i]), range(4), chunk_size=1)
    assert n_mapped(0) > before
    del big
    nbpar.jobs()  # the last jobs are kept; they keep no input
    gc.collect()
    assert n_mapped(0) <= before
    pool.map(abs, range(20), chunk_size=1)
    assert all(n <= before_in_workers.get(pid, n) for pid, n in n_in_workers().items())


# --- nested maps ------------------------------------------------------------------------------------------------------


def test_map_inside_a_task_runs_in_its_worker(pool: Pool) -> None:
    def outer(x: int) -> list[int]:
        before = nbpar.current_task().index
        inner = nbpar.map(lambda y: (x * y, nbpar.current_task().index), range(3))
        assert nbpar.current_task().index == before
        assert [index for _, index in inner] == [0, 1, 2]
        return [value for value, _ in inner]

    assert pool.map(outer, range(4)) == [[0, x, 2 * x] for x in range(4)]


def test_inner_error_comes_out_when_a_nested_map_fails(pool: Pool) -> None:
    def outer(x: int) -> list[float]:
        return nbpar.map(lambda y: 1 / y, [1, 0])

    with pytest.raises(ZeroDivisionError):
        pool.map(outer, [1])


@only(*PROCESSES)
def test_pool_of_ones_own_works_when_made_inside_a_task(pool: Pool, method: str) -> None:
    def outer(x: int) -> list[int]:
        with nbpar.WorkerPool(n_workers=1, start_method=method) as inner:  # type: ignore[arg-type]
            return inner.map(lambda y: x * y, range(3))

    assert pool.map(outer, [5]) == [[0, 5, 10]]


# --- checks of arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["map", "imap", "map_async", "starmap"])
def test_nothing_begins_when_an_option_is_not_allowed(pool: Pool, verb: str, tmp_path: Path) -> None:
    call = getattr(pool, verb)
    n_jobs = nbpar.jobs()[-1].id

    def items() -> Iterator[int]:
        (tmp_path / "read").touch()
        yield 1

    with pytest.raises(OptionsError, match="retries=-1 is not allowed; allowed: a whole number, 0 or more"):
        call(square, items(), retries=-1)
    with pytest.raises(OptionsError, match="function=5 is not allowed"):
        call(5, items())
    with pytest.raises((OptionsError, TypeError)):
        call(square)
    with pytest.raises(OptionsError, match="iterable=5 is not allowed"):
        call(square, 5)
    assert not (tmp_path / "read").exists()
    assert nbpar.jobs()[-1].id == n_jobs


def test_error_is_the_callers_when_the_input_raises(pool: Pool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(square, items())
