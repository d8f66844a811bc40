"""Nothing that was finished is lost: kernels killed at random moments, two on one file, no room on the disk."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nbpar
from tests.helpers import start_script

N_TASKS = 3000

# A notebook's cell, run again and again. It notes what ran, in the worker, and what it was told, in the kernel.
DRIVER = """
import os, sys, time
import nbpar

folder, method, verb, run, n_tasks = sys.argv[1:]
n_tasks = int(n_tasks)

def note(name, index):
    file = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{os.environ['NBPAR_TEST_RUN']} {index}\\n".encode())
    os.close(file)

def tell(index):
    note("told.txt", index)
    if index not in known:
        os.write(1, b"t")
        known.update(range(n_tasks))

def task(x):
    note("ran.txt", x)
    time.sleep(0.001)
    return {"square": x * x, "text": "x" * (x % 50)}

os.environ["NBPAR_TEST_RUN"] = run  # not in a global of the task: that would be another task each time
path = os.path.join(folder, "sweep.db")
try:
    known = {int(line.split()[1]) for line in open(os.path.join(folder, "told.txt"))}
except FileNotFoundError:
    known = set()
pool = nbpar.WorkerPool(n_workers=2, start_method=method)
os.write(1, b"b")
found = {}
if verb == "imap":
    for value in pool.imap(task, range(n_tasks), ordered=False, checkpoint=path):
        index = round(value["square"] ** 0.5)
        tell(index)
        found[index] = value
else:
    job = pool.map_async(task, range(n_tasks), checkpoint=path, progress=False)
    while len(found) < n_tasks:
        here = job.results_by_index
        for index in here.keys() - found.keys():
            tell(index)
        found = here
        assert not job.done() or job.status == "done", job.exception()
        time.sleep(0.002)
expected = {x: {"square": x * x, "text": "x" * (x % 50)} for x in range(n_tasks)}
os.write(1, b"." if found == expected else b"?")
"""


def lines(file: Path) -> list[tuple[int, int]]:
    """Pairs of run and index, in order."""
    return [(int(run), int(index)) for run, index in (line.split() for line in file.read_text().splitlines())]


class Torment:
    """One sweep, whose kernel is killed again and again and which is then let go to its end."""

    def __init__(self, folder: Path, method: str, verb: str, n_kills: int) -> None:
        self.folder, self.n_kills, self.n_killed = folder, n_kills, 0
        self.problems: list[str] = []
        self._arguments = (str(folder), method, verb)

    def run(self) -> None:
        chance = random.Random(f"{self._arguments[1:]}")
        for number in range(self.n_kills):
            # While the kernel starts, while it opens the file, and mostly while results come.
            after = chance.choices(["", "b", "bt"], [1, 2, 7])[0]
            self._kill(number, after, chance.uniform(0.0, 0.06))
            self._check()
        with start_script(DRIVER, *self._arguments, str(self.n_kills), str(N_TASKS)) as script:
            out, err = script.communicate(timeout=60)
        if out != "bt.":
            self.problems.append(f"the last run ended with {out!r} and {err}")

    def _kill(self, number: int, after: str, after_s: float) -> None:
        with start_script(DRIVER, *self._arguments, str(number), str(N_TASKS)) as script:
            assert script.stdout is not None and script.stderr is not None
            script.stdout.read(len(after))
            time.sleep(after_s)  # no state is waited for: the moment is to be any
            script.kill()
            self.n_killed += script.wait(10) == -9

    def _check(self) -> None:
        told = self.folder / "told.txt"
        n_told = len({index for _, index in lines(told)}) if told.exists() else 0
        n_kept = 0
        with contextlib.suppress(nbpar.CheckpointError):  # not made yet
            n_kept = nbpar.checkpoint.info(self.folder / "sweep.db").n_results
        if n_kept < n_told:
            self.problems.append(f"{n_told} results were told, but {n_kept} are kept")


@pytest.mark.timeout(150)
def test_of_a_kernel_killed_100_times_no_result_is_lost_and_none_doubled(tmp_path: Path) -> None:
    torments = []
    for method, verb, n_kills in (("forkserver", "map", 20), ("fork", "imap", 40), ("threads", "map", 40)):
        folder = tmp_path / method
        folder.mkdir()
        torments.append(Torment(folder, method, verb, n_kills))
    threads = [threading.Thread(target=torment.run) for torment in torments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [torment.problems for torment in torments] == [[], [], []]
    assert sum(torment.n_killed for torment in torments) == 100
    for torment in torments:
        folder = torment.folder
        told_in: dict[int, int] = {}
        for run, index in lines(folder / "told.txt"):
            told_in.setdefault(index, run)
        again = [(run, index) for run, index in lines(folder / "ran.txt") if run > told_in[index]]
        assert again == [], "what was told ran once more"
        assert nbpar.checkpoint.info(folder / "sweep.db").n_results == N_TASKS == len(told_in)
        runs = Counter(told_in.values())
        assert len(runs) > 10, f"the kills came too early to say anything: {runs}"
        with contextlib.closing(sqlite3.connect(folder / "sweep.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not list(folder.glob("sweep.db-*"))


def test_two_kernels_share_a_file_and_both_come_to_the_right_end(tmp_path: Path) -> None:
    scripts = [
        start_script(DRIVER, str(tmp_path), method, verb, str(run), "1500")
        for run, (method, verb) in enumerate([("forkserver", "map"), ("threads", "imap")])
    ]
    ends = [script.communicate(timeout=40)[0] for script in scripts]
    assert [end.replace("t", "") for end in ends] == ["b.", "b."]
    (found,) = nbpar.checkpoint.info(tmp_path / "sweep.db").functions
    assert found.n_results == 1500
    with start_script(DRIVER, str(tmp_path), "threads", "map", "2", "1500") as third:
        assert third.communicate(timeout=40)[0] == "b."
    assert 2 not in {run for run, _ in lines(tmp_path / "ran.txt")}
    assert [one.name for one in tmp_path.iterdir() if "sweep" in one.name] == ["sweep.db"]


FULL = """
import json, os, resource, sys
import nbpar

os.chdir(sys.argv[1])
limit_bytes = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))  # as a full disk: no file grows beyond it
with nbpar.WorkerPool(start_method=sys.argv[2]) as pool:
    found = pool.map(lambda x: bytes(10_000), range(100), checkpoint="sweep.db", chunk_size=1)
assert found == [bytes(10_000)] * 100
snapshot = nbpar.jobs()[-1].snapshot()
print(json.dumps([snapshot.n_restored, nbpar.checkpoint.info("sweep.db").n_results, snapshot.notes]))
"""


@pytest.mark.parametrize("method", ["forkserver", "threads", "serial"])
def test_a_job_whose_disk_is_full_goes_on_and_says_so(tmp_path: Path, method: str) -> None:
    def run(limit_bytes: int) -> tuple[list[Any], str]:
        with start_script(FULL, str(tmp_path), method, str(limit_bytes)) as script:
            out, err = script.communicate(timeout=30)
        assert script.returncode == 0, err
        return json.loads(out), err

    (_, n_kept, notes), err = run(300_000)
    assert n_kept < 100 and len(notes) == 1
    assert notes[0].startswith("Results are no longer kept in sweep.db (")
    assert f"nbpar: {notes[0]}\n" in err
    (n_restored, n_results, _), _ = run(9_000_000)
    assert (n_restored, n_results) == (n_kept, 100)
    assert [one.name for one in tmp_path.iterdir()] == ["sweep.db"]
