"""Whether a function that travels by value would pickle to the same bytes as last time, found out faster than that.

A function is pickled for each job, since a global or a helper may have changed meanwhile. Where all that it refers to
is other functions, modules and values that cannot change, it is enough to see that these are the very same objects.
Owns that one question; used by :mod:`nbpar.backends.shipping`.
"""

from __future__ import annotations

import types
from typing import Any

from nbpar.wire.names import MAIN_MODULES, goes_by_name, importable

__all__ = ["State", "names_in", "state_of"]

_FIXED_TYPES: set[type] = {
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    range,
    type(None),
    type(Ellipsis),
}
"""Objects of these types always pickle to the same bytes."""

_MAX_PARTS = 200
"""Functions that refer to more than this are pickled each time."""

_names: dict[types.CodeType, tuple[str, ...]] = {}
_MAX_CODES = 256


class State:
    """All that a function refers to, by identity; equal to another one as long as nothing of it has been replaced."""

    __slots__ = ("_ids", "_parts")

    def __init__(self, parts: list[object]) -> None:
        self._parts = parts  # kept alive, so that no other object gets one of the ids
        self._ids = tuple(map(id, parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._ids == other._ids

    __hash__ = None  # type: ignore[assignment]  # only compared


def state_of(function: object) -> State | None:
    """What `function` refers to now; None when something of it may change without being replaced.

    Parameters
    ----------
    function : object
        Whatever was given to `nbpar.map`. Objects of nbpar's own whose class names their ``__fixed_parts__`` count as
        unchanging.
    """
    if type(function) is not types.FunctionType:
        return None
    parts: list[object] = []
    return State(parts) if _add(function, parts, set()) else None


def _add(value: Any, parts: list[object], seen: set[int]) -> bool:
    """Add an object with all that it refers to; False when that is not possible."""
    kind = type(value)
    parts.append(value)
    if len(parts) > _MAX_PARTS:
        return False
    if kind in _FIXED_TYPES:
        return True
    if kind is types.FunctionType:
        return _add_function(value, parts, seen)
    if kind is tuple:
        return all(_add(one, parts, seen) for one in value)
    if kind is types.ModuleType:
        return value.__name__ in MAIN_MODULES or importable(value.__name__)
    if kind is types.BuiltinFunctionType:  # not a method: its object may change
        return value.__self__ is None or type(value.__self__) is types.ModuleType
    if (names := getattr(kind, "__fixed_parts__", None)) is not None and kind.__module__.startswith("nbpar."):
        return all(_add(getattr(value, name), parts, seen) for name in names)
    return kind is type and goes_by_name(value)


def _add_function(function: types.FunctionType, parts: list[object], seen: set[int]) -> bool:
    if id(function) in seen:
        return True
    seen.add(id(function))
    if goes_by_name(function):
        return True
    if function.__dict__ or function.__kwdefaults__:
        return False
    code, known = function.__code__, function.__globals__
    # A closure's cell may get another content; an annotation is a type or its name.
    values: list[Any] = [code.co_filename, function.__module__, function.__qualname__, function.__doc__]
    values += function.__annotations__.values()
    values += function.__defaults__ or ()
    try:
        values += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # an empty cell: a name that is not bound yet
        return False
    parts.append(code)
    for name in names_in(code):
        if name in known:
            parts.append(name)
            values.append(known[name])
    return all(_add(one, parts, seen) for one in values)


def names_in(code: types.CodeType) -> tuple[str, ...]:
    """Names that the code, or code inside it, may look up in the globals."""
    names = _names.get(code)
    if names is None:
        found = dict.fromkeys(code.co_names)
        for one in code.co_consts:
            if isinstance(one, types.CodeType):
                found.update(dict.fromkeys(names_in(one)))
        if len(_names) >= _MAX_CODES:
            _names.clear()
        names = _names[code] = tuple(found)
    return names
