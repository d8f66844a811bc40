"""Whether one object leads to another: what a task, or an iterable, has in common with what a loop changes.

:class:`Changed` is what the effects of a loop change in place; :class:`Search` goes from an object to all that it holds
or calls (containers, closures, globals of functions, methods, classes, modules of the user's, views of arrays), and
says which changed object it comes to, and which functions and other objects it meets. Nothing of the user's is called,
but for how objects of libraries pickle. Used by :mod:`nbpar.notebook.captures`.

Bounds: `BUDGET_S`. Nothing else in the process may lead to an object whose references are all accounted for; where that
is so of all that is changed, which is the rule, objects of libraries and large containers are not gone into.
"""

from __future__ import annotations

import copyreg
import gc
import io
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import thread_time
from typing import Any

from nbpar.wire.names import globals_of
from nbpar.wire.special import REDUCERS
from nbpar.worker.contents import is_own_class, is_own_function, is_own_module

__all__ = ["ATOMS", "Changed", "Found", "OutOfTime", "Search", "bounds_of", "names_read_by"]

BUDGET_S = 0.5
"""Of CPU time: how busy the machine is decides nothing."""

FEW = 1_000
"""Elements of a container that is gone into in any case."""

ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), range, slice, type(Ellipsis)})
_COLLECTED = frozenset({list, dict, tuple, set, frozenset})
_BUILTIN = ("builtins", "collections", "itertools", "functools", "types", "operator", "_operator", "_io", "enum")


_HELD = [object()]
_N_OF_CALL = sys.getrefcount(_HELD[0]) - 1
"""What a call of `getrefcount` itself counts; Python 3.14 counts less."""


class OutOfTime(Exception):  # noqa: N818  # a verdict
    """There is more to look through than the budget allows."""


class Changed:
    """The objects that the effects of a loop change in place.

    Parameters
    ----------
    held_by : sequence of mapping
        The user's namespace, and copies of it: references from there are accounted for.

    Attributes
    ----------
    is_held_elsewhere : bool
        Whether there are references to one of them that nobody has accounted for.
    """

    def __init__(self, *held_by: Mapping[str, Any]) -> None:
        self._held_by = held_by
        self._by_id: dict[int, tuple[str, Any]] = {}  # kept alive with the ids
        self._arrays: list[tuple[str, int, int, Any]] = []
        self.is_held_elsewhere = False

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def add_root(self, name: str) -> None:
        """What a name of the namespace is bound to; the caller does not hold it."""
        n_references = sys.getrefcount(self._held_by[0][name]) - _N_OF_CALL
        value = self._held_by[0][name]
        n_references -= sum(one is value for held in self._held_by for one in held.values())
        self._add(name, value, n_references > 0)

    def add_parts(self, name: str, values: Iterable[Any]) -> None:
        """Objects that one container holds, each once."""
        inner = list(values)
        for at in range(len(inner)):
            n_references = sys.getrefcount(inner[at]) - _N_OF_CALL
            self._add(name, inner[at], n_references > 2)

    def _add(self, name: str, value: Any, is_held_elsewhere: bool) -> None:
        if type(value) in ATOMS or id(value) in self._by_id:
            return
        self._by_id[id(value)] = name, value
        self.is_held_elsewhere = self.is_held_elsewhere or is_held_elsewhere
        if (bounds := bounds_of(value)) is not None:
            self._arrays.append((name, *bounds, value))
            if getattr(value, "base", None) is not None:
                self.is_held_elsewhere = True

    def is_among(self, values: Iterable[Any]) -> bool:
        """Whether one of the changed objects is one of these."""
        return not self._by_id.keys().isdisjoint(map(id, values))

    def name_of(self, value: Any) -> str | None:
        """What the changed object is called that this is, or shares memory with."""
        found = self._by_id.get(id(value))
        if found is not None:
            return found[0]
        if self._arrays and (bounds := bounds_of(value)) is not None:
            for name, low, high, changed in self._arrays:
                if bounds[0] < high and low < bounds[1] and _share_memory(value, changed):
                    return name
        return None

    def without(self, name: str) -> Changed:
        """The same but for what is called so."""
        other = Changed(*self._held_by)
        other._by_id = {key: one for key, one in self._by_id.items() if one[0] != name}
        other._arrays = [one for one in self._arrays if one[0] != name]
        other.is_held_elsewhere = self.is_held_elsewhere
        return other


def bounds_of(value: Any) -> tuple[int, int] | None:
    """Where the memory of an array, or of a view of memory, begins and ends."""
    numpy: Any = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)
    if array is None:
        return None
    if isinstance(value, memoryview | bytearray):
        value = numpy.frombuffer(value, "u1") if len(value) and getattr(value, "contiguous", True) else None
    if not isinstance(value, array) or not value.size:
        return None
    low = high = int(value.__array_interface__["data"][0])
    for n, stride in zip(value.shape, value.strides, strict=True):
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    return low, high + value.itemsize


def _share_memory(one: Any, other: Any) -> bool:
    """Whether two arrays whose memory overlaps have an element in common; in doubt they have."""
    numpy: Any = sys.modules["numpy"]
    if not isinstance(one, numpy.ndarray) or not isinstance(other, numpy.ndarray):
        return True
    try:
        return bool(numpy.shares_memory(one, other, max_work=10_000))
    except numpy.exceptions.TooHardError:
        return True


class Found:
    """A changed object that something leads to."""

    __slots__ = ("changed", "is_itself")

    def __init__(self, changed: str, *, is_itself: bool) -> None:
        self.changed = changed
        self.is_itself = is_itself


class Search:
    """Goes through what objects lead to; what one call has seen is not gone through again by the next.

    Parameters
    ----------
    changed : Changed
    on_function, on_other : callable
        Told of each function of the user's, and of each object that is no plain container.
    """

    def __init__(
        self,
        changed: Changed,
        on_function: Callable[[types.FunctionType | types.GeneratorType[Any, Any, Any]], None],
        on_other: Callable[[Any], None],
    ) -> None:
        self.changed = changed
        self._on_function = on_function
        self._on_other = on_other
        self._seen: dict[int, Any] = {}  # kept alive, so that no other object gets one of the ids
        self._deadline_s = thread_time() + BUDGET_S

    def find(self, root: Any) -> Found | None:
        """The first changed object that an object leads to, or is.

        Raises
        ------
        OutOfTime
        """
        todo: deque[Any] = deque([root])
        while todo:
            value = todo.popleft()
            if type(value) in ATOMS or id(value) in self._seen:
                continue
            name = self.changed.name_of(value)
            if name is not None:
                return Found(name, is_itself=value is root)
            self._seen[id(value)] = value
            if not len(self._seen) % 256 and thread_time() > self._deadline_s:
                raise OutOfTime
            todo.extend(self._parts(value))
        return None

    def _parts(self, value: Any) -> Iterable[Any]:
        kind = type(value)
        if kind in (list, tuple, set, frozenset, deque):
            return self._elements(value)
        if kind is dict:
            return [*self._elements(value), *self._elements(value.values())]
        if isinstance(value, types.FunctionType | types.GeneratorType):
            return self._parts_of_function(value)
        if isinstance(value, type):
            return [*vars(value).values(), *value.__bases__] if is_own_class(value) else ()
        if kind is types.ModuleType:
            return vars(value).values() if is_own_module(value.__name__) else ()
        if kind is types.CodeType or kind.__module__.partition(".")[0] == "nbpar":
            return ()
        self._on_other(value)
        if is_own_class(kind) or kind.__module__ in _BUILTIN:
            return self._referents(value)
        if self._is_array(kind):
            return self._objects_in(value)
        return self._pickled_parts(value, kind) if self.changed.is_held_elsewhere else ()

    def _elements(self, values: Any) -> Iterable[Any]:
        if len(values) <= FEW:
            return values  # type: ignore[no-any-return]
        kinds = set(map(type, values)) - ATOMS if self.changed.is_held_elsewhere else ()
        if not kinds:
            return ()
        if _COLLECTED.issuperset(kinds) and not self.changed.is_among(values):
            return filter(gc.is_tracked, values)  # of the others Python knows that they hold nothing that can change
        return values  # type: ignore[no-any-return]

    @staticmethod
    def _is_array(kind: type) -> bool:
        array = getattr(sys.modules.get("numpy"), "ndarray", None)
        return array is not None and issubclass(kind, array)

    def _objects_in(self, value: Any) -> Iterable[Any]:
        return self._elements(value.ravel().tolist()) if value.dtype.hasobject else ()

    def _parts_of_function(self, value: Any) -> Iterator[Any]:
        if isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            if frame is None:
                return
            code, known = value.gi_code, frame.f_globals
            yield from frame.f_locals.values()
        elif not is_own_function(value):
            return
        else:
            code, known = value.__code__, value.__globals__
            yield from value.__defaults__ or ()
            yield from (value.__kwdefaults__ or {}).values()
            yield from vars(value).values()
            for cell in value.__closure__ or ():
                if not _is_empty(cell):
                    yield cell.cell_contents
        self._on_function(value)
        for name in globals_of(code):
            if name in known:
                yield known[name]

    def _referents(self, value: Any) -> Iterable[Any]:
        found = gc.get_referents(value)
        if isinstance(value, memoryview):
            found.append(value.obj)
        if len(found) > FEW and not self.changed.is_held_elsewhere:
            return ()
        return found

    def _pickled_parts(self, value: Any, kind: type) -> Iterable[Any]:
        """What an object of a library takes along when it travels."""
        if kind in REDUCERS or isinstance(value, io.IOBase | types.ModuleType):
            return ()
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced: Any = value.__reduce_ex__(4) if reducer is None else reducer(value)
        except Exception:  # noqa: BLE001  # it cannot travel, or takes other ways
            return ()
        if isinstance(reduced, str):
            return ()
        _, args, state, items, pairs = (*reduced, None, None, None)[:5]
        return [args, state, list(items or ()), list(pairs or ())]


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # a name that is not bound yet
        return True


def names_read_by(value: types.FunctionType | types.GeneratorType[Any, Any, Any]) -> tuple[Mapping[str, Any], set[str]]:
    """The globals of a function or a running generator, and the names in them that it reads or sets."""
    if isinstance(value, types.GeneratorType):
        globals_ = {} if value.gi_frame is None else value.gi_frame.f_globals
        return globals_, set(globals_of(value.gi_code))
    return value.__globals__, set(globals_of(value.__code__))
