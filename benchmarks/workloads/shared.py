"""One large object for all tasks: what the first use costs, what later ones cost, and how often it is in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

import nbpar
from benchmarks.core import Contender, Metric, Timed, Workload, WrongResultError
from benchmarks.figures import Figures
from benchmarks.peers import SERIAL
from benchmarks.peers.base import Peer, slices
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.targets import AtMost
from benchmarks.tasks.plain import Array, PartOfKept, keep_table, part_sum, part_sums
from benchmarks.team import Team

__all__ = ["SharedTable"]

TABLE_BYTES = 500_000_000

Maps = Callable[[], list[float]]


def _second_over_serial(figures: Figures) -> float | None:
    row = figures.best("second", (SERIAL,))
    found = None if row is None else row.ratio("second")
    return None if found is None else 1 / found.median


def _added_memory(figures: Figures) -> float | None:
    ours = figures.ours()
    if ours is None or ours.peak_bytes is None or ours.base_bytes is None:
        return None
    return (ours.peak_bytes - ours.base_bytes) / TABLE_BYTES


class SharedTable(Workload):
    """Sums of the thousand parts of a table, twice."""

    name = "shared"
    title = "A shared object of 500 MB, 1,000 tasks, a first and a second call"
    about = (
        "The first call begins with the object in the parent alone. Pool, ProcessPoolExecutor and mpire must fork new "
        "workers for it, which inherit it; nbpar's, joblib's, ray's and dask's workers are warm. The asked peak PSS is "
        "what is added to the parent with its object, by the sharing and both calls, in units of the object."
    )
    targets = (
        AtMost(2, "times serial, second call", _second_over_serial),
        AtMost(1.25, "times the object added to memory at the peak", _added_memory),
    )
    peers = (SERIAL, "Pool", "ProcessPoolExecutor", "mpire", "joblib", "nbpar", "ray", "dask")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "first": Metric("first call, ms", 1e3),
        "second": Metric("second call, ms", 1e3),
    }
    budget_s = 16.0
    keeps_variants = True

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Each library's own way to share."""
        ways: dict[str, list[tuple[str, Callable[..., AbstractContextManager[Maps]]]]] = {
            SERIAL: [("", _serial)],
            "Pool": [("inherited by fork", _pool)],
            "ProcessPoolExecutor": [("inherited by fork", _executor)],
            "mpire": [("shared_objects", _mpire)],
            "joblib": [("memory-mapped", _joblib)],
            "nbpar": [("", _nbpar), ("in the closure, not shared", _nbpar_closure)],
            "ray": [("put, 16 chunks", _ray)],
            "dask": [("scattered, 16 chunks", _dask)],
        }
        n_parts = self.size(1000, 20)
        table = np.arange(TABLE_BYTES // self.size(8, 800), dtype=np.float64)
        self._expected = [part_sum(table, part, n_parts) for part in range(n_parts)]
        yield [
            Contender(peer.name, partial(_twice, way, peer, n_parts), variant, lambda: table)
            for peer in team.present(self.peers)
            for variant, way in ways[peer.name]
        ]

    def check(self, argument: Any, result: Any) -> None:
        """Both calls' sums, exactly."""
        if result != [self._expected, self._expected]:
            raise WrongResultError("not the sums of the parts")


def _twice(way: Callable[..., AbstractContextManager[Maps]], peer: Peer, n_parts: int, table: Array) -> Timed:
    begin_s = time.perf_counter()
    with way(peer, n_parts, table) as call:
        first = call()
        between_s = time.perf_counter()
        second = call()
        end_s = time.perf_counter()
    return Timed([first, second], {"first": between_s - begin_s, "second": end_s - between_s})


@contextmanager
def _serial(_peer: Peer, n_parts: int, table: Array) -> Iterator[Maps]:
    yield lambda: part_sums(table, range(n_parts), n_parts)


@contextmanager
def _nbpar(peer: Any, n_parts: int, table: Array) -> Iterator[Maps]:
    big = nbpar.share(table)
    yield lambda: peer.map(lambda part: part_sum(big.value, part, n_parts), range(n_parts))


@contextmanager
def _nbpar_closure(peer: Any, n_parts: int, table: Array) -> Iterator[Maps]:
    yield lambda: peer.map(lambda part: part_sum(table, part, n_parts), range(n_parts))


@contextmanager
def _pool(peer: Peer, n_parts: int, table: Array) -> Iterator[Maps]:
    with forked_pool(peer.n_workers, keep_table, (table,)) as pool:
        yield lambda: pool.map(PartOfKept(n_parts), range(n_parts))


@contextmanager
def _executor(peer: Peer, n_parts: int, table: Array) -> Iterator[Maps]:
    chunk_size = max(1, n_parts // 16)
    with forked_executor(peer.n_workers, keep_table, (table,)) as executor:
        yield lambda: list(executor.map(PartOfKept(n_parts), range(n_parts), chunksize=chunk_size))


@contextmanager
def _mpire(peer: Peer, n_parts: int, table: Array) -> Iterator[Maps]:
    import mpire

    with mpire.WorkerPool(n_jobs=peer.n_workers, shared_objects=table, keep_alive=True) as pool:
        yield lambda: list(pool.map(part_sum, [(part, n_parts) for part in range(n_parts)]))


@contextmanager
def _joblib(peer: Peer, n_parts: int, table: Array) -> Iterator[Maps]:
    import joblib

    task = joblib.delayed(part_sum)
    with joblib.Parallel(n_jobs=peer.n_workers) as parallel:
        yield lambda: list(parallel(task(table, part, n_parts) for part in range(n_parts)))


@contextmanager
def _ray(peer: Any, n_parts: int, table: Array) -> Iterator[Maps]:
    import ray

    held, remote = peer.put(table), peer.remote(part_sums)
    pieces = slices(range(n_parts), max(1, n_parts // 16))
    yield lambda: [value for sums in ray.get([remote(held, piece, n_parts) for piece in pieces]) for value in sums]


@contextmanager
def _dask(peer: Any, n_parts: int, table: Array) -> Iterator[Maps]:
    held = peer.client.scatter(table, broadcast=True, hash=False)
    pieces = slices(range(n_parts), max(1, n_parts // 16))

    def call() -> list[float]:
        futures = [peer.client.submit(part_sums, held, piece, n_parts, pure=False) for piece in pieces]
        return [value for sums in peer.client.gather(futures) for value in sums]

    yield call
