"""``tqdm.contrib.concurrent.process_map``: a new ProcessPoolExecutor for every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tqdm.contrib.concurrent import process_map

from benchmarks.peers.base import Peer

__all__ = ["ProcessMap"]


class ProcessMap(Peer):
    """Without its bar, which nobody else draws here."""

    name: ClassVar[str] = "process_map"

    def start(self) -> None:
        """There is nothing to keep alive."""

    def close(self) -> None:
        """There is nothing to end."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``process_map``."""
        results: list[Any] = process_map(
            function, items, max_workers=self.n_workers, chunksize=chunk_size or 1, disable=True
        )
        return results

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """It has no other way."""
        return self.map(function, [item])[0]

    def tunings(self, n_items: int) -> list[int | None]:
        """As for the executor beneath it."""
        return super().tunings(n_items) if n_items <= 1000 else super().tunings(n_items)[1:]
