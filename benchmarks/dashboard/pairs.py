"""In a kernel: a job of a million trivial tasks with its card and without, in turns, in one process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import nbpar

__all__ = ["run"]

N_WORKERS = 2


def run(path: str, *, n_pairs: int, n_tasks: int, duration_s: float) -> None:
    """Measure pairs; their times with and without a card go into a file, as JSON.

    Parameters
    ----------
    path : str
        That file.
    n_pairs, n_tasks : int
        Jobs are twice as many as pairs, of so many tasks each.
    duration_s : float
        What a job takes, roughly: tasks count up to a number that is found first.
    """
    with nbpar.WorkerPool(n_workers=N_WORKERS) as pool:
        task = _task(_steps(N_WORKERS * duration_s / n_tasks))

        def job_s(progress: bool | None) -> float:
            begin_s = time.perf_counter()
            n_results = len(pool.map(task, range(n_tasks), progress=progress))
            assert n_results == n_tasks
            return time.perf_counter() - begin_s

        job_s(None)  # the widget's class, the workers, the chunk size
        pairs = []
        for number in range(n_pairs):  # the first of a pair may meet another machine than the second: they take turns
            if number % 2:
                without_s = job_s(False)
                pairs.append((job_s(None), without_s))
            else:
                with_s = job_s(None)
                pairs.append((with_s, job_s(False)))
    Path(path).write_text(json.dumps(pairs), encoding="utf-8")


def _steps(task_s: float) -> int:
    """Additions that take so long."""
    n_steps = 10
    while True:
        task = _task(n_steps)
        begin_s = time.perf_counter()
        for number in range(2000):
            task(number)
        spent_s = (time.perf_counter() - begin_s) / 2000
        if spent_s >= task_s / 2:
            return max(1, round(n_steps * task_s / spent_s))
        n_steps *= 2


def _task(n_steps: int) -> Callable[[int], int]:
    def count(x: int) -> int:
        for _ in range(n_steps):
            x += 1
        return x

    return count
