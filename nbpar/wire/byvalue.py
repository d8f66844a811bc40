"""The pickler: C speed for data, and a reducer for each kind of object that the C pickler cannot name in the receiver.

Owns the choice of the reducer: classes of the notebook as :mod:`nbpar.wire.classes` has it, functions as cloudpickle
does, the objects of :mod:`nbpar.wire.special`, handles on shared memory. What remains is asked of dill, one object at a
time, so that everything around it keeps its identity. Used by :mod:`nbpar.wire.codec`.

A new pickler is made for each call: its memo keeps every object it met alive.
"""

from __future__ import annotations

import contextlib
import copyreg
import pickle
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import IO, Any

from cloudpickle import cloudpickle as cp

from nbpar.wire import classes, homes
from nbpar.wire.names import MAIN_MODULES, check_name, globals_of, goes_by_name, importable
from nbpar.wire.special import has_own_reduce, reducer_of_kind

__all__ = ["ByValuePickler", "reduction_table", "set_shared_resolver", "shared_lookup"]

Reducer = Callable[["ByValuePickler", Any], Any]

_MODULE_OWN = frozenset({"__builtins__", "__loader__", "__spec__"})

# cloudpickle's own table is a ChainMap, which costs a Python-level lookup for each object.
_table: dict[type, Any] = {}
_table_of: dict[type, Any] = {}  # copyreg's entries as of when _table was made: imports (numpy, dill) add to it


def reduction_table() -> dict[type, Any]:
    """The reducers of copyreg and cloudpickle in one dict, up to date."""
    if _table_of != copyreg.dispatch_table or not _table:
        _table_of.clear()
        _table_of.update(copyreg.dispatch_table)
        _table.update({**copyreg.dispatch_table, **cp.Pickler._dispatch_table})
    return _table


class ByValuePickler(cp.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
    """A C pickler that sends by value what a worker cannot import.

    Parameters
    ----------
    file : file
        Gets the pickle.
    buffer_callback : callable, optional
        As in :class:`pickle.Pickler`.
    whole_classes : bool
        Carry classes whole; otherwise name them by id and list them in `met_classes`.
    in_worker : bool
        The receiver is the kernel: it has the classes that came from it.
    shared_types : tuple of type
        Types that travel as ``(shared_lookup, (obj.shared_id,))``.
    dill_dispatch : dict, optional
        dill's table, once it was needed.
    """

    dispatch_table = _table

    def __init__(
        self,
        file: IO[bytes],
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        *,
        whole_classes: bool = False,
        in_worker: bool = False,
        shared_types: tuple[type, ...] = (),
        dill_dispatch: dict[type, Any] | None = None,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        reduction_table()
        self.whole_classes = whole_classes
        self.in_worker = in_worker
        self.shared_types = shared_types
        self.dill_dispatch = dill_dispatch
        self.met_classes: dict[type, None] = {}
        self.shared_ids: list[int] = []
        # Functions, not bound methods: a cycle would keep the memo, and so the data, until the next collection.
        self._reducers: dict[type, Reducer | None] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for everything but exact builtins."""
        kind = type(obj)
        try:
            reducer = self._reducers[kind]
        except KeyError:
            reducer = self._reducers[kind] = self.classify(kind)
        return NotImplemented if reducer is None else reducer(self, obj)

    def classify(self, kind: type) -> Reducer | None:
        """How objects of a type are reduced; None leaves it to the C pickler."""
        if issubclass(kind, type):
            return _reduce_class
        if kind is FunctionType:
            return _reduce_function
        if kind in self.shared_types:
            return _reduce_shared
        if kind is ModuleType:
            return _reduce_module
        special = reducer_of_kind(kind)
        if special is not None:
            return special
        if kind in _table:
            return None if kind in cp.Pickler._dispatch_table else _reduce_by_table
        if self.dill_dispatch is not None and kind in self.dill_dispatch:
            return _reduce_by_dill
        return _reduce_checked if has_own_reduce(kind) else None


# --- by name or by value ----------------------------------------------------------------------------------------------


def _reduce_class(pickler: ByValuePickler, cls: type) -> Any:
    if cls in cp._BUILTIN_TYPE_NAMES or cls in _SINGLETON_TYPES:
        return cp._class_reduce(cls)
    if goes_by_name(cls):
        return NotImplemented
    if pickler.in_worker and classes.came_from_kernel(cls):
        return classes.reduce_by_id(cls)
    pickler.met_classes[cls] = None
    if pickler.whole_classes or pickler.in_worker:
        return classes.reduce_whole(cls, to_kernel=pickler.in_worker)
    return classes.reduce_by_id(cls)


def _reduce_function(pickler: ByValuePickler, function: FunctionType) -> Any:
    if goes_by_name(function):
        return NotImplemented
    globals_of(function.__code__)  # cloudpickle goes by what this has found
    _, args, state, *_ = pickler._dynamic_function_reduce(function)
    return homes.make_function, args, state, None, None, homes.set_function_state


def _reduce_module(_pickler: ByValuePickler, module: ModuleType) -> Any:
    if module.__name__ in MAIN_MODULES or importable(module.__name__):
        return cp.subimport, (module.__name__,)
    state = {name: value for name, value in vars(module).items() if name not in _MODULE_OWN}
    return cp.dynamic_subimport, (module.__name__, state)


def _reduce_checked(_pickler: ByValuePickler, obj: Any) -> Any:
    """An object with a reduce method of its own: it may name itself in a module that workers do not have."""
    reduced = obj.__reduce_ex__(5)
    return check_name(obj, reduced) if type(reduced) is str else reduced


def _reduce_by_table(_pickler: ByValuePickler, obj: Any) -> Any:
    reduced = _table[type(obj)](obj)
    return check_name(obj, reduced) if type(reduced) is str else reduced


# --- what only dill knows ---------------------------------------------------------------------------------------------


class _DillRecorder:
    """Stands for the pickler in a save function of dill's and keeps what it would have written."""

    _trace_depth = None
    _recurse = True
    _byref = False
    proto = 5

    def __init__(self) -> None:
        self.reduced: tuple[Any, ...] | None = None

    def save_reduce(self, *reduced: Any, obj: Any = None) -> None:  # as dill calls it
        """Keep the reduce value."""
        self.reduced = reduced


def _reduce_by_dill(pickler: ByValuePickler, obj: Any) -> Any:
    assert pickler.dill_dispatch is not None
    recorder = _DillRecorder()
    with contextlib.suppress(Exception):  # it wanted more of a pickler: then the C pickler shall say what is wrong
        pickler.dill_dispatch[type(obj)](recorder, obj)
    return NotImplemented if recorder.reduced is None else recorder.reduced


# --- handles on shared memory -----------------------------------------------------------------------------------------


def _reduce_shared(pickler: ByValuePickler, obj: Any) -> Any:
    pickler.shared_ids.append(obj.shared_id)
    return shared_lookup, (obj.shared_id,)


def _no_resolver(shared_id: int) -> Any:
    raise LookupError(f"no shared memory is known here (object {shared_id})")


_resolver: Callable[[int], Any] = _no_resolver


def shared_lookup(shared_id: int) -> Any:
    """The receiver's object for a handle on shared memory; named inside pickles."""
    return _resolver(shared_id)


def set_shared_resolver(resolver: Callable[[int], Any]) -> None:
    """Say how `shared_lookup` finds an object; for the whole process."""
    global _resolver
    _resolver = resolver


_SINGLETON_TYPES = frozenset({type(None), type(Ellipsis), type(NotImplemented)})
