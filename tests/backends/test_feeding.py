"""Open jobs: items are put when they come, and outcomes go back with their tags."""

from __future__ import annotations

import operator
import threading
from typing import Any

import pytest

import nbpar
from nbpar.errors import JobCancelledError, PoolClosedError
from nbpar.feeding import Feed
from nbpar.options import JobOptions
from tests.backends.conftest import only
from tests.helpers import until


@only("forkserver", "threads", "serial")
def test_each_outcome_has_the_tag_of_its_item(pool: nbpar.WorkerPool) -> None:
    feed: Feed[int] = Feed(pool, abs, JobOptions(name="magnitudes"), n_expected=3)
    assert feed.job.n_tasks == 3
    feed.put([-1, -2], tags=["a", "b"])
    outcomes = feed.outcomes()
    found = [next(outcomes), next(outcomes)]
    feed.put([-3], tags=["c"])
    feed.close()
    found += outcomes
    assert sorted((one.tag, one.value, one.error) for one in found) == [("a", 1, None), ("b", 2, None), ("c", 3, None)]
    assert (feed.job.status, feed.job.n_tasks, feed.job.name) == ("done", 3, "magnitudes")
    assert feed.unanswered() == []


@only("forkserver", "threads", "serial")
def test_a_failure_ends_a_feed_and_tells_who_has_no_outcome(pool: nbpar.WorkerPool) -> None:
    feed: Feed[Any] = Feed(pool, operator.truth, JobOptions(max_in_flight=1))
    feed.put([1, Untrue()], tags=["good", "bad"])
    found = {one.tag: one for one in feed.outcomes()}
    assert found["good"].value is True
    assert found["bad"].error is not None and "never so" in str(found["bad"].error)
    until(feed.job.done)
    assert feed.job.status == "failed"
    assert feed.unanswered() == []
    with pytest.raises(JobCancelledError):
        feed.put([1], tags=["late"])


class Untrue:
    def __bool__(self) -> bool:
        raise ValueError("never so")


@only("threads")
def test_a_feed_goes_on_after_failures_where_they_are_to_be_returned(pool: nbpar.WorkerPool) -> None:
    feed: Feed[Any] = Feed(pool, operator.truth, JobOptions(on_error="return"))
    feed.put([Untrue(), 1], tags=[0, 1])
    feed.close()
    assert {one.tag: one.error is None for one in feed.outcomes()} == {0: False, 1: True}


@only("threads")
def test_a_cancelled_feed_raises_and_tells_who_has_no_outcome(pool: nbpar.WorkerPool) -> None:
    held = threading.Event()
    feed: Feed[Any] = Feed(pool, lambda _: held.wait(20), JobOptions())
    feed.put([1, 2, 3], tags="abc")
    feed.cancel()
    until(feed.job.done)
    feed.put([4], tags="d")  # whoever puts need not know
    try:
        with pytest.raises(JobCancelledError):
            list(feed.outcomes())
    finally:
        held.set()
    assert sorted(feed.unanswered()) == ["a", "b", "c", "d"]


@only("threads")
def test_who_stops_taking_wants_no_more(pool: nbpar.WorkerPool) -> None:
    feed: Feed[int] = Feed(pool, abs, JobOptions())
    feed.put([-1], tags=[0])
    outcomes = feed.outcomes()
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]  # it is a generator
    until(feed.job.done)
    assert feed.job.status == "cancelled"


@only("threads")
def test_a_pool_that_is_shut_down_takes_no_feed(make_pool: Any) -> None:
    pool = make_pool()
    pool.shutdown()
    with pytest.raises(PoolClosedError):
        Feed(pool, abs, JobOptions())
