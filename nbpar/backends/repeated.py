"""Notices that the same large buffer goes to workers again and again within a job: it had better be shared.

:class:`SentBuffers` belongs to a prepared job; :mod:`nbpar.backends.shipping` tells it of each large buffer that goes
out, in the dispatcher's thread. A buffer is known by its address, as long as the object lives whose memory it is: that
of an array which was made for one task alone may be the next one's.

Bounds: of each job the last `MAX_KNOWN` are remembered, weakly.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from nbpar.engine.events import SentAgain
from nbpar.sizes import in_words
from nbpar.wire.memory import address_of

__all__ = ["LEAST_BYTES", "SentBuffers"]

LEAST_BYTES = 1_000_000
"""Copying less takes under 0.1 ms."""

MAX_KNOWN = 32

MAX_INSIDE = 1000
"""Objects that are looked at to see whether an argument holds a buffer."""


class _Known:
    __slots__ = ("n_times", "owner", "stop", "what")

    def __init__(self, owner: weakref.ref[Any], stop: int) -> None:
        self.owner = owner
        self.stop = stop  # index after the last task that it went out for
        self.n_times = 1
        self.what = ""


class SentBuffers:
    """The large buffers that went out for one job."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int], _Known] = OrderedDict()  # by address and length

    def note(self, buffers: Sequence[memoryview], items: Sequence[Any], first: int) -> Iterator[SentAgain]:
        """Those of the buffers of a chunk that went out before; `items`, from index `first` on, are what has them."""
        for buffer in buffers:
            if buffer.nbytes < LEAST_BYTES:
                continue
            with contextlib.suppress(TypeError, ValueError, BufferError):  # what has no weak references is not followed
                if (again := self._note(buffer, items, first)) is not None:
                    yield again

    def _note(self, buffer: memoryview, items: Sequence[Any], first: int) -> SentAgain | None:
        owner, n_bytes, stop = _owner(buffer), buffer.nbytes, first + len(items)
        address = address_of(buffer)
        known = self._known.get((address, n_bytes))
        if known is None or known.owner() is not owner:
            self._known[address, n_bytes] = _Known(weakref.ref(owner), stop)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            return None
        self._known.move_to_end((address, n_bytes))
        if first < known.stop:
            return None
        known.stop = stop
        known.n_times += 1
        known.what = known.what or _name_of(address, n_bytes, owner, items) or _in_words(owner, n_bytes)
        return SentAgain(known.what, n_bytes, known.n_times)


def _owner(buffer: memoryview) -> Any:
    """The object whose memory it is, and not a view of it that was made for one task."""
    owner = buffer.obj
    while (base := getattr(owner, "base", None)) is not None:
        owner = base
    return owner


def _name_of(address: int, n_bytes: int, owner: object, items: Sequence[Any]) -> str:
    """The notebook's variable that is the array, or the argument that holds it; empty for none."""
    arguments = {id(one) for item in items[:1] for one in _parts(item)}
    array = getattr(sys.modules.get("numpy"), "ndarray", ())
    holder = ""
    for name, value in list(vars(sys.modules["__main__"]).items()):
        if name.startswith("_") or isinstance(value, str | int | float | type):
            continue
        if isinstance(value, array):
            if value.nbytes == n_bytes and value.__array_interface__["data"][0] == address:
                return name
        elif not holder and id(value) in arguments and _holds(value, owner):
            holder = name
    return holder


def _parts(item: Any) -> Sequence[Any]:
    kind = type(item)
    return item if kind in (tuple, list) else list(item.values()) if kind is dict else [item]


def _holds(value: object, owner: object) -> bool:
    """Whether an object is found inside another one, a table, a dict or an instance; not too deep in it."""
    found, seen = [value], {id(value)}
    for one in found:
        if one is owner:
            return True
        if len(found) < MAX_INSIDE and not isinstance(one, type | ModuleType):
            inner = {id(new): new for new in gc.get_referents(one) if id(new) not in seen}
            seen.update(inner)
            found += inner.values()
    return False


def _in_words(owner: Any, n_bytes: int) -> str:
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    what = "an array" if array is not None and isinstance(owner, array) else "an argument"
    return f"{what} of {in_words(n_bytes)}"
