"""A lane's spans: merged to what a screen can tell apart, looked at without being copied, and nothing lost."""

from __future__ import annotations

import doctest
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.engine import spans
from nbpar.engine.snapshot import Span
from nbpar.engine.spans import (
    LATEST,
    LEAST_STEPS,
    MOST_STEPS,
    N_FIELDS,
    N_STEPS,
    UNITS_PER_S,
    Spans,
    Steps,
    step_for,
    units,
)

BEGIN, END, FIRST, LAST, TASKS, FAILED, WORK, TONE, SENT, RECEIVED = range(N_FIELDS)

parts = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30), st.booleans()), max_size=80)  # wait, length, fails


def made(some: list[tuple[int, int, bool]]) -> list[Span]:
    found, at = [], 0
    for i, (wait, took, fails) in enumerate(some):
        at += wait
        found.append(Span(at / 1000, (at + took) / 1000, i, i, 1, int(fails), 3 * i, i))
        at += took
    return found


def numbers_of(seen: Spans) -> list[list[int]]:
    kept, numbers = seen.since(Spans.of(()))
    assert kept == 0
    return [list(numbers[at : at + N_FIELDS]) for at in range(0, len(numbers), N_FIELDS)]


def test_examples_in_docstrings_are_true() -> None:
    assert doctest.testmod(spans).attempted > 0
    assert doctest.testmod(spans).failed == 0


# --- merging ----------------------------------------------------------------------------------------------------------


@given(parts, st.integers(0, 12))
def test_what_is_merged_has_all_that_it_was_made_of(some: list[tuple[int, int, bool]], power: int) -> None:
    steps, ended = Steps(), made(some)
    lane = steps.lane()
    for span in ended[:40]:
        lane.add(*span)
    steps.cover(2**power * UNITS_PER_S)
    for span in ended[40:]:
        lane.add(*span)
    shown = numbers_of(lane.freeze())
    for field, of_span in ((TASKS, 4), (FAILED, 5), (SENT, 6), (RECEIVED, 7)):
        assert sum(mark[field] for mark in shown) == sum(span[of_span] for span in ended)
    for span in ended:
        middle = units((span.begin_s + span.end_s) / 2)
        (there,) = [mark for mark in shown if mark[BEGIN] <= middle <= mark[END]]
        assert there[FIRST] <= span.first <= there[LAST]
        assert there[FAILED] >= span.n_failed  # a failure is seen where it was
    assert all(b[END] - a[BEGIN] > steps.step for a, b in pairwise(shown))
    assert all(mark[WORK] <= mark[END] - mark[BEGIN] for mark in shown)


def test_a_gap_between_merged_tasks_is_no_work() -> None:
    steps = Steps()
    lane = steps.lane()
    steps.cover(1000 * UNITS_PER_S)
    lane.add(0.0, 0.2, 0, 0, 1)
    lane.add(0.5, 0.6, 1, 1, 1)
    (mark,) = numbers_of(lane.freeze())
    assert (mark[BEGIN], mark[END], mark[WORK]) == (0, units(0.6), units(0.3))


def test_neighbours_that_are_not_merged_differ_in_tone() -> None:
    lane = Steps().lane()
    for i in range(10):
        lane.add(i, i + 0.9, i, i, 1)
    assert [mark[TONE] for mark in numbers_of(lane.freeze())] == [0, 1] * 5


@pytest.mark.parametrize("n_lanes", [1, 8, 64, 1000])
def test_lanes_stay_bounded_each_and_all_together(n_lanes: int) -> None:
    steps = Steps()
    lanes = [steps.lane() for _ in range(n_lanes)]
    for i in range(4000):
        lanes[0].add(i, i + 0.5, i, i, 1)
    n_steps = max(LEAST_STEPS, min(N_STEPS, MOST_STEPS // n_lanes))
    n_spans = len(lanes[0].freeze())
    assert n_steps // 2 <= n_spans <= 2 * n_steps
    assert sum(span.n_tasks for span in lanes[0].freeze()) == 4000


@given(st.integers(0, 10**9), st.integers(64, 4000), st.integers(0, 20))
def test_steps_cover_the_time_and_are_no_wider_than_needed(elapsed: int, n_steps: int, power: int) -> None:
    least = 2**power
    step = step_for(elapsed, n_steps, least)
    assert step * n_steps >= elapsed
    assert step == least or step // 2 * n_steps < elapsed


@pytest.mark.parametrize(
    ("begin_s", "end_s", "expected"),
    [
        (float("nan"), float("inf"), (0, 0)),
        (5.0, 1.0, (5 * UNITS_PER_S, 5 * UNITS_PER_S)),
        (1.0, 1e300, (UNITS_PER_S, LATEST)),
        (1e300, 1e301, (LATEST, LATEST)),
        (2.0, float("nan"), (2 * UNITS_PER_S, 2 * UNITS_PER_S)),
    ],
)
def test_times_that_no_clock_shows_have_a_place_all_the_same(
    begin_s: float, end_s: float, expected: tuple[int, int]
) -> None:
    lane = Steps().lane()
    lane.add(begin_s, end_s, 0, 0, 1)
    lane.add(begin_s, end_s, 1, 1, 1)
    shown = numbers_of(lane.freeze())
    assert (shown[0][BEGIN], shown[-1][END]) == expected
    assert sum(mark[TASKS] for mark in shown) == 2


# --- as they were at a moment -----------------------------------------------------------------------------------------


def test_what_was_seen_stays_while_the_lane_grows() -> None:
    steps = Steps()
    lane = steps.lane()
    seen = []
    for i in range(600):
        lane.add(0.01 * i, 0.01 * i + 0.004, i, i, 1, 0, 7)
        now = lane.freeze()
        assert now is lane.freeze()
        seen.append((now, numbers_of(now), now[-1]))
    assert steps.step > 1000  # spans were merged in place, and all of them anew
    for i, (then, numbers, last) in enumerate(seen):
        assert numbers_of(then) == numbers
        assert then[-1] == last == list(then)[-1]
        assert sum(span.sent_bytes for span in then) == 7 * (i + 1)


def test_spans_are_a_sequence_of_spans() -> None:
    some = made([(3, 10, False), (0, 20, True), (50, 1, False)])
    seen = Spans.of(some)
    assert list(seen) == some
    assert (len(seen), seen[0], seen[-1], seen[1:], some[1] in seen) == (3, some[0], some[2], tuple(some[1:]), True)
    nothing = Spans.of(())
    assert (len(nothing), list(nothing), bool(nothing)) == (0, [], False)
    with pytest.raises(IndexError):
        nothing[-1]


def test_of_a_lane_that_grows_only_what_is_new_is_told() -> None:
    steps = Steps()
    lane = steps.lane()
    steps.cover(units(500.0))
    assert 1.0 < steps.step / UNITS_PER_S < 2.0
    nothing = lane.freeze()
    lane.add(0.0, 0.5, 0, 0, 1)
    one = lane.freeze()
    assert (one.since(nothing)[0], len(one.since(nothing)[1])) == (0, N_FIELDS)
    lane.add(0.6, 0.9, 1, 1, 1)  # merged with it
    grown = lane.freeze()
    assert (grown.since(one)[0], len(grown.since(one)[1])) == (0, N_FIELDS)
    lane.add(5.0, 9.0, 2, 2, 1)
    lane.add(9.0, 19.0, 3, 3, 1)
    three = lane.freeze()
    assert (three.since(grown)[0], len(three.since(grown)[1])) == (1, 2 * N_FIELDS)
    assert (three.since(one)[0], len(three.since(one)[1])) == (0, 3 * N_FIELDS)
    assert Spans.of([Span(0.0, 1.0, 0, 0, 1)]).since(three)[0] == 0  # not the lane that it was
