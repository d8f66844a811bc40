"""The standard library's two pools, forked: their quickest way to start and to reach data."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.pool
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.peers.base import Peer

__all__ = ["Executor", "Pool", "forked_executor", "forked_pool"]


def forked_pool(
    n_workers: int, initializer: Callable[..., Any] | None = None, initargs: tuple[Any, ...] = ()
) -> multiprocessing.pool.Pool:
    """A ``multiprocessing.Pool`` that forks, whatever this Python's default is."""
    return multiprocessing.get_context("fork").Pool(n_workers, initializer, initargs)


def forked_executor(
    n_workers: int, initializer: Callable[..., Any] | None = None, initargs: tuple[Any, ...] = ()
) -> concurrent.futures.ProcessPoolExecutor:
    """A ``ProcessPoolExecutor`` that forks."""
    return concurrent.futures.ProcessPoolExecutor(
        n_workers, mp_context=multiprocessing.get_context("fork"), initializer=initializer, initargs=initargs
    )


class Pool(Peer):
    """``multiprocessing.Pool``."""

    name: ClassVar[str] = "Pool"

    def start(self) -> None:
        """Fork the workers."""
        self._pool = forked_pool(self.n_workers)
        self._pool.map(abs, range(self.n_workers))

    def close(self) -> None:
        """End them."""
        self._pool.terminate()
        self._pool.join()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``Pool.map``."""
        return self._pool.map(function, items, chunk_size)

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``Pool.apply``."""
        return self._pool.apply(function, (item,))


class Executor(Peer):
    """``concurrent.futures.ProcessPoolExecutor``."""

    name: ClassVar[str] = "ProcessPoolExecutor"

    def start(self) -> None:
        """Fork the workers."""
        self._executor = forked_executor(self.n_workers)
        list(self._executor.map(abs, range(self.n_workers)))

    def close(self) -> None:
        """End them."""
        self._executor.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``Executor.map``."""
        return list(self._executor.map(function, items, chunksize=chunk_size or 1))

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``Executor.submit``."""
        return self._executor.submit(function, item).result()

    def tunings(self, n_items: int) -> list[int | None]:
        """The default sends one task at a time, at 150 us each: hopeless for many."""
        return super().tunings(n_items) if n_items <= 1000 else super().tunings(n_items)[1:]
