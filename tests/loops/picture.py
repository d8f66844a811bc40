"""A notebook's namespace as plain data, so that two of them can be compared bit for bit.

Owns :func:`picture`: types, values, the bits of floats, the order of dicts, the bytes of arrays, what is the same
object as what (also parts of the same memory), and the states of iterators and of random number generators. Two
namespaces that no code could tell apart have equal pictures, and, as far as a notebook's own code can, the other way
round. Left out: the order of names in a namespace, annotations of names, strides, and what `functools.lru_cache` and
`functools.cached_property` keep; of memory in common, what only arrays that a cell has made have. Used by
:mod:`tests.loops.oracle`.
"""

from __future__ import annotations

import functools
import hashlib
import math
import pickle
import random
import re
import struct
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["arrays_in", "differences", "picture"]

_ITERATORS = (
    "list_iterator",
    "tuple_iterator",
    "range_iterator",
    "zip",
    "enumerate",
    "map",
    "filter",
    "reversed",
    "list_reverseiterator",
    "count",
    "cycle",
    "chain",
    "dict_keyiterator",
)
_LEFT_OUT = {"__builtins__", "__annotations__", "__warningregistry__"}
_CLASS_PARTS = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__firstlineno__",
    "__slotnames__",
}
_PLAIN = {type(None), bool, int, str, bytes, range, slice, type(...), type(NotImplemented)}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LRU_CACHE = type(functools.lru_cache(lambda: None))


Array = np.ndarray[Any, Any]


def arrays_in(namespace: Mapping[str, Any]) -> list[Array]:
    """All arrays that a namespace leads to, in an order that an equal one has as well."""
    artist = _Artist(namespace)
    for name in sorted(namespace.keys() - _LEFT_OUT):
        artist.draw(namespace[name])
    return artist.arrays


def picture(
    namespace: Mapping[str, Any], old: Mapping[str, Any] | None = None, arrays: list[Array] | None = None
) -> dict[str, Any]:
    """What the names mean.

    Parameters
    ----------
    namespace : mapping
        A notebook's global names.
    old : mapping, optional
        What they meant earlier: part of the picture, so that a name bound to an equal copy is a difference.
    arrays : list of ndarray, optional
        Of memory in common, what is in common with these; by default of any two arrays.
    """
    artist = _Artist(namespace)
    drawn = {name: artist.draw(namespace[name]) for name in sorted(namespace.keys() - _LEFT_OUT)}
    for name in sorted((old or {}).keys() - _LEFT_OUT):
        drawn[f"{name} as it was"] = artist.draw((old or {})[name])
    drawn[" memory"] = artist.shared_memory(artist.arrays if arrays is None else arrays)
    drawn[" random"] = _digest(random.getstate())
    drawn[" numpy.random"] = _digest(np.random.get_state())  # noqa: NPY002  # what cells may use
    return drawn


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names whose pictures differ, with both of them."""
    return [
        f"{name}: {_shown(one, name)} / {_shown(other, name)}"
        for name in sorted(one.keys() | other.keys())
        if name not in one or name not in other or one[name] != other[name]
    ]


def _shown(drawn: Mapping[str, Any], name: str) -> str:
    return repr(drawn[name])[:300] if name in drawn else "not there"


def _digest(value: Any) -> str:
    return hashlib.md5(pickle.dumps(value)).hexdigest()


def _bytes_of(value: Any) -> bytes:
    """Of an array or a number of numpy's; NaN is NaN, for which sign the sum of two has is the processor's affair."""
    if value.dtype.kind in "fc" and (is_nan := np.isnan(value)).any():
        value = np.where(is_nan, value.dtype.type(np.nan), value)
    return bytes(value.tobytes())


def _name_of(value: Any) -> tuple[str, ...] | None:
    """Of what is known by its name everywhere."""
    kind = type(value)
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return kind.__name__, value.dtype.str, _bytes_of(value).hex()
    if isinstance(value, types.ModuleType) and value.__name__ != "user_module":
        return "module", value.__name__
    if isinstance(value, type) and value.__module__ != "__main__":
        return "class", value.__module__, value.__qualname__
    if isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType | None):
        return "builtin", value.__name__
    if kind in (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType):
        return "descriptor", value.__name__
    return None


class _Artist:
    """Draws one namespace; each object that can be told from its copy is drawn once, then by its number."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        self._arrays: list[tuple[int, Array]] = []

    def draw(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return kind.__name__, _ADDRESS.sub("", value) if kind is str and " at 0x" in value else repr(value)
        if kind is float:
            return "float", struct.pack("d", math.nan if math.isnan(value) else value)
        if kind is complex:
            return "complex", struct.pack("dd", value.real, value.imag)
        if kind is tuple:
            return "tuple", tuple(self.draw(part) for part in value)
        if kind is frozenset:
            return "frozenset", self._unordered(value)
        if (name := _name_of(value)) is not None:
            return name
        number = self._numbers.get(id(value))
        if number is not None:
            return "number", number
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)  # else another object could get its id
        return number, kind.__module__, kind.__qualname__, *self._parts(value, number)

    def _unordered(self, values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(sorted((self.draw(one) for one in values), key=repr))

    def _pairs(self, value: Mapping[Any, Any]) -> tuple[Any, ...]:
        return tuple((self.draw(key), self.draw(one)) for key, one in value.items())

    def _parts(self, value: Any, number: int) -> tuple[Any, ...]:
        for kinds, draw in _KINDS:
            if isinstance(value, kinds):
                return (*draw(self, value), *self._attributes(value))
        if isinstance(value, np.ndarray):
            return self._array(value, number)
        if type(value).__name__ in _ITERATORS:
            _, made_of, *state = value.__reduce__()
            if made_of in (([],), ((),)):  # one that is used up comes back as one of nothing, at its start
                state = []
            return tuple(self.draw(part) for part in (made_of, *state) if part is not None)
        if type(value).__module__ not in ("__main__", "user_module", "builtins", "types"):
            return (_ADDRESS.sub("", repr(value)), *self._attributes(value))  # Fraction, datetime ...
        return self._attributes(value)

    def _attributes(self, value: Any) -> tuple[Any, ...]:
        """Of an instance: what is in its dict and its slots."""
        if isinstance(value, type | types.ModuleType):
            return ()
        found = dict(getattr(value, "__dict__", {}))
        for name in [name for name in found if isinstance(getattr(type(value), name, None), functools.cached_property)]:
            del found[name]
        for one in type(value).__mro__:
            slots = one.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and isinstance(name, str) and not name.startswith("__"):
                    found[name] = getattr(value, name)
        return (self.draw(type(value)), *self._pairs(found)) if found else ()

    def _array(self, value: np.ndarray[Any, Any], number: int) -> tuple[Any, ...]:
        self._arrays.append((number, value))
        head = (value.dtype.str, value.shape, value.flags.writeable)
        if value.dtype.hasobject:
            return (*head, tuple(self.draw(one) for one in value.ravel().tolist()))
        return (*head, _bytes_of(value))

    @property
    def arrays(self) -> list[Array]:
        """Those drawn so far."""
        return [array for _, array in self._arrays]

    def shared_memory(self, arrays: list[Array]) -> tuple[Any, ...]:
        """Which arrays have elements in common with which of some."""
        return tuple(
            (number, other)
            for number, one in self._arrays
            for other, two in enumerate(arrays)
            if one is not two and np.may_share_memory(one, two) and np.shares_memory(one, two)
        )

    def _function(self, value: types.FunctionType) -> tuple[Any, ...]:
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(self.draw(cell.cell_contents))
            except ValueError:
                cells.append("empty")
        return (
            value.__qualname__,
            value.__globals__ is self._namespace,
            tuple(cells),
            self.draw(value.__defaults__),
            self.draw(value.__kwdefaults__),
            self._code(value.__code__),
        )

    def _code(self, code: types.CodeType) -> tuple[Any, ...]:
        consts = tuple(self._code(one) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts)
        return code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts

    def _class(self, value: type) -> tuple[Any, ...]:
        own = {name: one for name, one in value.__dict__.items() if name not in _CLASS_PARTS}
        return value.__qualname__, tuple(self.draw(base) for base in value.__bases__), self._pairs(own)

    def _generator(self, value: types.GeneratorType[Any, Any, Any]) -> tuple[Any, ...]:
        frame = value.gi_frame
        return ("over",) if frame is None else (value.__qualname__, frame.f_lasti, *self._pairs(frame.f_locals))


_KINDS: list[tuple[Any, Any]] = [
    (list, lambda artist, value: tuple(map(artist.draw, list.__iter__(value)))),
    (defaultdict, lambda artist, value: (artist.draw(value.default_factory), artist._pairs(value))),
    (OrderedDict | dict | types.MappingProxyType, lambda artist, value: artist._pairs(value)),
    (set, lambda artist, value: artist._unordered(value)),
    (deque, lambda artist, value: (value.maxlen, *map(artist.draw, value))),
    (bytearray | memoryview, lambda _artist, value: (bytes(value),)),
    (types.FunctionType, lambda artist, value: artist._function(value)),
    (_LRU_CACHE, lambda artist, value: (artist.draw(value.__wrapped__),)),
    (types.MethodType, lambda artist, value: (artist.draw(value.__self__), artist.draw(value.__func__))),
    (types.BuiltinFunctionType, lambda artist, value: (value.__name__, artist.draw(value.__self__))),
    (types.MethodWrapperType, lambda artist, value: (value.__name__, artist.draw(value.__self__))),
    (
        functools.partial,
        lambda artist, value: (artist.draw(value.func), artist.draw(value.args), artist._pairs(value.keywords)),
    ),
    (type, lambda artist, value: artist._class(value)),
    (types.ModuleType, lambda artist, value: artist._pairs({k: v for k, v in vars(value).items() if k[:2] != "__"})),
    (types.GeneratorType, lambda artist, value: artist._generator(value)),
    (random.Random, lambda _artist, value: (_digest(value.getstate()),)),
    (np.random.Generator, lambda _artist, value: (_digest(value.bit_generator.state),)),
    (np.random.RandomState, lambda _artist, value: (_digest(value.get_state()),)),
    (property, lambda artist, value: (artist.draw(value.fget), artist.draw(value.fset))),
    (staticmethod | classmethod, lambda artist, value: (artist.draw(value.__func__),)),
    (BaseException, lambda artist, value: (artist.draw(value.args),)),
]
