"""Where a worker's time in a job went: the parts add up, whatever happens to the worker."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.engine.events import ChunkDone, WorkerEnded, WorkerStarted, WorkLost
from nbpar.engine.snapshot import Times, Usage
from nbpar.engine.state import Activity, JobState

BEGIN_S = 1000.0


def job(n_tasks: int | None = None) -> JobState:
    return JobState(job_id=1, name="map f", n_tasks=n_tasks, n_workers=2, begin_s=BEGIN_S)


def times_at(state: JobState, at_s: float, activity: Activity | None = None) -> Times:
    (lane,) = state.snapshot(BEGIN_S + at_s, {} if activity is None else {0: activity}).lanes
    return lane.times


def presence(times: Times) -> float:
    return sum(times[:5])


def approx(*times: float) -> object:
    return pytest.approx(times, abs=1e-9)


# --- cases ------------------------------------------------------------------------------------------------------------


def test_each_part_has_its_place_when_all_is_measured() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S + 1.0, BEGIN_S + 2.0, 0.25))
    state.apply(ChunkDone(0, 0, 3, BEGIN_S + 3.0, BEGIN_S + 5.0, 0, 0.125, 0.5, 0.0625, 300, 40))
    state.apply(ChunkDone(0, 3, 4, BEGIN_S + 6.0, BEGIN_S + 7.0, 0, 0.125, 0.25, 0.0625, 100, 60))
    snapshot = state.snapshot(BEGIN_S + 9.0, {})
    (lane,) = snapshot.lanes
    assert lane.times == approx(0.75, 0.25, 3.0, 1.0, 3.0, 0.0)
    assert (lane.sent_bytes, lane.received_bytes, snapshot.kernel_s) == (400, 100, 0.125)
    assert lane.busy == pytest.approx(3.0 / 7.0)
    assert snapshot.work_s == pytest.approx(3.0)


def test_a_start_counts_as_far_as_the_job_was_there() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S - 5.0, BEGIN_S + 1.0, 3.0))  # the job came in the midst of its init
    assert times_at(state, 4.0) == approx(0.0, 1.0, 3.0, 0.0, 0.0, 0.0)
    warm = job()
    warm.apply(WorkerStarted(0, 7, BEGIN_S - 5.0, BEGIN_S - 4.0, 0.5))
    assert times_at(warm, 4.0) == approx(0.0, 0.0, 4.0, 0.0, 0.0, 0.0)


def test_the_task_that_runs_counts_as_work() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S, BEGIN_S + 1.0))
    assert times_at(state, 5.0, Activity(3, BEGIN_S + 2.0)) == approx(1.0, 0.0, 1.0, 0.0, 3.0, 0.0)


def test_work_is_not_counted_twice_when_the_board_was_read_before_the_report() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S, BEGIN_S + 1.0))
    state.apply(ChunkDone(0, 3, 4, BEGIN_S + 2.0, BEGIN_S + 4.0))
    assert times_at(state, 5.0, Activity(3, BEGIN_S + 2.0)).work_s == pytest.approx(3.0)


def test_time_between_two_workers_of_a_lane_is_nobodys() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S, BEGIN_S + 1.0))
    state.apply(ChunkDone(0, 0, 1, BEGIN_S + 1.0, BEGIN_S + 3.0))
    state.apply(WorkerEnded(0, 7, BEGIN_S + 4.0, "replaced", expected=True, exit_s=0.5))
    assert times_at(state, 8.0) == approx(1.0, 0.0, 0.5, 0.0, 2.0, 0.5)
    state.apply(WorkerStarted(0, 8, BEGIN_S + 9.0, BEGIN_S + 10.0, 0.25))
    state.apply(ChunkDone(0, 1, 2, BEGIN_S + 10.0, BEGIN_S + 11.0))
    (lane,) = state.snapshot(BEGIN_S + 11.0, {}).lanes
    assert lane.times == approx(1.75, 0.25, 0.5, 0.0, 3.0, 0.5)
    assert (lane.pid, lane.begin_s, lane.ready_s, lane.n_done, lane.alive) == (8, 9.0, 10.0, 2, True)
    assert lane.busy == pytest.approx(3.0 / 3.5)


def test_work_that_came_to_nothing_is_work() -> None:
    state = job()
    state.apply(WorkerStarted(0, 7, BEGIN_S, BEGIN_S))
    state.apply(ChunkDone(0, 0, 1, BEGIN_S, BEGIN_S + 2.0))
    state.apply(WorkLost(0, BEGIN_S + 1.0, BEGIN_S + 5.0))  # its first second was told of
    snapshot = state.snapshot(BEGIN_S + 6.0, {})
    assert snapshot.lanes[0].times == approx(0.0, 0.0, 1.0, 0.0, 5.0, 0.0)
    assert snapshot.n_done == 1
    assert [one.n_tasks for one in snapshot.durations if one.n_tasks] == [1]


def test_spans_are_the_same_object_while_nothing_ends() -> None:
    state = job()
    state.apply(ChunkDone(0, 0, 1, BEGIN_S, BEGIN_S + 1.0))
    state.apply(ChunkDone(1, 1, 2, BEGIN_S, BEGIN_S + 1.0))
    first = state.snapshot(BEGIN_S + 2.0, {}).lanes
    state.apply(ChunkDone(1, 2, 3, BEGIN_S + 1.0, BEGIN_S + 1.04))  # the step stays
    second = state.snapshot(BEGIN_S + 3.0, {}).lanes
    assert second[0].spans is first[0].spans
    assert (len(first[1].spans), len(second[1].spans)) == (1, 2)


def test_usage_is_that_of_the_worker() -> None:
    state = job()
    state.apply(ChunkDone(0, 0, 1, BEGIN_S, BEGIN_S + 1.0))
    state.apply(ChunkDone(1, 1, 2, BEGIN_S, BEGIN_S + 1.0))
    usage = (Usage(0.5, 1000, 0.9),)
    assert [lane.usage for lane in state.snapshot(BEGIN_S + 2.0, {}, {1: usage}).lanes] == [(), usage]


# --- all of them ------------------------------------------------------------------------------------------------------

TIME = st.floats(0.0, 100.0)


@dataclass
class Life:
    """A worker as it might be: what it did in turn, each with its length."""

    start_s: float
    init_s: float
    chunks: list[tuple[float, float, float, float]]  # waiting, unpacking, working, packing
    exit_s: float
    gap_s: float  # until the next one is asked for


LIVES = st.lists(
    st.builds(Life, TIME, TIME, st.lists(st.tuples(TIME, TIME, TIME, TIME), max_size=5), TIME, TIME),
    min_size=1,
    max_size=4,
)


@given(LIVES, st.booleans())
def test_parts_are_what_the_workers_did_and_add_up_to_their_presence(lives: list[Life], last_lives: bool) -> None:
    state, at_s, present_s, n_tasks = job(), 0.0, 0.0, 0
    expected = dict.fromkeys(Times._fields, 0.0)
    for life in lives:
        asked_s = at_s
        at_s += life.start_s + life.init_s
        state.apply(WorkerStarted(0, 7, BEGIN_S + asked_s, BEGIN_S + at_s, life.init_s))
        for wait_s, unpack_s, work_s, pack_s in life.chunks:
            at_s += wait_s + unpack_s + work_s
            times_s = BEGIN_S + at_s - work_s, BEGIN_S + at_s
            state.apply(ChunkDone(0, n_tasks, n_tasks + 1, *times_s, 0, unpack_s, pack_s))
            n_tasks += 1
            at_s += pack_s
            expected["wait_s"] += wait_s
            expected["transfer_s"] += unpack_s + pack_s
            expected["work_s"] += work_s
        expected["start_s"] += life.start_s
        expected["init_s"] += life.init_s
        present_s += at_s - asked_s
        if life is not lives[-1] or not last_lives:
            at_s += life.exit_s
            state.apply(WorkerEnded(0, 7, BEGIN_S + at_s, "idle", expected=True, exit_s=life.exit_s))
            expected["exit_s"] += life.exit_s
            at_s += life.gap_s
    times = times_at(state, at_s)
    assert presence(times) == pytest.approx(present_s, abs=1e-6)
    assert times == pytest.approx(tuple(expected.values()), abs=1e-6)


ANY_TIME = st.floats(-50.0, 50.0)
EVENTS = st.lists(
    st.one_of(
        st.builds(lambda a, b, i: WorkerStarted(0, 7, BEGIN_S + a, BEGIN_S + b, abs(i)), ANY_TIME, ANY_TIME, ANY_TIME),
        st.builds(
            lambda a, b, unpack, pack: ChunkDone(0, 0, 1, BEGIN_S + a, BEGIN_S + b, 0, abs(unpack), abs(pack)),
            ANY_TIME,
            ANY_TIME,
            ANY_TIME,
            ANY_TIME,
        ),
        st.builds(lambda a, e: WorkerEnded(0, 7, BEGIN_S + a, "x", True, abs(e)), ANY_TIME, ANY_TIME),
        st.builds(lambda a, b: WorkLost(0, BEGIN_S + a, BEGIN_S + b), ANY_TIME, ANY_TIME),
    ),
    min_size=1,
    max_size=12,
)


@given(EVENTS, st.floats(0.0, 60.0), st.one_of(st.none(), ANY_TIME))
def test_no_part_is_negative_and_none_exceeds_the_rest_whatever_the_clocks_say(
    events: list[WorkerStarted | ChunkDone | WorkerEnded | WorkLost], at_s: float, since_s: float | None
) -> None:
    state = job()
    for event in events:
        state.apply(event)
    activity = None if since_s is None else Activity(5, BEGIN_S + since_s)
    (lane,) = state.snapshot(BEGIN_S + at_s, {} if activity is None else {0: activity}).lanes
    assert min(lane.times) >= 0.0
    assert 0.0 <= lane.busy <= 1.0 + 1e-9
    # A lane of one worker that is there: nothing is missing, nothing is too much.
    if len(events) == 1 and isinstance(events[0], WorkerStarted):
        assert presence(lane.times) == pytest.approx(max(0.0, at_s - lane.begin_s), abs=1e-9)
