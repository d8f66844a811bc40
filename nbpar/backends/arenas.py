"""The arenas of one pool, in the kernel: one for all arguments, and one for the results of each worker.

Owns how large they are, when they are made, and when their memory goes back. Arguments share one arena, so that its
pages are new only once, however many workers there are and however often they are replaced; a block is freed when its
worker has let go of it, or has ended. Results need one for each worker, whose own allocator it has. The kernel makes
both, and maps them before anybody uses them. Called by :mod:`nbpar.backends.processes` and
:mod:`nbpar.backends.shipping`, by the thread that does the dispatcher's work.

::

    arguments: kernel --place--> [arena] --open--> any worker
    results:   kernel <--open--- [arena] <--place-- its worker, asked for by ROOM at its first large result

Bounds: for arguments a quarter of the memory, for results half of it, shared out among the workers. That is virtual:
what counts is what is in use, and 64 MB of warm pages each that stay when the pool rests. A result that a user keeps is
a block in use; it is a block less then, as it would be an array more in the kernel's own memory.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence

from nbpar.wire.arena import UNIT_BYTES, Arena, ArenaReader, Place
from nbpar.wire.channel import Channel, Message
from nbpar.wire.memory import Memory, address_space_bytes, can_pass_memory, usable_memory_bytes
from nbpar.wire.messages import Kind

__all__ = ["PoolArenas"]

REST_AFTER_S = 3.0
"""Memory goes back when no large buffer has travelled for so long."""

RESERVE_BYTES = 64 << 20
"""Warm pages that stay: for arguments, and for the results of all workers together."""

_LEAST_BYTES = 64 << 20


class PoolArenas:
    """See the module.

    Parameters
    ----------
    n_workers : int
        Among whom the room for results is shared out.

    Attributes
    ----------
    due_s : float or None
        When :meth:`rest` is to be called, as ``time.perf_counter()``; None while there is nothing to give back.
    """

    def __init__(self, n_workers: int) -> None:
        self.due_s: float | None = None
        self._n_workers = n_workers
        self._arguments: Arena | None = None
        self._results: dict[int, ArenaReader] = {}
        self._may_make = can_pass_memory()  # not again within a job once it failed: each attempt costs
        self._rests = False

    def end_job(self) -> None:
        """What could not be made may be possible next time."""
        self._may_make = can_pass_memory()

    def note_use(self) -> None:
        """A large buffer travels now."""
        self.due_s = time.perf_counter() + REST_AFTER_S
        if self._rests:
            self._rests = False
            for reader in self._results.values():
                reader.gives_back = False

    # --- arguments ----------------------------------------------------------------------------------------------------

    def offer(self, channel: Channel) -> bool:
        """Send a worker the memory of the arguments; whether that was possible. It says when it has mapped it."""
        if self._arguments is None and self._may_make:
            memory = self._make(_largest_bytes() // 4)
            self._arguments = None if memory is None else _arena(memory)
            self._may_make = self._arguments is not None
        return self._arguments is not None and self._send(channel, self._arguments.memory, is_for_results=0)

    def place(self, buffers: Sequence[memoryview], worker_id: int) -> Sequence[memoryview | Place]:
        """Put arguments for a worker that has mapped the memory into it, as far as there is room."""
        arena = self._arguments
        assert arena is not None
        self.note_use()
        return [arena.place(buffer, worker_id) or buffer for buffer in buffers]

    # --- results ------------------------------------------------------------------------------------------------------

    def give_room(self, worker_id: int, channel: Channel) -> None:
        """Make an arena for the results of a worker that asks for it."""
        if not self._may_make or worker_id in self._results:
            return
        memory = self._make(_largest_bytes() // 2 // self._n_workers)
        if memory is None:
            self._may_make = False
        elif not self._send(channel, memory, is_for_results=1):
            memory.close()
        else:
            self._results[worker_id] = reader = ArenaReader(memory)
            channel.read_from(reader)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def rest(self) -> dict[int, int]:
        """Return free memory to the system; bytes to keep, by worker that is to do the same."""
        self.due_s = None
        self._rests = True
        if self._arguments is not None:
            self._arguments.trim(RESERVE_BYTES)
        for reader in self._results.values():
            reader.gives_back = True  # what the user drops from now on
        return dict.fromkeys(self._results, RESERVE_BYTES // self._n_workers)

    def lose(self, worker_id: int) -> None:
        """A worker has ended; its results live on as long as the user has them."""
        if self._arguments is not None:
            self._arguments.free_owner(worker_id)
        if (reader := self._results.pop(worker_id, None)) is not None:
            reader.close()

    def close(self) -> None:
        """The pool has ended."""
        for worker_id in list(self._results):
            self.lose(worker_id)
        if self._arguments is not None:
            self._arguments.close()
            self._arguments = None
        self._may_make = False

    # --- memory -------------------------------------------------------------------------------------------------------

    def _make(self, size_bytes: int) -> Memory | None:
        for size in (size_bytes, size_bytes // 4, size_bytes // 16):
            try:
                memory = Memory.create("nbpar-arena", max(size, _LEAST_BYTES) // UNIT_BYTES * UNIT_BYTES)
            except OSError:  # no address space, no descriptor: buffers go through the socket
                continue
            if memory.fd <= _most_descriptors():
                return memory
            memory.close()  # what is left of them is the user's
            break
        return None

    def _send(self, channel: Channel, memory: Memory, *, is_for_results: int) -> bool:
        numbers = (memory.size_bytes, is_for_results, 0, 0, 0)
        try:
            channel.send(Message(Kind.ARENA, numbers, fds=[memory.fd]), later=not is_for_results)
        except OSError:  # no descriptor left to send it by
            self._may_make = False
            return False
        return True


def _arena(memory: Memory) -> Arena | None:
    try:
        return Arena(memory)
    except OSError:
        memory.close()
        return None


@functools.cache
def _most_descriptors() -> float:
    """Above this number arenas take none."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else 0.75 * limit


@functools.cache
def _largest_bytes() -> int:
    """What may be mapped at most, before it is shared out."""
    address_space = address_space_bytes()
    usable = usable_memory_bytes()
    return usable if address_space is None else min(usable, address_space // 4)
