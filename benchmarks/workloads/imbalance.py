"""Tasks of very different lengths: how close a library comes to what is possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from benchmarks.core import MapWorkload, Metric, WrongResultError
from benchmarks.figures import Figures
from benchmarks.peers import EVERYBODY
from benchmarks.targets import AtMost
from benchmarks.tasks.plain import nap

__all__ = ["HeavyTail"]


def _excess(figures: Figures) -> float | None:
    ours = figures.ours()
    return ours.median("bound") if ours is not None and ours.samples.get("bound") else None


class HeavyTail(MapWorkload):
    """Sleeps whose lengths follow a Pareto distribution, so that only the schedule counts."""

    name = "heavy-tail"
    title = "Heavy-tailed tasks, against the bound max(sum / workers, longest)"
    about = "Tasks sleep; 100 for each worker, 0.5 s of sleep for each worker in all, the longest a quarter of that."
    targets = (AtMost(1.06, "times the bound", _excess),)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "wall": Metric("wall, ms", 1e3),
        "bound": Metric("times the bound", has_ratio=False),
    }
    peers = tuple(name for name in EVERYBODY if name != "process_map")
    budget_s = 14.0

    @cached_property
    def naps_s(self) -> list[float]:
        """The tasks, always the same ones."""
        generator = random.Random(11)
        n_tasks = self.n_workers * self.size(100, 10)
        total_s = self.n_workers * (0.05 if self.is_quick else 0.5)
        lengths = [generator.paretovariate(1.1) for _ in range(n_tasks)]
        # Cut off, scaled, and again, until the longest is what it should be.
        for _ in range(20):
            scale = total_s / sum(lengths)
            lengths = [min(length * scale, total_s / self.n_workers / 4) for length in lengths]
        return lengths

    @property
    def bound_s(self) -> float:
        """Nobody can be faster."""
        return max(sum(self.naps_s) / self.n_workers, *self.naps_s)

    def function(self) -> Callable[[Any], Any]:
        """A sleep."""
        return nap

    def items(self) -> Sequence[Any]:
        """Their lengths in seconds."""
        return self.naps_s

    def check(self, argument: Any, result: Any) -> None:
        """All were slept."""
        if result != self.naps_s:
            raise WrongResultError("not all tasks ran")

    def samples(self, wall_s: float) -> dict[str, float]:
        """Wall time, and the same as a multiple of the bound."""
        return {"wall": wall_s, "bound": wall_s / self.bound_s}
