"""A worker's ends of the two arenas: it reads its arguments in one and puts its results into the other.

Both are made by the kernel (:mod:`nbpar.backends.arenas`), each when it is first needed: a worker asks for room when it
first has a large result. Whatever cannot be had, the socket does in its place. Used by :mod:`nbpar.worker.main`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nbpar.wire.arena import Arena, ArenaReader, Place
from nbpar.wire.channel import Message, WorkerChannel
from nbpar.wire.memory import Memory
from nbpar.wire.messages import Kind
from nbpar.worker.output import Sender

__all__ = ["WorkerArenas"]


class WorkerArenas:
    """The arenas of this process; called by its main thread."""

    def __init__(self, channel: WorkerChannel, sender: Sender) -> None:
        self._channel = channel
        self._sender = sender
        self._results: Arena | None = None
        self._asked = False

    def begin_job(self) -> None:
        """What could not be had during the last job may be there now."""
        self._asked = self._results is not None

    def take(self, message: Message) -> None:
        """An ARENA message: map the memory, and say so when it is for arguments."""
        size_bytes, is_for_results = message.numbers[:2]
        if not message.fds:  # there was no descriptor free for it
            return
        try:
            memory = Memory(message.fds[0], size_bytes)
            if is_for_results:
                self._results = Arena(memory)
                return
            self._channel.read_from(ArenaReader(memory))
        except OSError:  # no address space left, no descriptor, no page
            return
        self._sender.send(Message(Kind.MAPPED))

    def place(self, buffers: Sequence[memoryview]) -> Sequence[memoryview | Place]:
        """Put results into the arena, as far as there is room."""
        if self._results is None:
            if not self._asked:
                self._asked = True
                self._sender.send(Message(Kind.ROOM))
            return buffers
        return [self._results.place(buffer) or buffer for buffer in buffers]

    def trim(self, reserve_bytes: int) -> None:
        """Return memory to the system that is not used."""
        if self._results is not None:
            self._results.trim(reserve_bytes)
