"""Where the system gives little (descriptors, processes, shared memory, disk) a pool works, or says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.conftest import PROCESSES, WITH_WORKERS
from tests.helpers import ROOT, start_script

START = """
import faulthandler, os, resource, sys, threading, time
import nbpar
try:
    faulthandler.dump_traceback_later(25, exit=True)
except RuntimeError:  # not even for this thread
    pass
method = sys.argv[1]

def told(work):
    # The result, or the error in one line: of nbpar's own, and not whatever broke.
    try:
        return work()
    except nbpar.NbparError as error:
        assert "\\n" not in str(error)
        return f"{type(error).__name__}: {error}"
"""


def run(code: str, *args: str) -> tuple[str, str]:
    """What a script wrote to stdout and stderr; it ends by itself, in good order."""
    with start_script(START + code, *args) as script:
        out, err = script.communicate(timeout=30)
    assert script.returncode == 0, err
    return out, err


# --- descriptors ------------------------------------------------------------------------------------------------------

FEW_FILES = """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with nbpar.WorkerPool(n_workers=int(sys.argv[2]), start_method=method) as pool:
    for _ in range(30):
        found = told(lambda: pool.map(lambda x: x + 1, range(100)))
        if found != list(range(1, 101)):
            break
    print(found if isinstance(found, str) else "right")
with open("/dev/null"), nbpar.WorkerPool(n_workers=1, start_method=method) as pool:
    print(pool.map(abs, [-1]))
"""


@pytest.mark.parametrize("method", WITH_WORKERS)
def test_maps_work_when_only_64_files_may_be_open(method: str) -> None:
    assert run(FEW_FILES, method, "6") == ("right\n[1]\n", "")


@pytest.mark.parametrize("method", PROCESSES)
def test_it_works_with_fewer_workers_or_says_so_when_files_do_not_suffice_for_all(method: str) -> None:
    out, err = run(FEW_FILES, method, "40")
    first, last = out.splitlines()
    assert first == "right" or ("Too many open files" in first and "ulimit -n" in first)
    assert (last, err) == ("[1]", "")


@pytest.mark.parametrize("method", PROCESSES)
def test_it_says_so_when_no_file_is_left_at_all(method: str) -> None:
    code = """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
warm = nbpar.WorkerPool(n_workers=1, start_method=method)
assert warm.map(abs, [-1]) == [1]
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
def fresh():
    pool = nbpar.WorkerPool(n_workers=2, start_method=method)
    return pool.map(abs, [-1])
print(told(fresh))
print(told(lambda: warm.map(abs, [-2])))  # that one has all it needs
for fd in held: os.close(fd)
print(told(fresh))
"""
    out, err = run(code, method)
    first, second, third = out.splitlines()
    assert "WorkerStartError" in first and "Too many open files" in first and "ulimit -n" in first, first
    assert (second, third, err) == ("[2]", "[1]", "")


# --- processes --------------------------------------------------------------------------------------------------------

ANOTHER_USER = 60_000 + os.getpid() % 5_000  # who runs nothing else
LIMITED = """
import os, resource, sys
n_processes = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (n_processes, n_processes))
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


def run_as_another(folder: Path, n_processes: int, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    # The limit does not count for root, and another user can often not read this checkout, or the interpreter: so this
    # one keeps root's right to read, and no other.
    rights = "-all,+dac_override,+dac_read_search"
    user = str(ANOTHER_USER)
    drop = [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        user,
        "--clear-groups",
        "--inh-caps",
        rights,
        "--ambient-caps",
        rights,
    ]
    return subprocess.run(
        [*drop, sys.executable, "-c", LIMITED, str(n_processes), code, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder), "NBPAR_UI": "off"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


@pytest.fixture(scope="module")
def another_home() -> Iterator[Path]:
    """A folder for a user who may run this checkout, but only a few processes."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("the limit counts whatever else this user runs: only root, with setpriv, can be another one")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        seen = run_as_another(folder, 64, "import nbpar.pool, numpy, multiprocess")
        if seen.returncode:
            pytest.skip(f"root may not become another user here: {seen.stderr.strip().splitlines()[-1]}")
        yield folder


FEW_PROCESSES = """
pool = nbpar.WorkerPool(n_workers=3, start_method=method)
found = [told(lambda: pool.map(lambda x: x + 1, range(50))) for _ in range(2)]
print("right" if found == [list(range(1, 51))] * 2 else found[0])
pool.shutdown()
"""


@pytest.mark.parametrize("method", WITH_WORKERS)
def test_it_works_with_fewer_workers_or_says_so_when_processes_do_not_suffice(another_home: Path, method: str) -> None:
    """Threads count as well: at 1 not even the dispatcher's can be started."""
    ends = {}
    for n_processes in (1, 2, 3, 4, 5, 7, 12):
        done = run_as_another(another_home, n_processes, START + FEW_PROCESSES, method)
        assert done.returncode == 0, (n_processes, done.stderr)
        ends[n_processes] = done.stdout.strip()
    assert ends[12] == "right"
    for n_processes, end in ends.items():
        said = "WorkerStartError" in end and ("ulimit -u" in end or "new thread" in end)
        assert end == "right" or said, (n_processes, end)
    assert "WorkerStartError" in ends[1]


# --- /dev/shm and the disk --------------------------------------------------------------------------------------------


def in_small_places(folder: Path, n_shared_kb: int, n_disk_kb: int) -> list[str]:
    """A command before another that has its own small /dev/shm, and its own small disk at `folder`."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("util-linux, whose unshare makes a small /dev/shm, is not here")
    mounts = f"mount -t tmpfs -o size={n_shared_kb}k shm /dev/shm && mount -t tmpfs -o size={n_disk_kb}k disk {folder}"
    command = [unshare, "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this user may not mount a small /dev/shm: {tried.stderr.strip()}")
    return command


LARGE = """
import numpy as np
def fill(folder):
    try:
        with open(os.path.join(folder, "filler"), "wb") as file:
            while True: file.write(bytes(4096))
    except OSError:
        pass
for folder in sys.argv[2:]:
    fill(folder)
with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
    table = nbpar.share(np.full(12 << 20, 2.0))  # 96 MB
    arrays = [np.full(3 << 20, float(i)) for i in range(4)]  # 24 MB each
    found = pool.map(lambda one: one + table.value[: len(one)], arrays, chunk_size=1)
    print([float(one.sum()) / len(one) for one in found])
    print(pool.map(lambda x: print("told", x), [7]))
"""


@pytest.mark.parametrize("method", WITH_WORKERS)
def test_large_arrays_travel_when_shared_memory_is_small(tmp_path: Path, method: str) -> None:
    command = in_small_places(tmp_path, 64 << 10, 64)
    first, told, last = run_under(command, tmp_path, LARGE, method).splitlines()
    assert (first, last) == ("[2.0, 3.0, 4.0, 5.0]", "[None]")
    assert told.endswith("item 0] told 7")


@pytest.mark.parametrize("method", WITH_WORKERS)
def test_large_arrays_travel_when_shared_memory_and_the_disk_are_full(tmp_path: Path, method: str) -> None:
    command = in_small_places(tmp_path, 64, 64)
    first, told, last = run_under(command, tmp_path, LARGE, method, "/dev/shm", str(tmp_path)).splitlines()
    assert (first, last) == ("[2.0, 3.0, 4.0, 5.0]", "[None]")
    assert told.endswith("item 0] told 7")


def run_under(command: list[str], temporary: Path, code: str, *args: str) -> str:
    done = subprocess.run(
        [*command, sys.executable, "-c", START + code, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "NBPAR_UI": "off"},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("method", PROCESSES)
def test_it_says_so_when_no_file_may_grow(method: str) -> None:
    """`ulimit -f 0` counts for shared memory, too: a pool of processes cannot be made."""
    code = """
import nbpar.backends.processes  # dill, which that loads, wants to write a temporary file
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(told(lambda: nbpar.WorkerPool(n_workers=1, start_method=method).map(abs, [-1])))
"""
    out, _ = run(code, method)  # the fork server cannot load dill either, and says so
    assert out == "WorkerStartError: the pool cannot be made: File too large: no file may grow (ulimit -f)\n"


@pytest.mark.parametrize("method", WITH_WORKERS)
def test_a_map_goes_on_when_what_tasks_print_can_be_written_nowhere(method: str) -> None:
    """The kernel's stdout is on a full disk."""
    code = """
sys.stdout = open("/dev/full", "w", buffering=1)
with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
    found = pool.map(lambda x: (print("line", x), x)[1], range(20))
    again = pool.map(abs, range(20))
sys.stdout = sys.__stdout__
print(found == again == list(range(20)))
"""
    with start_script(START + code, method) as script:
        out, _ = script.communicate(timeout=30)
    assert (out, script.returncode) == ("True\n", 0)
