"""Memory and CPU of workers over time: when it is read, how much of it is kept, and what a system says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from nbpar.system import Reading, read_usage
from nbpar.usage import MAX_SAMPLES, UsageLog
from tests.helpers import until

OWN = os.getpid()


class Processes:
    """Processes that use so much CPU each second, and what was asked of them."""

    def __init__(self, **cpu: float) -> None:
        self.cpu = {int(name[1:]): value for name, value in cpu.items()}
        self.at_s = 0.0
        self.gone: set[int] = set()
        self.asked: list[tuple[float, int]] = []

    def read(self, pid: int) -> Reading | None:
        self.asked.append((self.at_s, pid))
        if pid in self.gone:
            return None
        cpu_s = self.cpu[pid] * self.at_s
        return Reading(int(1e6 * (1 + self.at_s)), cpu_s, cpu_s / 4)

    def at(self, log: UsageLog, at_s: float, pids: Mapping[int, int]) -> None:
        self.at_s = at_s
        log.look(at_s, lambda: pids)


def test_the_first_look_only_begins_and_the_next_says_what_was_used_since() -> None:
    some = Processes(p71=0.5, p72=2.0)
    log = UsageLog(some.read)
    some.at(log, 0.1, {0: 71, 1: 72})
    assert log.samples == {}
    some.at(log, 0.2, {0: 71, 1: 72})
    assert len(some.asked) == 2  # too soon
    some.at(log, 0.4, {0: 71, 1: 72})
    (one,) = log.samples[1]
    assert one == pytest.approx((0.4, 1_400_000, 2.0, 0.5))
    assert log.samples[0][0].cpu == pytest.approx(0.5)


def test_nothing_is_asked_more_than_once_a_second_however_often_somebody_looks() -> None:
    some = Processes(p71=1.0)
    log = UsageLog(some.read)
    for tick in range(101):
        some.at(log, tick / 10, {0: 71})
    assert 10 <= len(some.asked) <= 13
    assert [round(one.cpu, 6) for one in log.samples[0]] == [1.0] * (len(some.asked) - 1)


def test_samples_stay_bounded_and_reach_over_the_whole_job() -> None:
    some = Processes(p71=1.0, p72=3.0)
    log = UsageLog(some.read)
    for second in range(1000):
        some.at(log, float(second), {0: 71, 1: 72})
    for samples in log.samples.values():
        assert MAX_SAMPLES // 2 <= len(samples) <= MAX_SAMPLES
        at_s = [one.at_s for one in samples]
        assert at_s == sorted(at_s) and at_s[0] < 40 and at_s[-1] > 950
        steps = [after - before for before, after in pairwise(at_s)]
        assert max(steps) <= 2 * min(steps)  # evenly: a line that is drawn through them is not bent
    assert {round(one.cpu, 6) for one in log.samples[1]} == {3.0}
    assert len(some.asked) < 2 * 200  # and it is asked more and more seldom


def test_a_worker_that_was_replaced_begins_anew_and_one_that_is_gone_stays_as_it_was() -> None:
    some = Processes(p71=1.0, p72=2.0)
    log = UsageLog(some.read)
    for second in range(5):
        some.at(log, float(second), {0: 71})
    n_before = len(log.samples[0])
    some.gone.add(71)
    some.at(log, 6.0, {0: 71})
    assert len(log.samples[0]) == n_before
    some.at(log, 8.0, {0: 72})  # its CPU time says nothing yet
    assert len(log.samples[0]) == n_before
    some.at(log, 10.0, {0: 72})
    assert log.samples[0][-1] == pytest.approx((10.0, 11_000_000, 2.0, 0.5))


def test_the_kernels_own_process_is_left_out() -> None:
    some = Processes()
    log = UsageLog(some.read)
    for second in range(3):
        some.at(log, float(second), {0: OWN, 1: OWN})
    assert (some.asked, log.samples) == ([], {})


def test_who_comes_while_another_thread_reads_gets_what_there_is() -> None:
    some, held, goes_on = Processes(p71=1.0), threading.Event(), threading.Event()
    log = UsageLog(some.read)
    some.at(log, 0.0, {0: 71})

    def slow_pids() -> Mapping[int, int]:
        held.set()
        goes_on.wait(20.0)
        return {0: 71}

    reader = threading.Thread(target=log.look, args=(1.0, slow_pids))
    reader.start()
    assert held.wait(20.0)
    assert log.look(9.0, lambda: pytest.fail("it was read twice at once")) == {}
    goes_on.set()
    reader.join()


# --- what the system says ---------------------------------------------------------------------------------------------

BUSY = """
import threading
text = b"x" * 30_000_000
def spin():
    while True:
        sum(range(10_000))
threading.Thread(target=spin, daemon=True).start()
print("ready", flush=True)
input()
"""


def test_cpu_of_other_threads_is_told_apart_when_the_main_thread_waits() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = read_usage(process.pid)
        assert before is not None and before.memory_bytes > 30_000_000
        after = before
        end_s = time.monotonic() + 20.0
        while after.cpu_s - before.cpu_s < 0.2:
            assert time.monotonic() < end_s, "it uses no CPU"
            time.sleep(0.02)
            after = read_usage(process.pid) or after
        theirs = psutil.Process(process.pid).cpu_times()
        assert after.cpu_s <= theirs.user + theirs.system + 0.02
        if sys.platform == "linux" and Path("/proc/self/schedstat").exists():
            assert after.other_cpu_s - before.other_cpu_s > 0.9 * (after.cpu_s - before.cpu_s) - 0.02
        process.communicate("\n")
    until(lambda: read_usage(process.pid) is None)


def test_psutil_says_about_the_same_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    here = read_usage(OWN)
    monkeypatch.setattr(sys, "platform", "darwin")
    there = read_usage(OWN)
    assert here is not None and there is not None
    assert 0.5 * here.memory_bytes < there.memory_bytes < 4 * here.memory_bytes
    assert here.cpu_s <= there.cpu_s + 0.02 < here.cpu_s + 5.0
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    assert read_usage(gone.pid) is None
