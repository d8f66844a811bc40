"""Control is back soon after an interrupt, whoever gets it and however often; the same pool works on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import start_script, until

IDLE_S = 0.5  # until the kernel is idle again
STUCK_S = 2.0  # and where tasks do not heed the interrupt
SLACK_S = 1.5  # for a loaded machine

SCRIPT = """
import faulthandler, os, pathlib, signal, sys, time
import nbpar
faulthandler.dump_traceback_later(40, exit=True)
folder, method, kind = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def note(name):
    (folder / name).touch()

def task(x):
    note(f"began-{x}")
    if kind == "sleeps":
        time.sleep(1000)
    elif kind == "in Python":
        while True: pass
    elif kind == "in C":
        sum(range(10**13))  # holds the GIL
    else:
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

pool = nbpar.WorkerPool(n_workers=2, start_method=method)
pool.map(abs, range(4))
while len(pool.pids()) < 2: time.sleep(0.005)
def interrupted():
    try:
        pool.map(task, range(10), chunk_size=1)
    except KeyboardInterrupt as error:
        return time.monotonic(), type(error).__name__

name, n_sent = None, int(sys.argv[4])
while True:
    try:
        if name is None:
            back_s, name = interrupted()
        while len(list(folder.glob("sent-*"))) < n_sent:
            time.sleep(0.01)
        break
    except KeyboardInterrupt:  # one that comes late hits a user who waits
        if name is None:
            back_s, name = time.monotonic(), "KeyboardInterrupt"
print(back_s, name, flush=True)
print(pool.map(abs, [-1, -2]), flush=True)
used_s = time.monotonic()
time.sleep(0.3)
print(used_s, len(list(folder.glob("began-*"))), flush=True)
"""


@pytest.mark.parametrize(
    ("method", "kind", "whom", "n_times"),
    [
        ("forkserver", "sleeps", "parent", 1),
        ("forkserver", "sleeps", "group", 1),
        ("forkserver", "sleeps", "group", 3),
        ("spawn", "sleeps", "group", 3),
        ("fork", "sleeps", "group", 3),
        ("forkserver", "in C", "parent", 1),
        ("forkserver", "in C", "parent", 3),
        ("forkserver", "in C", "group", 3),
        ("spawn", "in C", "group", 1),
        ("fork", "in C", "group", 3),
        ("forkserver", "in Python", "group", 1),
        ("forkserver", "catches all", "group", 1),
        ("threads", "in Python", "parent", 1),
        ("threads", "in Python", "parent", 3),
    ],
)
def test_control_is_back_and_the_pool_works(tmp_path: Path, method: str, kind: str, whom: str, n_times: int) -> None:
    with start_script(SCRIPT, str(tmp_path), method, kind, str(n_times), start_new_session=True) as script:
        try:
            until(lambda: len(list(tmp_path.glob("began-*"))) == 2)
            begin_s = time.monotonic()
            for number in range(n_times):
                if number:
                    time.sleep(0.1)  # as fast as one can press the button
                (os.killpg if whom == "group" else os.kill)(script.pid, signal.SIGINT)
                time.sleep(0.02)  # Python has heard of it by then; that is all that "sent" means
                (tmp_path / f"sent-{number}").touch()
            out, err = script.communicate(timeout=40)
        finally:
            if script.poll() is None:
                os.killpg(script.pid, signal.SIGKILL)
    assert err == ""
    first, result, last = out.splitlines()
    back_s, name = first.split()
    # A second interrupt may break off the wait for what runs, of 0.25 s.
    assert name == "JobInterrupt" or (n_times > 1 and name == "KeyboardInterrupt")
    heeds = kind in ("sleeps", "in Python")
    assert float(back_s) - begin_s < (IDLE_S if heeds else STUCK_S) + SLACK_S
    assert result == "[1, 2]"
    used_s, n_begun = last.split()
    # A worker that is stuck is replaced.
    assert float(used_s) - begin_s < STUCK_S + SLACK_S
    assert int(n_begun) <= 4  # two ran, and two at most were on their way
