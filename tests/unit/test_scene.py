"""What the front end is told of a job: merged to pixels, only what is new, and never less than what happened."""

from __future__ import annotations

import doctest
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine import lanes
from nbpar.engine.events import ChunkDone, Failure, OutputLine, SlowTask, WorkerStarted
from nbpar.engine.lanes import Activity
from nbpar.engine.snapshot import Bin, Lane, Snapshot, Span, Usage
from nbpar.engine.state import JobState
from nbpar.views import dashboard, merging
from nbpar.views.merging import N_FIELDS, UNITS_PER_S, Marks, step_for, units
from nbpar.views.scene import N_LINES, TRACEBACK_LENGTH, Scene

T = TypeVar("T", Snapshot, Lane, Span)

BEGIN, END, FIRST, LAST, TASKS, FAILED, WORK, _TONE, SENT, RECEIVED = range(N_FIELDS)


def replace(record: T, **changes: Any) -> T:
    return type(record)(**{name: getattr(record, name) for name in type(record).__match_args__} | changes)


def lane(worker_id: int = 0, n_spans: int = 3) -> Lane:
    spans = tuple(Span(0.1 + i * 0.5, 0.55 + i * 0.5, i, i, 1) for i in range(n_spans))
    return Lane(worker_id, 100 + worker_id, n_spans, 0.9, spans, ready_s=0.1)


def job(**changes: Any) -> Snapshot:
    start = Snapshot(7, "map simulate", "running", 2000, 1284, 0, 2.0, 312.0, 2.3, 2, (lane(0), lane(1)))
    return replace(start, **changes)


def failure(index: int, traceback: str = "Traceback\n  boom") -> Failure:
    return Failure(index, f"item {index}", "ValueError", "boom", 0, traceback)


class FrontEnd:
    """What dashboard.js keeps of the messages: the same rules, written down once more."""

    def __init__(self) -> None:
        self.scene: dict[str, Any] = {}
        self.lanes: dict[int, dict[str, Any]] = {}
        self.marks: dict[int, list[list[int]]] = {}
        self.usage: dict[int, list[int]] = {}
        self.failures: list[Any] = []
        self.lines: list[Any] = []

    def take(self, message: dict[str, Any]) -> None:
        news = json.loads(json.dumps(message, allow_nan=False, ensure_ascii=False).encode())
        assert news["full"] or news["seq"] == self.scene["seq"] + 1
        if news["full"]:
            self.__init__()  # type: ignore[misc]  # it forgets all that it had
        elif news["step"] != self.scene["step"]:
            self.marks = {i: self._coarsened(marks, news["step"]) for i, marks in self.marks.items()}
        self.scene |= news
        for part in news["lanes"]:
            i = part["id"]
            self.marks.setdefault(i, [])
            self.usage.setdefault(i, [])
            self.lanes.setdefault(i, {}).update(
                {key: value for key, value in part.items() if key not in ("kept", "marks", "usage_kept", "usage")}
            )
            if "marks" in part:
                numbers = part["marks"]
                new = [numbers[at : at + N_FIELDS] for at in range(0, len(numbers), N_FIELDS)]
                self.marks[i] = self.marks[i][: part["kept"]] + new
            if "usage" in part:
                self.usage[i] = self.usage[i][: 3 * part["usage_kept"]] + part["usage"]
        if "failures" in news:
            self.failures = self.failures[: news["failures_kept"]] + news["failures"]
        self.lines = (self.lines + news.get("lines", []))[-N_LINES:]

    @staticmethod
    def _coarsened(marks: list[list[int]], step: int) -> list[list[int]]:
        merged: list[list[int]] = []
        for mark in marks:
            if merged and mark[END] - merged[-1][BEGIN] <= step:
                last = merged.pop()
                sums = [a + b for a, b in zip(last, mark, strict=True)]
                begin, end = last[BEGIN], mark[END]
                first, final = min(last[FIRST], mark[FIRST]), max(last[LAST], mark[LAST])
                mark = [begin, end, first, final, *sums[TASKS:_TONE], last[_TONE], *sums[SENT:]]  # noqa: PLW2901
            merged.append(mark)
        return merged

    def known(self) -> tuple[Any, ...]:
        """All of it, to be compared; of the scene what no message repeats."""
        told = ("name", "notes", "advice", "durations", "slowest", "n_lines", "step", "n_done", "status")
        scene = {key: self.scene[key] for key in told}
        return scene, self.lanes, self.marks, self.usage, self.failures, self.lines


def test_examples_in_docstrings_are_true() -> None:
    assert doctest.testmod(merging).attempted > 0
    assert doctest.testmod(merging).failed == 0


# --- merging ----------------------------------------------------------------------------------------------------------

chunks = st.tuples(
    st.integers(0, 2),  # worker
    st.sampled_from([0.0, 0.00001, 0.0004, 0.01, 0.3, 40.0]),  # wait before it
    st.sampled_from([0.00001, 0.0007, 0.004, 0.2, 15.0]),  # how long it took
    st.integers(1, 4),  # tasks
    st.integers(0, 1),  # failed
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(chunks, max_size=12), min_size=1, max_size=12), st.sampled_from([4, 9, 512]))
def test_changes_add_up_to_everything_and_nothing_is_lost(ticks: list[list[Any]], most_spans: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "MAX_SPANS", most_spans)  # so that a lane's own neighbours are merged, again and again
        truth = JobState(job_id=7, name="x", n_tasks=None, n_workers=3, begin_s=0.0)
        scene, front_end = Scene(), FrontEnd()
        scene.set_width(100)
        now_s, n_tasks, failed, ends = 0.1, 0, [0, 0, 0], [0.05, 0.05, 0.05]
        for tick in ticks:
            for worker_id, wait_s, took_s, n, n_failed in tick:
                begin_s = ends[worker_id] + wait_s
                ends[worker_id] = begin_s + took_s
                event = ChunkDone(
                    worker_id,
                    n_tasks,
                    n_tasks + n,
                    begin_s,
                    ends[worker_id],
                    n_failed,
                    sent_bytes=n,
                    received_bytes=2 * n,
                )
                truth.apply(event)
                n_tasks += n
                failed[worker_id] += n_failed
            now_s = max(now_s + 0.1, *ends)
            front_end.take(scene.change(truth.snapshot(now_s, {}), cell_is_running=True))
        late = FrontEnd()
        late.take(scene.full())
    assert late.known() == front_end.known()
    marks = [mark for lane_marks in front_end.marks.values() for mark in lane_marks]
    assert sum(mark[TASKS] for mark in marks) == n_tasks
    assert sum(mark[SENT] for mark in marks) == n_tasks
    assert sum(mark[RECEIVED] for mark in marks) == 2 * n_tasks
    for worker_id, lane_marks in front_end.marks.items():
        assert sum(mark[FAILED] for mark in lane_marks) == failed[worker_id]
        assert all(mark[BEGIN] <= mark[BEGIN] + mark[WORK] <= mark[END] for mark in lane_marks)
        assert all(a[END] <= b[BEGIN] for a, b in pairwise(lane_marks))
        assert len(lane_marks) <= 2 * units(now_s) / front_end.scene["step"] + 2


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30), st.booleans()), max_size=80), st.integers(0, 12))
def test_a_failure_is_seen_where_it_was(parts: list[tuple[int, int, bool]], power: int) -> None:
    spans, at = [], 0
    for i, (wait, took, fails) in enumerate(parts):
        at += wait
        spans.append(Span(at / 1000, (at + took) / 1000, i, i, 1, int(fails)))
        at += took
    marks = Marks()
    marks.take(tuple(spans[:40]), 1)
    marks.coarsen(2**power)
    marks.take(tuple(spans), 2**power)
    numbers = marks.all()
    shown = [numbers[i : i + N_FIELDS] for i in range(0, len(numbers), N_FIELDS)]
    for span in spans:
        if span.n_failed:
            middle = units((span.begin_s + span.end_s) / 2)
            (there,) = [mark for mark in shown if mark[BEGIN] <= middle <= mark[END]]
            assert there[FAILED]


def test_a_lane_that_is_another_one_is_told_anew() -> None:
    scene, front_end = Scene(), FrontEnd()
    front_end.take(scene.change(job(lanes=(lane(0, 9),)), cell_is_running=True))
    front_end.take(scene.change(job(lanes=(lane(0, 2),)), cell_is_running=True))
    assert [mark[FIRST] for mark in front_end.marks[0]] == [0, 1]
    front_end.take(scene.change(job(lanes=(lane(1, 1),)), cell_is_running=True))
    front_end.take(scene.change(job(lanes=()), cell_is_running=True))
    assert front_end.marks == {}


def test_times_that_are_not_finite_are_drawn_at_the_beginning() -> None:
    odd = Span(float("nan"), float("inf"), 0, 0, 1)
    message = Scene().change(
        job(elapsed_s=float("nan"), lanes=(replace(lane(), spans=(odd,), busy=float("nan"), ready_s=float("inf")),)),
        cell_is_running=True,
    )
    FrontEnd().take(message)
    assert message["lanes"][0]["marks"][:2] == [0, 0]


def test_messages_stay_small_however_many_tasks_there_are_and_however_long_it_takes() -> None:
    n_workers, per_tick = 8, 25
    truth = JobState(job_id=7, name="x", n_tasks=None, n_workers=n_workers, begin_s=0.0)
    scene = Scene()
    sizes, index = [], 0
    for tick in range(200):
        begin_s = 0.1 * tick
        for worker_id in range(n_workers):
            for i in range(per_tick):
                at_s = begin_s + i * 0.1 / per_tick
                truth.apply(ChunkDone(worker_id, index, index + 50, at_s, at_s + 0.0035))
                index += 50
        snapshot = truth.snapshot(begin_s + 0.1, {w: Activity(index, begin_s + 0.1) for w in range(n_workers)})
        sizes.append(len(json.dumps(scene.change(snapshot, cell_is_running=True))))
    assert index == 200 * n_workers * per_tick * 50
    assert max(sizes) < 12_000 + 500
    assert sum(sizes[-50:]) < sum(sizes[20:70]) * 0.7  # pixels have become wider
    assert len(json.dumps(scene.full())) < 1_000_000


@given(st.integers(0, 10**9), st.integers(64, 4000), st.integers(0, 20))
def test_steps_cover_the_time_and_are_no_wider_than_needed(elapsed: int, n_steps: int, power: int) -> None:
    least = 2**power
    step = step_for(elapsed, n_steps, least)
    assert step * n_steps >= elapsed
    assert step == least or step // 2 * n_steps < elapsed


@pytest.mark.parametrize("width", ["600", None, float("nan"), -5, 10**12, [], True])
def test_what_a_front_end_says_of_its_width_is_not_trusted(width: object) -> None:
    scene = Scene()
    scene.set_width(width)
    message = scene.change(job(elapsed_s=1000.0), cell_is_running=True)
    assert UNITS_PER_S * 1000 / 8000 / 2 <= message["step"] <= UNITS_PER_S * 1000 / 200 * 2


# --- only what is new -------------------------------------------------------------------------------------------------


def test_a_tick_sends_only_the_new_spans_and_no_unchanged_text() -> None:
    scene = Scene()
    same: dict[str, Any] = {
        "failures": (failure(1),),
        "notes": ("share it",),
        "advice": ("batch them",),
        "durations": (Bin(0.1, 0.2, 5),),
        "slowest": (SlowTask(3, 0.5, 0, "x"),),
    }
    first = scene.change(job(**same), cell_is_running=True)
    assert first["full"]
    assert len(first["lanes"][0]["marks"]) == 3 * N_FIELDS
    message = scene.change(job(**same, lanes=(lane(0, 4), lane(1))), cell_is_running=False)
    assert not message["full"]
    (only,) = message["lanes"]
    assert (only["id"], only["kept"], len(only["marks"])) == (0, 3, N_FIELDS)
    assert set(only) == {"id", "n_done", "kept", "marks"}
    for name in (*same, "name", "lines"):
        assert name not in message
    assert message["cell_is_running"] is False
    assert scene.full()["notes"] == ["share it"]
    assert scene.full()["failures"] == first["failures"]


def test_new_failures_follow_those_that_are_known() -> None:
    scene, front_end = Scene(), FrontEnd()
    front_end.take(scene.change(job(failures=(failure(1),)), cell_is_running=True))
    message = scene.change(job(failures=(failure(1), failure(5, "x" * 9000 + "end"))), cell_is_running=True)
    front_end.take(message)
    assert (message["failures_kept"], len(message["failures"])) == (1, 1)
    assert [entry[:4] for entry in front_end.failures] == [
        [1, "item 1", "ValueError: boom", 0],
        [5, "item 5", "ValueError: boom", 0],
    ]
    assert front_end.failures[1][4].endswith("end")
    assert len(front_end.failures[1][4]) == TRACEBACK_LENGTH


def test_the_last_lines_are_kept_and_sent_once() -> None:
    scene, front_end = Scene(), FrontEnd()
    scene.write([OutputLine(0, i, "stdout", f"  line {i}") for i in range(150)])
    front_end.take(scene.change(job(), cell_is_running=True))
    assert len(front_end.lines) == 150
    assert front_end.lines[-1] == [0, 149, False, "  line 149"]
    front_end.take(scene.change(job(), cell_is_running=True))
    assert len(front_end.lines) == 150
    scene.write([OutputLine(1, None, "stderr", f"late {i}\x1b[31m") for i in range(1000)])
    front_end.take(scene.change(job(), cell_is_running=True))
    assert len(front_end.lines) == N_LINES
    assert front_end.lines[-1] == [1, None, True, "late 999"]
    assert front_end.scene["n_lines"] == 1150
    late = FrontEnd()
    late.take(scene.full())
    assert late.lines == front_end.lines


def test_usage_is_sent_as_it_comes_and_with_many_workers_only_the_newest() -> None:
    samples = tuple(Usage(float(i), 10_000_000 + 1000 * i, 0.5) for i in range(4))
    scene, front_end = Scene(), FrontEnd()
    message: dict[str, Any] = {}
    for n in (2, 3, 4):
        message = scene.change(job(lanes=(replace(lane(), usage=samples[:n]),)), cell_is_running=True)
        front_end.take(message)
    assert message["lanes"] == [{"id": 0, "usage_kept": 3, "usage": [3 * UNITS_PER_S, 10_003, 50]}]
    assert front_end.usage[0] == [number for i in range(4) for number in (i * UNITS_PER_S, 10_000 + i, 50)]
    many = tuple(replace(lane(i), usage=samples) for i in range(64))
    message = Scene().change(job(lanes=many), cell_is_running=True)
    assert all(len(entry["usage"]) == 3 for entry in message["lanes"])


def test_a_worker_that_starts_has_no_pid_yet() -> None:
    truth = JobState(job_id=7, name="x", n_tasks=1, n_workers=1, begin_s=0.0)
    truth.apply(WorkerStarted(0, 42, 0.0, 0.5, 0.2))
    scene = Scene()
    starting = scene.change(job(lanes=(replace(lane(0, 0), pid=0),)), cell_is_running=True)
    assert starting["lanes"][0]["pid"] == 0
    ready = scene.change(truth.snapshot(1.0, {}), cell_is_running=True)
    assert ready["lanes"][0]["pid"] == 42
    assert ready["lanes"][0]["ready"] == UNITS_PER_S // 2


def test_the_front_end_makes_no_markup_of_text_and_fetches_nothing() -> None:
    source = Path(dashboard.__file__).with_name("dashboard.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "import ", "fetch(", "://"):
        assert word not in source
