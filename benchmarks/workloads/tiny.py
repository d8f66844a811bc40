"""Tasks that do next to nothing: what a library costs by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.core import MapWorkload, WrongResultError
from benchmarks.peers import EVERYBODY
from benchmarks.targets import AtLeast
from benchmarks.tasks.plain import add_one

__all__ = ["MillionFromList", "MillionFromRange", "TenThousand"]


class _Tiny(MapWorkload):
    n_usual = 1_000_000

    @property
    def n_tasks(self) -> int:
        return self.size(self.n_usual, 2_000)

    def function(self) -> Callable[[Any], Any]:
        """``x + 1``."""
        return add_one

    def items(self) -> Sequence[Any]:
        """Numbers, in a list."""
        return list(range(self.n_tasks))

    def check(self, argument: Any, result: Any) -> None:
        """All of them, in order."""
        if result != list(range(1, self.n_tasks + 1)):
            raise WrongResultError("not x + 1 for every x")


class MillionFromList(_Tiny):
    """A million items from a list."""

    name = "million-list"
    title = "1,000,000 trivial tasks from a list"
    about = "Best-tuned: each peer with its default chunks where that is bearable, and with 16 chunks."
    targets = (AtLeast(1.4), AtLeast(50, ("mpire",)))
    budget_s = 12.0


class MillionFromRange(_Tiny):
    """A million items from a range, which nobody has to list."""

    name = "million-range"
    title = "1,000,000 trivial tasks from a range"
    about = "mpire takes as long as from a list, and process_map as long as ProcessPoolExecutor: they are left out."
    targets = (AtLeast(2.2), AtLeast(1.0, ("serial",)))
    peers = tuple(name for name in EVERYBODY if name not in ("mpire", "process_map"))
    budget_s = 9.0

    def items(self) -> Sequence[Any]:
        """Numbers, as a range."""
        return range(self.n_tasks)


class TenThousand(_Tiny):
    """What a cell in a notebook may well have."""

    name = "ten-thousand"
    title = "10,000 trivial tasks from a list"
    targets = (AtLeast(1.0, ("Pool",)),)
    n_usual = 10_000
    budget_s = 4.0
