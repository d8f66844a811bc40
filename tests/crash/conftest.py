from __future__ import annotations

from collections.abc import Iterator

import pytest

import nbpar
from tests.backends.conftest import PROCESSES
from tests.helpers import until


@pytest.fixture(scope="session")
def crash_pools() -> Iterator[dict[str, nbpar.WorkerPool]]:
    found: dict[str, nbpar.WorkerPool] = {}
    yield found
    for pool in found.values():
        pool.shutdown(cancel=True)


@pytest.fixture(params=PROCESSES)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pool(method: str, crash_pools: dict[str, nbpar.WorkerPool]) -> Iterator[nbpar.WorkerPool]:
    """A warm pool of two processes that must be as good after each death as before."""
    if method not in crash_pools:
        crash_pools[method] = nbpar.WorkerPool(n_workers=2, start_method=method)  # type: ignore[arg-type]
    pool = crash_pools[method]
    pool.map(abs, [-1])
    until(lambda: len(pool.pids()) == 2)
    yield pool
    assert pool.map(abs, [-1, -2]) == [1, 2], "the pool is not what it was"
    until(lambda: len(pool.pids()) == 2)
