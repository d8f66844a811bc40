"""The kernel ends, in any way: no worker outlives it; and scripts, forks and Ctrl-C do what is expected of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import alive, run_script, start_script, until

GONE_S = 2.0
SLACK_S = 3.0

BUSY = """
import os, pathlib, sys, time
import nbpar

folder, method = pathlib.Path(sys.argv[1]), sys.argv[2]

def task(x):
    (folder / str(os.getpid())).touch()
    if x == 0:
        sum(range(10**12))  # holds the GIL, in C
    time.sleep(1000)

pool = nbpar.WorkerPool(n_workers=2, start_method=method)
job = pool.map_async(task, range(2), chunk_size=1)
"""


def pids_in(folder: Path) -> list[int]:
    return [int(one.name) for one in folder.iterdir()]


def gone_soon(pids: list[int]) -> None:
    until(lambda: not any(alive(pid) for pid in pids), within_s=GONE_S + SLACK_S)


def test_workers_end_when_the_kernel_is_killed(method: str, tmp_path: Path) -> None:
    with start_script(BUSY + "job.wait()", str(tmp_path), method) as script:
        try:
            until(lambda: len(pids_in(tmp_path)) == 2)
        finally:
            script.kill()
        script.wait()
        gone_soon(pids_in(tmp_path))


def test_exit_does_not_wait_when_work_is_pending(method: str, tmp_path: Path) -> None:
    wait = "while len(list(folder.iterdir())) < 2: time.sleep(0.01)\nprint('over')"
    begin_s = time.monotonic()
    assert run_script(BUSY + wait, str(tmp_path), method) == "over\n"
    assert time.monotonic() - begin_s < 15
    gone_soon(pids_in(tmp_path))


def test_exit_does_not_wait_when_the_script_fails(method: str, tmp_path: Path) -> None:
    wait = "while len(list(folder.iterdir())) < 2: time.sleep(0.01)\nraise SystemExit(7)"
    with start_script(BUSY + wait, str(tmp_path), method) as script:
        _, err = script.communicate(timeout=30)
    assert (script.returncode, err) == (7, "")
    gone_soon(pids_in(tmp_path))


@pytest.mark.parametrize("how", ["file", "stdin", "module"])
def test_plain_script_works_when_it_has_no_main_guard(method: str, how: str, tmp_path: Path) -> None:
    code = f"""
import os
import nbpar
print("started", flush=True)
def square(x):
    return x * x
nbpar.configure(n_workers=2, start_method={method!r})
print(nbpar.map(square, range(5)))
"""
    (tmp_path / "plain.py").write_text(code)
    command = {"file": ["plain.py"], "stdin": ["-"], "module": ["-m", "plain"]}[how]
    import sys

    done = subprocess.run(
        [sys.executable, *command],
        input=code if how == "stdin" else None,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("started\n[0, 1, 4, 9, 16]\n", "")


def test_workers_start_when_the_main_module_was_emptied_as_by_reset(method: str) -> None:
    code = """
import sys
def main():
    import nbpar
    method = sys.argv[1]
    del sys.modules["__main__"].__spec__
    with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:
        print(pool.map(abs, [-1]))
main()
"""
    assert run_script(code, method) == "[1]\n"


FORK = """
import os, sys, warnings
import nbpar
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks of processes with threads
from nbpar.errors import PoolClosedError
pool = nbpar.WorkerPool(n_workers=2, start_method=sys.argv[1])
nbpar.configure(n_workers=2, start_method=sys.argv[1])
assert pool.map(abs, [-1]) == nbpar.map(abs, [-1]) == [1]
job = pool.map_async(__import__("time").sleep, [0.2])
pid = os.fork()
if pid == 0:
    try:
        pool.map(abs, [-1])
    except PoolClosedError:
        assert nbpar.map(abs, [-2]) == [2]
        nbpar.shutdown()
        pool.shutdown()
        del pool, job
        sys.exit(5)  # its exit functions run
    os._exit(1)
assert pool.map(abs, [-3]) == [3]
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
assert pool.map(abs, [-4]) == nbpar.map(abs, [-4]) == [4]
assert job.result() == [None]
"""


def test_parent_and_child_both_work_when_the_kernel_forks(method: str) -> None:
    run_script(FORK, method)


def test_parent_and_child_both_work_when_the_kernel_has_threads_and_forks() -> None:
    run_script(FORK, "threads")


INTERRUPTED = """
import os, pathlib, signal, sys, time
import nbpar

folder, method = pathlib.Path(sys.argv[1]), sys.argv[2]

def task(x):
    if x >= 2:
        (folder / f"{x}").touch()
        time.sleep(1000)
    return x

pool = nbpar.WorkerPool(n_workers=2, start_method=method)
pool.map(abs, range(4))
try:
    pool.map(task, range(10), chunk_size=1)
except nbpar.JobInterrupt as error:
    print("interrupted", str(error).startswith("Interrupted: map task was cancelled; 2 of 10 results"))
print(nbpar.jobs()[-1].results, nbpar.jobs()[-1].status)
pids = set(pool.pids().values())
print(pool.map(abs, [-1, -2]), flush=True)
time.sleep(0.2)
print(len(list(folder.iterdir())) <= 4, flush=True)  # two ran, and two at most were on their way
"""


@pytest.mark.parametrize("whom", ["group", "parent"])
def test_map_stops_and_the_pool_works_when_interrupted(method: str, whom: str, tmp_path: Path) -> None:
    with start_script(INTERRUPTED, str(tmp_path), method, start_new_session=True) as script:
        try:
            until(lambda: len(list(tmp_path.iterdir())) == 2)
            begin_s = time.monotonic()
            (os.killpg if whom == "group" else os.kill)(script.pid, signal.SIGINT)
            out, err = script.communicate(timeout=20)
            assert time.monotonic() - begin_s < 1.0 + SLACK_S
        finally:
            if script.poll() is None:
                os.killpg(script.pid, signal.SIGKILL)
    assert err == ""
    assert out.splitlines() == ["interrupted True", "[0, 1] cancelled", "[1, 2]", "True"]


def test_workers_that_wait_ignore_it_when_the_group_is_interrupted(method: str) -> None:
    code = """
import os, signal, sys, time
import nbpar
pool = nbpar.WorkerPool(n_workers=2, start_method=sys.argv[1])
pool.map(abs, range(4))
while len(pool.pids()) < 2: time.sleep(0.01)
before = pool.pids()
try:
    os.killpg(0, signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    pass
print(pool.map(abs, [-1]), pool.pids() == before)
"""
    with start_script(code, method, start_new_session=True) as script:
        out, err = script.communicate(timeout=30)
    assert (out, err) == ("[1] True\n", "")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_start_when_the_folder_has_a_module_by_a_name_of_pythons(method: str, tmp_path: Path) -> None:
    work, scripts = tmp_path / "work", tmp_path / "scripts"
    work.mkdir()
    scripts.mkdir()
    (work / "struct.py").write_text("raise ImportError('not on the path of the script')")
    code = (
        f"import nbpar\nwith nbpar.WorkerPool(n_workers=1, start_method={method!r}) as pool: print(pool.map(abs, [-1]))"
    )
    (scripts / "go.py").write_text(code)
    command = [sys.executable, str(scripts / "go.py")]
    got = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=30, check=False)
    assert (got.stdout, got.returncode) == ("[1]\n", 0), got.stderr
