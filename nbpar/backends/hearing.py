"""From a worker's messages to events: results are unpickled here, each in its own try.

Called by :mod:`nbpar.backends.processes` in the dispatcher's thread.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

from nbpar.backends.base import Heavy, Left, NoJob, NotReady, Printed, Ready, TasksEnded, WorkerEvent, safe_str
from nbpar.engine.events import LostUpdate, Sampled
from nbpar.errors import SerializationError
from nbpar.wire.channel import Message
from nbpar.wire.codec import Codec, DecodeFailure
from nbpar.wire.exceptions import decode_exception, without_callers
from nbpar.wire.messages import Kind

__all__ = ["to_event"]

BLOCKING_BYTES = 1 << 19
"""What travels in a message beyond this does not fit into the sockets' buffers."""

_Failures = list[tuple[int, BaseException, str]]


def to_event(codec: Codec, worker_id: int, pid: int, begin_s: float, message: Message) -> WorkerEvent | None:
    """What a message says; None for a kind that is not known.

    Parameters
    ----------
    pid, begin_s
        The worker's process and when its start was asked for.
    """
    numbers = message.numbers
    match message.kind:
        case Kind.RESULTS:
            return _results(codec, worker_id, message)
        case Kind.OUTPUT:
            index = numbers[0] - 1 if numbers[0] else None
            lines = bytes(message.payload).decode("utf-8", "replace").split("\n")
            return Printed(worker_id, index, "stderr" if numbers[1] else "stdout", lines)
        case Kind.READY:
            return Ready(worker_id, pid, begin_s, message.times[0], numbers[1], message.times[1])
        case Kind.NOT_READY:
            return NotReady(worker_id, decode_exception(message.payload)[0])
        case Kind.LEFT:
            return Left(worker_id, message.times[0])
        case Kind.HEAVY:
            return Heavy(worker_id, numbers[0])
        case Kind.SAMPLED:
            return Sampled(worker_id, numbers[0], bytes(message.payload))
        case Kind.CHANGED:
            return LostUpdate(numbers[0], tuple(bytes(message.payload).decode("utf-8", "replace").split("\n")))
        case Kind.NO_JOB:
            return NoJob(worker_id, numbers[0], decode_exception(message.payload)[0])
    return None


def _results(codec: Codec, worker_id: int, message: Message) -> TasksEnded:
    heard_s = time.perf_counter()
    _job_id, chunk_id, first, n_ended, final = message.numbers
    begin_s, end_s, unpack_s, pack_s, longest_s = message.times
    n_bytes = message.n_bytes
    # Then the worker could do nothing else until nearly all of it was read.
    if n_bytes > BLOCKING_BYTES and message.inline_bytes > BLOCKING_BYTES:
        pack_s = max(pack_s, heard_s - end_s)
    failures: _Failures = []
    if message.head:
        failures = [(index, *decode_exception(data)) for index, data in pickle.loads(message.head)]
    values: Any = ()
    if message.lost_bytes:
        failed = {index for index, *_ in failures}
        lost = [(index, message.lost("result"), "") for index in range(first, first + n_ended) if index not in failed]
        failures = sorted([*failures, *lost], key=lambda failure: failure[0])
    elif message.payload:
        try:
            values = codec.decode(message.payload, message.buffers)
        except BaseException:  # noqa: BLE001  # a __setstate__ of the user's; found again below, value by value
            n_values = n_ended - len(failures)
            values, bad = _decode_each(codec, message, first, n_values, {index for index, *_ in failures})
            failures = sorted([*failures, *bad], key=lambda failure: failure[0])
    return TasksEnded(
        worker_id,
        chunk_id,
        first,
        n_ended,
        bool(final & 1),
        begin_s,
        end_s,
        values,
        failures,
        n_bytes,
        unpack_s,
        pack_s,
        time.perf_counter() - heard_s,
        first + (final >> 1) - 1 if final > 1 else -1,
        longest_s,
    )


def _decode_each(
    codec: Codec, message: Message, first: int, n_values: int, failed: set[int]
) -> tuple[list[Any], _Failures]:
    """Values one by one; those that cannot be rebuilt become failures of their own tasks."""
    values: list[Any] = []
    bad: _Failures = []
    index = first
    for value in codec.decode_each(message.payload, message.buffers, n_values):
        while index in failed:
            index += 1
        if type(value) is DecodeFailure:
            told = f"{type(value.error).__name__}: {safe_str(value.error)}"
            error = SerializationError(f"the result could not be rebuilt: {told}")
            error.has_arrived = True
            error.__cause__ = without_callers(value.error)
            bad.append((index, error, ""))
        else:
            values.append(value)
        index += 1
    return values, bad
