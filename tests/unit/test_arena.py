"""Recycled memory: nothing overlaps, nothing is reused while a view of it lives, everything comes back."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbpar.backends.captured import MAX_KEPT, CapturedBuffers
from nbpar.wire import arena as arena_module
from nbpar.wire import memory as memory_module
from nbpar.wire.arena import UNIT_BYTES, Arena, ArenaReader, Place
from nbpar.wire.memory import Memory, anonymous_file, same_bytes, usable_memory_bytes, write_at
from nbpar.wire.shared import segment

SIZE_BYTES = 64 * UNIT_BYTES

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux only")


def make_pair(size_bytes: int = SIZE_BYTES) -> tuple[Arena, ArenaReader]:
    """Both ends, each with a mapping of its own, as in two processes."""
    memory = Memory.create("nbpar-test", size_bytes)
    return Arena(memory), ArenaReader(Memory(os.dup(memory.fd), size_bytes))


@pytest.fixture(params=["memfd", "POSIX shared memory", "file", "only mapped"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    without(request.param, monkeypatch)
    return str(request.param)


def without(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the system with this kind of memory at best."""
    if kind != "memfd":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    if kind == "file":
        monkeypatch.setitem(sys.modules, "_posixshmem", None)
    if kind == "only mapped":  # as on macOS

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENXIO, "device not configured")

        monkeypatch.setattr(os, "pwrite", refuse)


@pytest.fixture
def pair(kind: str) -> Iterator[tuple[Arena, ArenaReader]]:
    arena, reader = make_pair()
    yield arena, reader
    reader.close()
    arena.close()


def data_of(seed: int, n_bytes: int) -> bytes:
    return random.Random(seed).randbytes(n_bytes)


def put(arena: Arena, data: bytes, owner: int = 0) -> Place:
    place = arena.place(memoryview(data), owner)
    assert place is not None
    return place


def allocated_bytes(arena: Arena) -> int:
    return os.fstat(arena.memory.fd).st_blocks * 512


# --- any sequence of calls --------------------------------------------------------------------------------------------


class Special(np.ndarray):
    pass


class ArenaMachine(RuleBasedStateMachine):
    """A sender and a receiver against what they ought to hold."""

    kind = "memfd"

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        without(self.kind, self.patch)
        self.arena, self.reader = make_pair()
        self.views: list[tuple[Place, int, memoryview, bytes]] = []  # place, owner, view, content
        self.seed = 0

    @rule(n_bytes=st.one_of(st.integers(1, 3 * UNIT_BYTES), st.integers(1, 24 * UNIT_BYTES)), owner=st.integers(0, 1))
    def place(self, n_bytes: int, owner: int) -> None:
        self.seed += 1
        data = data_of(self.seed, n_bytes)
        place = self.arena.place(memoryview(data), owner)
        if place is None:  # there may be no gap that is long enough, but never without reason
            assert self.views or n_bytes > 63 * UNIT_BYTES
            return
        self.views.append((place, owner, self.reader.open(*place), data))

    @precondition(lambda self: self.views)
    @rule(choice=st.integers(0, 1 << 20), in_cycle=st.booleans())
    def release(self, choice: int, in_cycle: bool) -> None:
        _, _, view, _ = self.views.pop(choice % len(self.views))
        if in_cycle:
            cycle: list[Any] = [view]
            cycle.append(cycle)
            del cycle, view
            gc.collect()

    @precondition(lambda self: self.views)
    @rule(choice=st.integers(0, 1 << 20))
    def write(self, choice: int) -> None:
        """A task may change its argument; nobody else's changes with it."""
        i = choice % len(self.views)
        place, owner, view, data = self.views[i]
        self.seed += 1
        data = data_of(self.seed, len(data))
        view[:] = data
        self.views[i] = place, owner, view, data

    @rule()
    def sweep(self) -> None:
        self.arena.sweep()
        assert self.arena.n_blocks == len(self.views) == self.reader.n_live

    @rule(reserve_bytes=st.integers(0, 10 * UNIT_BYTES))
    def trim(self, reserve_bytes: int) -> None:
        self.arena.trim(reserve_bytes)

    @rule(gives_back=st.booleans())
    def set_gives_back(self, gives_back: bool) -> None:
        self.reader.gives_back = gives_back

    @rule(owner=st.integers(0, 1))
    def lose(self, owner: int) -> None:
        """A receiver has died, and its views with it."""
        self.views = [one for one in self.views if one[1] != owner]
        self.arena.free_owner(owner)
        assert self.arena.n_blocks == len(self.views)

    @invariant()
    def contents_hold(self) -> None:
        assert all(view == data for _, _, view, data in self.views)

    @invariant()
    def blocks_are_apart(self) -> None:
        ends = sorted((place.unit, place.unit - (-place.n_bytes // UNIT_BYTES)) for place, *_ in self.views)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
        assert not ends or (ends[0][0] >= 1 and ends[-1][1] <= 64)

    def teardown(self) -> None:
        self.views.clear()
        self.arena.sweep()
        assert self.arena.n_blocks == 0
        whole = self.arena.place(memoryview(bytes(63 * UNIT_BYTES)))  # all but the states
        assert whole == Place(1, 63 * UNIT_BYTES)
        self.reader.close()
        self.arena.close()
        assert not arena_module._readers.keys() & {self.reader._key}
        self.patch.undo()


class SharedMemoryMachine(ArenaMachine):
    kind = "POSIX shared memory"


class OnlyMappedMachine(ArenaMachine):
    kind = "only mapped"


TestMemfd = ArenaMachine.TestCase
TestSharedMemory = SharedMemoryMachine.TestCase
TestOnlyMapped = OnlyMappedMachine.TestCase
for case in (TestMemfd, TestSharedMemory, TestOnlyMapped):
    case.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


# --- views ------------------------------------------------------------------------------------------------------------


def through(arena: Arena, reader: ArenaReader, obj: Any) -> Any:
    """An object whose buffers went through the arena."""
    buffers: list[memoryview] = []
    payload = pickle.dumps(obj, 5, buffer_callback=lambda one: buffers.append(one.raw()))
    places = [put(arena, buffer) for buffer in buffers]  # type: ignore[arg-type]
    return pickle.loads(payload, buffers=[reader.open(*place) for place in places])


@pytest.mark.parametrize(
    "view_of",
    [
        lambda a: a,
        lambda a: a[3:7],
        lambda a: a.reshape(-1, 10).T[2:4],
        lambda a: a.view(np.uint8)[::2],
        lambda a: np.asarray(memoryview(a)[5:]),
        lambda a: np.frombuffer(memoryview(a), np.int64),
        lambda a: [a[i : i + 1] for i in range(5)],
        lambda a: a[::-1].view(Special),
    ],
)
def test_block_is_kept_when_any_view_of_the_array_lives(
    pair: tuple[Arena, ArenaReader], view_of: Callable[[Any], Any]
) -> None:
    arena, reader = pair
    original = np.arange(50_000)
    view = view_of(through(arena, reader, original))
    for value in range(40):
        through(arena, reader, np.full(50_000, value))
    assert pickle.dumps(view) == pickle.dumps(view_of(original))
    arena.sweep()
    assert arena.n_blocks == 1
    del view
    arena.sweep()
    assert arena.n_blocks == 0


def test_block_is_kept_when_a_finalizer_of_the_same_cycle_still_reads_it(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    kept = []

    class Holder:
        def __init__(self, view: memoryview) -> None:
            self.me, self.view = self, view

        def __del__(self) -> None:
            kept.append(self.view)

    Holder(reader.open(*put(arena, b"abc" * 100_000)))
    gc.collect()
    assert len(kept) == 1
    for i in range(20):
        reader.open(*put(arena, bytes([i]) * 300_000))
    assert kept[0] == b"abc" * 100_000
    kept.clear()
    arena.sweep()
    assert arena.n_blocks == 0


def test_readonly_stays_readonly_and_the_rest_is_writable(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    fixed = np.arange(1000)
    fixed.flags.writeable = False
    assert not through(arena, reader, fixed).flags.writeable
    got = through(arena, reader, np.arange(1000))
    got[0] = 5
    assert got[0] == 5


def test_views_hold_when_both_ends_are_gone(kind: str) -> None:
    arena, reader = make_pair()
    kept = through(arena, reader, np.arange(50_000))
    pinned = through(arena, reader, np.arange(70_000))
    reader.pin()
    other = through(arena, reader, np.arange(30_000))
    reader.close()
    arena.memory.close()
    del arena, reader
    gc.collect()
    assert (kept == np.arange(50_000)).all()
    assert (pinned == np.arange(70_000)).all()
    assert (other == np.arange(30_000)).all()


def test_lowest_address_is_taken_first(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    first = reader.open(*put(arena, bytes(3 * UNIT_BYTES)))
    second = reader.open(*put(arena, bytes(2 * UNIT_BYTES)))
    assert put(arena, b"x").unit == 6
    del first
    assert put(arena, b"x").unit == 1
    assert put(arena, bytes(4 * UNIT_BYTES)).unit == 7
    assert put(arena, bytes(2 * UNIT_BYTES)).unit == 2
    assert second == bytes(2 * UNIT_BYTES)


# --- when there is no room --------------------------------------------------------------------------------------------


def test_place_says_none_when_there_is_no_room_and_places_again_when_there_is(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    assert arena.place(memoryview(bytes(64 * UNIT_BYTES))) is None
    views = [reader.open(*put(arena, bytes(UNIT_BYTES))) for _ in range(63)]
    assert arena.place(memoryview(b"x")) is None
    views.clear()
    for _ in range(4):  # it looks at 16 blocks each time
        arena.place(memoryview(b"x"))
    assert arena.n_blocks <= 4


def test_place_says_none_when_the_system_has_no_pages(
    pair: tuple[Arena, ArenaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, reader = pair
    warm = put(arena, b"abc")
    reader.open(*warm)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        arena.memory._can_write = True
        assert arena.place(memoryview(bytes(3 * UNIT_BYTES))) is None
        assert put(arena, b"xyz") == warm, "pages that are there can be used"
    assert reader.open(*put(arena, bytes(3 * UNIT_BYTES))) == bytes(3 * UNIT_BYTES)


def test_memory_is_refused_with_an_error_when_there_is_too_much_asked_of_it(kind: str) -> None:
    def n_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0

    before = n_descriptors()
    with pytest.raises(OSError, match=r"."):
        Memory.create("nbpar-test", 1 << 62)
    assert n_descriptors() == before


# --- memory goes back -------------------------------------------------------------------------------------------------


@on_linux
def test_trim_returns_free_pages_except_a_reserve(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    kept = reader.open(*put(arena, data_of(1, 5 * UNIT_BYTES)))
    for _ in range(2):
        views = [reader.open(*put(arena, data_of(2, 10 * UNIT_BYTES))) for _ in range(4)]
        assert allocated_bytes(arena) >= 45 * UNIT_BYTES
        views.clear()
        assert arena.trim(8 * UNIT_BYTES) == 32 * UNIT_BYTES
        assert allocated_bytes(arena) <= 15 * UNIT_BYTES
    assert arena.trim(0) == 8 * UNIT_BYTES
    assert kept == data_of(1, 5 * UNIT_BYTES)


@on_linux
def test_released_blocks_go_back_at_once_when_the_reader_is_told(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    view = reader.open(*put(arena, bytes(20 * UNIT_BYTES)))
    before = allocated_bytes(arena)
    reader.gives_back = True
    del view
    assert allocated_bytes(arena) <= before - 20 * UNIT_BYTES
    again = reader.open(*put(arena, data_of(3, 20 * UNIT_BYTES)))
    assert again == data_of(3, 20 * UNIT_BYTES)


@on_linux
def test_all_but_what_is_viewed_goes_back_when_the_sender_has_ended(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    views = [reader.open(*put(arena, data_of(i, 10 * UNIT_BYTES))) for i in range(5)]
    del views[3], views[1]
    reader.close()
    assert allocated_bytes(arena) <= 32 * UNIT_BYTES
    assert views == [data_of(i, 10 * UNIT_BYTES) for i in (0, 2, 4)]
    views.pop()
    assert allocated_bytes(arena) <= 22 * UNIT_BYTES
    views.clear()
    assert allocated_bytes(arena) <= 2 * UNIT_BYTES


# --- forks ------------------------------------------------------------------------------------------------------------


def fork(child: Callable[[], bool]) -> Callable[[], bool]:
    """Run something in a forked child; waits for it and tells whether it was true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that pytest's plugins may have started
        pid = os.fork()
    if not pid:
        try:
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    return lambda: os.waitpid(pid, 0)[1] == 0


def test_forked_child_releases_nothing(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    views = [reader.open(*put(arena, b"abc"))]

    def child() -> bool:
        views.clear()
        gc.collect()
        return True

    assert fork(child)()
    arena.sweep()
    assert arena.n_blocks == 1
    assert bytes(views[0]) == b"abc"


def test_block_is_never_reused_when_a_forked_child_may_see_it(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    data = data_of(1, 3 * UNIT_BYTES)
    views = [reader.open(*put(arena, data))]
    ask, go = os.pipe()

    def child() -> bool:
        os.read(ask, 1)
        return bool(views[0] == data)

    succeeded = fork(child)
    views.clear()
    for i in range(20):
        reader.open(*put(arena, data_of(i, 3 * UNIT_BYTES)))
    arena.free_owner(0)
    os.write(go, b"x")
    os.close(go)
    assert succeeded()
    os.close(ask)
    arena.sweep()
    assert arena.n_blocks == 1
    reader.open(*put(arena, b"x"))
    arena.sweep()
    assert arena.n_blocks == 1, "what is opened after the fork is released as ever"


def test_what_a_forked_child_and_its_parent_write_is_their_own(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    views = [reader.open(*put(arena, bytes([i]) * 100_000)) for i in range(5)]
    del views[2]
    to_child, go_child = os.pipe()
    to_parent, go_parent = os.pipe()

    def child() -> bool:
        views[0][:] = b"c" * 100_000
        os.write(go_parent, b"x")
        os.read(to_child, 1)
        return views[0] == b"c" * 100_000 and views[1] == bytes([1]) * 100_000 and views[3] == bytes([4]) * 100_000

    succeeded = fork(child)
    os.read(to_parent, 1)
    assert views[0] == bytes([0]) * 100_000
    views[1][:] = b"p" * 100_000
    new = reader.open(*put(arena, b"n" * 300_000))
    os.write(go_child, b"x")
    assert succeeded()
    assert views[1] == b"p" * 100_000
    assert new == b"n" * 300_000
    for fd in (to_child, go_child, to_parent, go_parent):
        os.close(fd)


def test_memory_goes_when_a_fork_has_pinned_all_that_its_dead_sender_left(kind: str) -> None:
    arena, reader = make_pair()
    held = through(arena, reader, np.arange(70_000))
    fd = reader._memory.fd
    reader.close()
    os.fstat(fd)
    assert fork(lambda: bool((held == np.arange(70_000)).all()))()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert reader not in arena_module._readers.values()
    assert (held == np.arange(70_000)).all()
    arena.memory.close()


def test_subprocess_pins_nothing(pair: tuple[Arena, ArenaReader]) -> None:
    arena, reader = pair
    view = reader.open(*put(arena, b"abc"))
    subprocess.run([sys.executable, "-c", ""], check=True)
    del view
    arena.sweep()
    assert arena.n_blocks == 0


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_has_no_name(kind: str) -> None:
    fd = anonymous_file("nbpar-test", 1 << 20)
    try:
        assert os.fstat(fd).st_nlink == 0
        assert os.fstat(fd).st_size == 1 << 20
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_everything_is_written_when_a_call_writes_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory.create("nbpar-test", 1 << 20)
    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, memoryview(data)[:7], at))
        write_at(memory.fd, 10, b"x" * 100)
        memory.fill_in(200, memoryview(b"y" * 100), 50)
    assert memory.map[:350] == bytes(10) + b"x" * 100 + bytes(90) + b"y" * 100 + bytes(50)
    memory.close()


def test_write_at_writes_where_memory_can_only_be_mapped(kind: str) -> None:
    fd = anonymous_file("nbpar-test", 1 << 20)
    try:
        write_at(fd, 10, b"x" * 100)
        assert os.pread(fd, 200, 0) == bytes(10) + b"x" * 100 + bytes(90)
    finally:
        os.close(fd)


def test_usable_memory_is_the_machines_or_less() -> None:
    import psutil

    assert 1 << 20 < usable_memory_bytes() <= psutil.virtual_memory().total


def test_usable_memory_is_the_containers_limit_when_it_has_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    none = tmp_path / "outer"
    limit.write_text("123456789\n")
    none.write_text("max\n")
    monkeypatch.setattr(memory_module, "_limit_files", lambda: iter([none, tmp_path / "missing", limit]))
    assert usable_memory_bytes() == 123456789


def test_same_bytes_sees_any_difference() -> None:
    a = bytearray(data_of(1, 100_000))
    fixed = memoryview(bytes(a))
    assert same_bytes(memoryview(a), fixed)
    for at in (0, 50_000, 99_999):
        a[at] ^= 1
        assert not same_bytes(memoryview(a), fixed)
        a[at] ^= 1
    assert same_bytes(memoryview(b""), memoryview(b""))


# --- the buffers of functions -----------------------------------------------------------------------------------------


def buffers_of(*arrays: Any) -> list[memoryview]:
    return [memoryview(array).cast("B") for array in arrays]


def test_captured_buffers_are_written_again_only_when_they_changed() -> None:
    captured = CapturedBuffers()
    a, b = np.arange(50_000), np.arange(20_000.0)
    first = captured.put("f", buffers_of(a, b))
    assert first is not None
    assert captured.put("f", buffers_of(a.copy(), b)) is first
    b[-1] = 5
    second = captured.put("f", buffers_of(a, b))
    assert second is not None and second is not first
    assert second.holds(buffers_of(a, b)) and not first.holds(buffers_of(a, b))
    assert captured.put("f", buffers_of(a)) not in (first, second)
    captured.clear()


def test_captured_buffers_are_kept_for_a_few_functions_and_end_with_their_last_user() -> None:
    captured = CapturedBuffers()
    puts = [captured.put(f"f{i}", buffers_of(np.full(10_000, i))) for i in range(MAX_KEPT + 1)]
    ids = [one.shared_id for one in puts if one is not None]
    assert len(ids) == MAX_KEPT + 1
    del puts
    assert [segment(one) is not None for one in ids] == [False] + [True] * MAX_KEPT
    captured._limit_bytes = 200_000
    last = captured.put("large", buffers_of(np.zeros(100_000)))
    assert [segment(one) for one in ids] == [None] * (MAX_KEPT + 1)
    assert last is not None and segment(last.shared_id) is not None, "the job that needs it has it"
    large_id = last.shared_id
    del last
    assert segment(large_id) is None


def test_captured_buffers_are_sent_otherwise_when_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert CapturedBuffers().put("f", buffers_of(np.arange(10_000))) is None
