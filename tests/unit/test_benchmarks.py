"""The benchmarks still run: a smoke test with small sizes, against the standard library, as ``make bench`` does it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core import Timed, Workload, WrongResultError
from benchmarks.figures import Figures
from benchmarks.targets import AtLeast
from benchmarks.team import Team
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
SOME = "ten-thousand,small-maps,arrays-in-out,shared"


def test_a_quick_run_checks_its_results_and_writes_the_tables(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--peers", "Pool,ProcessPoolExecutor", "--only", SOME]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=50, cwd=ROOT, env={**os.environ, "MPLBACKEND": ""}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "wrong result" not in page
    assert "Not run" not in page
    tables = page.split("\n### ")[1:]
    assert len(tables) == len(SOME.split(","))
    for table in tables:
        for library in ("**nbpar**", "serial", "Pool", "ProcessPoolExecutor"):
            # Times, ratios, CPU seconds and memory: no cell is empty but that of nbpar's ratio to itself.
            rows = [line for line in table.splitlines() if line.startswith((f"| {library} ", f"| {library}, "))]
            assert rows, f"{library} is missing in {table}"
            assert all(cell.strip() for row in rows for cell in row.strip("|").split("|")), rows
    assert (tmp_path / "results.svg").read_text(encoding="utf-8").count("<path") > 10


@pytest.mark.parametrize(
    "kind", [kind for kind in WORKLOADS if kind.name != "mpire-images"], ids=lambda kind: kind.name
)
def test_a_workload_accepts_its_result_and_refuses_another_one(kind: type[Workload]) -> None:
    # The images are left out: their task needs scipy, which only `make bench` installs.
    workload = kind(n_workers=2, is_quick=True)
    with Team(["serial" if "serial" in kind.peers else "nbpar"], n_workers=2) as team:
        assert not team.absent
        with workload.contenders(team) as contenders:
            argument = contenders[0].prepare()
            result = contenders[0].call(argument)
            value = list(result.value if isinstance(result, Timed) else result)
            workload.check(argument, value)
            with pytest.raises(WrongResultError):
                workload.check(argument, [*value, "nonsense"])


def test_a_target_is_missed_met_or_not_measured() -> None:
    figures = Figures()
    target = AtLeast(2.0, ("Pool",))
    assert target.judge(figures).is_met is None
    figures.row("Pool", "").ratios["wall"] = [1.0, 1.9, 3.0]
    assert target.judge(figures) == ("at least 2 against Pool", "1.90 (1.45 to 2.45)", False)
    figures.row("Pool", "chunks of 5").ratios["wall"] = [2.5]
    assert target.judge(figures).is_met is False  # the best tuning counts
    figures.row("Pool", "").problem = "wrong result"
    assert target.judge(figures).is_met is True
