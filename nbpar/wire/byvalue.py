"""The pickler: C speed for data, and a reducer for each kind of object that the C pickler cannot name in the receiver.

Owns the rule of what goes by name and what by value, and the reducers for what neither pickle nor cloudpickle carries:
locks, weak references, open files, the standard streams, `lru_cache`d functions. What remains is asked of dill, one
object at a time, so that everything around it keeps its identity. Used by :mod:`nbpar.wire.codec`; the ``make_*``
functions are named inside pickles and run while unpickling.

A new pickler is made for each call: its memo keeps every object it met alive.
"""

from __future__ import annotations

import _thread
import contextlib
import copyreg
import functools
import io
import pickle
import sys
import tempfile
import typing
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import IO, Any

from cloudpickle import cloudpickle as cp

from nbpar.wire import classes

__all__ = ["ByValuePickler", "goes_by_name", "importable", "is_special", "set_shared_resolver", "shared_lookup"]

Reducer = Callable[["ByValuePickler", Any], Any]

_LARGE_BYTES = 64 << 10
_MODULE_OWN = frozenset({"__builtins__", "__loader__", "__spec__"})
_MAIN_MODULES = frozenset({"__main__", "__mp_main__"})

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
        if kind in _REDUCERS:
            return _REDUCERS[kind]
        if kind is type(sys.stdout) or kind is type(sys.stderr) or kind.__name__ == "OutStream":
            return _reduce_stream
        if kind in _table:
            return None if kind in cp.Pickler._dispatch_table else _reduce_by_table
        if issubclass(kind, weakref.ref):
            return _reduce_weakref
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy":
            return _reduce_array
        if self.dill_dispatch is not None and kind in self.dill_dispatch:
            return _reduce_by_dill
        if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
            return None
        return _reduce_checked


# --- by name or by value ----------------------------------------------------------------------------------------------


def importable(name: str) -> bool:
    """Whether a worker can import the module.

    Workers have an almost empty ``__main__``. A module without a spec was made by hand in this process, unless it is
    part of a package that was imported, which then makes it there as well.
    """
    module = sys.modules.get(name)
    if module is None or name in _MAIN_MODULES:
        return False
    if getattr(module, "__spec__", None) is not None:
        return True
    root = sys.modules.get(name.partition(".")[0])
    return getattr(root, "__spec__", None) is not None


def goes_by_name(obj: Any) -> bool:
    """Whether a class or function is found by its module and name in a worker."""
    found = cp._lookup_module_and_qualname(obj)
    if found is None:
        return False
    module = found[0]
    return importable(module.__name__) and not cp._is_registered_pickle_by_value(module)


def is_special(kind: type) -> bool:
    """Whether objects of the type are reduced by a rule of this module."""
    return kind in _REDUCERS or issubclass(kind, weakref.ref)


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
    return NotImplemented if goes_by_name(function) else pickler._dynamic_function_reduce(function)


def _reduce_module(_pickler: ByValuePickler, module: ModuleType) -> Any:
    if module.__name__ in _MAIN_MODULES or importable(module.__name__):
        return cp.subimport, (module.__name__,)
    state = {name: value for name, value in vars(module).items() if name not in _MODULE_OWN}
    return cp.dynamic_subimport, (module.__name__, state)


def _reduce_checked(_pickler: ByValuePickler, obj: Any) -> Any:
    """An object with a reduce method of its own: it may name itself in a module that workers do not have."""
    reduced = obj.__reduce_ex__(5)
    return _check_name(obj, reduced) if type(reduced) is str else reduced


def _reduce_array(_pickler: ByValuePickler, array: Any) -> Any:
    # numpy copies an array with gaps into the pickle; a copy without gaps travels out of band.
    if array.nbytes >= _LARGE_BYTES and not array.dtype.hasobject:
        flags = array.flags
        if not (flags.c_contiguous or flags.f_contiguous):
            array = array.copy()
    return array.__reduce_ex__(5)


def _reduce_by_table(_pickler: ByValuePickler, obj: Any) -> Any:
    reduced = _table[type(obj)](obj)
    return _check_name(obj, reduced) if type(reduced) is str else reduced


def _check_name(obj: Any, name: str) -> str:
    module = pickle.whichmodule(obj, name)  # type: ignore[attr-defined]  # absent from typeshed
    if importable(module):
        return name
    raise pickle.PicklingError(
        f"it is pickled by its name {name!r}, which is known in the notebook only; make it inside the function"
    )


def _reduce_newtype(_pickler: ByValuePickler, obj: Any) -> Any:
    if goes_by_name(obj):
        return obj.__reduce__()
    return typing.NewType, (obj.__name__, obj.__supertype__), {"__module__": obj.__module__}


# --- what pickle and cloudpickle refuse -------------------------------------------------------------------------------


def _reduce_lock(_pickler: ByValuePickler, obj: Any) -> Any:
    # A lock arrives free, unlike with dill: whoever holds it is not there to release it.
    return (_thread.allocate_lock if type(obj) is _thread.LockType else _thread.RLock), ()


def _reduce_lru_cache(_pickler: ByValuePickler, obj: Any) -> Any:
    if goes_by_name(obj):
        return obj.__reduce__()
    attributes = {name: value for name, value in vars(obj).items() if name not in ("__wrapped__", "cache_parameters")}
    return make_lru_cache, (obj.__wrapped__, obj.cache_parameters()), attributes or None


def make_lru_cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """A function with an empty cache of the same size."""
    return functools.lru_cache(**parameters)(function)


def _reduce_weakref(_pickler: ByValuePickler, obj: Any) -> Any:
    target = obj()
    return (make_dead_ref, ()) if target is None else (type(obj), (target,))


def make_dead_ref() -> Any:
    """A reference to an object that is gone."""
    return weakref.ref(set())


def _reduce_weak_dict(_pickler: ByValuePickler, obj: Any) -> Any:
    return type(obj), (), None, None, iter(list(obj.items()))


def _reduce_stream(_pickler: ByValuePickler, obj: Any) -> Any:
    name = _stream_name(obj)
    if name:
        return make_stream, (name,)
    return _reduce_text_file(_pickler, obj) if type(obj) is io.TextIOWrapper else NotImplemented


def _stream_name(obj: Any) -> str:
    if obj is sys.stdout or obj is sys.__stdout__:
        return "stdout"
    if obj is sys.stderr or obj is sys.__stderr__:
        return "stderr"
    if type(obj).__name__ == "OutStream":  # of ipykernel: an older one, from before a redirection
        return obj.name if obj.name in ("stdout", "stderr") else ""
    return ""


def make_stream(name: str) -> Any:
    """The receiver's own stream."""
    return getattr(sys, name)


def _reduce_text_file(_pickler: ByValuePickler, obj: io.TextIOWrapper) -> Any:
    name = _stream_name(obj)
    if name:
        return make_stream, (name,)
    if not obj.closed and obj.readable() and not obj.writable():
        return cp._file_reduce(obj)
    options = {"encoding": obj.encoding, "errors": obj.errors}
    return _reduce_open_file(obj, obj.mode, options)


def _reduce_binary_file(_pickler: ByValuePickler, obj: Any) -> Any:
    return _reduce_open_file(obj, obj.mode, {"buffering": 0} if isinstance(obj, io.FileIO) else {})


def _reduce_open_file(obj: Any, mode: str, options: dict[str, Any]) -> Any:
    if obj.closed:
        raise pickle.PicklingError("the file is closed")
    if not isinstance(obj.name, str):
        raise pickle.PicklingError("the file has no name to open it by")
    if obj.isatty():
        raise pickle.PicklingError("a terminal cannot be sent")
    if obj.writable():
        obj.flush()
    position = obj.tell() if obj.seekable() else None
    # Never truncate again what the kernel has written, and let several writers append (dill would truncate).
    mode = mode.replace("w", "a").replace("x", "a")
    return make_file, (obj.name, mode, options, None if "a" in mode else position)


def make_file(name: str, mode: str, options: dict[str, Any], position: int | None) -> Any:
    """Open a file of the kernel's again."""
    file = open(name, mode, **options)  # noqa: SIM115  # it is the object to be rebuilt
    if position:
        file.seek(position)
    return file


def _refuse_temporary_file(_pickler: ByValuePickler, _obj: Any) -> Any:
    raise pickle.PicklingError("it deletes its file when a copy of it goes; send its `.name` and open that in the task")


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
_REDUCERS: dict[type, Reducer] = {
    ModuleType: _reduce_module,
    typing.NewType: _reduce_newtype,
    _thread.LockType: _reduce_lock,
    _thread.RLock: _reduce_lock,
    functools._lru_cache_wrapper: _reduce_lru_cache,
    weakref.WeakValueDictionary: _reduce_weak_dict,
    weakref.WeakKeyDictionary: _reduce_weak_dict,
    io.TextIOWrapper: _reduce_text_file,
    io.BufferedReader: _reduce_binary_file,
    io.BufferedWriter: _reduce_binary_file,
    io.BufferedRandom: _reduce_binary_file,
    io.FileIO: _reduce_binary_file,
    tempfile._TemporaryFileWrapper: _refuse_temporary_file,
}
