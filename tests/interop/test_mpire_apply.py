"""Single tasks in MPIRE's pool: results, callbacks, failures that stay alone."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nbpar.errors import JobCancelledError, SerializationError
from nbpar.interop.mpire import WorkerPool
from nbpar.interop.mpire.async_result import AsyncResult
from tests.helpers import alive, until


@pytest.fixture(scope="module")
def warm() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def fail(x: int) -> None:
    raise ValueError("no", x)


def seen(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def test_arguments_are_those_of_the_call(warm: WorkerPool) -> None:
    assert warm.apply(seen, (1, 2), {"y": 3}) == ((1, 2), {"y": 3})
    assert warm.apply(seen, 42) == ((42,), {})
    assert warm.apply(seen, "ab") == (("ab",), {})
    assert warm.apply(seen) == ((), {})
    assert warm.apply(seen, kwargs={"x": 1}) == ((), {"x": 1})
    (args, _) = warm.apply(seen, np.arange(3))
    assert args[0].tolist() == [0, 1, 2]


def test_result_is_there_when_it_is_ready(warm: WorkerPool) -> None:
    result = warm.apply_async(pow, (2, 5))
    result.wait(20)
    assert isinstance(result, AsyncResult)
    assert result.ready()
    assert result.successful()
    assert result.get() == 32


def test_result_that_is_not_ready_says_so() -> None:
    gate = threading.Event()
    with WorkerPool(1, start_method="threading") as pool:
        result = pool.apply_async(gate.wait, (20,))
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(TimeoutError):
            result.get(timeout=0.01)
        result.wait(timeout=0.01)
        gate.set()
        assert result.get(20) is True


def test_tasks_are_begun_in_the_order_of_the_calls() -> None:
    begun: list[int] = []
    with WorkerPool(1, start_method="threading") as pool:
        for x in range(20):
            pool.apply_async(begun.append, x)
        pool.join()
    assert begun == list(range(20))


def test_threads_that_call_at_once_have_the_same_workers() -> None:
    gate, results = threading.Barrier(6), []

    def call(pool: WorkerPool) -> None:
        gate.wait(20)
        results.append(pool.apply_async(threading.get_ident))

    with WorkerPool(2, start_method="threading") as pool:
        callers = [threading.Thread(target=call, args=(pool,)) for _ in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len({result.get(20) for result in results}) <= 2


def test_failure_is_its_own_and_no_other_tasks(warm: WorkerPool) -> None:
    results = [warm.apply_async(fail if x == 2 else abs, x) for x in range(5)]
    with pytest.raises(ValueError, match="no") as caught:
        results[2].get(20)
    assert "Exception occurred in Worker-" in str(caught.value.__cause__)
    assert "Arg 0: 2" in str(caught.value.__cause__)
    assert not results[2].successful()
    assert [result.get(20) for result in results if result is not results[2]] == [0, 1, 3, 4]


def test_callbacks_are_called_before_the_result_is_ready() -> None:
    good: list[int] = []
    bad: list[BaseException] = []
    with WorkerPool(2, start_method="threading") as pool:
        results = [
            pool.apply_async(fail if x == 2 else abs, x, callback=good.append, error_callback=bad.append)
            for x in range(5)
        ]
        for result in results:
            result.wait(20)
        assert sorted(good) == [0, 1, 3, 4]
        assert [error.args for error in bad] == [("no", 2)]
        assert pool.apply(abs, -9, callback=good.append) == 9
        assert good[-1] == 9


def test_callback_that_raises_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found: list[int] = []

    def refuse(_: int) -> None:
        raise OSError("full")

    with WorkerPool(1, start_method="threading") as pool, caplog.at_level(logging.ERROR, logger="nbpar"):
        assert pool.apply(abs, -1, callback=refuse) == 1
        assert pool.apply(abs, -2, callback=found.append) == 2
    assert found == [2]
    assert "a callback of" in caplog.text
    assert "OSError: full" in caplog.text


def test_callback_may_call_the_pool() -> None:
    found: list[int] = []
    with WorkerPool(1) as pool:
        first = pool.apply_async(abs, -3, callback=lambda value: found.append(pool.apply(pow, (value, 2))))
        first.wait(20)
    assert found == [9]


def kill_itself(why: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_dead_worker_costs_the_task_that_it_ran() -> None:
    with WorkerPool(1) as pool:
        dead = pool.apply_async(kill_itself, kwargs={"why": "test"})
        with pytest.raises(
            RuntimeError, match=r"Worker-0 died unexpectedly: the worker that ran it .*SIGKILL"
        ) as caught:
            dead.get(20)
        assert "Arg why: 'test'" in str(caught.value.__cause__)
        assert pool.apply(abs, -1) == 1


def test_timeout_ends_one_task() -> None:
    gate = threading.Event()

    def never() -> None:
        while not gate.wait(0.02):
            pass

    with WorkerPool(2, start_method="threading") as pool:
        late = pool.apply_async(never, task_timeout=0.2)
        assert pool.apply(abs, -1) == 1
        with pytest.raises(TimeoutError, match=r"task timed out \(timeout=0.2\)"):
            late.get(20)
        assert pool.apply(abs, -2) == 2
        gate.set()
    with WorkerPool(1, start_method="threading") as pool, pytest.raises(ValueError, match="task_timeout"):
        pool.apply(abs, 1, task_timeout=0)


def test_what_cannot_be_sent_is_an_error_of_its_task(warm: WorkerPool) -> None:
    with pytest.raises(SerializationError):
        warm.apply_async(seen, ((x for x in range(3)),)).get(20)
    with pytest.raises(SerializationError, match="result"):
        warm.apply_async(lambda: (x for x in range(3))).get(20)


def test_join_waits_for_tasks_and_then_calls_exit() -> None:
    found: list[int] = []
    with WorkerPool(2, use_worker_state=True, start_method="threading") as pool:
        for x in range(4):
            pool.apply_async(lambda state, x: state.setdefault("n", x), x, callback=found.append, worker_exit=len)
        pool.join()
        assert len(found) == 4
        assert set(pool.get_exit_results()) == {1}
        assert pool.apply(len) == 0


def test_map_goes_on_with_the_workers_of_a_single_task() -> None:
    def count(state: dict[str, int], _: int = 0) -> int:
        state["n"] = state.get("n", 0) + 1
        return state["n"]

    with WorkerPool(1, use_worker_state=True, start_method="threading") as pool:
        assert pool.apply(count) == 1
        assert pool.map(count, range(2)) == [2, 3]
        assert pool.apply(count) == 1


def test_result_that_was_not_waited_for_is_lost_with_the_pool() -> None:
    gate = threading.Event()

    def never() -> None:
        while not gate.wait(0.02):
            pass

    bad: list[BaseException] = []
    with WorkerPool(1, start_method="threading") as pool:
        done, lost = pool.apply_async(abs, -1), pool.apply_async(never, error_callback=bad.append)
        done.wait(20)
    assert done.get() == 1
    with pytest.raises(JobCancelledError):
        lost.get(20)
    assert bad == []
    gate.set()


def test_results_that_are_kept_do_not_keep_the_pool() -> None:
    pool = WorkerPool(1)
    result = pool.apply_async(os.getpid)
    pid = result.get(20)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    until(lambda: not alive(pid))
    assert result.get() == pid


def test_function_that_is_defined_anew_is_the_one_that_runs(warm: WorkerPool) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for value in (1, 2):
        exec(f"def give():\n    return {value}\n", names)
        assert warm.apply(names["give"]) == value
