"""The memory and CPU of a job's workers over time, for as long as somebody looks.

Owned by :class:`nbpar.job.Job`, which asks when a snapshot is taken: nobody who looks, nothing that is read. A job of
64 workers costs 2 ms of the kernel's time each second.

Bounds: 60 samples of each worker; of a longer job they lie further apart.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping

from nbpar.engine.snapshot import ThreadsCpu, Usage
from nbpar.system import Reading, Runnable, read_runnable, read_usage

__all__ = ["MAX_SAMPLES", "UsageLog"]

MAX_SAMPLES = 60

EVERY_S = 1.0
FIRST_S = 0.25
"""Time between two samples; the first comes sooner, for jobs that take a second or two."""


class UsageLog:
    """See the module.

    Parameters
    ----------
    read : callable
        What the system says of a process now; None for one that has ended.

    Attributes
    ----------
    threads_cpu : ThreadsCpu or None
        Of workers that are threads of the kernel: see :class:`~nbpar.engine.snapshot.Snapshot`.
    """

    def __init__(self, read: Callable[[int], Reading | None] = read_usage) -> None:
        self._read = read
        self._before: dict[int, tuple[int, float, Reading]] = {}  # pid, time and reading by worker
        self._samples: dict[int, tuple[Usage, ...]] = {}
        self._look_at_s = 0.0
        self._every_s = EVERY_S
        self._threads: tuple[float, dict[int, Runnable]] | None = None  # when first looked at, and what was seen
        self.threads_cpu: ThreadsCpu | None = None
        self._lock = threading.Lock()  # held by the thread that reads; another one takes what there is

    @property
    def samples(self) -> Mapping[int, tuple[Usage, ...]]:
        """By worker, oldest first."""
        return self._samples

    def look(self, at_s: float, pids: Callable[[], Mapping[int, int]]) -> Mapping[int, tuple[Usage, ...]]:
        """Take a sample when it is time, and give all there are.

        Parameters
        ----------
        at_s : float
            Now, from the job's start.
        pids : callable
            Gives the process of each worker; those that are the kernel's own are left out.
        """
        if at_s >= self._look_at_s and self._lock.acquire(blocking=False):
            try:
                has_begun = bool(self._samples) or self.threads_cpu is not None
                self._look_at_s = at_s + (self._every_s if has_begun else FIRST_S)
                found = pids()
                self._sample(at_s, found.items())
                if os.getpid() in found.values():
                    self._sample_threads(at_s)
            finally:
                self._lock.release()
        return self._samples

    def _sample(self, at_s: float, pids: Iterable[tuple[int, int]]) -> None:
        own_pid, samples = os.getpid(), dict(self._samples)
        for worker_id, pid in pids:
            now = self._read(pid) if pid != own_pid else None
            if now is None:
                continue
            before = self._before.get(worker_id)
            self._before[worker_id] = pid, at_s, now
            if before is None or before[0] != pid or at_s <= before[1]:
                continue  # CPU is the difference of two readings
            passed_s, then = at_s - before[1], before[2]
            cpu = (now.cpu_s - then.cpu_s) / passed_s
            other = (now.other_cpu_s - then.other_cpu_s) / passed_s
            one = Usage(at_s, now.memory_bytes, cpu, min(cpu, max(0.0, other)))
            samples[worker_id] = (*samples.get(worker_id, ()), one)
        if any(len(some) > MAX_SAMPLES for some in samples.values()):
            samples = {worker_id: _thinned(some) for worker_id, some in samples.items()}
            self._every_s *= 2
        self._samples = samples  # as a whole: other threads look

    def _sample_threads(self, at_s: float) -> None:
        """Of all pools of threads: if Python runs one at a time, it does so with all of them."""
        ids = [one.native_id for one in threading.enumerate() if one.name.startswith("nbpar-thread-")]
        now = {one: seen for one in ids if one is not None and (seen := read_runnable(one)) is not None}
        if self._threads is None:
            self._threads = at_s, now
            return
        begin_s, then = self._threads
        if now and at_s > begin_s:
            none = Runnable(0.0, 0.0, 0)
            pairs = [(seen, then.get(one, none)) for one, seen in now.items()]
            ran, waited, stops = (sum(seen[i] - old[i] for seen, old in pairs) / (at_s - begin_s) for i in range(3))
            self.threads_cpu = ThreadsCpu(ran, ran + waited, stops, at_s - begin_s)


def _thinned(samples: tuple[Usage, ...]) -> tuple[Usage, ...]:
    """Half as many: neighbours become one, with the larger memory and the mean of the CPU."""
    merged = [
        Usage(
            right.at_s,
            max(left.memory_bytes, right.memory_bytes),
            (left.cpu + right.cpu) / 2,
            (left.other_cpu + right.other_cpu) / 2,
        )
        for left, right in zip(samples[::2], samples[1::2], strict=False)
    ]
    return (*merged, *samples[2 * len(merged) :])
