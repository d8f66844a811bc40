"""What all that a function brought holds, written down so that two looks can be compared, exactly: for loops.

:func:`written` goes further than :func:`nbpar.worker.marks.mark`: into functions, classes, methods and modules of the
user's, into objects of libraries by what they pickle as, into the state of generators of random numbers, and into
arrays by a checksum. :func:`are_equal` compares. Used by :mod:`nbpar.worker.strict`, and for
:mod:`nbpar.wire.homes`.

Bounds: `MAX_BYTES` and `MAX_OBJECTS` for one object; of what is larger, its type and length and, for arrays, a sample.
"""

from __future__ import annotations

import copyreg
import functools
import itertools
import marshal
import pickle
import random
import sys
import types
import weakref
import zlib
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from nbpar.wire import homes
from nbpar.wire.classes import came_from_kernel, class_id
from nbpar.wire.names import MAIN_MODULES, goes_by_name
from nbpar.worker.changes import MISSING, Fetch, is_by_value, parts_of
from nbpar.worker.marks import (
    BY_REPR,
    CONTAINERS,
    DICTS,
    Thing,
    TooLarge,
    cached_properties,
    content_of,
    is_lively,
    is_number,
)

__all__ = [
    "Foreign",
    "Written",
    "are_equal",
    "is_own_class",
    "is_own_function",
    "is_own_module",
    "is_plain",
    "keep_globals",
    "parts_of_callable",
    "written",
]

MAX_BYTES = 64 << 20
"""Of one object; arrays count by what is read of them."""

MAX_OBJECTS = 50_000
"""Objects that are none of Python's own take 2 us each."""

KEPT_BYTES = 256 << 10
"""What is no longer is kept as it is; of more, length and checksum."""

SAMPLES = 64
"""Stretches of 64 KB that are read of an array for which no budget is left; its ends are among them."""

_PLAIN = frozenset({int, float, str, bytes, bool, complex, type(None), range, type(Ellipsis), type})
_FRAMES = ("pandas.core.frame", "pandas.core.series")

Written = bytes | tuple[int, int]


class Foreign(Thing):
    """A :class:`Thing` of a class that is neither the notebook's nor a module's of the user's."""

    __slots__ = ()


def is_plain(value: object) -> bool:
    """Whether nothing in a value can change; told of plain values and small tuples of them."""
    kind = type(value)
    return kind in _PLAIN or (kind is tuple and all(type(one) in _PLAIN for one in value))  # type: ignore[attr-defined]


def written(value: object, n_bytes: int = MAX_BYTES, *, exact: bool = False) -> Written:
    """What an object holds; nothing of the user's is called for it, but what pickle calls of a library's.

    Parameters
    ----------
    n_bytes : int
        How much to read of arrays, at most.
    exact : bool
        No array by a sample: with a larger one the object as a whole is too large. Functions with their code, classes
        of the notebook by their identity.
    """
    file = _Checked(n_bytes if exact else MAX_BYTES)
    try:
        _Writer(file, min(n_bytes, MAX_BYTES), exact=exact).dump(value)
    except (TooLarge, RecursionError):
        length = len(value) if isinstance(value, list | dict | set | deque | bytearray) else 0
        return -1 - length, zlib.crc32(type(value).__qualname__.encode())
    return b"".join(file.parts) if file.parts is not None else (file.n_bytes, file.checksum)


class _Checked:
    """A file of limited size that keeps a checksum of what is long."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.n_bytes = self.checksum = 0
        self.parts: list[bytes] | None = []

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.n_bytes += n_bytes
        if self.n_bytes > self._limit_bytes:
            raise TooLarge
        self.checksum = zlib.crc32(data, self.checksum)
        if self.parts is not None:
            self.parts.append(bytes(data))
            if self.n_bytes > KEPT_BYTES:
                self.parts = None
        return n_bytes


class _Writer(pickle.Pickler):
    """Writes plain builtins as they are, and a :class:`Thing` for everything else."""

    def __init__(self, file: _Checked, array_bytes: int, *, exact: bool) -> None:
        super().__init__(file, protocol=5)
        self._exact = exact
        self._n_left = MAX_OBJECTS
        self._array_bytes = array_bytes

    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for everything but exact builtins."""
        if obj is Thing or obj is Foreign:
            return NotImplemented
        self._n_left -= 1
        if self._n_left < 0:
            raise TooLarge
        kind = type(obj)
        try:
            own, content = self._content(obj, kind)
        except (TooLarge, RecursionError):
            raise
        except Exception:  # noqa: BLE001  # it cannot be pickled, or a thread changes it: it counts by its type
            own, content = True, None
        name = kind.__qualname__
        if self._exact and came_from_kernel(kind):
            name = class_id(kind)
        return (Thing if own else Foreign), (name,), content

    def _content(self, obj: Any, kind: type) -> tuple[bool, object]:
        if issubclass(kind, type):
            return True, class_id(obj) if self._exact and came_from_kernel(obj) else obj.__qualname__
        if kind is types.ModuleType:
            return True, obj.__name__
        if kind is types.FunctionType:
            parts: object = _now(parts_of(obj)) if is_own_function(obj) else None
            return True, [obj.__qualname__, marshal.dumps(obj.__code__) if self._exact else None, parts]
        if (held := parts_of_callable(obj, kind)) is not None:
            return True, held
        if (state := _of_generator(obj)) is not None:
            return True, state
        if is_lively(kind) or issubclass(kind, weakref.ref):
            if self._exact and kind.__module__.startswith("nbpar."):  # a handle says by no content what it stands for
                raise TooLarge
            return True, None
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and isinstance(obj, getattr(numpy, "ndarray", ())):
            return True, self._of_array(obj)
        if issubclass(kind, array | bytearray | memoryview):
            return True, self._checksum(obj)
        return _simply(obj, kind) or (is_own_class(kind), _reduced(obj, kind))

    def _of_array(self, found: Any) -> object:
        layout = repr(found.dtype), found.shape
        if found.dtype.hasobject:
            return *layout, found.tolist()
        if found.nbytes <= 256:
            return *layout, found.tobytes()
        if hasattr(found, "_mask") and hasattr(found, "data"):  # a masked one
            return *layout, self._of_array(found.data), self._of_array(found.mask)
        if self._exact and found.nbytes > self._array_bytes:
            raise TooLarge
        if not found.flags.forc:
            if found.nbytes > self._array_bytes:  # a copy of all of it would be made
                return *layout, found.ravel()[:: max(1, found.size // 4096)].tobytes()
            found = found.copy()
        flat = found.reshape(-1, order="A").view("u1")
        return *layout, self._checksum(flat)

    def _checksum(self, flat: Any) -> object:
        data = memoryview(flat).cast("B")
        if data.nbytes <= self._array_bytes:
            self._array_bytes -= data.nbytes
            return data.nbytes, zlib.crc32(data)
        if self._exact:
            raise TooLarge
        size, checksum = 64 << 10, 0
        step = max(size, (data.nbytes - size) // (SAMPLES - 1))
        for start in itertools.chain(range(0, data.nbytes - size, step), [data.nbytes - size]):
            checksum = zlib.crc32(data[start : start + size], checksum)
        return data.nbytes, checksum


HOME_BYTES = 1 << 20
"""Of a global that is larger nobody says whether it comes as it came before: it would be read for each job."""


def keep_globals() -> None:
    """Have this worker keep what its code does to globals; see :mod:`nbpar.wire.homes`."""

    def look_at(value: object) -> Written | None:
        if isinstance(value, type | types.FunctionType | types.ModuleType):
            return None
        found = written(value, HOME_BYTES, exact=True)
        return None if type(found) is tuple and found[0] < 0 else found

    homes.keep(look_at, are_equal)


# --- what objects are made of -----------------------------------------------------------------------------------------


def is_own_module(name: object) -> bool:
    """Whether a module, by its name, is the user's own; the notebook is none."""
    if not isinstance(name, str) or name.partition(".")[0] in sys.stdlib_module_names or name in MAIN_MODULES:
        return False
    from nbpar.wire.modules import is_library

    return name in sys.modules and not is_library(name)


def is_own_class(kind: type) -> bool:
    """Whether a class is the notebook's, or a module's of the user's own."""
    if came_from_kernel(kind) or kind.__module__ in MAIN_MODULES:
        return True
    return is_own_module(kind.__module__) and goes_by_name(kind)


def is_own_function(function: types.FunctionType) -> bool:
    """Whether a function is the notebook's, or a module's of the user's own."""
    name = function.__globals__.get("__name__")
    return is_by_value(function) or name in MAIN_MODULES or is_own_module(name)


def _now(parts: Iterator[tuple[str, Fetch, bool]]) -> list[tuple[str, object]]:
    values = ((name, fetch()) for name, fetch, _ in parts)
    return [(name, None if value is MISSING else value) for name, value in values]


def parts_of_callable(obj: Any, kind: type) -> list[object] | None:
    """What a callable, or what wraps one, is made of; None for others."""
    if kind is types.MethodType:
        return [obj.__func__, obj.__self__]
    if kind is types.BuiltinFunctionType or kind is types.MethodWrapperType:
        owner = obj.__self__
        return [obj.__name__, None if isinstance(owner, types.ModuleType) else owner]
    if kind is functools.partial:
        return [obj.func, obj.args, obj.keywords]
    if kind is functools._lru_cache_wrapper:
        return [obj.__wrapped__]
    if kind is property:
        return [obj.fget, obj.fset, obj.fdel]
    if kind is staticmethod or kind is classmethod:
        return [obj.__func__]
    if kind is types.MappingProxyType:
        return [dict(obj)]
    if kind is types.CellType:
        return [obj.cell_contents]
    return None


def _of_generator(obj: Any) -> object:
    """The state of a generator of random numbers."""
    if isinstance(obj, random.Random) and not isinstance(obj, random.SystemRandom):
        return random.Random.getstate(obj)
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is None or not isinstance(obj, numpy_random.Generator | numpy_random.RandomState):
        bits = getattr(numpy_random, "BitGenerator", None)
        return obj.state if bits is not None and isinstance(obj, bits) else None
    if isinstance(obj, numpy_random.Generator):
        return obj.bit_generator.state
    return obj.get_state(legacy=False)


def _simply(obj: Any, kind: type) -> tuple[bool, object] | None:
    """What an object holds that need not be asked how it is pickled."""
    if kind is OrderedDict:  # which has an order of its own beside that of a dict
        return True, list(OrderedDict.items(obj))
    if kind in DICTS or kind in CONTAINERS or is_number(kind):
        return True, content_of(obj, kind)
    if came_from_kernel(kind) or kind.__module__ in MAIN_MODULES:  # the same in the kernel as in a worker
        return True, content_of(obj, kind, is_own=True)
    if (kind.__module__, kind.__name__) in BY_REPR:
        return True, repr(obj)
    if kind.__module__ == "itertools":  # pickling them is deprecated; a count and a repeat say where they are
        return True, repr(obj) if kind in (itertools.count, itertools.repeat) else None
    return (True, _of_frame(obj, kind)) if kind.__module__ in _FRAMES else None


def _of_frame(obj: Any, kind: type) -> object:
    """A DataFrame or a Series by its columns: reading may lay them out anew."""
    if kind.__name__ == "Series":
        return obj.name, obj.index, obj.array, dict(obj.attrs)
    return obj.columns, obj.index, [obj.iloc[:, i].array for i in range(obj.shape[1])], dict(obj.attrs)


def _reduced(obj: Any, kind: type) -> object:
    """What an object of a library, or of a module of the user's, pickles as."""
    reducer = copyreg.dispatch_table.get(kind)
    reduced: Any = obj.__reduce_ex__(5) if reducer is None else reducer(obj)
    if isinstance(reduced, str):
        return reduced
    function, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if isinstance(state, dict):
        cached = cached_properties(kind)
        state = {name: one for name, one in state.items() if name not in cached}
    by_name = getattr(function, "__qualname__", "")
    return [by_name, args, state, list(items or ()), list(pairs or ())]


# --- comparing --------------------------------------------------------------------------------------------------------


def are_equal(before: Written, now: Written) -> bool:
    """Whether two looks at an object saw the same content.

    What a library's object keeps for itself does not count: a private attribute that is new, or was None.
    """
    if before == now:
        return True
    if type(before) is not bytes or type(now) is not bytes or not before or not now:  # nothing is there: b""
        return False
    # The bytes also tell equal objects from one object, and know an order of sets.
    todo: list[tuple[Any, Any]] = [(pickle.loads(before), pickle.loads(now))]
    seen: set[tuple[int, int]] = set()
    while todo:
        old, new = todo.pop()
        if old is new or (id(old), id(new)) in seen:
            continue
        if type(old) is not type(new):
            return False
        seen.add((id(old), id(new)))
        parts = _pairs(old, new)
        if parts is None:
            return False
        todo += parts
    return True


def _pairs(old: Any, new: Any) -> list[tuple[Any, Any]] | None:
    """What has to be equal that two objects of one type are; None when they cannot be."""
    kind = type(old)
    if kind is Foreign and old.name == new.name:
        return _pairs_of_foreign(old.content, new.content)
    if kind is Thing:
        return [(old.content, new.content)] if old.name == new.name else None
    if kind is list or kind is tuple:
        return list(zip(old, new, strict=True)) if len(old) == len(new) else None
    if kind is dict:
        if len(old) != len(new):
            return None
        return [*zip(old, new, strict=True), *zip(old.values(), new.values(), strict=True)]
    if kind is set or kind is frozenset:
        return [] if old == new or sorted(map(repr, old)) == sorted(map(repr, new)) else None
    if kind is float or kind is complex:
        return [] if repr(old) == repr(new) else None
    return [] if old == new else None


def _pairs_of_foreign(old: Any, new: Any) -> list[tuple[Any, Any]] | None:
    if type(old) is not list or type(new) is not list or len(old) != 5 or len(new) != 5:
        return [(old, new)]
    (_, _, state, *_), (_, _, later, *_) = old, new
    is_attributes = type(state) in (dict, type(None)) and type(later) is dict
    if not is_attributes:
        return [(old, new)]
    state, names = state or {}, set(state or {}) | set(later)
    lost: list[tuple[Any, Any]] = []
    for name in names:
        is_private = isinstance(name, str) and name.startswith("_")
        if is_private and state.get(name) is None:
            continue
        if name not in state or name not in later:
            return None
        lost.append((state[name], later[name]))
    return [*lost, (old[:2], new[:2]), (old[3:], new[3:])]
