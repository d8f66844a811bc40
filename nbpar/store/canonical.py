"""Objects as bytes that are the same in every process: what item keys and fingerprints are made of.

A pickle will not do: it holds the order of sets, which differs from process to process, and tells equal strings that
are one object from equal strings that are two. Here an object is taken apart by its reduce value, as pickle does, and
written down by value alone. The order of a dict counts, for a function may depend on it. Functions, classes and modules
are left to whoever makes a :class:`Canonical` (:mod:`nbpar.store.fingerprint`).

What cannot be taken apart (locks, open files, generators) counts by its type.
"""

from __future__ import annotations

import copyreg
import marshal
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from nbpar.wire.codec import Codec
from nbpar.worker.per_worker import PerWorker

__all__ = ["Canonical", "digest", "joined"]

Reference = Callable[[Any], bytes]

_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None), type(...)))
_NAMED = (type, types.FunctionType, types.ModuleType)
_WEAK = (weakref.ref, weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)

MAX_BYTES = 256
"""What is longer stands as its digest, so that no part is copied more than once on its way up."""

# marshal, version 2: by value alone; interned strings and shared objects were marked from version 3 on. It must be
# given exact builtins only: it takes anything with a buffer, a numpy scalar for one, for bytes.
_MARSHAL_VERSION = 2


def digest(data: bytes | memoryview) -> bytes:
    """16 bytes that stand for `data`."""
    return blake2b(data, digest_size=16).digest()


def joined(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Parts as one piece from which they could be told apart again; its digest when that is long."""
    pieces = [tag]
    for part in parts:
        pieces.append(len(part).to_bytes(4, "little"))
        pieces.append(part)
    whole = b"".join(pieces)
    return whole if len(whole) <= MAX_BYTES else b"\x80" + digest(whole)


class Canonical:
    """Writes objects down.

    Parameters
    ----------
    reference : callable
        Gives the bytes that stand for a function, a class or a module.

    Examples
    --------
    >>> canonical = Canonical(lambda obj: obj.__name__.encode())
    >>> canonical.encode({"a": {1, 2}}) == canonical.encode({"a": {2, 1}})
    True
    >>> canonical.encode(1) == canonical.encode(1.0)
    False
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._depth: dict[int, int] = {}  # of the objects that are being written
        # By id, with the object: parts that a reduce value made would be gone, and their ids taken by others.
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._shared: dict[int, bytes] = {}  # by shared_id, which is never given twice

    def encode(self, obj: Any) -> bytes:
        """Write an object down; at most a few hundred bytes.

        Raises
        ------
        RecursionError
            When it is nested too deeply.
        """
        try:
            return self._encode(obj)
        finally:
            if not self._depth:
                self._known.clear()

    def _encode(self, obj: Any) -> bytes:
        kind = type(obj)
        if kind in _PLAIN:
            return _marshalled(obj)
        if (kind is tuple or kind is list) and _PLAIN.issuperset(map(type, obj)):
            return _marshalled(obj)
        if kind is dict and _PLAIN.issuperset(map(type, obj)) and _PLAIN.issuperset(map(type, obj.values())):
            return _marshalled(obj)
        if isinstance(obj, _NAMED):
            return self._reference(obj)
        known = self._known.get(id(obj))
        if known is not None:
            return known[1]
        depth = self._depth.get(id(obj))
        if depth is not None:  # it contains itself
            return joined(b"\x81", [str(len(self._depth) - depth).encode()])
        self._depth[id(obj)] = len(self._depth)
        try:
            written = self._take_apart(obj, kind)
        finally:
            del self._depth[id(obj)]
        self._known[id(obj)] = obj, written
        return written

    def _take_apart(self, obj: Any, kind: type) -> bytes:
        if kind is tuple or kind is list:
            return joined(b"\x82" if kind is tuple else b"\x83", map(self._encode, obj))
        if kind is dict:
            return joined(b"\x84", [self._encode(part) for pair in obj.items() for part in pair])
        if kind is set or kind is frozenset:
            return joined(b"\x85" if kind is set else b"\x86", sorted(map(self._encode, obj)))
        if kind is bytearray or kind is pickle.PickleBuffer:
            return joined(b"\x87", [digest(memoryview(obj).cast("B") if kind is bytearray else obj.raw())])
        if (array := _array_bytes(obj)) is not None:
            return joined(b"\x88", array) if array[-1] else joined(b"\x89", [*array, self._encode(obj.tolist())])
        if Codec.shared_type is not None and isinstance(obj, Codec.shared_type):
            shared: Any = obj
            if shared.shared_id not in self._shared:  # in each item of many it is read once
                self._shared[shared.shared_id] = joined(b"\x8a", [self._encode(shared.value)])
            return self._shared[shared.shared_id]
        if (parts := _parts_of(obj, kind)) is not None:
            return joined(b"\x8b", [self._reference(kind), *map(self._encode, parts)])
        return self._reduced(obj, kind)

    def _reduced(self, obj: Any, kind: type) -> bytes:
        if issubclass(kind, _WEAK) or any(base.__name__ == "InteractiveShell" for base in kind.__mro__):
            return joined(b"\x8c", [self._reference(kind)])
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced: Any = obj.__reduce_ex__(5) if reducer is None else reducer(obj)
        except Exception:  # noqa: BLE001  # it cannot be pickled, for whatever reason of its own: it counts by its type
            return joined(b"\x8c", [self._reference(kind)])
        if isinstance(reduced, str):
            module = pickle.whichmodule(obj, reduced)  # type: ignore[attr-defined]  # absent from typeshed
            return joined(b"\x8d", [self._encode(sys.modules.get(module)), f"{module}.{reduced}".encode()])
        parts = [list(part) if place in (3, 4) and part else part for place, part in enumerate(reduced[:5])]
        return joined(b"\x8e", map(self._encode, parts))


def _marshalled(obj: Any) -> bytes:
    data = marshal.dumps(obj, _MARSHAL_VERSION)
    return data if len(data) <= MAX_BYTES else b"\x80" + digest(data)


def _array_bytes(obj: Any) -> list[bytes] | None:
    """What a numpy array or scalar is made of; its content, last, is empty where it consists of objects."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not (type(obj) is numpy.ndarray or isinstance(obj, numpy.generic)):
        return None
    dtype = obj.dtype
    name = repr(dtype) if dtype.names or dtype.metadata else dtype.str
    # A sum may differ in its last digit with the order in memory.
    order = "F" if obj.flags.fnc else "C"
    head = [type(obj).__name__.encode(), name.encode(), repr(obj.shape).encode(), order.encode()]
    if dtype.hasobject:
        return [*head, b""]
    if type(obj) is numpy.ndarray and obj.flags.c_contiguous and obj.size:
        return [*head, digest(memoryview(obj.reshape(-1).view("u1")))]
    return [*head, digest(obj.tobytes())]


def _parts_of(obj: Any, kind: type) -> list[Any] | None:
    """What to look at in objects whose reduce value says nothing, or too much."""
    if kind is types.MethodType:
        return [obj.__self__, obj.__func__]
    if kind is types.BuiltinFunctionType:
        owner = obj.__self__
        return [
            sys.modules.get(obj.__module__ or "") if isinstance(owner, types.ModuleType) else owner,
            obj.__qualname__,
        ]
    if kind is staticmethod or kind is classmethod:
        return [obj.__func__]
    if kind is property:
        return [obj.fget, obj.fset, obj.fdel]
    if kind is types.MappingProxyType:
        return [dict(obj)]
    if kind is types.CellType:
        return cell_contents(obj)
    if kind is types.CodeType:
        return [obj.co_name, obj.co_code, obj.co_consts, obj.co_names]
    if kind is PerWorker:  # known to workers by a name that is new in each kernel
        return [obj._factory]
    if callable(obj) and not isinstance(obj, type) and "__wrapped__" in getattr(obj, "__dict__", ()):
        return [obj.__wrapped__]  # lru_cache's, numba's
    return None


def cell_contents(cell: Any) -> list[Any]:
    """What a closure's cell holds, as a list; empty when nothing was assigned yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
