"""What all parts of the soak share: the pools, the deaths, the jobs under way, and whether it is to go on."""

from __future__ import annotations

import collections
import functools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbpar
from tests.soak.books import DIES, Deaths, read_runs
from tests.soak.tasks import Spec, listen

__all__ = ["POOLS", "Guest", "Stage", "Story"]

# Options of the pools that stay; they are replaced now and then.
POOLS: dict[str, dict[str, Any]] = {
    "forkserver": {"start_method": "forkserver", "n_workers": 2},
    "recycled": {"start_method": "forkserver", "n_workers": 1, "tasks_per_worker": 40},
    "spawn": {"start_method": "spawn", "n_workers": 1},
    "fork": {"start_method": "fork", "n_workers": 2},
    "threads": {"start_method": "threads", "n_workers": 2},
}


@dataclass
class Story:
    """One job: what is needed to tell what went wrong with it."""

    number: int
    kind: str
    pool: str
    spec: Spec
    options: dict[str, Any]
    begin_s: float
    events: list[str] = field(default_factory=list)

    def tell(self, event: str) -> None:
        """Note what happened, and when."""
        self.events.append(f"{time.monotonic() - self.begin_s:.3f} s: {event}")

    def __str__(self) -> str:
        lines = "".join(f"\n    {event}" for event in self.events[-30:])
        return f"job {self.number}: {self.kind} in {self.pool}, {self.options}, {self.spec}{lines}"


@dataclass
class Guest:
    """A pool in use."""

    name: str
    pool: nbpar.WorkerPool
    is_leaving: bool = False

    @property
    def is_threads(self) -> bool:
        """Whether it has no processes."""
        return self.pool.start_method == "threads"


class Stage:
    """See the module.

    Parameters
    ----------
    folder : Path
        For books, checkpoints and stacks.
    seed : int
        Of all that is chosen.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.deaths = Deaths()
        self.stop = threading.Event()
        self.problems: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.running: dict[int, Story] = {}
        self.faults: collections.deque[str] = collections.deque(maxlen=40)
        self.slowest_interrupt_s = 0.0
        self._begin_s = self._progress_s = time.monotonic()
        self._lock = threading.Lock()
        self._guests: dict[str, Guest] = {}
        self._closers: list[threading.Thread] = []
        self._n_jobs = 0

    # --- pools --------------------------------------------------------------------------------------------------------

    def guest(self, chance: random.Random) -> Guest:
        """One of the pools that stay, to be used; it may leave at any moment."""
        name = chance.choice(sorted(POOLS))
        with self._lock:
            guest = self._guests.get(name)
            if guest is None or guest.is_leaving:
                guest = self._guests[name] = Guest(name, self.make_pool(**POOLS[name]))
        return guest

    def make_pool(self, **options: Any) -> nbpar.WorkerPool:
        """A pool whose workers tell their stacks when they are asked."""
        self.counts["pools"] += 1
        init: Callable[[], None] | None = None
        if options["start_method"] != "threads":
            init = functools.partial(listen, str(self.folder))
        return nbpar.WorkerPool(worker_init=init, **options)

    def replace_pool(self, chance: random.Random) -> None:
        """Shut a pool down, whatever it does; the next to ask for it gets a new one. Returns at once."""
        with self._lock:
            found = [guest for guest in self._guests.values() if not guest.is_leaving]
            guest = chance.choice(found) if found else None
            if guest is None:
                return
            guest.is_leaving = True
        cancel = chance.random() < 0.5
        self.note_fault("replaced", f"{guest.name}, cancel={cancel}")
        closer = threading.Thread(target=guest.pool.shutdown, kwargs={"cancel": cancel}, name="soak-closer")
        closer.start()
        self._closers.append(closer)

    def guests(self) -> list[Guest]:
        """The pools that are up."""
        with self._lock:
            return [guest for guest in self._guests.values() if not guest.is_leaving]

    def close(self) -> None:
        """Shut all pools down."""
        for guest in self.guests():
            guest.pool.shutdown(cancel=True)
        for closer in self._closers:
            closer.join()
        self._closers.clear()
        self._guests.clear()

    def died(self, pid: int | None) -> bool:
        """Whether it is known what ended a process: a fault, or a task of any job."""
        if pid is None or self.deaths.is_known(pid):
            return pid is not None
        for book in list(self.folder.glob("book-*")):
            for index, runs in read_runs(str(book)).items():
                if any(run.pid == pid and run.end == DIES for run in runs):
                    self.deaths.by_act(pid, str(book), index)
        return self.deaths.is_known(pid)

    def listens(self, pid: int) -> bool:
        """Whether a process is a worker that tells its stacks."""
        return (self.folder / f"stack-{pid}").exists()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def begin(self, kind: str, guest: Guest, spec: Spec, options: dict[str, Any]) -> Story:
        """A job begins."""
        with self._lock:
            self._n_jobs += 1
            story = Story(self._n_jobs, kind, guest.name, spec, options, time.monotonic())
            self.running[story.number] = story
        return story

    def new_book(self) -> str:
        """A file for a job to write into."""
        with self._lock:
            self.counts["books"] += 1
            return str(self.folder / f"book-{self.counts['books']}")

    def end(self, story: Story, problems: list[str], n_runs: int, *, keep_book: bool = False) -> None:
        """A job's books were looked at."""
        with self._lock:
            del self.running[story.number]
            self.counts["jobs"] += 1
            self.counts["runs"] += n_runs
            self.counts[story.kind] += 1
            self._progress_s = time.monotonic()
            if problems:
                self.problems.append("\n  ".join([f"{story}", *problems[:20], "the last faults:", *self.faults]))
                self.stop.set()
            elif not keep_book:
                Path(story.spec.book).unlink(missing_ok=True)

    def fail(self, problem: str) -> None:
        """Something is wrong that no job tells."""
        with self._lock:
            self.problems.append(problem)
        self.stop.set()

    def note_fault(self, kind: str, what: str) -> None:
        """A fault was done."""
        self.counts[kind] += 1
        self.faults.append(f"{self.elapsed_s:.3f} s: {kind}, {what}")

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin_s

    @property
    def idle_s(self) -> float:
        """Since a job ended."""
        return time.monotonic() - self._progress_s
