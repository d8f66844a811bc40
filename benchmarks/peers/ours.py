"""nbpar with its defaults, and the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import nbpar
from benchmarks.peers.base import Peer

__all__ = ["Nbpar", "Serial"]


class Nbpar(Peer):
    """A pool with no option set; nothing is ever tuned."""

    name: ClassVar[str] = "nbpar"

    def start(self) -> None:
        """Have the workers up."""
        self.pool = nbpar.WorkerPool()
        self.pool.map(abs, range(100 * self.n_workers))

    def close(self) -> None:
        """End this pool and the notebook's, should a workload have used it."""
        self.pool.shutdown()
        nbpar.shutdown()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``pool.map``."""
        return self.pool.map(function, items)

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``pool.submit``."""
        return self.pool.submit(function, item).result()

    def tunings(self, n_items: int) -> list[int | None]:
        """None but the defaults."""
        return [None]


class Serial(Peer):
    """A loop in this process."""

    name: ClassVar[str] = "serial"

    def start(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        """There is nothing to end."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """A list comprehension."""
        return [function(item) for item in items]

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """A call."""
        return function(item)

    def tunings(self, n_items: int) -> list[int | None]:
        """There is nothing to tune."""
        return [None]
