"""Messages over a socket, cut anywhere."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.wire import channel
from nbpar.wire.channel import Channel, ChannelClosedError, Message, WorkerChannel, _Parser, channel_pair

Pair = tuple[Channel, WorkerChannel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = channel_pair()
    theirs.set_inheritable(True)  # as it is when it has come to another process
    kernel, worker = Channel(ours), WorkerChannel(theirs)
    yield kernel, worker
    kernel.close()
    worker.close()


def as_view(buffer: Any) -> memoryview:
    return memoryview(buffer).cast("B")


def same(a: Message, b: Message) -> bool:
    def plain(one: Message) -> Any:
        return (
            one.kind,
            one.numbers,
            one.times,
            bytes(one.head),
            bytes(one.payload),
            [as_view(buffer).tobytes() for buffer in one.buffers],
        )

    return bool(plain(a) == plain(b))


def flush_all(kernel: Channel) -> None:
    while kernel.wants_write:
        kernel.flush()


def as_bytes(message: Message) -> bytes:
    return b"".join(bytes(part) for part in message.parts())


def random_message(dice: random.Random, largest: int = 1 << 16) -> Message:
    def data() -> bytes:
        return dice.randbytes(dice.choice([0, 1, 100, 4096, 4097, dice.randrange(largest)]))

    numbers: Any = tuple(dice.randrange(-(2**62), 2**62) for _ in range(5))
    times: Any = tuple(dice.random() for _ in range(5))
    return Message(
        dice.randrange(100),
        numbers,
        times,
        data(),
        data(),
        [data() for _ in range(dice.choice([0, 0, 1, 3, 40]))],
    )


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), n_messages=st.integers(1, 4), n_cuts=st.integers(0, 30))
def test_messages_come_whole_when_the_stream_is_cut_anywhere(seed: int, n_messages: int, n_cuts: int) -> None:
    dice = random.Random(seed)
    sent = [random_message(dice, 1 << 13) for _ in range(n_messages)]
    stream = b"".join(as_bytes(one) for one in sent)
    cuts = sorted(dice.randrange(len(stream)) for _ in range(n_cuts))
    parser = _Parser()
    got: list[Message] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = memoryview(stream)[start:stop]
        # As the channels do it: a large piece under way is received into its own memory, anything else is fed.
        while piece:
            target = parser.target()
            if target is None:
                got += parser.feed(bytes(piece))
                break
            n_bytes = min(len(target), len(piece))
            target[:n_bytes] = piece[:n_bytes]
            target.release()
            piece = piece[n_bytes:]
            if (message := parser.filled(n_bytes)) is not None:
                got.append(message)
    assert len(got) == len(sent)
    assert all(same(a, b) for a, b in zip(got, sent, strict=True))


def test_every_byte_may_come_alone_when_the_network_is_slow() -> None:
    sent = [Message(1, (1, 2, 3, 4, 5), (0.5, 1.5, 2.5, 3.5, 4.5), b"head", b"payload", [b"", b"abc"]), Message(2)]
    parser = _Parser()
    got: list[Message] = []
    for byte in b"".join(as_bytes(one) for one in sent):
        target = parser.target()
        if target is None:
            got += parser.feed(bytes([byte]))
        else:
            target[0] = byte
            target.release()
            if (message := parser.filled(1)) is not None:
                got.append(message)
    assert len(got) == 2
    assert all(same(a, b) for a, b in zip(got, sent, strict=True))


def test_messages_cross_both_ways_when_large_and_small_are_mixed(pair: Pair) -> None:
    kernel, worker = pair
    dice = random.Random(1)
    sent = [random_message(dice, 1 << 21) for _ in range(20)]
    sent.append(Message(1, payload=dice.randbytes(5 << 20), buffers=[dice.randbytes(3 << 20)] * 3))
    sent.append(Message(2, buffers=[b"x"] * 2000, head=dice.randbytes(18 << 20)))

    def echo() -> None:
        for _ in sent:
            worker.send(worker.receive())

    thread = threading.Thread(target=echo)
    thread.start()
    for one in sent:
        kernel.send(one)
    got: list[Message] = []
    while len(got) < len(sent):
        if kernel.wants_write:
            kernel.flush()
        got += kernel.receive()
    thread.join()
    assert all(same(a, b) for a, b in zip(got, sent, strict=True))


def test_send_returns_at_once_when_nobody_reads(pair: Pair) -> None:
    kernel, worker = pair
    payload = random.Random(2).randbytes(8 << 20)
    kernel.send(Message(1, payload=payload))
    assert kernel.wants_write
    thread_got: list[Message] = []
    thread = threading.Thread(target=lambda: thread_got.append(worker.receive()))
    thread.start()
    flush_all(kernel)
    thread.join()
    assert bytes(thread_got[0].payload) == payload


def test_message_waits_for_the_next_when_sent_later(pair: Pair) -> None:
    kernel, worker = pair
    kernel.send(Message(1, head=b"first"), later=True)
    assert not kernel.wants_write
    with pytest.raises(BlockingIOError):
        worker._socket.recv(1, socket.MSG_DONTWAIT)
    kernel.send(Message(2))
    assert [worker.receive().kind, worker.receive().kind] == [1, 2]


def test_descriptors_arrive_with_their_message_when_others_are_around_it(pair: Pair) -> None:
    kernel, worker = pair
    pipes = [os.pipe() for _ in range(3)]
    kernel.send(Message(1, payload=b"x" * 100_000), later=True)
    for number, (_, write_end) in enumerate(pipes):
        kernel.send(Message(2, (number, 0, 0, 0, 0), fds=[write_end]), later=number < 2)
        kernel.send(Message(3), later=True)
    kernel.send(Message(4))
    messages: list[Message] = []
    while not messages or messages[-1].kind != 4:
        if kernel.wants_write:
            kernel.flush()
        messages.append(worker.receive())
    for message in messages:
        assert len(message.fds) == (1 if message.kind == 2 else 0)
    for message in (one for one in messages if one.kind == 2):
        os.write(message.fds[0], b"here")
        read_end, write_end = pipes[message.numbers[0]]
        assert os.read(read_end, 10) == b"here"
        for fd in (message.fds[0], read_end, write_end):
            os.close(fd)


def test_descriptor_is_the_right_one_when_its_owner_closed_it_before_it_left(pair: Pair) -> None:
    kernel, worker = pair
    read_end, write_end = os.pipe()
    kernel.send(Message(1, payload=bytes(4 << 20)))
    assert kernel.wants_write
    kernel.send(Message(2, fds=[write_end]))
    os.close(write_end)
    got: list[Message] = []
    thread = threading.Thread(target=lambda: got.extend(worker.receive() for _ in range(2)))
    thread.start()
    flush_all(kernel)
    thread.join()
    os.write(got[1].fds[0], b"here")
    assert os.read(read_end, 10) == b"here"
    os.close(got[1].fds[0])
    os.close(read_end)


@pytest.mark.parametrize("flag", ["system", "none"])
def test_descriptors_are_not_for_programs_that_are_started_later(
    pair: Pair, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flag == "none":  # as on macOS
        monkeypatch.setattr("nbpar.wire.channel._CLOSED_ON_EXEC", 0)
    kernel, worker = pair
    read_end, write_end = os.pipe()
    kernel.send(Message(2, fds=[read_end, write_end]))
    got = worker.receive().fds
    assert [os.get_inheritable(fd) for fd in got] == [False, False]
    assert not worker._socket.get_inheritable()
    for fd in (*got, read_end, write_end):
        os.close(fd)


def test_whole_messages_are_heard_when_the_other_side_died_after_them(pair: Pair) -> None:
    kernel, worker = pair
    worker.send(Message(1))
    torn = as_bytes(Message(2, payload=b"x" * 1000))
    worker._socket.send(torn[:500])
    worker.close()
    assert [one.kind for one in kernel.receive()] == [1]
    with pytest.raises(ChannelClosedError):
        kernel.receive()


def test_sending_is_silent_when_the_other_side_is_gone(pair: Pair) -> None:
    kernel, worker = pair
    kernel.send(Message(1, payload=bytes(4 << 20)))
    worker.close()
    kernel.flush()
    kernel.send(Message(1))
    assert not kernel.wants_write


def test_worker_learns_it_when_the_kernel_is_gone(pair: Pair) -> None:
    kernel, worker = pair
    assert not worker.closed_by_kernel()
    kernel.close()
    assert worker.closed_by_kernel()
    with pytest.raises(ChannelClosedError):
        worker.receive()


def test_buffers_need_not_be_bytes_when_sent(pair: Pair) -> None:
    kernel, worker = pair
    numbers = struct.pack("<4d", 1.0, 2.0, 3.0, 4.0)
    kernel.send(
        Message(1, payload=memoryview(b"abc"), buffers=[cast("Any", memoryview(numbers).cast("d")), bytearray(numbers)])
    )
    message = worker.receive()
    assert (bytes(message.payload), [bytes(one) for one in message.buffers]) == (b"abc", [numbers, numbers])


def test_received_buffers_are_writable_when_they_carry_arrays(pair: Pair) -> None:
    kernel, worker = pair
    kernel.send(Message(1, buffers=[b"abc"]))
    as_view(worker.receive().buffers[0])[0] = 0


@pytest.mark.parametrize("place", ["payload", "buffers"])
@pytest.mark.parametrize("seed", range(10))
def test_message_is_lost_alone_when_there_is_no_memory_for_it(place: str, seed: int) -> None:
    dice = random.Random(seed)
    large = bytes(300_000)
    kinds: dict[str, Any] = {"payload": {"payload": large}, "buffers": {"buffers": [b"x" * 5000, large, b"y"]}}
    lost = Message(7, (1, 2, 3, 4, 5), (0.5, 1.5, 2.5, 3.5, 4.5), b"head", **kinds[place])
    others = [random_message(dice, 100_000), random_message(dice, 100_000)]
    data = as_bytes(others[0]) + as_bytes(lost) + as_bytes(others[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_room", lambda n: channel._Nowhere(n) if n >= 200_000 else bytearray(n))
        parser, got = _Parser(), []
        at = 0
        while at < len(data):
            n_bytes = dice.randint(1, 70_000)
            got += parser.feed(data[at : at + n_bytes])
            at += n_bytes
    assert [message.lost_bytes for message in got] == [0, len(large), 0]
    assert same(got[0], others[0]) and same(got[2], others[1])
    assert (got[1].numbers, got[1].head, got[1].payload, got[1].buffers) == (lost.numbers, b"head", b"", ())
    assert str(got[1].lost("result")) == (
        "the result could not be received: there was no memory for its 300 kB (MemoryError)"
    )


def test_room_is_nowhere_when_there_is_no_memory() -> None:
    assert len(channel._room(1 << 62)) == 1 << 62
    assert channel._room(3) == bytearray(3)
