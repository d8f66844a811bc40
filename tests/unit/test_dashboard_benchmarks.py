"""The parts of the dashboard's benchmarks that need no kernel and no browser."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.dashboard.live import Live, sum_up
from benchmarks.dashboard.overhead import Overhead
from benchmarks.dashboard.overhead import sum_up as sum_up_pairs
from benchmarks.dashboard.paints import latencies_s, percentile
from benchmarks.dashboard.replay import Replay, plan
from benchmarks.dashboard.tick import ticks
from benchmarks.merge import merged
from benchmarks.studies import Section
from benchmarks.studies.dashboard import (
    Dashboard,
    added_verdicts,
    click_lines,
    click_verdicts,
    live_lines,
    live_verdicts,
)


def test_a_plan_runs_each_task_once_and_no_worker_twice_at_a_time() -> None:
    dues = plan(n_workers=5, n_tasks=500, duration_s=2.0)
    assert sorted(due.task_index for due in dues) == list(range(500))
    assert [due.end_s for due in dues] == sorted(due.end_s for due in dues)
    assert dues[-1].end_s == pytest.approx(2.0, rel=0.05)
    for worker_id in range(5):
        mine = [due for due in dues if due.worker_id == worker_id]
        for before, after in itertools.pairwise(mine):
            assert before.next_index == after.task_index
            assert before.end_s <= after.begin_s
        assert mine[-1].next_index == -1


def test_a_replay_ends_with_all_tasks_done_on_their_workers() -> None:
    now_s = 5.0
    replay = Replay(n_workers=3, n_tasks=30, duration_s=1.0, clock=lambda: now_s)
    replay.begin()
    now_s += 0.5
    assert replay.step()
    middle = replay.snapshot()
    assert 0 < middle.n_done == replay.n_done < 30
    assert [lane.n_done for lane in middle.lanes] == replay.counts
    assert all(lane.current_index is not None for lane in middle.lanes)
    now_s += 1.0
    assert not replay.step()
    assert replay.folded_s > 0
    assert replay.snapshot().n_done == sum(replay.counts) == 30


def test_a_tick_is_timed_step_by_step() -> None:
    found = ticks(n_workers=4, n_tasks=100, duration_s=0.5)
    assert len(found) >= 5
    assert all(tick.n_bytes > 500 and tick.snapshot_s > 0 and tick.scene_s > 0 and tick.json_s > 0 for tick in found)


def test_an_event_is_late_until_the_first_paint_that_counts_it() -> None:
    reached = [(0.0, 1), (1.0, 2), (1.1, 4), (3.0, 5)]
    assert latencies_s(reached, [(0.5, 1), (1.25, 3), (2.0, 4)]) == [0.25, 0.15, 0.9]
    assert latencies_s(reached, []) == []
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert math.isnan(percentile([], 0.95))


def test_a_run_is_summed_up_a_second() -> None:
    record = {
        "reached": [(0.0, 1), (1.0, 2)],
        "spent_s": 10.0,
        "cpu_s": {"process": 3.0, "feeder": 2.8, "nbpar-ticker": 0.1, "MainThread": 0.05, "folding": 0.02},
        "n_messages": {"comm_msg": 99, "comm_open": 1},
    }
    live = sum_up(record, [(0.5, 1), (1.25, 2)])
    assert live == pytest.approx(Live(10.0, 0.018, 0.008, 0.25, 0.25, 2))


LIVE = Live(10.0, 0.0199, 0.015, 0.06, 0.149, 100)


def test_what_was_asked_is_met_or_missed() -> None:
    assert [verdict.is_met for verdict in live_verdicts(LIVE)] == [True, True, True]
    late = LIVE._replace(messages_per_s=16.0, core_share=0.0201, p95_s=0.2)
    found = live_verdicts(late)
    assert [(v.measured, v.is_met) for v in found] == [("16.0", False), ("2.01 %", False), ("200 ms", False)]
    assert {v.is_met for v in live_verdicts("TimeoutError: no card")} == {False}
    assert added_verdicts({"a client": sum_up_pairs([(5.1, 5.0), (5.0, 5.0), (5.2, 5.0)])})[0].measured == "+2.0 %"
    assert not added_verdicts({"a client": Overhead(5.0, 0.02, 0.03, 0.04)})[0].is_met
    clicks: dict[tuple[str, str], list[float] | str] = {
        ("lab", "ipykernel-6.31"): [0.3, 0.4, 5.0],
        ("notebook", "ipykernel-6.31"): [0.2, 0.3, 0.4],
    }
    assert click_verdicts(clicks)[0][1:] == ("0.40 s at most, 2 of 2", True)
    assert not click_verdicts({**clicks, ("lab", "ipykernel-7.3"): "TimeoutError"})[0].is_met


def test_tables_say_what_failed() -> None:
    size = {"n_workers": 64, "n_tasks": 1000, "duration_s": 1.0}
    others: dict[str, Live | str] = {"tqdm": LIVE._replace(p95_s=0.298), "x": "OSError: no"}
    lines = live_lines({"nbpar": LIVE, **others}, size)
    assert lines[-3] == "| nbpar | 10.0 | 1.99 | 1.50 | 60 | 149 | 1.00 |"
    assert lines[-2].endswith("| 298 | 2.00 |")
    assert "OSError: no" in lines[-1]
    assert "| TimeoutError |" in click_lines({("lab", "ipykernel-6.31"): "TimeoutError"})[-1]


PAGE = """# Benchmarks

| workload | asked | measured |  |
|---|---|---|---|
| A | fast | 2 | met |
| {title} | old | 1 | **missed** |

## A

kept

## {title}

old lines

## How it was measured

* well
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_study_run_alone_replaces_its_own_part_of_the_page(is_there: bool) -> None:
    title = Dashboard.title
    page = PAGE.format(title=title)
    if not is_there:
        page = page.replace(f"| {title} | old | 1 | **missed** |\n", "").replace(f"## {title}\n\nold lines\n\n", "")
    row = f"| {title} | new | 3 | met |"
    expected = PAGE.format(title=title).replace("old lines", "new lines")
    expected = expected.replace(f"| {title} | old | 1 | **missed** |", row)
    assert merged(page, [(Dashboard, Section(["new lines"]))], [row]) == expected


def test_a_page_that_is_no_report_is_left_alone() -> None:
    with pytest.raises(ValueError, match="not one of these reports"):
        merged("# Notes\n", [], [])
