"""Worker state, shared objects, `worker_init` and `worker_exit` of MPIRE's pool: when they count, and with what."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbpar.errors import SerializationError
from nbpar.interop.mpire import WorkerPool, hooks
from nbpar.wire.shared import Shared

pytestmark = pytest.mark.filterwarnings("ignore:start_method=.fork.:RuntimeWarning")  # tests before may leave threads

METHODS = ("forkserver", "fork", "threading")


@pytest.fixture(params=METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def begin(state: dict[str, Any]) -> None:
    state["log"] = ["init"]


def work(state: dict[str, Any], x: int) -> int:
    state["log"].append(x)
    return x


def end(state: dict[str, Any]) -> list[Any]:
    return [*state["log"], "exit"]


# --- when -------------------------------------------------------------------------------------------------------------


def test_hooks_run_once_in_each_worker_that_has_tasks(start_method: str) -> None:
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        assert pool.map(work, range(6), worker_init=begin, worker_exit=end, chunk_size=1) == list(range(6))
        lives = pool.get_exit_results()
    assert 1 <= len(lives) <= 2
    assert all(life[0] == "init" and life[-1] == "exit" and life.count("init") == 1 for life in lives)
    assert sorted(x for life in lives for x in life[1:-1]) == list(range(6))


def test_worker_without_a_task_calls_neither_hook(start_method: str) -> None:
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        pool.map(work, [5], worker_init=begin, worker_exit=end)
        assert pool.get_exit_results() == [["init", 5, "exit"]]


def test_worker_that_is_replaced_runs_both_hooks_again(start_method: str) -> None:
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        results = pool.map(work, range(7), worker_init=begin, worker_exit=end, worker_lifespan=2, chunk_size=1)
        lives = pool.get_exit_results()
    assert results == list(range(7))
    assert all(life[0] == "init" and life[-1] == "exit" and 1 <= len(life[1:-1]) <= 2 for life in lives)
    assert sorted(x for life in lives for x in life[1:-1]) == list(range(7))
    assert len(lives) >= 4


def test_state_outlives_a_map_only_when_workers_are_kept_alive() -> None:
    def count(state: dict[str, int], _: int) -> int:
        state["n"] = state.get("n", 0) + 1
        return state["n"]

    for keep_alive, last in ((True, 4), (False, 2)):
        with WorkerPool(1, use_worker_state=True, start_method="threading", keep_alive=keep_alive) as pool:
            assert pool.map(count, range(2)) == [1, 2]
            assert pool.map(count, range(2))[-1] == last


def test_workers_that_are_kept_alive_call_exit_when_the_pool_is_joined() -> None:
    with WorkerPool(1, use_worker_state=True, start_method="threading", keep_alive=True) as pool:
        for _ in range(2):
            pool.map(work, [1, 2], worker_init=begin, worker_exit=end)
            assert pool.get_exit_results() == []
        pool.stop_and_join()
        assert pool.get_exit_results() == [["init", 1, 2, 1, 2, "exit"]]
        pool.stop_and_join()
        assert len(pool.get_exit_results()) == 1


def test_fork_that_is_taken_for_a_lock_is_warned_of_like_any_other() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        pool = WorkerPool(1, shared_objects=multiprocessing.Lock())
        with pool, pytest.warns(RuntimeWarning, match="start_method=.fork."):
            pool.map(lambda lock, x: x, [1])
    finally:
        gate.set()
        thread.join()


def test_other_hooks_for_workers_that_are_kept_alive_are_warned_of() -> None:
    with WorkerPool(1, start_method="threading", keep_alive=True) as pool:
        pool.map(abs, [1], worker_init=lambda: None)
        with pytest.warns(RuntimeWarning, match="kept alive") as caught:
            pool.map(abs, [1], worker_init=lambda: None)
    assert caught[0].filename == __file__


def test_end_of_the_with_block_calls_no_exit(tmp_path: Path) -> None:
    mark = tmp_path / "left"
    with WorkerPool(1, keep_alive=True) as pool:
        pool.map(abs, [1], worker_exit=mark.touch)
    assert not mark.exists()


def test_exit_is_not_called_when_a_task_has_failed(tmp_path: Path) -> None:
    mark = tmp_path / "left"
    with WorkerPool(1) as pool, pytest.raises(TypeError):
        pool.map(abs, [1, None], worker_exit=mark.touch)
    assert not mark.exists()


def test_globals_that_init_sets_are_there_in_the_function() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def begin():\n    global found\n    found = 40\ndef work(x):\n    return found + x\n", names)
    with WorkerPool(1) as pool:
        assert pool.map(names["work"], [2], worker_init=names["begin"]) == [42]
    with WorkerPool(1) as pool:
        assert pool.apply(names["work"], 2, worker_init=names["begin"]) == 42


# --- what they are called with ----------------------------------------------------------------------------------------


def test_leading_arguments_come_in_their_order(start_method: str) -> None:
    def seen(*args: Any) -> tuple[Any, ...]:
        return args

    options: dict[str, Any] = {"pass_worker_id": True, "shared_objects": ("shared",), "use_worker_state": True}
    with WorkerPool(1, start_method=start_method, **options) as pool:
        assert pool.map(seen, ["item"], worker_exit=seen) == [(0, ("shared",), {}, "item")]
        assert pool.get_exit_results() == [(0, ("shared",), {})]
        assert pool.apply(seen, ("item",)) == (0, ("shared",), {}, "item")


def test_changed_setting_counts_from_the_next_call() -> None:
    def seen(*args: Any) -> tuple[Any, ...]:
        return args

    with WorkerPool(1, start_method="threading", keep_alive=True) as pool:
        assert pool.map(seen, [1]) == [(1,)]
        pool.pass_on_worker_id()
        assert pool.map(seen, [1]) == [(0, 1)]
        pool.set_shared_objects(np.arange(2))
        pool.set_use_worker_state()
        (args,) = pool.map(seen, [1])
        assert args[0] == 0
        assert np.array_equal(args[1], np.arange(2))
        assert args[2:] == ({}, 1)
        pool.set_shared_objects(np.arange(3))
        assert len(pool.map(seen, [1])[0][1]) == 3
        pool.pass_on_worker_id(False)
        pool.set_shared_objects(None)
        pool.set_use_worker_state(False)
        assert pool.map(seen, [1]) == [(1,)]


def test_shared_array_is_mapped_and_what_a_worker_writes_stays_its_own() -> None:
    array = np.zeros(200_000)

    def write(shared: np.ndarray[Any, Any], x: int) -> tuple[bool, float]:
        is_mapped = not shared.flags.owndata
        shared[0] += 1
        return is_mapped, float(shared[0])

    with WorkerPool(1, shared_objects=array) as pool:
        assert pool.map(write, range(2)) == [(True, 1.0), (True, 2.0)]
    assert array[0] == 0


def test_shared_objects_are_copied_anew_only_when_they_have_changed() -> None:
    array = np.zeros(200_000)
    with WorkerPool(1, shared_objects=array) as pool:
        found = []
        for value in (0, 0, 5):
            array[-1] = value
            assert pool.map(lambda shared, _: float(shared[-1]), [0]) == [value]
            found.append(pool._shared)
    assert isinstance(found[0], Shared)
    assert found[0] is found[1]
    assert found[1] is not found[2]


def count_up(shared: tuple[Any, Any], x: int) -> None:
    lock, total = shared
    with lock:
        total.value += x


@pytest.mark.parametrize("method", [None, "fork"])
def test_lock_among_the_shared_objects_is_one_lock(method: str | None) -> None:
    total = multiprocessing.Value("i", 0, lock=False)
    with WorkerPool(2, shared_objects=(multiprocessing.Lock(), total), start_method=method) as pool:
        pool.map(count_up, range(20), chunk_size=1)
    assert total.value == sum(range(20))


def test_lock_in_a_global_of_the_function_is_one_lock() -> None:
    lock, total = multiprocessing.Lock(), multiprocessing.Value("i", 0, lock=False)

    def task(x: int) -> None:
        with lock:
            total.value += x

    with WorkerPool(2) as pool:
        pool.map(task, range(20), chunk_size=1)
    assert total.value == sum(range(20))


def test_lock_cannot_get_to_workers_that_are_to_be_spawned() -> None:
    pool = WorkerPool(1, shared_objects=multiprocessing.Lock(), start_method="spawn")
    with pytest.raises(SerializationError, match="Lock"):
        pool.map(abs, [1])


# --- how long, and how it goes wrong ----------------------------------------------------------------------------------


def be_stuck_in_c() -> None:
    ctypes.PyDLL(None).usleep(30_000_000)  # it holds the GIL: no signal is heard


@pytest.mark.parametrize(
    ("hook", "options"), [("worker_init", {}), ("worker_exit", {}), ("worker_exit", {"worker_lifespan": 1})]
)
def test_hook_that_takes_too_long_ends_the_map_also_in_c(hook: str, options: dict[str, Any]) -> None:
    called: dict[str, Any] = {hook: be_stuck_in_c, f"{hook}_timeout": 0.2}
    with WorkerPool(1) as pool:
        with pytest.raises(TimeoutError, match=rf"Worker-0 {hook} timed out \(timeout=0.2\)"):
            pool.map(abs, [-1], **called, **options)
        assert pool.map(abs, [-1]) == [1]


def test_hooks_may_take_longer_than_a_task() -> None:
    gate = threading.Event()

    def wait() -> None:
        gate.wait(0.5)

    with WorkerPool(1, start_method="threading") as pool:
        assert pool.map(abs, [-1], worker_init=wait, worker_exit=wait, task_timeout=0.25) == [1]
        assert pool.get_exit_results() == [None]


def fail() -> None:
    raise LookupError("not here")


@pytest.mark.parametrize("hook", ["worker_init", "worker_exit"])
@pytest.mark.parametrize("call", ["map", "imap"])
def test_exception_of_a_hook_is_raised(hook: str, call: str) -> None:
    with WorkerPool(2, start_method="threading") as pool:
        with pytest.raises(LookupError, match="not here") as caught:
            list(getattr(pool, call)(abs, range(4), **{hook: fail}))
        assert "Exception occurred in Worker-" in str(caught.value.__cause__)
        assert pool.map(abs, [-1]) == [1]


def test_worker_that_takes_the_place_of_a_dead_one_begins_anew() -> None:
    def live(state: dict[str, Any], x: int) -> int:
        if x == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(state["log"])

    with WorkerPool(1, use_worker_state=True) as pool:
        first = pool.apply_async(live, 0, worker_init=begin, worker_exit=end)
        assert first.get(20) == 1
        with pytest.raises(RuntimeError, match="died unexpectedly"):
            pool.apply_async(live, 1).get(20)
        assert pool.apply_async(live, 2).get(20) == 1
        pool.stop_and_join()
        assert pool.get_exit_results() == [["init", "exit"]]


# --- insights ---------------------------------------------------------------------------------------------------------


def test_insights_know_init_work_and_exit(start_method: str) -> None:
    def spend() -> None:
        threading.Event().wait(0.06)

    def task(_: int) -> None:
        spend()

    with WorkerPool(1, enable_insights=True, start_method=start_method) as pool:
        assert pool.get_insights()["n_completed_tasks"] == [0]
        pool.map(task, range(3), worker_init=spend, worker_exit=spend, chunk_size=1)
        pool_insights = pool._insights
        told = pool.get_insights()
    assert told["n_completed_tasks"] == [3]
    parts: Callable[[str], float] = lambda part: pool_insights._parts[part][0]  # noqa: E731
    assert parts("init") >= 0.06
    assert parts("exit") >= 0.06
    assert parts("working") >= 0.17
    assert len(told["top_5_max_task_args"]) == 3
    assert set(told["top_5_max_task_args"]) == {"Arg 0: 0", "Arg 0: 1", "Arg 0: 2"}


def test_insights_count_single_tasks() -> None:
    with WorkerPool(1, enable_insights=True, start_method="threading") as pool:
        pool.apply(pow, (2, 5))
        told = pool.get_insights()
    assert told["n_completed_tasks"] == [1]
    assert told["top_5_max_task_args"] == ["Arg 0: 2 | Arg 1: 5"]


def test_insights_are_empty_unless_they_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(1, start_method="threading") as pool:
        pool.map(abs, [1])
        assert pool.get_insights() == {}
        pool.print_insights()
    assert "No profiling stats available" in capsys.readouterr().out


def test_what_forked_workers_inherit_is_let_go_with_them() -> None:
    with WorkerPool(1, start_method="fork", shared_objects=threading.Lock()) as pool:
        pool.map(lambda lock, x: lock.acquire(), [1])
        assert not hooks._bequeathed
