"""What tests of workers share: waiting for a state with a deadline, and looking for what a pool left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import nbpar

__all__ = ["alive", "jobs_since", "no_leftovers", "run_script", "start_script", "until"]

ROOT = Path(__file__).parents[1]

# They serve every pool of the process, and end with it.
_SERVERS = ("nbpar.worker.server", "multiprocess.resource_tracker")


def until(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Wait for a state."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it never came to be"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_server(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return True
    # A worker of the fork server has the server's own command line; what tells them apart is the parent.
    return any(server in line for server in _SERVERS) and process.ppid() == os.getpid()


def processes() -> set[int]:
    """Descendants that run and are no servers."""
    found = psutil.Process().children(recursive=True)
    return {one.pid for one in found if alive(one.pid) and not _is_server(one)}


def _threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("nbpar")}


def descriptors() -> set[str]:
    """Open descriptors by number and what they are."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder is gone
            found.add(f"{link.name} {link.readlink()}")
    return found


@contextmanager
def no_leftovers() -> Iterator[None]:
    """Check that a block leaves no process, thread or descriptor.

    The fork server and the resource tracker must run already, for they stay: each fixture sees to that.
    """
    gc.collect()
    before = processes(), _threads(), descriptors()
    yield

    def clean() -> bool:
        gc.collect()
        return processes() <= before[0] and _threads() <= before[1] and descriptors() <= before[2]

    try:
        until(clean, within_s=5.0)
    except AssertionError:
        left = processes() - before[0], _threads() - before[1], descriptors() - before[2]
        raise AssertionError(f"left behind: {left}") from None


def jobs_since(known: list[nbpar.Job[Any]]) -> list[nbpar.Job[Any]]:
    """Jobs that ``nbpar.jobs()`` did not have; to count them would not do, for it forgets old ones."""
    return [job for job in nbpar.jobs() if not any(job is one for one in known)]


def start_script(code: str, *args: str, start_new_session: bool = False) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NBPAR_UI": "off"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=start_new_session,
    )


def run_script(code: str, *args: str) -> str:
    """Run a script; its stdout, or the failure with its stderr."""
    with start_script(code, *args) as script:
        out, err = script.communicate(timeout=30)
    assert script.returncode == 0, f"exit code {script.returncode}: {err}"
    assert err == ""
    return str(out)
