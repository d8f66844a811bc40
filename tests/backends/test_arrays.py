"""How arrays and other large data travel through real worker processes: what is sent is what arrives, and stays so."""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import nbpar
from nbpar.errors import SerializationError, TaskError, WorkerDiedError
from tests.backends.arrays import (
    EDGES,
    FRAMES,
    KINDS,
    MB,
    TABLES,
    VIEWS,
    Packet,
    Plain,
    Recipe,
    build,
    change_own,
    check_kept,
    describe,
    examples,
    filled,
    frame,
    keep,
    own,
    recipes,
    same_frame,
    same_table,
    table,
    tree_memory_bytes,
)
from tests.backends.conftest import PROCESSES, MakePool, only
from tests.helpers import no_leftovers, run_script, until

Pool = nbpar.WorkerPool
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def warm(pools: dict[str, Pool]) -> Pool:
    """The warm pool of the default method, for many examples."""
    if "forkserver" not in pools:
        pools["forkserver"] = Pool(n_workers=2, start_method="forkserver")
    return pools["forkserver"]


def is_filled(got: Array, value: int, n_bytes: int) -> bool:
    return got.dtype == np.uint8 and got.shape == (n_bytes,) and bool((got == value % 251).all())


# --- what is sent is what arrives -------------------------------------------------------------------------------------


def test_arrays_are_the_same_on_every_backend(pool: Pool) -> None:
    def there_and_back(recipe: Recipe, sent: Array) -> tuple[bool, Array, Array]:
        return describe(sent) == describe(build(recipe)), build(recipe), sent

    some = [Recipe("f8", n_bytes, 2, order, seed=3) for n_bytes in (0, 800, 65_536, 3 * MB) for order in "CF"]
    items = [(recipe, build(recipe)) for recipe in some]
    got = pool.starmap(there_and_back, items)
    got += [pool.submit(there_and_back, recipe, sent=build(recipe)).result() for recipe in some]
    for recipe, (same, made, returned) in zip([*some, *some], got, strict=True):
        assert same
        assert describe(made) == describe(returned) == describe(build(recipe))


def send_array(recipe: Recipe, sent: Array) -> tuple[bool, bool, bool, Array, Array]:
    expected = build(recipe)
    return describe(sent) == describe(expected), is_laid_out_as(sent, expected), sent.flags.writeable, expected, sent


def is_laid_out_as(got: Array, expected: Array) -> bool:
    """Whether the order in memory is kept; what an array with gaps looks like without them is up to the transport."""
    if not expected.flags.forc:
        return got.flags.aligned
    return all(got.flags[name] == expected.flags[name] for name in ("C_CONTIGUOUS", "F_CONTIGUOUS", "ALIGNED"))


@examples(60)
@given(st.lists(recipes(["ndarray"]), min_size=1, max_size=4), st.sampled_from([None, 1, 4]))
def test_arrays_are_the_same_when_sent_made_and_returned(
    warm: Pool, some: list[Recipe], chunk_size: int | None
) -> None:
    originals = [build(recipe) for recipe in some]
    got = warm.starmap(send_array, list(zip(some, originals, strict=True)), chunk_size=chunk_size)
    for recipe, original, (same, laid_out, writable, made, returned) in zip(some, originals, got, strict=True):
        assert same and laid_out, "it has not arrived as it was"
        for one in (made, returned):
            assert describe(one) == describe(original)
            assert is_laid_out_as(one, original)
        assert describe(build(recipe)) == describe(original), "the kernel's own has changed"
        assert writable or not original.flags.writeable
        assert made.flags.writeable or recipe.readonly
        assert returned.flags.writeable or recipe.readonly


LAYOUTS = [
    Recipe(dtype, 70_000, n_dims, order, view, kind, seed=2)
    for dtype in ("f8", "M8[D]", "U3", [("t", "M8[s]"), ("x", "f4")])
    for n_dims in (2, 3)
    for order in "CF"
    for view in VIEWS
    for kind in KINDS
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_the_same_when_sent_made_and_returned(warm: Pool, kind: str) -> None:
    some = [recipe for recipe in LAYOUTS if recipe.kind == kind]
    got = warm.starmap(send_array, [(recipe, build(recipe)) for recipe in some])
    wrong = []
    for recipe, (same, _, writable, made, returned) in zip(some, got, strict=True):
        as_it_was = describe(made) == describe(returned) == describe(build(recipe))
        if not (same and writable and as_it_was and returned.flags.writeable):
            wrong.append(recipe)
    assert wrong == []


@examples(40)
@given(recipes(KINDS[1:]))
def test_subclasses_of_arrays_are_the_same_when_sent_made_and_returned(warm: Pool, recipe: Recipe) -> None:
    original = build(recipe)
    ((same, _, _, made, returned),) = warm.starmap(send_array, [(recipe, original)])
    assert same, "it has not arrived as it was"
    assert describe(made) == describe(original)
    assert describe(returned) == describe(original)


def test_subclass_travels_when_its_axes_do_not_lie_in_order(warm: Pool) -> None:
    whole = np.arange(270_000.0).reshape(30, 30, 300)
    turned = whole.transpose(1, 0, 2).view(Plain)
    stretched = np.broadcast_to(whole[:, :1], whole.shape).view(Plain)
    for sent in (turned, stretched, turned[:, ::2], turned[:, :, ::-1], whole[:, :, :, None].T.view(Plain)):
        (got,) = warm.map(lambda one: one, [sent])
        assert type(got) is Plain
        np.testing.assert_array_equal(got, sent)


def test_flags_are_kept_when_arrays_are_readonly_or_in_fortran_order(warm: Pool) -> None:
    for n_bytes in (800, 65_536, MB):
        for order in "CF":
            for readonly in (False, True):
                sent = build(Recipe("f8", n_bytes, 2, order, readonly=readonly, seed=1))
                flags = sent.flags.c_contiguous, sent.flags.f_contiguous, sent.flags.writeable, True
                for of_task, got in (
                    warm.submit(lambda a: (tuple(a.flags[f] for f in "CFWA"), a), sent).result(),
                    warm.submit(lambda a: (tuple(a.flags[f] for f in "CFWA"), a.copy(order="A")), sent).result(),
                ):
                    assert of_task == flags
                    assert tuple(got.flags[f] for f in "CFA") == (*flags[:2], True)


scalars = st.none() | st.integers() | st.text(max_size=5) | st.sampled_from([1.5, b"xy", True, range(3)])
parts = st.integers(0, 3).map(lambda place: ("part", place))
containers = st.recursive(
    scalars | parts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


def fill(container: Any, chosen: list[Any]) -> Any:
    """Put objects into their places: the same one where a place is named twice."""
    match container:
        case ("part", int(place)):
            return chosen[place]
        case list():
            return [fill(one, chosen) for one in container]
        case tuple():
            return tuple(fill(one, chosen) for one in container)
        case dict():
            return {key: fill(one, chosen) for key, one in container.items()}
    return container


blobs = st.builds(
    lambda kind, n_bytes, seed: kind(bytes([seed, 7, 255]) * (n_bytes // 3 + 1))[:n_bytes],
    st.sampled_from([bytes, bytearray, partial(array.array, "B")]),
    st.sampled_from(EDGES),
    st.integers(0, 255),
)


@examples(50)
@given(containers, st.lists(recipes().map(build) | blobs | blobs.map(Packet), min_size=4, max_size=4), st.booleans())
def test_parts_are_the_same_and_the_same_again_when_in_containers(
    warm: Pool, container: Any, chosen: list[Any], twice: bool
) -> None:
    sent = fill([container, ("part", 0), {"again": ("part", 0)}], chosen)
    expected = describe(sent)
    got = warm.map(lambda one: (describe(one), one), [sent, sent] if twice else [sent])
    for of_task, returned in got:
        assert of_task == expected
        assert describe(returned) == expected
        assert returned[1] is returned[2]["again"]
    assert describe(sent) == expected


def as_array(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


@examples(25)
@given(st.sampled_from(EDGES), st.sampled_from([bytes, bytearray, partial(array.array, "B"), as_array]))
def test_buffers_are_bytes_when_a_class_sends_them_by_itself(
    warm: Pool, n_bytes: int, kind: Callable[..., Any]
) -> None:
    data = (bytes(range(256)) * (n_bytes // 256 + 1))[:n_bytes]
    packet = Packet(kind(data))

    def look(packet: Packet) -> tuple[Any, Packet]:
        view = memoryview(packet.data)
        if not view.readonly and n_bytes:
            view[-1] = 9
        return (view.format, view.ndim, view.nbytes, view.readonly), packet

    about, got = warm.submit(look, packet).result()
    readonly = memoryview(packet.data).readonly
    assert about == ("B", 1, n_bytes, readonly)
    assert bytes(got.data) == (data if readonly else data[:-1] + b"\t"[: len(data)])
    assert bytes(packet.data) == data
    assert list(memoryview(got.data)[:2]) == list(bytes(got.data)[:2]), "it has no usable format"


@only("forkserver")
@pytest.mark.parametrize("n", [0, 3, 100_000])
@pytest.mark.parametrize("serializer", ["auto", "dill"])
def test_memoryview_is_the_same_when_it_has_travelled(make_pool: MakePool, n: int, serializer: Any) -> None:
    pool = make_pool(n_workers=1, serializer=serializer)
    square = np.arange(4 * n, dtype=float).reshape(4, n)
    frozen = square.copy()
    frozen.flags.writeable = False
    objects: list[Any] = [b"x" * n, bytearray(n), array.array("i", range(n)), square, square.T, frozen, frozen.T]
    objects += [square[:, ::2], square[0, ::3], square + 1j, np.zeros(n, ">i4"), np.zeros(n, [("a", "i4")])]
    objects += [np.array(2.5), np.full(n, "text", object)]
    sent = [*(memoryview(one) for one in objects), memoryview(bytes(n))[::-2]]

    def about(one: Any) -> tuple[Any, ...]:
        content = np.asarray(one).tolist() if one.format == "O" else one.tobytes()
        return type(one).__name__, one.format, one.shape, one.readonly, content

    expected = [about(one) for one in sent]
    got: Any = pool.map(lambda one: (about(one), one), sent)
    assert [one for one, _ in got] == expected
    assert [about(one) for _, one in got] == expected
    assert all(one.c_contiguous for _, one in got)
    if n:
        view = got[3][1]
        view[0, 1] = -1.0
        assert (view[0, 1], view[3, n - 1], square[0, 1]) == (-1, 4 * n - 1, 1)


@only("forkserver")
def test_error_names_the_format_when_a_memoryview_cannot_travel(pool: Pool) -> None:
    pointers = (ctypes.c_char_p * 3)(b"a", b"b", b"c")
    with pytest.raises(SerializationError, match=r"format '<z'.*send the object"):
        pool.map(len, [memoryview(pointers)])
    numbers = (ctypes.c_int * 3)(1, 2, 3)
    assert pool.map(lambda one: (one.format, one.tolist()), [memoryview(numbers).cast("B").cast("i")]) == [
        ("i", [1, 2, 3])
    ]


@examples(30)
@given(st.sampled_from(FRAMES), st.sampled_from([0, 1, 7, 500, 20_000]))
def test_frames_are_the_same_when_sent_made_and_returned(warm: Pool, kind: str, n_rows: int) -> None:
    sent = frame(kind, n_rows)
    same, made, returned = warm.submit(
        lambda one: (same_frame(one, kind, n_rows), frame(kind, n_rows), one), sent
    ).result()
    assert same
    assert same_frame(made, kind, n_rows)
    assert same_frame(returned, kind, n_rows)
    assert same_frame(sent, kind, n_rows)


def test_frames_can_be_written_to_when_they_have_travelled(warm: Pool) -> None:
    def write(one: Any) -> Any:
        one.iloc[0, 0] = -5
        one["b"] *= 2
        one.loc[1:3, "c"] = 0
        return one

    sent = frame("numbers", 20_000)
    got = warm.map(write, [sent, sent.copy()])
    assert same_frame(sent, "numbers", 20_000)
    for one in got:
        pd.testing.assert_frame_equal(one, write(frame("numbers", 20_000)))
        write(one)
    pd.testing.assert_frame_equal(got[0], got[1])


@examples(30)
@given(st.sampled_from(TABLES), st.sampled_from([0, 1, 7, 500, 20_000]))
def test_tables_are_the_same_when_sent_made_and_returned(warm: Pool, kind: str, n_rows: int) -> None:
    pytest.importorskip("pyarrow")
    sent = table(kind, n_rows)
    same, made, returned = warm.submit(
        lambda one: (same_table(one, kind, n_rows), table(kind, n_rows), one), sent
    ).result()
    assert same
    assert same_table(made, kind, n_rows)
    assert same_table(returned, kind, n_rows)


def test_content_is_the_same_when_an_array_is_mapped_from_a_file(warm: Pool, tmp_path: Path) -> None:
    on_disk = np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(300, 400))
    on_disk[:] = np.arange(120_000).reshape(300, 400)

    def double(rows: Array) -> Array:
        rows *= 2
        return rows

    got = warm.map(double, [on_disk[:150], on_disk[150:]])
    np.testing.assert_array_equal(np.concatenate(got), 2.0 * np.arange(120_000).reshape(300, 400))
    assert on_disk[0, 1] == 1


@examples(25)
@given(st.integers(0, 40), st.integers(0, 70_000), st.sampled_from(["C", "F", "step", "reversed"]), st.integers(1, 9))
def test_rows_are_the_same_when_an_array_is_the_input(
    warm: Pool, n_rows: int, row_bytes: int, layout: str, chunk_size: int
) -> None:
    whole = np.resize(np.arange(251, dtype=np.uint8), (n_rows, row_bytes))
    rows = {"C": whole, "F": np.asfortranarray(whole), "step": whole[:, ::2], "reversed": whole[::-1, ::-1]}[layout]
    got = warm.map(lambda row: (row.copy(), row), rows, chunk_size=chunk_size)
    assert len(got) == n_rows
    for row, (copied, returned) in zip(rows, got, strict=True):
        np.testing.assert_array_equal(copied, row)
        np.testing.assert_array_equal(returned, row)


def test_arrays_are_the_same_when_dill_is_the_serializer() -> None:
    with Pool(n_workers=1, serializer="dill") as pool:
        for recipe in (Recipe("f8", 2 * MB, 2, "F"), Recipe("M8[ns]", 70_000), Recipe("i4", MB, view="step", n_dims=1)):
            sent = build(recipe)
            ((same, laid_out, writable, made, returned),) = pool.starmap(send_array, [(recipe, sent)])
            assert same and laid_out and writable
            assert describe(made) == describe(returned) == describe(sent)


def test_content_is_the_same_when_one_item_has_a_thousand_arrays(warm: Pool) -> None:
    sent = [filled((value, 65_536 + value)) for value in range(1100)]
    got = warm.submit(lambda all_of_them: [one + 1 for one in all_of_them], sent).result()
    assert all(is_filled(one, value % 251 + 1, 65_536 + value) for value, one in enumerate(got) if value % 251 != 250)


def test_content_is_the_same_when_one_array_is_huge(warm: Pool) -> None:
    sent = np.zeros(300 * MB // 8)
    sent[:: 1 << 14] = np.arange(len(sent[:: 1 << 14]))

    def mirror(huge: Array) -> Array:
        return huge[::-1]

    got = warm.submit(mirror, sent).result()
    assert np.array_equal(got, sent[::-1])
    got[-1] = 5
    assert sent[0] == 0


def test_content_is_the_same_when_threads_share_the_workers(warm: Pool) -> None:
    wrong: list[int] = []

    def use(base: int) -> None:
        held = []
        for i in range(12):
            value, n_bytes = base + i, 60_000 + 40_000 * (i % 5)
            got = warm.map(lambda a: (a, a + 1), [filled((value, n_bytes))] * 3)
            held += [(one, value, n_bytes) for one, _ in got] + [(one, value + 1, n_bytes) for _, one in got]
        wrong.extend(value for one, value, n_bytes in held if not is_filled(one, value, n_bytes))

    threads = [threading.Thread(target=use, args=(base,)) for base in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- anything may happen in between -----------------------------------------------------------------------------------


class Traffic(RuleBasedStateMachine):
    """Arrays come and go, are kept, changed and dropped on both sides, and workers die: what is held stays right."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.held: list[tuple[Array, Array]] = []  # what came, and what it must be equal to
        self.serial = 0

    def fresh(self, n: int, n_bytes: int) -> list[tuple[int, int]]:
        self.serial += n
        return [(value, n_bytes) for value in range(self.serial - n, self.serial)]

    def hold(self, came: list[Array], expected: list[Array]) -> None:
        assert len(came) == len(expected)
        self.held += zip(came, expected, strict=True)
        del self.held[:-30]

    sizes = st.sampled_from([100, 65_536, 65_600, 200_000, 300_000])

    @rule(n=st.integers(1, 8), n_bytes=sizes)
    def results_are_made(self, n: int, n_bytes: int) -> None:
        items = self.fresh(n, n_bytes)
        self.hold(self.pool.map(filled, items), [filled(item) for item in items])

    @rule(n=st.integers(1, 8), n_bytes=sizes)
    def arguments_come_back(self, n: int, n_bytes: int) -> None:
        sent = [filled(item) for item in self.fresh(n, n_bytes)]
        self.hold(self.pool.map(lambda one: one, sent), [one.copy() for one in sent])
        for one in sent:
            one[:] = 255  # the kernel's own again

    @rule(n=st.integers(1, 6), n_bytes=sizes)
    def arguments_are_kept_and_changed_by_workers(self, n: int, n_bytes: int) -> None:
        def task(one: Array) -> Array:
            check_kept()
            keep(one[::3])
            result = one[1:-1].copy()
            result += 1
            return result

        sent = [filled(item) for item in self.fresh(n, n_bytes)]
        self.hold(self.pool.map(task, sent, chunk_size=1), [one[1:-1] + 1 for one in sent])

    @rule(n_bytes=sizes)
    def worker_returns_what_it_keeps_and_changes_it(self, n_bytes: int) -> None:
        (item,) = self.fresh(1, n_bytes)
        self.hold([self.pool.submit(own, filled(item)).result()], [filled(item)])
        self.pool.map(change_own, range(2), chunk_size=1)

    @precondition(lambda self: self.held)
    @rule()
    def results_go_back_as_arguments(self) -> None:
        came = [one for one, _ in self.held[-6:]]
        self.hold(self.pool.map(lambda one: one - 1, came), [expected - 1 for _, expected in self.held[-6:]])

    @precondition(lambda self: self.held)
    @rule(start=st.integers(0, 20), step=st.integers(2, 5))
    def some_are_dropped(self, start: int, step: int) -> None:
        del self.held[start::step]

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 29))
    def only_a_view_is_held(self, place: int) -> None:
        one, expected = self.held[place % len(self.held)]
        self.held[place % len(self.held)] = one[5:90:2], expected[5:90:2].copy()

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 29))
    def one_is_changed_in_the_kernel(self, place: int) -> None:
        one, expected = self.held[place % len(self.held)]
        one += 3
        expected += 3

    @rule()
    def a_worker_dies(self) -> None:
        for pid in list(self.pool.pids().values())[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @rule()
    def workers_are_restarted(self) -> None:
        self.pool.restart()

    @rule(n_done=st.integers(0, 4))
    def a_job_is_cancelled_midway(self, n_done: int) -> None:
        job = self.pool.map_async(filled, self.fresh(20, 200_000), chunk_size=1)
        until(lambda: job.n_done >= n_done)
        job.cancel()
        job.wait()
        first = self.serial - 20
        for index, one in job.results_by_index.items():
            self.hold([one], [filled((first + index, 200_000))])

    @invariant()
    def what_is_held_is_right(self) -> None:
        for one, expected in self.held:
            assert np.array_equal(one, expected)


def test_everything_held_stays_right_whatever_happens_in_between(warm: Pool) -> None:
    run_state_machine_as_test(
        lambda: Traffic(warm),  # type: ignore[arg-type]  # anything that makes a machine
        settings=settings(examples(15), stateful_step_count=25),
    )


# --- what workers keep ------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_what_a_worker_keeps_stays_when_hundreds_of_arrays_pass(pool: Pool) -> None:
    pool.map(keep, [filled((value, 100_000)) for value in range(6)], chunk_size=1)
    pool.map(lambda one: keep(one[::7]), [filled((value, 300_000)) for value in range(6)], chunk_size=1)
    pool.map(lambda rows: keep(rows[1]), np.ones((6, 2, 50_000)), chunk_size=3)
    n_kept = 0
    for _ in range(3):
        got = pool.map(lambda one: (check_kept(), one + 1), [filled((value, 90_000)) for value in range(80)])
        assert all(is_filled(one, value + 1, 90_000) for value, (_, one) in enumerate(got))
        n_kept += max(n for n, _ in got)
    assert n_kept > 0


@only("forkserver")
def test_kernels_array_stays_as_it_was_when_a_task_changes_it(pool: Pool) -> None:
    def change(one: Array) -> Array:
        one[:] = 7
        return one

    for n_bytes in (1000, 65_536, 3 * MB):
        sent = filled((1, n_bytes))
        assert is_filled(pool.map(change, [sent])[0], 7, n_bytes)
        assert is_filled(pool.submit(change, sent).result(), 7, n_bytes)
        assert is_filled(sent, 1, n_bytes)


@only("forkserver")
def test_result_stays_as_it_was_when_the_worker_goes_on_to_change_it(make_pool: MakePool) -> None:
    with make_pool(n_workers=1) as pool:
        pool.submit(own, np.zeros(100_000)).result()
        got = [pool.submit(change_own).result() for _ in range(20)]
        got += pool.map(change_own, range(20), chunk_size=1)
    for i, one in enumerate(got):
        assert one.min() == one.max() == i + 1


@only("forkserver")
def test_argument_is_as_it_was_sent_when_a_task_is_tried_again(pool: Pool) -> None:
    def task(one: Array) -> float:
        assert one.min() == one.max() == 1, "it is what the first attempt left"
        one[:] = 9
        if nbpar.current_task().attempt < 3:
            raise OSError("not yet")
        return float(one.sum())

    assert pool.map(task, [np.ones(100_000)] * 4, retries=2, chunk_size=1) == [900_000] * 4


# --- what is read, and when -------------------------------------------------------------------------------------------


@only("forkserver")
def test_items_are_read_when_they_are_sent_and_no_later(pool: Pool, tmp_path: Path) -> None:
    def task(i: int, one: Array) -> tuple[int, int]:
        (tmp_path / f"begun-{i}").touch()
        until((tmp_path / f"go-{i}").exists)
        return int(one.min()), int(one.max())

    sent = [filled((1, 2 * MB)), filled((2, 2 * MB))]
    job = pool.map_async(task, range(2), sent, max_in_flight=1)
    until((tmp_path / "begun-0").exists)
    for one in sent:
        one.fill(one[0] + 10)
    (tmp_path / "go-0").touch()
    until((tmp_path / "begun-1").exists)
    for one in sent:
        one.fill(one[0] + 100)
    (tmp_path / "go-1").touch()
    assert job.result() == [(1, 1), (12, 12)]


def roads(held: Array) -> list[Callable[[int], Any]]:
    """Functions that have a large array with them, in each way there is; they add one to it and return its first."""

    def add(to: Array) -> float:
        to += 1
        return float(to[0])

    def by_default(_: int, held: Array = held) -> float:
        return add(held)

    class Model:
        def __init__(self) -> None:
            self.weights = {"w": [held]}

        def method(self, _: int) -> float:
            return add(self.weights["w"][0])

    return [lambda _: add(held), by_default, Model().method, partial(lambda held, _: add(held), held)]


@pytest.mark.parametrize("road", range(4), ids=["closure", "default", "method", "partial"])
@pytest.mark.parametrize("n", [100, 200_000])
def test_each_job_has_the_array_of_now_when_it_is_in_the_function(warm: Pool, road: int, n: int) -> None:
    held = np.zeros(n)
    function = roads(held)[road]
    for now in (0, 5, 5, 9, 5):
        held[:] = now
        assert min(warm.map(function, range(4), chunk_size=1)) == now + 1, "it is another job's"
        assert held[0] == held[-1] == now, "a task has changed the kernel's"


_table = np.zeros(200_000)


def test_each_job_has_the_array_of_now_when_it_is_a_global(warm: Pool) -> None:
    def task(_: int) -> float:
        _table[:] += 1
        return float(_table[-1])

    try:
        for now in (3, 4):
            _table[:] = now
            assert min(warm.map(task, range(4), chunk_size=1)) == now + 1
            assert _table[0] == now
    finally:
        _table[:] = 0


@only("forkserver")
def test_arrays_arrive_when_an_exception_carries_them(pool: Pool) -> None:
    class MeasureError(Exception):
        def __init__(self, text: str, measured: Array) -> None:
            super().__init__(text, measured)
            self.measured = measured

    def fail(one: Array) -> None:
        raise MeasureError("too large", one + 1)

    for n_bytes in (100, 65_536, 2 * MB):
        with pytest.raises(MeasureError, match="too large") as caught:
            pool.map(fail, [filled((4, n_bytes))])
        pool.map(lambda one: one, [filled((value, n_bytes)) for value in range(20)])
        assert is_filled(caught.value.measured, 5, n_bytes)
        error: Any
        (error,) = pool.map(fail, [filled((4, n_bytes))], on_error="return")
        assert isinstance(error, TaskError)
        assert is_filled(error.__cause__.args[1], 5, n_bytes)  # type: ignore[union-attr]  # a MeasureError


# --- what the kernel keeps --------------------------------------------------------------------------------------------


@only("forkserver")
def test_result_is_one_object_when_it_is_returned_twice_or_is_a_view(pool: Pool) -> None:
    def task(one: Array) -> list[Array]:
        return [one, one, one[10:], one[::-2], one.reshape(2, -1).T]

    sent = np.arange(100_000)
    for got in pool.map(task, [sent, sent.copy()], chunk_size=1):
        assert got[0] is got[1]
        for came, expected in zip(got, task(sent), strict=True):
            np.testing.assert_array_equal(came, expected)
        for came in got[1:]:
            came[0] = -1
        assert got[0][0] == -1
    assert sent[0] == 0


@only("forkserver")
def test_what_is_left_of_a_result_stays_when_only_a_part_is_held(pool: Pool) -> None:
    def parts_of(whole: Any) -> list[Any]:
        return [whole[3:9], whole.view("u1")[::100], memoryview(whole)[1:], whole.T.real, np.asarray(whole)[None]]

    held = [parts_of(one)[i] for i in range(5) for one in pool.map(lambda i: np.arange(50_000.0) + i, range(4))]
    frames = [one["b"].iloc[5:] for one in pool.map(lambda _: frame("numbers", 20_000), range(3))]
    copied = pickle.loads(pickle.dumps(pool.map(filled, [(7, 90_000)])))
    gc.collect()
    for _ in range(3):
        pool.map(lambda one: one * 0, [np.ones(50_000)] * 20)
    expected = [parts_of(np.arange(50_000.0) + k)[i] for i in range(5) for k in range(4)]
    for one, other in zip(held, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    for series in frames:
        pd.testing.assert_series_equal(series, frame("numbers", 20_000)["b"].iloc[5:])
    assert is_filled(copied[0], 7, 90_000)


@only("forkserver")
def test_results_stay_when_workers_die_restart_and_the_pool_goes(make_pool: MakePool) -> None:
    pool = make_pool()
    held: list[Array] = []

    def more() -> None:
        items = [(value, 150_000) for value in range(len(held), len(held) + 10)]
        held.extend(pool.map(filled, items))

    def all_right() -> bool:
        return all(is_filled(one, value, 150_000) for value, one in enumerate(held))

    more()
    pids = set(pool.pids().values())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not pids & set(pool.pids().values()))
    more()
    assert all_right()
    pool.restart()
    more()
    assert all_right()
    got: Any = pool.map(
        lambda one: os.kill(os.getpid(), signal.SIGKILL) if one[0] == 5 else one,
        [filled((value, 150_000)) for value in range(10)],
        on_error="return",
        chunk_size=3,
    )
    assert [type(one) for one in got] == [np.ndarray] * 5 + [WorkerDiedError] + [np.ndarray] * 4
    assert all(is_filled(one, value, 150_000) for value, one in enumerate(got) if value != 5)
    more()
    pool.shutdown()
    assert all_right()
    held[3][:] = 0
    assert held[2][0] == 2


@only("forkserver")
def test_content_is_right_when_workers_are_killed_under_load(make_pool: MakePool) -> None:
    pool = make_pool()
    sent = [filled((value, 500_000)) for value in range(60)]
    job = pool.map_async(lambda one: one + 1, sent, retries=10, chunk_size=2)
    for n_done in (5, 15, 30, 45):
        until(lambda n_done=n_done: job.n_done >= n_done)  # type: ignore[misc]  # the n_done of now
        for pid in pool.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert all(is_filled(one, value + 1, 500_000) for value, one in enumerate(job.result()))


@only("forkserver")
def test_nothing_is_left_when_results_outlive_their_pool_and_go(pool: Pool) -> None:
    with no_leftovers():
        with Pool(n_workers=2) as other:
            held = other.map(filled, [(value, 100_000 * value) for value in range(10)])
            held.append(other.submit(lambda one: one, held[3]).result()[::2])
        assert all(is_filled(one, value, 100_000 * value) for value, one in enumerate(held[:10]))
        del held
        pool.map(abs, [-1])


@only("forkserver")
def test_results_stay_when_there_are_thousands(pool: Pool) -> None:
    sizes = [66_000 + 1000 * (i % 7) for i in range(4000)]
    held = pool.map(filled, list(enumerate(sizes)))
    assert all(is_filled(one, value, sizes[value]) for value, one in enumerate(held))
    del held[::2]
    held += pool.map(filled, list(enumerate(sizes[:1000])))
    assert all(is_filled(one, 2 * place + 1, sizes[2 * place + 1]) for place, one in enumerate(held[:2000]))
    assert all(is_filled(one, place, sizes[place]) for place, one in enumerate(held[2000:]))


def let_go(pool: Pool) -> None:
    """The newest job keeps its results, and a worker the arguments of its last task."""
    pool.map(abs, range(4), chunk_size=1)
    gc.collect()


@only("forkserver")
def test_memory_does_not_grow_when_thousands_of_results_are_dropped(pool: Pool) -> None:
    def pass_through(n: int) -> None:
        for n_bytes in (70_000, 200_000, MB):
            for one in pool.imap(lambda one: one, (filled((i, n_bytes)) for i in range(n)), max_in_flight=16):
                assert one[0] == one[-1]
            pool.map(lambda one: None, [filled((1, n_bytes))] * 20)
        let_go(pool)

    pass_through(50)
    before = tree_memory_bytes()
    for _ in range(4):
        pass_through(250)
    grown = tree_memory_bytes() - before
    assert grown < 60 * MB, f"{grown / MB:.0f} MB more after 3,000 results of 1.2 GB in all"


@only("forkserver")
def test_memory_goes_back_when_many_results_were_held(pool: Pool) -> None:
    let_go(pool)
    held = pool.map(filled, [(value, 8 * MB) for value in range(50)])
    full = tree_memory_bytes()
    assert full > 400 * MB
    held.clear()
    let_go(pool)
    until(lambda: tree_memory_bytes() < full - 200 * MB)


def test_streamed_arrays_are_right_when_the_consumer_is_slow(warm: Pool) -> None:
    for ordered in (True, False):
        held: list[tuple[int, Array]] = []
        n_out = 0
        items = ((i, filled((i, 120_000))) for i in range(60))
        for i, one in warm.imap(lambda item: (item[0], item[1] + 1), items, ordered=ordered, max_in_flight=8):
            n_out += 1
            held.append((i, one))
            if n_out % 5 == 0:  # it has other things to do meanwhile
                assert all(is_filled(a, 5, 80_000) for a in warm.map(filled, [(5, 80_000)] * 4))
                del held[:2]
            assert all(is_filled(one, i + 1, 120_000) for i, one in held)
        assert n_out == 60


@only("forkserver")
def test_content_is_right_when_jobs_were_cancelled_midway(pool: Pool) -> None:
    sent = [filled((value, 400_000)) for value in range(40)]
    held: list[tuple[int, Array]] = []
    for n_done in range(8):
        job = pool.map_async(lambda one: one + 1, sent, chunk_size=2)
        until(lambda job=job, n_done=n_done: job.n_done >= n_done)  # type: ignore[misc]  # the ones of now
        job.cancel()
        job.wait()
        held += job.results_by_index.items()
        got = pool.map(lambda one: one + 2, sent[:6])
        assert all(is_filled(one, value + 2, 400_000) for value, one in enumerate(got))
    assert all(is_filled(one, value + 1, 400_000) for value, one in held)
    assert all(is_filled(one, value, 400_000) for value, one in enumerate(sent))


# --- forks, limits and the end ----------------------------------------------------------------------------------------

START = """
import gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of a process with threads
import numpy as np
import nbpar
pool = nbpar.WorkerPool(n_workers=2)
def make(i):
    return np.full(100_000, i, float)
def right(held):
    return all((one == i).all() for i, one in enumerate(held))
def fork(child):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_results_stay_when_a_fork_of_the_kernel_drops_its_own() -> None:
    out = run_script(
        START
        + """
held = pool.map(make, range(20))
def child():
    held.clear()
    gc.collect()
fork(child)
held += pool.map(make, range(20, 60))
assert right(held)
pid = os.fork()
if not pid:
    sys.exit(0)  # by all that Python does at its end
assert os.waitpid(pid, 0)[1] == 0
held += pool.map(make, range(60, 80))
assert right(held)
print("right")
"""
    )
    assert out == "right\n"


def test_results_stay_when_a_fork_of_the_kernel_writes_to_its_own() -> None:
    out = run_script(
        START
        + """
held = pool.map(make, range(20))
def child():
    for i, one in enumerate(held):
        assert (one == i).all()
        one[:] = -1
fork(child)
print(right(held))
"""
    )
    assert out == "True\n"


@only("forkserver")
@pytest.mark.parametrize("child", ["drops", "writes"])
def test_arguments_stay_when_a_fork_of_the_worker_drops_or_writes(pool: Pool, child: str) -> None:
    def task(held: list[Array]) -> list[Array]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: numpy has threads
            pid = os.fork()
        if not pid:
            if child == "writes":
                held[0][:] = 200
            held.clear()
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return held

    got = pool.map(task, [[filled((value, 100_000))] for value in range(10)], chunk_size=1)
    assert all(is_filled(one, value, 100_000) for value, (one,) in enumerate(got))


LIMITED = (
    START
    + """
big = np.arange(500_000.0)
shared = nbpar.share(big)
held = []
for _ in range(3):
    held += pool.map(lambda one: one + 1, [make(i - 1) for i in range(len(held), len(held) + 100)])
    assert pool.map(lambda i: float(big[i] + shared.value[i]), range(8)) == [2.0 * i for i in range(8)]
assert right(held)
assert len(pool.map(lambda i: np.zeros(40 << 17), range(2))[0]) == 40 << 17
del held[::2]
assert all((one == 2 * i + 1).all() for i, one in enumerate(held))
print("right")
"""
)


@pytest.mark.parametrize(
    "limit",
    ["RLIMIT_NOFILE, (64, 64)", "RLIMIT_AS, (3 << 30, 3 << 30)", "RLIMIT_MEMLOCK, (0, 0)"],
    ids=["64 files", "3 GB of address space", "no locked memory"],
)
def test_arrays_travel_when_the_system_gives_little(limit: str) -> None:
    assert run_script(f"import resource\nresource.setrlimit(resource.{limit})\n{LIMITED}") == "right\n"


def test_content_is_right_when_maps_were_interrupted() -> None:
    out = run_script(
        START
        + """
import signal, threading, time
sent = [make(i) for i in range(40)]
held = []
pool.map(abs, [1])
for n_done in (0, 1, 3, 7, 15):
    n_jobs = len(nbpar.jobs())
    def interrupt():
        while len(nbpar.jobs()) == n_jobs or nbpar.jobs()[-1].n_done < n_done:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    def slow(one):
        time.sleep(0.01)
        return one
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        pool.map(slow, sent, chunk_size=2)
    except KeyboardInterrupt:
        held.append(nbpar.jobs()[-1].results_by_index)
    thread.join()
    assert right(pool.map(lambda one: one, sent))
assert len(held) == 5
print(all((one == i).all() for results in held for i, one in results.items()))
"""
    )
    assert out == "True\n"


@pytest.mark.parametrize("how", ["", "pool.shutdown()", "del pool", "gc.disable()", "sys.exit(0)"])
def test_nothing_is_said_when_the_interpreter_ends_with_results_held(how: str) -> None:
    code = START + "held = pool.map(make, range(20)); view = pool.map(make, range(3))[1][::2]; keep = [held, view]\n"
    code += "holder = type('Holder', (), {'held': held}); cycle = [held]; cycle.append(cycle)\n"
    assert run_script(f"{code}{how}\n") == ""


def test_memory_of_a_forked_kernel_is_its_own_when_it_makes_a_pool() -> None:
    out = run_script(
        START
        + """
held = pool.map(make, range(20))
def child():
    with nbpar.WorkerPool(n_workers=1) as other:
        mine = other.map(make, range(10))
        assert right(mine) and right(held)
        held.clear()
        mine += other.map(lambda one: one, [make(i) for i in range(10, 40)])
        assert right(mine)
fork(child)
held += pool.map(make, range(20, 40))
print(right(held))
"""
    )
    assert out == "True\n"
