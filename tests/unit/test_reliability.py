"""The page of promises: each names its tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = [part for part in re.split(r"\n(?=\*\*)|\n## ", PAGE) if part.startswith("**")]


def test_all_promises_are_there_in_order() -> None:
    numbers = [int(found[1]) for part in PROMISES if (found := re.match(r"\*\*(\d+)\. ", part))]
    assert numbers == list(range(1, 18))


@pytest.mark.parametrize("promise", PROMISES, ids=[part.split("**")[1][:40] for part in PROMISES])
def test_a_promise_names_tests_that_exist(promise: str) -> None:
    _, told, tests = promise.partition("\nTests: ")
    assert told, "no line of tests"
    names = re.findall("`([^`]+)`", tests)
    assert names
    for name in names:
        assert name.startswith("tests/") and (ROOT / name).is_file(), f"{name} is not there"


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
