"""Whatever fails, wherever: the right error for the right task, all else kept, the same pool working, nothing left.

`GRID` is the whole matrix: each place where something can fail, and what is to come of it when there a process dies or
an exception is raised. The ways are those of :mod:`tests.promises.faults`. A cell that has no meaning says why not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import nbpar
from nbpar.backends.forkserver import server
from nbpar.errors import RemoteError, SerializationError, TaskError, WorkerDiedError, WorkerStartError
from tests.backends.conftest import METHODS, PROCESSES
from tests.helpers import alive, run_script, until
from tests.promises.faults import (
    DEATHS,
    FAULTS,
    LARGE,
    PickleFault,
    PickleFaultError,
    UnpickleFault,
    UnpickleFaultError,
    Way,
    act_when_idle,
    fails_once,
    sum_of,
    tear_next_arguments,
    tear_next_results,
)

Pool = nbpar.WorkerPool

NOTICED_S = 0.5
N_ITEMS, BAD = 8, 5
SOME = ("kill", "exit-0", "sys.exit", "memory")
NO_EXCEPTION = ("sys.exit", "KeyboardInterrupt", "BaseException")


# --- the grid ---------------------------------------------------------------------------------------------------------


class Not(str):
    """Why there is nothing to try."""

    __slots__ = ()


KERNEL_DIES = Not("it happens in the kernel: the user's own process ends (tests/crash/test_kernel_death.py)")
NOTHING_TRAVELS = Not("nothing is pickled: workers share the kernel's memory")
NO_PROCESS = Not("there is no process but the kernel")
NO_WORKER = Not("there is no worker that could be idle")
NOT_BY_OTHERS = Not("threads do not end by what others do, but see test_a_worker_thread_that_ends_is_replaced")
CALLERS_OWN = Not("it is raised in the caller's own thread, and is the caller's: an exit, an interrupt")
SAME_AS_OTHERS = Not(
    "spawn differs in how a process starts, which does not depend on how it fails: SOME ways are tried"
)


@dataclass(frozen=True)
class Place:
    """A row: what comes of each kind of fault at one place.

    Attributes
    ----------
    death, fault : str or Not
        Of a worker process that ends; of an exception that is raised.
    threads, serial : str or Not
        Of an exception, where workers are threads or there are none. A death there is the kernel's, always.
    """

    name: str
    try_it: Callable[[Trial], None]
    death: str
    fault: str
    threads: str = NOTHING_TRAVELS
    serial: str = NOTHING_TRAVELS


LOST = "the task has a WorkerDiedError"
OWN = "the task has the exception that was raised"
REFUSED = "the task has a SerializationError"
REMOTE = "the task has its own exception, or a RemoteError that names its type"
NO_JOB = "the job fails with it: no task can run"
NO_START = "the job fails with a WorkerStartError, after a few attempts and no more"
NO_HARM = "no task has an error"
TORN = "the task has a WorkerDiedError: the process ends by the exception"


@dataclass(frozen=True)
class Trial:
    """One cell of the matrix, to be tried in a pool."""

    pool: Pool
    way: Way
    outcome: str
    method: str
    folder: Path
    make_pool: Callable[..., Pool]

    def map(self, function: Callable[[Any], Any], items: list[Any], chunk_size: int | None) -> list[Any]:
        """The results, with errors in their places."""
        return self.pool.map(function, items, on_error="return", chunk_size=chunk_size)

    def check(self, got: list[Any], expected: list[Any], *, bad: int = BAD, item: str | None = None) -> None:
        """Look at what came of a job of which one task failed."""
        if self.outcome == NO_HARM:
            assert got == expected
            return
        assert got[:bad] + got[bad + 1 :] == expected[:bad] + expected[bad + 1 :]
        error = got[bad]
        assert isinstance(error, TaskError), error
        assert (error.index, error.item_repr) == (bad, str(bad) if item is None else item)
        assert re.search(self.way.words, str(error)) or self.outcome in (TORN, REMOTE)
        kind: type[TaskError] = {LOST: WorkerDiedError, TORN: WorkerDiedError, REFUSED: SerializationError}.get(
            self.outcome, TaskError
        )
        if isinstance(error, WorkerDiedError):
            assert kind is WorkerDiedError, error
            assert error.exit_code == (1 if self.way.exit_code is None else self.way.exit_code)
            assert error.pid not in (None, os.getpid())
        elif self.outcome == REMOTE:
            assert type(error) in (TaskError, RemoteError)
            assert "FaultError: raised, to fail by " in str(error)
        else:
            assert type(error) is kind, error
            if self.outcome == OWN:
                assert type(error.__cause__) is self.way.error


def try_items(trial: Trial, make: Callable[[], Any]) -> None:
    """One of the arguments fails on its way."""
    for chunk_size in chunk_sizes(trial):
        items: list[Any] = list(range(N_ITEMS))
        items[BAD] = make()
        got = trial.map(number_of, items, chunk_size)
        trial.check(got, [*range(BAD), -1, *range(BAD + 1, N_ITEMS)], item=repr(items[BAD]))


def try_tasks(trial: Trial, task: Callable[[int], Any]) -> None:
    """One of the tasks fails, or what it returns or raises."""
    for chunk_size in chunk_sizes(trial):
        trial.check(trial.map(task, list(range(N_ITEMS)), chunk_size), list(range(N_ITEMS)))


def chunk_sizes(trial: Trial) -> tuple[int | None, ...]:
    """Alone in a chunk, and between others: how many travel together is another story for each kind of fault."""
    return (4,) if trial.method == "spawn" else (None, 4)


def number_of(item: Any) -> int:
    return item if isinstance(item, int) else -1


def try_argument_pickle(trial: Trial) -> None:
    try_items(trial, lambda: PickleFault(trial.way))
    with helper_thread() as run:  # the first map was of the main thread, which pickles itself; this is the dispatcher's
        run(lambda: try_items(trial, lambda: PickleFault(trial.way)))


def try_argument_unpickle(trial: Trial) -> None:
    try_items(trial, lambda: UnpickleFault(trial.way, in_kernel=False))


def try_function_unpickle(trial: Trial) -> None:
    bad = UnpickleFault(trial.way, in_kernel=False)
    error_type = WorkerDiedError if trial.way.error is None else trial.way.error
    with pytest.raises(error_type) as caught:
        trial.pool.map(lambda x: (x, bad), range(N_ITEMS), on_error="return")
    if trial.way.error is None:
        assert isinstance(caught.value, WorkerDiedError)
        assert caught.value.exit_code == trial.way.exit_code
        assert "no worker survives loading the function" in str(caught.value)
        assert re.search(trial.way.words, str(caught.value))


def try_worker_init(trial: Trial) -> None:
    is_mended, log = trial.folder / "is mended", trial.folder / "log"
    with trial.make_pool(worker_init=fails_once(trial.way, is_mended, log)) as pool:
        how = "" if trial.way.error is None else "worker_init failed: "
        with pytest.raises(WorkerStartError, match=f"{how}.*({trial.way.words})") as caught:
            pool.map(abs, range(N_ITEMS), on_error="return")
        assert trial.way.error is None or type(caught.value.__cause__) is trial.way.error
        until(lambda: not pool.pids() or trial.method == "serial")
        n_starts = len(log.read_text().splitlines())
        assert n_starts <= 3 * pool.n_workers, "it is tried again and again"
        is_mended.touch()
        assert pool.map(abs, range(-N_ITEMS, 0)) == [*range(N_ITEMS, 0, -1)]


def try_task(trial: Trial) -> None:
    way = trial.way

    def task(x: int) -> int:
        if x == BAD:
            way.fail()
        return x

    try_tasks(trial, task)


def try_result_pickle(trial: Trial) -> None:
    bad = trial.way
    try_tasks(trial, lambda x: PickleFault(bad) if x == BAD else x)


def try_result_unpickle(trial: Trial) -> None:
    bad = trial.way
    try_tasks(trial, lambda x: UnpickleFault(bad, in_kernel=True) if x == BAD else x)
    with helper_thread() as run:
        run(lambda: try_tasks(trial, lambda x: UnpickleFault(bad, in_kernel=True) if x == BAD else x))


def try_exception_pickle(trial: Trial) -> None:
    try_tasks(trial, raising(PickleFaultError, trial.way))


def try_exception_unpickle_in_worker(trial: Trial) -> None:
    try_tasks(trial, raising(lambda way: UnpickleFaultError(way, in_kernel=False), trial.way))


def try_exception_unpickle(trial: Trial) -> None:
    task = raising(lambda way: UnpickleFaultError(way, in_kernel=True), trial.way)
    try_tasks(trial, task)
    with helper_thread() as run:
        run(lambda: try_tasks(trial, task))


def raising(make: Callable[[Way], BaseException], way: Way) -> Callable[[int], int]:
    def task(x: int) -> int:
        if x == BAD:
            raise make(way)
        return x

    return task


def try_idle(trial: Trial) -> None:
    go, over = trial.folder / "go", trial.folder / "over"
    way = trial.way
    (pid,) = trial.pool.map(lambda _: act_when_idle(way, go, over), [0])
    before = trial.pool.pids()
    assert pid in before.values()
    go.touch()
    if trial.way.error is None:
        until(lambda: pid not in trial.pool.pids().values())
    else:
        until(over.exists)
    trial.check(trial.map(number_of, list(range(N_ITEMS)), None), list(range(N_ITEMS)))
    assert trial.way.error is None or trial.pool.pids() == before


def try_result_by_socket(trial: Trial) -> None:
    try_torn_results(trial, lambda x: bytes([x]) * LARGE)


def try_result_by_arena(trial: Trial) -> None:
    try_torn_results(trial, lambda x: np.full(LARGE, x, dtype=np.uint8))


def try_torn_results(trial: Trial, make: Callable[[int], Any]) -> None:
    way = trial.way

    def task(x: int) -> Any:
        if x == BAD:
            tear_next_results(way)
        return make(x)

    for chunk_size in (1, 4) if trial.method == "forkserver" else (1,):
        got = trial.map(task, list(range(N_ITEMS)), chunk_size)
        trial.check([one if isinstance(one, TaskError) else sum_of(one) for one in got], [*range(0, 2 * N_ITEMS, 2)])


def try_argument_by_socket(trial: Trial) -> None:
    try_torn_arguments(trial, [bytes([x]) * LARGE for x in range(N_ITEMS)], LARGE // 2)


def try_argument_by_arena(trial: Trial) -> None:
    try_torn_arguments(trial, [np.full(LARGE, x, dtype=np.uint8) for x in range(N_ITEMS)], 64)


def try_torn_arguments(trial: Trial, items: list[Any], n_bytes: int) -> None:
    way = trial.way
    (pid,) = trial.pool.map(lambda _: tear_next_arguments(way, n_bytes), [0])
    trial.check(trial.map(sum_of, items, 1), [*range(0, 2 * N_ITEMS, 2)])
    until(lambda: pid not in trial.pool.pids().values())


def warm_arenas(pool: Pool, folder: Path) -> None:
    """Have large buffers travel both ways, twice with each worker: the first time they have no arena yet."""
    for _ in range(2):
        meet(pool, folder, np.zeros(LARGE, dtype=np.uint8))


def meet(pool: Pool, folder: Path, luggage: Any = None) -> None:
    """Have each of two workers do a task, at the same time."""
    here = Path(tempfile.mkdtemp(dir=folder))

    def task(item: tuple[int, Any]) -> Any:
        (here / str(item[0])).touch()
        until(lambda: len(list(here.iterdir())) == 2)
        return item[1]

    assert len(pool.map(task, [(i, luggage) for i in range(2)], chunk_size=1)) == 2


def try_worker_exit(trial: Trial) -> None:
    way, log = trial.way, trial.folder / "log"
    never = trial.folder / "never"
    pool = trial.make_pool(worker_exit=fails_once(way, never, log), tasks_per_worker=4)
    begin_s = time.monotonic()
    with pool:
        trial.check(pool.map(number_of, list(range(N_ITEMS)), on_error="return"), list(range(N_ITEMS)))
        assert pool.map(abs, [-1]) == [1]
    assert time.monotonic() - begin_s < 45  # six starts of interpreters; each may take seconds on a loaded machine
    assert len(log.read_text().splitlines()) >= 1


@contextlib.contextmanager
def helper_thread() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs a function in another thread, which leaves the work to the dispatcher's."""

    def run(function: Callable[[], None]) -> None:
        failed: list[BaseException] = []

        def guarded() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001  # it is raised again in the test's own thread
                failed.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    yield run


GRID = (
    #                                                          a worker dies  an exception  workers are threads  serial
    Place("argument pickle", try_argument_pickle, KERNEL_DIES, REFUSED),
    Place("argument unpickle", try_argument_unpickle, LOST, REFUSED),
    Place("function unpickle", try_function_unpickle, NO_JOB, NO_JOB),
    Place("worker init", try_worker_init, NO_START, NO_START, NO_START, NO_START),
    Place("task", try_task, LOST, OWN, OWN, OWN),
    Place("result pickle", try_result_pickle, LOST, REFUSED),
    Place("result unpickle", try_result_unpickle, KERNEL_DIES, REFUSED),
    Place("exception pickle", try_exception_pickle, LOST, REMOTE),
    Place("exception unpickle in the worker", try_exception_unpickle_in_worker, LOST, REMOTE),
    Place("exception unpickle in the kernel", try_exception_unpickle, KERNEL_DIES, REMOTE),
    Place("idle", try_idle, NO_HARM, NO_HARM, NOT_BY_OTHERS, NO_WORKER),
    Place("mid-send, result by socket", try_result_by_socket, LOST, TORN),
    Place("mid-send, result by arena", try_result_by_arena, LOST, TORN),
    Place("mid-send, argument by socket", try_argument_by_socket, NO_HARM, NO_HARM),
    Place("mid-send, argument by arena", try_argument_by_arena, NO_HARM, NO_HARM),
    Place("worker exit", try_worker_exit, NO_HARM, NO_HARM, NO_HARM, NO_HARM),
)


def outcome(place: Place, way: Way, method: str) -> str:
    """What is to come of a cell, or why there is none."""
    if method in PROCESSES:
        found = place.death if way.error is None else place.fault
        return SAME_AS_OTHERS if type(found) is str and method == "spawn" and way.name not in SOME else found
    found = place.threads if method == "threads" else place.serial
    if type(found) is str and way.error is None:
        return NO_PROCESS
    if type(found) is str and method == "serial" and way.name in NO_EXCEPTION and place.name != "task":
        return CALLERS_OWN
    return CALLERS_OWN if type(found) is str and method == "serial" and way.error is KeyboardInterrupt else found


CELLS = [
    pytest.param(place, way, method, id=f"{place.name}-{way.name}-{method}")
    for place in GRID
    for way in (*DEATHS, *FAULTS)
    for method in METHODS
    if not isinstance(outcome(place, way, method), Not)
]


# --- what is left -----------------------------------------------------------------------------------------------------


def remains() -> Counter[str]:
    """All that a worker's end could leave behind, by kind."""
    found: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[f"process ({process.status() == psutil.STATUS_ZOMBIE and 'zombie'})"] += 1
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found["descriptor of " + re.sub(r":\[\d+\]", "", str(link.readlink()))] += 1
    found.update(f"thread {one.name}" for one in threading.enumerate())
    with open("/proc/self/maps") as maps:
        found["shared memory"] = len({line.split()[4] for line in maps if "/memfd:" in line or "/dev/shm/" in line})
    ours = ("nbpar", str(os.getpid()))
    found.update(f"file {one}" for one in Path("/dev/shm").iterdir() if any(word in one.name for word in ours))
    if server.pid is not None:
        with contextlib.suppress(OSError):
            found["descriptor of the fork server"] = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    return found


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    gc.collect()
    before = remains()
    yield
    left: Counter[str] = Counter()

    def is_clean() -> bool:
        nonlocal left
        gc.collect()
        left = remains() - before
        return not left

    with contextlib.suppress(AssertionError):
        until(is_clean, within_s=30.0)
    assert not left, f"left behind: {left}"


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[str, Pool]]:
    found: dict[str, Pool] = {}
    yield found
    for pool in found.values():
        pool.shutdown(cancel=True)


def warm_pool(method: str, pools: dict[str, Pool], folder: Path) -> Pool:
    """The pool of a method: the same one for all cells, so that each finds what those before it have left of it."""
    if method not in pools:
        pools[method] = nbpar.WorkerPool(n_workers=1 if method == "serial" else 2, start_method=method)  # type: ignore[arg-type]
    return pools[method]


def is_as_before(pool: Pool) -> None:
    assert pool.map(abs, range(-4, 0)) == [4, 3, 2, 1]
    until(lambda: len(pool.pids()) == pool.n_workers)


@pytest.mark.skipif(sys.platform != "linux", reason="what is left is looked for in /proc")
@pytest.mark.parametrize(("place", "way", "method"), CELLS)
def test_the_right_task_fails_and_all_else_is_as_before(
    place: Place, way: Way, method: str, pools: dict[str, Pool], tmp_path: Path
) -> None:
    def make_pool(**options: Any) -> Pool:
        return nbpar.WorkerPool(n_workers=pool.n_workers, start_method=method, **options)  # type: ignore[arg-type]

    pool = warm_pool(method, pools, tmp_path)
    for one in pools.values():  # those of other methods, too: a worker that is being replaced is missing in the census
        is_as_before(one)
    if "arena" in place.name:
        warm_arenas(pool, tmp_path)
    with nothing_left():
        place.try_it(Trial(pool, way, outcome(place, way, method), method, tmp_path, make_pool))
        is_as_before(pool)
        if way.name == "memory" and method in PROCESSES:
            old = set(pool.pids().values())
            pool.restart()  # the worker's memory is limited from now on
            is_as_before(pool)
            until(lambda: len(pool.pids()) == pool.n_workers and old.isdisjoint(pool.pids().values()))


@pytest.mark.parametrize("method", PROCESSES)
def test_a_death_is_noticed_at_once(method: str, pools: dict[str, Pool], tmp_path: Path) -> None:
    def die(_: int) -> None:
        (tmp_path / "died at").write_text(repr(time.perf_counter()))
        os._exit(3)

    def ended_at(_: int) -> float:
        return float((tmp_path / "died at").read_text())

    pool = warm_pool(method, pools, tmp_path)
    took_s = []
    for _ in range(7):
        meet(pool, tmp_path)
        (error,) = pool.map(die, [0], on_error="return")
        took_s.append(time.perf_counter() - ended_at(0))
        assert isinstance(error, WorkerDiedError)
    # The middle one: a loaded machine may hold any single one up.
    assert statistics.median(took_s) < NOTICED_S, took_s


@pytest.mark.parametrize("method", PROCESSES)
def test_a_death_between_jobs_is_noticed_at_once(method: str, pools: dict[str, Pool], tmp_path: Path) -> None:
    pool = warm_pool(method, pools, tmp_path)
    took_s = []
    for _ in range(7):
        meet(pool, tmp_path)
        pid = next(iter(pool.pids().values()))
        begin_s = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in pool.pids().values())  # type: ignore[misc]
        took_s.append(time.perf_counter() - begin_s)
    is_as_before(pool)
    assert statistics.median(took_s) < NOTICED_S, took_s


@pytest.mark.parametrize("n_missing", [8, 60])
def test_a_torn_result_is_not_completed_by_what_comes_after_it(n_missing: int) -> None:
    """An exception in the middle of a send (a signal handler's, say) must not have anything sent after it."""
    fails = FAULTS[3]

    def task(_: int) -> Any:
        tear_next_results(fails, n_missing)
        return np.full(LARGE, 7, dtype=np.uint8)

    with nbpar.WorkerPool(n_workers=1) as pool:
        (got,) = pool.map(task, [0], on_error="return")
        assert isinstance(got, WorkerDiedError)
        assert (got.exit_code, "at the very base" in str(got)) == (1, True)


@pytest.mark.parametrize("method", PROCESSES)
def test_a_worker_that_fails_ends_although_a_task_left_a_thread(method: str) -> None:
    """Python waits for such threads when it ends in the usual way."""

    def task(x: int) -> int:
        if x == 0:
            threading.Thread(target=time.sleep, args=(1000,), daemon=False).start()
            tear_next_results(FAULTS[0])
        return x

    with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:  # type: ignore[arg-type]
        got: list[Any] = pool.map(task, range(3), chunk_size=1, on_error="return")
        assert isinstance(got[0], WorkerDiedError)
        assert got[1:] == [1, 2]


def test_a_worker_thread_that_ends_is_replaced(tmp_path: Path) -> None:
    """Somebody raises in it, as a debugger or a test runner does: where no task runs, and before one does."""

    def ident(_: int) -> int:
        return threading.get_ident()

    with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
        for kind in (SystemExit, KeyboardInterrupt, ValueError):
            (victim,) = pool.map(ident, [0])
            set_error = ctypes.pythonapi.PyThreadState_SetAsyncExc
            assert set_error(ctypes.c_ulong(victim), ctypes.py_object(kind)) == 1
            assert pool.map(number_of, range(4), on_error="return", chunk_size=1)[1:] == [1, 2, 3]


class Lonely:
    """Can be pickled alone, and not with others: as what is nested as deep as may be."""

    def __reduce__(self) -> Any:
        frame: Any = sys._getframe()
        while frame is not None:
            whole = frame.f_locals.get("obj")
            if type(whole) is list and len(whole) > 1:
                raise ValueError("not among others")
            frame = frame.f_back
        return Lonely, ()


@pytest.mark.parametrize("where", ["argument", "result"])
def test_what_can_be_pickled_alone_only_costs_no_more_than_its_chunk(
    where: str, pools: dict[str, Pool], tmp_path: Path
) -> None:
    pool = warm_pool("forkserver", pools, tmp_path)
    items: list[Any] = [0, 1, Lonely() if where == "argument" else 2, 3, 4, 5]
    got = pool.map(lambda x: Lonely() if x == 2 else number_of(x), items, on_error="return", chunk_size=3)
    assert got[3:] == [3, 4, 5]
    assert all(isinstance(one, SerializationError) for one in got[:3])
    assert "not among others" in str(got[2])
    is_as_before(pool)


def test_an_error_that_is_kept_keeps_no_results(pools: dict[str, Pool], tmp_path: Path) -> None:
    """Tracebacks lead to frames, frames to the data of the dispatcher and of those who called it."""

    def call() -> tuple[list[Any], weakref.ref[Any]]:
        own = PickleFault(FAULTS[0])
        bad = FAULTS[0]
        make = [lambda x: UnpickleFault(bad, in_kernel=True) if x == 1 else None, lambda x: 1 // (x - 1)]
        errors = [pool.map(one, range(4), on_error="return", chunk_size=4)[1] for one in make]
        return errors, weakref.ref(own)

    pool = warm_pool("forkserver", pools, tmp_path)
    errors, own = call()
    assert [type(error) for error in errors] == [SerializationError, TaskError]
    assert own() is None


# --- a hook that does not come back -----------------------------------------------------------------------------------

HANGING = """
import faulthandler, os, pathlib, signal, sys, threading, time
faulthandler.dump_traceback_later(25, exit=True)
import nbpar
folder, method, how = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def hangs():
    import os
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(1000)

pool = nbpar.WorkerPool(n_workers=2, start_method=method, worker_init=hangs)

def when_it_hangs(act):
    def wait():
        while not list(folder.iterdir()):
            time.sleep(0.005)
        act()
    threading.Thread(target=wait).start()

begin_s = 0.0
def now():
    global begin_s
    begin_s = time.perf_counter()

try:
    if how == "Ctrl-C":
        when_it_hangs(lambda: (now(), os.kill(os.getpid(), signal.SIGINT)))
        pool.map(abs, [-1])
    elif how == "cancel":
        job = pool.map_async(abs, [-1])
        when_it_hangs(lambda: (now(), job.cancel()))
        job.result()
    else:
        job = pool.map_async(abs, [-1])
        when_it_hangs(lambda: (now(), pool.shutdown(cancel=True)))
        job.result()
except (nbpar.JobInterrupt, nbpar.JobCancelledError, nbpar.PoolClosedError) as error:
    print(type(error).__name__, time.perf_counter() - begin_s < 5)
pool.shutdown(cancel=True)
print(time.perf_counter() - begin_s < 10)
"""


@pytest.mark.parametrize(
    ("how", "error"), [("Ctrl-C", "JobInterrupt"), ("cancel", "JobCancelledError"), ("shutdown", "JobCancelledError")]
)
@pytest.mark.parametrize("method", [*PROCESSES, "threads"])
def test_an_init_that_hangs_can_be_left(method: str, how: str, error: str, tmp_path: Path) -> None:
    out = run_script(HANGING, str(tmp_path), method, how)
    assert out.splitlines() == [f"{error} True", "True"]
    if method != "threads":
        until(lambda: not any(alive(int(one.name)) for one in tmp_path.iterdir()))
