"""Streams whose tasks run whether or not anybody takes the results; on threads and without workers."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import nbpar
from nbpar import eager
from nbpar.eager import EagerStream, NotYetError
from nbpar.errors import JobCancelledError
from nbpar.options import JobOptions
from tests.helpers import until

OPTIONS = JobOptions(on_error="return")


@pytest.fixture(scope="module")
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=2, start_method="threads") as pool:
        yield pool


def outcomes(stream: EagerStream[Any]) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            value, error = stream.take(10)
        except StopIteration:
            return found
        found.append(value if error is None else error)


def generated(n: int, fails_at: int | None = None) -> Iterator[int]:
    for i in range(n):
        if i == fails_at:
            raise KeyError("input")
        yield i


@pytest.mark.parametrize("make", [range, lambda n: list(range(n)), lambda n: dict.fromkeys(range(n)), generated])
def test_results_come_in_order_whatever_the_input_is(pool: nbpar.WorkerPool, make: Any) -> None:
    assert outcomes(EagerStream(pool, abs, make(50), OPTIONS, ordered=True)) == list(range(50))


def test_results_come_in_order_without_workers() -> None:
    with nbpar.WorkerPool(start_method="serial") as pool:
        assert outcomes(EagerStream(pool, abs, generated(50), OPTIONS, ordered=True)) == list(range(50))


def test_a_failed_task_stops_no_other(pool: nbpar.WorkerPool) -> None:
    found = outcomes(EagerStream(pool, lambda x: 1 // x, generated(3), OPTIONS, ordered=True))
    assert isinstance(found[0].__cause__, ZeroDivisionError)
    assert found[1:] == [1, 0]


def test_results_come_as_they_are_there_when_no_order_is_asked_for(pool: nbpar.WorkerPool) -> None:
    go_on = threading.Event()
    options = JobOptions(on_error="return", chunk_size=1)
    stream: EagerStream[Any] = EagerStream(pool, lambda x: x or go_on.wait(10), [0, 1, 2], options, ordered=False)
    assert {stream.take(10)[0], stream.take(10)[0]} == {1, 2}
    go_on.set()
    assert stream.take(10) == (True, None)


def test_tasks_run_although_nobody_takes_a_result(pool: nbpar.WorkerPool) -> None:
    ran: list[int] = []
    stream = EagerStream(pool, ran.append, generated(500), OPTIONS, ordered=True)
    until(lambda: len(ran) == 500)
    assert outcomes(stream) == [None] * 500


def test_an_item_is_run_while_the_input_keeps_the_next_one_back(pool: nbpar.WorkerPool) -> None:
    has_ended = threading.Event()

    def items() -> Iterator[int]:
        for i in range(20):
            yield i
            assert has_ended.wait(10)
            has_ended.clear()

    stream = EagerStream(pool, lambda _: has_ended.set(), items(), OPTIONS, ordered=True)
    assert outcomes(stream) == [None] * 20


def test_an_endless_input_is_read_only_a_bounded_way_ahead(
    pool: nbpar.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "MAX_WAITING", 100)
    n_read = itertools.count()

    def items() -> Iterator[int]:
        while True:
            yield next(n_read)

    options = JobOptions(on_error="return", chunk_size=5)  # four chunks for each of two workers: 40 items
    stream = EagerStream(pool, abs, items(), options, ordered=True)
    until(lambda: stream.job.n_done >= 100)
    assert [stream.take(10)[0] for _ in range(200)] == list(range(200))
    assert next(n_read) <= 200 + 100 + 40 + 1
    stream.job.cancel()


def test_large_results_that_wait_stop_the_reading(pool: nbpar.WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    full: list[bool] = []
    monkeypatch.setattr("nbpar.backends.base.FULL_BYTES", 1)
    stream = EagerStream(pool, abs, generated(10), OPTIONS, ordered=True)
    source: Any = stream.reader._source
    source.results_come(0, 1, 1 << 20)
    full.append(source.is_full())
    stream.reader.run_freely(drop=False)
    full.append(source.is_full())
    assert full == [True, False]
    assert outcomes(stream) == list(range(10))


def test_an_input_is_read_to_its_end_when_nobody_can_take_the_results_any_more(
    pool: nbpar.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "MAX_WAITING", 10)
    ran: list[int] = []
    stream = EagerStream(pool, ran.append, generated(1000), OPTIONS, ordered=True)
    job, reader = stream.job, stream.reader
    until(lambda: job.n_done >= 10)
    del stream
    gc.collect()
    assert reader.is_read.wait(10)
    assert job.wait(10)
    assert len(ran) == 1000


def test_what_the_input_raises_comes_when_all_before_it_was_taken(pool: nbpar.WorkerPool) -> None:
    stream = EagerStream(pool, abs, generated(9, fails_at=3), OPTIONS, ordered=True)
    assert [stream.take(10)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="input"):
        stream.take(10)
    with pytest.raises(StopIteration):
        stream.take(10)


def test_a_group_in_which_the_input_raises_is_left_out(pool: nbpar.WorkerPool) -> None:
    stream = EagerStream(pool, abs, generated(9, fails_at=3), OPTIONS, ordered=True, group=2)
    assert [stream.take(10)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(KeyError, match="input"):
        stream.take(10)


def test_a_wait_for_a_result_ends_with_its_time(pool: nbpar.WorkerPool) -> None:
    go_on = threading.Event()
    stream = EagerStream(pool, lambda _: go_on.wait(10), [0], OPTIONS, ordered=True)
    with pytest.raises(NotYetError, match="it goes on"):
        stream.take(0.01)
    go_on.set()
    assert stream.take(10) == (True, None)


def test_a_cancelled_job_gives_out_what_had_ended(pool: nbpar.WorkerPool) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(x: int) -> int:
        if x:
            begun.set()
            go_on.wait(10)
        return x

    options = JobOptions(on_error="return", chunk_size=1)
    stream = EagerStream(pool, work, [0, 1, 2], options, ordered=True)
    assert begun.wait(10)
    until(lambda: stream.job.n_done == 1)
    stream.job.cancel()
    assert stream.take(10) == (0, None)
    with pytest.raises(JobCancelledError):
        stream.take(10)
    go_on.set()


def test_it_is_told_when_all_was_read(pool: nbpar.WorkerPool) -> None:
    told: list[Any] = []
    stream = EagerStream(pool, abs, generated(5), OPTIONS, ordered=True, when_read=told.append)
    until(lambda: told)
    assert told == [stream.reader]
    assert stream.job.n_tasks == 5
    assert outcomes(stream) == list(range(5))
