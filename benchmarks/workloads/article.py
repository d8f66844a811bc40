"""An article's complaint: 100 arrays of 500 x 500 through ``process_map`` were slower than the loop, and its remedy."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from benchmarks.core import Contender, MapWorkload
from benchmarks.peers import LOCAL
from benchmarks.peers.stdlib import forked_pool
from benchmarks.targets import AtLeast, Target
from benchmarks.tasks.listed import of_listed
from benchmarks.tasks.plain import Array, mean_and_spread, mean_and_spread_20
from benchmarks.team import Team
from benchmarks.workloads.arrays import check_means

__all__ = ["ArticleManyPasses", "ArticleOnePass"]

MANAGED = "over a Manager's list"


class ArticleManyPasses(MapWorkload):
    """Twenty passes over each array."""

    name = "article"
    title = "The article's workload: 100 arrays of 500 x 500, 20 passes"
    about = (
        f"`Pool {MANAGED}` is the article's remedy: workers fetch each array from the manager's process. As in the "
        "article, the list was put there before the clock starts. The arrays are the same ones in every call."
    )
    targets: ClassVar[tuple[Target, ...]] = (AtLeast(1.8, ("serial",)), AtLeast(2.2, ("process_map",)))
    peers = LOCAL
    budget_s = 14.0
    keeps_variants = True

    def function(self) -> Callable[[Any], Any]:
        """Mean and standard deviation, over and over."""
        return mean_and_spread_20

    def items(self) -> Sequence[Any]:
        """Arrays."""
        generator = np.random.default_rng(3)
        return [generator.random((500, 500)) for _ in range(self.size(100, 4))]

    def check(self, argument: Any, result: Any) -> None:
        """Against the loop's."""
        check_means(argument, result, "not the means of these arrays")

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Every library with its defaults, and the article's remedy."""
        arrays = self.items()
        ready = [
            Contender(peer.name, partial(_map, peer.map, self.function()), prepare=lambda: arrays)
            for peer in team.present(self.peers)
        ]
        if not team.has("Pool"):
            yield ready
            return
        with multiprocessing.get_context("fork").Manager() as manager, forked_pool(self.n_workers) as pool:
            listed = manager.list(arrays)
            call = partial(_map_listed, pool, self.function(), listed)
            yield [*ready, Contender("Pool", call, MANAGED, lambda: arrays)]


class ArticleOnePass(ArticleManyPasses):
    """A single pass, so that nearly all is transport."""

    name = "article-once"
    title = "The article's workload with a single pass (transport-bound)"
    targets = (AtLeast(10, ("process_map",)),)
    budget_s = 10.0

    def function(self) -> Callable[[Any], Any]:
        """Mean and standard deviation."""
        return mean_and_spread


def _map(map_: Callable[..., Any], function: Callable[[Any], Any], arrays: Sequence[Array]) -> Any:
    return map_(function, arrays)


def _map_listed(
    pool: multiprocessing.pool.Pool, function: Callable[[Any], Any], listed: Sequence[Array], arrays: Sequence[Array]
) -> Any:
    return pool.starmap(of_listed, [(function, listed, index) for index in range(len(arrays))])
