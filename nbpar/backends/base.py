"""The contracts between a job, its backend and the backend's workers.

:class:`Backend` is what :class:`nbpar.pool.WorkerPool` talks to, :class:`JobSink` is what a backend tells of a job (a
:class:`nbpar.job.Job` is one), and :class:`Workers` is what the dispatcher drives: processes or threads.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from nbpar.engine.chunking import AT_ONCE
from nbpar.engine.events import LostUpdate, OutputLine, Sampled
from nbpar.engine.instructions import Chunk
from nbpar.engine.plans import Running
from nbpar.engine.state import Activity, StateEvent
from nbpar.errors import TaskError
from nbpar.options import JobOptions
from nbpar.worker.execute import Work, is_async

__all__ = [
    "Backend",
    "Gone",
    "Heavy",
    "ItemSource",
    "JobSink",
    "JobSpec",
    "Left",
    "Listed",
    "NoJob",
    "NotReady",
    "Prepared",
    "Printed",
    "Ready",
    "ShuttingDown",
    "StateEvent",
    "Streamed",
    "TasksEnded",
    "Wait",
    "WorkerEvent",
    "Workers",
    "safe_str",
    "short_repr",
    "task_error",
]


# --- a job, as a backend sees it --------------------------------------------------------------------------------------


class ItemSource(Protocol):
    """Where the items of a job come from; the dispatcher's thread takes them."""

    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Items ``start`` to ``stop - 1``."""

    def drop(self, start: int, stop: int) -> None:
        """These items are not needed again."""


FULL_BYTES = 256_000_000
"""While so much of its results waits for the consumer of `imap`, no new task of a job is begun."""

LARGE_RESULT_BYTES = 1 << 16
"""Results from this size on are counted: smaller ones are bounded well enough by their number."""


class Listed:
    """Items that are all there: a list, a range, an array; slices of it travel as they are."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def take(self, start: int, stop: int) -> Sequence[Any]:
        """A slice of the input."""
        return self._items[start:stop]

    def drop(self, start: int, stop: int) -> None:
        """The input is the user's: nothing to do."""

    @property
    def is_free(self) -> bool:
        """Whether it costs nothing to keep the input."""
        return isinstance(self._items, range)


class Streamed:
    """Items that come one by one; held until their tasks have ended.

    The consumer's thread adds, the dispatcher's takes and drops: single dict operations, so nothing is locked. Bounded
    by the consumer, which adds no more than its window (:mod:`nbpar.streaming`).

    Large results are counted here, by the dispatcher's thread when they come and by the consumer's when it takes them:
    as long as too many bytes wait for the consumer, the job is full, and no new task of it is begun.

    Attributes
    ----------
    sizes : dict of int
        Of the large results that wait, by index.
    is_unbounded : bool
        Never full, however much waits.
    """

    def __init__(self) -> None:
        self._items: dict[int, Any] = {}
        self.n_added = 0
        self.sizes: dict[int, int] = {}
        self.is_unbounded = False
        self._came_bytes = 0  # written by the dispatcher's thread alone
        self._taken_bytes = 0  # by the consumer's
        self._is_full = False

    def add(self, item: Any) -> None:
        """One more item."""
        self._items[self.n_added] = item
        self.n_added += 1

    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Items by index."""
        return [self._items[index] for index in range(start, stop)]

    def drop(self, start: int, stop: int) -> None:
        """Forget items."""
        for index in range(start, stop):
            self._items.pop(index, None)

    def results_come(self, start: int, stop: int, each_bytes: int) -> bool:
        """Results are about to be handed to the job, each of about so many bytes; whether that fills it."""
        if each_bytes < LARGE_RESULT_BYTES:
            return False
        self.sizes.update(dict.fromkeys(range(start, stop), each_bytes))
        self._came_bytes += (stop - start) * each_bytes
        return self.is_full()

    def is_full(self) -> bool:
        """Whether too many bytes wait for the consumer; for the dispatcher's thread."""
        # First said, then looked at: what the consumer takes meanwhile is seen either here or there.
        self._is_full = True
        self._is_full = self._came_bytes - self._taken_bytes >= FULL_BYTES and not self.is_unbounded
        return self._is_full

    def result_taken(self, index: int) -> bool:
        """The consumer has a result; whether that makes room in a job that was full."""
        self._taken_bytes += self.sizes.pop(index, 0)
        return self._is_full and self._came_bytes - self._taken_bytes < FULL_BYTES


class JobSink(Protocol):
    """What a backend tells of a job. Called by one thread at a time; must not block."""

    def apply(self, event: StateEvent) -> None:
        """Something happened that a snapshot shows."""

    def write(self, line: OutputLine) -> None:
        """A task wrote a line."""

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Tasks from `start` on ended with these values."""

    def failed(self, error: TaskError) -> None:
        """A task failed for good."""

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """The job is over; nothing follows. `error` ended it, unless a task's own failure did."""


class JobSpec(NamedTuple):
    """One map call, ready to be run."""

    job_id: int
    function: Callable[..., Any]
    star: bool
    source: ItemSource
    n_available: int
    closed: bool
    options: JobOptions
    seed: int
    sink: JobSink
    todo: Sequence[tuple[int, int]] | None = None  # the only tasks to be done, as (start, stop); all by default

    @property
    def at_once(self) -> int:
        """How many tasks a worker runs at once: of a coroutine function those of a chunk; 0 for all other functions."""
        return (self.options.chunk_size or AT_ONCE) if is_async(self.function) else 0

    @property
    def work(self) -> Work:
        """What a worker that shares the kernel's memory calls."""
        options = self.options
        return Work(self.function, self.star, self.seed, options.seed is not None, self.at_once, options.timeout)


class Wait(NamedTuple):
    """What the caller of a blocking function waits for.

    Attributes
    ----------
    is_over : callable
        Whether it has come.
    limit_s : float
        How long to wait for it.
    meanwhile : callable, optional
        What the caller has to do as soon as the workers have their tasks.
    """

    is_over: Callable[[], bool]
    limit_s: float
    meanwhile: Callable[[], None] | None = None


class Backend(Protocol):
    """How workers exist. Every method may be called from any thread unless it says otherwise."""

    @property
    def can_pause(self) -> bool:
        """Whether `pause` holds a job."""

    def submit(self, job: JobSpec, wait: Wait | None = None) -> None:
        """Begin a job, and wait for its end where the caller will and can do the backend's work meanwhile.

        Pickles its function in the caller's thread, so that an error is the caller's, at once.
        """

    def feed(
        self, job_id: int, n_available: int, *, closed: bool, todo: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """More items of a streamed job are there; where `todo` is given, only its tasks are to be done of them."""

    def help(self, wait: Wait) -> bool:
        """Do the backend's work in the calling thread while it waits, where that serves."""

    def cancel(self, job_id: int, *, gently: bool = False) -> None:
        """Stop a job; it ends as cancelled within moments, or `gently` when the tasks that run have ended."""

    def pause(self, job_id: int, *, paused: bool) -> None:
        """Hold a job or let it go on."""

    def make_room(self, job_id: int) -> None:
        """The consumer of a streamed job has taken results, so that new tasks may be begun (:class:`Streamed`)."""

    def chunk_size(self, job_id: int) -> int:
        """Tasks that travel together at the moment: what a reader ahead should keep ready."""

    def activities(self, job_id: int) -> Mapping[int, Activity]:
        """What each worker does for a job now."""

    def pids(self) -> Mapping[int, int]:
        """Process id of each worker that is up, by worker_id."""

    def warm(self) -> None:
        """Start workers ahead of the first job; returns at once."""

    def recycle(self, reason: str) -> None:
        """Replace all workers as they get free."""

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """End: let jobs finish or cancel them, then end the workers. Afterwards nothing of the backend is left."""


# --- workers, as the dispatcher sees them -----------------------------------------------------------------------------


class Ready(NamedTuple):
    """A worker takes chunks from now on; `inherited_bytes` of its memory are the kernel's as well.

    `init_s` is what its `worker_init` took.
    """

    worker_id: int
    pid: int
    begin_s: float
    ready_s: float
    inherited_bytes: int = 0
    init_s: float = 0.0


class NotReady(NamedTuple):
    """`worker_init` raised in a worker."""

    worker_id: int
    error: BaseException


class Gone(NamedTuple):
    """A worker has ended. `last_words` is what it wrote to its descriptors last.

    `is_cut_off` for one that had closed its connection before, and was ended for that.
    """

    worker_id: int
    pid: int
    exit_code: int | None
    running: Running | None
    last_words: str = ""
    start_error: str = ""
    is_cut_off: bool = False


class Left(NamedTuple):
    """A worker that was asked to end has run its `worker_exit`."""

    worker_id: int
    exit_s: float


class TasksEnded(NamedTuple):
    """Tasks `first` to ``first + n_ended - 1`` of a chunk ended; what was measured is as in `ChunkDone`."""

    worker_id: int
    chunk_id: int
    first: int
    n_ended: int
    final: bool
    begin_s: float
    end_s: float
    values: Sequence[Any] = ()
    failures: Sequence[tuple[int, BaseException, str]] = ()  # index, exception, traceback as text
    n_bytes: int = 0
    unpack_s: float = 0.0
    pack_s: float = 0.0
    decode_s: float = 0.0
    longest_index: int = -1
    longest_s: float = 0.0


class Heavy(NamedTuple):
    """A worker holds more than the pool's `memory_limit` although its task has ended; the results follow."""

    worker_id: int
    used_bytes: int


class NoJob(NamedTuple):
    """A worker could not rebuild a job's function."""

    worker_id: int
    job_id: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Printed:
    """A task (index None: none was running) wrote whole lines."""

    worker_id: int
    index: int | None
    stream: Literal["stdout", "stderr"]
    lines: list[str]


class ShuttingDown:
    """Somebody ends all that the kernel has started: workers are not to be replaced."""


WorkerEvent = (
    ShuttingDown | Heavy | Left | Ready | NotReady | Gone | TasksEnded | NoJob | Printed | Sampled | LostUpdate
)


class Prepared(Protocol):
    """What :meth:`Workers.prepare` makes of a job."""

    @property
    def speed_key(self) -> object:
        """The same for jobs whose tasks can be expected to take as long; None when that cannot be told."""


class Workers(Protocol):
    """The workers of one pool. Only the dispatcher's thread calls them, except `prepare`, `wake` and `look`."""

    def prepare(self, job: JobSpec) -> Prepared:
        """Pickle what every worker needs of a job; called in the thread of the user's call."""

    def start(self, worker_id: int) -> None:
        """Start a worker; `poll` says when it is ready, or gone."""

    def send(self, worker_id: int, chunk: Chunk, job: JobSpec, prepared: object, *, quick: bool) -> int:
        """Send a chunk and whatever the worker needs before it; returns its size in bytes."""

    def interrupt(self, worker_id: int, chunk_id: int) -> None:
        """Drop a chunk, or interrupt the task of it that runs."""

    def recall(self, worker_id: int, chunk_id: int) -> None:
        """Have a chunk dropped where it has not begun, and not begin more of its tasks where it has."""

    def kill(self, worker_id: int, *, gently: bool) -> None:
        """End a worker now."""

    def stop(self, worker_id: int) -> None:
        """Let a worker end by itself."""

    def end_job(self, job_id: int) -> None:
        """No worker needs this job any more."""

    def wait(self, timeout_s: float | None) -> None:
        """Wait for something to happen, for `wake`, or for the time to pass."""

    def poll(self) -> Iterable[WorkerEvent]:
        """What has happened; does not wait."""

    def rest_in_s(self, now_s: float) -> float | None:
        """Seconds until `poll` is to be called although nothing happened: memory goes back then. None while none is."""

    @property
    def has_news(self) -> bool:
        """Whether `wait` would return at once."""

    @property
    def can_lend(self) -> bool:
        """Whether another thread may call all this for a while, between two calls of `lend`."""

    def lend(self, on: bool) -> None:  # a switch
        """While on, whatever happens does not end the `wait` of the dispatcher's own thread; that of another does."""

    def wake(self) -> None:
        """Make a `wait` return; any thread."""

    def look(self, worker_id: int) -> tuple[Running | None, Activity]:
        """What a worker does now, by its board; any thread."""

    def pid(self, worker_id: int) -> int | None:
        """Its process, None while it is not up; any thread."""

    def close(self) -> None:
        """Kill what is left and free everything."""


# --- helpers ----------------------------------------------------------------------------------------------------------


class _Repr(reprlib.Repr):
    """Cuts bytes before their repr is made: of a gigabyte that has four."""

    def repr_bytes(self, data: bytes | bytearray, level: int) -> str:
        most = self.maxother
        return self.repr_instance(data[:most] + data[-most:] if len(data) > 2 * most else data, level)

    repr_bytearray = repr_bytes


_repr = _Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80
_repr.maxlevel = 3


def short_repr(item: object) -> str:
    """A repr of one line and at most about 100 characters; never raises."""
    try:
        text = " ".join(_repr.repr(item).split())
    except BaseException:  # noqa: BLE001  # a __repr__ of the user's may raise anything; it must not hide the error
        text = f"<{type(item).__name__} whose repr failed>"
    return text if len(text) <= 120 else text[:117] + "..."


def safe_str(error: BaseException) -> str:
    """The message of a user's exception; never raises."""
    try:
        return str(error)
    except BaseException as failure:  # noqa: BLE001  # as above
        return f"(its __str__ raised {type(failure).__name__})"


def task_error(error: BaseException, *, index: int, item: object, worker_id: int | None, traceback: str) -> TaskError:
    """The outcome of a failed task: nbpar's own errors get the item, a user's becomes the cause."""
    if isinstance(error, TaskError) and error.index < 0:
        outcome = error
    else:
        text = safe_str(error)
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
        outcome = TaskError(message)
        outcome.__cause__ = error
    outcome.index = index
    outcome.item_repr = short_repr(item)
    outcome.worker_id = worker_id
    outcome.remote_traceback = outcome.remote_traceback or traceback
    return outcome
