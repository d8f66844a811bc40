"""How many tasks travel together: grows from one task towards 10 ms of work, and shrinks at the tail.

Owns the arithmetic only. The scheduler asks :meth:`ChunkSizer.next_size` before each chunk and reports with
:meth:`ChunkSizer.observe` what a chunk took.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "ChunkSizer"]

TARGET_S = 0.010
"""Work in one chunk: 100 times the cost of a round trip to a worker (about 0.1 ms), yet short for a progress bar."""

MAX_BYTES = 2 << 20
MAX_TASKS = 1 << 15
SMALL_S = 0.002
"""When less work than this is left for each worker it is dealt out evenly, one chunk each: to split it further
for the sake of an even end would cost more round trips than it saves."""

SOLO_S = 0.0001
"""When less work than this is left one worker gets all of it: to wake another takes about as long."""

GROWTH = 256
"""At most this factor from one chunk to the next, since one fast task says little about the next thousand. A worker
gives back what it could not do of a chunk in 50 ms (:mod:`nbpar.worker.execute`), so a wrong guess costs little."""

SINGLE_S = 0.001
"""From this mean duration on, tasks travel one at a time: a round trip costs them under a tenth."""


AT_ONCE = 32
"""Coroutines that a worker runs at once, and so the least that travel together while there are enough for all workers:
to wait takes no CPU. A browser opens 6 connections to a server, a crawler 16; most clients stop at 100 for all servers.
"""

AHEAD_S = 0.020
"""Up to this mean duration a worker has its next task before the last one has ended, so that it need not wait for a
round trip (0.3 ms and more) after each. Another job then waits for two tasks of a worker: as long as for two chunks."""


class ChunkSizer:
    """Adapts the chunk size of one job to the durations seen.

    Parameters
    ----------
    n_workers : int
        Workers that share the job.
    fixed : int, optional
        A size the user asked for; then nothing is adapted.
    mean_s : float, optional
        What tasks of the same function took in an earlier job: a first guess.
    together : bool
        The tasks of a chunk run at once, because they are coroutines: a chunk takes about as long as one of them.

    Examples
    --------
    >>> sizer = ChunkSizer(n_workers=2)
    >>> sizer.next_size(1000)
    1
    >>> sizer.observe(n_tasks=1, work_s=1e-6, n_bytes=10)
    >>> sizer.next_size(10_000)
    256
    """

    def __init__(
        self, *, n_workers: int, fixed: int | None = None, mean_s: float | None = None, together: bool = False
    ) -> None:
        self._n_workers = n_workers
        self._fixed = fixed
        self._least = AT_ONCE if together else 1
        self._size = self._least
        self._together = together
        self._mean_s = mean_s
        self._bytes_per_task = 1.0
        self._even: int | None = None
        if mean_s is not None and mean_s < SINGLE_S:
            self._size = max(self._least, min(int(TARGET_S / max(mean_s, 1e-9)), GROWTH * 16))

    def depth(self, n_left: int) -> int:
        """Chunks a worker may hold when `n_left` tasks wait.

        Two hide the round trip; one keeps tasks that are long, or the last, for whoever is idle.
        """
        if self._mean_s is None or self._together:
            return 1
        if self._mean_s < SINGLE_S:
            return 2
        return 2 if self._mean_s * (self._fixed or 1) < AHEAD_S and n_left > self._n_workers else 1

    @property
    def size(self) -> int:
        """The size now, before the tail is taken into account."""
        return self._fixed or self._size

    @property
    def mean_s(self) -> float | None:
        """Mean duration of recent tasks; None before the first."""
        return self._mean_s

    def observe(self, *, n_tasks: int, work_s: float, n_bytes: int) -> None:
        """Learn from one ended chunk of `n_tasks` tasks that worked `work_s` seconds and sent `n_bytes`."""
        if n_tasks < 1:
            return
        mean_s = max(work_s, 0.0) / n_tasks
        # Slower news counts at once, faster news by and by: a chunk that turns out long holds up the tail.
        weight = 0.3 if self._mean_s is not None and mean_s < self._mean_s else 0.7
        self._mean_s = mean_s if self._mean_s is None else (1 - weight) * self._mean_s + weight * mean_s
        self._bytes_per_task = max(1.0, 0.7 * self._bytes_per_task + 0.3 * n_bytes / n_tasks)
        if self._mean_s >= SINGLE_S:
            self._size = self._least
            return
        by_time = int(TARGET_S / max(self._mean_s, 1e-9))
        by_bytes = int(MAX_BYTES / self._bytes_per_task)
        self._size = max(self._least, min(by_time, by_bytes, self._size * GROWTH, MAX_TASKS))

    def next_size(self, n_left: int) -> int:
        """Tasks for the next chunk when `n_left` wait; at most half an even share, so that the end is shared."""
        if self._fixed is not None:
            return min(self._fixed, n_left)
        if self._together:
            return self._even_share(n_left)
        if self._mean_s is not None and self._mean_s * n_left < SMALL_S * self._n_workers:
            if self._even is None:
                n_shares = 1 if self._mean_s * n_left < SOLO_S else self._n_workers
                self._even = min(-(-n_left // n_shares), MAX_TASKS)
            return min(self._even, n_left)
        return max(1, min(self._size, n_left // (2 * self._n_workers)))

    def _even_share(self, n_left: int) -> int:
        """A full chunk while there is one for each worker, then what is left shared out in one round."""
        if n_left > self._size * self._n_workers:
            return self._size
        if self._even is None or n_left > self._even * self._n_workers:
            self._even = -(-n_left // self._n_workers)
        return max(1, min(self._even, n_left))
