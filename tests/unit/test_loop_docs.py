"""The page on loops is right: what it says runs does what serial does, and what it says is refused is, for that reason.

A row's code is a whole cell when it begins with ``for`` or ``while``, and the body of ``for x in xs:`` otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nbpar.notebook.options import OPTIONS
from tests.loops.oracle import Case, judge
from tests.loops.runner import Parallel

_transformer: Any = TransformerManager  # it has no types
IPYTHON = _transformer()
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "loops.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a section's tables, without headings."""
    found = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().replace(r"\|", "|") for cell in row] for row in found]


def code(cell: str) -> str:
    """The Python of a table's cell: a line for each piece of code in it."""
    text = "\n".join(re.findall(r"`(.*?)`", cell))
    if text.startswith("%"):
        text = IPYTHON.transform_cell(text).strip()
    return text if text.startswith(("for ", "while ")) else f"for x in xs:\n    {text}"


RUNS, REFUSED = section("What runs"), section("What is refused")
COPIES, RANDOM = section("What is a copy and what is not"), section("Random numbers")
SETUP, *LONG = blocks(RUNS)
MORE_SETUP, *_ = blocks(REFUSED)


@pytest.fixture(scope="module")
def serial() -> Iterator[Parallel]:
    with Parallel("serial") as run:
        yield run


def test_the_page_has_its_tables() -> None:
    assert len(rows(RUNS)) >= 20 and len(LONG) >= 3
    assert len(rows(REFUSED)) >= 30
    assert len(rows(COPIES)) >= 5


@pytest.mark.parametrize("cell", [*(code(row[0]) for row in rows(RUNS + COPIES)), *LONG, *blocks(RANDOM)])
def test_what_is_said_to_run_leaves_what_serial_leaves(cell: str, serial: Parallel) -> None:
    cell = cell.removeprefix("%%parallel\n")
    verdict = judge(Case(SETUP, cell), serial)
    assert verdict.kind == "same", verdict.reason
    assert not verdict.unset


@pytest.mark.parametrize("row", rows(REFUSED), ids=[row[0] for row in rows(REFUSED)])
def test_what_is_said_to_be_refused_is_for_that_reason(row: list[str], serial: Parallel) -> None:
    cell, reason, *_ = row
    verdict = judge(Case(SETUP + MORE_SETUP, code(cell)), serial)
    assert verdict.kind == "refused", verdict.reason
    assert reason.replace("`", "") in verdict.reason.split("\n")[0].replace("`", "")


def test_the_page_has_every_option() -> None:
    text = section("Options")
    assert [option.names[0] for option in OPTIONS if f"`{option.names[0]}" not in text] == []
