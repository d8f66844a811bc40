"""What the kernel notes of each chunk: what went out for it, and which tasks are worth a look at their item."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nbpar.backends import measures
from nbpar.backends.base import JobSpec, Listed, TasksEnded
from nbpar.backends.measures import Measures
from nbpar.options import JobOptions


class Sink:
    """Nobody is told."""

    def apply(self, event: Any) -> None: ...
    def write(self, line: Any) -> None: ...
    def completed(self, start: int, values: Any) -> None: ...
    def failed(self, error: Any) -> None: ...
    def ended(self, status: Any, error: Any) -> None: ...


def job(items: list[Any]) -> JobSpec:
    return JobSpec(1, abs, False, Listed(items), len(items), True, JobOptions(), 0, Sink())


def ended(chunk_id: int, first: int, n_ended: int, **measured: Any) -> TasksEnded:
    return TasksEnded(3, chunk_id, first, n_ended, True, 1.0, 2.0, **measured)


def test_what_went_out_for_a_chunk_counts_with_its_first_report() -> None:
    made = Measures()
    made.sent(7, 0.25, 1000)
    made.sent(8, 0.5, 2000)
    first = made.done(ended(7, 0, 5, n_bytes=40, unpack_s=0.1, pack_s=0.2, decode_s=0.125), 1, 2)
    assert (first.worker_id, first.start, first.stop, first.n_failed, first.n_again) == (3, 0, 3, 1, 2)
    assert (first.sent_bytes, first.received_bytes, first.kernel_s) == (1000, 40, 0.375)
    assert (first.unpack_s, first.pack_s) == (0.1, 0.2)
    second = made.done(ended(7, 5, 5, n_bytes=40, decode_s=0.125), 0, 0)
    assert (second.sent_bytes, second.kernel_s) == (0, 0.125)
    made.dropped(8)
    assert made.done(ended(8, 10, 1), 0, 0).sent_bytes == 0


def test_items_are_looked_at_only_for_tasks_that_are_among_the_slowest() -> None:
    seen = []

    class Item:
        def __init__(self, index: int) -> None:
            self.index = index

        def __repr__(self) -> str:
            seen.append(self.index)
            return f"item {self.index}"

    made, spec = Measures(), job([Item(index) for index in range(12)])
    durations = [0.0005, 0.001, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.09, 0.11, 0.6, 0.1]
    told = []
    for index, duration_s in enumerate(durations):
        if duration_s > made.slow_above_s:
            told.append(made.slow_task(spec, 0, index, duration_s))
    assert seen == [2, 3, 4, 5, 6, 9, 10]
    assert [one.item_repr for one in told] == [f"item {index}" for index in seen]


def test_a_repr_that_fails_or_is_endless_does_no_harm() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise SystemExit

    made, spec = Measures(), job([Bad(), "x" * 1_000_000])
    bad, long = made.slow_task(spec, 0, 0, 1.0), made.slow_task(spec, 0, 1, 1.0)
    assert "whose repr failed" in bad.item_repr
    assert len(long.item_repr) <= 120


def test_slow_reprs_are_given_up_when_they_take_a_share_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "REPR_S", 0.02)

    class Table:
        def __repr__(self) -> str:
            time.sleep(0.01)
            return "a table"

    made, spec = Measures(), job([Table() for _ in range(200)])
    told = [made.slow_task(spec, 0, index, 0.002 + index / 1000) for index in range(200)]
    reprs = [one.item_repr for one in told]  # each is slower than all before
    assert reprs[0] == "a table" and reprs[-1] == "<Table>"
    assert 2 <= reprs.count("a table") < 10
