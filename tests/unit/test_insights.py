"""A job's numbers: worked out from snapshots made by hand, printed, and as a frame."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbpar.engine.insights
import nbpar.insights
from nbpar.engine.events import SlowTask
from nbpar.engine.insights import Insights, WorkerRow, insights_rows, quantile_s
from nbpar.engine.snapshot import Bin, Lane, Snapshot, Times, Usage
from nbpar.insights import JobInsights
from tests.unit.snapshots import everything, job, lane


@pytest.mark.parametrize("module", [nbpar.engine.insights, nbpar.insights])
def test_examples_in_docstrings_are_true(module: object) -> None:
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_numbers_are_those_of_the_lanes() -> None:
    lanes = (
        lane(0, times=Times(1.0, 0.5, 2.0, 0.5, 4.0, 0.25), sent_bytes=100, received_bytes=7, busy=0.6),
        lane(1, times=Times(1.0, 0.0, 0.0, 0.0, 7.0), sent_bytes=50, received_bytes=0),
    )
    told = Insights.of(job(lanes=lanes, elapsed_s=8.0, kernel_s=0.375, n_failed=3, status="done"))
    assert (told.name, told.status, told.n_tasks, told.n_done, told.n_failed) == ("map simulate", "done", 2000, 1284, 3)
    assert (told.elapsed_s, told.serial_s, told.speedup, told.kernel_s) == (8.0, 11.0, 1.375, 0.375)
    assert told.efficiency == pytest.approx(11.0 / 16.0)
    assert (told.sent_bytes, told.received_bytes) == (150, 7)
    first = told.workers[0]
    assert (first.worker_id, first.pid, first.n_done, first.busy) == (0, 100, 3, 0.6)
    assert first[3:9] == (1.0, 0.5, 2.0, 0.5, 4.0, 0.25)
    assert (first.sent_bytes, first.received_bytes) == (100, 7)


def test_memory_is_the_most_and_cpu_the_mean_of_what_was_seen() -> None:
    usage = (Usage(1.0, 300, 0.5), Usage(2.0, 900, 1.0), Usage(3.0, 400, 1.5))
    seen, unseen = insights_rows(job(lanes=(lane(0, usage=usage), lane(1))))
    assert (seen.peak_memory_bytes, seen.cpu) == (900, 1.0)
    assert (unseen.peak_memory_bytes, unseen.cpu) == (None, None)


def test_the_longest_task_is_the_slowest_when_that_is_known_and_estimated_else() -> None:
    bins = (Bin(0.1, 0.2, 90), Bin(0.2, 0.4, 10))
    estimated = Insights.of(job(durations=bins)).durations
    assert estimated == pytest.approx((0.1 + 50 / 900, 0.3, 0.4))
    known = Insights.of(job(durations=bins, slowest=(SlowTask(3, 0.25, 0, "3"),))).durations
    assert known == pytest.approx((0.1 + 50 / 900, 0.25, 0.25))


def test_a_job_of_which_nothing_is_known_yet_has_numbers_too() -> None:
    told = JobInsights.of(job(lanes=(), n_done=0, n_tasks=None, elapsed_s=0.0))
    assert (told.serial_s, told.speedup, told.efficiency, told.durations, told.workers) == (0.0, 0.0, 0.0, None, ())
    assert str(told) == "map simulate: running, 0 tasks in 0 ms"
    assert list(told.to_frame().columns) == list(WorkerRow._fields[1:])
    assert len(told.to_frame()) == 0


TIME = st.floats(0.0, 1e6)


@given(st.lists(st.builds(Times, TIME, TIME, TIME, TIME, TIME, TIME), max_size=5), TIME)
def test_efficiency_is_a_share_whatever_the_times_are(times: list[Times], elapsed_s: float) -> None:
    lanes = tuple(Lane(i, i, 1, 1.0, (), times=one) for i, one in enumerate(times))
    told = JobInsights.of(job(lanes=lanes, elapsed_s=elapsed_s))
    assert 0.0 <= told.efficiency <= 1.0
    assert told.serial_s == pytest.approx(sum(one.work_s for one in times))
    assert told.name in str(told)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_rise_with_their_share(counts: list[int], one: float, other: float) -> None:
    bins = [Bin(float(2**i), float(2 ** (i + 1)), n) for i, n in enumerate(counts)]
    low, high = sorted((one, other))
    assert bins[0].from_s <= quantile_s(bins, low) <= quantile_s(bins, high) <= bins[-1].to_s


# --- as a user sees it ------------------------------------------------------------------------------------------------


def seen(n_workers: int = 2) -> JobInsights:
    return JobInsights.of(everything(n_workers))


def test_the_table_has_a_line_for_each_worker_and_the_slowest_items() -> None:
    text = str(seen())
    lines = text.splitlines()
    assert lines[0] == "boom: done, 2,000 of 2,000 tasks in 30 s, 2 failed"
    assert lines[1] == "1.8\N{MULTIPLICATION SIGN} serial: 54 s in tasks, 93% of the workers' time"
    assert any(line.split()[:4] == ["worker", "pid", "tasks", "start"] for line in lines)
    assert any(line.split()[:2] == ["1", "101"] for line in lines)
    assert "item 0: item boom" in text


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    text = str(JobInsights.of(job()))
    for heading in ("init", "transfer", "exit", "memory", "cores", "sent", "received"):
        assert heading not in text, heading
    assert "start" in text


def test_a_table_of_many_workers_says_where_the_others_are() -> None:
    text = str(seen(128))
    assert len(text.splitlines()) < 60
    assert "and 96 more workers: job.insights.workers has them all" in text


def test_the_frame_has_a_row_for_each_worker() -> None:
    frame = seen(3).to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.name == "worker_id" and list(frame.index) == [0, 1, 2]
    assert frame["work_s"].sum() == pytest.approx(81.0)
    assert list(frame["pid"]) == [100, 101, 102]
    assert frame["peak_memory_bytes"].max() == 259_000_000
    assert JobInsights.of(job()).to_frame()["cpu"].isna().all()


def test_the_frame_says_what_to_do_without_pandas() -> None:
    code = """
import sys
sys.modules["pandas"] = None
import nbpar
with nbpar.WorkerPool(start_method="serial") as pool:
    job = pool.map_async(abs, [-1])
told = job.insights
try:
    told.to_frame()
except ImportError as error:
    assert "pip install pandas" in str(error) and "job.insights.workers" in str(error), error
else:
    raise AssertionError
assert told.workers[0].n_done == 1
print(told)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "map abs: done, 1 of 1 tasks" in done.stdout


def test_repr_is_short_and_says_how_to_see_more() -> None:
    assert repr(seen()) == "<JobInsights of 'boom', done with 2,000 tasks; print it for its table>"


def test_numbers_are_the_same_for_the_same_picture_and_cannot_be_changed() -> None:
    picture: Snapshot = everything()
    assert JobInsights.of(picture) == JobInsights.of(picture)
    with pytest.raises(AttributeError):
        JobInsights.of(picture).serial_s = 0.0  # type: ignore[misc]
