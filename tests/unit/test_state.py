from __future__ import annotations

import pytest

from nbpar.engine.events import ChunkDone, Failure, Note, Restored, WorkerEnded, WorkerStarted
from nbpar.engine.spans import N_STEPS
from nbpar.engine.state import MAX_FAILURES, MAX_NOTES, Activity, JobState


def state(n_tasks: int | None = 100) -> JobState:
    return JobState(job_id=1, name="map f", n_tasks=n_tasks, n_workers=2, begin_s=1000.0)


def test_times_count_from_the_jobs_start_when_chunks_end() -> None:
    job = state()
    job.apply(WorkerStarted(0, 4711, 999.0, 1000.5))
    job.apply(ChunkDone(0, 0, 10, 1001.0, 1002.0, 1))
    snapshot = job.snapshot(1004.0, {})
    (lane,) = snapshot.lanes
    assert (snapshot.n_done, lane.n_done, lane.pid) == (10, 10, 4711)
    assert (lane.begin_s, lane.ready_s) == (0.0, 0.5)
    (span,) = lane.spans
    assert (span.begin_s, span.end_s, span.first, span.last, span.n_failed) == (1.0, 2.0, 0, 9, 1)
    assert lane.busy == pytest.approx(1.0 / 3.5)
    assert snapshot.work_s == pytest.approx(1.0)


def test_unreported_tasks_are_counted_when_a_chunk_is_under_way() -> None:
    job = state()
    job.apply(ChunkDone(0, 0, 10, 1001.0, 1002.0))
    snapshot = job.snapshot(1004.0, {0: Activity(14, 1003.0, 4, (2, 5))})
    (lane,) = snapshot.lanes
    assert (snapshot.n_done, lane.n_done, lane.current_index, lane.track) == (14, 14, 14, (2, 5))
    assert lane.current_since_s == pytest.approx(3.0)


def test_what_ended_is_still_shown_while_its_report_is_on_the_way() -> None:
    def shown(at_s: float, activity: Activity | None = None) -> tuple[int, int | None, float, float]:
        snapshot = job.snapshot(1000.0 + at_s, {} if activity is None else {0: activity})
        (lane,) = snapshot.lanes
        return snapshot.n_done, lane.current_index, lane.current_since_s, round(lane.times.work_s, 3)

    job = state()
    job.apply(ChunkDone(0, 0, 10, 1001.0, 1002.0))
    now = Activity(14, 1003.0, 4)
    assert shown(4.0, now) == (14, 14, 3.0, 2.0)
    assert shown(4.1) == (14, 14, 3.0, 2.1)  # neither on the board nor reported: it ended a moment ago
    assert shown(4.2, Activity(None, 1004.15)) == (14, 14, 3.0, 2.2)  # and the next chunk has been taken up
    assert shown(4.3) == (10, None, 0.0, 1.0)  # nothing came of it
    assert shown(5.0, now)[:2] == (14, 14)
    job.apply(ChunkDone(0, 10, 15, 1002.0, 1005.0))
    assert shown(5.1) == (15, None, 0.0, 4.0)
    assert shown(5.2, Activity(15, 1005.1))[:2] == (15, 15)
    job.apply(WorkerEnded(0, 4711, 1005.25, "idle", expected=True))
    assert shown(5.3)[:2] == (15, None)
    assert shown(5.4, Activity(16, 1005.35))[1] == 16
    job.finish("cancelled", 1005.5)
    assert shown(5.5)[1] is None


def test_count_never_exceeds_the_input_when_the_board_is_ahead() -> None:
    job = state(10)
    job.apply(ChunkDone(0, 0, 10, 1001.0, 1002.0))
    assert job.snapshot(1003.0, {0: Activity(9, 1002.0, 5)}).n_done == 10


def test_what_was_restored_is_done_but_says_nothing_of_the_speed() -> None:
    job = state()
    job.apply(Restored(60))
    job.apply(Note("60 of 100 came from a file", aloud=True))
    job.apply(Note("another"))
    assert job.snapshot(1000.0, {}).n_done == 60
    job.apply(ChunkDone(0, 60, 80, 1000.0, 1002.0))
    snapshot = job.snapshot(1002.0, {})
    assert (snapshot.n_done, snapshot.n_restored, snapshot.rate, snapshot.eta_s) == (80, 60, 10.0, 2.0)
    assert (snapshot.notes, snapshot.aloud) == (
        ("60 of 100 came from a file", "another"),
        ("60 of 100 came from a file",),
    )
    job.finish("done", 1004.0)
    assert job.snapshot(1005.0, {}).rate == 5.0


def test_spans_stay_bounded_when_chunks_are_many() -> None:
    job = state(None)
    for i in range(5 * N_STEPS):
        job.apply(ChunkDone(0, i, i + 1, 1000.0 + i, 1000.5 + i))
    (lane,) = job.snapshot(9999.0, {}).lanes
    assert len(lane.spans) <= N_STEPS
    assert sum(span.n_tasks for span in lane.spans) == 5 * N_STEPS
    assert all(a.end_s <= b.begin_s for a, b in zip(lane.spans, lane.spans[1:], strict=False))


def test_lists_stay_bounded_when_everything_fails() -> None:
    job = state(None)
    for i in range(10 * MAX_FAILURES):
        job.apply(Failure(i, "0", "ValueError", "no"))
        job.apply(Note(f"note {i}"))
    snapshot = job.snapshot(1001.0, {})
    assert snapshot.n_failed == 10 * MAX_FAILURES
    assert (len(snapshot.failures), len(snapshot.notes)) == (MAX_FAILURES, MAX_NOTES)


def test_death_is_noted_when_it_was_not_expected() -> None:
    job = state()
    job.apply(WorkerStarted(0, 1, 1000.0, 1000.1))
    job.apply(WorkerStarted(1, 2, 1000.0, 1000.1))
    job.apply(WorkerEnded(0, 1, 1002.0, "was killed by SIGKILL", expected=False))
    job.apply(WorkerEnded(1, 2, 1002.0, "idle", expected=True))
    snapshot = job.snapshot(1003.0, {})
    assert [lane.alive for lane in snapshot.lanes] == [False, False]
    (note,) = snapshot.notes
    assert "SIGKILL" in note


def test_same_note_is_kept_once_when_repeated() -> None:
    job = state()
    job.apply(Note("again"))
    job.apply(Note("again"))
    assert job.snapshot(1001.0, {}).notes == ("again",)


def test_clock_stops_when_the_job_has_ended() -> None:
    job = state(10)
    job.apply(ChunkDone(0, 0, 10, 1000.0, 1002.0))
    job.finish("done", 1002.0)
    first, later = job.snapshot(1003.0, {}), job.snapshot(1999.0, {})
    assert (first.elapsed_s, later.elapsed_s) == (2.0, 2.0)
    assert (first.rate, first.eta_s, first.ended) == (5.0, None, True)


def test_eta_follows_the_rate_when_the_length_is_known() -> None:
    job = state(100)
    job.apply(ChunkDone(0, 0, 50, 1000.0, 1005.0))
    snapshot = job.snapshot(1005.0, {})
    assert snapshot.rate == pytest.approx(10.0)
    assert snapshot.eta_s == pytest.approx(5.0)


def test_eta_is_unknown_when_the_length_is() -> None:
    job = state(None)
    job.apply(ChunkDone(0, 0, 50, 1000.0, 1005.0))
    assert job.snapshot(1005.0, {}).eta_s is None
