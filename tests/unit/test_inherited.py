"""Objects of multiprocessing that processes have in common, through the codec and back in one process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import sys
from typing import Any

import pytest

from nbpar.wire.codec import CannotPickle, Codec
from nbpar.wire.inherited import PassedDescriptor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="handles are passed in other ways there")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked up in /proc")

SPAWN = multiprocessing.get_context("spawn")


def through(obj: Any) -> Any:
    codec = Codec()
    encoded = codec.encode([obj])
    return codec.decode(encoded.payload, encoded.buffers)[0]


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_a_lock_is_the_same_one_on_the_other_side(kind: str) -> None:
    lock = getattr(SPAWN, kind)()
    other = through(lock)
    with lock:
        assert not other.acquire(block=False)
    assert other.acquire(block=False)
    other.release()


def test_an_event_is_the_same_one_on_the_other_side() -> None:
    event = SPAWN.Event()
    other = through(event)
    event.set()
    assert other.is_set()


@on_linux
@pytest.mark.parametrize("kind", ["Value", "RawValue"])
def test_a_value_is_the_same_one_on_the_other_side(kind: str) -> None:
    value = getattr(SPAWN, kind)("i", 3)
    other = through(value)
    other.value = 4
    assert value.value == 4


@on_linux
def test_an_array_is_the_same_one_on_the_other_side() -> None:
    array = SPAWN.Array("d", [1.0, 2.0])
    through(array)[1] = 5.0
    assert array[:] == [1.0, 5.0]


def test_an_ordinary_ctypes_object_is_copied_as_ever() -> None:
    SPAWN.RawValue("i", 3)  # from here on multiprocessing has a reducer for the type
    number = ctypes.c_int(7)
    other = through(number)
    other.value = 8
    assert number.value == 7


@on_linux
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_queue_is_the_same_one_on_the_other_side(kind: str) -> None:
    queue = getattr(SPAWN, kind)()
    through(queue).put("here")
    assert queue.get() == "here"
    queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


@on_linux
def test_both_ends_of_a_pipe_travel() -> None:
    reader, writer = SPAWN.Pipe(duplex=False)
    with reader, writer, through(reader) as other_reader, through(writer) as other_writer:
        other_writer.send(1)
        assert reader.recv() == 1
        writer.send(2)
        assert other_reader.recv() == 2


@on_linux
def test_a_pipe_that_was_closed_meanwhile_is_not_mistaken_for_another_file() -> None:
    read_fd, write_fd = os.pipe()
    passed = pickle.loads(pickle.dumps(PassedDescriptor(read_fd)))
    os.close(read_fd)
    with pytest.raises(FileNotFoundError):
        passed.detach()
    taken = os.open(os.devnull, os.O_RDONLY)  # under the number that has just got free
    try:
        assert taken == read_fd
        with pytest.raises(OSError, match="closed before a task could open it"):
            passed.detach()
    finally:
        os.close(taken)
        os.close(write_fd)


@on_linux
def test_a_two_way_pipe_is_refused_with_what_to_use_instead() -> None:
    one, other = SPAWN.Pipe()
    with one, other, pytest.raises(CannotPickle, match=r"use Pipe\(duplex=False\)"):
        through(one)


@pytest.mark.parametrize("kind", ["Lock", "Queue", "Event"])
def test_what_was_made_to_be_forked_is_refused_with_what_to_make_instead(kind: str) -> None:
    made = getattr(multiprocessing.get_context("fork"), kind)()
    with pytest.raises(CannotPickle, match=r"get_context\('spawn'\)"):
        through(made)


def test_pickling_for_workers_leaves_other_pickling_as_it_was() -> None:
    lock = SPAWN.Lock()
    through(lock)
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(lock)


def test_proxies_of_a_manager_travel_with_the_key_that_opens_it() -> None:
    with multiprocessing.Manager() as manager:
        listed, nested = manager.list([1]), manager.list([manager.dict(a=1)])
        key = multiprocessing.current_process().authkey
        multiprocessing.current_process().authkey = b"another process has another"
        try:
            payload = Codec().encode([listed, nested]).payload
        finally:
            multiprocessing.current_process().authkey = key
        try:
            others = Codec().decode(payload)  # what makes them has the sender's key from now on
            assert multiprocessing.current_process().authkey == b"another process has another"
        finally:
            multiprocessing.current_process().authkey = key
        others[0].append(2)
        assert list(listed) == [1, 2]
        assert dict(others[1][0]) == {"a": 1}


def test_a_proxy_that_a_worker_returns_changes_no_key_of_the_kernel() -> None:
    with multiprocessing.Manager() as manager:
        listed = manager.list([1])
        key = multiprocessing.current_process().authkey
        multiprocessing.current_process().authkey = b"a worker's"
        try:
            payload = Codec(in_worker=True).encode([listed]).payload
        finally:
            multiprocessing.current_process().authkey = key
        assert list(Codec().decode(payload)[0]) == [1]
        assert multiprocessing.current_process().authkey == key
