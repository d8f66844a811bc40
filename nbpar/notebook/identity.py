"""Items that are also in what the tasks bring along: they have to stay the same objects there.

``for p in ps: for q in ps: if p is not q: ...`` compares an item with what the body reads. An item travels by itself,
and its copy would be nobody in the copy of ``ps``. So where an item, or a part of it, can be reached from what tasks
bring, all items travel with their function instead, in one piece, and each task is given a position.

Owns the look for such items, and that function. Called by :mod:`nbpar.notebook.loop_run`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbpar.worker.origins import are_plain, parts_of

__all__ = ["are_shared", "by_position"]

_NOBODY = frozenset({tuple, frozenset, types.FunctionType, types.MethodType, functools.partial, types.MappingProxyType})
"""Types whose objects are compared by what they are, or not at all; what is in them counts."""


def are_shared(items: Sequence[Any], roots: Iterable[Any]) -> bool:
    """Whether an item, or a part of one, is an object that can be reached from the roots.

    Examples
    --------
    >>> ps = [[1], [2]]
    >>> are_shared(ps, [ps]), are_shared([[1], [2]], [ps]), are_shared([1, 2], [[1, 2]])
    (True, False, False)
    """
    if type(items) is range or are_plain(items):
        return False
    known = {id(part) for root in roots for part in parts_of(root) if _is_somebody(part)}
    if not known:
        return False
    return any(id(part) in known for item in items if not are_plain((item,)) for part in parts_of(item))


def _is_somebody(value: object) -> bool:
    return type(value) not in _NOBODY and not isinstance(value, type)


def by_position(function: Callable[[Any], Any], items: Sequence[Any]) -> Callable[[int], Any]:
    """The function of one item, as a function of the item's position; it brings the items along."""

    def task(position: int) -> Any:
        return function(items[position])

    task.__name__, task.__qualname__ = function.__name__, function.__qualname__
    return task
