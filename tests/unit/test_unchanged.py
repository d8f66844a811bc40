"""A function need not be pickled again exactly as long as it would pickle to the same bytes."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import pytest

import nbpar
from nbpar.wire.codec import Codec
from nbpar.wire.unchanged import state_of

CELL = """
import math
n = 3
label = "a"
pair = (1, (2.5, "x"))

def helper(x):
    return x + n

def outer(k):
    def inner(x, d=2):
        return [helper(y) + k + d for y in (x,)], math.pi, label, pair
    return inner

task = outer(5)
plain = lambda x: x + 1
def recursive(x):
    return 1 if x < 1 else recursive(x - 1)
"""


@pytest.fixture
def cell() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, names)  # as a notebook's cell
    return names


@pytest.mark.parametrize("name", ["task", "plain", "recursive", "helper"])
def test_nothing_has_changed_when_nothing_has(cell: dict[str, Any], name: str) -> None:
    state = state_of(cell[name])
    assert state is not None
    assert state == state_of(cell[name])


def _set(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda cell: cell.__setitem__(name, value)


def _new_helper(cell: dict[str, Any]) -> None:
    exec("def helper(x): return x - n", cell)


def _new_code(cell: dict[str, Any]) -> None:
    cell["helper"].__code__ = (lambda x: x).__code__


def _new_default(cell: dict[str, Any]) -> None:
    cell["task"].__defaults__ = (7,)


def _new_cell(cell: dict[str, Any]) -> None:
    index = cell["task"].__code__.co_freevars.index("k")
    cell["task"].__closure__[index].cell_contents = 6


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a global": _set("n", 4),
    "a global to an equal value of another type": _set("n", 3.0),
    "a global to something that can change": _set("n", [3]),
    "a global that only code inside the code names": _set("label", "b"),
    "a tuple": _set("pair", (1, (2.5, "y"))),
    "a helper": _new_helper,
    "a helper's code": _new_code,
    "a default": _new_default,
    "a closure's value": _new_cell,
    "a name that becomes bound": _set("d", 9),
}


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "a name that becomes bound"])
def test_a_change_is_seen(cell: dict[str, Any], change: str) -> None:
    before = state_of(cell["task"])
    CHANGES[change](cell)
    assert before is not None
    assert state_of(cell["task"]) != before


@pytest.mark.parametrize("change", CHANGES)
def test_bytes_are_the_same_when_the_state_is(cell: dict[str, Any], change: str) -> None:
    codec = Codec()
    state, payload = state_of(cell["task"]), codec.encode_function(cell["task"]).payload
    CHANGES[change](cell)
    if state_of(cell["task"]) == state:
        assert codec.encode_function(cell["task"]).payload == payload


class Own:
    """May change."""


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, {1}, Own(), bytearray(b"x"), [].append, types.ModuleType("by_hand"), ([],)],
    ids=lambda value: type(value).__name__,
)
def test_what_can_change_unseen_is_looked_at_each_time(cell: dict[str, Any], value: object) -> None:
    cell["n"] = value
    assert state_of(cell["task"]) is None


def test_attributes_of_a_function_can_change_unseen(cell: dict[str, Any]) -> None:
    cell["helper"].cache = {}
    assert state_of(cell["task"]) is None


def test_modules_builtins_importable_functions_and_per_worker_objects_do_not_change(cell: dict[str, Any]) -> None:
    values: tuple[Any, ...] = (json, len, json.dumps, int, nbpar.per_worker(dict))
    for value in values:
        cell["n"] = value
        assert state_of(cell["task"]) is not None


def test_a_method_or_an_object_is_not_judged() -> None:
    assert state_of("text".upper) is None
    assert state_of(Own()) is None


def test_a_map_sees_each_change(cell: dict[str, Any]) -> None:
    with nbpar.WorkerPool(n_workers=1) as pool:
        got = [pool.map(cell["helper"], [1])]
        for value in (4, 4.5, [1], 5):
            cell["n"] = value
            got.append(pool.map(cell["helper"], [1]) if value != [1] else [0])
        cell["n"] = True
        got.append(pool.map(cell["helper"], [1]))
    assert got == [[4], [5], [5.5], [0], [6], [2]]
