"""What is measured of a job beyond its results: what went out for a chunk, which tasks were slow, what was in vain.

Owned by the controller's record of a job (:mod:`nbpar.backends.controller`); the serial backend asks for slow tasks
alone. What comes of it are events for the job. Bounds: what went out is kept until its chunk is first told of; only of
chunks that were lost with their worker does it stay until the job ends.
"""

from __future__ import annotations

import time

from nbpar.backends.base import JobSpec, TasksEnded, short_repr
from nbpar.engine.durations import SLOW_S, Slowest
from nbpar.engine.events import ChunkDone, SlowTask

__all__ = ["Measures"]

REPR_SHARE = 0.01
REPR_S = 0.02
"""Making reprs of slow tasks' items takes at most so much of a job's time, and so long in any case: that of a large
table takes milliseconds, and it may be the user's own."""


class Measures:
    """What is measured of one job.

    Parameters
    ----------
    together : bool
        Tasks of a chunk run at once.

    Attributes
    ----------
    slow_above_s : float
        A task that took longer is to be given to :meth:`slow_task`.
    """

    __slots__ = ("_begin_s", "_out", "_repr_s", "_slowest", "_together", "slow_above_s")

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        self._out: dict[int, tuple[float, int]] = {}  # time and bytes by chunk
        self._slowest: Slowest | None = None
        self.slow_above_s = SLOW_S
        self._begin_s = self._repr_s = 0.0

    def sent(self, chunk_id: int, kernel_s: float, n_bytes: int) -> None:
        """The arguments of a chunk went out."""
        self._out[chunk_id] = kernel_s, n_bytes

    def done(self, event: TasksEnded, n_failed: int, n_again: int) -> ChunkDone:
        """What the job is told of tasks that ended; of those, `n_again` are tried again."""
        kernel_s, sent_bytes = self._out.pop(event.chunk_id, (0.0, 0))
        first = event.first
        return ChunkDone(
            event.worker_id,
            first,
            first + event.n_ended - n_again,
            event.begin_s,
            event.end_s,
            n_failed,
            event.unpack_s,
            event.pack_s,
            kernel_s + event.decode_s,
            sent_bytes,
            event.n_bytes,
            event.longest_index,
            event.longest_s,
            n_again,
            self._together,
        )

    def dropped(self, chunk_id: int) -> None:
        """A chunk is not to be told of."""
        self._out.pop(chunk_id, None)

    def slow_task(self, job: JobSpec, worker_id: int, index: int, duration_s: float) -> SlowTask:
        """A task that is among the slowest, with its item. To be called before that is let go."""
        slowest = self._slowest = self._slowest or Slowest()
        slowest.add(duration_s)
        self.slow_above_s = slowest.above_s
        begin_s = time.perf_counter()
        self._begin_s = self._begin_s or begin_s - duration_s
        item = job.source.take(index, index + 1)[0]
        if self._repr_s > max(REPR_S, REPR_SHARE * (begin_s - self._begin_s)):
            return SlowTask(index, duration_s, worker_id, f"<{type(item).__name__}>")
        item_repr = short_repr(item)
        self._repr_s += time.perf_counter() - begin_s
        return SlowTask(index, duration_s, worker_id, item_repr)
