"""``python -m tests.soak --minutes 5 --seed 1``: the mix, its books, and exit code 1 when they do not balance."""

from __future__ import annotations

import argparse
import collections
import faulthandler
import gc
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import psutil

import nbpar
from tests.helpers import descriptors, processes
from tests.soak.faults import Faults, Interrupts
from tests.soak.jobs import Actor
from tests.soak.stage import POOLS, Stage
from tests.soak.tasks import ask_stacks

PROGRESS_S = 10.0
HANG_S = 60.0
"""Without the end of a job for so long, all stacks are printed and the soak has failed."""

STDERR = "stderr.txt"
"""Takes what would go to stderr: that it is empty is a promise, too."""

SLOW_S = 20.0
"""A job that takes so long is told of, with all stacks; most take less than one second, a few some time limits."""

LEFT_S = 10.0
"""What is left behind at the end may take so long to go."""

MOST_INTERRUPT_S = 10.0
"""The promise says 2 s; here the machine has more to do than it can."""


def main() -> int:
    """Run the soak; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--seed", type=int, default=None, help="what is run and what is done to it (by chance)")
    parser.add_argument("--actors", type=int, default=4, help="threads that run jobs, the main thread included (4)")
    parser.add_argument("--fault-every", type=float, default=0.25, help="mean seconds between faults (0.25)")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    _say(f"soak: {options.minutes:g} minutes, --seed {seed}")
    os.environ["NBPAR_UI"] = "off"
    folder = Path(tempfile.mkdtemp(prefix="nbpar-soak-"))
    stage = Stage(folder, seed)
    sys.stdout = (folder / "stdout.txt").open("w", encoding="utf-8")  # what workers write as they die: `_say` is for us
    stderr = (folder / STDERR).open("w", encoding="utf-8")
    os.dup2(stderr.fileno(), 2)
    try:
        _soak(stage, options)
    except BaseException:  # noqa: BLE001  # stderr is kept apart
        stage.fail(traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(_summary(stage))
    for problem in stage.problems:
        _say(f"\nThe books do not balance (--seed {seed}):\n  {problem}")
    return 1 if stage.problems else 0


def _say(*text: object, sep: str = " ") -> None:
    print(*text, sep=sep, file=sys.__stdout__, flush=True)


def _soak(stage: Stage, options: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", message="start_method=.fork.")  # of what may happen; it is to be seen whether
    before = _warm_up(stage.folder)
    interrupts = Interrupts(stage, mean_s=1.5)
    interrupts.install()
    actors = [Actor(stage, number) for number in range(1, options.actors)]
    works = [*(actor.run for actor in actors), Faults(stage, options.fault_every).run, interrupts.run]
    threads = [threading.Thread(target=work, name=f"soak-{number}") for number, work in enumerate(works)]
    threads.append(threading.Thread(target=_watch, args=(stage, 60 * options.minutes), name="soak-watch", daemon=True))
    for thread in threads:
        thread.start()
    Actor(stage, 0, interrupts.arm).run()
    for thread in threads[:-1]:
        thread.join()
    stage.close()
    _forget_jobs()
    if said := _unexpected(stage.folder / STDERR):
        stage.fail(f"written to stderr: {said}")
    if stage.slowest_interrupt_s > MOST_INTERRUPT_S:
        stage.fail(f"an interrupt took {stage.slowest_interrupt_s:.1f} s")
    if left := _left_behind(before, stage.folder):
        stage.fail(f"left behind: {left}")


def _forget_jobs() -> None:
    """Have ``nbpar.jobs()`` let go of the last jobs, which keep the results that they had when they failed."""
    with nbpar.WorkerPool(start_method="serial") as pool:
        for _ in range(100):
            pool.map(abs, [])


def _unexpected(path: Path) -> str:
    """What was written to stderr beside the notes on checkpoints."""
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("nbpar: ") or "checkpoint-" not in line)


def _warm_up(folder: Path) -> dict[str, Counter[str]]:
    """Load what is loaded once, start what stays; what there is then."""
    for method in sorted({str(options["start_method"]) for options in POOLS.values()}):
        with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:  # type: ignore[arg-type]
            pool.map(abs, [-1])
    return _what_is_there(folder)


def _what_is_there(folder: Path) -> dict[str, Counter[str]]:
    gc.collect()
    plain = [re.sub(r":\[\d+\]", "", one.partition(" ")[2]) for one in descriptors()]  # without numbers
    # A thread that is interrupted while it writes into its book may leave it open.
    plain = [one for one in plain if not one.startswith(f"{folder}/book-")]
    return {
        "descriptors": Counter(plain),
        "threads": Counter(thread.name for thread in threading.enumerate() if thread.name.startswith("nbpar")),
        "processes": Counter(map(str, processes())),
        "mappings": Counter(re.findall("/(?:dev/shm|memfd:)[^ \n]*", Path("/proc/self/maps").read_text())),
    }


def _left_behind(before: dict[str, Counter[str]], folder: Path) -> dict[str, Counter[str]]:
    end_s = time.monotonic() + LEFT_S
    while True:
        left = {kind: found - before[kind] for kind, found in _what_is_there(folder).items() if found - before[kind]}
        if not left or time.monotonic() > end_s:
            return left
        time.sleep(0.1)


def _watch(stage: Stage, duration_s: float) -> None:
    """Say how it goes, end it in time, and break off what hangs."""
    next_s = PROGRESS_S
    told: set[int] = set()
    while True:
        time.sleep(0.2)
        for story in list(stage.running.values()):
            if story.number not in told and time.monotonic() - story.begin_s > SLOW_S:
                told.add(story.number)
                stage.counts["slow"] += 1
                _say(f"\nSlow: {story}")
                _print_stacks(stage)
        if stage.elapsed_s > next_s:
            next_s += PROGRESS_S
            _say(_summary(stage))
        if stage.elapsed_s > duration_s:
            stage.stop.set()
        if stage.idle_s > HANG_S:
            _give_up(stage)


def _give_up(stage: Stage) -> None:
    _say(f"\nNo job has ended for {HANG_S:.0f} s (--seed {stage.seed}); under way:")
    for story in list(stage.running.values()):
        _say(f"  {story}")
    _say("The last faults:", *stage.faults, sep="\n  ")
    _print_stacks(stage)
    os._exit(1)


def _print_stacks(stage: Stage) -> None:
    faulthandler.dump_traceback(1, all_threads=True)
    children = {child.pid: " ".join(child.cmdline())[:80] for child in psutil.Process().children(recursive=True)}
    _say(children)
    _say(ask_stacks(str(stage.folder), [pid for pid in children if stage.listens(pid)]))


def _summary(stage: Stage) -> str:
    counts = collections.Counter(stage.counts)
    hits = ", ".join(
        f"{counts[name]:,} {name}"
        for name in ("killed", "crashed", "terminated", "aborted", "stopped", "servers", "replaced", "interrupts")
    )
    return f"{stage.elapsed_s:4.0f} s: {counts['jobs']:,} jobs, {counts['runs']:,} tasks run; {hits}"


if __name__ == "__main__":
    sys.exit(main())
