"""Nothing stays behind: no process, thread, descriptor, memory or file, however the kernel, a worker or a pool ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.backends.conftest import PROCESSES
from tests.helpers import ROOT, alive, until

GONE_S = 2.0  # as promised
SLACK_S = 3.0  # for a loaded machine

# The kernel of a session of its own, with temporary files in a folder of its own. It says "ready" once its workers are
# in the state that the test is about; after that the test kills it, or it ends by itself.
START = """
import contextlib, faulthandler, os, pathlib, signal, sys, threading, time
import nbpar

faulthandler.dump_traceback_later(50, exit=True)
folder, method = pathlib.Path(sys.argv[1]), sys.argv[2]

def touch(name):
    (folder / f"{name}-{os.getpid()}").touch()

def stuck(x):
    touch("stuck")
    sum(range(10**13))  # holds the GIL, in C

def n_running(name):
    return len(list(folder.glob(f"{name}-*")))

def wait_for(n_tasks, name="stuck"):
    while n_running(name) < n_tasks:
        time.sleep(0.005)

def ready():
    print("ready", flush=True)

pool = nbpar.WorkerPool(n_workers=2, start_method=method)
"""

STATES = {
    "stuck in C": "job = pool.map_async(stuck, range(100), chunk_size=1)\nwait_for(2)\nready()\njob.wait()",
    "idle": "pool.map(abs, range(100))\nready()\ntime.sleep(60)",
    "starting": "job = pool.map_async(abs, range(10))\nready()\njob.wait()\ntime.sleep(60)",
    "with memory": """
import numpy as np
table = nbpar.share(np.ones(4 << 20))
def copy(i):
    return table.value[i] + np.full(2 << 20, i)
held = pool.map(copy, range(8))
job = pool.map_async(lambda one: (touch("memory"), time.sleep(60)), held, chunk_size=1)
wait_for(2, "memory")
ready()
job.wait()
""",
    "with pools of their own": """
def nest(x):
    with nbpar.WorkerPool(n_workers=1, start_method="forkserver") as inner:
        inner.map(stuck, [x])
job = pool.map_async(nest, range(2), chunk_size=1)
wait_for(2)
ready()
job.wait()
""",
}


class Session:
    """A script whose processes, temporary files and shared memory are known as its own."""

    def __init__(self, folder: Path, code: str, method: str) -> None:
        self.temporary, self.marks = folder / "tmp", folder / "marks"
        self.temporary.mkdir()
        self.marks.mkdir()
        self._shared = shared_memory()
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "NBPAR_UI": "off", "TMPDIR": str(self.temporary)}
        self.script = subprocess.Popen(
            [sys.executable, "-c", START + code, str(self.marks), method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        assert self.script.stdout is not None
        assert self.script.stdout.readline() == "ready\n", self.script.communicate()

    def members(self) -> list[int]:
        """Its processes that run."""
        found = []
        for pid in psutil.pids():
            try:
                if os.getsid(pid) == self.script.pid and alive(pid):
                    found.append(pid)
            except ProcessLookupError:
                pass
        return found

    def expect_nothing_left(self) -> None:
        end_s = time.monotonic() + GONE_S + SLACK_S
        while left := self.members():
            assert time.monotonic() < end_s, [psutil.Process(pid).cmdline() for pid in left]
            time.sleep(0.01)
        assert list(self.temporary.rglob("*")) == []
        until(lambda: shared_memory() <= self._shared, within_s=5.0)

    def close(self) -> None:
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.script.communicate()


def shared_memory() -> set[str]:
    """Names in /dev/shm of the kinds that Python makes; named semaphores are among them."""
    folder = Path("/dev/shm")
    names = (one.name for one in folder.iterdir()) if folder.is_dir() else ()
    return {name for name in names if name.startswith(("pym-", "psm_", "sem.", "nbpar", "pymp-"))}


# --- the kernel is killed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "state"),
    [
        *((method, "stuck in C") for method in PROCESSES),
        *(("forkserver", state) for state in STATES if "C" not in state),
    ],
)
def test_nothing_is_left_when_the_kernel_is_killed(tmp_path: Path, method: str, state: str) -> None:
    session = Session(tmp_path, STATES[state], method)
    try:
        session.wait_until_ready()
        session.script.kill()
        session.script.wait()
        session.expect_nothing_left()
    finally:
        session.close()


@pytest.mark.parametrize("method", PROCESSES)
def test_nothing_is_left_when_the_kernel_is_killed_at_any_moment_of_a_start(tmp_path: Path, method: str) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        session = Session(folder, STATES["starting"], method)
        try:
            session.wait_until_ready()
            time.sleep(0.05 * number)  # no state is waited for: the moment is to be any
            session.script.kill()
            session.script.wait()
            session.expect_nothing_left()
        finally:
            session.close()


def test_nothing_is_left_when_the_whole_group_is_killed(tmp_path: Path) -> None:
    """As Jupyter does when it restarts a kernel that does not answer: nobody can clean up."""
    session = Session(tmp_path, STATES["with memory"], "forkserver")
    try:
        session.wait_until_ready()
        os.killpg(session.script.pid, signal.SIGKILL)
        session.script.wait()
        session.expect_nothing_left()
    finally:
        session.close()


# --- the interpreter ends ---------------------------------------------------------------------------------------------

PENDING = """
import nbpar
nbpar.configure(n_workers=2, start_method=method)
jobs = [pool.map_async(stuck, range(100_000), chunk_size=1), nbpar.map_async(stuck, range(100_000), chunk_size=1)]
wait_for(4)
futures = [pool.submit(abs, -1) for _ in range(100)]
stream = pool.imap(abs, iter(range(100_000)))
def use():
    with contextlib.suppress(nbpar.PoolClosedError, nbpar.JobCancelledError):
        pool.map(abs, range(10))
thread = threading.Thread(target=use, daemon=True)
thread.start()
ready()
"""

ENDS = {
    "its end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "an error": ("raise ValueError('the end')", 1),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
}


@pytest.mark.parametrize(
    ("method", "how"),
    [*((method, "its end") for method in PROCESSES), *(("forkserver", how) for how in ENDS if how != "its end")],
)
def test_exit_waits_for_no_task_and_leaves_nothing(tmp_path: Path, method: str, how: str) -> None:
    code, expected = ENDS[how]
    session = Session(tmp_path, PENDING + code, method)
    try:
        session.wait_until_ready()
        begin_s = time.monotonic()
        _, err = session.script.communicate(timeout=30)
        # Two seconds is what workers that are asked to end get before they are killed.
        assert time.monotonic() - begin_s < 2.0 + SLACK_S
        assert session.script.returncode == expected, err
        told = "".join(err.splitlines()[-1:]) if how == "an error" else err
        assert told == ("ValueError: the end" if how == "an error" else "")
        session.expect_nothing_left()
    finally:
        session.close()


# --- pools and workers end, and the kernel goes on --------------------------------------------------------------------

CENSUS = """
import gc, warnings
from tests.helpers import descriptors, processes, until

def n_memory_files():
    with open("/proc/self/maps") as maps:
        return sum("memfd:" in line or "/dev/shm" in line for line in maps)

def census():
    gc.collect()
    threads = {one.name for one in threading.enumerate()}
    temporary = sorted(os.listdir(os.environ["TMPDIR"]))
    return processes(), threads, len(os.listdir("/proc/self/task")), descriptors(), n_memory_files(), temporary

def as_before(before):
    now = census()
    return all(n <= b for n, b in zip(now, before, strict=True))

def expect_as_before(before):
    try:
        until(lambda: as_before(before), within_s=10.0)
    except AssertionError:
        raise AssertionError(f"before {before}, now {census()}") from None

import numpy as np  # its BLAS has threads: they are there before the census
pool.map(abs, range(100))
while len(pool.pids()) < 2: time.sleep(0.005)
# What stays: the fork server, the ticker, modules that are loaded late.
counts = {}  # each worker has its arena by its third large result
while len(counts) < 2 or min(counts.values()) < 3:
    for pid, *_ in pool.map(lambda x: (os.getpid(), np.full(1 << 18, x), time.sleep(0.01)), range(4), chunk_size=1):
        counts[pid] = counts.get(pid, 0) + 1
with nbpar.WorkerPool(n_workers=1, start_method=method) as first: first.map(abs, [-1])
before = census()
"""


def run_in_session(folder: Path, code: str, method: str) -> None:
    session = Session(folder, CENSUS + code + "\nprint('as before', flush=True)", method)
    try:
        out, err = session.script.communicate(timeout=55)
        assert (out, err) == ("as before\n", "")
        session.expect_nothing_left()
    finally:
        session.close()


@pytest.mark.parametrize("method", PROCESSES)
def test_200_maps_leave_nothing(tmp_path: Path, method: str) -> None:
    code = """
for n in range(200):
    got = pool.map(lambda x: np.full(1 << 17, x + n), range(4), chunk_size=1) if n % 4 == 0 else pool.map(abs, range(9))
del got
expect_as_before(before)
"""
    run_in_session(tmp_path, code, method)


@pytest.mark.parametrize(("method", "n_pools"), [("forkserver", 100), ("fork", 30), ("spawn", 4)])
def test_100_pools_leave_nothing(tmp_path: Path, method: str, n_pools: int) -> None:
    code = f"""
for n in range({n_pools}):
    one = nbpar.WorkerPool(n_workers=1, start_method=method)
    assert one.map(lambda x: x + n, [1]) == [n + 1]
    if n % 2:
        one.shutdown()
del one  # every second one was only dropped
expect_as_before(before)
assert pool.map(abs, [-1]) == [1]
"""
    run_in_session(tmp_path, code, method)


@pytest.mark.parametrize("method", PROCESSES)
def test_killed_workers_and_dropped_pools_leave_nothing(tmp_path: Path, method: str) -> None:
    code = """
for _ in range(3):  # in a task, and idle
    (error,) = pool.map(lambda x: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
    assert isinstance(error, nbpar.WorkerDiedError), error
    for pid in pool.pids().values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: pool.map(abs, [-1]) == [1] and len(pool.pids()) == 2)

def drop():
    dropped = nbpar.WorkerPool(n_workers=2, start_method=method)
    job = dropped.map_async(stuck, range(100), chunk_size=1)
    wait_for(2)
    job.cancel()

drop()
# The workers have others' pids now, and their sockets others' numbers: what counts is how many there are.
until(lambda: all((len(n) if hasattr(n, "__len__") else n) <= (len(b) if hasattr(b, "__len__") else b)
                  for n, b in zip(census(), before, strict=True)), within_s=10.0)
"""
    run_in_session(tmp_path, code, method)


@pytest.mark.parametrize("method", PROCESSES)
def test_pools_that_cannot_be_made_leave_nothing(tmp_path: Path, method: str) -> None:
    code = """
def fail():
    raise ValueError("no licence")
for options in ({"worker_init": fail}, {"worker_init": lambda: os._exit(3)}):
    broken = nbpar.WorkerPool(n_workers=2, start_method=method, **options)
    try:
        broken.map(abs, [1])
    except nbpar.WorkerStartError:
        pass
    else:
        raise AssertionError("it started")
    broken.shutdown()
del broken
expect_as_before(before)
"""
    run_in_session(tmp_path, code, method)
