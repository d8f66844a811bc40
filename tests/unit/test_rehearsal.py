"""`--check K`: values compared bit for bit, tasks run once more on copies, and what is said of it."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import decimal
import fractions
import random
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbpar
from nbpar.errors import CheckError, TaskError
from nbpar.notebook.loop_run import run_loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.rehearsal import Rehearsal, imap_and_check, map_and_check
from nbpar.notebook.sameness import difference
from nbpar.notebook.source import Refused, Source

NAN = float("nan")
OTHER_NAN = float("-nan")


class Point:
    def __init__(self, x: Any, y: Any = 0) -> None:
        self.x = x
        self.y = y


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


class Tolerant(Point):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tolerant) and round(self.x) == round(other.x)

    __hash__ = None  # type: ignore[assignment]


class Named(list[int]):
    name = ""


class Opaque:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("it cannot be taken apart")


Pair = collections.namedtuple("Pair", "left right")


def _named(name: str) -> Named:
    made = Named([1])
    made.name = name
    return made


def _adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def _ring() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


SAME: list[Callable[[], Any]] = [
    lambda: NAN,
    lambda: [1, "a", b"b", None, True, 1.5, 2j, range(3)],
    lambda: {"b": [NAN], "a": {1, 2, "x"}, (1, 2): frozenset({NAN})},
    lambda: np.array([1.0, NAN, -0.0]),
    lambda: np.arange(12).reshape(3, 4)[:, ::2],
    lambda: np.array([1, "a", None, [NAN]], dtype=object),
    lambda: np.float32(0.1),
    lambda: np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    lambda: np.datetime64("NaT"),
    lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[3, 4]),
    lambda: pd.Series([1.0, NAN], name="s"),
    lambda: pd.Index(["a", "b"]),
    lambda: pd.Timestamp("2020-01-01", tz="UTC"),
    lambda: Point([NAN], Slotted(1)),
    lambda: Tolerant(1.1),
    lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    lambda: (decimal.Decimal("1.10"), fractions.Fraction(1, 3)),
    lambda: collections.Counter("abca"),
    lambda: collections.defaultdict(list, a=[1]),
    lambda: collections.deque([1, 2], maxlen=3),
    lambda: collections.OrderedDict(a=1, b=2),
    lambda: Pair(1, [2]),
    lambda: _named("a"),
    lambda: ValueError("no", 3),
    lambda: _adder(2),
    lambda: int,
    lambda: len,
    lambda: np,
    lambda: np.random.default_rng(3).random,
    lambda: bytearray(b"abc"),
    _ring,
]


@pytest.mark.parametrize("make", SAME)
def test_values_that_are_made_twice_are_the_same(make: Callable[[], Any]) -> None:
    assert difference(make(), make()) is None


DIFFERENT: list[tuple[Any, Any, str]] = [
    (1, 1.0, ""),
    (1, True, ""),
    (0.0, -0.0, ""),
    (0.1 + 0.2, 0.3, ""),
    (complex(0.0, 1), complex(-0.0, 1), ""),
    ([1, 2], [1, 3], "[1]"),
    ([1, 2], [1], ""),
    ([1, 2], (1, 2), ""),
    ({"a": {"b": 1}}, {"a": {"b": 2}}, "['a']['b']"),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ""),
    ({1: 0}, {True: 0}, ""),
    ({1, 2}, {1, 3}, ""),
    ({1}, {1.0}, ""),
    (np.array([1, 2]), np.array([1, 3]), ""),
    (np.array([1, 2]), np.array([1.0, 2.0]), ""),
    (np.zeros((2, 3)), np.zeros((3, 2)), ""),
    (np.array([0.0]), np.array([-0.0]), ""),
    (np.array([NAN, 1.0]), np.array([NAN, 2.0]), ""),
    (np.array([[1]], dtype=object), np.array([[2]], dtype=object), "[0][0]"),
    (np.float64(0.1), np.float64(0.2), ""),
    (np.float64(0.5), 0.5, ""),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]}), ""),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[5]), ""),
    (pd.Series([1], name="a"), pd.Series([1], name="b"), ""),
    (Point(1, [2, 3]), Point(1, [2, 4]), ".y[1]"),
    (Slotted(1), Slotted(2), ".x"),
    (Tolerant(1.1), Tolerant(2.1), ".x"),
    (Pair(1, [2]), Pair(1, [3]), ".right[0]"),
    (_named("a"), _named("b"), ".__dict__['name']"),
    (collections.defaultdict(list), collections.defaultdict(set), ".default_factory"),
    (ValueError("a"), ValueError("b"), ".args[0]"),
    (dt.date(2020, 1, 1), dt.date(2020, 1, 2), ""),
    (lambda x: x + 1, lambda x: x + 2, ""),
    (int, float, ""),
    (Opaque(), Opaque(), ""),
    (collections.deque([1], maxlen=2), collections.deque([1], maxlen=3), ""),
]


@pytest.mark.parametrize(("one", "other", "path"), DIFFERENT)
def test_values_that_differ_are_told_with_the_way_to_the_part(one: Any, other: Any, path: str) -> None:
    found = difference(one, other)
    assert found is not None
    assert found[0] == path
    assert difference(one, one) is None


def test_nan_of_any_kind_is_nan() -> None:
    assert difference(NAN, OTHER_NAN) is None
    assert difference(np.array([NAN]), np.array([OTHER_NAN])) is None
    assert difference({NAN}, {OTHER_NAN}) is None


def test_what_is_deep_is_compared_by_its_own_equality() -> None:
    deep: list[Any] = []
    other: list[Any] = []
    for _ in range(100_000):
        deep, other = [deep], [other]
    assert difference(deep, other) is not None  # `==` gives up as well: not known to be the same


# --- tasks ------------------------------------------------------------------------------------------------------------


def notebook(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(code), namespace)
    return namespace


@pytest.fixture(scope="module")
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(start_method="serial") as made:
        yield made


def serial(function: Callable[[Any], Any], items: Any, **_: Any) -> list[Any]:
    """Stands for a pool's `map`."""
    return [function(item) for item in items]


def test_one_line_is_said_when_all_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    task = notebook("def task(x):\n    print('a line')\n    return [x, {x: float('nan')}]")["task"]
    assert len(map_and_check(serial, task, range(5), 3, {})) == 5
    assert capsys.readouterr().out == "a line\n" * 5 + "first 3 items: the same serially\n"
    map_and_check(serial, task, [7], 3, {})
    assert capsys.readouterr().out == "a line\nfirst item: the same serially\n"
    map_and_check(serial, task, [], 3, {})
    assert capsys.readouterr().out == ""


def test_nothing_is_run_twice_without_the_option() -> None:
    ran: list[int] = []
    assert map_and_check(serial, ran.append, [1, 2], None, {}) == [None, None]
    assert ran == [1, 2]


def test_difference_names_the_item_both_values_and_likely_causes() -> None:
    def wrong(function: Any, items: Any, **_: Any) -> list[Any]:
        return [{"mean": x, "n": 3} for x in items]

    task = notebook("def task(x):\n    return {'mean': x if x != 5 else 0.5, 'n': 3}")["task"]
    with pytest.raises(CheckError) as caught:
        map_and_check(wrong, task, [4, 5, 6], 3, {})
    assert caught.value.index == 1
    assert str(caught.value).splitlines()[:3] == [
        "--check: item 1 = 5 does not give the same serially, at ['mean']",
        "  in a worker: 5",
        "  serially:    0.5",
    ]
    assert "--seed" in str(caught.value)
    assert caught.value._render_traceback_() == [f"CheckError: {caught.value}"]


def test_only_the_first_items_are_looked_at() -> None:
    task = notebook("def task(x):\n    return x if x < 2 else -x")["task"]
    assert map_and_check(lambda f, items, **_: list(items), task, range(5), 2, {}) == [0, 1, 2, 3, 4]
    with pytest.raises(CheckError, match="item 2 = 2 "):
        map_and_check(lambda f, items, **_: list(items), task, range(5), 3, {})


def test_iterators_are_gone_through_once() -> None:
    task = notebook("def task(x):\n    return -x")["task"]
    assert map_and_check(serial, task, iter([1, 2, 3]), 2, {}) == [-1, -2, -3]
    assert map_and_check(serial, task, np.arange(3), 2, {}) == [0, -1, -2]


def test_failures_are_compared_too(pool: nbpar.WorkerPool) -> None:
    task = notebook("def task(x):\n    if x == 1: raise ValueError('one')\n    return x")["task"]
    found = map_and_check(pool.map, task, range(3), 3, {"on_error": "return"})
    assert [type(one) for one in found] == [int, TaskError, int]
    assert map_and_check(pool.map, task, range(4), 3, {"on_error": "skip"}) == [0, 2, 3]
    with pytest.raises(CheckError, match=r"(?s)worker: 1\n.*serially:    raised ValueError: one"):
        map_and_check(lambda f, items, **_: list(items), task, range(3), 3, {})


def test_notebook_is_left_alone_and_random_numbers_too(pool: nbpar.WorkerPool) -> None:
    names = notebook("""
        import random
        seen, items = [], [[1], [2]]
        def task(x):
            seen.append(x)
            x.append(0)
            random.random()
            return len(x)
    """)
    before = random.getstate()
    rehearsal = Rehearsal(names["task"], names["items"], 2)
    rehearsal.compare([2, 2])
    assert (names["seen"], names["items"]) == ([], [[1], [2]])
    assert random.getstate() == before


def test_copies_are_made_before_the_job_begins(pool: nbpar.WorkerPool) -> None:
    names = notebook("items = [[1], [2]]\ndef task(x):\n    x.append(0)\n    return list(x)")
    assert map_and_check(pool.map, names["task"], names["items"], 2, {}) == [[1, 0], [2, 0]]


def test_random_numbers_are_the_same_with_a_seed_alone(pool: nbpar.WorkerPool) -> None:
    task = notebook("""
        import random, numpy, nbpar
        def task(x):
            return random.random(), numpy.random.random(), nbpar.current_task().rng.random(), nbpar.current_task().index
    """)["task"]
    assert len(map_and_check(pool.map, task, range(4), 3, {"seed": 5})) == 4
    with pytest.raises(CheckError, match="random numbers"):
        map_and_check(pool.map, task, range(4), 3, {})


def test_results_of_a_class_of_the_notebook_are_the_same(pool: nbpar.WorkerPool) -> None:
    task = notebook("""
        class Result:
            def __init__(self, x):
                self.x = x
        def task(x):
            return Result([x, Result(x)])
    """)["task"]
    assert [one.x[0] for one in map_and_check(pool.map, task, range(3), 3, {})] == [0, 1, 2]


def test_coroutines_are_rehearsed_as_well_where_an_event_loop_runs(pool: nbpar.WorkerPool) -> None:
    task = notebook("import asyncio\nasync def task(x):\n    await asyncio.sleep(0.001)\n    return x * x")["task"]

    async def cell() -> list[Any]:
        return map_and_check(pool.map, task, range(5), 4, {})

    assert asyncio.run(cell()) == [0, 1, 4, 9, 16]


def test_interrupt_of_the_rehearsal_is_the_users() -> None:
    task = notebook("def task(x):\n    raise KeyboardInterrupt")["task"]
    with pytest.raises(KeyboardInterrupt):
        map_and_check(lambda f, items, **_: list(items), task, [1], 1, {})


def test_task_that_cannot_be_copied_is_refused(pool: nbpar.WorkerPool) -> None:
    generator = (x for x in [1])
    with pytest.raises(Refused, match=r"--check runs a copy of the task, and there can be none: .*generator"):
        map_and_check(pool.map, lambda x: next(generator), [1], 1, {})


@pytest.mark.parametrize(("n_taken", "fails"), [(None, True), (1, False), (2, True), (3, True)])
def test_streams_are_compared_as_they_come(n_taken: int | None, fails: bool) -> None:
    task = notebook("def task(x):\n    return x if x != 1 else 10")["task"]
    closed = []

    def stream(function: Any, items: Any, **_: Any) -> Iterator[Any]:
        try:
            yield from items
        finally:
            closed.append(True)

    outcomes: Any = imap_and_check(stream, task, iter(range(5)), 3, {})

    def take() -> None:
        for _, _ in zip(range(5 if n_taken is None else n_taken), outcomes, strict=False):
            pass
        outcomes.close()

    if fails:
        with pytest.raises(CheckError, match="item 1 = 1 "):
            take()
    else:
        take()
    assert closed == [True]


# --- loops ------------------------------------------------------------------------------------------------------------


def run_cell(cell: str, names: dict[str, Any], pool: nbpar.WorkerPool, check: int) -> list[str]:
    cell = textwrap.dedent(cell)
    source = Source(f"%%parallel\n{cell}", filename="cell")
    notes: list[str] = []
    loop = read_loop(source.parse(cell, line=2), source)
    run_loop(loop, source, names, pool=pool, call={"progress": False}, check=check, tell=notes.append)
    return notes


def test_loop_is_compared_by_what_its_iterations_note(
    pool: nbpar.WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    names = notebook("rows = [{'a': 1}, {'a': 2}, {'a': 3}]\nout, total, seen = [], 0.0, {}")
    run_cell(
        """
        for i, row in enumerate(rows):
            y = row['a'] / 3
            total += y
            out.append([row, y])
            seen[i] = {'y': y}
        """,
        names,
        pool,
        2,
    )
    assert names["total"] == 1 / 3 + 2 / 3 + 3 / 3
    assert names["out"][0][0] is names["rows"][0]
    assert capsys.readouterr().out == "first 2 items: the same serially\n"


def test_loop_that_differs_is_taken_back(pool: nbpar.WorkerPool) -> None:
    names = notebook("import os, time\nout = []\n")
    with pytest.raises(CheckError, match="item 0 = 0 does not give the same serially"):
        run_cell("for x in range(3):\n    out.append(time.perf_counter_ns())", names, pool, 2)
    assert names["out"] == []
    assert "x" not in names
