"""Objects in shared memory: :class:`Shared` in the kernel, its mapping in each worker.

An object is pickled once, its large buffers laid out behind the pickle in one anonymous piece of memory. Each worker
gets the descriptor over its socket, maps it copy-on-write, and rebuilds the object around the mapped buffers: one copy
of the data for all, and what a task writes stays its own. The memory goes back when the last :class:`Shared` handle in
the kernel is dropped and the workers have let go.

:class:`SharedBuffers` takes the same road without the pickle, for the large buffers of a function.

:class:`Shared`, :class:`SharedBuffers` and `segment` are the kernel's side (:mod:`nbpar.backends.shipping` sends
descriptors to workers); `attach`, `detach`, `map_buffers` and `unwrap` are the worker's. A worker whose task makes a
pool is a kernel to that pool, and passes on what it was given.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from nbpar.errors import SerializationError
from nbpar.wire.codec import CannotPickle, Codec, Definition, set_shared_resolver
from nbpar.wire.memory import anonymous_file, same_bytes, write_at

__all__ = [
    "Segment",
    "Shared",
    "SharedBuffers",
    "attach",
    "detach",
    "handle",
    "map_buffers",
    "segment",
    "tell_releases",
    "unwrap",
]

T = TypeVar("T")

_NO_PICKLE = "a Shared handle can be pickled only by nbpar, for a worker; pickle its `.value` instead"

_ALIGNMENT = 64  # a cache line, and enough for every numpy dtype


@dataclass(slots=True)
class Segment:
    """The memory behind one shared object, in the kernel, or in a worker that has workers of its own."""

    shared_id: int
    fd: int
    size_bytes: int
    layout: bytes
    definitions: tuple[Definition, ...]
    held: tuple[Shared[Any] | AttachedShared, ...]  # handles inside the object: alive as long as this


_ids = itertools.count(1)
_handles: weakref.WeakValueDictionary[int, Shared[Any]] = weakref.WeakValueDictionary()  # of this process, by id
_segments: dict[int, Segment] = {}  # alive in this process; ends with its handle by the finalizer
# Guards building a value only once (a __setstate__ may ask for the value of another), and a worker's descriptors.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that is not there in the child may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Shared(Generic[T]):
    """A handle on an object in shared memory; made by `nbpar.share`.

    As an argument of a task (an item, or an element of a `starmap` item) it arrives unwrapped. Inside a closure or a
    container it stays a handle.

    Attributes
    ----------
    shared_id : int
        Unique on this machine.
    size_bytes : int
        Size of the memory.
    """

    def __init__(self, obj: T) -> None:
        try:
            encoded = Codec().encode(obj)
        except CannotPickle as error:
            raise SerializationError(f"share() needs an object that can be pickled: {error}") from error
        held = tuple(one for shared_id in encoded.shared_ids if (one := handle(shared_id)) is not None)
        self._segment = _fill_segment("nbpar-shared", encoded.payload, encoded.buffers, encoded.definitions, held)
        self.shared_id, self.size_bytes = self._segment.shared_id, self._segment.size_bytes
        _handles[self.shared_id] = self
        weakref.finalize(self, _release, self._segment)
        self._value: list[T] = []
        self._views: list[memoryview] = []

    @property
    def value(self) -> T:
        """The object, around the shared memory; the same one each time in this process."""
        with _lock:
            if not self._value:
                self._value.append(self.fresh())
            return self._value[0]

    def fresh(self) -> T:
        """The object once more, around memory that is mapped anew: what is written to it is seen here alone."""
        segment = self._segment
        value: T = _rebuild(segment.fd, segment.size_bytes, segment.layout)
        return value

    def holds(self, obj: object) -> bool:
        """Whether an object is, to the last byte, what this was made of; compared at 10 GB/s, to the first difference.

        Examples
        --------
        >>> import numpy as np
        >>> array = np.zeros(100_000)
        >>> shared = Shared(array)
        >>> shared.holds(array)
        True
        >>> array[-1] = 1
        >>> shared.holds(array)
        False
        """
        try:
            encoded = Codec().encode(obj)
        except CannotPickle:
            return False
        segment = self._segment
        if not self._views:  # kept: to map it anew takes longer than to compare it
            self._views = _map(segment.fd, segment.size_bytes, segment.layout)
        payload, *views = self._views
        held_ids = tuple(one.shared_id for one in segment.held)
        if bytes(payload) != encoded.payload or (encoded.definitions, encoded.shared_ids) != (
            segment.definitions,
            held_ids,
        ):
            return False
        return _are_same(views, encoded.buffers)

    def __repr__(self) -> str:
        return f"<Shared object: {self.size_bytes:,} bytes>"

    # A copy with the same descriptor would outlive it, and then show whatever is opened next.

    def __copy__(self) -> Shared[T]:
        return self

    def __deepcopy__(self, memo: object) -> Shared[T]:
        return self

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError(_NO_PICKLE)


class AttachedShared:
    """A :class:`Shared` as a worker has it: mapped when first asked for."""

    def __init__(self, shared_id: int, fd: int, size_bytes: int, layout: bytes) -> None:
        self.shared_id = shared_id
        self.size_bytes = size_bytes
        self._fd = fd
        self._layout = layout
        self._value: list[Any] = []
        self._segment: Segment | None = None

    def __copy__(self) -> AttachedShared:
        return self

    def __deepcopy__(self, memo: object) -> AttachedShared:
        return self

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError(_NO_PICKLE)

    @property
    def value(self) -> Any:
        """The object, mapped copy-on-write.

        Raises
        ------
        LookupError
            When this was kept for longer than the kernel holds the object.
        """
        if not self._value or self._fd < 0:
            self._value.append(self.fresh())
        return self._value[0]

    def fresh(self) -> Any:
        """As of :class:`Shared`.

        Raises
        ------
        LookupError
            As of `value`.
        """
        if self._fd < 0:
            raise LookupError("a Shared handle was kept in a worker after the kernel had let its object go")
        return _rebuild(self._fd, self.size_bytes, self._layout)

    def buffers(self) -> list[memoryview]:
        """The buffers of a function, mapped anew: what a task does to them is gone with its job."""
        return _map(self._fd, self.size_bytes, self._layout)[1:]

    def close(self) -> None:
        """Let go of the memory; the mapping lives as long as arrays in it do."""
        self._value.clear()  # a closure with this handle may live on until the garbage collector comes
        with _lock:
            fd, self._fd = self._fd, -1  # the number will be another file's
        os.close(fd)

    def segment(self) -> Segment | None:
        """The memory, for pools that a task makes: with a descriptor of its own, that lives as long as this handle.

        None where the kernel has let the object go before, or no descriptor is free.
        """
        with _lock:
            if self._segment is None and self._fd >= 0:
                definitions, held_ids = pickle.loads(pickle.loads(self._layout)[2])
                held = tuple(one for shared_id in held_ids if (one := handle(shared_id)) is not None)
                try:
                    fd = os.dup(self._fd)
                except OSError:
                    return None
                self._segment = Segment(self.shared_id, fd, self.size_bytes, self._layout, definitions, held)
                _segments[self.shared_id] = self._segment
                weakref.finalize(self, _release, self._segment)
            return self._segment


class SharedBuffers:
    """Buffers in shared memory, for workers to map; they live as long as this.

    Parameters
    ----------
    buffers : sequence of memoryview
        Contiguous, format ``B``.

    Raises
    ------
    OSError
        When the system gives no memory or no descriptor.
    """

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._segment = _fill_segment("nbpar-function", b"", buffers)
        self.shared_id, self.size_bytes = self._segment.shared_id, self._segment.size_bytes
        weakref.finalize(self, _release, self._segment)
        self._views: list[memoryview] = []

    def holds(self, buffers: Sequence[memoryview]) -> bool:
        """Whether exactly these bytes are there; compared at 10 GB/s and up to the first difference."""
        return _are_same(self.views(), buffers)

    def views(self) -> list[memoryview]:
        """The buffers, in the shared memory."""
        segment = self._segment
        if not self._views:
            self._views = _map(segment.fd, segment.size_bytes, segment.layout)[1:]
        return self._views


def _are_same(views: Sequence[memoryview], buffers: Sequence[memoryview]) -> bool:
    if [len(view) for view in views] != [len(buffer) for buffer in buffers]:
        return False
    return all(same_bytes(view, buffer) for view, buffer in zip(views, buffers, strict=True))


def _fill_segment(
    label: str,
    payload: bytes,
    buffers: Sequence[memoryview],
    definitions: tuple[Definition, ...] = (),
    held: tuple[Shared[Any] | AttachedShared, ...] = (),
) -> Segment:
    places = []
    end = len(payload)
    for buffer in buffers:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        places.append((start, buffer.nbytes))
        end = start + buffer.nbytes
    size_bytes = max(end, 1)
    fd = anonymous_file(label, size_bytes)
    try:
        write_at(fd, 0, payload)
        for (start, _), buffer in zip(places, buffers, strict=True):
            write_at(fd, start, buffer)
    except BaseException:
        os.close(fd)
        raise
    shared_id = os.getpid() << 32 | next(_ids)  # a worker's own objects must not be taken for the kernel's
    needs = pickle.dumps((definitions, tuple(one.shared_id for one in held)))  # for a worker that passes it on
    layout = pickle.dumps((len(payload), places, needs))
    segment = Segment(shared_id, fd, size_bytes, layout, definitions, held)
    _segments[shared_id] = segment
    return segment


def _map(fd: int, size_bytes: int, layout: bytes) -> list[memoryview]:
    """The payload and the buffers, mapped copy-on-write."""
    n_payload, places, _ = pickle.loads(layout)
    # The mmap object is the exporter: numpy keeps it alive through the memoryviews cut from it.
    memory = memoryview(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY))
    return [memory[:n_payload], *[memory[start : start + length] for start, length in places]]


def _rebuild(fd: int, size_bytes: int, layout: bytes) -> Any:
    payload, *buffers = _map(fd, size_bytes, layout)
    return pickle.loads(payload, buffers=buffers)


def _release(segment: Segment) -> None:
    _segments.pop(segment.shared_id, None)
    os.close(segment.fd)
    if segment.size_bytes >= _LARGE_BYTES:
        for one in _listeners:
            if (listener := one()) is not None:
                listener()


_LARGE_BYTES = 1 << 20
_listeners: tuple[weakref.WeakMethod[Callable[[], None]], ...] = ()  # replaced as a whole: any thread may go through it


def tell_releases(listener: Callable[[], None]) -> None:
    """Have a method called when a large segment was released, so that workers let go of it as well.

    It is called by the garbage collector, in any thread: it must not take a lock. It is held weakly.
    """
    global _listeners
    _listeners = (*(one for one in _listeners if one() is not None), weakref.WeakMethod(listener))


def segment(shared_id: int) -> Segment | None:
    """The memory for an id, to be sent to a worker; None once it was released."""
    if (found := _segments.get(shared_id)) is None and (attached := _attached.get(shared_id)) is not None:
        return attached.segment()
    return found


def handle(shared_id: int) -> Shared[Any] | AttachedShared | None:
    """The handle for an id in this process; None once it was dropped."""
    return _handles.get(shared_id) or _attached.get(shared_id)


# --- the worker's side ------------------------------------------------------------------------------------------------

_attached: dict[int, AttachedShared] = {}  # by id, until the kernel says UNSHARE


def attach(shared_id: int, size_bytes: int, layout: bytes, fd: int) -> None:
    """Take over the descriptor of a shared object."""
    _attached[shared_id] = AttachedShared(shared_id, fd, size_bytes, layout)


def detach(shared_id: int) -> None:
    """Let a shared object go."""
    if (handle := _attached.pop(shared_id, None)) is not None:
        handle.close()


def map_buffers(shared_id: int) -> list[memoryview]:
    """The buffers of a function.

    Raises
    ------
    LookupError
        When this worker had no descriptor free for them.
    """
    if (found := _attached.get(shared_id)) is None:
        raise LookupError("the function's arrays could not be passed to this worker: too many open files?")
    return found.buffers()


def _resolve(shared_id: int) -> Any:
    found = _attached.get(shared_id) or _handles.get(shared_id)
    if found is None:
        raise LookupError(
            "a Shared handle is not known here: only the kernel shares objects, and only while it holds them "
            "(and where a descriptor is free for each)"
        )
    return found


def unwrap(item: Any) -> Any:
    """The object behind a handle; anything else unchanged. Tuples are looked into, for `starmap`."""
    if type(item) is AttachedShared or type(item) is Shared:
        return item.value
    if type(item) is tuple and any(type(part) is AttachedShared or type(part) is Shared for part in item):
        return tuple(unwrap(part) if type(part) is not tuple else part for part in item)
    return item


Codec.shared_type = (Shared, AttachedShared)
set_shared_resolver(_resolve)
