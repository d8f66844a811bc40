"""CPU seconds and memory (PSS) of this process and all below it.

PSS divides what several processes map among them, so that a sum over processes counts each page once. Linux only;
elsewhere it is None.
"""

from __future__ import annotations

import threading
import time

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
    total = 0
    found = False
    for process in _processes():
        try:
            with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as lines:
                total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) * 1024
                found = True
        except OSError:  # ended meanwhile, or no Linux
            continue
    return total if found else None


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
