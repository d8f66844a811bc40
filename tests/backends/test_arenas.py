"""Large buffers lie in recycled memory; it has a bound, it goes back, and all is the same without it."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.backends import arenas as arenas_module
from nbpar.backends.arenas import PoolArenas
from nbpar.wire.memory import Memory
from tests.backends.conftest import PROCESSES, MakePool, only
from tests.helpers import descriptors, run_script, until

Pool = nbpar.WorkerPool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no arenas")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux only")


def workers_of(pool: Pool) -> Any:
    backend: Any = pool._backend
    return backend._workers


def arenas_of(pool: Pool) -> PoolArenas:
    arenas = workers_of(pool)._arenas
    assert isinstance(arenas, PoolArenas)
    return arenas


def in_arena(array: Any) -> bool:
    """Whether an array lies in an arena."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return "c_ubyte_Array" in type(getattr(base, "obj", None)).__name__


def files_of(pool: Pool) -> list[int]:
    """Descriptors of a pool's arenas, to be closed by the test: they outlive the pool."""
    arenas: Any = arenas_of(pool)
    memories = [arenas._arguments.memory, *(reader._memory for reader in arenas._results.values())]
    return [os.dup(memory.fd) for memory in memories]


def size_of(files: list[int]) -> int:
    """Memory behind descriptors."""
    return sum(os.fstat(fd).st_blocks * 512 for fd in files)


def n_used(arena: Any) -> int:
    """Blocks in use; what a worker has just run it holds for a moment."""
    arena.sweep()
    return int(arena.n_blocks)


def use(pool: Pool) -> None:
    """Have all workers use both arenas."""

    def task(array: Any) -> Any:
        time.sleep(0.002)
        return array

    def are_used() -> bool:
        pool.map(task, [np.zeros(50_000)] * 8, chunk_size=1)
        processes = list(workers_of(pool)._processes.values())
        n_results = len(arenas_of(pool)._results)
        return len(processes) == n_results == pool.n_workers and all(one.shipper.has_arena for one in processes)

    until(are_used)
    pool.map(task, [np.zeros(50_000)] * 8, chunk_size=1)  # with which the last of them may have heard of its own


def try_to_use(pool: Pool) -> None:
    for _ in range(3):
        pool.map(np.copy, [np.zeros(50_000)] * 8, chunk_size=1)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arenas of 1 MB."""
    monkeypatch.setattr(arenas_module, "_LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(arenas_module, "_largest_bytes", lambda: 1 << 20)


@pytest.fixture
def quick_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas_module, "REST_AFTER_S", 0.05)


# --- what lies where --------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_arguments_and_results_lie_in_arenas(pool: Pool) -> None:
    def task(array: Any) -> Any:
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        return type(getattr(base, "obj", None)).__name__, array + 1

    use(pool)
    got = pool.map(task, [np.full(50_000, i) for i in range(10)], chunk_size=1)
    assert ["c_ubyte_Array" in name for name, _ in got] == [True] * 10
    assert all(in_arena(array) and (array == i + 1).all() for i, (_, array) in enumerate(got))
    future = pool.submit(lambda array: array * 2, np.arange(50_000))
    assert in_arena(future.result()) and (future.result() == np.arange(50_000) * 2).all()


@only("forkserver")
def test_blocks_are_recycled_when_nothing_is_kept(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=2)
    use(pool)
    for _ in range(5):
        pool.map(np.sum, [np.zeros(250_000) for _ in range(40)], chunk_size=1)
    arena: Any = arenas_of(pool)._arguments
    assert arena._touched.count(1) * 64 <= 40 * 1024, "40 MB of the 400 that were sent"
    until(lambda: n_used(arena) == 0)


@only("forkserver")
def test_blocks_are_freed_when_their_worker_dies(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(n_workers=2)
    use(pool)
    started = tmp_path / "started"

    def wait(_: Any) -> None:
        started.touch()
        time.sleep(60)

    job = pool.map_async(wait, [np.zeros(50_000)], retries=0, on_error="return")
    until(started.exists)
    arena: Any = arenas_of(pool)._arguments
    assert n_used(arena) >= 1
    for pid in pool.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert isinstance(job.result()[0], nbpar.WorkerDiedError)
    until(lambda: n_used(arena) == 0)
    use(pool)
    assert all(in_arena(one) for one in pool.map(np.copy, [np.ones(50_000)] * 4)), "the new workers have arenas, too"


@only("forkserver")
def test_block_stays_when_a_worker_keeps_its_argument(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=2)
    use(pool)

    def keep(array: Any) -> None:
        import nbpar

        nbpar.kept_by_a_test = [*getattr(nbpar, "kept_by_a_test", []), array]

    def kept(_: int) -> tuple[int, list[float]]:
        import nbpar

        return os.getpid(), [float(a[0]) for a in getattr(nbpar, "kept_by_a_test", []) if (a == a[0]).all()]

    def drop(_: int) -> None:
        import nbpar

        vars(nbpar).pop("kept_by_a_test", None)

    pool.map(keep, [np.full(50_000, float(i)) for i in range(20)], chunk_size=1)
    use(pool)
    arena: Any = arenas_of(pool)._arguments
    until(lambda: n_used(arena) == 20)
    by_pid = dict(pool.map(kept, range(20), chunk_size=1))
    assert sorted(itertools.chain.from_iterable(by_pid.values())) == [float(i) for i in range(20)]

    def all_dropped() -> bool:
        pool.map(drop, range(20), chunk_size=1)
        return n_used(arena) == 0

    until(all_dropped)


# --- bounds -----------------------------------------------------------------------------------------------------------


@only("forkserver")
def test_all_is_the_same_when_arenas_are_full(little: None, make_pool: MakePool) -> None:
    pool = make_pool(n_workers=2)
    use(pool)
    kept: list[Any] = []
    for round_ in range(3):
        kept += pool.map(lambda a: a + 1, [np.full(20_000, 100 * round_ + i) for i in range(30)])
        kept += pool.map(lambda i: np.full(300_000, i), range(2))
    assert 4 <= sum(in_arena(one) for one in kept) <= 12
    values = [array[0] for array in kept]
    assert values == [v for r in range(3) for v in [*range(100 * r + 1, 100 * r + 31), 0, 1]]
    assert all((array == array[0]).all() for array in kept)
    kept.clear()
    pool.map(abs, [1])
    assert any(in_arena(one) for one in pool.map(lambda i: np.full(20_000, i), range(10)))


def no_arena(*_: object) -> Memory:
    raise OSError("cannot allocate memory")


@only(*PROCESSES)
def test_all_is_the_same_when_no_memory_can_be_had(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "create", no_arena)
    pool = make_pool(n_workers=2)
    try_to_use(pool)
    got = pool.map(lambda a: a + 1, [np.full(50_000, i) for i in range(10)])
    assert [(array == i + 1).all() and not in_arena(array) for i, array in enumerate(got)] == [True] * 10
    monkeypatch.undo()
    use(pool)
    assert all(in_arena(one) for one in pool.map(np.copy, [np.ones(50_000)] * 4)), "once it can, it is used"


@only("forkserver")
def test_descriptors_are_left_to_the_user(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas_module, "_most_descriptors", lambda: 0)
    pool = make_pool(n_workers=2)
    try_to_use(pool)
    assert not any(in_arena(one) for one in pool.map(np.copy, [np.ones(50_000)] * 4))


def test_all_is_the_same_without_memfd() -> None:
    out = run_script(
        """
import os
del os.memfd_create
import numpy as np
import nbpar
with nbpar.WorkerPool(n_workers=2) as pool:
    for _ in range(3):
        big = np.arange(200_000)
        got = pool.map(lambda i, a: a + big[i], range(20), [np.full(50_000, i) for i in range(20)])
    assert all((one == 2 * i).all() for i, one in enumerate(got))
    print("/dev/shm/nbpar" in open("/proc/self/maps").read())
    print(os.listdir("/dev/shm"))
"""
    )
    assert out.splitlines()[0] == "True"
    assert "nbpar" not in out.splitlines()[1], "they have no name"


# --- memory goes back -------------------------------------------------------------------------------------------------


@on_linux
@only("forkserver")
def test_memory_goes_back_when_the_pool_rests(
    quick_rest: None, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arenas_module, "RESERVE_BYTES", 2 << 20)
    pool = make_pool(n_workers=2)
    use(pool)
    files = files_of(pool)
    results = pool.map(lambda a: a + 1, [np.full(100_000, i) for i in range(60)], chunk_size=1)
    n_bytes = sum(array.nbytes for array in results)
    assert all(in_arena(array) for array in results)
    until(lambda: n_bytes <= size_of(files) <= n_bytes + (8 << 20))  # what the user holds, and a reserve
    until(lambda: arenas_of(pool).due_s is None)
    del results[::2]
    pool.map(abs, [1])  # which lets the job before go
    gc.collect()
    until(lambda: size_of(files) <= n_bytes // 2 + (8 << 20))
    assert all((array == 2 * i + 2).all() for i, array in enumerate(results))
    results.clear()
    until(lambda: size_of(files) <= 8 << 20)
    use(pool)  # and it goes on
    for fd in files:
        os.close(fd)


@on_linux
@only("forkserver")
def test_memory_goes_back_when_results_outlive_their_pool(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=2)
    use(pool)
    results = pool.map(lambda i: np.full(100_000, i), range(60), chunk_size=1)
    files = files_of(pool)
    pool.shutdown()
    nbpar.WorkerPool(start_method="serial").map(abs, [1])  # the history holds the newest job
    gc.collect()
    assert all(in_arena(array) for array in results)
    assert size_of(files) <= sum(array.nbytes for array in results) + (6 << 20)
    del results[5:]
    gc.collect()
    assert size_of(files) <= 6 << 20
    assert all((array == i).all() for i, array in enumerate(results))
    results.clear()
    gc.collect()
    assert size_of(files) <= 1 << 20, "the states"
    for fd in files:
        os.close(fd)


@on_linux
@only("forkserver")
def test_a_worker_gives_back_what_its_tasks_freed(quick_rest: None, make_pool: MakePool) -> None:
    pool = make_pool(n_workers=1)

    def rss(_: int) -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work(_: int) -> Any:
        parts = [np.ones(200_000) for _ in range(30)]
        return parts[0]

    before = pool.map(rss, [0])[0]
    for _ in range(3):
        pool.map(work, range(4))
    until(lambda: arenas_of(pool).due_s is None)
    assert pool.map(rss, [0])[0] < before + (30 << 20)


# --- the arrays of functions ------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_each_job_has_the_arrays_of_its_function_as_they_are(pool: Pool) -> None:
    big = np.zeros(300_000)

    def change(i: int) -> float:
        big[i] += 1
        return float(big.sum())

    for round_ in range(3):
        big[:] = round_
        total = 300_000.0 * round_
        assert pool.map(change, [7], chunk_size=1) == [total + 1], "what the task before changed is gone with its job"
        assert pool.map(change, [8], chunk_size=1) == [total + 1]
    assert big.sum() == 600_000


@only(*PROCESSES)
def test_array_of_a_function_is_shared_by_workers_and_jobs(pool: Pool) -> None:
    big = np.arange(3_000_000)

    def where(i: int) -> str:
        assert big[i] == i
        with open("/proc/self/maps") as file:
            for line in file:
                addresses, _, _, _, inode, *_ = line.split()
                start, stop = (int(part, 16) for part in addresses.split("-"))
                if start <= big.ctypes.data < stop:
                    return inode
        return ""

    inodes = {inode for _ in range(3) for inode in pool.map(where, range(6), chunk_size=1)}
    assert len(inodes) == 1
    assert inodes != {"0"}


@only("forkserver")
def test_arrays_of_functions_are_sent_when_they_cannot_be_shared(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.arange(100_000)
    pool = make_pool(n_workers=2)
    monkeypatch.setattr("nbpar.backends.captured.can_pass_memory", lambda: False)
    for value in range(3):
        big[5] = value
        assert pool.map(lambda i: int(big[i]), [5, 6]) == [value, 6]


@only("forkserver")
def test_arrays_of_functions_go_back_when_the_pool_ends(make_pool: MakePool) -> None:
    def n_open() -> int:
        return sum("nbpar-function" in one for one in descriptors())

    gc.collect()
    before = n_open()
    pool = make_pool(n_workers=2)
    functions: list[Callable[[int], float]] = []
    for value in range(10):
        big = np.full(100_000, float(value))
        functions.append(lambda i, big=big: float(big[i]))  # type: ignore[misc]
        assert pool.map(functions[-1], range(4)) == [value] * 4
    assert n_open() <= before + 10, "of the last four functions, and a mapping each"
    pool.shutdown()
    nbpar.WorkerPool(start_method="serial").map(abs, [1])
    gc.collect()
    until(lambda: n_open() <= before)


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()
