"""What goes to a worker, and what it has already: functions, classes and shared objects travel once.

:func:`prepare_job` pickles a job's function in the user's thread; a :class:`Shipper` per worker sends its chunks and,
before them, what that worker lacks. Used by :mod:`nbpar.backends.processes` in the dispatcher's thread.
"""

from __future__ import annotations

import hashlib
import pickle
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nbpar.backends.arenas import PoolArenas
from nbpar.backends.base import JobSpec
from nbpar.backends.captured import CapturedBuffers
from nbpar.backends.repeated import SentBuffers
from nbpar.backends.surroundings import cell_sources, surroundings
from nbpar.engine.instructions import Chunk
from nbpar.errors import SerializationError
from nbpar.wire import shared
from nbpar.wire.arena import Place
from nbpar.wire.channel import Channel, Message
from nbpar.wire.codec import CannotPickle, Codec, Definition, Encoded
from nbpar.wire.messages import CLASS_KEY, ChunkFlag, JobFlag, Kind
from nbpar.wire.names import goes_by_name
from nbpar.wire.unchanged import State, state_of
from nbpar.worker.execute import Unusable

__all__ = ["PreparedJob", "Shipper", "prepare_job"]

_NAMED_TYPES = (types.FunctionType, types.BuiltinFunctionType, type)

MAX_FUNCTIONS = 32
"""Functions a worker keeps; a pool that maps more of them in turn ships the oldest again."""


class PreparedFunction(NamedTuple):
    """A function by value, ready for every worker.

    Attributes
    ----------
    key : str
        Hash of the function's bytes: the same for an unchanged function.
    head : bytes
        The key, and the pickled sources of its cells by file name.
    buffers : SharedBuffers or None
        Where its large buffers are; None when it has none, or when they are in `encoded`.
    handles : tuple
        Shared objects that the function refers to: alive until the job ends, whatever becomes of the user's names.
    """

    key: str
    head: bytes
    encoded: Encoded
    buffers: shared.SharedBuffers | None
    handles: tuple[Any, ...]


class PreparedJob(NamedTuple):
    """What every worker needs of a job."""

    function: PreparedFunction
    surroundings: bytes
    sent: SentBuffers

    @property
    def speed_key(self) -> str:
        """See :class:`~nbpar.backends.base.Prepared`."""
        return self.function.key.partition("-")[0]  # whatever data it holds now


def prepare_job(codec: Codec, captured: CapturedBuffers, job: JobSpec) -> PreparedJob:
    """Pickle what every worker needs of a job.

    Parameters
    ----------
    captured : CapturedBuffers
        Where large buffers of the function go.

    Raises
    ------
    SerializationError
        When the function cannot travel; it names the object and the path to it.
    """
    __tracebackhide__ = True
    codec.begin_job()
    return PreparedJob(_prepare_function(codec, captured, job.function), surroundings(), SentBuffers())


_named: weakref.WeakKeyDictionary[Any, PreparedFunction] = weakref.WeakKeyDictionary()
"""Functions that workers import by name: their bytes never change, so they are made once."""

_by_value: dict[int, tuple[State, PreparedFunction]] = {}
"""Functions that travel by value and refer to nothing that can change unseen, by id; at most `MAX_FUNCTIONS`."""


def _prepare_function(codec: Codec, captured: CapturedBuffers, function: Any) -> PreparedFunction:
    __tracebackhide__ = True
    is_named = type(function) in _NAMED_TYPES and codec.serializer == "auto" and goes_by_name(function)
    if is_named and (known := _named.get(function)) is not None:
        return known
    state = None if is_named or codec.serializer != "auto" else state_of(function)
    if state is not None and (before := _by_value.get(id(function))) is not None and before[0] == state:
        return before[1]
    try:
        encoded = codec.encode_function(function)
    except CannotPickle as error:
        raise SerializationError(f"the function cannot be sent to the workers: {error}") from None
    digest = hashlib.blake2b(encoded.payload, digest_size=16)
    key = digest.hexdigest()
    buffers = captured.put(key, encoded.buffers) if encoded.buffers else None
    if buffers is not None:
        key = f"{key}-{buffers.shared_id:x}"
        encoded.buffers = []  # they hold the user's arrays
    elif encoded.buffers:
        for buffer in encoded.buffers:
            digest.update(buffer)
        key = f"{key}-{digest.hexdigest()}"
    sources = {} if is_named else cell_sources(function)
    head = key.encode() + (pickle.dumps(sources) if sources else b"")
    handles = tuple(shared.handle(shared_id) for shared_id in encoded.shared_ids)
    prepared = PreparedFunction(key, head, encoded, buffers, handles)
    if is_named:
        _named[function] = prepared
    elif state is not None:
        if len(_by_value) >= MAX_FUNCTIONS:
            _by_value.clear()
        _by_value[id(function)] = state, prepared
    return prepared


def _unusable(why: CannotPickle) -> Unusable:
    return Unusable(SerializationError(f"the argument cannot be sent to a worker: {why}"))


class Shipper:
    """Sends to one worker, and knows what that worker has."""

    def __init__(self, worker_id: int, channel: Channel, codec: Codec, arenas: PoolArenas) -> None:
        self.has_arena = False  # it has said that it can read arguments there
        self._worker_id = worker_id
        self._channel = channel
        self._codec = codec
        self._arenas = arenas
        self._was_offered = False
        self._functions: OrderedDict[str, None] = OrderedDict()
        self._surroundings = b""
        self._jobs: set[int] = set()
        self._classes: set[str] = set()
        self._shared_ids: set[int] = set()

    def send_first(self, shared_ids: Iterable[int]) -> None:
        """Send the shared objects that `worker_init` and `worker_exit` refer to; the worker waits for the last."""
        for shared_id in shared_ids:
            self._send_shared(shared_id)
        self._channel.send(Message(Kind.SHARE))

    def send_chunk(self, chunk: Chunk, job: JobSpec, prepared: PreparedJob, *, quick: bool) -> int:
        """Send a chunk, and before it what this worker does not have yet; returns the size of its arguments."""
        if job.job_id not in self._jobs:
            self._send_job(job, prepared)
        items = job.source.take(chunk.start, chunk.stop)
        flags = ChunkFlag.QUICK if quick else 0
        if job.options.chunk_size is None:
            flags |= ChunkFlag.RETURNABLE
        try:
            encoded = self._codec.encode(items)
        except CannotPickle:
            encoded = self._encode_usable(items)
            flags |= ChunkFlag.HAS_UNUSABLE
        if encoded.shared_ids:
            flags |= ChunkFlag.HAS_SHARED
        self._send_needs(encoded)
        for again in prepared.sent.note(encoded.buffers, items, chunk.start) if encoded.buffers else ():
            job.sink.apply(again)
        buffers = self._placed(encoded.buffers) if encoded.buffers else ()
        numbers = (job.job_id, chunk.chunk_id, chunk.start, chunk.stop, flags | chunk.attempt * ChunkFlag.ATTEMPT)
        self._channel.send(Message(Kind.CHUNK, numbers, payload=encoded.payload, buffers=buffers))
        return encoded.n_bytes

    def _placed(self, buffers: Sequence[memoryview]) -> Sequence[memoryview | Place]:
        """Buffers in the arena, once the worker has it; until then, and where there is no room, as they are."""
        if self.has_arena:
            return self._arenas.place(buffers, self._worker_id)
        if not self._was_offered:
            self._was_offered = self._arenas.offer(self._channel)
        return buffers

    def _encode_usable(self, items: Sequence[Any]) -> Encoded:
        """Encode a chunk of which some arguments cannot travel: their tasks fail, each with its own reason."""
        usable = [item if (why := self._codec.refusal(item, name="item")) is None else _unusable(why) for item in items]
        try:
            return self._codec.encode(usable)
        except CannotPickle as error:  # of two minds: what could be pickled a moment ago cannot be now
            return self._codec.encode([one if type(one) is Unusable else _unusable(error) for one in usable])

    def _send_job(self, job: JobSpec, prepared: PreparedJob) -> None:
        function = prepared.function
        self._send_needs(function.encoded)
        if function.key in self._functions:
            self._functions.move_to_end(function.key)
        else:
            self._functions[function.key] = None
            payload, buffers = function.encoded.payload, function.encoded.buffers
            shared_id = 0
            if function.buffers is not None:
                if self._send_shared(function.buffers.shared_id):
                    shared_id = function.buffers.shared_id
                else:
                    buffers = function.buffers.views()
            numbers = (len(function.key), shared_id, 0, 0, 0)
            message = Message(Kind.DEFINE, numbers, head=function.head, payload=payload, buffers=buffers)
            self._channel.send(message, later=True)
        if prepared.surroundings != self._surroundings:
            self._surroundings = prepared.surroundings
            self._channel.send(Message(Kind.FOLLOW, head=prepared.surroundings), later=True)
        flags = job.star * JobFlag.STAR | (job.options.seed is not None) * JobFlag.SEEDED
        flags |= job.options.profile * JobFlag.PROFILED
        if job.options.strict is not None:
            flags |= JobFlag.STRICT | (job.options.strict == "all") * JobFlag.KEEPS_ITEMS
        seed = job.seed.to_bytes(job.seed.bit_length() // 8 + 1, "little")
        numbers, times = (job.job_id, flags, job.at_once, 0, 0), (job.options.timeout or 0.0, 0.0, 0.0, 0.0, 0.0)
        message = Message(Kind.JOB, numbers, times, head=function.key.encode(), payload=seed)
        self._channel.send(message, later=True)
        self._jobs.add(job.job_id)
        while len(self._functions) > MAX_FUNCTIONS:
            oldest, _ = self._functions.popitem(last=False)
            self._channel.send(Message(Kind.FORGET, head=oldest.encode()), later=True)

    def _send_needs(self, encoded: Encoded) -> None:
        """Send the classes and shared objects that a payload refers to, where this worker does not have them."""
        for shared_id in encoded.shared_ids:
            self._send_shared(shared_id)
        self._forget_shared()
        self._send_definitions(encoded.definitions)

    def let_go(self) -> None:
        """Have the worker let go now of shared objects that the kernel has released."""
        if self._forget_shared():
            self._channel.send_later_ones()

    def _forget_shared(self) -> bool:
        gone = [one for one in self._shared_ids if shared.segment(one) is None]
        for shared_id in gone:
            self._shared_ids.discard(shared_id)
            self._channel.send(Message(Kind.UNSHARE, (shared_id, 0, 0, 0, 0)), later=True)
        return bool(gone)

    def _send_shared(self, shared_id: int) -> bool:
        """Send a shared object or the buffers of a function; False when there is no descriptor left to do it with."""
        segment = shared.segment(shared_id)
        if segment is not None and shared_id not in self._shared_ids:
            for one in segment.held:  # they would be missing there when the object is rebuilt
                self._send_shared(one.shared_id)
            self._send_definitions(segment.definitions)
            numbers = (shared_id, segment.size_bytes, 0, 0, 0)
            try:
                self._channel.send(Message(Kind.SHARE, numbers, head=segment.layout, fds=[segment.fd]), later=True)
            except OSError:
                return False
            self._shared_ids.add(shared_id)
        return True

    def _send_definitions(self, definitions: Iterable[Definition]) -> None:
        for definition in definitions:
            if definition.key not in self._classes:
                self._classes.add(definition.key)
                head = CLASS_KEY + definition.key.encode()
                message = Message(Kind.DEFINE, (len(head), 0, 0, 0, 0), head=head, payload=definition.blob)
                self._channel.send(message, later=True)

    def end_job(self, job_id: int) -> None:
        """The worker may forget a job; it hears of it with its next message."""
        if job_id in self._jobs:
            self._jobs.discard(job_id)
            self._channel.send(Message(Kind.END_JOB, (job_id, 0, 0, 0, 0)), later=True)
