"""All that a function leads to, by names that its user knows: what has to be watched so that no change of it is missed.

:func:`brought_by` goes through functions, methods, closures, defaults, classes, containers and modules of the user's,
and names what in them can change. Nothing is compared here. Used by :mod:`nbpar.worker.strict`.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from nbpar.worker.changes import MISSING, Fetch, is_by_value, parts_of
from nbpar.worker.contents import is_own_class, is_own_function, is_own_module, is_plain, parts_of_callable

__all__ = ["brought_by"]

MAX_NAMES = 2_000
"""Names that are looked at; a function that brings more of them is a program."""

MAX_WALKED = 1_000
"""Containers with more are compared as they are; that a function in one of them has changed its class is not seen."""

_CONTAINERS = (list, tuple, set, frozenset, dict, deque, OrderedDict, defaultdict)
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_LED = (
    types.MethodType,
    functools.partial,
    functools._lru_cache_wrapper,
    property,
    staticmethod,
    classmethod,
    types.ModuleType,
    type,
)

_Part = tuple[str, Fetch, bool | None]
"""How a part is called, its value now, and whether it is watched; None: if it can change."""


def brought_by(function: object) -> Iterator[tuple[str, Fetch]]:
    """Names of what can change among all that a function leads to, with a way to have its value now."""
    seen: dict[int, object] = {}  # kept alive, so that no other object gets one of the ids
    told: set[tuple[str, int]] = set()
    todo: deque[tuple[str, object]] = deque([("", function)])
    while todo and len(told) < MAX_NAMES:
        name, value = todo.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        for label, fetch, is_watched in _parts(name, value):
            if label.startswith("."):  # the recorder's factory
                continue
            found = fetch()
            todo.append((label, found))
            can_change = not (is_plain(found) or _is_led_through(found)) if is_watched is None else is_watched
            if can_change and (label, id(found)) not in told:
                told.add((label, id(found)))
                yield label, fetch


def _parts(name: str, value: Any) -> Iterable[_Part]:
    """What an object leads to."""
    kind = type(value)
    if kind is types.FunctionType:
        return _parts_of_function(value) if is_own_function(value) else ()
    if kind is functools.partial:
        return _parts_of_partial(name, value)
    if (parts := parts_of_callable(value, kind)) is not None:
        return [_part(name or f"the {type(one).__name__} object", one) for one in parts]
    if kind is types.ModuleType:
        return _parts_of_module(value) if is_own_module(value.__name__) else ()
    if isinstance(value, type):
        return _parts_of_class(value) if is_own_class(value) else ()
    if kind in _CONTAINERS:
        inner = value.values() if isinstance(value, dict) else value
        return [_led(name, one) for one in inner if not is_plain(one)] if len(value) <= MAX_WALKED else ()
    if is_own_class(kind):
        inner = getattr(value, "__dict__", {}).values()
        return [_led(kind.__name__, kind), *(_led(name, one) for one in inner if not is_plain(one))]
    return ()


def _part(name: str, value: object) -> _Part:
    """Watched if it can change."""
    return name, functools.partial(_same, value), None


def _led(name: str, value: object) -> _Part:
    """Gone through: what it holds is watched as a part of what leads to it."""
    return name, functools.partial(_same, value), False


def _parts_of_function(function: types.FunctionType) -> Iterator[_Part]:
    prefix = "" if is_by_value(function) else f"{function.__globals__.get('__name__')}."
    for label, fetch, is_stored in parts_of(function):
        yield f"{prefix}{label}", fetch, is_stored or None
    yield f"the attributes of {function.__name__}", functools.partial(_sorted_names, function), True


def _parts_of_partial(name: str, value: functools.partial[Any]) -> Iterator[_Part]:
    yield _led(name, value.func)
    yield from (_part(f"the {type(one).__name__} object", one) for one in value.args)
    yield from (_part(label, one) for label, one in value.keywords.items())


def _parts_of_class(kind: Any) -> Iterator[_Part]:
    for name, value in tuple(vars(kind).items()):
        label = f"{kind.__name__}.{name}"
        if isinstance(value, types.FunctionType | staticmethod | classmethod | property):
            yield _led(label, value)
        elif not name.startswith("__") and name != "_abc_impl" and type(value) not in _DESCRIPTORS:
            yield label, functools.partial(_attribute, kind, name), True
    yield f"the attributes of {kind.__name__}", functools.partial(_sorted_names, kind), True
    yield from (_led(base.__name__, base) for base in kind.__bases__)


def _parts_of_module(module: types.ModuleType) -> Iterator[_Part]:
    for name, value in tuple(vars(module).items()):
        if not name.startswith("__") and not isinstance(value, types.ModuleType):
            is_definition = isinstance(value, type | types.FunctionType)
            label = f"{module.__name__}.{name}"
            yield label, functools.partial(vars(module).get, name, MISSING), not is_definition


def _attribute(kind: type, name: str) -> object:
    return vars(kind).get(name, MISSING)


def _sorted_names(owner: object) -> object:
    return sorted(name for name in vars(owner) if not name.startswith("__"))


def _is_led_through(value: object) -> bool:
    """Whether what an object holds is watched under names of its own."""
    if value is MISSING or isinstance(value, types.FunctionType):
        return True
    if type(value) is types.BuiltinFunctionType and isinstance(value.__self__, types.ModuleType | None):
        return True
    return isinstance(value, _LED)


def _same(value: object) -> object:
    return value
