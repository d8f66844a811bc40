"""Profiles: what a sampler sees of one thread, how it is packed and put together, how it is drawn."""

from __future__ import annotations

import importlib.util
import json
import linecache
import os
import random
import sys
import threading
import time
import warnings
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine.events import Sampled, WorkerEnded
from nbpar.engine.profile import MAX_LINES, MAX_TREE_BYTES, Merged, to_speedscope
from nbpar.engine.snapshot import HotLine, Profile
from nbpar.engine.state import JobState
from nbpar.errors import OptionsError
from nbpar.options import JobOptions
from nbpar.views import profile as view
from nbpar.wire.board import Slot
from nbpar.worker import profile as worker_profile
from nbpar.worker.context import Context
from nbpar.worker.execute import Report, Work, run_chunk
from nbpar.worker.profile import MAX_DEPTH, MAX_STACKS, Sampler, _bounded, _packed
from tests.helpers import until

HERE = Path(__file__).name


def loops(n: int) -> int:
    x = 0
    for _ in range(4 * n):
        x += 1
    for _ in range(n):
        x += 2
    return x


def line_of(text: str) -> int:
    """The number of a line of this file."""
    lines = linecache.getlines(__file__)
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


def no_cell(_file: str) -> None:
    return None


def run(function: Callable[[Any], Any], items: Sequence[Any], sampler: Sampler) -> list[Any]:
    """Run a chunk as a worker does."""
    values: list[Any] = []

    def report(one: Report) -> None:
        if one.final:
            sampler.stop()
        assert not one.failures, one.failures
        values.extend(one.values)

    sampler.start()
    run_chunk(Work(function), items, chunk_id=1, start=0, context=Context(0, Slot.alone()), quick=False, report=report)
    return values


def profile_of(told: Sequence[bytes]) -> Profile:
    merged = Merged(no_cell)
    for data in told:
        assert merged.add(0, data) == ""
    return merged.profile()


def packed(found: list[tuple[float, list[tuple[str, str, int, int]]]], pending: Any = ()) -> bytes:
    """What a worker tells, from stacks of (function, file, first line, line)."""

    def rows(stacks: Any) -> dict[tuple[str, ...], list[float]]:
        return {
            tuple(f"{name}\0{file}\0{first}\1l{line}" for name, file, first, line in stack): [seconds, 0.0, 1, 1]
            for seconds, stack in stacks
        }

    return _packed("", rows(found), rows(pending))


# --- the sampler ------------------------------------------------------------------------------------------------------


def share_of_lines(told: Sequence[bytes]) -> dict[int, float]:
    return {one.line: one.share for one in profile_of(told).lines if one.place.endswith(HERE)}


@pytest.mark.parametrize("only_watch", [False, True])
def test_loops_that_call_nothing_are_told_apart(only_watch: bool) -> None:
    hot, less = line_of("x += 1"), line_of("x += 2")
    seen = []
    for n in (700_000, 1_400_000, 4_200_000):  # a stall of the machine counts for the line that it hits
        told: list[bytes] = []
        begin_s = time.perf_counter()
        run(loops, [n] * 2, Sampler(told.append, only_watch=only_watch))
        took_s = time.perf_counter() - begin_s
        profile, share = profile_of(told), share_of_lines(told)
        assert 0.6 * took_s < profile.duration_s < 1.01 * took_s
        seen.append(str(profile))
        if share[hot] > 0.55 and share[hot] > 2 * share.get(less, 0.0) > 0.1:
            break
    else:
        pytest.fail("\n".join(seen))
    assert profile.lines[0].source == "x += 1"


def test_so_are_those_of_a_function_that_is_called_often() -> None:
    def often(n: int) -> int:
        return sum(loops(10_000) for _ in range(n))  # some 2 ms each, of which the profiler sees the return alone

    seen = []
    for n in (200, 400, 1200):
        told: list[bytes] = []
        run(often, [n], Sampler(told.append))
        share = share_of_lines(told)
        seen.append(str(profile_of(told)))
        if share[line_of("x += 1")] > 2 * share.get(line_of("x += 2"), 0.0) and share.get(line_of("return x"), 0) < 0.1:
            break
    else:
        pytest.fail("\n".join(seen))


def test_a_c_function_counts_for_the_line_that_calls_it() -> None:
    def sleeps(_: int) -> None:
        time.sleep(0.1)

    told: list[bytes] = []
    run(sleeps, [0, 1], Sampler(told.append))
    profile = profile_of(told)
    assert [(one.source, round(one.share)) for one in profile.lines] == [("time.sleep(0.1)", 1)]
    names = {tuple(profile.frames[frame][0] for frame in stack) for seconds, stack in profile.stacks if seconds > 0.01}
    assert all(stack[0] == "sleeps" for stack in names), "no frame of nbpar's stands above the task's"
    assert ("sleeps", "sleep") in names


def test_what_is_seen_is_told_while_a_long_task_runs_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_profile, "TELL_S", 0.05)
    told: list[bytes] = []
    n_during: list[int] = []

    def long(n: int) -> None:
        loops(n)
        until(lambda: len(told) > 2)
        n_during.append(len(told))

    begin_s = time.perf_counter()
    run(long, [700_000], Sampler(told.append))
    assert n_during[0] > 2
    assert any(json.loads(zlib.decompress(data))[3] for data in told), "a stretch under way was told, too"
    assert profile_of(told).duration_s < 1.01 * (time.perf_counter() - begin_s)


def test_little_is_not_told_at_once_but_never_more_than_a_part_is_left() -> None:
    told: list[bytes] = []
    sampler = Sampler(told.append)
    begin_s = time.perf_counter()
    for _ in range(60):
        run(loops, [20_000], sampler)
    took_s = time.perf_counter() - begin_s
    assert len(told) < 60
    assert profile_of(told).duration_s > 0.5 * took_s


def test_a_thread_with_a_profiler_is_left_alone_and_it_is_said() -> None:
    told: list[bytes] = []

    def tracer(*_: object) -> None:
        return None

    sys.setprofile(tracer)
    try:
        assert run(abs, [-1, -2], Sampler(told.append)) == [1, 2]
        assert sys.getprofile() is tracer
    finally:
        sys.setprofile(None)
    state = JobState(job_id=1, name="map f", n_tasks=2, n_workers=1, begin_s=0.0)
    state.merged = Merged(no_cell)
    state.apply(Sampled(3, 1, told[0]))
    state.finish("done", 1.0)
    snapshot = state.snapshot(1.0, {})
    assert snapshot.notes == ("There is no profile of worker 3: another profiler is active in it.",)
    assert snapshot.profile is not None
    assert view.NOTHING_SEEN in view.to_html(snapshot.profile)


def test_without_pyinstrument_in_the_worker_tasks_run_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    monkeypatch.setitem(sys.modules, "pyinstrument.stack_sampler", None)
    told: list[bytes] = []
    assert run(abs, [-1], Sampler(told.append)) == [1]
    assert "pyinstrument" in Merged(no_cell).add(0, told[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_process_that_a_task_forks_is_not_profiled() -> None:
    def forks(_: int) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os._exit(7 if sys.getprofile() is None else 8)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    told: list[bytes] = []
    sampler = Sampler(told.append)
    assert run(forks, [0], sampler) == [7]
    assert run(loops, [200_000], sampler), "this process goes on"
    assert any(one.source.startswith("x +=") for one in profile_of(told).lines)


def test_the_watching_thread_ends_when_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_profile, "REST_S", 0.01)
    told: list[bytes] = []
    sampler = Sampler(told.append)

    def watchers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "nbpar-profile"]

    for _ in range(2):
        run(loops, [1000], sampler)
        until(lambda: not watchers())


# --- what travels -----------------------------------------------------------------------------------------------------

_frames = st.tuples(st.sampled_from("fgh"), st.sampled_from(["/a.py", "/b.py"]), st.just(1), st.integers(1, 9))
_stacks = st.lists(st.tuples(st.floats(1e-6, 10), st.lists(_frames, min_size=1, max_size=12)), max_size=30)


def total_s(stacks: Any) -> float:
    distinct: dict[Any, float] = {tuple(stack): seconds for seconds, stack in stacks}
    return sum(round(seconds * 1e6) for seconds in distinct.values()) / 1e6


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), _stacks, _stacks), max_size=6))
def test_no_time_is_lost_or_doubled(messages: list[tuple[int, Any, Any]]) -> None:
    merged = Merged(no_cell)
    pending: dict[int, Any] = {}
    for worker_id, found, under_way in messages:
        merged.add(worker_id, packed(found, under_way))
        pending[worker_id] = under_way
    profile = merged.profile()
    expected_s = sum(total_s(found) for _, found, _ in messages) + sum(map(total_s, pending.values()))
    assert profile.duration_s == pytest.approx(expected_s, abs=1e-6)
    assert sum(seconds for seconds, _ in profile.stacks) == pytest.approx(expected_s, abs=1e-6)
    assert len(profile.lines) <= MAX_LINES
    assert all(0 < one.share <= 1.000001 for one in profile.lines)
    roots = [row for row in profile.tree.split("\n") if row and row[0].isdigit()]
    assert sum(float(row.split()[0]) for row in roots) == pytest.approx(expected_s, rel=0.1, abs=0.05)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3000), st.integers(1, MAX_DEPTH), st.integers(0, 99))
def test_a_message_is_bounded_whatever_was_seen(n: int, depth: int, seed: int) -> None:
    chance = random.Random(seed)
    found: dict[tuple[str, ...], list[float]] = {}
    for _ in range(n):
        stack = tuple(f"f{chance.randrange(40)}\0/a.py\0{1}\1l{chance.randrange(900)}" for _ in range(depth))
        found[stack] = [chance.random(), chance.random(), 1, 1]
    bounded = _bounded(found)
    assert len(bounded) <= MAX_STACKS
    assert [sum(part) for part in zip(*bounded.values(), strict=True)] == pytest.approx(
        [sum(part) for part in zip(*found.values(), strict=True)]
    )
    assert len(_packed("", bounded, {})) < 130_000


def test_of_a_worker_that_died_what_was_pending_stays() -> None:
    state = JobState(job_id=1, name="map f", n_tasks=2, n_workers=1, begin_s=0.0)
    state.merged = Merged(no_cell)
    state.apply(Sampled(0, 1, packed([], [(1.0, [("f", "/a.py", 1, 2)])])))
    state.apply(WorkerEnded(0, 17, 1.0, "killed by SIGKILL", expected=False))
    state.apply(Sampled(0, 1, packed([(2.0, [("f", "/a.py", 1, 3)])])))
    assert state.snapshot(2.0, {}).profile is None, "it is made at the end"
    state.finish("done", 3.0)
    profile = state.snapshot(3.0, {}).profile
    assert profile is not None
    assert profile.duration_s == pytest.approx(3.0)
    assert state.snapshot(4.0, {}).profile is profile, "and once"


# --- lines and tree ---------------------------------------------------------------------------------------------------


def test_a_line_counts_once_for_a_stack_in_which_it_recurs() -> None:
    deep = [("fib", "/a.py", 1, 3)] * MAX_DEPTH
    profile = profile_of([packed([(2.0, deep), (2.0, [("fib", "/a.py", 1, 2)])])])
    assert [(one.line, one.share) for one in profile.lines] == [(3, 0.5), (2, 0.5)] or profile.lines[0].share == 0.5
    assert profile.tree.count("\n") == MAX_DEPTH - 1


def test_lines_of_cells_come_first_and_are_called_as_people_call_them() -> None:
    merged = Merged({"/tmp/ipykernel_1/123.py": "cell 12"}.get)
    helper, cell = ("step", "/home/me/model.py", 5), ("simulate", "/tmp/ipykernel_1/123.py", 1)
    merged.add(0, packed([(3.0, [(*cell, 2), (*helper, 7)]), (1.0, [(*cell, 3)])]))
    profile = merged.profile()
    assert [(one.place, one.line, one.share) for one in profile.lines] == [
        ("cell 12", 2, 0.75),
        ("cell 12", 3, 0.25),
        ("model.py", 7, 0.75),
    ]
    assert profile.tree == "4.00 s  100%  simulate  cell 12:1\n└─ 3.00 s  75%  step  model.py:5"


def test_what_libraries_call_among_themselves_is_left_out() -> None:
    library = str(Path(json.__file__))
    stack = [("task", "/a.py", 1, 2), ("dumps", library, 1, 9), ("encode", library, 5, 9), ("default", "/a.py", 8, 9)]
    profile = profile_of([packed([(1.0, stack), (1.0, stack[:3])])])
    assert [row.split("%  ")[1].split()[0] for row in profile.tree.split("\n")] == ["task", "dumps", "default"]
    assert {(one.place, one.line) for one in profile.lines} == {("a.py", 2), ("a.py", 9)}


def test_small_branches_are_folded_and_the_tree_is_bounded() -> None:
    wide = [(1.0, [("f" * 90, "/a.py", 1, 2), (f"g{i}" * 30, "/b.py", 3 * i, 4)]) for i in range(90)]
    profile = profile_of([packed([*wide, (0.5, [("f" * 90, "/a.py", 1, 2), ("small", "/b.py", 1, 1)])])])
    assert "small" not in profile.tree
    assert len(profile.tree.encode()) <= MAX_TREE_BYTES
    deep = [(1.0, [(f"f{i}", "/a.py", i, i) for i in range(depth)]) for depth in range(1, MAX_DEPTH)]
    assert len(profile_of([packed(deep)]).tree.encode()) <= MAX_TREE_BYTES


def test_saved_for_speedscope(tmp_path: Path) -> None:
    profile = profile_of([packed([(1.5, [("f", "/a.py", 1, 2), ("g", "/a.py", 7, 8)]), (0.5, [("f", "/a.py", 1, 3)])])])
    profile.save(tmp_path / "p.speedscope.json")
    said = json.loads((tmp_path / "p.speedscope.json").read_text())
    assert said == json.loads(to_speedscope(profile))
    (one,) = said["profiles"]
    frames = [frame["name"] for frame in said["shared"]["frames"]]
    assert {
        tuple(frames[i] for i in stack): weight for stack, weight in zip(one["samples"], one["weights"], strict=True)
    } == {
        ("f", "g"): 1.5,
        ("f",): 0.5,
    }
    assert one["endValue"] == 2.0


def test_a_profile_reads_as_text() -> None:
    profile = profile_of([packed([(1.5, [("f", "/a.py", 1, 2)])])])
    assert str(profile).startswith("1.50 s in tasks, 1 samples\n 100%  a.py, line 2:")
    assert "1.50 s  100%  f  a.py:1" in str(profile)
    assert len(repr(profile)) < 100


# --- the picture ------------------------------------------------------------------------------------------------------


def test_html_is_well_formed_and_small_whatever_is_in_it() -> None:
    line = HotLine("<b>&" * 40, 3, "x = '<script>' & \x00" * 50, 0.5)
    profile = Profile(1.0, 9, (line,) * 20, "\n".join(["│  └─ <&> " * 30] * 400))
    html = view.to_html(profile)
    ET.fromstring(html)
    assert "<script>" not in html
    assert len(html.encode()) < 12_000
    assert html.count("<tr") > 3
    assert "call tree" in html


def test_without_drawings_the_table_says_it_all() -> None:
    html = view.to_html(Profile(2.0, 9, (HotLine("cell 3", 2, "y = step(x)", 0.75),), "tree"))
    words = " ".join("".join(ET.fromstring(html).itertext()).split())
    assert "Profile: 2.0 s in tasks, 9 samples" in words
    assert "75%" in words
    assert "cell 3, line 2y = step(x)" in words


def test_text_stays_within_its_columns() -> None:
    line = HotLine("cell 3", 2, "y = step(x)" * 30, 0.75)
    rows = list(view.to_lines(Profile(2.0, 9, (line,) * 20, "\n".join(["x" * 300] * 100))))
    assert len(rows) < 30
    assert max(map(len, rows)) <= 100


# --- the option -------------------------------------------------------------------------------------------------------


def test_the_option_is_checked_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match=r"profile=1 is not allowed; allowed: True or False"):
        JobOptions(profile=1)  # type: ignore[arg-type]
    assert JobOptions(profile=True).profile
    monkeypatch.setattr(importlib.util, "find_spec", no_cell)
    with pytest.raises(OptionsError, match=r"profile=True is not allowed.*pip install 'nbpar\[profile\]'"):
        JobOptions(profile=True)
