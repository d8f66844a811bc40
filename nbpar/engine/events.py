"""What happened to a job: the vocabulary that flows from a backend's dispatcher to the job's state.

:mod:`nbpar.engine.state` folds events into a job's state; pictures of that are :mod:`nbpar.engine.snapshot`. Nothing
here does anything; every layer may import it. Named tuples where a field's name allows it: they take a tenth of a
dataclass's time to define, which the first call feels. Times are ``time.perf_counter()`` seconds, which processes of
one machine share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "NO_WORKER",
    "UNLABELLED",
    "ChunkDone",
    "Failure",
    "LostUpdate",
    "Note",
    "OutputLine",
    "Restored",
    "Sampled",
    "SentAgain",
    "SlowTask",
    "WorkLost",
    "WorkerEnded",
    "WorkerStarted",
]


class WorkerStarted(NamedTuple):
    """A worker says it is ready; `begin_s` is when its start was asked for, `init_s` what its init took of that."""

    worker_id: int
    pid: int
    begin_s: float
    ready_s: float
    init_s: float = 0.0


class WorkerEnded(NamedTuple):
    """A worker is gone, for the `reason` given in words (``"killed by SIGKILL"``, ``"idle"``).

    `exit_s` is what its `worker_exit` took, 0 where that is not known.
    """

    worker_id: int
    pid: int
    at_s: float
    reason: str
    expected: bool
    exit_s: float = 0.0


class ChunkDone(NamedTuple):
    """Tasks ``start`` to ``stop - 1`` of a job ended on a worker between `begin_s` and `end_s`.

    Attributes
    ----------
    unpack_s, pack_s : float
        What the worker took to rebuild their arguments (before `begin_s`) and to pickle their results (after `end_s`).
    kernel_s : float
        What the kernel took to pickle their arguments and to rebuild their results.
    sent_bytes, received_bytes : int
        Size of the arguments, of the results.
    longest_index, longest_s : int, float
        The task among them that took longest, and how long; index -1 where tasks were not timed one by one.
    n_again : int
        Further tasks that the time went to, which are tried again and thus have not ended.
    together : bool
        They ran at once, and each took about as long as the longest.
    """

    worker_id: int
    start: int
    stop: int
    begin_s: float
    end_s: float
    n_failed: int = 0
    unpack_s: float = 0.0
    pack_s: float = 0.0
    kernel_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    longest_index: int = -1
    longest_s: float = 0.0
    n_again: int = 0
    together: bool = False


class WorkLost(NamedTuple):
    """A worker was in a task from `begin_s` to `end_s` that did not end there: interrupted, or lost with the worker."""

    worker_id: int
    begin_s: float
    end_s: float


class SlowTask(NamedTuple):
    """A task that was among the job's slowest when it ended."""

    task_index: int
    duration_s: float
    worker_id: int
    item_repr: str


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


class SentAgain(NamedTuple):
    """A large buffer went to workers `n_times` by now within one job; `what` names it for people."""

    what: str
    n_bytes: int
    n_times: int


class LostUpdate(NamedTuple):
    """Tasks of a job have changed what its function brought by these names, in a worker, where the change is lost."""

    job_id: int
    names: tuple[str, ...]


class Sampled(NamedTuple):
    """What a worker's profiler saw of a job since it told last, packed by :mod:`nbpar.worker.profile`."""

    worker_id: int
    job_id: int
    data: bytes


NO_WORKER = -1
"""The `worker_id` of a line of nbpar's own."""

UNLABELLED = -2
"""The `worker_id` of a line that is written as it is: of a program that was written for another library."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One whole line that a task wrote; `index` is None when no task was running."""

    worker_id: int
    index: int | None
    stream: Literal["stdout", "stderr"]
    text: str
