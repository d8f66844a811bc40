"""An error costs its own task: all other results are kept, are within reach of the error, and need not run again."""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbpar
from nbpar.errors import NbparError, PoolClosedError, TaskError, WorkerDiedError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, MakePool, only
from tests.helpers import run_script, until

Pool = nbpar.WorkerPool

# --- what an error has ------------------------------------------------------------------------------------------------


class AwkwardError(Exception):
    """Has results of its own."""

    def __init__(self, results: str) -> None:
        super().__init__(results)
        self.results = results


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses new attributes."""

    x: int


class SlottedError(Exception):
    """Takes no attribute that it does not know."""

    __slots__ = ("x",)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "x" and not name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


def raising(make: Callable[[], BaseException], bad: int) -> Callable[[int], int]:
    def task(x: int) -> int:
        if x == bad:
            raise make()
        return x * 10

    return task


def test_the_users_exception_has_the_results_so_far(pool: Pool) -> None:
    with pytest.raises(KeyError) as caught:
        pool.map(raising(lambda: KeyError("k"), 4), range(9), chunk_size=1)
    error: Any = caught.value
    job = nbpar.jobs()[-1]
    assert error.results == job.results == [job.results_by_index[i] for i in sorted(job.results_by_index)]
    assert [failure.index for failure in job.errors] == [4]
    assert error.args == ("k",)
    notes = error.__notes__
    assert "item 4 = 4" in notes[0]
    assert notes[1] == (
        f"nbpar: {len(job.results)} of 9 results are kept in nbpar.jobs()[-1].results; nbpar.jobs()[-1].retry_failed() "
        f"runs the others"
    )


@pytest.mark.parametrize(
    "make",
    [lambda: AwkwardError("mine"), lambda: FrozenError(3), lambda: SlottedError("x")],
    ids=["own results", "frozen", "slots"],
)
def test_an_exception_that_cannot_carry_results_stays_as_it_is_and_says_where_they_are(
    pool: Pool, make: Callable[[], BaseException]
) -> None:
    error = make()
    with pytest.raises(type(error)) as caught:
        pool.map(raising(make, 4), range(5), chunk_size=1)
    job = nbpar.jobs()[-1]
    assert type(caught.value) is type(error)
    assert getattr(caught.value, "results", None) == ("mine" if isinstance(error, AwkwardError) else None)
    assert caught.value.args == error.args
    assert "item 4 = 4" in caught.value.__notes__[0]
    assert ("nbpar.jobs()[-1].results" in caught.value.__notes__[-1]) == bool(job.results)


@only(*PROCESSES)
def test_the_error_of_a_dead_worker_has_the_others_results(pool: Pool, tmp_path: Path) -> None:
    def task(x: int) -> int:
        if x == 5:
            while not (tmp_path / "go").exists():
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    job = pool.map_async(task, range(6), chunk_size=1)
    until(lambda: len(job.results) == 5)
    (tmp_path / "go").touch()
    with pytest.raises(WorkerDiedError, match="item 5 = 5") as caught:
        job.result(timeout=20)
    assert caught.value.results == job.results == [0, 1, 2, 3, 4]
    assert caught.value.__notes__[-1].startswith("nbpar: 5 of 6 results are kept in the job's results; the job's retry")


@only(*WITH_WORKERS)
def test_the_error_of_a_cancelled_job_has_what_had_ended(pool: Pool) -> None:
    def task(x: int) -> int:
        while x >= 4:
            time.sleep(0.01)
        return x

    job = pool.map_async(task, range(8), chunk_size=1)
    until(lambda: len(job.results) == 4)
    job.cancel()
    with pytest.raises(nbpar.JobCancelledError, match="4 of 8 results are kept") as caught:
        job.result(timeout=20)
    assert caught.value.results == [0, 1, 2, 3]


def test_results_do_not_travel_with_a_pickled_exception(pool: Pool) -> None:
    with pytest.raises(KeyError) as caught:
        pool.map(raising(lambda: KeyError("k"), 4), range(9), chunk_size=1)
    assert getattr(pickle.loads(pickle.dumps(caught.value)), "results", []) == []


def test_an_exception_of_a_map_within_a_task_comes_as_it_is(pool: Pool) -> None:
    def outer(n: int) -> list[int]:
        return nbpar.map(lambda x: 1 // x, range(n, -1, -1))

    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(outer, [3])
    assert not any("results are kept" in note for note in caught.value.__notes__), "that is a job of the worker's"
    assert len(getattr(caught.value, "results", [])) == 0


@pytest.mark.parametrize("on_error", ["return", "skip"])
def test_all_others_have_their_values_when_errors_do_not_end_the_job(pool: Pool, on_error: Any) -> None:
    got: Any = pool.map(lambda x: 60 // (x % 5), range(20), on_error=on_error)
    job = nbpar.jobs()[-1]
    bad, good = [0, 5, 10, 15], [60 // (x % 5) for x in range(20) if x % 5]
    assert [error.index for error in job.errors] == bad
    assert all(isinstance(error.__cause__, ZeroDivisionError) for error in job.errors)
    assert job.results == good
    assert [one for one in got if not isinstance(one, TaskError)] == good
    assert [i for i, one in enumerate(got) if isinstance(one, TaskError)] == (bad if on_error == "return" else [])


# --- the rest, once more ----------------------------------------------------------------------------------------------


class Switch:
    """A file whose presence makes tasks well; they note that they ran."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def is_on(self) -> bool:
        return (self._folder / "on").exists()

    def turn_on(self) -> None:
        (self._folder / "on").touch()

    def note(self, x: int) -> None:
        (self._folder / f"{x} {time.perf_counter_ns()}").touch()

    def ran(self) -> list[int]:
        """Items that ran since the last call."""
        found = [one for one in self._folder.iterdir() if " " in one.name]
        for one in found:
            one.unlink()
        return sorted(int(one.name.split()[0]) for one in found)


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    return Switch(tmp_path)


def flaky(switch: Switch, *bad: int) -> Callable[[int], int]:
    def task(x: int) -> int:
        switch.note(x)
        if x in bad and not switch.is_on:
            raise OSError(f"no {x}")
        return x * x

    return task


SQUARES = [x * x for x in range(10)]


def test_only_what_failed_or_never_began_runs_again_after_a_map_that_raised(pool: Pool, switch: Switch) -> None:
    with pytest.raises(OSError, match="no 4"):
        pool.map(flaky(switch, 4), range(10), chunk_size=1)
    job = nbpar.jobs()[-1]
    known = set(job.results_by_index)
    switch.ran()
    switch.turn_on()
    again = job.retry_failed()
    assert again.result(timeout=20) == SQUARES
    assert switch.ran() == sorted(set(range(10)) - known)
    assert again is not job
    assert (again.status, again.n_done, again.name) == ("done", 10, job.name)
    assert again.snapshot().n_restored == len(known)
    assert job.status == "failed", "the old job is as it was"
    assert nbpar.jobs()[-1] is again


@pytest.mark.parametrize("on_error", ["return", "skip"])
@pytest.mark.parametrize("items", [range(10), list(range(10)), iter(range(10))], ids=["range", "list", "iterator"])
def test_only_the_failures_of_a_job_that_is_done_run_again(
    pool: Pool, switch: Switch, on_error: Any, items: Any
) -> None:
    if not isinstance(items, range | list):
        items = iter(range(10))
    job = pool.map_async(flaky(switch, 0, 4, 5, 9), items, on_error=on_error)
    job.wait(20)
    assert switch.ran() == list(range(10))
    switch.turn_on()
    again = job.retry_failed()
    assert again.result(timeout=20) == SQUARES
    assert switch.ran() == [0, 4, 5, 9]
    assert again.retry_failed() is again, "there is nothing left"


def test_what_fails_once_more_can_run_once_more(pool: Pool, switch: Switch) -> None:
    job = pool.map_async(flaky(switch, 2, 3), range(10), on_error="return")
    job.wait(20)
    again = job.retry_failed()
    got: Any = again.result(timeout=20)
    assert [i for i, one in enumerate(got) if isinstance(one, TaskError)] == [2, 3]
    assert [error.index for error in again.errors] == [2, 3]
    switch.turn_on()
    assert again.retry_failed().result(timeout=20) == SQUARES


@only(*PROCESSES)
def test_lost_and_timed_out_tasks_run_again(pool: Pool, switch: Switch) -> None:
    def task(x: int) -> int:
        if not switch.is_on:
            if x == 3:
                os._exit(7)
            if x == 6:
                time.sleep(1000)
        return x * x

    job = pool.map_async(task, range(10), on_error="return", timeout=0.4)
    job.wait(20)
    assert [type(error).__name__ for error in job.errors] == ["WorkerDiedError", "TaskTimeoutError"]
    switch.turn_on()
    assert job.retry_failed().result(timeout=20) == SQUARES


@only(*WITH_WORKERS)
def test_what_a_cancel_has_stopped_runs_again(pool: Pool, switch: Switch) -> None:
    def task(x: int) -> int:
        while x >= 4 and not switch.is_on:
            time.sleep(0.01)
        return x * x

    job = pool.map_async(task, range(10), chunk_size=1)
    until(lambda: len(job.results) == 4)
    job.cancel()
    assert job.wait(20)
    switch.turn_on()
    assert job.retry_failed().result(timeout=20) == SQUARES


def test_an_interrupted_map_goes_on_where_it_was(pool: Pool, method: str) -> None:
    out = run_script(
        """
import faulthandler, pathlib, signal, sys, tempfile, threading, time
import nbpar
faulthandler.dump_traceback_later(25, exit=True)
on = pathlib.Path(tempfile.mkdtemp(), "on")
began = on.with_name("began")

def task(x):
    if x == 5:
        began.touch()
    while x == 5 and not on.exists():
        time.sleep(0.01)
    return x * x

with nbpar.WorkerPool(start_method=sys.argv[1]) as pool:
    def interrupt_when_five_are_there():
        # Without workers they are told of when the next task ends.
        while not began.exists() or (sys.argv[1] != "serial" and len(nbpar.jobs()[-1].results) < 5):
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
    threading.Thread(target=interrupt_when_five_are_there).start()
    try:
        pool.map(task, range(10), chunk_size=1)
    except nbpar.JobInterrupt as interrupt:
        print(set(interrupt.results) >= {0, 1, 4, 9, 16}, interrupt.results == nbpar.jobs()[-1].results)
    on.touch()
    print(nbpar.jobs()[-1].retry_failed().result() == [x * x for x in range(10)])
""",
        method,
    )
    assert out.split() == ["True", "True", "True"]


def test_each_task_has_the_seed_that_it_had(pool: Pool, switch: Switch) -> None:
    def draw(x: int) -> float:
        if x % 3 == 0 and not switch.is_on:
            raise OSError("no")
        return float(nbpar.current_task().rng.random())

    for seed in (None, 7):
        job = pool.map_async(draw, range(9), seed=seed, on_error="return")
        job.wait(20)
        switch.turn_on()
        got = job.retry_failed().result(timeout=20)
        (switch._folder / "on").unlink()
        assert len(set(got)) == 9
        if seed is not None:
            switch.turn_on()
            assert got == pool.map(draw, range(9), seed=seed)
            (switch._folder / "on").unlink()


def test_the_function_sees_what_it_refers_to_as_it_is_now(pool: Pool) -> None:
    limits = {"largest": 5}

    def check(pair: tuple[int, int]) -> int:
        if pair[0] > limits["largest"]:
            raise ValueError(pair[0])
        return sum(pair)

    job = pool.map_async(lambda a, b: check((a, b)), range(10), range(10), on_error="skip")
    assert job.result(timeout=20) == [2 * x for x in range(6)]
    limits["largest"] = 9
    assert job.retry_failed().result(timeout=20) == [2 * x for x in range(10)]


def test_new_results_are_kept_in_the_checkpoint(pool: Pool, switch: Switch, tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    items = [0, 1, 1, 2, 3, 3, 4]  # equal ones are told apart by their number
    task = flaky(switch, 1, 3)
    job = pool.map_async(task, items, on_error="return", checkpoint=file)
    job.wait(20)
    assert nbpar.checkpoint.info(file).n_results == 3
    switch.turn_on()
    assert job.retry_failed().result(timeout=20) == [x * x for x in items]
    assert nbpar.checkpoint.info(file).n_results == 7
    switch.ran()
    assert pool.map(task, items, checkpoint=file) == [x * x for x in items]
    assert switch.ran() == []


# --- what is refused, and what is let go ------------------------------------------------------------------------------


@only(*WITH_WORKERS)
def test_a_job_that_runs_is_not_run_again(pool: Pool, switch: Switch) -> None:
    def task(x: int) -> int:
        while not switch.is_on:
            time.sleep(0.01)
        return x

    job = pool.map_async(task, range(3))
    with pytest.raises(NbparError, match="has not ended; wait for it, or cancel it"):
        job.retry_failed()
    switch.turn_on()
    assert job.result(timeout=20) == [0, 1, 2]


def test_a_stream_says_that_it_keeps_no_items(pool: Pool) -> None:
    assert list(pool.imap(lambda x: 1 // x, [1, 0], on_error="skip")) == [1]
    with pytest.raises(NbparError, match=r"use map\(\) or map_async\(\)"):
        nbpar.jobs()[-1].retry_failed()


def test_results_that_were_let_go_are_missed(pool: Pool) -> None:
    pool.map(lambda x: 1 // x, [1, 0], on_error="return")
    job = nbpar.jobs()[-1]
    pool.map(abs, [1])
    with pytest.raises(NbparError, match="were let go when the next job began"):
        job.retry_failed()


class Item:
    """Can be seen to be let go."""


@only(*WITH_WORKERS)  # without workers the task's frame has the caller's behind it, as in a plain loop
def test_the_input_of_a_failed_map_is_let_go_when_the_next_job_begins(pool: Pool) -> None:
    items = [Item() for _ in range(200)]
    seen = [weakref.ref(item) for item in items]
    with pytest.raises(OSError, match="no"):
        pool.map(lambda item: (_ for _ in ()).throw(OSError("no")), items, chunk_size=1)
    job = nbpar.jobs()[-1]
    del items
    gc.collect()
    assert sum(one() is not None for one in seen) == 200
    pool.map(abs, [1])

    def are_gone() -> bool:
        gc.collect()
        return sum(one() is not None for one in seen) <= 100

    until(are_gone)
    with pytest.raises(NbparError, match=r"the items of .* were let go"):
        job.retry_failed()


def test_a_range_is_kept_since_it_costs_nothing(pool: Pool, switch: Switch) -> None:
    with pytest.raises(OSError, match="no 4"):
        pool.map(flaky(switch, 4), range(10), chunk_size=1)
    job = nbpar.jobs()[-1]
    pool.map(abs, [1])
    switch.turn_on()
    assert job.retry_failed().result(timeout=20) == SQUARES


def test_a_pool_that_was_shut_down_is_named(make_pool: MakePool) -> None:
    pool = make_pool()
    job = pool.map_async(lambda x: 1 // x, [1, 0], on_error="return")
    job.wait(20)
    pool.shutdown()
    with pytest.raises(PoolClosedError, match=r"the pool of .* was shut down; call retry_failed\(\) while it is open"):
        job.retry_failed()


@pytest.fixture
def default_pool() -> Iterator[None]:
    nbpar.configure(start_method="threads", n_workers=2)
    yield
    nbpar.configure()


def test_the_notebooks_own_pool_may_be_another_one_by_then(default_pool: None, switch: Switch) -> None:
    job = nbpar.map_async(flaky(switch, 4), range(10), on_error="return")
    job.wait(20)
    switch.turn_on()
    nbpar.shutdown()
    assert job.retry_failed().result(timeout=20) == SQUARES
