"""Pools of every kind. The shared ones stay warm over the tests, and must be as good after each test as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nbpar
from tests.helpers import until

PROCESSES = ("forkserver", "spawn", "fork")
METHODS = (*PROCESSES, "threads", "serial")
WITH_WORKERS = (*PROCESSES, "threads")

MakePool = Callable[..., nbpar.WorkerPool]


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[str, nbpar.WorkerPool]]:
    found: dict[str, nbpar.WorkerPool] = {}
    yield found
    for pool in found.values():
        pool.shutdown(cancel=True)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_pool(method: str) -> Iterator[MakePool]:
    """Makes pools of the method under test, and ends them."""
    made: list[nbpar.WorkerPool] = []

    def make(**options: Any) -> nbpar.WorkerPool:
        if method != "serial":
            options.setdefault("n_workers", 2)
        made.append(nbpar.WorkerPool(start_method=method, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown(cancel=True)


@pytest.fixture
def pool(method: str, pools: dict[str, nbpar.WorkerPool]) -> Iterator[nbpar.WorkerPool]:
    """The warm pool of the method under test."""
    if method not in pools:
        pools[method] = nbpar.WorkerPool(n_workers=1 if method == "serial" else 2, start_method=method)  # type: ignore[arg-type]
    pool = pools[method]
    pool.map(abs, [-1])
    yield pool
    assert pool.map(abs, [-1, -2]) == [1, 2], "the pool is not what it was"
    until(lambda: len(pool.pids()) == pool.n_workers)


def only(*methods: str) -> pytest.MarkDecorator:
    """Run a test for some methods only."""
    return pytest.mark.parametrize("method", methods)
