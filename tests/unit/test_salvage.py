"""A damaged list: its good values come back, and the bad ones are known."""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.wire.codec import (
    OUT_OF_BAND_BYTES,
    Codec,
    DecodeFailure,
)
from tests.unit.cells import BadState, Holder

LARGE = OUT_OF_BAND_BYTES


numbers = st.booleans() | st.integers() | st.floats(allow_nan=False)
scalars = st.none() | numbers | st.text(max_size=8) | st.binary(max_size=8)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.frozensets(scalars, max_size=4)
    ),
    max_leaves=12,
)


def refuse(*args: Any) -> Any:
    raise SystemExit(f"refused {args}")


class BadConstructor:
    def __reduce__(self) -> Any:
        return refuse, (1, [2])


class BadNew:
    def __new__(cls, *args: Any) -> BadNew:
        if args:
            raise KeyError("new")
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[int]:
        return (1,)


class BadHash:
    def __init__(self) -> None:
        self.ready = True

    def __hash__(self) -> int:
        return hash(self.ready)  # not set yet while a set is unpickled


class BadSetter:
    def __reduce__(self) -> Any:
        return BadSetter, (), {"a": 1}, None, None, refuse


def missing_attribute() -> Any:
    module = types.ModuleType("fleeting")
    module.__spec__ = sys.__spec__
    exec("class Fleeting: pass", module.__dict__)
    return module


def salvage(data: list[Any], n: int | None = None) -> list[Any]:
    encoded = Codec().encode(data)
    buffers = [bytes(buffer) for buffer in encoded.buffers]
    with pytest.raises(BaseException):  # noqa: B017, PT011
        Codec().decode(encoded.payload, buffers)
    return Codec().decode_each(encoded.payload, buffers, len(data) if n is None else n)


def bad_places(values: list[Any]) -> list[int]:
    return [i for i, value in enumerate(values) if type(value) is DecodeFailure]


@pytest.mark.parametrize("bad", [BadState, BadConstructor, BadNew, BadSetter], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"deep": [1, (2, {"er": [x]})]},
        lambda x: (x,),
        Holder,
        lambda x: OrderedDict(a=x),
        lambda x: functools.partial(print, x),
        lambda x: [0, 1, x, 3],
        lambda x: (1, 2, 3, x),
    ],
    ids=["plain", "deep", "tuple", "object", "odict", "partial", "list", "tuple4"],
)
def test_the_bad_value_is_found_and_the_others_come_back(bad: Any, wrap: Any) -> None:
    array = np.arange(20_000.0)
    values = salvage(["a", array, wrap(bad()), {"k": 1}, (1, 2, 3, 4), {5}, frozenset({6}), Holder(7), []])
    assert bad_places(values) == [2]
    assert isinstance(values[2].error, ValueError | SystemExit | KeyError)
    np.testing.assert_array_equal(values[1], array)
    assert [values[0], *values[3:7], values[8]] == ["a", {"k": 1}, (1, 2, 3, 4), {5}, frozenset({6}), []]
    assert values[7].lock == 7


def test_a_missing_attribute_of_a_module() -> None:
    module = missing_attribute()
    sys.modules["fleeting"] = module
    try:
        encoded = Codec().encode([1, module.Fleeting(), [module.Fleeting], 2])
        del module.Fleeting
        values = Codec().decode_each(encoded.payload, [], 4)
    finally:
        del sys.modules["fleeting"]
    assert bad_places(values) == [1, 2]
    assert isinstance(values[1].error, AttributeError)
    assert [values[0], values[3]] == [1, 2]


def test_a_shared_bad_object_fails_all_that_hold_it() -> None:
    bad = BadState(5)
    box = {"bad": bad}
    values = salvage([bad, 1, [bad], 2, box, {"box": box}, 3])
    assert bad_places(values) == [0, 2, 4, 5]
    assert {str(values[i].error) for i in (0, 2, 4, 5)} == {"bad state 5"}


def test_many_items_and_one_item() -> None:
    data: list[Any] = [{"i": i} for i in range(3500)]
    data[999], data[1000], data[2222], data[3499] = BadState(), BadConstructor(), [BadNew()], BadState()
    values = salvage(data)
    assert bad_places(values) == [999, 1000, 2222, 3499]
    assert values[3498] == {"i": 3498}
    assert bad_places(salvage([BadState()])) == [0]


def test_a_hash_that_fails() -> None:
    thing = BadHash()
    cyclic = {thing}
    thing.me = cyclic  # type: ignore[attr-defined]
    assert bad_places(salvage([1, thing, 2])) == [1]


def test_a_torn_payload_or_a_wrong_length_fails_as_a_whole() -> None:
    encoded = Codec().encode([1, 2, np.zeros(20_000)])
    for payload, buffers, n in (
        (encoded.payload[:-5], encoded.buffers, 3),
        (encoded.payload, [], 3),
        (encoded.payload, encoded.buffers, 4),
        (b"", [], 1),
    ):
        values = Codec().decode_each(payload, buffers, n)
        assert bad_places(values) == list(range(n))


@given(st.lists(st.tuples(nested, st.booleans()), min_size=1, max_size=8), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_salvage_agrees_with_pickle(items: list[tuple[Any, bool]], depth: int) -> None:
    def wrap(x: Any) -> Any:
        for _ in range(depth):
            x = Holder([x, {"k": x}])
        return x

    data = [wrap(BadState()) if bad else value for value, bad in items]
    values = Codec().decode_each(Codec().encode(data).payload, [], len(data))
    assert bad_places(values) == [i for i, (_, bad) in enumerate(items) if bad]
    assert all(value == data[i] for i, value in enumerate(values) if not items[i][1])
