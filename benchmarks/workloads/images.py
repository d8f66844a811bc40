"""MPIRE's first published workload: one image, many filters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

import nbpar
from benchmarks.core import WrongResultError
from benchmarks.peers import SERIAL
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.team import Team
from benchmarks.workloads.published import Published, Way

__all__ = ["Images"]

Image = Any
Kernels = Sequence[Any]


class Images(Published):
    """Published with 5000 x 5000 pixels and ten filters of 4 x 4 for each CPU; here fewer pixels."""

    name = "mpire-images"
    title = "MPIRE's numerical workload: an image of 1000 x 1000, 10 filters for each worker"
    about = f"{Published.about} Workers that are not forked import `scipy.signal` when they start, and that counts."
    budget_s = 21.0

    def argument(self) -> tuple[Image, Kernels]:
        """Noise, and filters."""
        from benchmarks.tasks.images import filtered

        generator = np.random.default_rng(5)
        edge = self.size(1000, 60)
        image = generator.random((edge, edge))
        kernels = [generator.normal(size=(4, 4)) for _ in range(10 * self.n_workers)]
        self._expected = [filtered(image, kernel) for kernel in kernels]
        return image, kernels

    def check(self, argument: Any, result: Any) -> None:
        """Every pixel."""
        if len(result) != len(self._expected) or not all(map(np.array_equal, result, self._expected)):
            raise WrongResultError("not the filtered images")

    def whole_ways(self) -> dict[str, list[tuple[str, Way]]]:
        """Each library as its users would write it, and the Pool as it was published."""
        n = self.n_workers
        return {
            SERIAL: [("", _serial)],
            "Pool": [
                ("image in every task, as published", partial(_pool_naive, n)),
                ("image by the initializer", partial(_pool, n)),
            ],
            "ProcessPoolExecutor": [("image by the initializer", partial(_executor, n))],
            "mpire": [("shared_objects, as published", partial(_mpire, n))],
            "process_map": [("image in every task", partial(_process_map, n))],
            "nbpar": [("", _nbpar)],
        }

    def kept_ways(self, argument: Any, team: Team, stack: ExitStack) -> dict[str, tuple[str, Way]]:
        """The image is with the forked workers from the start."""
        from benchmarks.tasks.images import filtered, filtered_kept, keep_image

        image, _ = argument
        ways: dict[str, tuple[str, Way]] = {
            "nbpar": ("nbpar.map", _nbpar_map),
            "joblib": ("image memory-mapped", partial(_joblib, self.n_workers)),
        }
        if team.has("Pool"):
            pool = stack.enter_context(forked_pool(self.n_workers, keep_image, (image,)))
            ways["Pool"] = ("image there already", lambda a: pool.map(filtered_kept, a[1]))
        if team.has("mpire"):
            import mpire

            kept = stack.enter_context(mpire.WorkerPool(self.n_workers, shared_objects=image, keep_alive=True))
            ways["mpire"] = ("image there already", lambda a: list(kept.imap(filtered, a[1], iterable_len=len(a[1]))))
        return ways


def _serial(argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered

    image, kernels = argument
    return [filtered(image, kernel) for kernel in kernels]


def _nbpar(argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered

    image, kernels = argument
    with nbpar.WorkerPool() as pool:
        shared = nbpar.share(image)
        return pool.map(lambda kernel: filtered(shared.value, kernel), kernels)


def _nbpar_map(argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered

    image, kernels = argument
    return nbpar.map(lambda kernel: filtered(image, kernel), kernels)


def _pool_naive(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered

    image, kernels = argument
    with forked_pool(n_workers) as pool:
        return list(pool.imap(partial(filtered, image), kernels))


def _pool(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered_kept, keep_image

    image, kernels = argument
    with forked_pool(n_workers, keep_image, (image,)) as pool:
        return pool.map(filtered_kept, kernels)


def _executor(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    from benchmarks.tasks.images import filtered_kept, keep_image

    image, kernels = argument
    with forked_executor(n_workers, keep_image, (image,)) as executor:
        return list(executor.map(filtered_kept, kernels))


def _mpire(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    import mpire

    from benchmarks.tasks.images import filtered

    image, kernels = argument
    with mpire.WorkerPool(n_jobs=n_workers, shared_objects=image) as pool:
        return list(pool.imap(filtered, kernels, iterable_len=len(kernels)))


def _process_map(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    from tqdm.contrib.concurrent import process_map

    from benchmarks.tasks.images import filtered

    image, kernels = argument
    return process_map(partial(filtered, image), kernels, max_workers=n_workers, chunksize=1, disable=True)


def _joblib(n_workers: int, argument: tuple[Image, Kernels]) -> Any:
    import joblib

    from benchmarks.tasks.images import filtered

    image, kernels = argument
    return joblib.Parallel(n_jobs=n_workers)(joblib.delayed(filtered)(image, kernel) for kernel in kernels)
