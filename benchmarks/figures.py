"""The figures of one workload: samples of each contender, ratios to nbpar paired call by call, CPU and memory.

Filled by :mod:`benchmarks.timing` and :mod:`benchmarks.costs`; read by `targets`, `report` and `plot`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.peers import OURS, SERIAL

__all__ = ["Figures", "Row", "Spread", "spread"]


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.5, high=2.5)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass(slots=True)
class Row:
    """One contender's figures.

    Attributes
    ----------
    samples : dict
        By metric: one figure of each call.
    ratios : dict
        By metric: its figure divided by nbpar's of the same round; above 1 nbpar was faster.
    problem : str
        Why there are no figures, or no more.
    """

    peer: str
    variant: str
    group: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: float | None = None
    base_bytes: int | None = None
    peak_bytes: int | None = None
    problem: str = ""

    def median(self, metric: str) -> float:
        """Median of a metric; infinite without samples."""
        values = self.samples.get(metric)
        return statistics.median(values) if values else math.inf

    def ratio(self, metric: str) -> Spread | None:
        """Spread of the ratios to nbpar."""
        values = self.ratios.get(metric)
        return spread(values) if values else None

    @property
    def n_calls(self) -> int:
        """Calls that were measured."""
        return max((len(values) for values in self.samples.values()), default=0)


class Figures:
    """All contenders of one workload, in the order in which they came."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    def row(self, peer: str, variant: str, group: str = "") -> Row:
        """The row of a contender; a new one if there is none."""
        return self.rows.setdefault((peer, variant), Row(peer, variant, group))

    def ours(self, group: str = "") -> Row | None:
        """The row of nbpar that all ratios of a group refer to."""
        return next((row for row in self.rows.values() if row.peer == OURS and row.group == group), None)

    def best(self, metric: str, peers: Sequence[str] = (), group: str = "") -> Row | None:
        """Whoever came closest to nbpar, or passed it: among `peers`, or among all other libraries."""
        rows = [
            row
            for row in self.rows.values()
            if (row.peer in peers if peers else row.peer not in (OURS, SERIAL))
            and row.group == group
            and row.ratios.get(metric)
            and not row.problem
        ]
        return min(rows, key=lambda row: statistics.median(row.ratios[metric]), default=None)
