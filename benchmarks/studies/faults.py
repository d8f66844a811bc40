"""How soon nbpar gets over what goes wrong: a worker is killed, the user interrupts, the kernel is killed.

Times from the signal on. Run it by itself with ``make bench BENCH_ARGS="--only faults"``. That it is so under load, and
for every kind of fault, is what ``tests/promises`` checks; here are the figures.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import psutil

import nbpar
from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict

__all__ = ["Faults"]

LOOK_S = 0.001
LIMIT_S = 30.0

BUSY = """
import os, pathlib, signal, sys, time
import nbpar

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs this in the background has it ignored
folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]

def task(x):
    (folder / str(os.getpid())).touch()
    if kind == "in C":
        sum(range(10**13))  # holds the GIL and heeds no signal
    time.sleep(1000)

with nbpar.WorkerPool(n_workers=2) as pool:
    try:
        pool.map(task, range(10), chunk_size=1)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
"""


class Faults(Study):
    """Deaths, interrupts and the end of the kernel."""

    name: ClassVar[str] = "faults"
    title: ClassVar[str] = "Faults: how soon nbpar gets over them"

    def run(self, peers: Sequence[str]) -> Section:
        """Of the peers none takes part: most of them hang (``tests/promises/test_crash_matrix.py`` has the kinds)."""
        section = Section()
        if sys.platform == "win32":
            section.lines.append("Systems with signals only.")
            return section
        n_times = 2 if self.is_quick else 15
        measured: list[tuple[str, float, Callable[[], float]]] = [
            ("worker killed in its task, until the error is there", 0.5, _death),
            ("interrupt, tasks that sleep, until the kernel is idle", 0.5, lambda: _interrupt("sleeps")),
            ("interrupt, tasks stuck in C, until the kernel is idle", 2.0, lambda: _interrupt("in C")),
            ("kernel killed, tasks stuck in C, until the workers are gone", 2.0, _kernel_death),
        ]
        rows = []
        for name, asked_s, measure in measured:
            times_s = [measure() for _ in range(n_times)]
            longest_s = max(times_s)
            rows.append([name, f"{statistics.median(times_s):.3f}", f"{longest_s:.3f}"])
            asked = f"{name}: under {asked_s:g} s"
            section.verdicts.append(Verdict(asked, f"{longest_s:.3f} s at most", longest_s < asked_s))
        section.lines += markdown_table(["from the signal", "median, s", f"longest of {n_times}, s"], rows)
        return section


def _death() -> float:
    with nbpar.WorkerPool(n_workers=2) as pool:
        pool.map(abs, range(4))
        _wait_until(lambda: len(pool.pids()) == 2)
        times_s: list[float] = []
        job = pool.map_async(time.sleep, [1000.0, 1000.0], on_error="return", progress=False)
        job.add_done_callback(lambda _job: times_s.append(time.perf_counter()))
        _wait_until(lambda: sum(lane.current_index is not None for lane in job.snapshot().lanes) == 2)
        killed_s = time.perf_counter()
        for pid in pool.pids().values():
            os.kill(pid, signal.SIGKILL)
        _wait_until(lambda: bool(times_s))
        return times_s[0] - killed_s


def _interrupt(kind: str) -> float:
    with _busy_script(kind) as (script, _pids):
        sent_s = time.monotonic()
        os.killpg(script.pid, signal.SIGINT)
        out, _ = script.communicate(timeout=LIMIT_S)
        return float(out) - sent_s


def _kernel_death() -> float:
    with _busy_script("in C") as (script, pids):
        killed_s = time.monotonic()
        script.kill()
        script.wait(LIMIT_S)
        _wait_until(lambda: not any(_is_there(pid) for pid in pids))
        return time.monotonic() - killed_s


@contextlib.contextmanager
def _busy_script(kind: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A script in whose two workers tasks run, and their process ids."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-c", BUSY, name, kind]
        script = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            _wait_until(lambda: len(list(folder.iterdir())) == 2)
            yield script, [int(one.name) for one in folder.iterdir()]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
            script.communicate()


def _is_there(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected by whoever has inherited it does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {LIMIT_S:g} s")
        time.sleep(LOOK_S)
