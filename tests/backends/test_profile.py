"""``profile=True`` over every way in which workers exist: the hot line is found, and nothing waits for a profile."""

from __future__ import annotations

import cProfile
import linecache
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import nbpar
from nbpar.engine.snapshot import Profile
from tests.backends.conftest import WITH_WORKERS, MakePool, only
from tests.helpers import run_script, until

N = 100_000


def spend(n: int) -> int:
    x = 0
    for _ in range(4 * n):
        x += 1
    for _ in range(n):
        x += 2
    return x


def spend_or_fail(n: int) -> int:
    if spend(abs(n)) and n < 0:
        raise ValueError("negative")
    return n


def line_of(text: str) -> int:
    lines = linecache.getlines(__file__)
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


HOT, LESS = line_of("x += 1"), line_of("x += 2")


def check(profile: Profile | None, *, at_least_s: float = 0.005) -> Profile:
    """The profile has what `spend` did. A stall of the machine counts for the line that it hits, so no more is sure."""
    assert profile is not None
    assert profile.duration_s > at_least_s, profile
    share = {one.line: one.share for one in profile.lines if one.place.endswith(Path(__file__).name)}
    assert share.get(HOT, 0.0) + share.get(LESS, 0.0) > 0.4, str(profile)
    assert "spend" in profile.tree
    assert "nbpar/" not in profile.tree
    return profile


def last_profile() -> Profile | None:
    return nbpar.jobs()[-1].profile


def test_the_hot_line_is_found(pool: nbpar.WorkerPool) -> None:
    seen = []
    for n in (10, 20, 40, 80):  # see `check`
        assert pool.map(spend, [N] * n, profile=True) == [6 * N] * n
        profile = check(last_profile())
        share = {one.line: one.share for one in profile.lines}
        seen.append(str(profile))
        if profile.lines[0].line == HOT and 0.6 < share[HOT] < 0.95 and share[HOT] > 2 * share[LESS]:
            break
    else:
        pytest.fail("\n".join(seen))
    lanes = nbpar.jobs()[-1].snapshot().lanes
    assert profile.duration_s <= 1.05 * sum(lane.times.work_s for lane in lanes) + 0.05


def test_each_verb_takes_it(pool: nbpar.WorkerPool) -> None:
    # Threads that compute leave Python's lock seldom to the one that looks: 80 ms may pass without a look.
    n_tasks = 24
    pool.starmap(spend, [(N,)] * n_tasks, profile=True)
    check(last_profile())
    assert len(list(pool.imap(spend, [N] * n_tasks, profile=True))) == n_tasks
    until(nbpar.jobs()[-1].done)
    check(last_profile())
    job = pool.map_async(spend, [N] * n_tasks, profile=True)
    job.wait()
    check(job.profile)


def test_without_it_there_is_none(pool: nbpar.WorkerPool) -> None:
    job = pool.map_async(spend, [N])
    job.wait()
    assert job.profile is None


@only("forkserver", "threads", "serial")
def test_failures_and_retries_are_in_it(pool: nbpar.WorkerPool) -> None:
    job = pool.map_async(spend_or_fail, [N, -4 * N, N], profile=True, on_error="return", retries=1)
    job.wait()
    assert len(job.errors) == 1
    check(job.profile)
    again = job.retry_failed()
    again.wait()
    check(again.profile)


@only("forkserver", "threads", "serial")
def test_a_job_that_fails_has_one(pool: nbpar.WorkerPool) -> None:
    with pytest.raises(ValueError, match="negative"):
        pool.map(spend_or_fail, [-4 * N], profile=True)
    check(last_profile())


@only("forkserver", "threads")
def test_a_job_that_is_cancelled_has_what_was_seen(pool: nbpar.WorkerPool, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def endless(n: int) -> None:
        begin_s, has_said = time.perf_counter(), False
        while True:
            spend(n // 10)
            if not has_said and time.perf_counter() - begin_s > 1.3:  # it has told of that: its end counts for little
                begun.touch()
                has_said = True

    job = pool.map_async(endless, [N] * 4, profile=True)
    until(begun.exists)
    job.cancel()
    assert job.wait(10)
    assert job.status == "cancelled"
    check(job.profile)


@only("forkserver")
def test_of_a_killed_worker_the_last_second_is_lost_at_most(make_pool: MakePool) -> None:
    def dies(n: int) -> None:
        begin_s = time.perf_counter()
        while time.perf_counter() - begin_s < 2.2:
            spend(n)
        os.kill(os.getpid(), signal.SIGKILL)

    pool = make_pool(n_workers=1)
    job = pool.map_async(dies, [N], profile=True, on_error="return")
    job.wait()
    assert isinstance(job.errors[0], nbpar.WorkerDiedError)
    check(job.profile, at_least_s=0.8)


@only("forkserver", "threads")
def test_the_end_does_not_wait_for_a_worker_that_hangs(pool: nbpar.WorkerPool) -> None:
    def sleeps(n: int) -> int:
        if n < 0:
            time.sleep(3)
        return spend(n)

    job = pool.map_async(sleeps, [-1, *[N] * 4], profile=True, timeout=1.0, on_error="return")
    assert job.wait(10)
    assert [type(error) for error in job.errors] == [nbpar.TaskTimeoutError]
    assert job.snapshot().elapsed_s < 2.9
    assert job.profile is not None
    assert any(one.place.endswith(Path(__file__).name) for one in job.profile.lines)


@only("forkserver", "threads", "serial")
def test_a_task_with_a_profiler_of_its_own(pool: nbpar.WorkerPool) -> None:
    def profiled(n: int) -> int:
        with cProfile.Profile():
            spend(n)
        return spend(2 * n)

    assert pool.map(profiled, [N] * 2, profile=True) == [12 * N] * 2
    assert last_profile() is not None


@only("threads", "serial")
def test_nothing_is_left_in_the_kernel(pool: nbpar.WorkerPool) -> None:
    pool.map(spend, [N], profile=True)
    assert sys.getprofile() is None
    until(lambda: all(one.name != "nbpar-profile" for one in threading.enumerate()))
    assert pool.map(lambda _: sys.getprofile() is None, range(4)) == [True] * 4


@only(*WITH_WORKERS)
def test_two_jobs_side_by_side(pool: nbpar.WorkerPool) -> None:
    one = pool.map_async(spend, [N] * 4, profile=True)
    other = pool.map_async(lambda _: time.sleep(0.01), range(6), profile=True)
    plain = pool.map_async(abs, range(4))
    for job in (one, other, plain):
        job.wait()
    check(one.profile)
    assert other.profile is not None
    assert all("time.sleep" in line.source for line in other.profile.lines), str(other.profile)
    assert plain.profile is None


def test_who_does_not_ask_pays_nothing_and_the_kernel_needs_no_profiler() -> None:
    code = """
import sys
import nbpar
MODULES = ("pyinstrument", "nbpar.worker.profile", "nbpar.engine.profile")
def loaded(_):
    return [name for name in MODULES if name in sys.modules]
with nbpar.WorkerPool(n_workers=1) as pool:
    pool.map(abs, [-1])
    assert pool.map(loaded, [0]) == [[]], "in the worker"
    assert loaded(0) == [], "in the kernel"
    assert "pyinstrument" in pool.map(loaded, [0], profile=True)[0]
    assert loaded(0) == ["nbpar.engine.profile"]
"""
    run_script(code)


def test_a_traced_thread_runs_on_after_a_job_of_threads() -> None:
    """A chunk's end left the interpreter's flag of pending exceptions set: in 3.11 traced threads waited for ever."""
    code = """
import sys, threading
import nbpar
with nbpar.WorkerPool(n_workers=2, start_method="threads") as pool:
    pool.map(abs, range(4))
def traced():
    sys.settrace(lambda *_: None)
    (lambda: None)()
    sys.settrace(None)
thread = threading.Thread(target=traced, daemon=True)
thread.start()
thread.join(10)
assert not thread.is_alive()
"""
    run_script(code)
