"""The study of front doors: its programs are programs, for both imports."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.studies.doors import CASES, Case, Doors

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_case
def test_a_program_is_python_with_either_import(case: Case) -> None:
    for imports in (case.theirs, case.ours):
        program = case.program(imports, n_workers=2, n_times=1)
        compile(program, "<program>", "exec")
        assert f"\n{imports}\n" in program


@by_case
def test_the_doors_import_gives_the_name_that_the_program_uses(case: Case) -> None:
    ours: dict[str, Any] = {}
    exec(case.ours, ours)
    name = case.theirs.split()[-1]
    assert callable(ours[name])
    assert f"{name}(" in case.program("", n_workers=2, n_times=1)


def test_a_case_is_measured_with_both_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Case("sum", "math", "from math import fsum", "from math import fsum", "result = fsum([1, 2])", "result == 3")
    wrong = Case("wrong", "math", "from math import fsum", "from math import fsum", "result = 4", "result == 3")
    absent = Case("absent", "no_such_library", "", "", "result = 3", "result == 3")
    monkeypatch.setattr("benchmarks.studies.doors.CASES", (one, wrong, absent))
    table = Doors(n_workers=1, is_quick=True).run([]).lines
    rows = [line.split("|")[1:-1] for line in table[2:]]
    assert [row[0].strip() for row in rows] == ["sum", "wrong"]
    assert all(float(cell) > 0 for cell in rows[0][1:])
    assert "AssertionError: 4" in rows[1][1]
