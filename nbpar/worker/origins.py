"""Which objects of a task's result are the notebook's own: they go back as a name, not as a copy.

``good.append(row)`` puts the very row into the list that is in ``rows`` as well; a worker only has a copy. So what came
with the task (its item, objects that its function names, and what is in them) is numbered by a walk that finds the
same objects in the same order on both sides; the worker puts an :class:`Origin` in the place of such an object, and the
kernel its own object in the place of the Origin.

Owns the walk, the numbers and the exchange. Used by :mod:`nbpar.worker.recorder` in workers and by
:mod:`nbpar.notebook.replay` in the kernel. What cannot change needs no origin, for nobody can tell it from its copy.
"""

from __future__ import annotations

import copy
import functools
import operator
import sys
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import contains
from typing import Any, NamedTuple

from nbpar.wire.names import globals_of, goes_by_name
from nbpar.worker.views import Arrays, View, is_array, seen

__all__ = ["ITEM_ORIGIN", "PLAIN_TYPES", "Known", "Origin", "are_plain", "parts_of", "resolved", "with_origins"]

MAX_PARTS = 100_000
"""Of one object; the walk takes 0.5 us for each, once for a name in each worker."""

ITEM_ORIGIN = ""
"""The name of the task's item."""

PLAIN_TYPES: set[type] = {
    *(int, float, complex, bool, str, bytes, type(None), range, type(Ellipsis), type(NotImplemented)),
    *(types.ModuleType, types.CodeType),
}
"""Types whose objects cannot change, or travel by name. Grows by what :func:`is_plain` finds."""

_OPEN = frozenset({list, dict, tuple, set, frozenset, deque, OrderedDict, defaultdict, Counter, types.FunctionType})
"""The most frequent of those that are not."""

_PLAIN_NAMES = frozenset(
    {
        *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")),
        *(("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath")),
        *(("pandas", "Timestamp"), ("pandas", "Timedelta"), ("re", "Pattern"), ("re", "Match")),
    }
)

_DICTS = (dict, OrderedDict, defaultdict, Counter)


class Origin(NamedTuple):
    """Stands for an object of the notebook's.

    Attributes
    ----------
    name : str
        The name that the walk began with; :data:`ITEM_ORIGIN` for the item.
    number : int
        Which of the objects that the walk found.
    """

    name: str
    number: int


def are_plain(values: Iterable[object]) -> bool:
    """Whether nobody could tell any of these from its copy.

    Examples
    --------
    >>> are_plain([1, "a", None]), are_plain([1, []])
    (True, False)
    """
    return PLAIN_TYPES.issuperset(map(type, values)) or all(_is_plain(kind) for kind in set(map(type, values)))


def _is_plain(kind: type) -> bool:
    if kind in PLAIN_TYPES:
        return True
    if kind in _OPEN:
        return False
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    is_plain = (kind.__module__, kind.__name__) in _PLAIN_NAMES or (
        generic is not None and issubclass(kind, generic) and kind.__name__ not in ("void", "object_")
    )
    if is_plain:
        PLAIN_TYPES.add(kind)
    return is_plain


def parts_of(root: object) -> list[Any]:
    """All that can be reached from an object and is not plain, the object first; in an order that its copy has as well.

    Examples
    --------
    >>> parts_of({"a": [1, 2], "b": ([], 3)})
    [{'a': [1, 2], 'b': ([], 3)}, ([], 3), [], [1, 2]]
    """
    found: list[Any] = []
    seen: set[int] = set()
    todo = [root]
    while todo and len(found) < MAX_PARTS:
        value = todo.pop()
        kind = type(value)
        if kind in PLAIN_TYPES or id(value) in seen or _is_plain(kind):
            continue
        seen.add(id(value))
        found.append(value)
        inner = _inside(value, kind)
        if not PLAIN_TYPES.issuperset(map(type, inner)):
            todo.extend(inner)
    return found


def _inside(value: Any, kind: type) -> list[Any] | tuple[Any, ...] | deque[Any]:
    if kind in (list, tuple, deque):
        return value  # type: ignore[no-any-return]
    if kind in _DICTS:
        return list(value.values())
    if kind is types.FunctionType:
        return [] if goes_by_name(value) else _of_function(value)
    if kind is functools.partial:
        return [value.func, *value.args, *value.keywords.values()]
    if kind is types.MethodType:
        return [value.__func__, value.__self__]
    if kind is types.BuiltinFunctionType:
        return [value.__self__]
    if isinstance(value, type):
        return [] if _goes_by_name(value) else _of_class(value)
    if _has_plain_state(kind):
        return _of_instance(value, kind)
    return []


def _of_instance(value: Any, kind: type) -> list[Any]:
    """Its attributes, without those that a task may have been the first to look at."""
    is_foreign = _goes_by_name(kind)  # what a library's object keeps for itself is no change of it
    found = [
        one
        for name, one in vars(value).items()
        if not (is_foreign and name[:1] == "_") and not isinstance(getattr(kind, name, None), functools.cached_property)
    ]
    return found if is_foreign else [*found, kind]


def _of_class(cls: type) -> list[Any]:
    """What is written in a class of the notebook, and not made by Python."""
    own = sorted(vars(cls).items())
    return [
        getattr(value, "__func__", value)  # of a static method, say
        for name, value in own
        if isinstance(value, types.FunctionType | staticmethod | classmethod)
        or not (name.startswith(("__", "_abc_")) or isinstance(value, _OF_SLOTS))
    ]


def _goes_by_name(cls: type) -> bool:
    known = _by_name.get(cls)
    if known is None:
        known = _by_name[cls] = goes_by_name(cls)
    return known


def _of_function(function: types.FunctionType) -> list[Any]:
    # By the names that cloudpickle takes along: a worker's function has no others.
    known = function.__globals__
    found = [known[name] for name in globals_of(function.__code__) if name in known]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # empty
            continue
    return [*found, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _has_plain_state(kind: Any) -> bool:
    """Whether all that objects of a type hold is in their ``__dict__``, and a copy is made by filling that."""
    known = _has_state.get(kind)
    if known is None:
        known = _has_state[kind] = (
            kind.__flags__ & _HEAP_TYPE != 0
            and kind.__dictoffset__ != 0
            and kind.__basicsize__ <= _Bare.__basicsize__
            and not issubclass(kind, type)
            and kind.__reduce_ex__ is object.__reduce_ex__
            and kind.__reduce__ is object.__reduce__
            and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
            and not any(hasattr(kind, name) for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__"))
        )
    return known


class _Bare:
    """What an object without slots and bases of C code is like."""


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by Python code
_OF_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_by_name: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
_has_state: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


# --- in the worker ----------------------------------------------------------------------------------------------------


class Known:
    """The objects that came with a task.

    Parameters
    ----------
    roots : mapping
        What to walk through, by name.

    Attributes
    ----------
    by_id : dict
        Origin and object.
    arrays : Arrays
        Those that are arrays.
    """

    __slots__ = ("arrays", "by_id")

    def __init__(self, roots: Mapping[str, object]) -> None:
        # With the object, so that its id stays its own.
        self.by_id: dict[int, tuple[Origin, Any]] = {}
        for name, root in roots.items():
            for number, part in enumerate(parts_of(root)):
                self.by_id.setdefault(id(part), (Origin(name, number), part))
        self.arrays = Arrays(one for one in self.by_id.values() if is_array(one[1]))


def with_origins(values: tuple[Any, ...], tables: Sequence[Known]) -> tuple[Any, ...]:
    """In a worker: the same values, with origins in the place of what is known; the very same tuple without any."""

    def replaced(value: Any) -> Any:
        for table in tables:
            if (found := table.by_id.get(id(value))) is not None:
                return found[0]
            if table.arrays and is_array(value) and (view := table.arrays.view_of(value)) is not None:
                return view
        return value

    tables = [table for table in tables if table.by_id]
    return _exchange(values, replaced) if tables and _reaches(values, tables) else values


def _reaches(root: tuple[Any, ...], tables: Sequence[Known]) -> bool:
    """Whether anything that is known can be reached."""
    ids = [table.by_id for table in tables]
    arrays = [table.arrays for table in tables if table.arrays]
    seen: set[int] = set()
    todo = [*root]
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in PLAIN_TYPES or id(value) in seen:
            continue
        if any(map(contains, ids, repeat(id(value)))):
            return True
        if kind not in _OPEN:
            if _is_plain(kind):
                continue
            if arrays and is_array(value) and any(one.view_of(value) is not None for one in arrays):
                return True
        seen.add(id(value))
        inner = _inside(value, kind)
        if not PLAIN_TYPES.issuperset(map(type, inner)):
            todo.extend(inner)
    return False


class Bound(NamedTuple):
    """Stands for a method of an object of the notebook's, or a partial that has such objects as its arguments."""

    maker: Callable[..., Any]
    parts: tuple[Any, ...]


_APART = frozenset({types.MethodType, types.BuiltinFunctionType, functools.partial, Bound})


def _apart(value: Any, kind: type, of: Callable[[Any], Any]) -> Any:
    """Something that is made of others, with these replaced: a :class:`Bound`; in the kernel what that stands for."""
    if kind is Bound:
        return value.maker(*map(of, value.parts))
    maker: Callable[..., Any]
    parts: tuple[Any, ...]
    if kind is types.MethodType:
        maker, parts = _method, (value.__func__, value.__self__)
    elif kind is functools.partial:
        maker, parts = _partial, (value.func, value.args, value.keywords)
    else:
        maker, parts = getattr, (value.__self__, value.__name__)
    inner = tuple(map(of, parts))
    return value if all(map(operator.is_, parts, inner)) else Bound(maker, inner)


def _method(function: Callable[..., Any], owner: Any) -> Any:
    return types.MethodType(function, owner)


def _partial(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return functools.partial(function, *args, **keywords)


# --- exchange ---------------------------------------------------------------------------------------------------------


def resolved(values: tuple[Any, ...], parts: Callable[[str], list[Any]]) -> tuple[Any, ...]:
    """In the kernel: the same values, with the notebook's objects in the place of their origins.

    Parameters
    ----------
    values : tuple
    parts : callable
        Gives `parts_of` the object of a name.
    """

    def replaced(value: Any) -> Any:
        if type(value) is View:
            return seen(value, parts(value.array.name)[value.array.number])
        return parts(value.name)[value.number] if type(value) is Origin else value

    return _exchange(values, replaced)


def _exchange(values: tuple[Any, ...], replaced: Callable[[Any], Any]) -> tuple[Any, ...]:
    memo: dict[int, Any] = {}
    kept: list[Any] = []  # so that no id is given twice

    def of(value: Any) -> Any:
        kind = type(value)
        if kind in PLAIN_TYPES:
            return value
        if id(value) in memo:
            return memo[id(value)]
        other = replaced(value)
        kept.append(value)
        if other is not value:
            memo[id(value)] = other  # two names of one part of an array
            return other
        made: Any
        if kind is tuple:
            inner = tuple(map(of, value))
            is_same = all(map(operator.is_, value, inner))
            return memo.setdefault(id(value), value if is_same else inner)  # a part of it may have led back here
        if kind in (list, deque):
            memo[id(value)] = made = copy.copy(value)
            made.clear()
            made.extend(map(of, value))
            return made
        if kind in _DICTS:
            made = memo[id(value)] = copy.copy(value)
            made.clear()
            for key, one in value.items():
                made[of(key) if type(key) is tuple else key] = of(one)
            return made
        if kind in _APART:
            made = memo[id(value)] = _apart(value, kind, of)
            return made
        if _has_plain_state(kind):
            made = memo[id(value)] = object.__new__(kind)
            vars(made).update({name: of(one) for name, one in vars(value).items()})
            return made
        return value

    return tuple(map(of, values))
