"""How an item is named in an error: on one line, whatever it is and however large."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from nbpar.backends.base import short_repr


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (b"abc", "b'abc'"),
        (bytearray(b"abc"), "bytearray(b'abc')"),
        ({"n": b"\0"}, "{'n': b'\\x00'}"),
        (b"a" * 100 + b"b" * 100, "b'" + "a" * 36 + "..." + "b" * 38 + "'"),
    ],
)
def test_bytes_are_cut_in_the_middle(item: Any, text: str) -> None:
    assert short_repr(item) == text


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, lambda n: [bytes(n)], lambda n: "x" * n, lambda n: memoryview(bytes(n))]
)
def test_large_item_costs_nothing_to_name(kind: Any) -> None:
    item = kind(20_000_000)
    tracemalloc.start()
    try:
        text = short_repr(item)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    assert len(text) <= 120
