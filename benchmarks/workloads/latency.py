"""One task at a time: the round trip of a `submit` in a warm pool."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from benchmarks.core import Contender, Metric, Timed, Workload, WrongResultError
from benchmarks.peers import EVERYBODY
from benchmarks.peers.base import Peer
from benchmarks.targets import AtLeast
from benchmarks.tasks.plain import add_one
from benchmarks.team import Team

__all__ = ["RoundTrip"]

BATCH_LIMIT_S = 0.5


class RoundTrip(Workload):
    """Round trips in batches, the batches alternated."""

    name = "submit"
    title = "`submit` of one trivial task and its result, in a warm pool"
    about = (
        "Batches of 200 round trips (of what fits into half a second, for slow libraries) are alternated; p50 and p99 "
        "are a batch's, the table has their medians."
    )
    targets = (AtLeast(3, metric="p50"), AtLeast(3, metric="p99"))
    peers = tuple(name for name in EVERYBODY if name != "serial")
    metrics: ClassVar[Mapping[str, Metric]] = {"p50": Metric("p50, us", 1e6), "p99": Metric("p99, us", 1e6)}
    budget_s = 9.0

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Each library's quickest way to ask for one task."""
        n_trips = self.size(200, 20)
        yield [
            Contender(peer.name, partial(_batch, peer, n_trips), n_units=n_trips) for peer in team.present(self.peers)
        ]

    def check(self, argument: Any, result: Any) -> None:
        """Each answer belongs to its question."""
        if result != list(range(1, len(result) + 1)):
            raise WrongResultError("not x + 1 for every x")


def _batch(peer: Peer, n_trips: int, _: object) -> Timed:
    values: list[int] = []
    trips_s: list[float] = []
    end_s = time.perf_counter() + BATCH_LIMIT_S
    while len(values) < n_trips and (len(values) < 3 or time.perf_counter() < end_s):
        begin_s = time.perf_counter()
        value = peer.round_trip(add_one, len(values))
        trips_s.append(time.perf_counter() - begin_s)
        values.append(value)
    p99_s = statistics.quantiles(trips_s, n=100, method="inclusive")[98]
    return Timed(values, {"p50": statistics.median(trips_s), "p99": p99_s})
