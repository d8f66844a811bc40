"""`%parallel`: the value of a comprehension through tasks is the value that Python gives it."""

from __future__ import annotations

from types import FunctionType, GeneratorType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.errors import TaskError
from nbpar.notebook.comprehensions import read_comprehension
from nbpar.notebook.source import Refused, Source


def namespace() -> dict[str, Any]:
    space: dict[str, Any] = {
        "xs": [3, 1, 2, 2],
        "k": 10,
        "pairs": [(1, (2, 3)), (4, (5, 6))],
        "rows": [[1, 2], [], [3]],
    }
    exec("def f(v):\n    return v * k", space)
    return space


def parallel(text: str, space: dict[str, Any]) -> Any:
    found = read_comprehension(Source(text), space)
    return found.value(map(found.task, found.items))


CASES = [
    "[f(x) for x in xs]",
    "[f(x) for x in xs if x > 1]",
    "[f(x) for x in xs if x > 1 if x < 3]",
    "{f(x) for x in xs}",
    "{x % 2: x for x in xs}",
    "{x: y for x in xs for y in range(x) if y}",
    "(f(x) for x in xs)",
    "f(x) for x in xs",
    "[a + b * c for a, (b, c) in pairs]",
    "[(a, *rest) for a, *rest in pairs]",
    "[(x, y) for x in xs for y in rows[x - 1] if y > 1]",
    "[[x * y for y in xs if y != x] for x in xs]",
    "[x for row in rows for x in row]",
    "[(lambda v: v + x)(k) for x in xs]",
    "[x for x in (xs if k else [])]",
    "[x for x in (y for y in xs if y - 1)]",
    "[k for k in xs]",
    "[x for x in 'añb']",
    "[f'{x:>3}' for x in xs]",
    "[x for x in {1: 2, 3: 4}.items()]",
    "[x for x in []]",
    "[g(1) for g in [lambda v: v + k]]",
    "[g() for g in [(lambda n=n: n) for n in xs]]",
    "sum(x for x in xs)",
    "sum([f(x) for x in xs], start=k)",
    "sorted((x for x in xs), key=lambda v: -v * k, reverse=True)",
    "max((f(x) for x in xs if x > 9), default=k)",
    "tuple(x for x in xs)",
    "dict((x, f(x)) for x in xs)",
    "frozenset(x for x in xs)",
    "list({x for x in xs})",
    "sum({x for x in xs})",
    "sorted({x: f(x) for x in xs})",
    "dict({x: f(x) for x in xs})",
    "any(x > 2 for x in xs)",
    "all(x > 2 for x in xs)",
    "any([x > 2 for x in xs])",
    "min(f(x) for x in xs)",
]


@pytest.mark.parametrize("text", CASES)
def test_as_python_has_it(text: str) -> None:
    space = namespace()
    before = set(space)
    serial = eval(f"({text})", namespace())
    if isinstance(serial, GeneratorType):
        serial = list(serial)
    found = parallel(text, space)
    assert found == serial
    assert type(found) is type(serial)
    assert set(space) == before


def test_keys_and_order_of_a_dict() -> None:
    text = "{str(x).lower(): x for x in ['B', 'a', 'b', 'C', 'A']}"
    assert list(parallel(text, {}).items()) == list(eval(text).items())


names = st.sampled_from(["x", "y", "n"])
leaves = names | st.integers(0, 5).map(str)
expressions = st.recursive(
    leaves, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["+", "*", "-"]), inner), max_leaves=4
)
conditions = st.builds(" if {} {} {}".format, expressions, st.sampled_from(["<", "!=", ">="]), expressions)
loops = st.builds(" for {} in range(abs({}) % 4)".format, st.sampled_from(["y", "n", "x"]), expressions)
tails = st.lists(conditions | loops, max_size=4).map("".join)


@given(expressions, expressions, tails, st.sampled_from(["[{0}{2}]", "{{{0}{2}}}", "{{{0}: {1}{2}}}", "sum({0}{2})"]))
def test_as_python_has_it_for_any_comprehension(element: str, value: str, tail: str, form: str) -> None:
    text = form.format(element, value, " for x in xs" + tail)
    space: dict[str, Any] = {"xs": [0, 3, 1, 2], "y": 7, "n": 2}
    try:
        serial = eval(text, dict(space))
    except UnboundLocalError:  # a name is set by a later `for`; the task is a function too
        with pytest.raises(UnboundLocalError):
            parallel(text, space)
        return
    found = parallel(text, space)
    assert found == serial
    assert type(found) is type(serial)


REFUSED = [
    ("[y := x for x in xs]", "y :=", 1, 7),
    ("[x for x in xs if (y := x)]", "y :=", 19, 25),
    ("[await x for x in xs]", "await", 1, 8),
    ("[x async for x in xs]", "async for", 13, 14),
    ("[[y async for y in x] for x in xs]", "async for", 14, 15),
    ("[lambda: x for x in xs]", "all see the last `x`", 1, 10),
    ("{x: (1, lambda v: v + y) for x in xs for y in [x]}", "all see the last `y`", 8, 23),
    ("map(f, xs)", "nbpar.map", 0, 10),
    ("f(x for x in xs)", "takes a comprehension", 0, 16),
    ("x + 1", "takes a comprehension", 0, 5),
    ("'ü' + 1", "takes a comprehension", 0, 7),
]


@pytest.mark.parametrize(("text", "reason", "start", "end"), REFUSED)
def test_refused(text: str, reason: str, start: int, end: int) -> None:
    space = namespace()
    before = dict(space)
    with pytest.raises(Refused, match=reason) as refused:
        read_comprehension(Source(text), space)
    place = refused.value.place
    assert place is not None
    assert (place.line, place.column, place.end_column) == (1, start, end)
    assert space == before


@pytest.mark.parametrize("text", ["[x for x in", "x for x in xs)", "", "a = 1", "[x for x in xs]; 1"])
def test_not_an_expression(text: str) -> None:
    with pytest.raises(Refused, match=r"not Python|one expression|takes a comprehension"):
        read_comprehension(Source(text), namespace())


def test_walrus_in_a_lambda_is_its_own() -> None:
    assert parallel("[(lambda: (v := x) + v)() for x in xs]", {"xs": [1, 2]}) == [2, 4]


def test_a_lambda_with_the_value_in_its_arguments() -> None:
    found = parallel("[lambda x=x: x + k for x in xs]", {"xs": [1, 2], "k": 10})
    assert [function() for function in found] == [11, 12]


def test_redefined_consumer_is_refused() -> None:
    with pytest.raises(Refused, match="not Python's own"):
        read_comprehension(Source("sum(x for x in xs)"), {"xs": [1], "sum": len})


def test_nothing_is_evaluated_before_all_is_checked() -> None:
    seen: list[int] = []
    with pytest.raises(Refused):
        read_comprehension(Source("[y := x for x in seen.append(1) or []]"), {"seen": seen})
    assert seen == []


def test_any_takes_no_more_outcomes_than_it_needs() -> None:
    found = read_comprehension(Source("any(x for x in [0, 1, 2])"), {})
    outcomes = map(found.task, found.items)
    assert found.stops_early
    assert found.value(outcomes) is True
    assert next(outcomes) == 2


def test_failed_items_keep_their_place() -> None:
    found = read_comprehension(Source("[y for x in [1, 2] for y in range(x)]"), {})
    error = TaskError("no", index=0)
    assert found.keeps_errors
    assert found.value([error, [0, 1]]) == [error, 0, 1]
    assert not read_comprehension(Source("{x: x for x in [1]}"), {}).keeps_errors
    assert not read_comprehension(Source("sum(x for x in [1])"), {}).keeps_errors


def test_names_of_the_function_around() -> None:
    space = {"k": 10}
    scope = {"xs": [1, 2], "k": 5, "unused": 0}
    found = read_comprehension(Source("sum((x * k for x in xs), start=k)"), space, scope)
    assert found.value(map(found.task, found.items)) == 20
    assert isinstance(found.task, FunctionType)
    assert found.task.__globals__ is space


def test_places_are_those_of_the_file() -> None:
    found = read_comprehension(Source("[1 // x for x in xs]", filename="cell", first_line=7), {"xs": [0]}, column=5)
    with pytest.raises(ZeroDivisionError) as raised:
        found.task(0)
    assert raised.traceback[-1].lineno == 6  # pytest counts from 0
    assert isinstance(found.task, FunctionType)
    columns = {place[2:] for place in found.task.__code__.co_positions() if place[0] == 7}
    assert (6, 12) in columns  # `1 // x`
