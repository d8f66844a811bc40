"""What a rule of advice gives, and how figures read in its sentence.

Shared by :mod:`nbpar.engine.rules_tasks` and :mod:`nbpar.engine.rules_pool`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Found", "count", "percent", "seconds", "times"]


class Found(NamedTuple):
    """A sentence, and about which share of the job's time it is worth; above 1 for what is worse than slow."""

    weight: float
    text: str


def percent(share: float) -> str:
    """A share of 1 as ``38 %``."""
    return f"{100 * share:.0f} %"


def count(n: int, what: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def seconds(seconds: float) -> str:
    """A duration with two or three figures.

    Examples
    --------
    >>> [seconds(t) for t in (4.2e-7, 1.3e-5, 0.042, 0.999, 8.12, 75, 750)]
    ['0.4 us', '13 us', '42 ms', '1.0 s', '8.1 s', '75 s', '12 min']
    """
    for factor, unit, below in ((1e6, "us", 999.5), (1e3, "ms", 99.5)):
        value = seconds * factor
        if value < below:
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 119.5 else f"{seconds / 60:.0f} min"


def times(seconds: float, median_s: float) -> str:
    """How a duration compares: ``20 times the median``."""
    return f"{seconds / median_s:,.0f} times the median"
