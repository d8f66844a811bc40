"""joblib, and the executor of loky beneath it.

loky is the copy that joblib brings along: with the package loky in the same process both disturb each other's clean-up
of memory-mapped arrays, and every call of joblib's that has some takes a second longer (joblib 1.6.0, loky 3.7.0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import joblib
from joblib.externals import loky

from benchmarks.peers.base import Peer, in_one_call, slices

__all__ = ["Joblib", "Loky"]


class Loky(Peer):
    """``loky.ProcessPoolExecutor``."""

    name: ClassVar[str] = "loky"

    def start(self) -> None:
        """Start the workers."""
        self._executor = loky.ProcessPoolExecutor(max_workers=self.n_workers)
        list(self._executor.map(abs, range(self.n_workers)))

    def close(self) -> None:
        """End them."""
        self._executor.shutdown(kill_workers=True)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``Executor.map``."""
        return list(self._executor.map(function, items, chunksize=chunk_size or 1))

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``Executor.submit``."""
        return self._executor.submit(function, item).result()

    def tunings(self, n_items: int) -> list[int | None]:
        """The default sends one task at a time: hopeless for many."""
        return super().tunings(n_items) if n_items <= 1000 else super().tunings(n_items)[1:]


class Joblib(Peer):
    """``joblib.Parallel``.

    A new `Parallel` for each call, as its documents show it; its workers stay. Within one, arrays that were seen before
    are not looked at again, so that a change between two calls is missed.
    """

    name: ClassVar[str] = "joblib"

    def start(self) -> None:
        """Start the workers."""
        self.map(abs, range(self.n_workers))

    def close(self) -> None:
        """End them."""
        loky.get_reusable_executor().shutdown(kill_workers=True)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``Parallel``; chunks are cut by hand, since its `batch_size` makes a tuple of each item (4 us)."""
        parallel = joblib.Parallel(n_jobs=self.n_workers)
        if chunk_size is None:
            results: list[Any] = parallel(joblib.delayed(function)(item) for item in items)
            return results
        lists = parallel(joblib.delayed(in_one_call)(function, piece) for piece in slices(items, chunk_size))
        return [result for results in lists for result in results]

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """It has no other way."""
        return self.map(function, [item])[0]

    def tunings(self, n_items: int) -> list[int | None]:
        """One task at a time is hopeless for a million."""
        return super().tunings(n_items) if n_items <= 100_000 else super().tunings(n_items)[1:]
