"""Memory: a worker that takes too much costs one task, never the kernel; large things travel; nothing grows."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import nbpar
from nbpar.backends import memory
from nbpar.backends.base import FULL_BYTES
from nbpar.backends.memory import rooms
from nbpar.engine.memory import Room
from nbpar.errors import SerializationError, TaskError, TaskMemoryError, WorkerDiedError
from nbpar.system import KillCounter, group_of, private_bytes
from tests.backends.conftest import PROCESSES
from tests.helpers import no_leftovers, start_script, until

MB, GB = 10**6, 10**9

Pool = nbpar.WorkerPool


@pytest.fixture(params=PROCESSES)
def limited(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool of two processes that may hold 200 MB each."""
    with Pool(n_workers=2, start_method=request.param, memory_limit="200MB") as pool:
        pool.map(abs, [-1])
        yield pool


def fill(n_bytes: int) -> bytearray:
    """Memory of one's own, every page of it."""
    return bytearray(b"\1") * n_bytes


def leave(n_bytes: int) -> int:
    """A task that leaves so much behind; the process."""
    vars(nbpar).setdefault("left_behind", []).append(fill(n_bytes))
    return os.getpid()


def hold(n_bytes: int) -> int:
    """A task that holds so much until it is stopped, or for a second."""
    held = fill(n_bytes)
    if n_bytes > 100 * MB:
        time.sleep(30)
    return len(held)


# --- memory_limit -----------------------------------------------------------------------------------------------------


def test_worker_is_replaced_after_the_task_that_left_too_much(limited: Pool) -> None:
    before = limited.pids()
    pids = limited.map(leave, [10 * MB, 220 * MB, 10 * MB, 10 * MB], chunk_size=1)
    assert len(pids) == 4  # its result is kept
    heavy = next(worker_id for worker_id, pid in before.items() if pid == pids[1])
    (note,) = nbpar.jobs()[-1].snapshot().notes
    assert note.startswith(f"Worker {heavy} was replaced after its task: it held 2")
    assert note.endswith(" MB, memory_limit is 200 MB.")
    until(lambda: limited.pids().get(heavy) not in (None, before[heavy]))
    assert limited.pids()[1 - heavy] == before[1 - heavy]


@pytest.mark.skipif(sys.platform != "linux", reason="forks with a heap of glibc's")
def test_what_the_kernel_had_freed_is_no_allowance_of_a_forked_worker() -> None:
    pieces = [fill(50_000) for _ in range(3000)]  # too small for mappings of their own, which go when they are freed
    del pieces[1::2]
    with Pool(n_workers=1, start_method="fork", memory_limit="200MB") as pool:
        pool.map(leave, [220 * MB])
        (note,) = nbpar.jobs()[-1].snapshot().notes
    assert "was replaced after its task" in note
    assert len(pieces) == 1500


def test_worker_that_frees_what_it_used_stays(limited: Pool) -> None:
    before = limited.pids()

    def task(n_bytes: int) -> Any:
        ring: list[Any] = [fill(n_bytes)]
        ring.append(ring)  # only the garbage collector frees it
        return os.getpid(), np.zeros(n_bytes // 8), fill(MB)

    found = limited.map(task, [205 * MB] * 4, chunk_size=1)
    assert {pid for pid, *_ in found} <= set(before.values())
    assert nbpar.jobs()[-1].snapshot().notes == ()
    assert limited.pids() == before


def test_it_is_told_once_for_each_worker_when_every_task_leaves_too_much(limited: Pool) -> None:
    pids = limited.map(leave, [210 * MB] * 6, chunk_size=1)
    assert len(set(pids)) == 6
    assert len(nbpar.jobs()[-1].snapshot().notes) <= 2


def test_worker_is_stopped_when_its_task_takes_it_far_beyond_the_limit(limited: Pool) -> None:
    got: Any = limited.map(hold, [1000, 400 * MB, 2000, 3000], on_error="return", chunk_size=1)
    assert got[0] == 1000 and got[2:] == [2000, 3000]
    error: TaskMemoryError = got[1]
    assert type(error) is TaskMemoryError and isinstance(error, WorkerDiedError)
    assert (error.index, error.item_repr, error.exit_code) == (1, "400000000", -signal.SIGKILL)
    assert error.used_bytes > 240 * MB
    assert str(error).startswith("item 1 = 400000000: was stopped by nbpar at ")
    assert str(error).endswith(" MB: memory_limit is 200 MB")
    (note,) = nbpar.jobs()[-1].snapshot().notes
    assert "was stopped by nbpar at" in note and str(error.pid) in note


def test_it_is_raised_when_errors_are(limited: Pool) -> None:
    with pytest.raises(TaskMemoryError, match=r"item 0 = 400000000: was stopped by nbpar at \d+ MB"):
        limited.map(hold, [400 * MB])


def test_task_is_tried_again_when_its_worker_was_stopped(limited: Pool) -> None:
    def task(x: int) -> tuple[int, int]:
        attempt = nbpar.current_task().attempt
        return x, len(fill(400 * MB)) if x == 1 and attempt == 1 and hold(400 * MB) else attempt

    assert limited.map(task, range(3), retries=1, chunk_size=1) == [(0, 1), (1, 2), (2, 1)]


def test_job_by_submit_says_it_too(limited: Pool) -> None:
    with pytest.raises(TaskMemoryError, match="memory_limit is 200 MB"):
        limited.submit(hold, 400 * MB).result(timeout=30)


@pytest.mark.parametrize("method", PROCESSES)
def test_arguments_in_shared_memory_are_not_a_workers_own(method: Any) -> None:
    with Pool(n_workers=1, start_method=method, memory_limit="200MB") as pool:
        pool.map(np.sum, [np.ones(1_000_000)])  # from now on they lie there
        before = pool.pids()
        big = np.ones(400 * MB // 8)
        shared = nbpar.share(big)

        def task(array: Any) -> tuple[float, float]:
            time.sleep(0.5)  # some looks
            return float(array.sum()), float(shared.value.sum())

        assert pool.map(task, [big]) == [(big.size, big.size)]
        assert pool.pids() == before


def test_pool_of_the_notebook_takes_a_limit() -> None:
    nbpar.configure(n_workers=1, memory_limit="200 MB")
    try:
        with pytest.raises(TaskMemoryError):
            nbpar.map(hold, [400 * MB])
        assert nbpar.map(abs, [-1]) == [1]
    finally:
        nbpar.configure()


def test_nothing_is_left_when_a_worker_was_stopped() -> None:
    with Pool(n_workers=1) as pool:  # the fork server stays
        pool.map(abs, [1])
    with no_leftovers(), Pool(n_workers=2, memory_limit="100MB") as pool:
        pool.map(hold, [400 * MB, 1000], on_error="skip", chunk_size=1)


# --- a machine that is nearly full ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, "1GB"])
def test_largest_worker_is_stopped_when_the_machine_is_nearly_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None
) -> None:
    full = tmp_path / "full"
    machine = Room("the machine", 4 * GB, 100 * MB)  # what a worker holds that has nothing is not worth it
    monkeypatch.setattr(memory, "rooms", lambda: [machine] if full.exists() else [])

    def task(n_bytes: int) -> int:
        held = fill(n_bytes)
        if n_bytes > 100 * MB:
            full.touch()
            time.sleep(30)
        until(full.exists)
        return len(held)

    with Pool(n_workers=2, memory_limit=limit) as pool:
        got: Any = pool.map(task, [300 * MB, 1000], on_error="return", chunk_size=1)
        assert got[1] == 1000
        error = got[0]
        assert type(error) is TaskMemoryError
        assert str(error).startswith("item 0 = 300000000: was stopped by nbpar at 3")
        assert str(error).endswith("the machine had 100 MB of 4 GB left, and this was the largest worker")
        full.unlink()
        assert pool.map(abs, [-1, -2]) == [1, 2]


def test_small_workers_are_left_alone_when_others_fill_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "rooms", lambda: [Room("the machine", 200 * GB, 1 * GB)])
    with Pool(n_workers=2) as pool:
        assert pool.map(hold, [1000, 90 * MB], chunk_size=1) == [1000, 90 * MB]
        before = pool.pids()
        pool.map(time.sleep, [0.5, 0.5], chunk_size=1)
        assert pool.pids() == before


def test_worker_that_has_nothing_to_do_is_replaced_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    is_full: list[Room] = []
    monkeypatch.setattr(memory, "rooms", lambda: is_full)
    replaced = tmp_path / "replaced"
    with Pool(n_workers=2) as pool:
        pool.map(abs, range(2), chunk_size=1)
        until(lambda: len(pool.pids()) == 2)
        before = pool.pids()
        pid = pool.submit(leave, 150 * MB).result(timeout=30)
        heavy = next(worker_id for worker_id, one in before.items() if one == pid)

        def task(n_bytes: int) -> int:
            held = fill(n_bytes)
            if os.getpid() != pid:
                until(replaced.exists)
            return len(held)

        job = pool.map_async(task, [1000, 1000], chunk_size=1, progress=False)
        until(lambda: job.n_done == 1)  # the heavy one has nothing to do any more, the other holds little
        is_full.append(Room("the machine", 4 * GB, 100 * MB))
        until(lambda: pool.pids().get(heavy) not in (None, pid))
        is_full.clear()
        replaced.touch()
        assert job.result(timeout=30) == [1000, 1000]
        assert pool.pids()[1 - heavy] == before[1 - heavy]


# --- out of memory, told apart ----------------------------------------------------------------------------------------


class MemoryGroup:
    """A control group with a memory limit of its own, as a container has it."""

    def __init__(self, limit_bytes: int) -> None:
        own = group_of("self")
        if own is None:
            # In version 2 the outermost group has no such files, yet groups can be made in it.
            top, version = Path("/sys/fs/cgroup"), 2
        else:
            top, version = own.top, own.version
        self.folder = top / f"nbpar-test-{secrets.token_hex(4)}"
        self.folder.mkdir()
        try:
            names = ["memory.max", "memory.swap.max"] if version == 2 else ["memory.limit_in_bytes"]
            for name in names:
                if (self.folder / name).exists() or name == names[0]:
                    (self.folder / name).write_text("0" if "swap" in name else str(limit_bytes))
        except OSError:
            self.folder.rmdir()
            raise

    def remove(self) -> None:
        def gone() -> bool:
            with contextlib.suppress(OSError):  # a process that was killed is still in it
                self.folder.rmdir()
            return not self.folder.exists()

        until(gone)


@pytest.fixture
def make_group() -> Iterator[Callable[[int], MemoryGroup]]:
    made: list[MemoryGroup] = []

    def make(limit_bytes: int) -> MemoryGroup:
        try:
            made.append(MemoryGroup(limit_bytes))
        except OSError as error:
            pytest.skip(f"only who may make memory groups can have one that is full: {error}")
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.mark.parametrize("method", PROCESSES)
def test_death_is_out_of_memory_when_the_system_says_so(make_group: Callable[[int], MemoryGroup], method: Any) -> None:
    group = make_group(150 * MB)

    def move() -> None:
        (group.folder / "cgroup.procs").write_text(str(os.getpid()))

    with Pool(n_workers=2, start_method=method, worker_init=move) as pool:
        for _ in range(2):  # the second is not taken for the first
            got: Any = pool.map(fill, [400 * MB], on_error="return")
            assert type(got[0]) is WorkerDiedError
            assert "was killed by the system: out of memory (SIGKILL)" in str(got[0])
        got = pool.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
        assert "was killed from outside (SIGKILL)" in str(got[0])
        assert any("out of memory" in note for note in nbpar.jobs()[-2].snapshot().notes)


def test_death_is_from_outside_when_nothing_was_counted() -> None:
    if KillCounter(group_of("self")).read() is None:
        pytest.skip("this system does not count what it kills")
    with Pool(n_workers=1) as pool:
        got: Any = pool.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
        assert "was killed from outside (SIGKILL)" in str(got[0])


def test_death_is_told_with_both_causes_when_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KillCounter, "read", lambda self: None)
    with Pool(n_workers=1) as pool:
        got: Any = pool.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
        assert "was killed by SIGKILL (out of memory, or killed by hand)" in str(got[0])


SMALL_CONTAINER = """
import faulthandler, os, sys, time
faulthandler.dump_traceback_later(50, exit=True)
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
import nbpar

kept = bytearray(b"x") * 300_000_000  # what the notebook has computed: more than one worker holds, at first

def task(n_mb):
    held = []
    for _ in range(n_mb):  # about 0.3 GB a second
        held.append(bytearray(b"x") * 1_000_000)
        time.sleep(0.003)
    return n_mb

with nbpar.WorkerPool(n_workers=2) as pool:
    found = pool.map(task, [10, 2000, 10], on_error="return", chunk_size=1)
    assert found[::2] == [10, 10], found
    assert type(found[1]).__name__ == "TaskMemoryError", found
    assert "the container had" in str(found[1]), found
    assert pool.map(abs, [-1]) == [1]
print(len(kept))
"""


def test_kernel_outlives_a_container_that_its_workers_fill(make_group: Callable[[int], MemoryGroup]) -> None:
    group = make_group(1 * GB)
    with start_script(SMALL_CONTAINER, str(group.folder)) as script:
        out, err = script.communicate(timeout=55)
    assert (script.returncode, out) == (0, "300000000\n"), err


def test_memory_error_is_the_tasks_own_and_its_worker_goes_on() -> None:
    def limit_address_space() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 * GB, 1 * GB))

    with Pool(n_workers=1, worker_init=limit_address_space) as pool:
        (pid,) = pool.map(lambda _: os.getpid(), [0])
        got: Any = pool.map(lambda n: len(bytes(n)), [1000, 4 * GB, 2000], on_error="return", chunk_size=1)
        assert got[0] == 1000 and got[2] == 2000
        assert type(got[1]) is TaskError and type(got[1].__cause__) is MemoryError
        got = pool.map(np.ones, [4 * GB], on_error="return")
        assert isinstance(got[0].__cause__, MemoryError)
        assert pool.map(lambda _: os.getpid(), [0]) == [pid]
        with pytest.raises(MemoryError):
            pool.map(lambda n: len(bytes(n)), [4 * GB])


def test_argument_that_a_worker_has_no_memory_for_fails_alone() -> None:
    def limit_address_space() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 * GB, 1 * GB))

    with Pool(n_workers=1, worker_init=limit_address_space) as pool:
        (pid,) = pool.map(lambda _: os.getpid(), [0])
        for large in (np.zeros(2 * GB // 8), bytes(1500 * MB)):
            got: Any = pool.map(len, [[1], large, [1, 2]], on_error="return", chunk_size=1)
            assert got[0] == 1 and got[2] == 2
            assert type(got[1]) is SerializationError
            assert "the argument could not be received: there was no memory for its" in str(got[1])
        assert pool.map(lambda _: os.getpid(), [0]) == [pid]


SMALL_KERNEL = """
import faulthandler, resource
faulthandler.dump_traceback_later(50, exit=True)
import numpy as np, nbpar

with nbpar.WorkerPool(n_workers=2) as pool:
    pool.map(abs, [1, 2])
    mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 600_000_000,) * 2)
    for make in (lambda n: np.zeros(n, dtype=np.uint8), bytes):
        found = pool.map(lambda n: make(n), [1000, 1_000_000_000, 2000], on_error="return", chunk_size=1)
        assert [len(found[0]), len(found[2])] == [1000, 2000], found
        assert "the result could not be received: there was no memory for its 1 GB" in str(found[1]), found
    print(pool.map(abs, [-1]))
"""


def test_result_that_the_kernel_has_no_memory_for_fails_alone() -> None:
    with start_script(SMALL_KERNEL) as script:
        out, err = script.communicate(timeout=55)
    assert (script.returncode, out) == (0, "[1]\n"), err


# --- back-pressure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["array", "bytes"])
def test_large_results_do_not_pile_up_when_the_loop_is_slow(tmp_path: Path, kind: str, *, ordered: bool) -> None:
    each = 50 * MB

    def task(i: int) -> Any:
        value = np.full(each // 8, i) if kind == "array" else b"x" * each
        (tmp_path / f"{i}").touch()
        return value

    n_most = (
        FULL_BYTES // each + 1 + 2 * 2
    )  # what may wait, and what two workers have in hand: of short tasks, the next
    with Pool(n_workers=2) as pool:
        n_taken = 0
        for value in pool.imap(task, range(64), ordered=ordered, max_in_flight=64):
            n_taken += 1
            assert value.nbytes == each if kind == "array" else len(value) == each
            del value
            if n_taken in (1, 20):
                done = -1
                while done != (done := len(list(tmp_path.iterdir()))):  # until the workers have stopped
                    time.sleep(0.5)
            assert len(list(tmp_path.iterdir())) - n_taken <= n_most
        assert n_taken == 64


def test_slow_first_result_does_not_stop_the_job_when_it_is_full() -> None:
    """Results behind it wait for it, more of them than may: it has to come all the same, in its second try."""

    def task(i: int) -> Any:
        if i == 0:
            time.sleep(1.0)
            if nbpar.current_task().attempt == 1:
                os._exit(1)
        return np.full(100 * MB // 8, i)

    with Pool(n_workers=2) as pool:
        found = [int(value[0]) for value in pool.imap(task, range(12), retries=1, max_in_flight=12)]
    assert found == list(range(12))


# --- large things -----------------------------------------------------------------------------------------------------

LARGE = 2_500_000_000  # more than an int of C, and than one call of the system moves
NEEDED = 12 * GB


@pytest.fixture
def roomy() -> Iterator[Pool]:
    left = min(room.available_bytes for room in rooms())
    if left < NEEDED:
        pytest.skip(f"needs 12 GB of memory; {left / GB:.1f} GB are available")
    with Pool(n_workers=1) as pool:
        pool.map(abs, [1])
        yield pool


def marked(n_bytes: int) -> Any:
    """Pages of zeros cost nothing; three are written."""
    array = np.zeros(n_bytes, dtype=np.uint8)
    array[[0, 1 << 31, -1]] = 1, 2, 3
    return array


def marks(array: Any) -> list[int]:
    return [len(array), *(int(array[i]) for i in (0, 1 << 31, -1))]


@pytest.mark.timeout(120)  # 3 to 10 s, and more where memory or CPUs are in demand
def test_array_of_2_5_gb_travels_as_argument_and_as_result(roomy: Pool) -> None:
    assert roomy.map(marks, [marked(LARGE)]) == [[LARGE, 1, 2, 3]]  # through the socket, before there is an arena
    assert roomy.map(marks, [marked(LARGE)]) == [[LARGE, 1, 2, 3]]
    (array,) = roomy.map(marked, [LARGE])
    assert marks(array) == [LARGE, 1, 2, 3]


@pytest.mark.timeout(120)  # 3 to 10 s, and more where memory or CPUs are in demand
def test_bytes_of_2_5_gb_travel_as_argument(roomy: Pool) -> None:
    assert roomy.map(marks, [bytes(LARGE)]) == [[LARGE, 0, 0, 0]]


@pytest.mark.timeout(120)  # 3 to 10 s, and more where memory or CPUs are in demand
def test_bytes_of_2_5_gb_travel_as_result(roomy: Pool) -> None:
    (value,) = roomy.map(bytes, [LARGE])
    assert marks(value) == [LARGE, 0, 0, 0]


# --- flat memory ------------------------------------------------------------------------------------------------------


def own_memory(pool: Pool) -> list[int]:
    """Private memory of the kernel and of each worker, without what the allocator keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pids = [os.getpid(), *(pid for _, pid in sorted(pool.pids().items()))]
    return [private_bytes(pid) or 0 for pid in pids]


@pytest.mark.slow
@pytest.mark.timeout(300)  # 11 s of two CPUs: ten times that where they have much else to do
def test_memory_is_flat_over_ten_million_tasks() -> None:
    """A byte or two lost in each task would show: compared is the least of the first and of the last two million."""
    n_tasks, n_looks = 10_000_000, 50
    found: list[list[int]] = []
    total = 0
    with Pool(n_workers=2) as pool:
        results = pool.imap(abs, range(n_tasks))
        for _ in range(n_looks):
            total += sum(itertools.islice(results, n_tasks // n_looks))
            found.append(own_memory(pool))
        assert next(results, None) is None
    assert total == n_tasks * (n_tasks - 1) // 2
    for process in range(3):
        first, last = (min(look[process] for look in part) for part in (found[3:13], found[-10:]))
        assert last - first < 10 * MB, [look[process] for look in found]


def test_memory_is_flat_over_a_thousand_jobs() -> None:
    class Point:
        def __init__(self, x: float) -> None:
            self.x = x

    def fail(x: int) -> int:
        if x % 5 == 0:
            raise ValueError("x" * 1000)
        return x

    held = np.zeros(300_000)

    def jobs(pool: Pool, i: int) -> None:
        pool.map(lambda x: x + i, range(20))
        pool.map(fail, range(10), on_error="skip")
        for value in pool.imap(lambda x: [x] * 100, range(1000)):
            if value[0] > 50:
                break
        pool.submit(pow, 2, i % 7).result()
        pool.map(np.sum, [np.full(300_000, i)] * 2)
        pool.map(lambda x: np.full(300_000, x), range(2))
        pool.map(lambda p: Point(p.x + held[0]), [Point(i)])
        shared = nbpar.share(np.full(300_000, i))
        pool.map(lambda j: shared.value[j], range(2))

    found: list[list[int]] = []
    with Pool(n_workers=2) as pool:
        for i in range(200):  # of seven or eight jobs each
            jobs(pool, i)
            if i % 10 == 9:
                found.append(own_memory(pool))
    for process in range(3):
        first, last = (min(look[process] for look in part) for part in (found[5:10], found[-5:]))
        assert last - first < 10 * MB, [look[process] for look in found]  # 10 kB a job
    children = psutil.Process().children(recursive=True)
    assert len(children) < 50
