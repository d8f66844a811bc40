"""What advice goes by beside a job's figures: the pool's life, buffers that go out again, threads."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbpar import facts
from nbpar.backends import repeated
from nbpar.backends.repeated import MAX_KNOWN, SentBuffers
from nbpar.engine.events import SentAgain
from nbpar.facts import MAX_LIVES, RECENT_S, SHORT_JOBS, PoolLife
from nbpar.options import JobOptions, PoolOptions
from nbpar.system import read_runnable
from nbpar.usage import UsageLog
from nbpar.wire.codec import Codec
from tests.helpers import until

# --- pools ------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_lives", ())


def life(**options: Any) -> PoolLife:
    return PoolLife(PoolOptions(**{"n_workers": 2, **options}))


def test_facts_are_those_of_the_pool_and_the_job() -> None:
    known = life(start_method="forkserver", memory_limit="1 GB", threads_per_worker=3).began(JobOptions(chunk_size=7))()
    assert (known.start_method, known.chunk_size, known.blas_threads) == ("forkserver", 7, 3)
    assert known.memory_limit_bytes == 10**9 and known.n_cpus >= 1
    assert known.usable_memory_bytes is None or known.usable_memory_bytes > 10**8
    assert life(start_method="threads").began(JobOptions())().blas_threads is None


def test_pools_that_ended_after_a_job_or_two_are_counted_with_the_present_one() -> None:
    for _ in range(3):
        one = life()
        one.began(JobOptions())
        one.over()
    life().over()  # it never had a job
    busy, still_open = life(), life()
    for _ in range(SHORT_JOBS + 1):
        busy.began(JobOptions())
    busy.over()
    still_open.began(JobOptions())
    present = life()
    known = present.began(JobOptions())
    assert known().n_short_pools == 4
    still_open.over()
    assert known().n_short_pools == 5
    for _ in range(SHORT_JOBS):
        present.began(JobOptions())
    assert known().n_short_pools == 4


def test_a_pool_that_is_dropped_is_over() -> None:
    one = life()
    one.began(JobOptions())
    known = life().began(JobOptions())
    assert known().n_short_pools == 1
    del one
    gc.collect()
    assert known().n_short_pools == 2


def test_pools_of_more_than_a_minute_ago_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2 * MAX_LIVES):
        one = life()
        one.began(JobOptions())
        one.over()
    assert len(facts._lives) == MAX_LIVES
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + RECENT_S + 1)
    assert life().began(JobOptions())().n_short_pools == 1


# --- buffers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def main() -> Iterator[dict[str, Any]]:
    names = vars(sys.modules["__main__"])
    before = dict(names)
    yield names
    for name in set(names) - set(before):
        del names[name]


class Out:
    """Sends chunks of one item each, as a job does."""

    def __init__(self) -> None:
        self.sent, self.codec, self.n_sent = SentBuffers(), Codec(), 0

    def send(self, item: object, index: int | None = None) -> list[SentAgain]:
        self.n_sent += 1
        first = self.n_sent if index is None else index
        return list(self.sent.note(self.codec.encode([item]).buffers, [item], first))


def test_an_array_is_named_when_it_goes_out_again(main: dict[str, Any]) -> None:
    out, main["field"] = Out(), np.ones(200_000)
    assert out.send((1, main["field"])) == []
    assert out.send((2, main["field"])) == [SentAgain("field", 1_600_000, 2)]
    assert out.send({"any": main["field"]}) == [SentAgain("field", 1_600_000, 3)]


def test_an_array_that_goes_out_again_for_the_same_task_is_not_told() -> None:
    out, arrays = Out(), [np.ones(200_000) for _ in range(4)]
    for index, array in enumerate(arrays):
        assert out.send(array, index) == []
    assert out.send(arrays[2], 2) == []  # its chunk waited too long in a worker and was asked back
    assert [again.n_times for again in out.send(arrays[2], 4)] == [2]


@pytest.mark.parametrize("layout", ["rows", "columns", "part", "dates"])
def test_an_array_of_any_layout_is_followed(main: dict[str, Any], layout: str) -> None:
    base = np.ones((500, 500))
    main["field"] = {
        "rows": base,
        "columns": np.asfortranarray(base),
        "part": base[:400],
        "dates": np.arange(200_000).astype("M8[s]"),
    }[layout]
    out = Out()
    assert out.send(main["field"]) == []
    (again,) = out.send(main["field"])
    assert (again.what, again.n_times) == ("field", 2)


def test_what_holds_the_array_is_named_when_the_array_has_no_name(main: dict[str, Any]) -> None:
    main["limits"], main["table"] = {"low": 1}, pd.DataFrame({"a": np.ones(200_000), "b": 2.0})
    out = Out()
    out.send((1, main["limits"], main["table"]))
    assert [one.what for one in out.send((2, main["limits"], main["table"]))] == ["table"]


def test_what_has_no_name_is_told_by_its_size(main: dict[str, Any]) -> None:
    main["limits"] = {"low": 1}
    out, hidden, text = Out(), np.ones(200_000), memoryview(bytearray(2_000_000))
    items = [(main["limits"], hidden), text]
    assert [out.send(item) for item in items] == [[], []]
    assert [again.what for item in items for again in out.send(item)] == ["an array of 1.6 MB", "an argument of 2 MB"]


def test_another_array_at_the_same_place_is_another_one() -> None:
    out, places = Out(), set()
    for i in range(50):
        array = np.full(200_000, float(i))
        places.add(array.__array_interface__["data"][0])
        assert out.send(array) == []
        del array
    assert len(places) < 50, "no place was used twice: this shows nothing"


def test_parts_of_one_array_and_small_arrays_are_not_told() -> None:
    out, array, small = Out(), np.ones(2_000_000), np.ones(100_000)
    for i in range(5):
        assert out.send(array[i * 200_000 : (i + 1) * 200_000]) == []
        assert out.send(small) == []


def test_only_so_many_arrays_are_remembered() -> None:
    out, arrays = Out(), [np.ones(130_000) for _ in range(MAX_KNOWN + 1)]
    for array in arrays:
        out.send(array)
    assert len(out.sent._known) == MAX_KNOWN
    assert out.send(arrays[0]) == [] and len(out.send(arrays[-1])) == 1


def test_looking_for_a_holder_ends(main: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep, 1.5]
    main["deep"] = deep
    assert not repeated._holds(deep, object())
    assert repeated._holds([[{"x": main}]], main)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of single threads")
def test_a_thread_that_computes_runs_and_one_that_sleeps_stops() -> None:
    done, ids = threading.Event(), []

    def compute() -> None:
        ids.append(threading.get_native_id())
        while not done.is_set():
            sum(range(1000))

    def sleep() -> None:
        ids.append(threading.get_native_id())
        while not done.wait(0.001):
            pass

    log = UsageLog()
    threads = []
    for target in (compute, sleep):
        threads.append(threading.Thread(target=target, name="nbpar-thread-9"))
        threads[-1].start()
        until(lambda: len(ids) == len(threads))
    log._sample_threads(0.0)
    begin_s = time.perf_counter()
    before = [read_runnable(one) for one in ids]

    def have_run() -> bool:
        now = [read_runnable(one) for one in ids]
        pairs = [(a, b) for a, b in zip(before, now, strict=True) if a is not None and b is not None]
        ran_s = pairs[0][1].ran_s - pairs[0][0].ran_s
        return len(pairs) == 2 and ran_s > 0.05 and pairs[1][1].n_stops - pairs[1][0].n_stops > 20

    try:
        until(have_run)
        log._sample_threads(time.perf_counter() - begin_s)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert log.threads_cpu is not None
    assert 0 < log.threads_cpu.used <= log.threads_cpu.wanted and log.threads_cpu.waits > 0
    until(lambda: read_runnable(ids[0]) is None)
