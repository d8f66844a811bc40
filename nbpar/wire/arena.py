"""Recycled shared memory for large buffers: written once by the sender, read in place by the receiver.

::

    sender: Arena                     one sparse file, mapped whole by both            receiver: ArenaReader
    place(buffer) --copies in-->  | states | block | free | block | free ...|  --open(place)--> a view for pickle
         ^                             |                                                         |
         +------- sweep: 0? <----------+---------------- stores 0 when the last view dies -------+

Pages that were used before take a copy at 12 GB/s, new ones at 1 to 3: reuse is the whole trick, so the lowest free
address is taken first. The descriptor crosses once; a block is named by its first unit in the header of a message
(:mod:`nbpar.wire.channel`), and its release is a plain store, like the words of the board. The sender looks at these
states with each block it places.

The kernel has one arena for the arguments of all its workers and reads one arena of results for each of them
(:mod:`nbpar.backends.arenas`); a worker has the other ends (:mod:`nbpar.worker.main`). What bounds an arena: its size.
A buffer that finds no room goes through the socket.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import os
from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from nbpar.wire.memory import Memory

__all__ = ["UNIT_BYTES", "Arena", "ArenaReader", "Place"]

UNIT_BYTES = 64 << 10
"""Blocks begin at multiples of this and have whole units; a buffer has at least as much, or it stays in its pickle."""

FREE, USED, PUNCHED, PINNED = range(4)
"""States of a block; an odd one is taken. PUNCHED: free, and its pages went back to the system. PINNED: never free
again, for a process that its reader has forked sees the same pages."""

_LOOKS_PER_PLACE = 16
"""Blocks in use that are looked at for each one placed, in turn: a micro-second or two, however many results a user
keeps."""


class Place(NamedTuple):
    """Where a buffer lies in an arena: the first unit of its block, and its length."""

    unit: int
    n_bytes: int


class Arena:
    """The sender's end: places buffers in blocks, and takes blocks back. One thread at a time calls it.

    Parameters
    ----------
    memory : Memory
        Owned from now on.

    Raises
    ------
    OSError
        When not even its states can be stored.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._n_units = memory.size_bytes // UNIT_BYTES
        self._first = -(-self._n_units // UNIT_BYTES)  # the states come first, a byte for each unit
        memory.fill_in(0, memoryview(bytes(self._first * UNIT_BYTES)), 0)
        self._states = memoryview(memory.map)[: self._n_units]
        self._starts = [self._first]  # of the free ranges, ascending; no two touch
        self._stops = [self._n_units]
        self._blocks: dict[int, tuple[int, int]] = {}  # by first unit: units, owner
        self._to_look: deque[int] = deque()  # the same blocks, in the order in which they are looked at
        self._touched = bytearray(self._n_units)  # 1: there are pages

    @property
    def n_blocks(self) -> int:
        """Blocks in use, as far as it has been looked."""
        return len(self._blocks)

    def place(self, buffer: memoryview, owner: int = 0) -> Place | None:
        """Copy a buffer into a block of its own; None when there is no room.

        Parameters
        ----------
        owner : int
            Who will read it; see :meth:`free_owner`.
        """
        self._look(_LOOKS_PER_PLACE)
        n_bytes = len(buffer)
        n_units = -(-n_bytes // UNIT_BYTES)
        start = self._take(n_units)
        if start is None:
            return None
        stop = start + n_units
        try:
            if self._touched.find(0, start, stop) < 0:
                self.memory.copy_in(start * UNIT_BYTES, buffer)
            else:
                # Whole units: the next block here may be longer, and is then copied to pages that are there.
                self.memory.fill_in(start * UNIT_BYTES, buffer, n_units * UNIT_BYTES - n_bytes)
                self._touched[start:stop] = b"\1" * n_units
        except OSError:  # a full /dev/shm
            self._give(start, stop)
            return None
        self._states[start] = USED
        self._blocks[start] = n_units, owner
        self._to_look.append(start)
        return Place(start, n_bytes)

    def sweep(self) -> None:
        """Take back all that receivers have released."""
        self._look(len(self._to_look))

    def _look(self, n: int) -> None:
        states, to_look = self._states, self._to_look
        for _ in range(min(n, len(to_look))):
            start = to_look.popleft()
            if states[start] & 1:
                to_look.append(start)
                continue
            n_units, _owner = self._blocks.pop(start)
            if states[start] == PUNCHED:
                self._touched[start : start + n_units] = bytes(n_units)
            self._give(start, start + n_units)

    def free_owner(self, owner: int) -> None:
        """Take back the blocks of a receiver that has ended, except those a process it forked may see."""
        self.sweep()
        for start, (_, of_whom) in self._blocks.items():
            if of_whom == owner and self._states[start] == USED:
                self._states[start] = FREE
        self.sweep()

    def trim(self, reserve_bytes: int) -> int:
        """Return free pages to the system except the lowest `reserve_bytes` of them; how many bytes went."""
        self.sweep()
        n_kept, n_gone = reserve_bytes // UNIT_BYTES, 0
        for start, stop in zip(self._starts, self._stops, strict=True):
            at = start
            while n_kept and (at := self._touched.find(1, at, stop)) >= 0:
                n_kept -= 1
                at += 1
            at = self._touched.find(1, at, stop) if at >= 0 else -1
            end = self._touched.rfind(1, at, stop) + 1 if at >= 0 else 0
            if end and self.memory.give_back(at * UNIT_BYTES, end * UNIT_BYTES):
                n_gone += self._touched.count(1, at, end)
                self._touched[at:end] = bytes(end - at)
        return n_gone * UNIT_BYTES

    def close(self) -> None:
        """Give up the memory, now that nobody reads it: processes that were forked with it may hold it mapped."""
        for start in self._blocks:
            if self._states[start] == USED:
                self._states[start] = FREE
        self.trim(0)
        self._states = memoryview(b"")
        self._blocks.clear()
        self._to_look.clear()
        self.memory.close()

    # --- free ranges --------------------------------------------------------------------------------------------------

    def _take(self, n_units: int) -> int | None:
        starts, stops = self._starts, self._stops
        for i, start in enumerate(starts):
            left = stops[i] - start - n_units
            if left > 0:
                starts[i] = start + n_units
            elif left == 0:
                del starts[i], stops[i]
            else:
                continue
            return start
        return None

    def _give(self, start: int, stop: int) -> None:
        starts, stops = self._starts, self._stops
        i = bisect_left(starts, start)
        if i < len(starts) and starts[i] == stop:
            stop = stops[i]
            del starts[i], stops[i]
        if i and stops[i - 1] == start:
            stops[i - 1] = stop
        else:
            starts.insert(i, start)
            stops.insert(i, stop)


# --- the receiver's end -----------------------------------------------------------------------------------------------

_keys = itertools.count(1)
_readers: dict[int, ArenaReader] = {}  # by key; until each is closed and its last view has died

_getpid = os.getpid

_untrack: Any = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.argtypes, _untrack.restype = (ctypes.py_object,), None


class _Token(int):
    """Dies with the last view of a block: an attribute of the block's exporter, which nothing else refers to.

    Neither a weak reference to the exporter nor a ``__del__`` of its own would do. The garbage collector runs both
    before it finalizes the objects of a cycle, and a ``__del__`` of the user's among these may still read the block,
    and keep it. What the collector does not track dies when its owner is taken apart, after all that. It is a number:
    the reader's key and the block's first unit.
    """

    __slots__ = ()

    def __del__(self, _readers: dict[int, ArenaReader] = _readers) -> None:  # bound: the interpreter may be ending
        if (reader := _readers.get(self >> 40)) is not None:
            reader._release(self & 0xFF_FFFF_FFFF)


@functools.lru_cache(maxsize=64)  # to make a type takes 10 us
def _exporter_type(n_bytes: int) -> Any:
    return ctypes.c_ubyte * n_bytes


class ArenaReader:
    """The receiver's end: opens blocks in place, and releases each when its last view has died.

    One thread at a time opens; views may die in any thread. In a process that was forked from this one nothing is ever
    released.

    Parameters
    ----------
    memory : Memory
        Owned from now on.

    Attributes
    ----------
    gives_back : bool
        Return the pages of released blocks to the system, since they will not soon be used again.
    """

    def __init__(self, memory: Memory) -> None:
        self.gives_back = False
        self._memory = memory
        self._states = memoryview(memory.map)[: memory.size_bytes // UNIT_BYTES]
        self._live: dict[int, int] = {}  # units by first unit, of the blocks that have views
        self._pinned: dict[int, int] = {}
        self._is_closed = False
        self._pid = _getpid()
        self._key = next(_keys)
        _readers[self._key] = self

    @property
    def n_live(self) -> int:
        """Blocks that have views."""
        return len(self._live)

    def open(self, unit: int, n_bytes: int) -> memoryview:
        """The buffer at a place: writable, and released when nothing refers to it any more."""
        n_units = -(-n_bytes // UNIT_BYTES)
        # Not a memoryview of the mapping: numpy makes views of its own of that, and there is nothing that dies with the
        # last of them. These all refer to the ctypes array.
        exporter = _exporter_type(n_units * UNIT_BYTES).from_buffer(self._memory.map, unit * UNIT_BYTES)
        token = _Token(self._key << 40 | unit)
        _untrack(token)  # an instance of a Python class is tracked even when it refers to nothing
        self._live[unit] = n_units
        exporter.token = token
        return memoryview(exporter).cast("B")[:n_bytes]

    def _release(self, unit: int) -> None:
        """Called by a finalizer: in any thread, between any two lines of any code, this class's too."""
        if self._pid != _getpid():
            return
        n_units = self._live.pop(unit, None)
        if n_units is None:
            return  # pinned meanwhile
        start = unit * UNIT_BYTES
        gone = self.gives_back and self._memory.give_back(start, start + n_units * UNIT_BYTES)
        self._states[unit] = PUNCHED if gone else FREE
        if self._is_closed and not self._live:
            self._end()

    def _end(self) -> None:
        """No block is to be released or pinned any more; the mapping lives as long as views of it."""
        if _readers.pop(self._key, None) is not None:
            self._memory.close()

    def pin(self) -> None:
        """Prepare for a fork: each process is to have the blocks that have views now as it has its other memory.

        So they are never released, and what one of the processes writes is its own from now on.
        """
        if self._pid != _getpid():
            return
        pinned = {}
        for unit in list(self._live):
            if (n_units := self._live.pop(unit, None)) is not None:
                pinned[unit] = n_units
                self._states[unit] = PINNED
        for start, stop in _joined(pinned):
            self._memory.make_private(start * UNIT_BYTES, stop * UNIT_BYTES)
        self._pinned |= pinned
        if self._is_closed and not self._live:  # the views of these blocks will tell nobody when they die
            self._end()

    def close(self) -> None:
        """The sender has ended: return all pages but those of blocks that have views, and those when they die."""
        self.gives_back = True
        self._is_closed = True
        at = -(-len(self._states) // UNIT_BYTES)
        for start, stop in _joined({**self._live, **self._pinned}):
            self._memory.give_back(at * UNIT_BYTES, start * UNIT_BYTES)
            at = stop
        self._memory.give_back(at * UNIT_BYTES, len(self._states) * UNIT_BYTES)
        if not self._live:
            self._end()


def _joined(blocks: dict[int, int]) -> list[tuple[int, int]]:
    """Blocks as ranges in ascending order, neighbours in one."""
    ranges: list[tuple[int, int]] = []
    for start, n_units in sorted(blocks.items()):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], start + n_units
        else:
            ranges.append((start, start + n_units))
    return ranges


def _pin_all() -> None:
    for reader in list(_readers.values()):
        reader.pin()


if hasattr(os, "register_at_fork"):
    # Twice: between the first and the fork another thread may have opened a block. A worker that nbpar forks counts as
    # any other: it may be there to read, through a module of the user's, what the kernel has.
    os.register_at_fork(before=_pin_all, after_in_parent=_pin_all)

atexit.register(_readers.clear)  # views die until the very end, when the names of this module are gone
