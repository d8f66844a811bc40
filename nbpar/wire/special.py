"""Reducers for objects that neither pickle nor cloudpickle carries.

Owns the table :data:`REDUCERS`, by exact type, and the few rules that hold for subclasses too: locks, weak references,
open files, the standard streams, threads, `lru_cache`d functions. Used by :mod:`nbpar.wire.byvalue`; the ``make_*``
functions are named inside pickles and run while unpickling.
"""

from __future__ import annotations

import _thread
import functools
import io
import os
import pickle
import sys
import tempfile
import threading
import typing
import weakref
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle as cp

from nbpar.wire.arrays import reducer_of_array
from nbpar.wire.arrow import reducer_of_arrow
from nbpar.wire.inherited import reducer_of_inherited
from nbpar.wire.names import goes_by_name

__all__ = ["REDUCERS", "reducer_of_kind"]

Reducer = Callable[[Any, Any], Any]  # of the pickler and the object

_THREAD_TASK = frozenset({"_target", "_args", "_kwargs", "_name", "_daemonic"})


def reducer_of_kind(kind: type) -> Reducer | None:
    """The reducer for objects of a type, or None where there is no special one."""
    if kind in REDUCERS:
        return REDUCERS[kind]
    if kind is type(sys.stdout) or kind is type(sys.stderr) or kind.__name__ == "OutStream":
        return _reduce_stream
    if kind is type(os.environ):
        return _reduce_environ
    if issubclass(kind, weakref.ref):
        return _reduce_weakref
    if issubclass(kind, threading.Thread) and not has_own_reduce(kind):
        return _reduce_thread
    if (reducer := reducer_of_array(kind) or reducer_of_arrow(kind)) is not None:
        return reducer
    if any(base.__name__ == "InteractiveShell" for base in kind.__mro__):
        return _refuse_shell
    return reducer_of_inherited(kind)


def has_own_reduce(kind: type) -> bool:
    """Whether a type says itself how it is reduced."""
    own: Any = kind
    return own.__reduce_ex__ is not object.__reduce_ex__ or own.__reduce__ is not object.__reduce__


def _reduce_newtype(_pickler: Any, obj: Any) -> Any:
    if goes_by_name(obj):
        return obj.__reduce__()
    return typing.NewType, (obj.__name__, obj.__supertype__), {"__module__": obj.__module__}


def _reduce_lock(_pickler: Any, obj: Any) -> Any:
    # A lock arrives free, unlike with dill: whoever holds it is not there to release it.
    return (_thread.allocate_lock if type(obj) is _thread.LockType else _thread.RLock), ()


def _reduce_lru_cache(_pickler: Any, obj: Any) -> Any:
    if goes_by_name(obj):
        return obj.__reduce__()
    attributes = {name: value for name, value in vars(obj).items() if name not in ("__wrapped__", "cache_parameters")}
    return make_lru_cache, (obj.__wrapped__, obj.cache_parameters()), attributes or None


def make_lru_cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """A function with an empty cache of the same size."""
    return functools.lru_cache(**parameters)(function)


def _reduce_weakref(_pickler: Any, obj: Any) -> Any:
    target = obj()
    return (make_dead_ref, ()) if target is None else (type(obj), (target,))


def make_dead_ref() -> Any:
    """A reference to an object that is gone."""
    return weakref.ref(set())


def _reduce_weak_dict(_pickler: Any, obj: Any) -> Any:
    return type(obj), (), None, None, iter(list(obj.items()))


def _reduce_stream(_pickler: Any, obj: Any) -> Any:
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


def _reduce_environ(_pickler: Any, obj: Any) -> Any:
    return (getattr, (os, "environ")) if obj is os.environ else NotImplemented


def make_stream(name: str) -> Any:
    """The receiver's own stream."""
    return getattr(sys, name)


def _reduce_text_file(_pickler: Any, obj: io.TextIOWrapper) -> Any:
    name = _stream_name(obj)
    if name:
        return make_stream, (name,)
    if not obj.closed and obj.readable() and not obj.writable():
        return cp._file_reduce(obj)
    options = {"encoding": obj.encoding, "errors": obj.errors}
    return _reduce_open_file(obj, obj.mode, options)


def _reduce_binary_file(_pickler: Any, obj: Any) -> Any:
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


def _reduce_thread(_pickler: Any, thread: threading.Thread) -> Any:
    fresh = vars(threading.Thread())  # what of it is machinery, and holds sys.excepthook and so all of IPython
    own = {name: value for name, value in vars(thread).items() if name in _THREAD_TASK or name not in fresh}
    return make_thread, (type(thread),), own


def make_thread(cls: type[threading.Thread]) -> threading.Thread:
    """A thread that has not been started, whatever the one it is a copy of did."""
    thread = cls.__new__(cls)
    threading.Thread.__init__(thread)
    return thread


def _refuse_shell(_pickler: Any, _obj: Any) -> Any:
    raise pickle.PicklingError("workers run no IPython: magics, !commands and get_ipython() work in the notebook only")


def _refuse_temporary_file(_pickler: Any, _obj: Any) -> Any:
    raise pickle.PicklingError("it deletes its file when a copy of it goes; send its `.name` and open that in the task")


REDUCERS: dict[type, Reducer] = {
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
