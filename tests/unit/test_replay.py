"""Loops run on a pool without workers: what they leave, in which order, and that a loop that fails leaves nothing."""

from __future__ import annotations

import copy
import sys
import traceback
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import JobInterrupt
from nbpar.notebook.loop_run import run_loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Refused, Source
from nbpar.notebook.undo import LARGE_BYTES, Undo, key_of


@pytest.fixture(scope="module")
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(start_method="serial") as made:
        yield made


class Stop:
    """Stops whoever adds it to something."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __radd__(self, _: object) -> object:
        raise self.error("stopped")

    def __repr__(self) -> str:
        return "Stop()"


def run(cell: str, pool: nbpar.WorkerPool, names: dict[str, Any], **call: Any) -> tuple[dict[str, Any], list[str]]:
    """Run a cell on a namespace; what it is afterwards, and the notes."""
    names.setdefault("__name__", "__main__")
    source, notes = Source(cell, filename="<the cell>"), []  # type: tuple[Source, list[str]]
    loop = read_loop(source.parse(cell), source, namespace=names, seeded=False)
    run_loop(loop, source, names, pool=pool, call={"progress": False, **call}, tell=notes.append)
    return names, notes


def serially(cell: str, names: dict[str, Any]) -> dict[str, Any]:
    names = {"__name__": "__main__", **copy.deepcopy(names)}
    exec(cell, names)
    return names


def pictured(names: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (type(value), value.tolist() if isinstance(value, np.ndarray) else repr(value))
        for name, value in names.items()
        if not name.startswith("__") and not callable(value) and name != "np"
    }


SAME = {
    "append": ("for x in xs:\n    out.append(x / 3)", {"out": [1]}),
    "float sum": ("for x in xs:\n    n += x / 7", {"n": 0.1}),
    "several in turn": (
        "for x in xs:\n    out.append(x)\n    if x % 2: out.append(-x)\n    n -= x",
        {"out": [], "n": 1},
    ),
    "dict": ("for x in xs:\n    d[x % 3] = x\n    d.update({x: 0}, y=x)", {"d": {"y": 1, 2: 0}}),
    "set": ("for x in xs:\n    s.add(x % 3)\n    s.update([x], {x + 1})", {"s": {99}}),
    "counter": ("for x in xs:\n    c[x % 2] += x\n    c.update('ab')", {"c": Counter("b")}),
    "ordered": ("for x in xs:\n    d[-x] = x\n    d[5] = 1", {"d": OrderedDict({5: 0})}),
    "deque": ("for x in xs:\n    q.append(x)", {"q": deque([1, 2], maxlen=3)}),
    "nested": ("for x in xs:\n    g[x % 2].append(x)\n    h[x % 2][x % 3].add(x)", {"g": defaultdict(list)}),
    "array": ("for x in xs:\n    a[x, :] += x\n    a[x][1] = 7\n    a[x:, 0] = 2", {"a": np.zeros((9, 2))}),
    "bytes": (
        "for x in xs:\n    b.append(x)\n    b[0] = x\n    r[0] += x",
        {"b": bytearray(b"ab"), "r": array("d", [1])},
    ),
    "in place": (
        "for x in xs:\n    o += [x]\n    t += (x,)\n    s |= {x}\n    w += 'a'",
        {"o": [], "t": (), "s": set(), "w": ""},
    ),
    "least": ("for x in xs:\n    low = min(low, -x)\n    high = max(x, high)", {"low": 0, "high": 1.0}),
    "last names": ("for i, (x, *rest) in enumerate([(1, 2), (3,)]):\n    y = x\n    if i == 0: z = rest", {}),
    "items": ("for row in rows:\n    row['y'] = row['x'] * 2\n    row['l'].append(1)", {"rows": [{"x": 1, "l": []}]}),
    "unset": (
        "for x in xs:\n    y = x\n    del y\n    try:\n        1 / x\n    except ArithmeticError as e:\n        z = 1",
        {},
    ),
    "no items": ("for x in []:\n    y = x\n    out.append(x)", {"out": [], "x": 5}),
    "around": ("m = [2]\nfor x in xs:\n    m.append(x)\nelse:\n    k = len(m)\nm = m[::-1]", {}),
    "an iterator": ("for x in zip(xs, 'abc'):\n    out.append(x)", {"out": []}),
    "a slice": ("for x in xs:\n    o[x:x + 1] = [x, x]\n    o[-1:] = (i for i in range(x))", {"o": [0] * 9}),
    "constants": ("for x in xs:\n    n += 1\n    out.append('a')\n    d['k'] = None", {"n": 0, "out": [], "d": {}}),
    "slots": ("for i in range(len(a)):\n    a[i] = a[i] * 2 + 1", {"a": [1, 2, 3]}),
}


@pytest.mark.parametrize(("cell", "names"), SAME.values(), ids=SAME)
def test_a_loop_leaves_what_it_leaves_serially(pool: nbpar.WorkerPool, cell: str, names: dict[str, Any]) -> None:
    made: dict[str, Any] = {"h": defaultdict(_sets)} if "h[" in cell else {}
    names = {"xs": [3, 1, 0, 2], **made, **copy.deepcopy(names)}
    expected = serially(cell, names)
    got, notes = run(cell, pool, names)
    assert pictured(got) == pictured(expected)
    assert notes == []


def _sets() -> Any:
    return defaultdict(set)


_PYTHONS = {"__name__", "__builtins__"}

FAILS = {
    "list": ("out.append(x)\n    out[0] = x", {"out": [1]}),
    "grown": ("out.append(x)\n    out.extend([x, x])", {"out": [1]}),
    "own slot": ("d[x] += [x]", {"d": {0: [1], 1: [], 2: [5]}}),
    "dict": ("d[x] = 1\n    d.update(b=1)", {"d": {"b": 0, "a": 1}}),
    "ordered": ("d['a'] = x", {"d": OrderedDict({"b": 0, "a": 1})}),
    "made": ("g[x].append(x)", {"g": defaultdict(list, {1: [1]})}),
    "made deeper": ("g[x][x].add(x)", {"g": defaultdict(_sets)}),
    "set": ("s.add(x)\n    s |= {7}", {"s": {1}}),
    "deque": ("q.append(x)", {"q": deque([1, 2], maxlen=2)}),
    "array": ("a[x] = 5\n    a[x:] += 1\n    a += 1", {"a": np.arange(4.0)}),
    "objects": ("a[x] += [1]", {"a": np.array([[1], [2], [3]], dtype=object)}),
    "large": ("a[x, 1:] = 5\n    a[[0, x]] += 1\n    a[7] = 1", {"a": np.zeros((8, LARGE_BYTES // 32))}),
    "bytes": ("b.append(x)\n    r[0] += x", {"b": bytearray(b"ab"), "r": array("d", [1])}),
    "bound": ("n += x\n    o = [x]\n    low = min(low, x)", {"n": 1.5, "low": 4}),
    "items": ("row = rows[x]\n    k += 1", {"rows": [1, 2, 3], "k": 0}),
}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError], ids=lambda error: error.__name__)
@pytest.mark.parametrize(("body", "names"), FAILS.values(), ids=FAILS)
def test_a_replay_that_fails_at_its_end_leaves_nothing(
    pool: nbpar.WorkerPool, body: str, names: dict[str, Any], error: type[BaseException]
) -> None:
    names = copy.deepcopy(names)
    names = {"xs": [0, 1, 2], "x": "old", "end": 0, "stop": Stop(error), **names}
    known, before = dict(names), pictured(copy.deepcopy(names))
    cell = f"new = 1\nend = 0\nfor x in xs:\n    {body}\n    end += stop if x == 2 else 0"
    with pytest.raises(JobInterrupt if error is KeyboardInterrupt else error):
        run(cell, pool, names)
    assert pictured(names) == before
    assert all(names[name] is known[name] for name in known)
    assert names.keys() - _PYTHONS == known.keys()


def test_items_that_were_changed_are_as_before_when_the_replay_fails(pool: nbpar.WorkerPool) -> None:
    rows: list[dict[str, Any]] = [{"x": 1, "l": [5]}, {"x": 2, "l": []}]
    names = {"rows": rows, "n": 0, "stop": Stop(ValueError)}
    with pytest.raises(ValueError, match="stopped"):
        run("for row in rows:\n    row['y'] = 1\n    row['l'].append(2)\n    n += stop", pool, names)
    assert rows == [{"x": 1, "l": [5]}, {"x": 2, "l": []}]


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("a = 1\nfor x in xs:\n    b = 1\n    c = 1 / x", 4),
        ("a = 1\nfor x in 1 / 0:\n    b = 1", 2),
        ("a = 1\nfor x in (\n  1 / 0 for _ in 'a'):\n    b = 1", 3),
        ("a = 1\nfor x in xs:\n    if x == 0:\n        n += zero", 4),
        ("a = 1 / 0\nfor x in xs:\n    b = 1", 1),
        ("for x in xs:\n    b = 1\n(1 /\n  0)", 3),
    ],
    ids=["body", "iterable", "iterated", "replay", "before", "after"],
)
def test_a_traceback_has_the_line_of_the_cell(pool: nbpar.WorkerPool, cell: str, line: int) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(cell, pool, {"xs": [1, 0], "n": 0, "zero": Stop(ZeroDivisionError)})
    lines = [
        frame.lineno for frame in traceback.extract_tb(caught.value.__traceback__) if frame.filename == "<the cell>"
    ]
    assert lines[-1] == line


def test_an_error_after_the_loop_leaves_what_the_loop_has_left(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"out": []}
    with pytest.raises(ZeroDivisionError):
        run("k = 1\nfor x in [1, 2]:\n    out.append(x)\nj = 2\n1 / 0", pool, names)
    assert (names["out"], names["k"], names["j"], names["x"]) == ([1, 2], 1, 2, 2)


def test_an_error_before_the_loop_leaves_what_came_before_it(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"out": []}
    with pytest.raises(ZeroDivisionError):
        run("k = 1\n1 / 0\nfor x in [1, 2]:\n    out.append(x)", pool, names)
    assert (names["out"], names["k"]) == ([], 1)


def test_an_effect_that_a_try_would_have_caught_is_refused_when_it_fails(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"out": [0, 0], "seen": []}
    cell = "for x in [0, 5]:\n    try:\n        out[x] = 1\n    except IndexError:\n        seen.append(x)"
    with pytest.raises(Refused, match=r"IndexError.*Take it out of there") as caught:
        run(cell, pool, names)
    assert caught.value.place is not None
    assert caught.value.place.line == 3
    assert (names["out"], names["seen"]) == ([0, 0], [])


def test_with_on_error_skip_a_failing_iteration_leaves_nothing(pool: nbpar.WorkerPool) -> None:
    cell = "for x in [2, 1, 0]:\n    out.append(x)\n    y = 1 / x\n    n += y"
    names, _ = run(cell, pool, {"out": [], "n": 0}, on_error="skip")
    assert (names["out"], names["n"], names["x"], names["y"]) == ([2, 1], 1.5, 1, 1.0)
    names, _ = run("for x in [0]:\n    y = 1 / x", pool, {"x": "old"}, on_error="skip")
    assert (names["x"], "y" in names) == ("old", False)


def test_what_was_stored_is_the_notebooks_own_object(pool: nbpar.WorkerPool) -> None:
    rows = [{"k": [1]}, {"k": [2]}]
    names: dict[str, Any] = {"rows": rows, "good": [], "by": {}, "extra": [[0]]}
    cell = "for i, row in enumerate(rows):\n    good.append(row)\n    by[i] = (row['k'], extra[0])\n    last = [row]"
    run(cell, pool, names)
    assert all(a is b for a, b in zip(names["good"], rows, strict=True))
    assert all(names["by"][i][0] is rows[i]["k"] and names["by"][i][1] is names["extra"][0] for i in (0, 1))
    assert names["row"] is names["last"][0] is rows[1]


def test_a_name_whose_last_value_cannot_come_back_is_unset_and_named(pool: nbpar.WorkerPool) -> None:
    names, notes = run("for x in [1]:\n    g = (i for i in [x])\n    y = 2", pool, {"g": "old"})
    assert ("g" in names, names["y"]) == (False, 2)
    assert len(notes) == 1
    assert notes[0].startswith("`g` is not set: ")


def test_what_the_body_has_made_does_not_get_out(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"out": []}
    with pytest.raises(Refused, match="holds a lambda") as caught:
        run("for x in [1]:\n    out.append(lambda: x)", pool, names)
    assert caught.value.place is not None
    assert caught.value.place.line == 2
    assert names.keys() - _PYTHONS == {"out"}


def test_an_error_says_that_nothing_was_kept(pool: nbpar.WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("for x in [1, 0]:\n    out.append(1 / x)", pool, {"out": []})
    notes = "\n".join(caught.value.__notes__)
    assert "nothing of the loop was kept" in notes
    assert "item 1 = 0" in notes
    assert "retry_failed" not in notes
    assert not caught.value.results  # type: ignore[attr-defined]  # what the job has are notes, not results


def test_a_cell_that_is_not_python_is_refused_before_anything_runs(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"out": []}
    with pytest.raises(Refused, match="return"):
        run("out.append(1)\nfor x in [1]:\n    out.append(x)\nreturn 5", pool, names)
    assert names["out"] == []


# --- the way back -----------------------------------------------------------------------------------------------------


def test_going_back_goes_on_after_an_interrupt() -> None:
    class Slow(dict[str, Any]):
        n_interrupts = 2

        def __setitem__(self, key: str, value: Any) -> None:
            if Slow.n_interrupts:
                Slow.n_interrupts -= 1
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    undo, target, names = Undo(), [1], Slow(a=1)
    undo.bind(names, "a")
    undo.keep(target)
    target.append(2)
    dict.__setitem__(names, "a", 5)
    with pytest.raises(KeyboardInterrupt):
        undo.undo()
    assert (target, dict(names)) == ([1], {"a": 1})


def test_of_a_large_array_only_what_is_written_over_is_kept() -> None:
    undo = Undo()
    target = np.zeros((LARGE_BYTES, 2))
    undo.keep_item(target, key_of[1, :])
    target[1, :] = 5
    undo.keep_item(target, key_of[[1, 3]])
    target[[1, 3]] = 6
    undo.keep_item(target, key_of[LARGE_BYTES])  # no such row: the statement says so
    undo.undo()
    assert not target.any()
    assert sys.getsizeof(target) > LARGE_BYTES


def test_an_object_of_a_type_with_no_known_way_back_is_refused() -> None:
    class Own:
        def __iadd__(self, other: object) -> Own:
            return self

    with pytest.raises(Refused, match="Own is changed in place"):
        Undo().keep(Own())
    Undo().keep(object())


@pytest.mark.parametrize(
    "body",
    [
        "groups[x] = settings\ngroups[x].append(1)\nout.append(len(settings))",
        "groups[x] = get()\ngroups[x] += [1]\nout.append(len(get()))",
        "groups[x] = settings[0]\ngroups[x].append(1)\nout.append(len(settings[0]))",
        "groups[0] = rows[x]\ngroups[0].append(1)\nout.append(len(rows[x]))",
    ],
)
def test_what_the_loop_reads_is_not_changed_where_the_loop_has_stored_it(body: str, pool: nbpar.WorkerPool) -> None:
    cell = "for x in range(2):\n" + "\n".join(f"    {line}" for line in body.split("\n"))
    names: dict[str, Any] = {"groups": {}, "out": [], "settings": [[]], "rows": [[], []]}
    exec("def get(): return settings", names)
    before = pictured(names)
    with pytest.raises(Refused, match="that the loop has stored there, and that it also reads"):
        run(cell, pool, names)
    names.pop("__name__")
    assert pictured(names) == before


def test_an_item_is_not_changed_where_the_loop_has_stored_it(pool: nbpar.WorkerPool) -> None:
    names: dict[str, Any] = {"groups": {}, "out": [], "rows": [[], []]}
    with pytest.raises(Refused, match="as `row` or a part of it"):
        run("for row in rows:\n    groups[0] = row\n    groups[0].append(1)\n    out.append(row)", pool, names)
    assert names["rows"] == [[], []] and names["out"] == [] and names["groups"] == {}
