"""What a model takes in memory when every worker has it: ``python -m benchmarks.model_memory``.

The weights lie in a file. Each way of having them in the workers runs in a process of its own; every worker reads all
of them, and then the memory of the kernel and of the workers is looked at: USS is what a process has for itself, PSS
divides what several share among them, so that a sum of it counts everything once. Then the model is replaced by a
second version. Linux only. The table of ``docs/how-to/models.md`` is its output.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import nbpar

__all__ = ["main"]

MB = 1_000_000


class Model:
    """Stands for any model: it has weights and reads all of them."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def predict(self, x: float) -> float:
        """The same for every worker; its time is that of reading the weights."""
        return x * float(self.weights.sum())


def _load(path: str) -> Model:
    return Model(np.load(path))


_model: Model | None = None


def _load_here(path: str) -> None:
    global _model
    _model = _load(path)


def _predict_here(meeting: str, n_workers: int, x: float) -> tuple[int, float]:
    assert _model is not None
    _meet(meeting, n_workers)
    return os.getpid(), _model.predict(x)


def _meet(folder: str, n_workers: int) -> None:
    """Wait until every worker has a task."""
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < n_workers:  # noqa: PTH208  # names are all that is needed
        time.sleep(0.01)


def _in_executor(paths: Sequence[str], n_workers: int, _way: str) -> list[str]:
    """The standard library's: the initializer loads; another version takes another executor."""
    with (
        tempfile.TemporaryDirectory() as meeting,
        ProcessPoolExecutor(n_workers, initializer=_load_here, initargs=(paths[0],)) as pool,
    ):
        told = list(pool.map(partial(_predict_here, meeting, n_workers), [1.0] * n_workers))
        return [*_memory({pid for pid, _ in told}), ""]


def _in_pool(paths: Sequence[str], n_workers: int, way: str) -> list[str]:
    """By `per_worker`, with weights that each worker loads or that are shared."""

    def factory(path: str) -> Callable[[], Model]:
        if way == "loaded":
            return partial(_load, path)
        weights = nbpar.share(np.load(path))
        return lambda: Model(weights.value)

    model = nbpar.per_worker(factory(paths[0]))

    def predict(meeting: str, x: float) -> float:
        m = model()
        _meet(meeting, n_workers)
        return m.predict(x)

    def run() -> list[str]:
        with tempfile.TemporaryDirectory() as meeting:
            pool.map(partial(predict, meeting), [1.0] * n_workers, chunk_size=1, progress=False)
        return _memory(set(pool.pids().values()))

    with nbpar.WorkerPool(n_workers=n_workers) as pool:
        first = run()
        model.replace(factory(paths[1]))
        return [*first, run()[1]]


def _memory(pids: set[int]) -> list[str]:
    """USS of a worker, and PSS of all of them and the kernel, in MB."""
    workers = [psutil.Process(pid).memory_full_info() for pid in pids]
    own = psutil.Process().memory_full_info()
    uss_mb = max(one.uss for one in workers) / MB
    return [f"{uss_mb:,.0f}", f"{(sum(one.pss for one in workers) + own.pss) / MB:,.0f}"]


WAYS: dict[str, tuple[str, Callable[[Sequence[str], int, str], list[str]]]] = {
    "executor": ("`ProcessPoolExecutor(initializer=load)`", _in_executor),
    "loaded": ("`per_worker(load)`: each worker loads", _in_pool),
    "shared": ("`per_worker`, weights by `share`", _in_pool),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--n-workers", type=int, default=4)
    parser.add_argument("--mb", type=int, default=400, help="size of the weights (default: %(default)s)")
    parser.add_argument("--way", choices=[*WAYS], help="run one, and print its row alone")
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way is not None:
        name, measure = WAYS[chosen.way]
        print("|", " | ".join([name, *measure(chosen.paths, chosen.n_workers, chosen.way)]), "|")
        return 0
    title = f"{chosen.n_workers} workers, weights of {chosen.mb} MB"
    print(f"| {title} | a worker's own, MB | all together, MB | once replaced, MB |")
    print("|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"weights-{version}.npy") for version in (1, 2)]
        for path in paths:
            np.save(path, np.ones(chosen.mb * MB // 8))
        command = [sys.executable, "-m", "benchmarks.model_memory", "--n-workers", str(chosen.n_workers)]
        for way in WAYS:
            subprocess.run([*command, "--way", way, *paths], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
