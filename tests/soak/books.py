"""The books: what the tasks of a job wrote down as they ran, and what must be true of it.

A task writes when it begins and how it ends; a job claims an outcome for each. :func:`audit` compares the two. What
workers may do again, by `docs/design.md`: a task that ended without having been reported when its worker died; and one
task more in a block of tasks that take less than 5 us.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

__all__ = ["BEGUN", "DIES", "ENDED", "FAILED", "RECORD_BYTES", "Claim", "Deaths", "Run", "audit", "note", "read_runs"]

BEGUN, ENDED, FAILED, DIES = "BEFD"

RECORD_BYTES = 32  # divides a page: a write is torn by a kill between two pages, if at all


class Run(NamedTuple):
    """One run of a task: `end` is ENDED, FAILED, DIES (by its own hand), or "" when it wrote nothing more."""

    attempt: int
    pid: int
    end: str


@dataclass
class Claim:
    """What a job said of its tasks: ``"done"``, ``"failed"``, ``"cancelled"`` or ``"left"`` (an iterator, dropped)."""

    status: str
    values: Mapping[int, Any] = field(default_factory=dict)
    errors: Mapping[int, BaseException] = field(default_factory=dict)


class Deaths:
    """Which processes were killed, and by what."""

    def __init__(self) -> None:
        self._by_fault: dict[int, str] = {}
        self._by_act: dict[int, tuple[str, int]] = {}

    def by_fault(self, pid: int, how: str) -> None:
        """A fault is about to hit a process."""
        self._by_fault[pid] = how

    def by_act(self, pid: int, book: str, index: int) -> None:
        """A task ended its own process."""
        self._by_act[pid] = book, index

    def is_known(self, pid: int) -> bool:
        """Whether it was told what ended a process."""
        return pid in self._by_fault or pid in self._by_act

    def has(self, pid: int) -> bool:
        """Whether a process has ended. One that ended by itself, as planned, counts too: that is lenient."""
        return self.is_known(pid) or not psutil.pid_exists(pid)

    def culprit(self, pid: int | None) -> tuple[str, int] | None:
        """The task that ended a process, where it was a task that was not also hit by a fault."""
        return None if pid is None or pid in self._by_fault else self._by_act.get(pid)


# --- writing and reading ----------------------------------------------------------------------------------------------


def note(book: str, kind: str, index: int, attempt: int) -> None:
    """Write one line, in a worker; it is there when this returns, whatever becomes of the process."""
    line = f"{kind} {index} {attempt} {os.getpid()}".ljust(RECORD_BYTES - 1) + "\n"
    fd = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_runs(book: str, skip: int = 0) -> dict[int, list[Run]]:
    """The runs of each task, in the order in which they began.

    Parameters
    ----------
    skip : int
        Lines to leave out at the beginning.
    """
    path = Path(book)
    lines = path.read_text(encoding="ascii").splitlines()[skip:] if path.exists() else []
    runs: dict[int, list[Run]] = {}
    for line in lines:
        kind, *numbers = line.split()
        index, attempt, pid = map(int, numbers)
        of_task = runs.setdefault(index, [])
        if kind == BEGUN:
            of_task.append(Run(attempt, pid, ""))
            continue
        for at in range(len(of_task) - 1, -1, -1):  # its last run in that process; DIES stays, ENDED comes once
            if of_task[at].pid == pid and not of_task[at].end:
                of_task[at] = of_task[at]._replace(end=kind)
                break
    return runs


# --- checking ---------------------------------------------------------------------------------------------------------


def audit(
    claim: Claim,
    runs: Mapping[int, list[Run]],
    deaths: Deaths,
    *,
    n_tasks: int | None,
    retries: int,
    book: str,
    check_value: Callable[[int, Any], str],
    check_error: Callable[[int, BaseException], str],
    restored: Mapping[int, Any] | None = None,
    abandons: bool = False,
) -> list[str]:
    """What is wrong with a job, one sentence each.

    Parameters
    ----------
    n_tasks : int, optional
        How many there were; None where the input was not read to its end.
    check_value, check_error : callable
        Say what is wrong with an outcome; empty when nothing is.
    restored : mapping, optional
        Outcomes that were there before: these tasks must not have run.
    abandons : bool
        Whether workers are threads, of which one that must go ends when it can.
    """
    wrong = [f"task {i} has a value and an error" for i in claim.values.keys() & claim.errors.keys()]
    for index, value in claim.values.items():
        if problem := check_value(index, value):
            wrong.append(f"task {index} has a wrong value: {problem}")
    for index, error in claim.errors.items():
        if problem := check_error(index, error) or _wrong_blame(index, error, deaths, book):
            wrong.append(f"task {index} has a wrong error: {problem}: {error!r}")
    known = claim.values.keys() | claim.errors.keys()
    if claim.status == "done" and n_tasks is not None and (missing := set(range(n_tasks)) - known):
        wrong.append(f"tasks {sorted(missing)[:10]} have no outcome")
    for index in runs.keys() | known:
        is_restored = restored is not None and index in restored
        problems = _wrong_runs(
            runs.get(index, []), claim, index, deaths, retries=0 if is_restored else retries, abandons=abandons
        )
        if is_restored:
            problems = ["it ran, though its value was known"] if runs.get(index) else []
        wrong += [f"task {index}: {problem}; its runs: {runs.get(index)}" for problem in problems]
    return wrong


def _wrong_blame(index: int, error: BaseException, deaths: Deaths, book: str) -> str:
    culprit = deaths.culprit(getattr(error, "pid", None))
    return f"task {culprit} ended that worker" if culprit not in (None, (book, index)) else ""


def _wrong_runs(
    runs: list[Run], claim: Claim, index: int, deaths: Deaths, *, retries: int, abandons: bool
) -> list[str]:
    wrong = []
    good = [run for run in runs if run.end == ENDED]
    alive = [run for run in runs if not deaths.has(run.pid)]
    if index in claim.values and not good:
        wrong.append("it has a value, but never ended well")
    if abandons:
        if len(runs) > retries + 1:
            wrong.append(f"it ran {len(runs)} times")
        return wrong
    n_good = sum(run.end == ENDED for run in alive)
    if n_good > 1:
        wrong.append("it ended well more than once in workers that live")
    n_failed = sum(run.end == FAILED for run in alive) + sum(run.end in ("", DIES) for run in runs)
    n_allowed = retries + (index not in claim.values) + 1  # the last 1: a block of quick tasks
    if n_failed > n_allowed:
        wrong.append(f"it failed {n_failed} times, with retries={retries}")
    if claim.status == "done":
        if index in claim.values and alive == runs and len(runs) != n_failed + 1:
            wrong.append(f"it ran {len(runs)} times without need")
        if unended := [run for run in alive if not run.end]:
            wrong.append(f"a run neither ended nor lost its worker: {unended}")
    if any(run.attempt > retries + 1 for run in runs):
        wrong.append("it was told of too many attempts")
    return wrong
