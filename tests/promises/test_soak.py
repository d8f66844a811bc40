"""A short soak, and what longer ones have found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbpar
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
import contextlib, os, signal, time
import nbpar

with nbpar.WorkerPool(n_workers=4, start_method="fork") as pool:
    for _ in range(10):
        job = pool.map_async(time.sleep, [0.2] * 8, chunk_size=1, on_error="skip", progress=False)
        while len(pool.pids()) < 4 and not job.done():  # it fails when three in a row are killed before they are ready
            time.sleep(0.001)
        for pid in pool.pids().values():
            with contextlib.suppress(ProcessLookupError):  # one that was killed in the last round
                os.kill(pid, signal.SIGKILL)
        job.cancel()
        job.wait()
    while True:
        try:
            print(pool.map(abs, range(-3, 0)))
            break
        except nbpar.WorkerStartError:  # the last of the above
            pass
"""


def test_forked_workers_are_replaced_without_a_word_when_all_are_killed_at_once() -> None:
    assert run_script(ALL_AT_ONCE) == "[3, 2, 1]\n"


def stop(x: int) -> int:
    raise StopIteration(x)


@pytest.mark.parametrize("method", ["forkserver", "threads", "serial"])
def test_a_stop_iteration_is_told_with_its_item_where_none_can_be_raised(method: Any) -> None:
    async def wait_for(awaited: Any) -> None:
        await asyncio.wait_for(awaited, 20)

    async def hand_on(awaitable: Any) -> Any:
        return await awaitable

    with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:
        with pytest.raises(StopIteration):
            pool.map(stop, [7])
        with pytest.raises(StopIteration):
            pool.submit(stop, 7).result()
        ways: list[Callable[[], object]] = [
            lambda: list(pool.imap(stop, [7])),
            lambda: list(pool.map_async(stop, [7], progress=False)),
            lambda: asyncio.run(wait_for(hand_on(pool.map_async(stop, [7], progress=False)))),
            lambda: asyncio.run(wait_for(hand_on(pool.submit(stop, 7)))),
        ]
        for way in ways:
            with pytest.raises(nbpar.TaskError, match="StopIteration: 7") as caught:
                way()
            assert isinstance(caught.value.__cause__, StopIteration)
            assert "item 0" in str(caught.value)
