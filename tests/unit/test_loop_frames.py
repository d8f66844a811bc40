"""Loops over pandas' frames: those that run leave what serial leaves, the others are told what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nbpar.notebook.sameness import difference
from tests.loops.oracle import Refusal
from tests.loops.runner import Parallel

SETUP = """
from collections import defaultdict
import numpy as np
import pandas as pd
frame = pd.DataFrame({"a": [3, 1, 4, 1], "b": list("abab"), "c": [0.5, 1.5, np.nan, 2.5]})
series = pd.Series(dtype=float)
out, table, groups, column = [], {}, defaultdict(list), np.zeros(4)
"""


@pytest.fixture(scope="module")
def parallel() -> Iterator[Parallel]:
    with Parallel("serial") as run:
        yield run


def notebook() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SETUP, names)
    return names


def plain(value: Any) -> Any:
    """Rows of ``itertuples`` as tuples: each call makes a class of its own for them."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._fields, tuple(value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "cell",
    [
        "for row in frame.itertuples(): out.append(row.a * 2)",
        "for row in frame.itertuples(index=False): groups[row.b].append(row)",
        "for i, row in frame.iterrows(): out.append(row['a'] * 2)",
        "for i, row in frame.iterrows(): table[i] = row",
        "for i, row in frame.iterrows():\n    row = row.copy()\n    row['a'] = 0\n    out.append(row)",
        "for a, b in zip(frame['a'], frame['b']): groups[b].append(a)",
        "for name, part in frame.groupby('b'): table[name] = part['a'].mean()",
        "for name, part in frame.groupby('b'): out.append(part.describe())",
        "for k, part in frame.groupby('b'):\n    part = part.copy()\n    part['d'] = part.a * 2\n    out.append(part)",
        "for name in frame: table[name] = frame[name].nunique()",
        "for i in frame.index: out.append(frame.loc[i, 'a'] * 2)",
        "for i in range(len(frame)): column[i] = frame['c'].iloc[i] * 2",
        "for i in range(3):\n    new = pd.DataFrame([i])\n    new['j'] = 1\n    out.append(new)\nall_ = pd.concat(out)",
    ],
)
def test_a_loop_over_a_frame_leaves_what_serial_leaves(cell: str, parallel: Parallel) -> None:
    serial, names = notebook(), notebook()
    exec(cell, serial)
    unset: set[str] = set()
    parallel(cell, names, unset.add)
    assert not unset
    assert names.keys() == serial.keys()
    for name in serial.keys() - {"__builtins__"}:
        assert difference(plain(serial[name]), plain(names[name])) is None, name


@pytest.mark.parametrize(
    ("cell", "instead"),
    [
        ("for i in frame.index: frame.loc[i, 'd'] = i", "after the loop write `frame[column] = values`"),
        ("for i in frame.index: frame.at[i, 'd'] = i", "after the loop write `frame[column] = values`"),
        ("for i in range(4): frame.iloc[i, 0] = i", "after the loop write `frame[column] = values`"),
        ("for name in 'pq': frame[name] = 1", "`new[key] = value`, and put that into `frame` after the loop"),
        ("for name in 'ac': frame[name + '2'] = frame[name] * 2", "as in `new[name + '2'] = ...`"),
        ("for x in range(3): frame['a'] += x", "put that into `frame` after the loop"),
        ("for x in 'pq': series[x] = 1", "put that into `series` after the loop"),
        ("for i, row in frame.iterrows(): row['a'] = 0", "`row = row.copy()`"),
        ("for name, part in frame.groupby('b'): part['d'] = 1", "`part = part.copy()`"),
        ("for i in range(3): frame = pd.concat([frame, frame.iloc[:1]])", "`frame = pd.concat(parts)` once, after"),
        ("for i in range(3): column = np.append(column, i)", "`column = np.array(parts)` once, after the loop"),
        ("for i in range(3): frame.drop(columns='a', inplace=True)", "Write `new = frame.drop(...)`"),
        ("for i in range(3): frame.columns = list('xyz')", "after the loop"),
    ],
)
def test_a_loop_that_changes_a_frame_is_told_what_to_write_instead(cell: str, instead: str, parallel: Parallel) -> None:
    names, untouched = notebook(), notebook()
    unset: set[str] = set()
    with pytest.raises(Refusal) as refusal:
        parallel(cell, names, unset.add)
    assert instead in str(refusal.value)
    for name in untouched.keys() - {"__builtins__"}:
        assert difference(untouched[name], names[name]) is None, name
