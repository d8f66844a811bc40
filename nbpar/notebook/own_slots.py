"""Own slots: ``a[i] = ...`` in a loop over `i`, where the body may read ``a[i]`` as well.

That is safe as long as no two iterations have the same slot, and no slot is seen through another one. The text shows
that the key is the loop's; owns what has to be so of the items and of what is in the slots. Called by
:mod:`nbpar.notebook.captures` before the tasks run.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from nbpar.notebook.loop_model import Loop, Site
from nbpar.notebook.source import Refused, Source

__all__ = ["check_slots"]

_FIXED = frozenset({int, float, complex, bool, str, bytes, type(None), tuple, frozenset, range})
_ITEMS = ".items"


def check_slots(site: Site, loop: Loop, source: Source, namespace: dict[str, Any], items: Sequence[Any]) -> None:
    """Whether the iterations have slots of their own.

    Raises
    ------
    Refused
    """
    container = namespace.get(site.name)
    if container is None or site.key is None or not items:
        return
    keys = _keys(site.key, loop, source, items)
    is_array = _is_array(container)
    if isinstance(container, dict):
        is_distinct = _are_distinct(keys)
    else:
        parts = keys if not is_array else (part for key in keys for part in (key if type(key) is tuple else (key,)))
        if not all(_is_position(part) for part in parts):
            raise Refused(
                f"the keys of `{site.name}` must be whole numbers from 0 on here, since the body reads "
                f"`{site.name}[{ast.unparse(site.key)}]` as well.",
                site.place,
            )
        is_distinct = type(keys) is range or _are_distinct(keys)
    if not is_distinct:
        raise Refused(
            f"two iterations have the same `{site.name}[{ast.unparse(site.key)}]`: the later one would see what the "
            f"earlier one has stored. Go through each key once.",
            site.place,
        )
    if is_array:
        n_axes = len(keys[0]) if type(keys[0]) is tuple else 1
        if n_axes < container.ndim or container.dtype.hasobject:
            raise Refused(
                f"`{site.name}[{ast.unparse(site.key)}]` is a view of the array, which the loop reads and changes. "
                f"Read from a copy, as in `old = {site.name}.copy()`.",
                site.place,
            )
    elif site.kind == "augitem" or site.depth:
        for value in _values(container, keys):
            if type(value) not in _FIXED and not _is_number(value):
                raise Refused(
                    f"`{site.text}` changes a {type(value).__name__} in place, which the body reads as well. Write "
                    f"`{site.name}[{ast.unparse(site.key)}] = ...`, which stores a new one.",
                    site.place,
                )


def _keys(key: ast.expr, loop: Loop, source: Source, items: Sequence[Any]) -> Sequence[Any]:
    if isinstance(key, ast.Name) and isinstance(loop.target, ast.Name):
        return items
    generator = ast.comprehension(copy.deepcopy(loop.target), ast.Name(_ITEMS, ast.Load()), [], 0)
    every = ast.copy_location(ast.Expression(ast.ListComp(copy.deepcopy(key), [generator])), key)
    for node in ast.walk(every):
        if "lineno" in node._attributes:
            ast.copy_location(node, loop.target)
    found: list[Any] = eval(compile(every, source.filename, "eval"), {_ITEMS: items})
    return found


def _are_distinct(keys: Iterable[Any]) -> bool:
    seen = set()
    n_keys = 0
    for key in keys:
        n_keys += 1
        try:
            seen.add(key)
        except TypeError:  # Python refuses it itself, with the line
            return True
    return len(seen) == n_keys


def _values(container: Any, keys: Iterable[Any]) -> Iterable[Any]:
    for key in keys:
        try:
            yield container[key]
        except (LookupError, TypeError):  # not there yet, or Python refuses it itself
            continue


def _is_position(key: Any) -> bool:
    if type(key) is int:
        return key >= 0
    integer = getattr(sys.modules.get("numpy"), "integer", None)
    return integer is not None and isinstance(key, integer) and int(key) >= 0


def _is_number(value: Any) -> bool:
    scalar = getattr(sys.modules.get("numpy"), "generic", None)
    return scalar is not None and isinstance(value, scalar)


def _is_array(value: Any) -> bool:
    return type(value) is getattr(sys.modules.get("numpy"), "ndarray", None)
