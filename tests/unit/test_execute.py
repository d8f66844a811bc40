"""The loop that runs a chunk, here in the test's own thread."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nbpar.wire.board import BOARD_WORDS, Slot
from nbpar.worker.context import Context, TaskInterrupt, current_task, set_context, track
from nbpar.worker.execute import Report, Unusable, Work, run_chunk


@pytest.fixture
def context() -> Any:
    made = Context(0, Slot((ctypes.c_uint64 * BOARD_WORDS)(), 0))
    set_context(made, whole_process=False)
    yield made
    set_context(None, whole_process=False)


def run(context: Context, function: Callable[..., Any], items: Any, **options: Any) -> list[Report]:
    reports: list[Report] = []
    work = Work(function, options.pop("star", False), options.pop("seed", 0), options.pop("seeded", False))
    run_chunk(
        work, items, chunk_id=9, start=100, context=context, quick=options.pop("quick", False), report=reports.append
    )
    assert [one.final for one in reports] == [False] * (len(reports) - 1) + [True]
    return reports


def outcome(reports: list[Report]) -> dict[int, Any]:
    """Values and exceptions by index, whatever the reports they came in."""
    found: dict[int, Any] = {}
    at = 100
    for report in reports:
        assert report.first == at
        at += report.n_ended
        failures = dict(report.failures)
        values = iter(report.values)
        for index in range(report.first, at):
            found[index] = failures[index] if index in failures else next(values)
        assert next(values, None) is None, "a value too many"
    return found


@pytest.mark.parametrize("quick", [False, True])
def test_every_task_has_its_outcome_when_some_fail(context: Context, quick: bool) -> None:
    def task(x: int) -> int:
        if x % 3 == 0:
            raise ValueError(x)
        return 10 * x

    found = outcome(run(context, task, list(range(20)), quick=quick))
    assert list(found) == list(range(100, 120))
    for index, value in found.items():
        x = index - 100
        assert (value.args == (x,)) if x % 3 == 0 else (value == 10 * x)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_outcome_is_the_tasks_own_when_it_raises_anything(
    context: Context, quick: bool, error: type[BaseException]
) -> None:
    def task(x: int) -> int:
        if x == 1:
            raise error
        return x

    found = outcome(run(context, task, [0, 1, 2], quick=quick))
    assert (found[100], type(found[101]), found[102]) == (0, error, 2)


@pytest.mark.parametrize("quick", [False, True])
def test_items_are_unpacked_when_starred(context: Context, quick: bool) -> None:
    assert outcome(run(context, pow, [(2, 3), [3, 2]], star=True, quick=quick)) == {100: 8, 101: 9}


@pytest.mark.parametrize("quick", [False, True])
def test_nothing_more_runs_when_interrupted(context: Context, quick: bool) -> None:
    ran = []

    def task(x: int) -> int:
        ran.append(x)
        if x == 3:
            context.slot.drop(9)
            raise TaskInterrupt
        return x

    assert outcome(run(context, task, list(range(10)), quick=quick)) == {100: 0, 101: 1, 102: 2}
    assert ran == [0, 1, 2, 3]
    assert (context.slot.chunk_id, context.slot.index) == (None, None)


def test_an_interrupt_goes_on_when_it_is_meant_for_a_task_around(context: Context) -> None:
    def task(x: int) -> int:
        if x == 3:
            raise TaskInterrupt  # the kernel has not dropped this chunk
        return x

    with pytest.raises(TaskInterrupt):
        run(context, task, list(range(10)))
    assert (context.slot.chunk_id, context.slot.index) == (None, None)


def test_nothing_more_runs_when_the_chunk_is_dropped(context: Context) -> None:
    def task(x: int) -> int:
        if x == 1:
            context.slot.drop(9)
        return x

    assert outcome(run(context, task, list(range(10)))) == {100: 0, 101: 1}


def test_board_says_what_runs_when_a_task_looks(context: Context) -> None:
    slot = context.slot
    found = outcome(run(context, lambda _: (slot.chunk_id, slot.index, current_task().index), [0, 0]))
    assert found == {100: (9, 100, 100), 101: (9, 101, 101)}


def test_unusable_item_fails_alone_when_it_did_not_arrive(context: Context) -> None:
    error = ValueError("lost")
    assert outcome(run(context, abs, [-1, Unusable(error), -2])) == {100: 1, 101: error, 102: 2}


@pytest.mark.parametrize("quick", [False, True])
def test_tasks_draw_the_same_when_seeded(context: Context, quick: bool) -> None:
    def task(_: int) -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(current_task().rng.random())  # noqa: NPY002

    context.seed = 5
    whole = outcome(run(context, task, [0] * 4, seed=5, seeded=True, quick=quick))
    assert whole == outcome(run(context, task, [0] * 4, seed=5, seeded=True))
    assert len({value for drawn in whole.values() for value in drawn}) == 12


def test_results_are_reported_early_when_a_chunk_is_long(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(i / 100 for i in range(10_000))
    monkeypatch.setattr("nbpar.worker.execute.perf_counter", lambda: next(clock))
    reports = run(context, abs, list(range(50)))
    assert len(reports) > 2
    assert outcome(reports) == {100 + i: i for i in range(50)}


@pytest.mark.parametrize("quick", [False, True])
def test_failure_is_told_before_the_next_task_begins(context: Context, quick: bool) -> None:
    told: list[Report] = []

    def task(x: int) -> int:
        assert x != 1
        if x == 2:
            assert [index for one in told for index, _ in one.failures] == [101]
        return x

    work = Work(task, False, 0, False)
    run_chunk(work, [0, 1, 2], chunk_id=9, start=100, context=context, quick=quick, report=told.append)
    assert [len(one.failures) for one in told] == [1, 0]


def test_rest_is_given_back_when_a_guess_was_wrong(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(i / 100 for i in range(10_000))
    monkeypatch.setattr("nbpar.worker.execute.perf_counter", lambda: next(clock))
    for quick in (False, True):
        reports: list[Report] = []
        run_chunk(
            Work(abs),
            list(range(50)),
            chunk_id=9,
            start=100,
            context=context,
            quick=quick,
            report=reports.append,
            returnable=True,
        )
        assert reports[-1].final
        assert 1 <= len(outcome(reports)) < 50


def test_progress_is_on_the_board_when_a_task_tracks(context: Context) -> None:
    def task(_: int) -> list[Any]:
        return [context.slot.tracked for _ in track(range(2))]

    assert outcome(run(context, task, [0])) == {100: [(0, 2), (1, 2)]}


# --- what is measured -------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only in tasks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 50.0
        monkeypatch.setattr("nbpar.worker.execute.perf_counter", lambda: self.now_s)

    def work(self, seconds: float) -> float:
        self.now_s += seconds
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_longest_task_is_told_of_with_its_time_when_they_are_timed_one_by_one(
    context: Context, clock: Clock
) -> None:
    (report,) = run(context, clock.work, [0.001, 0.005, 0.002])
    assert report.longest_index == 101
    assert report.longest_s == pytest.approx(0.005)
    assert report.end_s - report.begin_s == pytest.approx(0.008)


def test_each_report_has_a_longest_task_of_its_own(context: Context, clock: Clock) -> None:
    first, second = run(context, clock.work, [0.01, 0.06, 0.02, 0.03])
    assert (first.first, first.longest_index, second.first, second.longest_index) == (100, 101, 102, 103)
    assert [first.longest_s, second.longest_s] == pytest.approx([0.06, 0.03])


def test_tasks_in_a_block_are_not_timed(context: Context, clock: Clock) -> None:
    (report,) = run(context, clock.work, [0.0] * 300, quick=True)
    assert report.longest_index == -1
    (report,) = run(context, clock.work, [0.001, 0.02, 0.001, 0.001], quick=True)
    assert report.longest_index == 100  # the first is a block by itself
    assert report.longest_s == pytest.approx(0.001)


def test_the_longest_is_found_behind_a_quick_stretch_that_a_failure_ended(context: Context, clock: Clock) -> None:
    def task(seconds: float) -> float:
        clock.work(seconds)
        if seconds == 0.003:
            raise ValueError
        return seconds

    reports = run(context, task, [0.001, 0.001, 0.003, 0.002, 0.004], quick=True)
    assert [(one.first, one.n_ended) for one in reports] == [(100, 3), (103, 2)]
    assert reports[1].longest_index == 104
    assert reports[1].longest_s == pytest.approx(0.004)


@pytest.mark.parametrize("items", [[0.02, 0.01, -1.0], [-1.0]])
def test_time_in_an_interrupted_task_is_not_that_of_the_tasks_before(
    context: Context, clock: Clock, items: list[float]
) -> None:
    def task(seconds: float) -> float:
        if seconds < 0:
            clock.work(30.0)
            context.slot.drop(9)
            raise TaskInterrupt
        return clock.work(seconds)

    (report,) = run(context, task, items)
    worked_s = report.end_s - report.begin_s
    assert worked_s == pytest.approx(0.03 if len(items) > 1 else 30.0)  # else it is known to have come to nothing
    assert report.n_ended == len(items) - 1


def test_unpacking_counts_with_the_first_report_alone(context: Context, clock: Clock) -> None:
    reports: list[Report] = []
    work = Work(clock.work)
    run_chunk(
        work, [0.06] * 3, chunk_id=9, start=0, context=context, quick=False, report=reports.append, unpack_s=0.125
    )
    assert [one.unpack_s for one in reports] == [0.125] + [0.0] * (len(reports) - 1)
    assert len(reports) == 3
