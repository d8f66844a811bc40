"""What was asked of nbpar, in code beside each workload, and the verdict on it.

A target is data: :mod:`benchmarks.workloads` holds them, :mod:`benchmarks.report` prints the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from benchmarks.figures import Figures

__all__ = ["AtLeast", "AtMost", "Target", "Verdict"]


class Verdict(NamedTuple):
    """One line of the table "asked and measured"; `is_met` is None where it was not measured."""

    asked: str
    measured: str
    is_met: bool | None


class Target(Protocol):
    """Something that was asked."""

    def judge(self, figures: Figures) -> Verdict:
        """Compare with what was measured."""


@dataclass(frozen=True)
class AtLeast:
    """So many times as fast as others: the best of `peers`, or the best of all libraries when none is named."""

    ratio: float
    peers: tuple[str, ...] = ()
    metric: str = "wall"
    group: str = ""

    def judge(self, figures: Figures) -> Verdict:
        """By the median of the paired ratios."""
        whom = " and ".join(self.peers) or "the best peer"
        remarks = [text for text in (self.group, "" if self.metric == "wall" else self.metric) if text]
        asked = f"at least {self.ratio:g} against {whom}" + (f" ({', '.join(remarks)})" if remarks else "")
        ours = figures.ours(self.group)
        if ours is not None and ours.problem:
            return Verdict(asked, f"nbpar: {ours.problem}", False)
        row = figures.best(self.metric, self.peers, self.group)
        found = None if row is None else row.ratio(self.metric)
        if row is None or found is None:
            return Verdict(asked, "not measured", None)
        measured = f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"
        if len(self.peers) != 1:
            measured += f", {row.peer}"
        return Verdict(asked, measured, found.median >= self.ratio)


@dataclass(frozen=True)
class AtMost:
    """A figure of nbpar's own that may not be larger.

    Attributes
    ----------
    value : callable
        Gets the workload's figures; returns None where it was not measured.
    """

    bound: float
    what: str
    value: Callable[[Figures], float | None]

    def judge(self, figures: Figures) -> Verdict:
        """By the figure."""
        asked = f"at most {self.bound:g} {self.what}"
        ours = figures.ours()
        if ours is not None and ours.problem:
            return Verdict(asked, f"nbpar: {ours.problem}", False)
        value = self.value(figures)
        if value is None:
            return Verdict(asked, "not measured", None)
        return Verdict(asked, f"{value:.3g}", value <= self.bound)
