"""What ``profile=True`` costs: CPU time of the same tasks with it and without, by what the tasks do.

In the kernel's own process (``start_method="serial"``), so that its CPU time is all there is. The rounds alternate. Run
it by itself with ``make bench BENCH_ARGS="--only profiling"``.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

import nbpar
from benchmarks.studies.base import Section, Study, markdown_table

__all__ = ["Profiling"]


class Profiling(Study):
    """The profiler, over tasks that call more and less."""

    name: ClassVar[str] = "profiling"
    title: ClassVar[str] = "What profile=True costs"

    def run(self, peers: Sequence[str]) -> Section:
        """Of the peers none takes part."""
        section = Section()
        if importlib.util.find_spec("pyinstrument") is None:
            section.lines.append("pyinstrument is not installed.")
            return section
        n_rounds, n_tasks = (1, 2) if self.is_quick else (7, 10)
        tasks: list[tuple[str, Callable[[int], object]]] = [
            ("numpy: `np.sin` of 1,000 numbers, again and again", _arrays),
            ("a loop that calls nothing", _plain_loop),
            ("a list comprehension of `len(str(i))`", _builtins),
            ("a loop that calls a small Python function, nothing else", _small_calls),
        ]
        rows = []
        with nbpar.WorkerPool(start_method="serial") as pool:
            for name, task in tasks:
                ratios = [
                    _cpu_s(pool, task, n_tasks, profile=True) / _cpu_s(pool, task, n_tasks, profile=False)
                    for _ in range(n_rounds)
                ]
                rows.append([name, f"{statistics.median(ratios):.1f}", f"{min(ratios):.1f} to {max(ratios):.1f}"])
        section.lines += markdown_table(["tasks of", "CPU time against that without", "rounds"], rows)
        return section


def _cpu_s(pool: nbpar.WorkerPool, task: Callable[[int], object], n_tasks: int, *, profile: bool) -> float:
    begin_s = time.process_time()
    pool.map(task, range(n_tasks), chunk_size=1, profile=profile, progress=False)
    return time.process_time() - begin_s


def _arrays(_seed: int) -> float:
    numbers = np.arange(1000.0)
    for _ in range(5000):
        numbers = np.sin(numbers)
    return float(numbers[0])


def _plain_loop(_seed: int) -> int:
    total = 0
    for i in range(800_000):
        total += i & 3
    return total


def _builtins(_seed: int) -> int:
    return sum([len(str(i)) for i in range(300_000)])


def _next(i: int) -> int:
    return i + 1


def _small_calls(_seed: int) -> int:
    total = 0
    for _ in range(500_000):
        total = _next(total)
    return total
