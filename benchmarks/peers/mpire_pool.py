"""MPIRE, its workers kept alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import mpire

from benchmarks.peers.base import Peer

__all__ = ["Mpire"]


class Mpire(Peer):
    """``mpire.WorkerPool(keep_alive=True)``."""

    name: ClassVar[str] = "mpire"

    def start(self) -> None:
        """Fork the workers."""
        self._pool = mpire.WorkerPool(n_jobs=self.n_workers, keep_alive=True)
        self._pool.map(abs, range(self.n_workers))

    def close(self) -> None:
        """End them."""
        self._pool.terminate()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``WorkerPool.map``; it would join arrays among the results to one if it were not told otherwise."""
        results: list[Any] = self._pool.map(
            function, items, iterable_len=len(items), chunk_size=chunk_size, concatenate_numpy_output=False
        )
        return results

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``WorkerPool.apply``."""
        return self._pool.apply(function, (item,))

    def tunings(self, n_items: int) -> list[int | None]:
        """Its cost is one of tasks, not of chunks (8 us each, measured): for a million, one try is enough."""
        return super().tunings(n_items) if n_items <= 100_000 else super().tunings(n_items)[1:]
