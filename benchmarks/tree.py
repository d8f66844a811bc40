"""CPU seconds and memory (PSS) of this process and all below it.

PSS divides what several processes map among them, so that a sum over processes counts each page once; what they hold in
memory files without mapping it is added. Linux only; elsewhere it is None.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import psutil

__all__ = ["PeakMemory", "cpu_s", "pss_bytes"]


def _processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def cpu_s() -> float:
    """CPU seconds so far, in user and system mode; those of children that have ended are their parents'."""
    total_s = 0.0
    for process in _processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def pss_bytes() -> int | None:
    """Memory of the tree now."""
    total = shared = 0
    files: dict[tuple[int, int], int] = {}
    found = False
    for process in _processes():
        try:
            with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as lines:
                sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss")}
            total += sizes.get("Pss:", 0)
            shared += sizes.get("Pss_Shmem:", 0)
            found = True
            files |= _anonymous_files(process.pid)
        except OSError:  # ended meanwhile, or no Linux
            continue
    # Pages of anonymous files that were written and are mapped by nobody at the moment belong to no process's figures.
    return total + max(0, sum(files.values()) - shared) if found else None


def _anonymous_files(pid: int) -> dict[tuple[int, int], int]:
    """Bytes that the memory files of a process take, by device and inode."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if "memfd:" in str(link.readlink()):
                about = link.stat()
                found[about.st_dev, about.st_ino] = about.st_blocks * 512
    return found


class PeakMemory(threading.Thread):
    """Samples the tree's PSS from its start until `stop`.

    Attributes
    ----------
    peak_bytes : int or None
        The most that was seen.
    """

    def __init__(self, interval_s: float = 0.02) -> None:
        super().__init__(name="benchmarks: memory", daemon=True)
        self.peak_bytes = pss_bytes()
        self._interval_s = interval_s
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample."""
        while not self._ended.wait(self._interval_s):
            self._sample()

    def own_cpu_s(self) -> float:
        """What the sampling itself has taken so far."""
        if self.ident is None or not self.is_alive() or not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self.ident))

    def stop(self) -> None:
        """Take a last sample and end."""
        self._ended.set()
        self.join()
        self._sample()

    def _sample(self) -> None:
        now = pss_bytes()
        if now is not None:
            self.peak_bytes = max(now, self.peak_bytes or 0)
