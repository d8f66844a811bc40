"""Thousands of loop cells that a machine wrote: each leaves what serial leaves, bit for bit, or nothing at all.

``make loops`` runs twenty thousand and says how many ran, were refused and why; what it finds becomes a named example
in :mod:`tests.loops.test_found`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.loops.oracle import Case, judge
from tests.loops.runner import Parallel
from tests.loops.strategy import case_of, cases

generated = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def serial() -> Iterator[Parallel]:
    with Parallel("serial") as run:
        yield run


@pytest.fixture(scope="module")
def processes() -> Iterator[Parallel]:
    with Parallel("forkserver") as run:
        yield run


@settings(generated, max_examples=200)
@given(case=cases(traps=False))
def test_plain_cells(case: Case, serial: Parallel) -> None:
    verdict = judge(case, serial)
    assert not verdict.is_wrong, f"{verdict.reason}\n{case}"


@settings(generated, max_examples=200)
@given(case=cases(traps=True))
def test_cells_with_traps(case: Case, serial: Parallel) -> None:
    verdict = judge(case, serial)
    assert not verdict.is_wrong, f"{verdict.reason}\n{case}"


@pytest.mark.parametrize("part", range(12))
def test_cells_by_number(part: int, serial: Parallel) -> None:
    """Without hypothesis, which takes as long to make a cell as it takes to run it: the same ones each time."""
    for seed in range(135 * part, 135 * (part + 1)):
        case = case_of(seed)
        verdict = judge(case, serial)
        assert not verdict.is_wrong, f"case_of({seed}): {verdict.reason}\n{case}"


@pytest.mark.parametrize("part", range(5))
def test_cells_on_processes(part: int, processes: Parallel) -> None:
    for seed in range(5000 + 40 * part, 5000 + 40 * (part + 1)):
        case = case_of(seed)
        verdict = judge(case, processes)
        assert not verdict.is_wrong, f"case_of({seed}): {verdict.reason}\n{case}"


def test_plain_cells_run_and_are_not_refused(serial: Parallel) -> None:
    """Of what serial does without an error."""
    verdicts = [judge(case_of(seed, traps=False), serial) for seed in range(10**5, 10**5 + 200)]
    fine = [verdict for verdict in verdicts if not verdict.serial_raised]
    assert len(fine) > 120
    assert sum(verdict.kind == "same" for verdict in fine) >= 0.9 * len(fine)
