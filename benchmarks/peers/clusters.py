"""ray and dask, each as a cluster on this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.peers.base import Peer, in_one_call, slices

__all__ = ["Dask", "Ray"]


class Ray(Peer):
    """ray's tasks; chunks are cut by hand, as its documents advise for small tasks."""

    name: ClassVar[str] = "ray"

    def start(self) -> None:
        """Start its daemons and the workers; without its dashboard and its reports."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        self._remotes: dict[Callable[..., Any], Any] = {}
        ray.init(num_cpus=self.n_workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self.map(abs, range(4 * self.n_workers))

    def close(self) -> None:
        """End them."""
        self._ray.shutdown()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """One remote task for each item, or for each chunk."""
        if chunk_size is None:
            remote = self.remote(function)
            results: list[Any] = self._ray.get([remote(item) for item in items])
            return results
        remote = self.remote(in_one_call)
        lists = self._ray.get([remote(function, piece) for piece in slices(items, chunk_size)])
        return [result for results in lists for result in results]

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """A remote task."""
        return self._ray.get(self.remote(function)(item))

    def remote(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What calls `function` in a worker; made once."""
        if function not in self._remotes:
            self._remotes[function] = self._ray.remote(_plain(function)).remote
        remote: Callable[..., Any] = self._remotes[function]
        return remote

    def put(self, value: Any) -> Any:
        """Into its object store, once for all workers."""
        return self._ray.put(value)

    def tunings(self, n_items: int) -> list[int | None]:
        """One task each costs 0.7 ms: hopeless for many."""
        return super().tunings(n_items) if n_items <= 1000 else super().tunings(n_items)[1:]


class Dask(Peer):
    """dask.distributed; chunks are cut by hand."""

    name: ClassVar[str] = "dask"

    def start(self) -> None:
        """Start the scheduler and the workers; without the dashboard."""
        import distributed

        # It advises to scatter large items first; they are new in each call, so that is what it does itself.
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        self._cluster = distributed.LocalCluster(
            n_workers=self.n_workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        self.client = distributed.Client(self._cluster)
        self.map(abs, range(4 * self.n_workers))

    def close(self) -> None:
        """End them."""
        self.client.close()
        self._cluster.close()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """``Client.map``; impure, or equal calls would be answered from the ones before."""
        if chunk_size is None:
            results: list[Any] = self.client.gather(self.client.map(function, items, pure=False))
            return results
        pieces = slices(items, chunk_size)
        futures = [self.client.submit(_of_piece, function, _Piece(piece), pure=False) for piece in pieces]
        return [result for results in self.client.gather(futures) for result in results]

    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """``Client.submit``."""
        return self.client.submit(function, item, pure=False).result()

    def tunings(self, n_items: int) -> list[int | None]:
        """One task each costs 3 ms: hopeless for many."""
        return super().tunings(n_items) if n_items <= 1000 else super().tunings(n_items)[1:]


class _Piece:
    """A chunk that dask does not look into: its search for futures in a list of a million takes a minute."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items


def _of_piece(function: Callable[[Any], Any], piece: _Piece) -> list[Any]:
    return in_one_call(function, piece.items)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function around a builtin, which ray does not take."""

    def call(*args: Any) -> Any:
        return function(*args)

    return call
