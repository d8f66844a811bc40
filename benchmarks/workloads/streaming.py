"""A generator whose results are taken slowly: how far a library reads ahead, and what that costs in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from benchmarks.core import Contender, Metric, Timed, Workload, WrongResultError
from benchmarks.figures import Figures
from benchmarks.peers.base import Peer
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.targets import AtMost
from benchmarks.tasks.plain import size_of
from benchmarks.team import Team
from benchmarks.tree import pss_bytes

__all__ = ["SlowConsumer"]

CHUNK_SIZE = 16
CHUNKED = f"chunks of {CHUNK_SIZE}"
ITEM_BYTES = 2_000

Stream = Callable[[Peer, Iterable[bytes]], Iterator[int]]


def _chunks_ahead(figures: Figures) -> float | None:
    row = figures.rows.get(("nbpar", CHUNKED))
    return row.median("chunks") if row is not None and row.samples.get("chunks") else None


def _growth_mb(figures: Figures) -> float | None:
    row = figures.ours()
    return row.median("growth") / 1e6 if row is not None and row.samples.get("growth") else None


class SlowConsumer(Workload):
    """A loop that takes some hundred results, with half a millisecond of work for each, and leaves."""

    name = "streaming"
    title = "A generator of 50,000 items of 2 kB, its results taken slowly, 600 of them"
    about = (
        f"Chunks are of {CHUNK_SIZE} items where nothing else is said, so that read-ahead can be told in chunks; "
        "nbpar's defaults choose their own. Memory is the process tree's PSS: what is added to it at most "
        "(new workers included, where a library starts them), and how much of that comes after the 100th result."
    )
    targets = (
        AtMost(4, "chunks per worker read ahead", _chunks_ahead),
        AtMost(4, "MB of growth while the results are taken, defaults", _growth_mb),
    )
    peers = ("Pool", "ProcessPoolExecutor", "mpire", "loky", "joblib", "nbpar")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "ahead": Metric("items read ahead, most", has_ratio=False),
        "chunks": Metric("chunks per worker", has_ratio=False),
        "added": Metric("added, MB", 1e-6, has_ratio=False),
        "growth": Metric("growth, MB", 1e-6, has_ratio=False),
    }
    budget_s = 11.0
    n_least = 2
    keeps_variants = True

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Each library's lazy map."""
        ways: dict[str, list[tuple[str, Stream]]] = {
            "Pool": [(f"imap, {CHUNKED}", _pool)],
            "ProcessPoolExecutor": [(f"map, {CHUNKED}", _executor)],
            "mpire": [(f"imap, {CHUNKED}", _mpire)],
            "loky": [(f"map, {CHUNKED}", _loky)],
            "joblib": [(f"return_as=generator, {CHUNKED}", _joblib)],
            "nbpar": [("", _nbpar), (CHUNKED, _nbpar_chunked)],
        }
        yield [
            Contender(peer.name, partial(self._consume, way, peer), variant)
            for peer in team.present(self.peers)
            for variant, way in ways[peer.name]
        ]

    def _consume(self, way: Stream, peer: Peer, _: object) -> Timed:
        n_items, n_taken = self.size(50_000, 2_000), self.size(600, 200)
        n_read = 0

        def read() -> Iterator[bytes]:
            nonlocal n_read
            for number in range(n_items):
                n_read += 1
                yield number.to_bytes(4, "little") * (ITEM_BYTES // 4)

        values: list[int] = []
        most_ahead, base_bytes = 0, 0
        begin_bytes = most_bytes = pss_bytes() or 0
        stream = way(peer, read())
        for value in stream:
            values.append(value)
            most_ahead = max(most_ahead, n_read - len(values))
            time.sleep(0.0005)
            if len(values) % 100 == 0:
                now_bytes = pss_bytes() or 0
                base_bytes = base_bytes or now_bytes
                most_bytes = max(most_bytes, now_bytes)
            if len(values) == n_taken:
                break
        close = getattr(stream, "close", None)  # a generator's; it ends the workers made for it
        if close is not None:
            close()
        ahead = float(most_ahead)
        return Timed(
            values,
            {
                "ahead": ahead,
                "chunks": ahead / CHUNK_SIZE / peer.n_workers,
                "added": float(most_bytes - begin_bytes),
                "growth": float(most_bytes - base_bytes),
            },
        )

    def check(self, argument: Any, result: Any) -> None:
        """As many results as were taken, each the right one."""
        if result != [ITEM_BYTES] * self.size(600, 200):
            raise WrongResultError("not the sizes of the items")


def _nbpar(peer: Any, items: Iterable[bytes]) -> Iterator[int]:
    results: Iterator[int] = peer.pool.imap(size_of, items)
    return results


def _nbpar_chunked(peer: Any, items: Iterable[bytes]) -> Iterator[int]:
    results: Iterator[int] = peer.pool.imap(size_of, items, chunk_size=CHUNK_SIZE)
    return results


def _pool(peer: Peer, items: Iterable[bytes]) -> Iterator[int]:
    with forked_pool(peer.n_workers) as pool:
        yield from pool.imap(size_of, items, CHUNK_SIZE)


def _executor(peer: Peer, items: Iterable[bytes]) -> Iterator[int]:
    executor = forked_executor(peer.n_workers)
    try:
        yield from executor.map(size_of, items, chunksize=CHUNK_SIZE)
    finally:
        executor.shutdown(cancel_futures=True)


def _mpire(peer: Peer, items: Iterable[bytes]) -> Iterator[int]:
    import mpire

    with mpire.WorkerPool(n_jobs=peer.n_workers) as pool:
        yield from pool.imap(size_of, items, chunk_size=CHUNK_SIZE)


def _loky(peer: Any, items: Iterable[bytes]) -> Iterator[int]:
    from joblib.externals import loky

    executor = loky.ProcessPoolExecutor(max_workers=peer.n_workers)
    try:
        yield from executor.map(size_of, items, chunksize=CHUNK_SIZE)
    finally:
        executor.shutdown(kill_workers=True)


def _joblib(peer: Peer, items: Iterable[bytes]) -> Iterator[int]:
    import joblib

    parallel = joblib.Parallel(n_jobs=peer.n_workers, batch_size=CHUNK_SIZE, return_as="generator")
    yield from parallel(joblib.delayed(size_of)(item) for item in items)
