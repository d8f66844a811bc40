"""What a small object holds, as bytes to be compared later; nothing of the user's is called for it.

:func:`mark` writes down builtin containers, arrays and instances of the notebook's classes by what is in them. What
else they hold counts by its type alone: of a lock, a generator of random numbers, a module, a model of a library
nobody can say whether it is still the same, and a wrong alarm costs more than a missed one. Used by
:mod:`nbpar.worker.changes`.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from typing import Any

from nbpar.wire.classes import came_from_kernel

__all__ = [
    "BY_REPR",
    "CONTAINERS",
    "DICTS",
    "MAX_BYTES",
    "Thing",
    "TooLarge",
    "are_same",
    "cached_properties",
    "content_of",
    "is_lively",
    "is_number",
    "is_open",
    "mark",
]

MAX_BYTES = 64 << 10
"""What is larger is not looked at."""

MAX_ITEMS = 20_000
"""A container with more is larger in any case: seen without pickling it."""

MAX_OBJECTS = 200
"""Objects that are none of Python's own take 2 us each: with more of them it counts as too large."""

DICTS: tuple[type, ...] = (Counter, defaultdict, OrderedDict)
CONTAINERS = frozenset({list, dict, set, bytearray, deque, array, types.SimpleNamespace, *DICTS})
_CLOSED = frozenset(
    {int, float, str, bytes, bool, tuple, type(None), type}
    | {types.FunctionType, types.BuiltinFunctionType, types.ModuleType}
)
"""What most functions refer to and no task can change; told at once."""

BY_REPR = frozenset(
    {
        ("builtins", "complex"),
        ("builtins", "range"),
        ("builtins", "slice"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
    }
)
"""Values that their repr says all of."""

_LIVELY = ("random", "_random", "logging", "threading", "_thread", "queue", "asyncio", "numpy.random", "nbpar")
"""Modules of classes whose instances change without anybody wanting them back; also where the notebook derives from
them."""


class TooLarge(Exception):  # noqa: N818  # a verdict, and none that anybody sees
    """There is more to an object than is worth looking at."""


def is_open(value: object) -> bool:
    """Whether tasks can change what is in an object, and :func:`mark` would see it."""
    kind = type(value)
    if kind in CONTAINERS:
        return True
    if kind in _CLOSED:
        return False
    if came_from_kernel(kind):
        return not issubclass(kind, Enum | type) and not is_lively(kind)
    return _is_array(kind)


def mark(value: object, limit_bytes: int) -> bytes:
    """An object as bytes.

    Raises
    ------
    TooLarge
        They would be more than `limit_bytes`, or the object has very many parts.
    """
    if isinstance(value, list | dict | set | deque) and len(value) > MAX_ITEMS:
        raise TooLarge
    file = _Bounded(limit_bytes)
    _Marker(file).dump(value)
    return b"".join(file.parts)


def are_same(before: bytes, now: bytes) -> bool:
    """Whether two marks tell of the same content. In doubt they do."""
    if before == now:
        return True
    # The bytes also tell equal objects from one object, and know an order of sets.
    try:
        old, new = pickle.loads(before), pickle.loads(now)
        return bool(old == new) or repr(old) == repr(new)  # not-a-number is not equal to itself
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):  # it holds itself; keys of no hash
        return True


class _Bounded:
    """A file of limited size."""

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self._left_bytes -= n_bytes
        if self._left_bytes < 0:
            raise TooLarge
        self.parts.append(bytes(data))
        return n_bytes


class Thing:
    """Stands in a mark for an object that is none of Python's own: its type's name and what is in it."""

    __slots__ = ("content", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.content: object = None

    def __setstate__(self, content: object) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and (self.name, self.content) == (other.name, other.content)

    def __hash__(self) -> int:  # also before it has its content, as a key that is being loaded
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{self.name}({self.content!r})"


class _Marker(pickle.Pickler):
    """Writes plain builtins as they are, and a :class:`Thing` for everything else."""

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, protocol=5)
        self._n_left = MAX_OBJECTS

    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for everything but exact builtins."""
        if obj is Thing:
            return NotImplemented
        self._n_left -= 1
        if self._n_left < 0:
            raise TooLarge
        kind = type(obj)
        return Thing, (kind.__qualname__,), content_of(obj, kind)


def content_of(obj: Any, kind: type, *, is_own: bool | None = None) -> object:
    """What is in an object that is none of Python's plain values, one level deep; None where its type says all."""
    is_own = came_from_kernel(kind) if is_own is None else is_own
    if kind in DICTS or (is_own and issubclass(kind, dict)):
        return dict(dict.items(obj)), _attributes(obj, kind)
    if kind is deque:
        return list(obj)
    if kind is array:
        return obj.typecode, obj.tobytes()
    if kind is types.SimpleNamespace:
        return dict(vars(obj))
    if (kind.__module__, kind.__name__) in BY_REPR:
        return repr(obj)
    if _is_array(kind):
        if obj.nbytes > MAX_BYTES:
            raise TooLarge
        return repr(obj.dtype), obj.shape, obj.tolist() if obj.dtype.hasobject else obj.tobytes()
    if is_number(kind):
        return obj.item()
    return _content_of_own(obj, kind) if is_own else None


def _content_of_own(obj: Any, kind: type) -> object:
    """Of an instance of a class of the notebook's."""
    if issubclass(kind, type) or is_lively(kind):
        return None
    if issubclass(kind, Enum):
        return obj._name_
    for base in (list, tuple, set, frozenset):
        if issubclass(kind, base):
            return list(base.__iter__(obj)), _attributes(obj, kind)
    return _attributes(obj, kind)


def _attributes(obj: Any, kind: type) -> dict[str, object]:
    """What an object holds, without calling anything of its class; what cached properties have kept is left out."""
    found: dict[str, object] = {}
    for cls in kind.__mro__:
        for name, member in vars(cls).items():
            if type(member) is types.MemberDescriptorType:
                try:
                    found[name] = member.__get__(obj, kind)
                except AttributeError:  # not set
                    continue
    try:
        own = object.__getattribute__(obj, "__dict__")
    except AttributeError:  # it has slots alone
        return found
    cached = cached_properties(kind)
    found.update((name, value) for name, value in own.items() if name not in cached)
    return found


def cached_properties(kind: type) -> set[str]:
    """Names under which objects of a class keep what they have worked out."""
    return {name for cls in kind.__mro__ for name, one in vars(cls).items() if type(one) is functools.cached_property}


def is_lively(kind: type) -> bool:
    """Whether instances change without anybody wanting them back."""
    return any(cls.__module__.startswith(_LIVELY) for cls in kind.__mro__)


def _is_array(kind: type) -> bool:
    return kind is getattr(sys.modules.get("numpy"), "ndarray", None)


def is_number(kind: type) -> bool:
    """Whether it is one of numpy's types of single values."""
    scalar = getattr(sys.modules.get("numpy"), "generic", None)
    return scalar is not None and issubclass(kind, scalar)
