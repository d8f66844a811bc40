"""The contract of ``checkpoint=``, over every way in which workers exist."""

from __future__ import annotations

import dataclasses
import enum
import gc
import os
import random
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.store.journal import Journal
from tests.backends.conftest import WITH_WORKERS, MakePool, only
from tests.helpers import descriptors, until


@dataclasses.dataclass
class Point:
    x: int
    near: set[str] = dataclasses.field(default_factory=set)


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Runs:
    """Counts what ran, in whatever process: each task adds a line to a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "runs.txt"

    def add(self, item: object) -> None:
        with self._file.open("a") as file:
            file.write(f"{item}\n")

    def take(self) -> list[str]:
        """What ran since the last call."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self._file.unlink(missing_ok=True)
        return sorted(lines)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep.db"


def notes() -> tuple[str, ...]:
    return nbpar.jobs()[-1].snapshot().notes


def count(path: Path) -> int:
    return nbpar.checkpoint.info(path).n_results


Square = Callable[[int], int]


@pytest.fixture
def square(runs: Runs) -> Square:
    def square(x: int) -> int:
        runs.add(x)
        return x * x

    return square


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing(pool: nbpar.WorkerPool, path: Path, square: Square, runs: Runs) -> None:
    assert pool.map(square, range(20), checkpoint=path) == [x * x for x in range(20)]
    assert (len(runs.take()), notes(), count(path)) == (20, (), 20)
    assert pool.map(square, range(20), checkpoint=str(path)) == [x * x for x in range(20)]
    assert runs.take() == []
    assert notes() == ("20 of 20 results came from sweep.db; none was left.",)
    snapshot = nbpar.jobs()[-1].snapshot()
    assert (snapshot.n_restored, snapshot.n_done, snapshot.status, snapshot.rate) == (20, 20, "done", 0.0)


def test_only_what_is_missing_is_computed_in_its_own_place(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    def place(x: int) -> tuple[int, int]:
        runs.add(x)
        return x, nbpar.current_task().index

    pool.map(place, [1, 3, 4, 7, 8], checkpoint=path)
    runs.take()
    found = pool.map(place, range(10), checkpoint=path)
    assert runs.take() == list("02569")
    assert [x for x, _ in found] == list(range(10))
    assert [index for x, index in found if x in (0, 2, 5, 6, 9)] == [0, 2, 5, 6, 9]
    assert notes() == ("5 of 10 results came from sweep.db; 5 were left to compute.",)
    snapshot = nbpar.jobs()[-1].snapshot()
    assert (snapshot.n_restored, snapshot.n_done, sum(lane.n_done for lane in snapshot.lanes)) == (5, 10, 5)


def test_what_was_done_before_an_error_is_not_done_again(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    def careful(x: int) -> int:
        runs.add(x)
        if x == 5:
            raise ValueError(f"not {x}")
        return x

    with pytest.raises(ValueError, match="not 5"):
        pool.map(careful, range(6), checkpoint=path, chunk_size=1)
    n_kept = count(path)
    ran = runs.take()
    assert "5" in ran and n_kept <= 5
    with pytest.raises(ValueError, match="not 5"):
        pool.map(careful, range(6), checkpoint=path, chunk_size=1)
    assert len(runs.take()) <= 6 - n_kept


def test_failures_run_again_and_successes_do_not(
    pool: nbpar.WorkerPool, path: Path, runs: Runs, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"

    def careful(x: int) -> int:
        runs.add(x)
        if x % 3 == 0 and not mended.exists():
            raise ValueError("not yet")
        return x

    first = pool.map(careful, range(10), on_error="return", checkpoint=path)
    assert [isinstance(one, nbpar.TaskError) for one in first] == [x % 3 == 0 for x in range(10)]
    assert (len(runs.take()), count(path)) == (10, 6)
    assert pool.map(careful, range(10), on_error="skip", checkpoint=path) == [1, 2, 4, 5, 7, 8]
    assert runs.take() == list("0369")
    mended.touch()
    assert pool.map(careful, range(10), checkpoint=path) == list(range(10))
    assert runs.take() == list("0369")
    assert pool.map(careful, range(10), checkpoint=path) == list(range(10))
    assert runs.take() == []


def test_what_a_cancelled_job_had_done_is_kept(make_pool: MakePool, method: str, path: Path, tmp_path: Path) -> None:
    if method == "serial":
        pytest.skip("a serial job has ended when it is there")
    pool = make_pool()
    go_on = tmp_path / "go_on"

    def slow(x: int) -> int:
        while x >= 4 and not go_on.exists():
            time.sleep(0.005)
        return x

    job = pool.map_async(slow, range(8), checkpoint=path, progress=False, chunk_size=1)
    until(lambda: job.n_done == 4)
    assert count(path) == 4  # it is kept before it is told, and can be looked at while the job runs
    job.cancel()
    assert job.wait(10)
    go_on.touch()
    assert pool.map(slow, range(8), checkpoint=path) == list(range(8))
    assert notes() == ("4 of 8 results came from sweep.db; 4 were left to compute.",)


def test_retries_and_equal_items_are_counted_once(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    def flaky(_: None) -> float:
        runs.add("run")
        if nbpar.current_task().attempt == 1:
            raise ValueError
        return random.random()

    first = pool.map(flaky, [None] * 6, retries=1, checkpoint=path)
    assert len(set(first)) == 6
    runs.take()
    assert pool.map(flaky, [None] * 6, retries=1, checkpoint=path) == first
    assert pool.map(flaky, [None] * 3, retries=1, checkpoint=path) == first[:3]
    assert runs.take() == []


def test_with_a_seed_the_result_belongs_to_its_place(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    def draw(x: str) -> tuple[str, float]:
        runs.add(x)
        return x, float(nbpar.current_task().rng.random())

    plain = pool.map(draw, "abc", seed=1)
    runs.take()
    assert pool.map(draw, "abc", seed=1, checkpoint=path) == plain
    assert len(runs.take()) == 3
    assert pool.map(draw, "abc", seed=1, checkpoint=path) == plain
    assert runs.take() == []
    moved = pool.map(draw, "cab", seed=1, checkpoint=path)
    assert moved == pool.map(draw, "cab", seed=1)
    assert pool.map(draw, "abc", seed=2, checkpoint=path) == pool.map(draw, "abc", seed=2)


def test_starmap_and_map_of_the_same_items_do_not_mix(pool: nbpar.WorkerPool, path: Path) -> None:
    def shape(*arguments: Any) -> int:
        return len(arguments)

    pairs = [(1, 2), (3, 4)]
    assert pool.map(shape, pairs, checkpoint=path) == [1, 1]
    assert pool.starmap(shape, pairs, checkpoint=path) == [2, 2]
    assert pool.map(shape, [1, 3], [2, 4], checkpoint=path) == [2, 2]
    assert notes() == ("2 of 2 results came from sweep.db; none was left.",)


def test_changed_code_starts_anew_and_says_what_has_changed(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    def with_rate(rate: int) -> Square:
        namespace = {"rate": rate, "runs": runs, "__name__": "__main__"}
        exec("def price(x):\n    runs.add(x)\n    return x * rate", namespace)
        return namespace["price"]  # type: ignore[return-value]

    assert pool.map(with_rate(2), range(3), checkpoint=path) == [0, 2, 4]
    runs.take()
    assert pool.map(with_rate(3), range(3), checkpoint=path) == [0, 3, 6]
    assert len(runs.take()) == 3
    assert notes() == (
        "sweep.db has 3 results of another version of price; the code has changed since (rate), so this starts anew.",
    )
    assert pool.map(with_rate(2), range(3), checkpoint=path) == [0, 2, 4]  # both are there
    assert runs.take() == []
    pool.map(lambda x: x, [1], checkpoint=path)
    assert notes() == ()
    pool.map(lambda x: x + 1, [1], checkpoint=path)
    assert notes() == ("sweep.db has 1 result of another lambda, so this starts anew.",)


def test_an_empty_input_is_an_empty_list(pool: nbpar.WorkerPool, path: Path) -> None:
    assert pool.map(abs, [], checkpoint=path) == []
    assert list(pool.imap(abs, [], checkpoint=path)) == []


@pytest.mark.parametrize("items", [range(50), np.arange(50), tuple(range(50)), [[x] for x in range(50)]], ids=str)
def test_sliceable_inputs_are_resumed_too(pool: nbpar.WorkerPool, path: Path, items: Any, runs: Runs) -> None:
    def first(item: Any) -> int:
        runs.add("run")
        return int(item[0] if isinstance(item, list) else item)

    pool.map(first, items[10:20], checkpoint=path)
    runs.take()
    assert pool.map(first, items, checkpoint=path) == list(range(50))
    assert len(runs.take()) == 40


# --- imap and map_async -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_imap_computes_what_is_missing(
    pool: nbpar.WorkerPool, path: Path, square: Square, runs: Runs, ordered: bool
) -> None:
    pool.map(square, range(0, 60, 3), checkpoint=path)
    runs.take()
    found = list(pool.imap(square, (x for x in range(60)), ordered=ordered, checkpoint=path))
    assert (found if ordered else sorted(found)) == [x * x for x in range(60)]
    assert len(runs.take()) == 40
    assert notes() == ("20 of 60 results came from sweep.db; 40 were left to compute.",)
    assert sorted(pool.imap(square, range(60), ordered=ordered, checkpoint=path)) == [x * x for x in range(60)]
    assert runs.take() == []


def test_imap_stops_with_its_consumer_and_goes_on_later(
    pool: nbpar.WorkerPool, path: Path, square: Square, runs: Runs
) -> None:
    for value in pool.imap(square, range(10**9), checkpoint=path, max_in_flight=20):
        if value == 25:
            break
    until(nbpar.jobs()[-1].done)
    n_kept = count(path)
    assert 6 <= n_kept <= 30
    runs.take()
    assert list(pool.imap(square, range(n_kept), checkpoint=path)) == [x * x for x in range(n_kept)]
    assert len(runs.take()) <= 30 - 6


def test_imap_gives_out_failures_at_their_turn(pool: nbpar.WorkerPool, path: Path) -> None:
    def invert(x: int) -> float:
        return 1 / x

    pool.map(invert, [1, 2], checkpoint=path)
    found: list[Any] = list(pool.imap(invert, [1, 0, 2], on_error="return", checkpoint=path))
    assert [found[0], found[2]] == [1.0, 0.5]
    assert isinstance(found[1], nbpar.TaskError) and found[1].index == 1


def test_map_async_has_what_is_known_at_once(pool: nbpar.WorkerPool, path: Path, square: Square) -> None:
    pool.map(square, range(5), checkpoint=path)
    job = pool.map_async(square, range(5), checkpoint=path)
    assert job.done()
    assert job.results == job.result() == list(job) == [0, 1, 4, 9, 16]


@only("threads")
def test_no_worker_is_started_for_what_is_known(make_pool: MakePool, path: Path, square: Square) -> None:
    with nbpar.WorkerPool(start_method="serial") as other:
        other.map(square, range(5), checkpoint=path)
    pool = make_pool()
    assert pool.map(square, range(5), checkpoint=path) == [0, 1, 4, 9, 16]
    assert pool.pids() == {}


# --- values -----------------------------------------------------------------------------------------------------------


def test_results_come_back_as_they_were(pool: nbpar.WorkerPool, path: Path) -> None:
    def make(kind: str) -> Any:
        return {
            "array": np.arange(100_000.0).reshape(10, -1),
            "point": [Point(1, {"a"}), Colour.RED],
            "function": lambda x: x + 1,
            "none": None,
            "nested": {"a": [1.5, "b", {2}]},
        }[kind]

    kinds = ["array", "point", "function", "none", "nested"]
    pool.map(make, kinds, checkpoint=path)
    array, point, function, none, nested = pool.map(make, kinds, checkpoint=path)
    assert notes() == ("5 of 5 results came from sweep.db; none was left.",)
    assert np.array_equal(array, np.arange(100_000.0).reshape(10, -1)) and array.flags.writeable
    assert point == [Point(1, {"a"}), Colour.RED] and point[1] is Colour.RED
    assert (function(1), none, nested) == (2, None, {"a": [1.5, "b", {2}]})


@only("threads", "serial")
def test_a_result_that_cannot_be_kept_is_given_and_said_once(pool: nbpar.WorkerPool, path: Path) -> None:
    found = pool.map(lambda x: threading.Lock() if x % 2 else x, range(6), checkpoint=path)
    assert found[::2] == [0, 2, 4] and count(path) == 3
    (note,) = notes()
    item = r"The result of item [135] cannot be kept in sweep\.db \(TypeError: cannot pickle '_thread\.lock'"
    assert re.match(item, note)  # whichever ends first
    assert note.endswith("such tasks run again next time.")


def test_a_result_that_cannot_be_loaded_is_computed_again(pool: nbpar.WorkerPool, path: Path, square: Square) -> None:
    pool.map(square, range(3), checkpoint=path)
    with sqlite3.connect(path) as connection:
        value = b"cno_such_module\nname\n."
        connection.execute("UPDATE results SET value = ?, crc = ? WHERE rowid = 2", (value, zlib.crc32(value)))
        connection.execute("UPDATE results SET crc = 1 WHERE rowid = 3")
    connection.close()
    assert pool.map(square, range(3), checkpoint=path) == [0, 1, 4]
    counted, why = notes()
    assert counted == "1 of 3 results came from sweep.db; 2 were left to compute."
    assert why.startswith("1 result in sweep.db could not be read and had to be computed again (ModuleNotFoundError:")
    assert pool.map(square, range(3), checkpoint=path) == [0, 1, 4]
    assert notes() == ("3 of 3 results came from sweep.db; none was left.",)


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_refused_costs_no_work(pool: nbpar.WorkerPool, path: Path, runs: Runs) -> None:
    path.write_text("mine")
    n_jobs = len(nbpar.jobs())

    def items() -> Iterator[int]:
        runs.add("read")
        yield 1

    for verb in (pool.map, pool.map_async, pool.imap):
        with pytest.raises(nbpar.CheckpointError, match=f"^{path} cannot be the checkpoint"):
            verb(runs.add, items(), checkpoint=path)
    assert (runs.take(), path.read_text(), len(nbpar.jobs())) == ([], "mine", n_jobs)


@pytest.mark.parametrize("value", [1, b"a.db", "", "a\0b", True, ["a.db"]])
def test_what_is_no_path_is_refused(pool: nbpar.WorkerPool, value: Any) -> None:
    with pytest.raises(nbpar.OptionsError, match=r"checkpoint=.*allowed: the path of a file"):
        pool.map(abs, [1], checkpoint=value)


@only(*WITH_WORKERS)
def test_a_full_disk_costs_what_comes_after_it_and_is_said(
    pool: nbpar.WorkerPool,
    path: Path,
    square: Square,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    n_put = [0]
    put = Journal.put

    def full(self: Journal, results: Any) -> None:
        n_put[0] += 1
        if n_put[0] > 2:
            raise sqlite3.OperationalError("database or disk is full")
        put(self, results)

    monkeypatch.setattr(Journal, "put", full)
    assert pool.map(square, range(8), chunk_size=2, checkpoint=path) == [x * x for x in range(8)]
    said = "Results are no longer kept in sweep.db (database or disk is full); the job goes on without."
    assert notes() == (said,)
    assert [record.message for record in caplog.records] == [f"nbpar: square: {said[:-1]}"]
    assert n_put[0] == 3
    monkeypatch.undo()
    assert pool.map(square, range(8), checkpoint=path) == [x * x for x in range(8)]
    assert count(path) == 8


def test_a_function_that_cannot_travel_leaves_the_file_closed(make_pool: MakePool, method: str, path: Path) -> None:
    if method in ("threads", "serial"):
        pytest.skip("nothing travels")
    generator = (x for x in range(3))
    with pytest.raises(nbpar.SerializationError):
        make_pool().map(lambda x: next(generator), [1], checkpoint=path)
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


def test_the_file_is_whole_and_closed_when_the_call_returns(pool: nbpar.WorkerPool, path: Path, square: Square) -> None:
    pool.map(square, range(5), checkpoint=path)
    list(pool.imap(square, range(9), checkpoint=path))
    until(lambda: sorted(one.name for one in path.parent.iterdir()) == ["runs.txt", "sweep.db"])
    gc.collect()
    assert not [one for one in descriptors() if "sweep.db" in one]


@only("serial")
def test_what_cannot_be_compared_is_said_before_any_work(make_pool: MakePool, path: Path) -> None:
    class Hostile:
        def __reduce_ex__(self, _protocol: Any) -> Any:
            return 5

    hostile = Hostile()
    with pytest.raises(nbpar.CheckpointError, match=r"what lambda uses cannot be compared \(TypeError: "):
        make_pool().map(lambda x: hostile, [1], checkpoint=path)
    assert not path.exists()
    found = make_pool().map(type, [hostile], checkpoint=path)
    assert found == [Hostile]
    assert notes()[0].startswith("The result of item 0 cannot be kept in sweep.db (its item cannot be compared with")


def test_input_that_fails_leaves_the_file_closed(pool: nbpar.WorkerPool, path: Path, square: Square) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the input's own")

    with pytest.raises(KeyError):
        pool.map(square, items(), checkpoint=path)
    with pytest.raises(KeyError):
        list(pool.imap(square, items(), checkpoint=path))
    until(lambda: [one.name for one in path.parent.iterdir() if "sweep" in one.name] == ["sweep.db"])
    assert count(path) == 1


@only(*WITH_WORKERS)
def test_two_jobs_share_a_file(make_pool: MakePool, path: Path) -> None:
    pool = make_pool()

    def cube(x: int) -> int:
        time.sleep(0.001)
        return x**3

    jobs = [pool.map_async(cube, range(100), checkpoint=path, progress=False) for _ in range(3)]
    jobs.append(pool.map_async(lambda x: -x, range(100), checkpoint=path, progress=False))
    assert [job.result() for job in jobs] == [[x**3 for x in range(100)]] * 3 + [[-x for x in range(100)]]
    assert [one.n_results for one in nbpar.checkpoint.info(path).functions] == [100, 100]


def test_the_pools_worker_init_counts(method: str, make_pool: MakePool, path: Path, runs: Runs) -> None:
    def prepare() -> None:
        os.environ["NBPAR_TEST"] = "1"

    make_pool(worker_init=prepare).map(runs.add, [1], checkpoint=path)
    make_pool().map(runs.add, [1], checkpoint=path)
    assert len(runs.take()) == 2
    assert "(prepare(), the pool's worker_init)" in notes()[0]


def test_a_closed_pool_does_not_touch_the_file(make_pool: MakePool, path: Path) -> None:
    pool = make_pool()
    pool.shutdown()
    with pytest.raises(nbpar.PoolClosedError):
        pool.map(abs, [1], checkpoint=path)
    assert not path.exists()


# --- looking into a file ----------------------------------------------------------------------------------------------


@only("serial")
def test_info_says_what_a_file_has(make_pool: MakePool, path: Path, square: Square) -> None:
    pool = make_pool()
    before = time.time()
    pool.map(square, range(3), checkpoint=path)
    pool.map(lambda x: b"x" * 50_000, range(3), checkpoint=path)
    found = nbpar.checkpoint.info(str(path))
    first, second = found.functions
    assert (first.name, first.n_results, second.name, second.n_results) == ("square", 3, "lambda", 3)
    assert second.size_bytes > 150_000 and found.size_bytes == path.stat().st_size
    assert first.first_written is not None and first.last_written is not None
    assert before <= first.first_written.timestamp() <= first.last_written.timestamp() <= time.time()
    assert repr(found).splitlines()[0] == f"{path}: 6 results, {found.size_bytes / 1000:.0f} kB"
    assert repr(found).splitlines()[2].startswith(f"  lambda ({second.fingerprint}): 3 results, 150 kB, 20")


@only("serial")
def test_info_runs_nothing_that_stands_in_the_file(make_pool: MakePool, path: Path, square: Square) -> None:
    pool = make_pool()
    pool.map(square, [1], checkpoint=path)
    trap = path.with_name("trap")
    value = f"cos\nsystem\n(Vtouch {trap}\ntR.".encode()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE results SET value = ?, crc = ?", (value, zlib.crc32(value)))
        connection.execute("UPDATE functions SET name = ?", ("\x1b[31m<b>evil\n",))
    connection.close()
    text = repr(nbpar.checkpoint.info(path))
    assert "\x1b" not in text and len(text.splitlines()) == 2
    assert not trap.exists()
    pool.map(square, [1], checkpoint=path)
    assert trap.exists(), "the trap is none, so this test says nothing"
