"""Values of a loop's effects that are used up at once: what they hold, kept before they change.

``total += row`` uses what `row` holds at that moment, so that is what has to be noted. Used by
:mod:`nbpar.worker.recorder`.
"""

from __future__ import annotations

import copy
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from operator import is_
from typing import Any

from nbpar.worker.origins import are_plain

__all__ = ["VIEWS", "are_same", "content_of", "copied_now"]

VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})
"""Those of dicts, which do not travel."""

_COPIED = frozenset({list, dict, set, deque, bytearray, array, defaultdict, OrderedDict, Counter})
_FIXED = frozenset({tuple, str, bytes, range, frozenset})


def _is_array(value: object) -> bool:
    ndarray = getattr(sys.modules.get("numpy"), "ndarray", None)
    return ndarray is not None and isinstance(value, ndarray)


def content_of(value: Any) -> tuple[Any, BaseException | None]:
    """What a container is extended by, and the error that ended it."""
    if type(value) in _FIXED:
        return value, None
    if type(value) in _COPIED or _is_array(value) or isinstance(value, dict):
        return copy.copy(value), None
    if hasattr(type(value), "keys") or not hasattr(type(value), "__iter__"):  # a mapping; nothing to go through
        return value, None
    content: list[Any] = []
    try:
        for one in value:
            content.append(one)  # noqa: PERF402  # what came before an error counts
    except BaseException as error:  # noqa: BLE001  # raised by the caller
        return content, error
    return content, None


def copied_now(value: Any) -> Any:
    """A copy to tell a change by; None of what cannot change."""
    if type(value) in _COPIED or _is_array(value):
        return copy.copy(value)
    if type(value) is tuple and not are_plain(value):
        return tuple(one if (copied := copied_now(one)) is None else copied for one in value)
    return None


def are_same(value: Any, copied: Any) -> bool:
    """Whether a value still holds what its copy has."""
    if type(value) is tuple:
        return all(one is two or are_same(one, two) for one, two in zip(value, copied, strict=True))
    if _is_array(value):
        if value.dtype.hasobject:
            return value.shape == copied.shape and all(map(is_, value.flat, copied.flat))
        return (value.dtype, value.shape, value.tobytes()) == (copied.dtype, copied.shape, copied.tobytes())
    if len(value) != len(copied):
        return False
    if isinstance(value, dict):
        return all(map(is_, value.values(), copied.values())) and all(map(is_, value, copied))
    return value == copied if type(value) in (set, bytearray, array) else all(map(is_, value, copied))
