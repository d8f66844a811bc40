"""Framed messages over a stream socket: large buffers are never joined, nor copied twice.

Owns the framing and the two ways to move it: :class:`Channel` never blocks (the kernel's dispatcher drives it from its
selector) and :class:`WorkerChannel` blocks (a worker has nothing else to do). A deadlock by two full sockets cannot be,
since the dispatcher always reads while it has something to write.

A message is a header, the length and place of each buffer, a small `head` (plain pickle), a `payload`, and the buffers
that have no place in an arena (:mod:`nbpar.wire.arena`). A stream, not SEQPACKET: without an arena a message may be
larger than a socket's send buffer, and one code serves every system.

What bounds the outgoing queue of a :class:`Channel`: the scheduler, which lets a worker hold two chunks.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from nbpar.errors import SerializationError
from nbpar.sizes import in_words
from nbpar.wire.arena import ArenaReader, Place

__all__ = ["Channel", "ChannelClosedError", "Message", "WorkerChannel", "channel_pair"]

_HEADER = struct.Struct("<IIQQ5q5d")  # kind, n_buffers and n_fds, lengths of head and payload, five numbers and times
_READ_BYTES = 1 << 18
_WORKER_READ_BYTES = 1 << 16  # recvmsg allocates this anew each time; below malloc's mmap threshold that is cheap
_MAX_MESSAGES = 64  # from one worker in one turn, so that a flood of output does not hold up the others
_MAX_PARTS = 512  # IOV_MAX is 1024 on Linux and macOS
_FDS_BYTES = socket.CMSG_LEN(64 * 4) if hasattr(socket, "CMSG_LEN") else 0  # room for 64 descriptors
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has no such flag
_JOINED_BYTES = 1 << 12  # up to here copying a payload behind its header is cheaper than a second piece


class ChannelClosedError(ConnectionError):
    """The other side is gone."""


Piece = bytes | memoryview
"""What :meth:`Message.parts` gives: ``len`` is the number of bytes."""


@dataclass(slots=True)
class Message:
    """One message; what the numbers and times mean depends on `kind` (:mod:`nbpar.wire.messages`)."""

    kind: int
    numbers: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    times: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    head: bytes = b""
    payload: bytes | bytearray | memoryview = b""
    buffers: Sequence[bytes | bytearray | memoryview | Place] = ()
    fds: Sequence[int] = ()
    lost_bytes: int = 0  # of payload and buffers, for which the receiver had no memory: then it has neither

    def parts(self) -> list[Piece]:
        """The message as byte pieces, in order, without joining large ones; none is empty."""
        payload, buffers = self.payload, self.buffers
        if type(payload) is not bytes:
            payload = memoryview(payload).cast("B")
        n_payload, n_both = len(payload), len(buffers) << 8 | len(self.fds)
        start = _HEADER.pack(self.kind, n_both, len(self.head), n_payload, *self.numbers, *self.times)
        if not buffers and n_payload <= _JOINED_BYTES:
            return [start + self.head + payload]
        places: list[int] = []
        views: list[memoryview] = []
        for buffer in buffers:
            if isinstance(buffer, Place):
                places += buffer.n_bytes, buffer.unit
            else:
                views.append(memoryview(buffer).cast("B"))
                places += len(views[-1]), 0
        start += struct.pack(f"<{len(places)}Q", *places) + self.head
        pieces: list[Piece] = [start + payload] if n_payload <= _JOINED_BYTES else [start, payload]
        return pieces + [view for view in views if len(view)]

    def lost(self, what: str) -> SerializationError:
        """The error of a task that needs what was lost with this message: an argument, a function, a result."""
        size = in_words(self.lost_bytes)
        return SerializationError(f"the {what} could not be received: there was no memory for its {size} (MemoryError)")

    @property
    def n_bytes(self) -> int:
        """Size of payload and buffers."""
        if not self.buffers:
            return len(self.payload)
        sizes = (one.n_bytes if isinstance(one, Place) else memoryview(one).nbytes for one in self.buffers)
        return len(self.payload) + sum(sizes)

    @property
    def inline_bytes(self) -> int:
        """The part of them that travels in the message itself, not in an arena."""
        return len(self.payload) + sum(memoryview(one).nbytes for one in self.buffers if not isinstance(one, Place))


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets: the kernel's end and the worker's."""
    return socket.socketpair()


class _Nowhere:
    """Takes the place of memory that is not to be had: what was to go there is read and forgotten."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes

    def __len__(self) -> int:
        return self._n_bytes


def _room(n_bytes: int) -> bytearray | _Nowhere:
    try:
        return bytearray(n_bytes)
    except MemoryError:
        return _Nowhere(n_bytes)


class _Parser:
    """Bytes in, messages out. Small messages are cut from one read; a large piece is received into its own memory."""

    def __init__(self) -> None:
        self._pending = b""  # less than a header and its places
        self._message: Message | None = None
        self._n_fds = 0
        self._pieces: deque[tuple[str, bytearray | _Nowhere]] = deque()  # still to be filled, the first partly
        self._filled = 0
        self._sink = bytearray(_WORKER_READ_BYTES)  # of what there is no memory for
        self.fds: deque[int] = deque()
        self.arena: ArenaReader | None = None

    def target(self) -> memoryview | None:
        """Where to receive into when a large piece is under way; None to read anything."""
        if not self._pieces:
            return None
        piece = self._pieces[0][1]
        if isinstance(piece, _Nowhere):
            return memoryview(self._sink)[: len(piece) - self._filled]
        return memoryview(piece)[self._filled :]

    def filled(self, n_bytes: int) -> Message | None:
        """`n_bytes` were received into :meth:`target`."""
        self._filled += n_bytes
        return self._advance()

    def feed(self, data: bytes) -> list[Message]:
        """Messages that `data` completes."""
        messages: list[Message] = []
        if self._pending:
            data, self._pending = self._pending + data, b""
        at, n_data = 0, len(data)
        while at < n_data:
            if (room := self.target()) is not None:
                n_bytes = min(len(room), n_data - at)
                room[:n_bytes] = memoryview(data)[at : at + n_bytes]
                at += n_bytes
                if (message := self.filled(n_bytes)) is not None:
                    messages.append(message)
                continue
            body = at + _HEADER.size
            if n_data < body:
                break
            kind, n_both, n_head, n_payload, *rest = _HEADER.unpack_from(data, at)
            n_buffers, n_fds = n_both >> 8, n_both & 0xFF
            message = Message(kind, tuple(rest[:5]), tuple(rest[5:]))
            inline: Sequence[bytearray | _Nowhere] = ()
            if n_buffers:
                if n_data < body + 16 * n_buffers:
                    break
                inline = self._make_room(message, struct.unpack_from(f"<{2 * n_buffers}Q", data, body))
                body += 16 * n_buffers
            middle, end = body + n_head, body + n_head + n_payload
            if not inline and end <= n_data:  # nearly all messages: no copy but the two slices
                message.head, message.payload = data[body:middle], data[middle:end]
                if n_fds:
                    message.fds = self._take_fds(n_fds)
                messages.append(message)
                at = end
                continue
            at = body
            self._message, self._n_fds, self._filled = message, n_fds, 0
            self._pieces.extend((("head", bytearray(n_head)), ("payload", _room(n_payload))))
            self._pieces.extend(("buffer", buffer) for buffer in inline)
            message.lost_bytes = sum(len(piece) for _, piece in self._pieces if isinstance(piece, _Nowhere))
            if (whole := self._advance()) is not None:
                messages.append(whole)
        self._pending = data[at:]
        return messages

    def _advance(self) -> Message | None:
        """Take over the pieces that are full; the message once all are."""
        message = self._message
        assert message is not None
        while self._pieces and self._filled == len(self._pieces[0][1]):
            name, data = self._pieces.popleft()
            self._filled = 0
            if name == "head":
                assert type(data) is bytearray
                message.head = bytes(data)
            elif name == "payload" and type(data) is bytearray:
                message.payload = data
        if self._pieces:
            return None
        if message.lost_bytes:
            message.payload, message.buffers = b"", ()
        message.fds = self._take_fds(self._n_fds)
        self._message = None
        return message

    def _make_room(self, message: Message, places: tuple[int, ...]) -> list[bytearray | _Nowhere]:
        """Open the buffers that lie in the arena; those that follow get memory of their own."""
        buffers: list[memoryview | bytearray] = []
        inline: list[bytearray | _Nowhere] = []
        for n_bytes, unit in zip(places[::2], places[1::2], strict=True):
            if unit:
                assert self.arena is not None, "a place in an arena that this side never said it has"
                buffers.append(self.arena.open(unit, n_bytes))
            else:
                inline.append(_room(n_bytes))
                buffers.append(inline[-1] if type(inline[-1]) is bytearray else bytearray())
        message.buffers = buffers
        return inline

    def _take_fds(self, n_fds: int) -> list[int]:
        """The descriptors of a message; without those that this process had no room for."""
        return [self.fds.popleft() for _ in range(min(n_fds, len(self.fds)))]


class Channel:
    """The kernel's end: never blocks. The dispatcher's thread is the only caller.

    Parameters
    ----------
    sock : socket.socket
        One end of :func:`channel_pair`; the channel owns it from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._out: deque[tuple[deque[Piece], list[int]]] = deque()
        self._later: list[tuple[Message, list[int]]] = []
        self._parser = _Parser()
        self._scratch = bytearray(_READ_BYTES)

    def read_from(self, arena: ArenaReader) -> None:
        """Where the places in messages from now on are."""
        self._parser.arena = arena

    def fileno(self) -> int:
        """For the selector."""
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the socket to take more."""
        return bool(self._out)

    def send(self, message: Message, *, later: bool = False) -> None:
        """Queue a message and write what the socket takes now.

        Parameters
        ----------
        later : bool
            Leave it to go out with the next message: each write wakes the worker, which costs more than the message.
        """
        fds = [os.dup(fd) for fd in message.fds]  # their owner may close its own before these have left
        self._later.append((message, fds))
        if not later:
            self.send_later_ones()

    def send_later_ones(self) -> None:
        """Write what was left to go out with the next message."""
        parts: deque[Piece] = deque()
        for one, fds in self._later:
            if fds and parts:  # descriptors go with the first bytes of their own message
                self._out.append((parts, []))
                parts = deque()
            parts.extend(one.parts())
            if fds:
                self._out.append((parts, fds))
                parts = deque()
        if parts:
            self._out.append((parts, []))
        self._later.clear()
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes; a broken connection is left to :meth:`receive` to tell."""
        while self._out:
            parts, fds = self._out[0]
            try:
                if fds:
                    n_sent = socket.send_fds(self._socket, [parts[0]], fds)
                    _close_all(fds)
                else:
                    n_sent = self._socket.sendmsg(itertools.islice(parts, _MAX_PARTS))
            except BlockingIOError:
                return
            except OSError:
                self._forget()
                return
            _drop_sent(parts, n_sent)
            if not parts:
                self._out.popleft()

    def receive(self) -> list[Message]:
        """All messages that are there.

        Raises
        ------
        ChannelClosedError
            When the worker's end is closed and every whole message has been handed out.
        """
        messages: list[Message] = []
        while True:
            target = self._parser.target()
            try:
                n_bytes = self._socket.recv_into(self._scratch if target is None else target)
            except BlockingIOError:
                return messages
            except OSError:
                n_bytes = 0
            if n_bytes == 0:
                if messages:
                    return messages  # the close is seen again at the next call
                raise ChannelClosedError
            if target is None:
                messages.extend(self._parser.feed(bytes(memoryview(self._scratch)[:n_bytes])))
                if n_bytes < _READ_BYTES or len(messages) >= _MAX_MESSAGES:
                    return messages
            elif (message := self._parser.filled(n_bytes)) is not None:
                messages.append(message)

    def close(self) -> None:
        """Close the socket."""
        self._forget()
        self._socket.close()

    def _forget(self) -> None:
        for fds in [*(fds for _, fds in self._out), *(fds for _, fds in self._later)]:
            _close_all(fds)
        self._out.clear()
        self._later.clear()


def _drop_sent(parts: deque[Piece], n_sent: int) -> None:
    """Take the first `n_sent` bytes off."""
    while parts and n_sent >= len(parts[0]):
        n_sent -= len(parts.popleft())
    if n_sent:
        parts[0] = memoryview(parts[0])[n_sent:]


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


class WorkerChannel:
    """The worker's end: blocks. Only the worker's main thread receives; `send` may be called by any thread in turn."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.set_inheritable(False)  # it came by a descriptor, which such are
        self._socket = sock
        self._parser = _Parser()
        self._ready: deque[Message] = deque()
        self._receive_s = 0.0

    def read_from(self, arena: ArenaReader) -> None:
        """Where the places in messages from now on are."""
        self._parser.arena = arena

    def send(self, message: Message) -> None:
        """Send a whole message; the caller sees to it that no other thread sends meanwhile."""
        parts = deque(message.parts())
        while parts:
            _drop_sent(parts, self._socket.sendmsg(itertools.islice(parts, _MAX_PARTS)))

    def receive(self) -> Message:
        """The next message; waits for it.

        Raises
        ------
        ChannelClosedError
            When the kernel is gone.
        """
        while not self._ready:
            self._receive_part()
        return self._ready.popleft()

    def arrived(self) -> tuple[Message, ...]:
        """What has come wholly and is to be received yet; does not wait."""
        with contextlib.suppress(OSError, ValueError, ChannelClosedError):
            while select.select([self._socket], [], [], 0)[0]:
                self._receive_part()
        return tuple(self._ready)

    def _receive_part(self) -> None:
        target = self._parser.target()
        if target is not None:
            begin_s = perf_counter()
            n_bytes = self._socket.recv_into(target)
            if n_bytes == 0:
                raise ChannelClosedError
            self._receive_s += perf_counter() - begin_s
            if (message := self._parser.filled(n_bytes)) is not None:
                self._ready.append(message)
            return
        data, fds = self._receive_some()
        if not data:
            raise ChannelClosedError
        self._parser.fds.extend(fds)
        self._ready.extend(self._parser.feed(data))

    def take_receive_s(self) -> float:
        """Time that large pieces took to come, once they had begun to, since this was last asked."""
        taken_s, self._receive_s = self._receive_s, 0.0
        return taken_s

    def _receive_some(self) -> tuple[bytes, Sequence[int]]:
        if sys.platform == "win32":
            return self._socket.recv(_WORKER_READ_BYTES), ()
        # Memory that programs inherit which tasks start is theirs to read, and lives as long as they do.
        data, ancillary, _flags, _address = self._socket.recvmsg(_WORKER_READ_BYTES, _FDS_BYTES, _CLOSED_ON_EXEC)
        fds = array.array("i")
        for _level, _type, some in ancillary:
            fds.frombytes(some)
        if not _CLOSED_ON_EXEC:
            for fd in fds:
                os.set_inheritable(fd, False)
        return data, fds

    def closed_by_kernel(self) -> bool:
        """Whether the kernel's end is closed; looks without waiting."""
        with contextlib.suppress(OSError, ValueError):
            ready, _, _ = select.select([self._socket], [], [], 0)
            return bool(ready) and self._socket.recv(1, socket.MSG_PEEK) == b""
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
