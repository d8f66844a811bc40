"""Small maps in a loop, with state in each worker: where a library that starts workers for each map stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import nbpar
from benchmarks.core import Contender, Metric, Workload, WrongResultError
from benchmarks.peers import LOCAL
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.targets import AtLeast
from benchmarks.tasks import lookup
from benchmarks.team import Team

__all__ = ["SmallMapsInALoop"]

Map = Callable[[list[int]], Any]

KEPT = "pool kept"
MADE = "pool made for each map"


class SmallMapsInALoop(Workload):
    """Two look-ups a map, map after map."""

    name = "small-maps"
    title = "Maps of 2 tasks in a loop, a database connection in each worker"
    about = "Figures are those of one map. Slow contenders go through fewer maps."
    targets = (AtLeast(6, ("mpire",)), AtLeast(2, ("Pool",)))
    peers = tuple(name for name in LOCAL if name not in ("process_map", "loky"))
    metrics: ClassVar = {"wall": Metric("ms a map", 1e3)}
    budget_s = 10.0
    keeps_variants = True

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Workers kept, and made anew each time, where the library's users do both."""
        n_workers = self.n_workers
        with ExitStack() as stack:
            ready: list[Contender] = []

            def add(peer: str, variant: str, map_: Map, n_maps: int) -> None:
                n_maps = self.size(n_maps, 2)
                ready.append(Contender(peer, partial(_loop, map_), variant, lambda: n_maps, n_units=n_maps))

            if team.has("serial"):
                lookup.open_here()
                add("serial", "", lambda pair: [lookup.look_up_here(number) for number in pair], 300)
            if team.has("nbpar"):
                connection = nbpar.per_worker(lookup.connect)

                def task(number: int) -> int:
                    return lookup.look_up(connection(), number)

                add("nbpar", "", lambda pair: nbpar.map(task, pair), 100)
                (ours,) = team.present(["nbpar"])
                add("nbpar", KEPT, lambda pair: ours.map(task, pair), 100)
            if team.has("Pool"):
                pool = stack.enter_context(forked_pool(n_workers, lookup.open_here))
                add("Pool", KEPT, lambda pair: pool.map(lookup.look_up_here, pair), 50)
                add("Pool", MADE, partial(_pool_made, n_workers), 5)
            if team.has("ProcessPoolExecutor"):
                executor = stack.enter_context(forked_executor(n_workers, lookup.open_here))
                add("ProcessPoolExecutor", KEPT, lambda pair: list(executor.map(lookup.look_up_here, pair)), 50)
            if team.has("mpire"):
                import mpire

                kept = stack.enter_context(mpire.WorkerPool(n_jobs=n_workers, use_worker_state=True, keep_alive=True))
                add("mpire", KEPT, partial(_mpire_map, kept), 50)
                add("mpire", MADE, partial(_mpire_made, n_workers), 3)
            if team.has("joblib"):
                import joblib

                parallel, delayed = joblib.Parallel(n_jobs=n_workers), joblib.delayed(lookup.look_up_here)
                add("joblib", KEPT, lambda pair: parallel(delayed(number) for number in pair), 10)
            yield ready

    def check(self, argument: Any, result: Any) -> None:
        """All squares."""
        if result != [[number**2 for number in pair] for pair in _pairs(argument)]:
            raise WrongResultError("not the squares")


def _pairs(n_maps: int) -> list[list[int]]:
    return [[number, number + 1] for number in range(n_maps)]


def _loop(map_: Map, n_maps: int) -> list[Any]:
    return [map_(pair) for pair in _pairs(n_maps)]


def _pool_made(n_workers: int, pair: list[int]) -> Any:
    with forked_pool(n_workers, lookup.open_here) as pool:
        return pool.map(lookup.look_up_here, pair)


def _mpire_map(pool: Any, pair: list[int]) -> Any:
    return pool.map(lookup.look_up_in_state, pair, worker_init=lookup.begin_state)


def _mpire_made(n_workers: int, pair: list[int]) -> Any:
    import mpire

    with mpire.WorkerPool(n_jobs=n_workers, use_worker_state=True) as pool:
        return _mpire_map(pool, pair)
