"""An immutable picture of a job now: what views draw, and all that they know.

Made by :mod:`nbpar.engine.state`, drawn by :mod:`nbpar.views`, summed up by :mod:`nbpar.engine.insights`. Nothing here
does anything. Times count from the job's start, in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from nbpar.engine.events import Failure, OutputLine, SentAgain, SlowTask

__all__ = [
    "Bin",
    "Facts",
    "HotLine",
    "Lane",
    "Profile",
    "Snapshot",
    "Span",
    "Status",
    "ThreadsCpu",
    "Times",
    "Usage",
    "View",
]

Status = Literal["waiting", "running", "paused", "done", "failed", "cancelled"]
"""``done`` with failures in it is still done; ``failed`` means that an error ended the job."""


class Span(NamedTuple):
    """A stretch of a worker's lane: tasks ``first`` to ``last`` (both included) between two times in seconds.

    `sent_bytes` and `received_bytes` are the size of their arguments and of their results.
    """

    begin_s: float
    end_s: float
    first: int
    last: int
    n_tasks: int
    n_failed: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Usage(NamedTuple):
    """What a worker used at a moment: memory of its own, and cores (1.0 is one) since the sample before.

    `other_cpu` is the part of `cpu` that went to threads beside the one that runs tasks: those of BLAS, of a library.
    """

    at_s: float
    memory_bytes: int
    cpu: float
    other_cpu: float = 0.0


class ThreadsCpu(NamedTuple):
    """Cores that threads used, all together, and those that they used or waited for because others had them.

    `waits` is how many times a second they stopped to wait for something else: a lock, the GIL, a disk. All of it in
    the mean of the last `watched_s` seconds of the job.
    """

    used: float
    wanted: float
    waits: float
    watched_s: float


class Times(NamedTuple):
    """Where a worker's time in a job went, in seconds; the parts add up to its presence (`exit_s` comes after).

    Attributes
    ----------
    start_s, init_s : float
        Until it was ready, as far as the job was there by then; `worker_init` counts in `init_s` alone.
    wait_s : float
        For tasks: neither working nor transferring.
    transfer_s : float
        Rebuilding arguments and pickling results, in the worker.
    work_s : float
        In the user's function.
    exit_s : float
        In `worker_exit`, for a worker that ended within the job.
    """

    start_s: float = 0.0
    init_s: float = 0.0
    wait_s: float = 0.0
    transfer_s: float = 0.0
    work_s: float = 0.0
    exit_s: float = 0.0


class Bin(NamedTuple):
    """How many tasks took from `from_s` up to `to_s` seconds."""

    from_s: float
    to_s: float
    n_tasks: int


class HotLine(NamedTuple):
    """A line of the user's source and its share of the time that was profiled, 0 to 1."""

    place: str
    line: int
    source: str
    share: float


class Profile(NamedTuple):
    """Where the tasks' time went, merged over all workers.

    Attributes
    ----------
    duration_s : float
        Time profiled, summed over workers.
    n_samples : int
        Looks at the stack.
    lines : tuple of HotLine
        The cell's own lines first, then the user's modules; the hottest first, at most 20.
    tree : str
        The call tree as text, at most 20 KB.
    frames : tuple of (str, str, int)
        Functions: name, file, first line.
    stacks : tuple of (float, tuple of int)
        Seconds spent with these functions on the stack, the task's own first; each is a place in `frames`.
    """

    duration_s: float
    n_samples: int
    lines: tuple[HotLine, ...]
    tree: str
    frames: tuple[tuple[str, str, int], ...] = ()
    stacks: tuple[tuple[float, tuple[int, ...]], ...] = ()

    def __str__(self) -> str:
        rows = [f"{100 * one.share:4.0f}%  {one.place}, line {one.line}: {one.source.strip()}" for one in self.lines]
        return "\n".join([f"{self.duration_s:.2f} s in tasks, {self.n_samples:,} samples", *rows, "", self.tree])

    def __repr__(self) -> str:
        return f"<Profile of {self.duration_s:.2f} s in tasks; print it for its lines and its tree>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the call stacks as a file for https://www.speedscope.app, which draws them as flames.

        Parameters
        ----------
        path : str or path
            Is written anew; ``.speedscope.json`` is the usual ending.
        """
        from nbpar.engine.profile import to_speedscope

        Path(path).write_text(to_speedscope(self), encoding="utf-8")


class Facts(NamedTuple):
    """What is known of a job's pool and surroundings and does not change while it runs; advice needs it.

    Attributes
    ----------
    start_method : str
        How its workers exist.
    n_cpus : int
        That the process may use.
    chunk_size : int or None
        As the user has set it.
    blas_threads : int or None
        For each worker; None where that was left alone.
    memory_limit_bytes : int or None
        For each worker, as the user has set it.
    n_short_pools : int
        Pools that were made, ran a job or two and were shut down within the last minute, this one included.
    usable_memory_bytes : int or None
        What the machine has, or its container may use.
    """

    start_method: str
    n_cpus: int
    chunk_size: int | None = None
    blas_threads: int | None = None
    memory_limit_bytes: int | None = None
    n_short_pools: int = 0
    usable_memory_bytes: int | None = None


class Lane(NamedTuple):
    """One worker's part of a job.

    Attributes
    ----------
    worker_id, pid : int
        The worker; `pid` is 0 while the worker is starting, the kernel's own for threads and serial.
    n_done : int
        Tasks of this job that ended on it.
    busy : float
        Share of the time since the job's start (or the worker's, if later) spent in tasks, 0 to 1.
    spans : sequence of Span
        In order of time; neighbours are merged by the snapshot's `step`: see :mod:`nbpar.engine.spans`.
    begin_s, ready_s : float
        When the worker was asked to start and when it was ready, from the job's start, never below 0.
    current_index : int or None
        The item it runs now.
    current_since_s : float
        When that item began, from the job's start.
    track : tuple of (int, int or None), optional
        Progress within the task as `nbpar.track` reports it: done and total.
    alive : bool
        False once the worker has ended.
    times : Times
        Where its time went.
    sent_bytes, received_bytes : int
        Arguments that went to it, results that came back.
    usage : tuple of Usage
        Its memory and CPU over the job, oldest first, at most 60 samples. Of a process; empty for threads and serial.
    """

    worker_id: int
    pid: int
    n_done: int
    busy: float
    spans: Sequence[Span]
    begin_s: float = 0.0
    ready_s: float = 0.0
    current_index: int | None = None
    current_since_s: float = 0.0
    track: tuple[int, int | None] | None = None
    alive: bool = True
    times: Times = Times()
    sent_bytes: int = 0
    received_bytes: int = 0
    usage: tuple[Usage, ...] = ()


class Snapshot(NamedTuple):
    """An immutable picture of a job now; views draw nothing else.

    Attributes
    ----------
    job_id : int
        Counts jobs of this session from 1.
    name : str
        For people: ``map simulate``.
    status : str
        See :data:`Status`.
    n_tasks : int or None
        None while the length of the input is not known.
    n_done, n_failed : int
        Ended tasks, and how many of those failed. Tasks that a worker has ended inside a chunk which is still
        under way are counted.
    elapsed_s : float
        Since the job's start; frozen once it ended.
    rate : float
        Tasks per second over the last seconds while it runs, over the whole job once it ended.
    eta_s : float or None
        Seconds to go, None when unknown.
    n_workers : int
        Workers the pool is meant to have.
    lanes : tuple of Lane
        By `worker_id`.
    failures : tuple of Failure
        The first 100.
    notes : tuple of str
        Sentences for the user.
    can_pause : bool
        Whether the backend can hold the job.
    n_restored : int
        Tasks among `n_done` whose results were there before: in the job's checkpoint, or in the job it goes on with.
    aloud : tuple of str
        The notes that have to be read even where no picture is drawn.
    durations : tuple of Bin
        Histogram of the tasks' durations, by logarithmic steps; empty bins at both ends left out.
    slowest : tuple of SlowTask
        At most five, the slowest first.
    kernel_s : float
        What the kernel took to pickle arguments and to rebuild results.
    repeated : tuple of SentAgain
        What travelled again and again, the largest first.
    lost : tuple of str
        Names of the notebook's objects that tasks changed in their worker, where the change is lost.
    facts : Facts or None
        Of the pool.
    advice : tuple of str
        What would make the job faster, one sentence each, the weightiest first. That an update was lost is also in
        `aloud`, and not in `notes`.
    profile : Profile or None
        When it was asked for, once the job has ended.
    threads_cpu : ThreadsCpu or None
        Of a pool of threads, since the job was first looked at; None for others, and where the system does not tell.
    step : int
        By which spans were merged, in whole numbers of :data:`nbpar.engine.spans.UNITS_PER_S`.
    """

    job_id: int
    name: str
    status: Status
    n_tasks: int | None
    n_done: int
    n_failed: int
    elapsed_s: float
    rate: float
    eta_s: float | None
    n_workers: int
    lanes: tuple[Lane, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    can_pause: bool = True
    n_restored: int = 0
    aloud: tuple[str, ...] = ()
    durations: tuple[Bin, ...] = ()
    slowest: tuple[SlowTask, ...] = ()
    kernel_s: float = 0.0
    repeated: tuple[SentAgain, ...] = ()
    lost: tuple[str, ...] = ()
    facts: Facts | None = None
    advice: tuple[str, ...] = ()
    profile: Profile | None = None
    threads_cpu: ThreadsCpu | None = None
    step: int = 1

    @property
    def ended(self) -> bool:
        """Whether the job can change no more."""
        return self.status in ("done", "failed", "cancelled")

    @property
    def work_s(self) -> float:
        """Seconds spent inside tasks, summed over workers: the estimate of the serial time."""
        return sum(lane.times.work_s for lane in self.lanes)


class View(Protocol):
    """Something that draws snapshots. Only the ticker thread (or, at the end, the waiting caller) calls it.

    `open` is called once, not before the job is 0.3 s old and not at all for a shorter one; then `update` about ten
    times a second, and `close` once with the ended snapshot. `write` may come at any time, `open` or not.
    """

    def open(self, snapshot: Snapshot) -> None:
        """Begin to draw."""

    def update(self, snapshot: Snapshot) -> None:
        """Draw the job as it is now."""

    def write(self, lines: list[OutputLine]) -> None:
        """Show lines that tasks wrote."""

    def close(self, snapshot: Snapshot) -> None:
        """Draw the end and let go."""
