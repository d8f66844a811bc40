"""Wrong answers that were found once, by generated cells or by hand: ``found.txt`` has them by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.loops.oracle import Case, judge
from tests.loops.runner import Parallel
from tests.loops.texts import complete, read

FOUND = {block.name: Case(complete(block.setup, block.cell), block.cell + "\n") for block in read("found.txt")}


@pytest.fixture(scope="module", params=["serial", "forkserver"])
def run(request: pytest.FixtureRequest) -> Iterator[Parallel]:
    with Parallel(request.param) as found:
        yield found


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_found_no_more(name: str, run: Parallel) -> None:
    verdict = judge(FOUND[name], run)
    assert not verdict.is_wrong, verdict.reason
