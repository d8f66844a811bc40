"""The door of ``concurrent.futures``, beside CPython's own tests (:mod:`tests.interop.test_cpython_futures`)."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import multiprocessing
import operator
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import JobCancelledError, OptionsError, SerializationError, WorkerDiedError
from nbpar.interop import futures as door
from nbpar.interop.futures import BrokenProcessPool, Executor, ProcessPoolExecutor, as_completed, wait
from nbpar.options import default_start_method, usable_cpus
from tests.helpers import alive, jobs_since, no_leftovers, run_script, until

ROOT = Path(__file__).parents[2]

fork = pytest.param("fork", marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork"))


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Two warm processes for all tests that leave them in order."""
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def threads() -> Iterator[Executor]:
    with Executor(2, "threads") as executor:
        yield executor


class Gate:
    """A task of threads that says that it has begun, and waits."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.opened = threading.Event()
        self.items: list[Any] = []

    def __call__(self, item: Any = None) -> Any:
        self.items.append(item)
        self.begun.release()
        assert self.opened.wait(20)
        return item


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


# --- submit -----------------------------------------------------------------------------------------------------------


def test_lambda_runs_in_another_process(processes: Executor) -> None:
    here = os.getpid()
    assert processes.submit(lambda: os.getpid() != here).result() is True


def test_exception_has_its_type_the_remote_traceback_and_a_note(processes: Executor) -> None:
    def divide(x: int, *, by: int) -> float:
        return x / by  # the line to be seen

    error = processes.submit(divide, 6, by=0).exception()
    assert type(error) is ZeroDivisionError
    assert "return x / by  # the line to be seen" in str(error.__cause__)
    assert error.__notes__ in ([f"nbpar: divide(6, by=0), on worker {worker_id}"] for worker_id in (0, 1))


def test_cause_that_a_task_gave_stays(processes: Executor) -> None:
    def fail() -> None:
        raise ValueError("of the task") from LookupError("of its own")

    assert isinstance(getattr(processes.submit(fail).exception(), "__cause__", None), LookupError)


def test_arrays_and_shared_objects_are_arguments(processes: Executor) -> None:
    array = np.arange(100_000)
    assert processes.submit(np.sum, array).result() == array.sum()
    assert processes.submit(lambda a, *, b: int(a[1] + b[2]), nbpar.share(array), b=nbpar.share(array)).result() == 3


def test_pending_call_is_taken_back_and_running_one_is_not(gate: Gate) -> None:
    with Executor(1, "threads") as executor:
        running, pending = executor.submit(gate, 1), executor.submit(gate, 2)
        assert gate.begun.acquire(timeout=20)
        assert running.running() and not pending.running()
        assert not running.cancel()
        assert pending.cancel() and pending.cancelled()
        assert wait([pending], timeout=20).done == {pending}
        gate.opened.set()
        assert running.result(20) == 1
    assert gate.items == [1]


def test_callback_of_a_cancelled_future_may_ask_for_its_result(gate: Gate) -> None:
    seen: list[BaseException] = []

    def ask(future: futures.Future[Any]) -> None:
        try:
            future.result()
        except futures.CancelledError as error:
            seen.append(error)

    with Executor(1, "threads") as executor, nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
        for submit in (executor.submit, pool.submit):
            submit(gate, 1)
            pending = submit(gate, 2)
            pending.add_done_callback(ask)
            pending.cancel()
        gate.opened.set()
    assert len(seen) == 2


def test_calls_that_wait_for_each_other_run_at_once(processes: Executor, tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> bool:
        (tmp_path / mine).touch()
        until((tmp_path / other).exists)
        return True

    for _ in range(50):  # quick ones before: what waits is not to travel with what it waits for
        processes.submit(abs, -1).result()
    assert all(one.result(30) for one in [processes.submit(meet, "a", "b"), processes.submit(meet, "b", "a")])


def test_threads_may_submit_at_once_and_while_it_shuts_down() -> None:
    executor = Executor(2, "threads")
    got: list[futures.Future[int]] = []
    refused = threading.Semaphore(0)

    def put() -> None:
        try:
            while True:
                got.append(executor.submit(abs, -1))
        except RuntimeError:
            refused.release()

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(got) > 200)
    executor.shutdown()
    for thread in threads:
        thread.join(20)
        assert refused.acquire(timeout=20)
    assert all(future.result(20) == 1 for future in got)


# --- map --------------------------------------------------------------------------------------------------------------


def test_map_gives_results_in_order_and_ends_with_the_shortest(processes: Executor) -> None:
    assert list(processes.map(lambda x: -x, range(1000))) == [-x for x in range(1000)]
    assert list(processes.map(operator.sub, [5, 6, 7], iter([1, 2]), chunksize=7)) == [4, 4]
    assert list(processes.map(abs)) == []
    assert list(processes.map(abs, [])) == []
    assert list(processes.map(len, [(1, 2), (3,)])) == [2, 1]


def test_map_runs_without_anybody_taking_results(gate: Gate, threads: Executor) -> None:
    threads.map(gate, [1, 2])
    assert gate.begun.acquire(timeout=20) and gate.begun.acquire(timeout=20)
    gate.opened.set()


def test_map_raises_at_the_turn_of_what_failed_and_begins_no_more(gate: Gate) -> None:
    def fail_first(x: int) -> int:
        if x == 1:
            raise LookupError(x)
        return int(gate(x)) if x > 1 else x

    with Executor(1, "threads") as executor:
        results = executor.map(fail_first, range(20), chunksize=1)
        assert next(results) == 0
        with pytest.raises(LookupError, match="1") as failure:
            next(results)
        assert failure.value.__notes__ == ["nbpar: item 1 = 1, on worker 0"]
        assert list(results) == []
        backend: Any = executor._crew.backend
        slot = backend._workers._threads[0].context.slot
        # It runs the first task of a chunk, and has been told not to begin the others.
        until(lambda: slot.chunk_id is None or slot.drops(slot.chunk_id))
        gate.opened.set()
    assert len(gate.items) <= 4


def test_map_times_out_by_the_time_since_its_call(gate: Gate, threads: Executor) -> None:
    results = threads.map(lambda x: gate(x) if x else x, [0, 1], timeout=0.3)
    until(gate.begun.acquire)
    assert next(results) == 0
    with pytest.raises(TimeoutError):
        next(results)
    gate.opened.set()


def test_map_with_a_buffer_reads_its_input_by_and_by(threads: Executor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for x in range(10):
            read.append(x)
            yield x

    results = threads.map(abs, numbers(), buffersize=2)
    assert read == [0, 1]
    assert next(results) == 0
    assert len(read) == 3
    assert list(results) == list(range(1, 10))


def test_map_with_a_buffer_says_so_when_the_executor_was_shut_down() -> None:
    executor = Executor(1, "threads")
    results = executor.map(abs, range(10), buffersize=2)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        list(results)


def test_error_of_the_input_is_raised_by_map(threads: Executor) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        threads.map(abs, numbers())
    assert list(threads.map(abs, [-1])) == [1]


# --- what cannot travel -----------------------------------------------------------------------------------------------


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class NotRebuilt:
    def __reduce__(self) -> Any:
        return operator.truediv, (1, 0)


def test_argument_that_cannot_be_pickled_is_a_pickling_error_with_its_path(processes: Executor) -> None:
    error = processes.submit(len, [1, {"a": Unpicklable()}]).exception()
    assert isinstance(error, pickle.PicklingError) and isinstance(error, SerializationError)
    assert "not this one" in str(error)
    with pytest.raises(pickle.PicklingError, match="not this one"):
        processes.map(functools.partial(isinstance, Unpicklable()), [int])


def test_result_that_cannot_be_pickled_raises_what_its_pickling_raised(processes: Executor) -> None:
    with pytest.raises(TypeError, match="not this one"):
        processes.submit(Unpicklable).result()


def test_what_cannot_be_rebuilt_fails_its_own_task_and_the_pool_goes_on(processes: Executor) -> None:
    for future in (processes.submit(type, NotRebuilt()), processes.submit(NotRebuilt)):
        error = future.exception()
        assert isinstance(error, BrokenProcessPool) and isinstance(error, door.NotRebuiltError)
    assert processes.submit(abs, -1).result() == 1


# --- workers that die, and initializers -------------------------------------------------------------------------------


def test_death_of_a_worker_breaks_the_executor(processes: Executor, tmp_path: Path) -> None:
    def sleep(name: int) -> None:
        (tmp_path / str(name)).touch()
        time.sleep(50)

    processes.submit(abs, -1).result()  # the fork server is there, and stays
    with no_leftovers(), Executor(2) as executor:
        sleeping = [executor.submit(sleep, x) for x in range(8)]
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        for pid in executor._crew.pool.pids().values():
            os.kill(pid, signal.SIGKILL)
        for future in sleeping:
            error = future.exception(20)
            assert isinstance(error, BrokenProcessPool)
            assert isinstance(error.__cause__, WorkerDiedError) and error.__cause__.exit_code == -signal.SIGKILL
        for call in (lambda: executor.submit(abs, -1), lambda: executor.map(abs, [-1])):
            with pytest.raises(BrokenProcessPool, match="terminated abruptly"):
                call()
        assert "broken" in repr(executor)


def test_death_of_a_worker_ends_a_map() -> None:
    def die(x: int) -> int:
        if x == 3:
            os._exit(7)
        return x

    with Executor(2) as executor:
        executor.submit(abs, -1).result()
        results = executor.map(die, range(50), chunksize=10)
        with pytest.raises(BrokenProcessPool, match="exit code 7"):
            list(results)


_setting = "nothing"


def set_it(value: str) -> None:
    global _setting
    _setting = value


def get_it() -> str:
    return _setting


def test_initializer_prepares_each_worker() -> None:
    with Executor(2, initializer=set_it, initargs=("something",)) as executor:
        assert {future.result() for future in [executor.submit(get_it) for _ in range(8)]} == {"something"}


_lock: Any = None


def set_lock(lock: Any) -> None:
    global _lock
    _lock = lock


def is_locked() -> bool:
    return not _lock.acquire(block=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")  # other tests have left threads
@pytest.mark.parametrize("context", [None, "fork"])
def test_lock_that_only_a_fork_passes_on_comes_with_the_initializer(context: str | None) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with Executor(1, context, set_lock, (lock,)) as executor:
        assert executor._crew.pool.start_method == "fork"
        with lock:
            assert executor.submit(is_locked).result() is True
    with pytest.raises(pickle.PicklingError, match="worker_init cannot be sent"):
        Executor(1, "forkserver", set_lock, (lock,))


def test_queue_comes_with_the_initializer() -> None:
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    with Executor(1, initializer=set_lock, initargs=(queue,)) as executor:
        assert executor._crew.pool.start_method == default_start_method()
        executor.submit(put_it, 5).result()
        assert queue.get() == 5
    queue.close()


def put_it(value: int) -> None:
    _lock.put(value)


def test_failing_initializer_breaks_the_executor(caplog: pytest.LogCaptureFixture) -> None:
    with Executor(1, initializer=divmod, initargs=(1, 0)) as executor:
        error = executor.submit(abs, -1).exception(20)
        assert isinstance(error, BrokenProcessPool)
        assert isinstance(getattr(error.__cause__, "__cause__", None), ZeroDivisionError)
        with pytest.raises(BrokenProcessPool, match="ZeroDivisionError"):
            executor.submit(abs, -1)
    assert "Exception in initializer" in caplog.text


def test_worker_is_replaced_after_so_many_calls() -> None:
    with Executor(1, max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result() for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.parametrize("stop", [Executor.terminate_workers, Executor.kill_workers])
def test_workers_are_stopped_on_demand(stop: Any) -> None:
    executor = Executor(1)
    pid = executor.submit(os.getpid).result()
    sleeping = executor.submit(time.sleep, 60)
    until(sleeping.running)
    stop(executor)
    with pytest.raises(BrokenProcessPool):
        sleeping.result(20)
    until(lambda: not alive(pid))
    executor.shutdown()


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_dropped_executor_does_its_work_and_ends(processes: Executor) -> None:
    processes.submit(abs, -1).result()  # the fork server is there, and stays
    with no_leftovers():
        executor = Executor(1)
        pid = executor.submit(os.getpid).result()
        left = [executor.submit(time.sleep, 0.05) for _ in range(3)]
        del executor
        gc.collect()
        assert [future.result(20) for future in left] == [None] * 3
        until(lambda: not alive(pid))


def test_executor_that_was_never_used_ends_without_a_word(processes: Executor) -> None:
    processes.submit(abs, -1).result()  # the fork server is there, and stays
    with no_leftovers():
        executor = Executor(2)
        del executor
        gc.collect()


def test_interrupt_that_leaves_the_block_stops_what_runs() -> None:
    begin_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Executor(1) as executor:  # noqa: PT012  # the block is what is left
        running, pending = [executor.submit(time.sleep, 60) for _ in range(2)]
        until(running.running)
        raise KeyboardInterrupt
    assert time.monotonic() - begin_s < 30
    assert isinstance(running.exception(1), JobCancelledError)
    assert pending.cancelled()


def test_script_needs_no_guard_and_its_end_waits_for_what_was_submitted() -> None:
    out = run_script(
        "import time\n"
        "from nbpar.interop.futures import ProcessPoolExecutor\n"
        "executor = ProcessPoolExecutor(1)\n"
        "def late(x):\n"
        "    time.sleep(0.3)\n"
        "    print('late', x, flush=True)\n"
        "executor.submit(late, 1)\n"
        "executor.submit(late, 2)\n"
        "print('end of the script', flush=True)\n"
    )
    assert out.split("\n")[:3] == ["end of the script", "late 1", "late 2"]


def test_nested_executors_end(processes: Executor) -> None:
    def outer(x: int) -> list[int]:
        with Executor(1) as executor:
            return [executor.submit(pow, x, 2).result(), *executor.map(abs, [-x])]

    assert [one.result(50) for one in [processes.submit(outer, x) for x in (2, 3)]] == [[4, 2], [9, 3]]
    assert processes.submit(lambda: Executor()._max_workers).result() == 1  # the other workers are at work


# --- one card, one line in nbpar.jobs() -------------------------------------------------------------------------------


def test_calls_made_at_once_are_one_job_and_calls_in_turn_are_none(gate: Gate) -> None:
    known = nbpar.jobs()
    with Executor(2, "threads") as executor:
        for _ in range(20):
            executor.submit(abs, -1).result()
        assert jobs_since(known) == []
        until(lambda: executor._crew._open is None or executor._crew._open.is_past)
        both = [executor.submit(gate, x) for x in (1, 2)]
        (job,) = jobs_since(known)
        gate.opened.set()
        assert [one.result(20) for one in both] == [1, 2]
        until(job.done)
        assert (job.status, job.n_done, job.n_tasks) == ("done", 2, 2)


def test_map_is_a_job_by_the_name_of_its_function(threads: Executor) -> None:
    assert list(threads.map(abs, range(5))) == list(range(5))
    job = nbpar.jobs()[-1]
    until(job.done)
    assert (job.name, job.status, job.n_tasks) == ("map abs", "done", 5)


def test_cancelled_job_leaves_the_executor_usable(gate: Gate) -> None:
    with Executor(1, "threads") as executor:
        running, pending = executor.submit(gate), executor.submit(gate)
        assert gate.begun.acquire(timeout=20)
        nbpar.jobs()[-1].cancel()
        until(pending.cancelled)
        gate.opened.set()
        until(running.done)
        assert executor.submit(abs, -1).result(20) == 1


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["spawn", "forkserver", fork, "threads"])
def test_context_is_a_name_or_an_object(context: str) -> None:
    with Executor(1, context) as executor:
        assert executor._crew.pool.start_method == context
    if context != "threads":
        with Executor(1, mp_context=multiprocessing.get_context(context)) as executor:
            assert executor._crew.pool.start_method == context


def test_default_is_the_cpus_that_may_be_used() -> None:
    with Executor() as executor:
        assert executor._max_workers == usable_cpus()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": 1.5}, OptionsError, "max_workers=1.5 is not allowed"),
        ({"mp_context": "loky"}, OptionsError, "mp_context='loky' is not allowed"),
        ({"mp_context": object}, OptionsError, "mp_context="),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 1, "mp_context": "fork"}, ValueError, "incompatible with the 'fork'"),
        ({"memory_limit": "much"}, OptionsError, "memory_limit='much'"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Executor(**options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"chunksize": 0}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": 1.5}, TypeError),
    ],
)
def test_arguments_of_map_are_checked(threads: Executor, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        threads.map(abs, [1], **options)


def test_it_is_an_executor_with_all_names_of_its_library() -> None:
    assert issubclass(Executor, futures.Executor) and ProcessPoolExecutor is Executor
    assert {name for name in futures.__all__ if not hasattr(door, name)} == set()


def test_page_names_every_parameter_and_method() -> None:
    page = (ROOT / "docs" / "reference" / "futures.md").read_text()
    methods = [name for name in vars(Executor) if not name.startswith("_")]
    asked = {name for one in (Executor, *(getattr(Executor, name) for name in methods)) for name in _parameters(one)}
    code = " ".join(re.findall(r"`([^`\n]+)`", page))
    assert [name for name in sorted({*asked, *methods}) if not re.search(rf"\b{name}\b", code)] == []


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "args", "kwargs")]


# --- beside other libraries -------------------------------------------------------------------------------------------


def test_event_loop_runs_in_it_and_its_futures_can_be_awaited(processes: Executor) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        several = [loop.run_in_executor(processes, pow, x, 2) for x in range(4)]
        return [*await asyncio.gather(*several), await processes.submit(abs, -7)]  # type: ignore[misc]  # may be

    assert asyncio.run(main()) == [0, 1, 4, 9, 7]


def test_futures_are_taken_as_they_complete(processes: Executor) -> None:
    mine = {processes.submit(pow, x, 2): x for x in range(30)}
    assert {mine[one]: one.result() for one in as_completed(mine, timeout=30)} == {x: x * x for x in range(30)}
