"""How long tasks took: bins, quantiles, the slowest."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.engine.durations import N_SLOWEST, SLOW_S, Histogram, Slowest
from nbpar.engine.events import ChunkDone, SlowTask
from nbpar.engine.insights import quantile_s
from nbpar.engine.snapshot import Bin
from nbpar.engine.state import JobState

SOME = st.lists(st.tuples(st.floats(1e-7, 9.9e5), st.integers(1, 1000)), min_size=1, max_size=50)


@given(SOME)
def test_every_task_is_in_the_bin_of_its_duration(tasks: list[tuple[float, int]]) -> None:
    histogram = Histogram()
    for duration_s, n_tasks in tasks:
        histogram.add(duration_s, n_tasks)
    bins = histogram.bins()
    assert all(left.to_s == right.from_s for left, right in pairwise(bins))
    assert bins[0].n_tasks > 0 and bins[-1].n_tasks > 0
    for one in bins:
        inside = sum(n for duration_s, n in tasks if one.from_s <= duration_s < one.to_s)
        assert one.n_tasks == inside, one
    assert sum(one.n_tasks for one in bins) == sum(n for _, n in tasks)


@given(SOME, st.floats(0.0, 1.0))
def test_a_quantile_is_within_a_bin_of_the_truth(tasks: list[tuple[float, int]], share: float) -> None:
    histogram = Histogram()
    for duration_s, n_tasks in tasks:
        histogram.add(duration_s, n_tasks)
    found = quantile_s(histogram.bins(), share)
    durations = sorted(duration_s for duration_s, n in tasks for _ in range(n))
    truth = durations[min(len(durations) - 1, max(0, round(share * len(durations) + 0.5) - 1))]
    before = durations[max(0, round(share * len(durations) - 0.5) - 1)]
    assert before / 1.34 <= found <= truth * 1.34


def test_what_is_out_of_range_counts_in_the_outermost_bins() -> None:
    histogram = Histogram()
    histogram.add(0.0, 3)
    histogram.add(-1.0, 1)  # a clock that was set back
    histogram.add(1e9, 2)
    bins = histogram.bins()
    assert (bins[0].n_tasks, bins[-1].n_tasks) == (4, 2)
    assert bins[0].from_s == pytest.approx(1e-7) and bins[-1].to_s == pytest.approx(1e6)


def test_bins_are_made_anew_only_when_something_came() -> None:
    histogram = Histogram()
    assert histogram.bins() == ()
    histogram.add(0.01, 1)
    assert histogram.bins() is histogram.bins()
    before = histogram.bins()
    histogram.add(0.01, 1)
    assert [one.n_tasks for one in histogram.bins()] == [2]
    assert [one.n_tasks for one in before] == [1]


@given(st.lists(st.floats(1e-6, 100.0), max_size=60))
def test_only_tasks_longer_than_the_bound_are_among_the_slowest(durations: list[float]) -> None:
    slowest, entered = Slowest(), []
    for duration_s in durations:
        if duration_s > slowest.above_s:
            slowest.add(duration_s)
            entered.append(duration_s)
    # Whatever came in later, the slowest of all have come in.
    longest = sorted((one for one in durations if one > SLOW_S), reverse=True)[:N_SLOWEST]
    assert sorted(entered, reverse=True)[:N_SLOWEST] == longest


# --- of a job ---------------------------------------------------------------------------------------------------------


def durations(*events: ChunkDone) -> list[tuple[float, int]]:
    """Filled bins: the tenths of a second in their middle, rounded, and the tasks."""
    state = JobState(job_id=1, name="f", n_tasks=None, n_workers=1, begin_s=0.0)
    for event in events:
        state.apply(event)
    bins = [one for one in state.snapshot(9.0, {}).durations if one.n_tasks]
    return [(round(quantile_s([one], 0.5), 1), one.n_tasks) for one in bins]


def test_tasks_of_a_chunk_count_with_their_mean_and_the_longest_with_its_own_time() -> None:
    assert durations(ChunkDone(0, 0, 10, 0.0, 1.0)) == [(0.1, 10)]
    one_long = ChunkDone(0, 0, 11, 0.0, 2.0, longest_index=4, longest_s=1.0)
    assert durations(one_long) == [(0.1, 10), (1.2, 1)]
    alone = ChunkDone(0, 4, 5, 0.0, 1.0, longest_index=4, longest_s=1.0)
    assert durations(alone) == [(1.2, 1)]


def test_tasks_that_are_tried_again_share_the_time_and_do_not_count() -> None:
    assert durations(ChunkDone(0, 0, 1, 0.0, 1.0, n_again=9)) == [(0.1, 1)]
    assert durations(ChunkDone(0, 0, 0, 0.0, 1.0, longest_index=0, longest_s=1.0, n_again=1)) == []


def test_the_five_slowest_are_kept_the_slowest_first_and_each_once() -> None:
    state = JobState(job_id=1, name="f", n_tasks=None, n_workers=1, begin_s=0.0)
    for index in range(20):
        state.apply(SlowTask(index, (index * 7 % 20) / 10, 0, f"item {index}"))
    state.apply(SlowTask(1, 9.0, 1, "item 1"))  # a second try
    state.apply(SlowTask(1, 8.0, 1, "item 1"))
    slowest = state.snapshot(1.0, {}).slowest
    assert len(slowest) == N_SLOWEST
    assert (slowest[0].task_index, slowest[0].duration_s, slowest[0].worker_id) == (1, 9.0, 1)
    assert [one.duration_s for one in slowest] == sorted((one.duration_s for one in slowest), reverse=True)
    assert len({one.task_index for one in slowest}) == N_SLOWEST


def test_the_longest_of_all_is_the_first_bin_from_above_when_none_was_timed_alone() -> None:
    assert quantile_s([Bin(1.0, 2.0, 5), Bin(2.0, 4.0, 0)], 1.0) == 2.0
