"""What every backend measures of a job: the figures are those of what its tasks did."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.engine.insights import Insights, WorkerRow
from nbpar.insights import JobInsights
from tests.backends.conftest import PROCESSES, WITH_WORKERS, MakePool, only
from tests.helpers import run_script, until

Pool = nbpar.WorkerPool


def told(job: nbpar.Job[Any]) -> JobInsights:
    insights = job.insights
    for worker in insights.workers:  # whatever the job
        parts_s = worker.start_s + worker.init_s + worker.wait_s + worker.transfer_s + worker.work_s
        assert min(worker[3:9]) >= 0.0
        assert parts_s <= insights.elapsed_s * 1.001 + 1e-6
        assert 0.0 <= worker.busy <= 1.0
    assert 0.0 <= insights.efficiency <= 1.0
    assert insights.n_done == sum(worker.n_done for worker in insights.workers)
    return insights


def test_work_is_what_tasks_took_and_the_slowest_names_its_item(pool: Pool) -> None:
    job = pool.map_async(time.sleep, [0.06, 0.06, 0.3, 0.06])
    job.result()
    insights = told(job)
    assert 0.48 <= insights.serial_s < 3.0
    assert insights.serial_s <= pool.n_workers * insights.elapsed_s
    assert insights.speedup == pytest.approx(insights.serial_s / insights.elapsed_s)
    slowest = insights.slowest[0]
    assert (slowest.task_index, slowest.item_repr) == (2, "0.3")
    assert slowest.duration_s >= 0.3 and slowest.worker_id in range(pool.n_workers)
    assert len(insights.slowest) == 4
    assert insights.durations is not None
    assert 0.05 < insights.durations.median_s < insights.durations.longest_s == slowest.duration_s
    (worker,) = (one for one in insights.workers if one.worker_id == slowest.worker_id)
    assert worker.work_s >= 0.3
    assert worker.init_s == worker.exit_s == 0.0  # it has no hooks


def test_a_job_that_runs_has_numbers_as_of_now(pool: Pool, tmp_path: Path) -> None:
    if pool.start_method == "serial":
        seen: list[JobInsights] = []

        def look(x: int) -> int:
            time.sleep(0.05)
            seen.append(nbpar.jobs()[-1].insights)
            return x

        pool.map(look, [1, 2])
        assert seen[-1].status == "running" and seen[-1].serial_s >= 0.05
        return
    flag = tmp_path / "go"

    def wait(x: int) -> int:
        while not flag.exists():
            time.sleep(0.005)
        return x

    job = pool.map_async(wait, range(2))
    until(lambda: job.insights.serial_s > 0.2)
    assert job.insights.status == "running" and job.insights.n_done == 0
    flag.touch()
    job.result()
    assert told(job).serial_s > 0.2


def test_failures_and_timings_count_when_tasks_are_tried_again(pool: Pool) -> None:
    def fail(x: int) -> int:
        time.sleep(0.05)
        if nbpar.current_task().attempt == 1:
            raise ValueError(x)
        return x

    job = pool.map_async(fail, [1, 2, 3], retries=1)
    job.result()
    insights = told(job)
    assert insights.n_done == 3
    assert insights.serial_s >= 0.3  # six runs
    assert sorted(one.task_index for one in insights.slowest) == [0, 1, 2]
    assert insights.durations is not None and insights.durations.median_s > 0.03


@only(*PROCESSES)
def test_a_large_array_there_and_back_is_seen_as_transfer(pool: Pool) -> None:
    n_bytes, arrays = 50_000_000, [np.ones(6_250_000) for _ in range(2)]
    for first in (True, False):  # through the sockets, and then through shared memory
        job = pool.map_async(lambda array: array + 1, arrays)
        job.result()
        insights = told(job)
        assert 2 * n_bytes < insights.sent_bytes < 2.1 * n_bytes
        assert 2 * n_bytes < insights.received_bytes < 2.1 * n_bytes
        # A copy of 50 MB takes 2 ms at the very least.
        assert sum(worker.transfer_s for worker in insights.workers) > 0.004
        assert insights.kernel_s > (0.0 if first else 0.004)
        assert ": array([1., 1." in str(insights)


def test_small_arguments_are_counted_to_the_byte_when_they_travel(pool: Pool) -> None:
    job = pool.map_async(len, [bytes(1000) for _ in range(20)])
    job.result()
    insights = told(job)
    if pool.start_method in PROCESSES:
        assert 20_000 <= insights.sent_bytes < 30_000
        assert 0 < insights.received_bytes < 5_000
        assert sum(worker.transfer_s for worker in insights.workers) > 0.0 < insights.kernel_s
    else:
        assert (insights.sent_bytes, insights.received_bytes) == (0, 0)
        assert all(worker.transfer_s == 0.0 for worker in insights.workers)


def test_the_time_of_worker_init_is_told_apart_from_the_start(make_pool: MakePool) -> None:
    pool = make_pool(worker_init=lambda: time.sleep(0.3))
    job = pool.map_async(time.sleep, [0.4] * 2)  # long enough for both workers to come
    job.result()
    insights = told(job)
    assert all(0.29 < worker.init_s < 3.0 for worker in insights.workers if worker.n_done)
    if pool.start_method in PROCESSES:
        assert all(worker.start_s > 0.0 for worker in insights.workers)
    again = pool.map_async(abs, [-1])
    again.result()
    assert all(worker.init_s == worker.start_s == 0.0 for worker in told(again).workers)


@only(*WITH_WORKERS)
def test_the_time_of_worker_exit_is_seen_when_workers_are_replaced_in_a_job(make_pool: MakePool) -> None:
    pool = make_pool(n_workers=1, tasks_per_worker=1, worker_exit=lambda: time.sleep(0.2))
    job = pool.map_async(abs, [-1, -2, -3], chunk_size=1)
    assert job.result() == [1, 2, 3]
    (worker,) = told(job).workers
    assert worker.n_done == 3
    assert 0.39 < worker.exit_s < 3.0  # of the first two; the third ends after the job
    assert worker.start_s + worker.init_s + worker.wait_s + worker.work_s < job.insights.elapsed_s - 0.39


@only(*PROCESSES)
def test_work_of_a_worker_that_died_is_work(pool: Pool, tmp_path: Path) -> None:
    first = tmp_path / "first"

    def die_once(x: int) -> int:
        if x == 0 and not first.exists():
            time.sleep(0.3)
            first.touch()
            os._exit(3)
        return x

    job = pool.map_async(die_once, [0, 1], retries=1)
    assert job.result() == [0, 1]
    assert told(job).serial_s > 0.29


@only(*WITH_WORKERS)
def test_what_a_cancelled_task_took_is_work(pool: Pool) -> None:
    def spin(_: int) -> None:
        while True:
            time.sleep(0.005)

    job = pool.map_async(spin, range(2))
    until(lambda: job.insights.serial_s > 0.3)
    job.cancel()
    assert job.exception() is not None
    assert told(job).serial_s > 0.29
    assert job.insights.status == "cancelled"


@only("forkserver", "threads")
def test_memory_and_cpu_are_seen_of_workers_that_are_processes(pool: Pool) -> None:
    def burn(seconds: float) -> None:
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            sum(range(1000))

    seen = pool.map_async(burn, [1.5, 1.5], progress=False)
    while not seen.wait(0.05):
        seen.snapshot()
    for worker in told(seen).workers:
        if pool.start_method == "threads":
            assert (worker.peak_memory_bytes, worker.cpu) == (None, None)
        else:
            assert worker.peak_memory_bytes is not None and 5_000_000 < worker.peak_memory_bytes < 10**9
            assert worker.cpu is not None and 0.01 < worker.cpu < 1.5
    assert seen.insights.to_frame()["work_s"].sum() >= 2.9


def test_a_million_short_tasks_have_durations_and_no_slow_ones(pool: Pool) -> None:
    n_tasks = 20_000
    job = pool.map_async(abs, range(n_tasks))
    job.result()
    insights = told(job)
    assert insights.durations is not None and insights.durations.median_s < 0.001
    assert sum(one.n_tasks for one in job.snapshot().durations) == n_tasks


def test_the_longest_of_a_stream_has_its_item_although_items_are_let_go(pool: Pool) -> None:
    stream = pool.imap(time.sleep, iter([0.01, 0.2, 0.01]))
    assert list(stream) == [None] * 3
    slowest = nbpar.jobs()[-1].insights.slowest[0]
    assert (slowest.task_index, slowest.item_repr) == (1, "0.2")


def test_the_page_on_insights_runs_and_says_what_it_shows() -> None:
    """Its Python as a script; the table is printed as the page prints it, but for the figures."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "insights.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    code = code.replace("\njob.insights\n", "\nprint(job.insights)\n")
    said = run_script(f"import nbpar\nnbpar.configure(n_workers=2)\n{code}\nprint(list(frame.columns))")
    (shown,) = re.findall(r"^```\n(map smooth.*?)^```", page, re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"[a-z]+", next(line for line in shown.splitlines() if line.startswith("worker "))):
        assert heading in said or heading in ("start", "memory", "cores"), heading  # these depend on what was there
    assert "map smooth: done, 40 of 40 tasks" in said and "map smooth: done, 40 of 40 tasks" in shown
    assert "sent 80 MB, received 80 MB" in said and "sent 80 MB, received 80 MB" in shown
    assert re.search(r"^\d+\.\d times as fast, \d+% of the workers' time in tasks$", said, re.MULTILINE)
    # Where others have the CPUs a repr takes long, and its item is known by its type alone, as the page says.
    assert re.search(r"^slowest: \d+ (array|<ndarray>)", said, re.MULTILINE), said
    for name in WorkerRow._fields:
        assert f"`{name}`" in page, name
    for field in dataclasses.fields(Insights):
        assert f"`{field.name}`" in page, field.name
