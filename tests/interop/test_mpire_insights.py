"""MPIRE's insights from nbpar's numbers: keys, formats, sums."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest

from nbpar.engine.events import SlowTask
from nbpar.engine.insights import Insights, WorkerRow
from nbpar.interop.mpire import WorkerPool
from nbpar.interop.mpire.insights import PARTS, PoolInsights, format_args

KEYS = {
    "n_completed_tasks",
    "total_time",
    "top_5_max_task_durations",
    "top_5_max_task_args",
    *(f"{part}_time" for part in PARTS),
    *(f"total_{part}_time" for part in PARTS),
    *(f"{part}_ratio" for part in PARTS),
    *(f"{part}_time_mean" for part in PARTS),
    *(f"{part}_time_std" for part in PARTS),
}


def row(worker_id: int, n_done: int = 0, **times: float) -> WorkerRow:
    named = {f"{part}_s": times.get(part, 0.0) for part in ("start", "init", "wait", "transfer", "work", "exit")}
    return WorkerRow(
        worker_id, 1, n_done, **named, busy=0.0, peak_memory_bytes=None, cpu=None, sent_bytes=0, received_bytes=0
    )


def told(*rows: WorkerRow, slowest: tuple[SlowTask, ...] = ()) -> Insights:
    numbers: Any = dict.fromkeys(("elapsed_s", "serial_s", "speedup", "efficiency", "kernel_s"), 0.0)
    counts: Any = dict.fromkeys(("n_tasks", "n_done", "n_failed", "sent_bytes", "received_bytes"), 0)
    return Insights(
        name="map", status="done", durations=None, slowest=slowest, workers=tuple(rows), **numbers, **counts
    )


def slow(duration_s: float, item_repr: str = "0") -> SlowTask:
    return SlowTask(0, duration_s, 0, item_repr)


def test_the_keys_are_mpires_and_no_others() -> None:
    assert set(PoolInsights(2).as_dict()) == KEYS


def test_times_are_texts_and_ratios_are_numbers() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0, n_done=2, start=0.25, wait=0.5, work=3661.25)))
    numbers = insights.as_dict()
    assert numbers["n_completed_tasks"] == [2]
    assert numbers["start_up_time"] == ["0:00:00.250"]
    assert numbers["total_working_time"] == numbers["working_time_mean"] == "1:01:01.250"
    assert numbers["total_time"] == "1:01:02"
    assert numbers["working_time_std"] == "0:00:00"
    assert numbers["working_ratio"] == pytest.approx(3661.25 / 3662.0)


def test_arguments_and_results_on_their_way_count_as_waiting() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0, wait=1.0, transfer=2.0)))
    assert insights.as_dict()["waiting_time"] == ["0:00:03"]


def test_the_ratios_add_up() -> None:
    insights = PoolInsights(2)
    insights.add(told(row(0, start=1, init=2, wait=3, transfer=4, work=5, exit=6), row(1, work=7)))
    numbers = insights.as_dict()
    assert sum(numbers[f"{part}_ratio"] for part in PARTS) == pytest.approx(1.0)


def test_mean_and_deviation_are_over_all_workers_also_those_that_had_nothing_to_do() -> None:
    insights = PoolInsights(4)
    insights.add(told(row(0, work=4.0), row(2, work=8.0)))
    numbers = insights.as_dict()
    assert numbers["working_time"] == ["0:00:04", "0:00:00", "0:00:08", "0:00:00"]
    assert numbers["working_time_mean"] == "0:00:03"
    assert numbers["working_time_std"] == "0:00:03.316"  # the square root of 11


def test_maps_of_one_pool_are_summed_up() -> None:
    insights = PoolInsights(2)
    insights.add(told(row(0, n_done=3, work=1.0), row(1, n_done=4, work=2.0)))
    insights.add(told(row(1, n_done=5, work=4.0)))
    insights.add_task(0, 0.5, "Arg 0: 1")
    numbers = insights.as_dict()
    assert numbers["n_completed_tasks"] == [4, 9]
    assert numbers["working_time"] == ["0:00:01.500", "0:00:06"]


def test_five_tasks_are_kept_the_longest_first() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0), slowest=(slow(3.0, "3"), slow(1.0, "1"))))
    insights.add(told(row(0), slowest=tuple(slow(float(n), str(n)) for n in (6, 5, 4, 2))))
    numbers = insights.as_dict()
    assert numbers["top_5_max_task_args"] == [f"Arg 0: {n}" for n in (6, 5, 4, 3, 2)]
    assert numbers["top_5_max_task_durations"] == [f"0:00:0{n}" for n in (6, 5, 4, 3, 2)]


def test_arguments_of_a_slow_task_are_asked_for() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0), slowest=(slow(1.0),)), lambda one: format_args((one.duration_s,), {"key": "x"}))
    assert insights.as_dict()["top_5_max_task_args"] == ["Arg 0: 1.0 | Arg key: 'x'"]


def test_time_moves_from_one_part_to_another() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0, work=3.0)))
    insights.move(0, "init", 1.0)
    insights.add_time(0, "exit", 0.5)
    numbers = insights.as_dict()
    assert (numbers["init_time"], numbers["working_time"]) == (["0:00:01"], ["0:00:02"])
    assert (numbers["exit_time"], numbers["total_time"]) == (["0:00:00.500"], "0:00:03.500")


def test_jobs_that_end_in_several_threads_are_all_counted() -> None:
    insights = PoolInsights(1)

    def add() -> None:
        for _ in range(200):
            insights.add(told(row(0, n_done=1)))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert insights.as_dict()["n_completed_tasks"] == [800]


def test_the_text_has_mpires_shape() -> None:
    insights = PoolInsights(2)
    insights.add(told(row(0, n_done=3, start=0.5, work=1.5), row(1, n_done=1, wait=2.0), slowest=(slow(1.25, "'a'"),)))
    assert insights.as_text() == (
        "WorkerPool insights\n"
        "-------------------\n"
        "Total number of tasks completed: 4\n"
        "Total start up time: 0:00:00.500s (mean: 0:00:00.250, std: 0:00:00.250, ratio: 12.50%)\n"
        "Total init time: 0:00:00s (mean: 0:00:00, std: 0:00:00, ratio: 0.00%)\n"
        "Total waiting time: 0:00:02s (mean: 0:00:01, std: 0:00:01, ratio: 50.00%)\n"
        "Total working time: 0:00:01.500s (mean: 0:00:00.750, std: 0:00:00.750, ratio: 37.50%)\n"
        "Total exit time: 0:00:00s (mean: 0:00:00, std: 0:00:00, ratio: 0.00%)\n"
        "\n"
        "Efficiency warning: working ratio is < 80%!\n"
        "\n"
        "Stats per worker\n"
        "----------------\n"
        "Worker 0 - Tasks completed: 3 - start up: 0:00:00.500s - init: 0:00:00s - waiting: 0:00:00s - "
        "working: 0:00:01.500s - exit: 0:00:00s\n"
        "Worker 1 - Tasks completed: 1 - start up: 0:00:00s - init: 0:00:00s - waiting: 0:00:02s - "
        "working: 0:00:00s - exit: 0:00:00s\n"
        "\n"
        "Top 5 longest tasks\n"
        "-------------------\n"
        "1. Time: 0:00:01.250 - Arg 0: 'a'"
    )


def test_a_pool_that_worked_most_of_the_time_is_not_warned_of() -> None:
    insights = PoolInsights(1)
    insights.add(told(row(0, wait=0.1, work=0.9)))
    assert not re.search("warning", insights.as_text())


# --- of a real pool ---------------------------------------------------------------------------------------------------


def nap(x: int, factor: float = 1.0) -> int:
    time.sleep(0.002 * factor)
    return x


def init_slowly(*_: object) -> None:
    time.sleep(0.02)


@pytest.fixture(params=["threading", "forkserver"])
def start_method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_without_insights_there_is_nothing_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(1, start_method="threading") as pool:
        pool.map(nap, range(2))
        assert pool.get_insights() == {}
        pool.print_insights()
    assert "No profiling stats available" in capsys.readouterr().out


def test_a_map_is_told_of(start_method: str) -> None:
    with WorkerPool(2, start_method=start_method, enable_insights=True) as pool:
        pool.map(nap, range(10), worker_init=init_slowly, worker_exit=init_slowly, chunk_size=1)
        numbers = pool.get_insights()
    assert sum(numbers["n_completed_tasks"]) == 10
    n_used = sum(n > 0 for n in numbers["n_completed_tasks"])
    assert seconds(numbers["total_init_time"]) >= 0.019 * n_used
    assert seconds(numbers["total_exit_time"]) >= 0.019 * n_used
    assert seconds(numbers["total_working_time"]) >= 0.019
    assert numbers["working_ratio"] > 0
    assert sum(numbers[f"{part}_ratio"] for part in PARTS) == pytest.approx(1.0)


def test_without_keep_alive_a_map_begins_a_new_sum() -> None:
    with WorkerPool(1, start_method="threading", enable_insights=True) as pool:
        pool.map(nap, range(4))
        pool.map(nap, range(3))
        assert pool.get_insights()["n_completed_tasks"] == [3]


def test_with_keep_alive_maps_and_single_tasks_are_summed_up(start_method: str) -> None:
    with WorkerPool(1, start_method=start_method, enable_insights=True, keep_alive=True) as pool:
        pool.map(nap, range(4))
        list(pool.imap_unordered(nap, range(3)))
        pool.apply(nap, (1,))
        pool.apply_async(nap, (1,)).get()
        assert pool.get_insights()["n_completed_tasks"] == [9]


def test_the_longest_tasks_have_their_arguments() -> None:
    items = [(1, 1.0), {"x": 2, "factor": 30.0}, (3, 15.0)]
    with WorkerPool(1, start_method="threading", enable_insights=True, keep_alive=True) as pool:
        pool.map(nap, items)
        pool.apply(nap, (4, 60.0))
        numbers = pool.get_insights()
    assert numbers["top_5_max_task_args"][:3] == [
        "Arg 0: 4 | Arg 1: 60.0",
        "Arg x: 2 | Arg factor: 30.0",
        "Arg 0: 3 | Arg 1: 15.0",
    ]
    durations = [seconds(text) for text in numbers["top_5_max_task_durations"]]
    assert durations == sorted(durations, reverse=True)
    assert durations[0] >= 0.12


def test_insights_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(1, start_method="threading", enable_insights=True) as pool:
        pool.map(nap, range(3))
        pool.print_insights()
    told = capsys.readouterr().out
    assert told.startswith("WorkerPool insights\n-------------------\nTotal number of tasks completed: 3\n")
    assert "\nWorker 0 - Tasks completed: 3 - start up: 0:00:" in told


def test_a_map_that_failed_is_told_of() -> None:
    def refuse(x: int) -> None:
        time.sleep(0.002)
        if x == 3:
            raise KeyError(x)

    with WorkerPool(1, start_method="threading", enable_insights=True) as pool:
        with pytest.raises(KeyError):
            pool.map(refuse, range(10), chunk_size=1)
        assert sum(pool.get_insights()["n_completed_tasks"]) >= 4
