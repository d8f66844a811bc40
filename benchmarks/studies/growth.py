"""Costs that grow faster than the work: per task, per worker, per byte.

Every table has the cost of one unit, so that a row which rises to the right shows such a cost. Sizes whose turn would
take too long by what the one before took are left out.
"""

from __future__ import annotations

import gc
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import psutil

import nbpar
from benchmarks.limits import TookTooLong, limit
from benchmarks.peers import OURS
from benchmarks.peers.base import Peer
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict
from benchmarks.tasks.plain import add_one, nap, read_all
from benchmarks.team import Team

__all__ = ["GrowthOfItems", "GrowthOfTasks", "GrowthOfWorkers"]

LONGEST_S = 6.0
CALL_LIMIT_S = 30.0
TOLERATED = 1.5
"""The last cost may be that many times the smallest one before it; less is noise."""

Costs = dict[str, dict[int, float | str]]


class _Growth(Study):
    """Sizes from small to large, and at each the cost of one unit for each library."""

    unit: ClassVar[str]
    scale: ClassVar[float]

    @abstractmethod
    def label(self, size: int) -> str:
        """How a size is written."""

    def section(self, costs: Costs, sizes: Sequence[int]) -> Section:
        """Table and verdict."""
        rows = [
            [peer, *(self._cell(of_peer.get(size, "")) for size in sizes), _rise(of_peer)]
            for peer, of_peer in costs.items()
        ]
        lines = markdown_table([self.unit, *(self.label(size) for size in sizes), "last / least before"], rows)
        section = Section(lines)
        figures = _figures(costs.get(OURS, {}))
        if len(figures) > 1:
            rise = figures[-1] / min(figures[:-1])
            reached = list(costs[OURS])[-1]
            asked = f"{self.unit}: the last at most {TOLERATED} times the least before"
            is_met = rise <= TOLERATED and reached == sizes[-1] and isinstance(costs[OURS][reached], float)
            section.verdicts.append(Verdict(asked, f"{rise:.2f}, up to {self.label(reached)}", is_met))
        return section

    def _cell(self, cost: float | str) -> str:
        return cost if isinstance(cost, str) else f"{cost * self.scale:.3g}"


def _figures(costs: dict[int, float | str]) -> list[float]:
    return [cost for cost in costs.values() if isinstance(cost, float)]


def _rise(costs: dict[int, float | str]) -> str:
    figures = _figures(costs)
    if len(figures) < 2:
        return ""
    rise = figures[-1] / min(figures[:-1])
    return f"**{rise:.2f}**" if rise > TOLERATED else f"{rise:.2f}"


def _median_s(call: Callable[[], Any], is_right: Callable[[Any], bool]) -> float | str:
    """Median of one to five calls, or what went wrong."""
    times_s: list[float] = []
    try:
        with limit(CALL_LIMIT_S):
            while len(times_s) < 5 and sum(times_s) < 0.5:
                gc.collect()
                begin_s = time.perf_counter()
                result = call()
                times_s.append(time.perf_counter() - begin_s)
                if not is_right(result):
                    return "wrong result"
                del result
    except TookTooLong:
        return f"over {CALL_LIMIT_S:.0f} s"
    except Exception as error:  # noqa: BLE001  # whatever a library raises is its entry in the table
        return type(error).__name__
    return sorted(times_s)[len(times_s) // 2]


class GrowthOfTasks(_Growth):
    """Trivial tasks from a list, 1e3 to 1e7."""

    name = "growth-tasks"
    title = "Growth: number of trivial tasks"
    unit = "us a task"
    scale = 1e6

    def label(self, size: int) -> str:
        """1,000."""
        return f"{size:,}"

    def run(self, peers: Sequence[str]) -> Section:
        """Each library by itself in turn: there is nothing to pair."""
        sizes = [1_000, 10_000] if self.is_quick else [10**k for k in range(3, 8)]
        wanted = ("serial", "Pool", "ProcessPoolExecutor", "mpire", "loky", "nbpar")
        costs: Costs = {}
        with Team([name for name in wanted if name in peers], n_workers=self.n_workers) as team:
            for peer in team.present(wanted):
                costs[peer.name] = self._of(peer, sizes)
            return self.section(costs, sizes)

    @staticmethod
    def _of(peer: Peer, sizes: Sequence[int]) -> dict[int, float | str]:
        found: dict[int, float | str] = {}
        for size in sizes:
            items = list(range(size))
            expected = list(range(1, size + 1))
            chunk_size = peer.tunings(size)[-1]
            call = _Call(peer, items, chunk_size)
            spent_s = _median_s(call, expected.__eq__)
            if isinstance(spent_s, str):
                found[size] = spent_s
                break
            found[size] = spent_s / size
            if spent_s * 10 > LONGEST_S:
                break
        return found


class _Call:
    """A map of trivial tasks."""

    def __init__(self, peer: Peer, items: list[int], chunk_size: int | None) -> None:
        self._peer, self._items, self._chunk_size = peer, items, chunk_size

    def __call__(self) -> list[Any]:
        return self._peer.map(add_one, self._items, self._chunk_size)


class GrowthOfWorkers(_Growth):
    """Workers that sleep, 1 to 128 of them, however few cores there are."""

    name = "growth-workers"
    title = "Growth: number of workers (tasks sleep)"
    unit = "ms a worker beyond the sleep"
    scale = 1e3

    nap_s: ClassVar[float] = 0.1
    n_rounds: ClassVar[int] = 4

    def label(self, size: int) -> str:
        """128."""
        return str(size)

    def run(self, peers: Sequence[str]) -> Section:
        """The start of a pool with one nap for each worker, then four naps for each."""
        sizes = [1, 2] if self.is_quick else [2**k for k in range(8)]
        openers: dict[str, Callable[[int], tuple[Any, Callable[[list[float]], list[float]]]]] = {
            "Pool": _open_pool,
            "ProcessPoolExecutor": _open_executor,
            "mpire": _open_mpire,
            "loky": _open_loky,
            OURS: _open_nbpar,
        }
        starts: Costs = {}
        rounds: Costs = {}
        for peer, opener in openers.items():
            if peer not in peers:
                continue
            starts[peer], rounds[peer] = {}, {}
            for size in sizes:
                start_s = self._measure(opener, size, starts[peer], rounds[peer])
                if start_s is None or start_s > LONGEST_S:
                    break
        of_starts, of_rounds = self.section(starts, sizes), self.section(rounds, sizes)
        lines = ["Start of a pool and a first nap on every worker:", "", *of_starts.lines, ""]
        lines += [f"{self.n_rounds} naps for each worker, in a warm pool:", "", *of_rounds.lines]
        verdicts = [v._replace(asked=f"start, {v.asked}") for v in of_starts.verdicts]
        return Section(lines, verdicts + of_rounds.verdicts)

    def _measure(
        self,
        opener: Callable[[int], tuple[Any, Callable[[list[float]], list[float]]]],
        size: int,
        starts: dict[int, float | str],
        rounds: dict[int, float | str],
    ) -> float | None:
        """Fill in both costs; returns the seconds that the start took, None when something went wrong."""
        once, often = [self.nap_s] * size, [self.nap_s] * (size * self.n_rounds)
        try:
            with limit(CALL_LIMIT_S):
                begin_s = time.perf_counter()
                pool, map_ = opener(size)
                with pool:
                    is_right = map_(once) == once
                    started_s = time.perf_counter()
                    is_right = is_right and map_(often) == often
                    end_s = time.perf_counter()
        except TookTooLong:
            starts[size] = rounds[size] = f"over {CALL_LIMIT_S:.0f} s"
            return None
        except Exception as error:  # noqa: BLE001  # whatever a library raises is its entry in the table
            starts[size] = rounds[size] = type(error).__name__
            return None
        if not is_right:
            starts[size] = rounds[size] = "wrong result"
            return None
        starts[size] = (started_s - begin_s - self.nap_s) / size
        rounds[size] = (end_s - started_s - self.nap_s * self.n_rounds) / size
        return started_s - begin_s


def _open_nbpar(n_workers: int) -> tuple[Any, Callable[[list[float]], list[float]]]:
    pool = nbpar.WorkerPool(n_workers=n_workers)
    return pool, lambda naps: pool.map(nap, naps)


def _open_pool(n_workers: int) -> tuple[Any, Callable[[list[float]], list[float]]]:
    pool = forked_pool(n_workers)
    return pool, lambda naps: pool.map(nap, naps, 1)


def _open_executor(n_workers: int) -> tuple[Any, Callable[[list[float]], list[float]]]:
    pool = forked_executor(n_workers)
    return pool, lambda naps: list(pool.map(nap, naps))


def _open_mpire(n_workers: int) -> tuple[Any, Callable[[list[float]], list[float]]]:
    import mpire

    pool = mpire.WorkerPool(n_jobs=n_workers, keep_alive=True)
    return pool, lambda naps: list(pool.map(nap, naps, chunk_size=1))


def _open_loky(n_workers: int) -> tuple[Any, Callable[[list[float]], list[float]]]:
    from joblib.externals import loky

    pool = loky.ProcessPoolExecutor(max_workers=n_workers)
    return pool, lambda naps: list(pool.map(nap, naps))


class GrowthOfItems(_Growth):
    """Arrays of 1 KB to 1 GB on their way to a worker."""

    name = "growth-items"
    title = "Growth: size of an item on its way to a worker"
    unit = "ns a byte"
    scale = 1e9

    def label(self, size: int) -> str:
        """1 KB, 32 MB."""
        for unit, name in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")):
            if size >= unit:
                return f"{size // unit} {name}"
        return f"{size} B"

    def run(self, peers: Sequence[str]) -> Section:
        """Enough items of each size for 64 MB, a thousand at most; peers that pickle need four times the memory."""
        sizes = [2**10, 2**20] if self.is_quick else [2**10, 2**15, 2**20, 2**25, 2**28, 2**30]
        spare_bytes = psutil.virtual_memory().available
        fitting = [size for size in sizes if 4 * size < spare_bytes]
        wanted = ("serial", "Pool", "ProcessPoolExecutor", "mpire", "joblib", "nbpar")
        costs: Costs = {}
        with Team([name for name in wanted if name in peers], n_workers=self.n_workers) as team:
            for peer in team.present(wanted):
                costs[peer.name] = self._of(peer, fitting)
            section = self.section(costs, sizes)
        if fitting != sizes:
            section.lines += ["", f"Larger items than {self.label(fitting[-1])} were left out for want of memory."]
        return section

    @staticmethod
    def _of(peer: Peer, sizes: Sequence[int]) -> dict[int, float | str]:
        found: dict[int, float | str] = {}
        before_s = before_bytes = 0.0
        for size in sizes:
            n_items = max(1, min(1000, 2**26 // size))
            if before_bytes and before_s * n_items * size / before_bytes > LONGEST_S:
                break
            items = [np.full(size, number % 7, dtype=np.uint8) for number in range(n_items)]
            expected = [number % 7 * len(range(0, size, 64)) for number in range(n_items)]
            # The default chunks: of large items more than one at a time would leave workers idle.
            spent_s = _median_s(_Read(peer, items), expected.__eq__)
            if isinstance(spent_s, str):
                found[size] = spent_s
                break
            found[size] = spent_s / (size * n_items)
            before_s, before_bytes = spent_s, size * n_items
        return found


class _Read:
    """A map over arrays."""

    def __init__(self, peer: Peer, items: list[Any]) -> None:
        self._peer, self._items = peer, items

    def __call__(self) -> list[Any]:
        return self._peer.map(read_all, self._items)
