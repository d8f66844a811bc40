"""Shared objects: one copy for all workers, whatever the object, and right as long as anybody holds a part of it."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbpar
from nbpar.errors import SerializationError, TaskError
from tests.backends.arrays import (
    EDGES,
    FRAMES,
    MB,
    TABLES,
    Packet,
    build,
    check_kept,
    describe,
    examples,
    filled,
    frame,
    keep,
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


# --- any object -------------------------------------------------------------------------------------------------------


@examples(40)
@given(st.lists(recipes().map(build), min_size=1, max_size=4))
def test_arrays_are_the_same_when_shared(warm: Pool, arrays: list[Array]) -> None:
    nested: Any = {"all": arrays, "first again": arrays[0], "text": "x" * 100_000}
    expected = describe(nested)
    big = nbpar.share(nested)

    def look(shared: Any) -> tuple[Any, bool, bool]:
        writable = [one.flags.writeable for one in shared["all"]]
        return describe(shared), shared is big.value, all(writable)

    got = warm.map(look, [big] * 4, chunk_size=1)
    for of_task, one_object, writable in got:
        assert of_task == expected
        assert one_object
        assert writable or not all(one.flags.writeable for one in arrays)
    assert describe(big.value) == expected
    assert big.value["first again"] is big.value["all"][0]


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_the_same_when_shared(warm: Pool, kind: str) -> None:
    for n_rows in (0, 3, 20_000):
        big = nbpar.share(frame(kind, n_rows))
        assert warm.map(lambda one: same_frame(one, kind, n_rows), [big] * 2, chunk_size=1) == [True, True]  # noqa: B023
        assert same_frame(big.value, kind, n_rows)


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_the_same_when_shared(warm: Pool, kind: str) -> None:
    pytest.importorskip("pyarrow")
    for n_rows in (0, 3, 20_000):
        big = nbpar.share(table(kind, n_rows))
        assert warm.map(lambda one: same_table(one, kind, n_rows), [big] * 2, chunk_size=1) == [True, True]  # noqa: B023
        assert same_table(big.value, kind, n_rows)


@pytest.mark.parametrize(
    "obj",
    [None, 5, "", b"", [], np.zeros(0), np.array(7), np.zeros((0, 3)), bytearray(3), b"x" * 200_000, {"a": {1: (2,)}}],
    ids=lambda obj: type(obj).__name__,
)
def test_anything_can_be_shared_when_it_is_small_or_empty(warm: Pool, obj: Any) -> None:
    big = nbpar.share(obj)
    assert warm.map(lambda one, given: describe(one) == describe(given), [big] * 3, [obj] * 3) == [True] * 3
    assert describe(big.value) == describe(obj)


def test_bytes_are_the_same_when_a_class_sends_them_by_itself(warm: Pool) -> None:
    packets = [Packet(kind(bytes(range(256)) * (n // 256 + 1))[:n]) for n in EDGES for kind in (bytes, bytearray)]
    big = nbpar.share(packets)
    assert warm.submit(describe, big).result() == describe(packets) == describe(big.value)


def test_a_model_of_a_notebook_class_is_the_same_when_shared(warm: Pool) -> None:
    class Layer:
        def __init__(self, seed: int) -> None:
            random = np.random.default_rng(seed)
            self.weights, self.bias = random.random((300, 300)), random.random(300)

        def apply(self, x: Array) -> Array:
            made: Array = np.tanh(self.weights @ x + self.bias)
            return made

    class Model:
        def __init__(self) -> None:
            self.layers = [Layer(seed) for seed in range(6)]
            self.tied = self.layers[0]
            self.names = {f"layer {i}": layer for i, layer in enumerate(self.layers)}

        def predict(self, x: Array) -> float:
            for layer in self.layers:
                x = layer.apply(x)
            return float(x.sum())

    model = Model()
    big = nbpar.share(model)
    xs = [np.full(300, i / 10) for i in range(20)]
    expected = [model.predict(x) for x in xs]
    assert warm.starmap(lambda shared, x: shared.predict(x), [(big, x) for x in xs]) == expected
    assert warm.map(big.value.predict, xs) == expected
    assert warm.map(lambda x: big.value.predict(x) + 1, xs) == [y + 1 for y in expected]

    def is_whole(shared: Model) -> bool:
        whole = shared.tied is shared.layers[0] and shared.names["layer 5"] is shared.layers[5]
        return whole and type(shared) is Model and isinstance(shared.tied, Layer)

    assert warm.map(is_whole, [big] * 2, chunk_size=1) == [True, True]
    assert type(big.value) is Model
    assert is_whole(big.value)


@only("forkserver")
def test_a_result_can_be_shared_and_a_part_of_a_shared_object_sent(pool: Pool) -> None:
    (made,) = pool.map(filled, [(5, 300_000)])
    big = nbpar.share(made)
    made[:] = 0
    assert pool.map(lambda one: int(one.min()), [big] * 4) == [5] * 4
    assert pool.map(lambda one: int(one.sum()), [big.value[:100_000], big.value[::2]]) == [500_000, 750_000]
    got = pool.map(lambda one: one[1:], [big] * 4)
    assert all((one == 5).all() and one.shape == (299_999,) for one in got)
    got[0][:] = 9
    assert (got[1] == 5).all()
    assert (big.value == 5).all()


@only("forkserver")
def test_handle_comes_back_when_a_task_returns_it(pool: Pool) -> None:
    big = nbpar.share(np.arange(100_000))
    got = pool.map(lambda i: [big, i], range(4))
    assert all(one[0] is big for one in got)


@only("forkserver")
def test_error_is_the_tasks_when_it_returns_what_it_shared_itself(pool: Pool) -> None:
    def task(i: int) -> Any:
        mine = nbpar.share(np.arange(100_000))
        assert mine.value[i] == i
        return mine if i == 2 else i

    got: Any = pool.map(task, range(4), on_error="return")
    assert got[:2] + got[3:] == [0, 1, 3]
    assert isinstance(got[2], TaskError | SerializationError)
    assert "only the kernel shares objects" in str(got[2])


def test_error_comes_at_once_when_an_object_cannot_be_shared() -> None:
    with pytest.raises(SerializationError, match=r"share\(\).*'gen'"):
        nbpar.share({"data": np.zeros(100_000), "gen": (x for x in "ab")})


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_only_its_task_fails_when_a_shared_object_cannot_be_rebuilt(pool: Pool, error: type[BaseException]) -> None:
    class Bad:
        def __init__(self) -> None:
            self.x = np.ones(100_000)

        def __setstate__(self, state: Any) -> None:
            raise error("lost on the way")

    big = nbpar.share(Bad())
    pids = pool.pids()
    got: Any = pool.starmap(lambda _, i: i, [(1, 0), (big, 1), (2, 2)], on_error="return")
    assert (got[0], got[2]) == (0, 2)
    assert isinstance(got[1], SerializationError)
    assert "lost on the way" in str(got[1])
    assert pool.pids() == pids


@only(*PROCESSES)
def test_shared_object_may_hold_others(pool: Pool) -> None:
    class Lookup:
        def __init__(self, table: Any) -> None:
            self.table, self.more = table, np.ones(70_000)

        def __setstate__(self, state: Any) -> None:
            self.__dict__ = {**state, "last": int(state["table"].value[-1])}

    inner = nbpar.share(np.arange(100_000))
    outer = nbpar.share([nbpar.share({"inner": inner}), Lookup(inner)])
    del inner
    gc.collect()

    def look(one: Any) -> tuple[int, int, bool]:
        found = one[0].value["inner"]
        return int(found.value[4]), one[1].last, found is one[1].table

    assert look(outer.value) == (4, 99_999, True)
    assert pool.map(look, [outer] * 4, chunk_size=1) == [(4, 99_999, True)] * 4
    assert pool.map(lambda _: look(outer.value), range(4)) == [(4, 99_999, True)] * 4
    (got,) = pool.map(lambda one: one[0], [outer])
    assert got is outer.value[0]


@only("forkserver")
def test_all_go_when_a_shared_object_that_holds_others_is_dropped(pool: Pool) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    pool.map(abs, range(4), chunk_size=1)
    before = n_open()
    outer = nbpar.share([nbpar.share(np.full(20_000, i)) for i in range(5)])
    assert pool.submit(lambda one: [int(part.value[0]) for part in one], outer).result() == list(range(5))
    del outer
    pool.map(abs, range(4), chunk_size=1)
    gc.collect()
    assert n_open() <= before


# --- writing ----------------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_nobody_sees_it_when_another_one_writes(pool: Pool, tmp_path: Path) -> None:
    original = np.zeros(100_000)
    big = nbpar.share(original)
    original[:] = 5
    assert not big.value.any(), "it was copied when it was shared"
    big.value[:] = 7  # the kernel's own, too

    def task(i: int, shared: Array) -> tuple[float, float]:
        (tmp_path / f"begun-{i}").touch()
        until((tmp_path / f"begun-{1 - i}").exists)  # both workers have it now
        before = float(shared.max())
        shared += i + 1
        return before, float(shared[-1])

    assert pool.map(task, range(2), [big] * 2, chunk_size=1) == [(0, 1), (0, 2)]
    assert (big.value == 7).all()
    assert (original == 5).all()


@only("forkserver")
def test_readonly_arrays_stay_so_when_shared(pool: Pool) -> None:
    frozen = np.zeros(100_000)
    frozen.flags.writeable = False
    big = nbpar.share([frozen, frozen.copy()])
    assert pool.submit(lambda both: [one.flags.writeable for one in both], big).result() == [False, True]


# --- the life of a handle ---------------------------------------------------------------------------------------------


@only("forkserver")
def test_job_goes_on_when_its_handle_is_dropped_meanwhile(pool: Pool, tmp_path: Path) -> None:
    def task(i: int, shared: Array) -> int:
        (tmp_path / f"begun-{i}").touch()
        until((tmp_path / "go").exists)
        return int(shared[i])

    for in_closure in (False, True):
        big = nbpar.share(np.arange(100_000))
        if in_closure:
            job = pool.map_async(lambda i, big=big: task(i, big.value), range(40), chunk_size=1)
        else:
            job = pool.map_async(task, range(40), [big] * 40, chunk_size=1)
        until(lambda: len(list(tmp_path.glob("begun-*"))) >= 2)
        del big
        gc.collect()
        (tmp_path / "go").touch()
        assert job.result() == list(range(40))
        for path in tmp_path.iterdir():
            path.unlink()


@only("forkserver")
def test_every_task_has_its_own_when_handles_live_only_for_their_item(pool: Pool) -> None:
    def shared() -> Iterator[Any]:
        for i in range(40):
            yield nbpar.share(np.full(50_000, i))

    def task(one: Array) -> tuple[int, int]:
        check_kept()
        keep(one[::2])
        return int(one.min()), int(one.max())

    assert list(pool.imap(task, shared())) == [(i, i) for i in range(40)]
    assert pool.map(task, shared()) == [(i, i) for i in range(40)]
    futures = [pool.submit(task, one) for one in shared()]
    assert [one.result() for one in futures] == [(i, i) for i in range(40)]


def _shared_files(pid: int) -> set[int]:
    """Inodes of the shared objects that a process holds open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if "nbpar-shared" in str(link.readlink()):
                found.add(link.stat().st_ino)
    return found


@only(*PROCESSES)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at the workers from outside, by /proc")
def test_idle_workers_let_go_when_a_handle_is_dropped(pool: Pool) -> None:
    pids, before = list(pool.pids().values()), _shared_files(os.getpid())
    big = nbpar.share(filled((7, 2 * MB)))
    (inode,) = _shared_files(os.getpid()) - before
    pool.map(lambda i, big=big: float(big.value[i]), range(4), chunk_size=1)
    assert any(inode in _shared_files(pid) for pid in pids)
    del big
    gc.collect()
    until(lambda: all(inode not in _shared_files(pid) for pid in pids))


@only("forkserver")
def test_what_a_worker_keeps_of_it_stays_when_the_handle_is_gone(pool: Pool) -> None:
    pool.map(lambda one: keep(one[7:]), [nbpar.share(filled((i, 200_000))) for i in range(6)], chunk_size=1)
    gc.collect()
    for i in range(10):
        big = nbpar.share(np.full(200_000, 100 + i, np.uint8))
        pool.map(lambda one: one.fill(0), [big] * 4, chunk_size=1)
    assert max(pool.map(lambda _: check_kept(), range(10), chunk_size=1)) > 0


@only("forkserver")
def test_what_the_kernel_keeps_of_it_stays_when_the_handle_is_gone(pool: Pool) -> None:
    part = nbpar.share({"a": np.arange(100_000)}).value["a"][5:]
    gc.collect()
    for i in range(5):
        nbpar.share(np.full(100_000, i))
    np.testing.assert_array_equal(part, np.arange(5, 100_000))


@only("forkserver")
def test_new_workers_have_it_when_the_old_ones_died_or_were_replaced(make_pool: MakePool) -> None:
    pool = make_pool()
    big = nbpar.share(np.arange(100_000))

    def task(i: int) -> int:
        if i == 3 and nbpar.current_task().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return int(big.value[i])

    assert pool.map(task, range(10), retries=1) == list(range(10))
    pids = set(pool.pids().values())
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert pool.map(lambda one: int(one[9]), [big] * 4, chunk_size=1) == [9] * 4
    pool.restart()
    assert pool.map(lambda one: int(one[8]), [big] * 4, chunk_size=1) == [8] * 4


@only("forkserver")
def test_both_have_it_when_two_pools_and_several_threads_use_it(pool: Pool, make_pool: MakePool) -> None:
    other = make_pool()
    big: Any = nbpar.share({"a": np.arange(100_000), "b": [np.full(70_000, 3)]})
    got: dict[int, Any] = {}

    def use(n: int) -> None:
        mine = (pool, other)[n % 2]
        results = mine.map(lambda i: int(big.value["a"][i]) + n, range(20))
        got[n] = results + mine.starmap(lambda one, i: int(one["b"][0][i]), [(big, i) for i in range(5)])

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: [i + n for i in range(20)] + [3] * 5 for n in range(4)}
    other.shutdown()
    assert pool.map(lambda one: len(one["b"]), [big] * 4, chunk_size=1) == [1] * 4


_kept_here: dict[str, Any] = {}


@only("forkserver")
def test_tasks_find_it_when_it_is_in_a_global_an_attribute_or_a_default(pool: Pool) -> None:
    big = nbpar.share(np.arange(100_000))
    _kept_here["big"] = big

    class Finder:
        table = big

        def __init__(self) -> None:
            self.mine = [big]

        def find(self, i: int) -> tuple[int, int]:
            return int(self.mine[0].value[i]), int(self.table.value[i])

    try:
        assert pool.map(lambda i: int(_kept_here["big"].value[i]), [5, 6]) == [5, 6]
        assert pool.map(lambda i, big=big: int(big.value[i]), [5, 6]) == [5, 6]
        assert pool.map(Finder().find, [5, 6]) == [(5, 5), (6, 6)]
        assert pool.map(lambda one: one.find(7), [Finder()] * 2) == [(7, 7)] * 2
    finally:
        _kept_here.clear()


def test_copy_of_a_handle_is_the_handle() -> None:
    big = nbpar.share(np.arange(100_000))
    config: Any = copy.deepcopy({"table": big, "n": 3})
    shallow = copy.copy(big)
    del big
    gc.collect()
    others = [nbpar.share(np.zeros(100_000, np.int64)) for _ in range(3)]  # one would get a descriptor that was closed
    assert config["table"].value[7] == 7
    assert shallow.value[7] == 7
    assert not others[0].value.any()
    with pytest.raises(pickle.PicklingError, match=r"`\.value`"):
        pickle.dumps(shallow)


@only("forkserver")
def test_handle_in_a_worker_says_so_when_it_was_kept_for_too_long(pool: Pool) -> None:
    def keep_copies(held: list[Any]) -> int:
        sys.__dict__["kept_handles"] = [copy.copy(held[0]), copy.deepcopy({"deep": held[0]})["deep"]]
        return int(held[0].value[3])

    def use(_: int) -> list[int]:
        kept: Any = sys.__dict__.get("kept_handles", [])
        return [int(one.value[3]) for one in kept]

    let_go = [[nbpar.share(np.arange(100_000))]]
    assert pool.map(keep_copies, let_go * 4, chunk_size=1) == [3] * 4
    let_go.clear()
    gc.collect()
    others = [nbpar.share(np.zeros(100_000, np.int64)) for _ in range(3)]
    got: Any = pool.starmap(lambda i, *_: use(i), [(i, *others) for i in range(4)], chunk_size=1, on_error="return")
    assert any("kept in a worker" in str(one) for one in got)
    assert all(one == [] or "kept in a worker" in str(one) for one in got), got


@only(*PROCESSES)
@pytest.mark.parametrize("inner_method", ["forkserver", "fork", "threads"])
def test_handle_works_in_a_pool_that_a_task_makes(pool: Pool, inner_method: Any) -> None:
    class Table:
        def __init__(self) -> None:
            self.rows, self.more = np.arange(100_000), nbpar.share({"x": np.full(70_000, 7)})

    big = nbpar.share(Table())

    def outer(i: int) -> tuple[list[int], bool]:
        def init() -> None:
            assert big.value.rows[9] == 9

        with Pool(n_workers=1, start_method=inner_method, worker_init=init) as inner:
            got = inner.map(lambda one: int(one.rows[i]), [big] * 2)
            got += inner.map(lambda i: int(big.value.rows[i]), [i])
            got += inner.map(lambda one: int(one.more.value["x"][i]), [big])
            (back,) = inner.map(lambda _: big, [0])
        return got, back is big

    assert pool.map(outer, [5, 6], chunk_size=1) == [([5, 5, 5, 7], True), ([6, 6, 6, 7], True)]


@only("forkserver")
def test_descriptors_do_not_add_up_when_tasks_pass_handles_on(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=1)

    def task(one: Any) -> tuple[int, int]:
        with Pool(n_workers=1, start_method="forkserver") as inner:
            got = inner.map(lambda part: int(part[0]), one)[0]
        gc.collect()
        return got, len(list(Path("/proc/self/fd").iterdir()))

    counts = []
    for i in range(6):
        got, n_open = pool.submit(task, [nbpar.share(np.full(20_000, i))]).result()
        assert got == i
        counts.append(n_open)
    assert counts[-1] <= counts[2], counts


@only(*PROCESSES)
def test_hooks_have_it_when_they_refer_to_it(make_pool: MakePool, tmp_path: Path) -> None:
    class Table:
        def __init__(self) -> None:
            self.rows, self.inner = np.arange(100_000), nbpar.share(np.full(70_000, 7))

    big = nbpar.share(Table())

    def init() -> None:
        os.environ["NBPAR_TEST_INIT"] = f"{big.value.rows[5]} {big.value.inner.value[0]}"

    def leave() -> None:
        (tmp_path / f"left-{os.getpid()}").write_text(f"{big.value.rows[6]}")

    pool = make_pool(worker_init=init, worker_exit=leave)
    for _ in range(2):
        assert pool.map(lambda _: os.environ["NBPAR_TEST_INIT"], range(4), chunk_size=1) == ["5 7"] * 4
        pool.restart()
    pool.shutdown()
    assert {path.read_text() for path in tmp_path.iterdir()} == {"6"}


# --- memory -----------------------------------------------------------------------------------------------------------


@only("forkserver")
def test_memory_is_that_of_one_copy_when_all_workers_read_it(pool: Pool) -> None:
    n_bytes = 160 * MB
    pool.map(abs, range(4), chunk_size=1)
    gc.collect()
    before = tree_memory_bytes()
    big = nbpar.share(np.full(n_bytes // 8, 3.0))

    def total(shared: Array, i: int) -> float:
        return float(shared[i::2][::512].sum())  # a page is 512 of them

    assert pool.starmap(total, [(big, i % 2) for i in range(8)], chunk_size=1) == [n_bytes / 8 / 2 / 512 * 3] * 8
    grown = tree_memory_bytes() - before
    assert grown < 1.25 * n_bytes, f"{grown / MB:.0f} MB for {n_bytes / MB:.0f} MB"
    del big
    gc.collect()
    pool.map(abs, range(20), chunk_size=1)
    until(lambda: tree_memory_bytes() - before < 0.25 * n_bytes)


@only("forkserver")
def test_descriptors_do_not_add_up_when_hundreds_are_shared_and_dropped(pool: Pool) -> None:
    def n_open(_: object) -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    pool.submit(lambda one: int(one[0]), nbpar.share(np.zeros(10_000))).result()
    pool.map(n_open, range(10), chunk_size=1)
    before = n_open(None), max(pool.map(n_open, range(10), chunk_size=1))
    for i in range(300):
        assert pool.submit(lambda one: int(one[0]), nbpar.share(np.full(10_000, i))).result() == i
    gc.collect()
    pool.map(abs, range(20), chunk_size=1)
    assert n_open(None) <= before[0]
    assert max(pool.map(n_open, range(10), chunk_size=1)) <= before[1]


@only("forkserver")
def test_nothing_is_left_when_shared_objects_outlive_their_pool(pool: Pool) -> None:
    with no_leftovers():
        big = nbpar.share(np.arange(100_000))
        with Pool(n_workers=2) as other:
            assert other.map(lambda one: int(one[3]), [big] * 4) == [3] * 4
        assert big.value[3] == 3
        assert pool.map(lambda one: int(one[3]), [big] * 4) == [3] * 4
        del big
        pool.map(abs, range(20), chunk_size=1)


# --- forks and the end ------------------------------------------------------------------------------------------------

START = """
import gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of a process with threads
import numpy as np
import nbpar
pool = nbpar.WorkerPool(n_workers=2)
big = nbpar.share(np.arange(100_000))
assert pool.map(lambda one: int(one[5]), [big] * 4) == [5] * 4
"""


def test_others_keep_it_when_a_fork_of_the_kernel_drops_or_writes_to_its_own() -> None:
    out = run_script(
        START
        + """
value = big.value
pid = os.fork()
if not pid:
    value[:] = -1
    del value, big
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert value[5] == 5
print(pool.map(lambda one: int(one[6]), [big] * 4), nbpar.share(value).value[7])
"""
    )
    assert out == "[6, 6, 6, 6] 7\n"


@pytest.mark.parametrize("how", ["", "pool.shutdown()", "del big", "sys.exit(0)"])
def test_nothing_is_said_when_the_interpreter_ends_with_it(how: str) -> None:
    code = START + "held = [big, big.value[::2]]; cycle = [held]; cycle.append(cycle)\n"
    assert run_script(f"{code}{how}\n") == ""


# --- for one task, and for as long as it is the same -----------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held["array"].__setitem__(-1, 9.0),
        lambda held: held.update(array=held["array"].astype("f4")),
        lambda held: held.update(array=held["array"][:-1]),
        lambda held: held.update(more=1),
    ],
)
def test_a_shared_object_says_whether_it_is_still_the_same(change: Any) -> None:
    held: dict[str, Any] = {"array": np.zeros(20_000), "nan": np.full(10, np.nan)}
    big = nbpar.share(held)
    assert big.holds(held) and big.holds(copy.deepcopy(held))
    change(held)
    assert not big.holds(held)
    assert not nbpar.share(held["array"]).holds(threading.Lock)


@only("forkserver", "threads")
def test_an_object_that_is_mapped_anew_is_nobody_elses(pool: Pool) -> None:
    big = nbpar.share(np.zeros(20_000))

    def add(handle: Any) -> float:
        array = handle[0].fresh()
        array += 1
        return float(array[0])

    assert pool.map(add, [[big]] * 6, chunk_size=1) == [1.0] * 6
    assert big.value[0] == 0 and big.fresh() is not big.fresh()
