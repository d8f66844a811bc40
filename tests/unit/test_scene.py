"""What the front end is told of a job: merged to pixels, only what is new, and never less than what happened."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine import spans
from nbpar.engine.events import ChunkDone, Failure, OutputLine, SlowTask, WorkerStarted
from nbpar.engine.lanes import Activity
from nbpar.engine.snapshot import Bin, Lane, Snapshot, Span, Usage
from nbpar.engine.spans import N_FIELDS, UNITS_PER_S, Spans, units
from nbpar.engine.state import JobState
from nbpar.views import dashboard
from nbpar.views.scene import N_LINES, TRACEBACK_LENGTH, Scene, packed, plain

T = TypeVar("T", Snapshot, Lane, Span)

BEGIN, END, FIRST, LAST, TASKS, FAILED, WORK, _TONE, SENT, RECEIVED = range(N_FIELDS)


def replace(record: T, **changes: Any) -> T:
    return type(record)(**{name: getattr(record, name) for name in type(record).__match_args__} | changes)


def lane(worker_id: int = 0, n_spans: int = 3) -> Lane:
    some = tuple(Span(0.1 + i * 0.5, 0.55 + i * 0.5, i, i, 1) for i in range(n_spans))
    return Lane(worker_id, 100 + worker_id, n_spans, 0.9, some, ready_s=0.1)


def job(**changes: Any) -> Snapshot:
    start = Snapshot(7, "map simulate", "running", 2000, 1284, 0, 2.0, 312.0, 2.3, 2, (lane(0), lane(1)))
    return replace(start, **changes)


def failure(index: int, traceback: str = "Traceback\n  boom") -> Failure:
    return Failure(index, f"item {index}", "ValueError", "boom", 0, traceback)


def whole(scene: Scene) -> dict[str, Any]:
    """All of a scene, as a change is."""
    message = scene.full()
    return message | {"marks": [(row, kept, array("q", numbers)) for row, kept, *numbers in message["marks"]]}


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
        news = json.loads(json.dumps(plain(message), allow_nan=False, ensure_ascii=False).encode())
        assert news == self._unpacked(*packed(message))
        assert news["full"] or news["seq"] == self.scene["seq"] + 1
        if news["full"]:
            self.__init__()  # type: ignore[misc]  # it forgets all that it had
        elif news["step"] != self.scene["step"]:
            self.marks = {i: self._coarsened(marks, news["step"]) for i, marks in self.marks.items()}
        self.scene |= news
        columns = news["lanes"]
        ids = columns.get("id", list(self.lanes))
        self.lanes = {i: self.lanes.get(i, {}) for i in ids}
        for name, column in columns.items():
            for i, value in zip(ids, column, strict=True):
                self.lanes[i][name] = value
        for row, kept, *numbers in news["marks"]:
            new = [numbers[at : at + N_FIELDS] for at in range(0, len(numbers), N_FIELDS)]
            self.marks[ids[row]] = self.marks.get(ids[row], [])[:kept] + new
        for row, kept, *numbers in news["usage"]:
            self.usage[ids[row]] = self.usage.get(ids[row], [])[: 3 * kept] + numbers
        if "failures" in news:
            self.failures = self.failures[: news["failures_kept"]] + news["failures"]
        self.lines = (self.lines + news.get("lines", []))[-N_LINES:]

    @staticmethod
    def _unpacked(content: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        (all_of_them,) = buffers
        numbers, at, marks = array("q", all_of_them), 0, []
        for row, kept, n in content.pop("packed"):
            marks.append([row, kept, *numbers[at : at + n]])
            at += n
        assert at == len(numbers)
        told: dict[str, Any] = json.loads(json.dumps(content))
        return told | {"marks": marks}

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


# --- what happened ----------------------------------------------------------------------------------------------------

chunks = st.tuples(
    st.integers(0, 2),  # worker
    st.sampled_from([0.0, 0.00001, 0.0004, 0.01, 0.3, 40.0]),  # wait before it
    st.sampled_from([0.00001, 0.0007, 0.004, 0.2, 15.0]),  # how long it took
    st.integers(1, 4),  # tasks
    st.integers(0, 1),  # failed
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(chunks, max_size=12)), min_size=1, max_size=12),
    st.sampled_from([4, 9, 512]),
)
def test_changes_add_up_to_everything_and_nothing_is_lost(ticks: list[tuple[bool, list[Any]]], n_steps: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "LEAST_STEPS", 1)
        patch.setattr(spans, "N_STEPS", n_steps)  # so that neighbours are merged, again and again
        truth = JobState(job_id=7, name="x", n_tasks=None, n_workers=3, begin_s=0.0)
        scene, front_end = Scene(), FrontEnd()
        now_s, n_tasks, failed, ends = 0.1, 0, [0, 0, 0], [0.05, 0.05, 0.05]
        for is_shown, tick in [*ticks, (True, [])]:
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
            snapshot = truth.snapshot(now_s, {})  # also where it is not for this view, but for another one
            if is_shown:
                front_end.take(scene.change(snapshot, cell_is_running=True))
        late = FrontEnd()
        late.take(whole(scene))
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
    assert list(message["marks"][0][2][:2]) == [0, 0]


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
        content, buffers = packed(scene.change(snapshot, cell_is_running=True))
        sizes.append(len(json.dumps(content)) + sum(map(len, buffers)))
    assert index == 200 * n_workers * per_tick * 50
    assert max(sizes) < n_workers * (per_tick + 1) * N_FIELDS * 8 + 1500
    assert sum(sizes[-50:]) < sum(sizes[20:70]) * 0.7  # pixels have become wider
    assert len(json.dumps(scene.full())) < 1_000_000


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
    growing = spans.Steps().lane()
    for span in lane(0).spans:
        growing.add(*span)
    before = replace(lane(0), spans=growing.freeze()), replace(lane(1), spans=Spans.of(lane(1).spans))
    first = scene.change(job(**same, lanes=before), cell_is_running=True)
    assert first["full"]
    assert [len(numbers) for _, _, numbers in first["marks"]] == [3 * N_FIELDS] * 2
    growing.add(*lane(0, 4).spans[3])
    lanes = replace(before[0], spans=growing.freeze(), n_done=4), before[1]
    message = scene.change(job(**same, lanes=lanes), cell_is_running=False)
    assert not message["full"]
    ((row, kept, numbers),) = message["marks"]
    assert (row, kept, len(numbers)) == (0, 3, N_FIELDS)
    assert message["lanes"] == {"n_done": (4, 3)}
    assert message["usage"] == []
    for name in (*same, "name", "lines"):
        assert name not in message
    assert message["cell_is_running"] is False
    assert scene.full()["notes"] == ["share it"]
    assert scene.full()["failures"] == first["failures"]
    again = scene.change(job(**same, lanes=lanes), cell_is_running=False)
    assert (again["lanes"], again["marks"], again["usage"]) == ({}, [], [])


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
    late.take(whole(scene))
    assert late.lines == front_end.lines


def test_usage_is_sent_as_it_comes_and_with_many_workers_only_the_newest() -> None:
    samples = tuple(Usage(float(i), 10_000_000 + 1000 * i, 0.5) for i in range(4))
    scene, front_end = Scene(), FrontEnd()
    message: dict[str, Any] = {}
    for n in (2, 3, 4):
        message = scene.change(job(lanes=(replace(lane(), usage=samples[:n]),)), cell_is_running=True)
        front_end.take(message)
    assert (message["lanes"], message["usage"]) == ({}, [[0, 3, 3 * UNITS_PER_S, 10_003, 50]])
    assert front_end.usage[0] == [number for i in range(4) for number in (i * UNITS_PER_S, 10_000 + i, 50)]
    many = tuple(replace(lane(i), usage=samples) for i in range(64))
    message = Scene().change(job(lanes=many), cell_is_running=True)
    assert [len(entry) for entry in message["usage"]] == [2 + 3] * 64


def test_a_worker_that_comes_late_has_its_place_among_the_others() -> None:
    scene, front_end, growing = Scene(), FrontEnd(), spans.Steps()
    of = {i: growing.lane() for i in range(4)}
    for n in range(1, 4):
        lanes = []
        for i in (1, 3) if n == 1 else (0, 1, 3) if n == 2 else (0, 1, 2, 3):
            of[i].add(n + 0.1, n + 0.9, 10 * i + n, 10 * i + n, 1)
            lanes.append(replace(lane(i), spans=of[i].freeze(), usage=(Usage(1.0, 1000 * i, 0.5),)))
        front_end.take(scene.change(job(lanes=tuple(lanes), step=growing.step), cell_is_running=True))
    late = FrontEnd()
    late.take(whole(scene))
    assert late.known() == front_end.known()
    assert {i: [mark[FIRST] for mark in marks] for i, marks in front_end.marks.items()} == {
        0: [2, 3],
        1: [11, 12, 13],
        2: [23],
        3: [31, 32, 33],
    }
    assert front_end.usage == {i: [UNITS_PER_S, i, 50] for i in range(4)}


def test_a_worker_that_starts_has_no_pid_yet() -> None:
    truth = JobState(job_id=7, name="x", n_tasks=1, n_workers=1, begin_s=0.0)
    truth.apply(WorkerStarted(0, 42, 0.0, 0.5, 0.2))
    scene = Scene()
    starting = scene.change(job(lanes=(replace(lane(0, 0), pid=0),)), cell_is_running=True)
    assert starting["lanes"]["pid"] == (0,)
    ready = scene.change(truth.snapshot(1.0, {}), cell_is_running=True)
    assert ready["lanes"]["pid"] == (42,)
    assert ready["lanes"]["ready"] == [UNITS_PER_S // 2]


def test_the_front_end_makes_no_markup_of_text_and_fetches_nothing() -> None:
    source = Path(dashboard.__file__).with_name("dashboard.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "import ", "fetch(", "://"):
        assert word not in source
