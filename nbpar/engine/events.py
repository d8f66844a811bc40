"""What happened (events) and an immutable picture of a job now (snapshot): the vocabulary of data that flows one way.

The backend's dispatcher makes events, :mod:`nbpar.engine.state` folds them into a job's state, and views draw the
snapshots of that state. Nothing here does anything; every layer may import it. Named tuples where a field's name allows
it: they take a tenth of a dataclass's time to define, which the first call feels. Times are ``time.perf_counter()``
seconds, which processes of one machine share; the times *inside a snapshot* count from the job's start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = [
    "NO_WORKER",
    "ChunkDone",
    "Failure",
    "Lane",
    "Note",
    "OutputLine",
    "Restored",
    "Snapshot",
    "Span",
    "Status",
    "View",
    "WorkerEnded",
    "WorkerStarted",
]

Status = Literal["waiting", "running", "paused", "done", "failed", "cancelled"]
"""``done`` with failures in it is still done; ``failed`` means that an error ended the job."""


# --- events -----------------------------------------------------------------------------------------------------------


class WorkerStarted(NamedTuple):
    """A worker says it is ready; `begin_s` is when its start was asked for."""

    worker_id: int
    pid: int
    begin_s: float
    ready_s: float


class WorkerEnded(NamedTuple):
    """A worker is gone, for the `reason` given in words (``"killed by SIGKILL"``, ``"idle"``)."""

    worker_id: int
    pid: int
    at_s: float
    reason: str
    expected: bool


class ChunkDone(NamedTuple):
    """Tasks ``start`` to ``stop - 1`` of a job ended on a worker between `begin_s` and `end_s`."""

    worker_id: int
    start: int
    stop: int
    begin_s: float
    end_s: float
    n_failed: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed task, as a view shows it."""

    index: int
    item_repr: str
    error_type: str
    message: str
    worker_id: int | None = None
    traceback: str = ""


class Note(NamedTuple):
    """One sentence for the user about the job (workers restarted, output dropped).

    `aloud` for what has to be read even where no picture of the job is drawn.
    """

    text: str
    aloud: bool = False


class Restored(NamedTuple):
    """So many results of a job did not have to be computed: its checkpoint had them, or the job that it goes on."""

    n_tasks: int


NO_WORKER = -1
"""The `worker_id` of a line of nbpar's own."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One whole line that a task wrote; `index` is None when no task was running."""

    worker_id: int
    index: int | None
    stream: Literal["stdout", "stderr"]
    text: str


# --- the snapshot -----------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """A stretch of a worker's lane: tasks ``first`` to ``last`` (both included) between two times in seconds."""

    begin_s: float
    end_s: float
    first: int
    last: int
    n_tasks: int
    n_failed: int = 0


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
    spans : tuple of Span
        In order of time; neighbours are merged so that there are at most 512.
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
    """

    worker_id: int
    pid: int
    n_done: int
    busy: float
    spans: tuple[Span, ...]
    begin_s: float = 0.0
    ready_s: float = 0.0
    current_index: int | None = None
    current_since_s: float = 0.0
    track: tuple[int, int | None] | None = None
    alive: bool = True


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

    @property
    def ended(self) -> bool:
        """Whether the job can change no more."""
        return self.status in ("done", "failed", "cancelled")

    @property
    def work_s(self) -> float:
        """Seconds spent inside tasks, summed over workers: the estimate of the serial time."""
        return sum(span.end_s - span.begin_s for lane in self.lanes for span in lane.spans)


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
