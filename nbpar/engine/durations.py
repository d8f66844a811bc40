"""How long tasks took: a histogram by logarithmic steps, and which tasks are among the slowest.

Pure bookkeeping. :mod:`nbpar.engine.state` owns a job's histogram; :mod:`nbpar.backends.measures` asks
:class:`Slowest` which tasks are worth a look at their item.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right

from nbpar.engine.snapshot import Bin

__all__ = ["N_SLOWEST", "SLOW_S", "Histogram", "Slowest"]

STEPS = 8
"""Bins of a decade: each is a third wider than the one before."""

SHORTEST_EXPONENT, LONGEST_EXPONENT = -7, 6
"""100 ns to 11 days; what is shorter or longer counts in the outermost bins."""

N_SLOWEST = 5

SLOW_S = 0.001
"""Shorter tasks are never called slow: their item is not worth its repr."""


# What lies before the first edge counts in the first bin, what lies behind the last in the last.
_EDGES = [10 ** (step / STEPS) for step in range(SHORTEST_EXPONENT * STEPS, LONGEST_EXPONENT * STEPS + 1)]
_INNER_EDGES = _EDGES[1:-1]


class Histogram:
    """Counts tasks by their duration."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_EDGES) - 1)
        self._bins: tuple[Bin, ...] | None = ()

    def add(self, duration_s: float, n_tasks: int) -> None:
        """So many tasks took so long."""
        self._counts[bisect_right(_INNER_EDGES, duration_s)] += n_tasks
        self._bins = None

    def bins(self) -> tuple[Bin, ...]:
        """All bins from the first to the last that has tasks."""
        if self._bins is None:
            filled = [step for step, n_tasks in enumerate(self._counts) if n_tasks]
            steps = range(filled[0], filled[-1] + 1)
            self._bins = tuple(Bin(_EDGES[step], _EDGES[step + 1], self._counts[step]) for step in steps)
        return self._bins


class Slowest:
    """The durations of the slowest tasks so far.

    Attributes
    ----------
    above_s : float
        A task is among them when it took longer than this.
    """

    __slots__ = ("_durations", "above_s")

    def __init__(self) -> None:
        self._durations: list[float] = []  # a heap of at most N_SLOWEST
        self.above_s = SLOW_S

    def add(self, duration_s: float) -> None:
        """A task took so long, longer than `above_s`."""
        if len(self._durations) < N_SLOWEST:
            heapq.heappush(self._durations, duration_s)
        else:
            heapq.heapreplace(self._durations, duration_s)
        if len(self._durations) == N_SLOWEST:
            self.above_s = self._durations[0]
