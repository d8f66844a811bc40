"""A short soak, and what longer ones have found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import run_script

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(170)
def test_every_task_is_accounted_for_once_after_15_seconds_of_faults() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.25", "--seed", "1"]
    environ = {**os.environ, "NBPAR_UI": "off"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as soak:
        try:
            said, _ = soak.communicate(timeout=150)
        finally:
            if soak.poll() is None:
                os.killpg(soak.pid, signal.SIGKILL)
    assert soak.returncode == 0, said
    last = said.splitlines()[-1]
    assert " 0 jobs" not in last and " 0 killed" not in last, said


ALL_AT_ONCE = """
import os, signal, time
import nbpar

with nbpar.WorkerPool(n_workers=4, start_method="fork") as pool:
    for _ in range(10):
        job = pool.map_async(time.sleep, [0.2] * 8, chunk_size=1, on_error="skip", progress=False)
        while len(pool.pids()) < 4:
            time.sleep(0.001)
        for pid in pool.pids().values():
            os.kill(pid, signal.SIGKILL)
        job.cancel()
        job.wait()
    print(pool.map(abs, range(-3, 0)))
"""


def test_forked_workers_are_replaced_without_a_word_when_all_are_killed_at_once() -> None:
    assert run_script(ALL_AT_ONCE) == "[3, 2, 1]\n"
