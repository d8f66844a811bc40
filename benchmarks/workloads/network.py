"""MPIRE's third published workload: an expensive init, and many small maps on one pool."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import nbpar
from benchmarks.core import WrongResultError
from benchmarks.peers import SERIAL
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.tasks import network
from benchmarks.team import Team
from benchmarks.workloads.published import Published, Way

__all__ = ["ExpensiveInit"]

N_EVALUATIONS = 10  # a map


class ExpensiveInit(Published):
    """Published with TensorFlow, 50 maps of 10 evaluations of 10,000 images; here numpy, fewer maps and images."""

    name = "mpire-init"
    title = "MPIRE's workload with an expensive init: a network loaded once per worker, 5 maps of 10 evaluations"
    about = (
        f"{Published.about} Their networks are loaded already, too. The published Pool loaded the network in every "
        "task; here its initializer does. BLAS has as many threads as each library leaves it: nbpar and joblib give a "
        "worker its share of the cores, the others give each all of them."
    )
    budget_s = 21.0

    def argument(self) -> int:
        """The number of maps."""
        loaded = network.Network()
        self._expected = [network.evaluate(loaded, number) for number in range(N_EVALUATIONS)]
        return self.size(5, 1)

    def check(self, argument: Any, result: Any) -> None:
        """Numbers of images; other numbers of BLAS threads round differently, so a few may tip over."""
        if len(result) != argument:
            raise WrongResultError("not all maps ran")
        for numbers in result:
            differences = [abs(a - b) for a, b in zip(numbers, self._expected, strict=True)]
            if max(differences) > 5:
                raise WrongResultError("not the numbers of images that were recognised")

    def whole_ways(self) -> dict[str, list[tuple[str, Way]]]:
        """A network for each worker, as each library has it."""
        n = self.n_workers
        return {
            SERIAL: [("", _serial)],
            "Pool": [("network by the initializer", partial(_pool, n))],
            "ProcessPoolExecutor": [("network by the initializer", partial(_executor, n))],
            "mpire": [
                ("pinned to CPUs, as published", partial(_mpire, n, _cpu_ids(n))),
                ("not pinned", partial(_mpire, n, None)),
            ],
            "nbpar": [("", _nbpar)],
        }

    def kept_ways(self, argument: Any, team: Team, stack: ExitStack) -> dict[str, tuple[str, Way]]:
        """The networks stay loaded between calls."""
        loaded = nbpar.per_worker(network.Network)

        def task(number: int) -> int:
            return network.evaluate(loaded(), number)

        ways: dict[str, tuple[str, Way]] = {"nbpar": ("nbpar.map", partial(_maps, partial(nbpar.map, task)))}
        if team.has("Pool"):
            pool = stack.enter_context(forked_pool(self.n_workers, network.load_here))
            ways["Pool"] = ("kept", partial(_maps, partial(pool.map, network.evaluate_here)))
        if team.has("mpire"):
            import mpire

            kept = stack.enter_context(mpire.WorkerPool(self.n_workers, use_worker_state=True, keep_alive=True))
            map_ = partial(kept.map, network.evaluate_in_state, worker_init=network.begin_state)
            ways["mpire"] = ("kept", partial(_maps, map_))
        if team.has("joblib"):
            import joblib

            parallel, delayed = joblib.Parallel(n_jobs=self.n_workers), joblib.delayed(network.evaluate_here)
            ways["joblib"] = (
                "network in a global",
                partial(_maps, lambda numbers: parallel(delayed(number) for number in numbers)),
            )
        return ways


def _cpu_ids(n_workers: int) -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):  # Linux has it
        return None
    return sorted(os.sched_getaffinity(0))[:n_workers]


def _maps(map_: Callable[[range], Any], n_maps: int) -> Any:
    return [map_(range(N_EVALUATIONS)) for _ in range(n_maps)]


def _serial(n_maps: int) -> Any:
    loaded = network.Network()
    return _maps(lambda numbers: [network.evaluate(loaded, number) for number in numbers], n_maps)


def _nbpar(n_maps: int) -> Any:
    with nbpar.WorkerPool() as pool:
        loaded = nbpar.per_worker(network.Network)
        return _maps(partial(pool.map, lambda number: network.evaluate(loaded(), number)), n_maps)


def _pool(n_workers: int, n_maps: int) -> Any:
    with forked_pool(n_workers, network.load_here) as pool:
        return _maps(partial(pool.map, network.evaluate_here), n_maps)


def _executor(n_workers: int, n_maps: int) -> Any:
    with forked_executor(n_workers, network.load_here) as executor:
        return _maps(lambda numbers: list(executor.map(network.evaluate_here, numbers)), n_maps)


def _mpire(n_workers: int, cpu_ids: list[int] | None, n_maps: int) -> Any:
    import mpire

    with mpire.WorkerPool(n_jobs=n_workers, use_worker_state=True, keep_alive=True, cpu_ids=cpu_ids) as pool:
        return _maps(partial(pool.map, network.evaluate_in_state, worker_init=network.begin_state), n_maps)
