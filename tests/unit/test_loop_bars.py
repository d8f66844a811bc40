"""A bar of tqdm around a loop's iterable, which would be through before the first task begins."""

from __future__ import annotations

import pytest
from tqdm import tqdm, trange

from tests.loops.runner import Parallel


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("for x in tqdm([3, 1, 2]): out.append(x)", [3, 1, 2]),
        ("for x in tqdm((y for y in range(3)), total=3): out.append(x)", [0, 1, 2]),
        ("for x in trange(2): out.append(x)", [0, 1]),
        ("for x in tqdm({'a': 1}): out.append(x)", ["a"]),
    ],
)
def test_a_bar_around_the_iterable_is_taken_away(
    cell: str, items: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"__name__": "__main__", "tqdm": tqdm, "trange": trange, "out": []}
    unset: list[str] = []
    with Parallel("serial") as run:
        run(cell, names, unset.append)
    assert names["out"] == items
    assert "100%" not in capsys.readouterr().err


def test_a_bar_that_has_a_name_goes_on_as_it_does_serially(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "__main__", "tqdm": tqdm, "out": []}
    unset: list[str] = []
    with Parallel("serial") as run:
        run("bar = tqdm(range(3))\nfor x in bar: out.append(x)\nn = bar.n", names, unset.append)
    assert (names["out"], names["n"]) == ([0, 1, 2], 3)
    assert "100%" in capsys.readouterr().err
