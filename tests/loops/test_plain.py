"""Loops as people write them, which must run: a refusal of what is plainly data-parallel is a fault, too."""

from __future__ import annotations

import pytest

from tests.loops.oracle import Case, Verdict, judge
from tests.loops.runner import Parallel
from tests.loops.texts import complete, read

PLAIN = {block.name: Case(complete(block.setup, block.cell), block.cell + "\n", True) for block in read("plain.txt")}

SHARE_THAT_RUNS = 0.9


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    with Parallel("serial") as run:
        return {name: judge(case, run) for name, case in PLAIN.items()}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_loop_is_never_wrong(name: str, verdicts: dict[str, Verdict]) -> None:
    assert not verdicts[name].is_wrong, verdicts[name].reason
    assert not verdicts[name].serial_raised


def test_nearly_all_plain_loops_run(verdicts: dict[str, Verdict]) -> None:
    refused = {name: verdict.reason for name, verdict in verdicts.items() if verdict.kind != "same"}
    assert len(refused) <= (1 - SHARE_THAT_RUNS) * len(PLAIN), refused


def test_nearly_all_plain_loops_run_on_processes() -> None:
    with Parallel("forkserver") as run:
        found = {name: judge(case, run) for name, case in PLAIN.items()}
    assert not {name: verdict.reason for name, verdict in found.items() if verdict.is_wrong}
    assert sum(verdict.kind == "same" for verdict in found.values()) >= SHARE_THAT_RUNS * len(PLAIN)
