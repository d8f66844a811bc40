"""A few generated calls in each session; ``python -m tests.interop.pandas_differential`` makes as many as one likes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nbpar
from tests.interop.pandas_differential import CALLS, search


@pytest.fixture(autouse=True, scope="module")
def _serial() -> Iterator[None]:
    nbpar.configure(start_method="serial")
    yield
    nbpar.configure()


@pytest.mark.parametrize("what", list(CALLS))
def test_generated_calls_give_what_pandas_gives(what: str) -> None:
    kinds = search(what, 60, first_seed=7)
    assert kinds.total() - kinds["refused"] - kinds["raised"] > 20
