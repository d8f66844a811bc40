"""What a `Parallel` has of a pool: its job, the thread that calls joblib back, and errors in joblib's types.

:class:`Workers` is made by :mod:`nbpar.interop.joblib.backend` when joblib configures it, and serves the calls of one
`Parallel`, each with a job of its own. :class:`Retrieval` is around joblib's waiting for results.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from joblib.parallel import BatchedCalls

from nbpar.daemon import start_thread
from nbpar.errors import (
    JobCancelledError,
    JobInterrupt,
    NbparError,
    SerializationError,
    TaskError,
    WorkerDiedError,
    WorkerStartError,
)
from nbpar.feeding import Feed
from nbpar.interop.joblib.arguments import Arguments
from nbpar.interop.joblib.calls import Batch, Call, Runner, function_name
from nbpar.options import JobOptions
from nbpar.pool import WorkerPool
from nbpar.raising import as_raised

__all__ = ["Retrieval", "Workers"]

CHUNKS_AHEAD = 4
"""With less, workers wait for joblib; its own batches of short tasks are of 0.2 s and more."""

_END_S = 1.0
"""How long the caller waits for a job that is ending, so that its picture is there before the caller goes on."""


class Workers:
    """A pool, as one `Parallel` has it: at most one job at a time.

    Parameters
    ----------
    pool : WorkerPool
    job_options : mapping
        Of :class:`~nbpar.options.JobOptions`.
    least_bytes : int or None
        See :class:`~nbpar.interop.joblib.arguments.Arguments`.

    Attributes
    ----------
    name, n_expected
        What the dashboard calls the next job, and how many tasks it will have; None where that is not known.
    chunk_size : int or None
        Calls that travel together in the next job; by default as many as suits how long they take.
    feed : Feed or None
        The job under way.
    errors : dict
        Exceptions that joblib was told, with the frames they came with, by id.
    """

    def __init__(self, pool: WorkerPool, job_options: Mapping[str, Any], least_bytes: int | None) -> None:
        self.name: str | None = None
        self.n_expected: int | None = None
        self.chunk_size: int | None = None
        self.feed: Feed[Any] | None = None
        self.errors: dict[int, tuple[BaseException, TracebackType | None]] = {}  # those told to joblib, by id
        self._failure: BaseException | None = None  # what has ended the job
        self._pool = pool
        self._job_options = job_options
        self._least_bytes = None if pool.start_method in ("threads", "serial") else least_bytes
        self._arguments = Arguments(None)
        self._lock = threading.RLock()  # guards the start and the end of the job

    @property
    def batch_size(self) -> int:
        """Calls to hand out at a time: one, or of short ones what workers take for some chunks, 10 ms of work each."""
        size = 1 if self.feed is None else self.feed.chunk_size
        return size if size == 1 else CHUNKS_AHEAD * size

    def submit(self, func: Any, callback: Callable[[Any], Any] | None) -> Batch:
        """Take a batch of joblib's, or any function without arguments."""
        is_batch = isinstance(func, BatchedCalls)
        calls = func.items if is_batch else [(func, (), {})]
        batch = Batch(len(calls), callback, is_single=not is_batch)
        try:
            feed = self.feed or self._begin(func, calls[0][0])
            pack = self._arguments.pack
            feed.put(
                [Call(function, *pack(args, kwargs)) for function, args, kwargs in calls],
                [(batch, position) for position in range(len(calls))],
            )
        except Exception as error:  # noqa: BLE001  # in whatever thread: joblib raises it where the results are awaited
            batch.fail(self._failure or self._told(error))
        return batch

    def _begin(self, func: Any, function: Any) -> Feed[Any]:
        with self._lock:
            if self.feed is None:
                name = function_name(function)
                runner = Runner(name, getattr(func, "_backend", None), getattr(func, "_n_jobs", None))
                options = JobOptions(**{"name": self.name or name, "chunk_size": self.chunk_size, **self._job_options})
                self._arguments = Arguments(self._least_bytes, self._pool.n_workers)
                self._failure = None
                self.errors.clear()
                feed: Feed[Any] = Feed(self._pool, runner, options, n_expected=self.n_expected)
                try:
                    start_thread(self._deliver, feed, name="nbpar-joblib")
                except RuntimeError:  # no more threads
                    feed.cancel()
                    raise
                self.feed = feed
            return self.feed

    def _deliver(self, feed: Feed[Any]) -> None:
        error: BaseException | None = None
        try:
            for (batch, position), value, failure in feed.outcomes():
                if failure is None:
                    batch.put(position, value)
                else:
                    error = self._failure = self._told(failure)
                    batch.fail(error)
                del batch, value, failure  # results are joblib's, and may be large
        except BaseException as raised:  # noqa: BLE001  # what ended the job: each batch without an outcome is told
            error = self._failure = self._told(raised)
        for batch in dict.fromkeys(batch for batch, _ in feed.unanswered()):
            batch.fail(error or JobCancelledError("the job is over"))

    def _told(self, error: BaseException) -> BaseException:
        """An exception as joblib's users know it; its traceback is kept, for joblib takes that away."""
        told = _as_joblib_raises(error)
        self.errors[id(told)] = told, told.__traceback__
        return told

    def stop(self) -> None:
        """The call has ended: so does its job."""
        with self._lock:
            feed, self.feed = self.feed, None
            self._arguments = Arguments(None)  # what is in shared memory goes with the call
        if feed is not None:
            feed.close()
            feed.job.wait(_END_S)

    def abort(self) -> None:
        """Stop the job. Not waited for: the garbage collector may call this, in any thread."""
        with self._lock:
            feed, self.feed = self.feed, None
        if feed is not None:
            feed.cancel()


class Retrieval:
    """Around joblib's waiting: an interrupt is one line, and an error has the frames of the task once more."""

    def __init__(self, workers: Workers | None) -> None:
        self._workers = workers

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        workers, self._workers = self._workers, None
        if error is None or workers is None or kind is GeneratorExit:  # the last may come in any thread, at any time
            return
        told, frames = workers.errors.pop(id(error), (None, None))
        is_told = told is error
        if is_told and error.__traceback__ is not None:
            _innermost(error.__traceback__).tb_next = frames
        if (feed := workers.feed) is None:
            return
        if not is_told:
            feed.cancel()
        feed.job.wait(_END_S)
        if isinstance(error, KeyboardInterrupt) and not is_told:
            raise JobInterrupt(f"Interrupted: {feed.job.name} was cancelled") from None


def _innermost(traceback: TracebackType) -> TracebackType:
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _as_joblib_raises(error: BaseException) -> BaseException:
    """The exception that loky's users catch in this case; what nbpar says is its message, and its cause."""
    raised = as_raised(error) if isinstance(error, TaskError) else error
    if isinstance(raised, SerializationError):
        told: BaseException = pickle.PicklingError(f"Could not pickle the task to send to the workers: {raised}")
    elif isinstance(raised, WorkerDiedError | WorkerStartError):
        told = _worker_error(raised)(str(raised))
    else:
        return raised
    told.__cause__ = raised
    return told


def _worker_error(error: NbparError) -> Any:
    try:
        from joblib.externals.loky import process_executor
    except ImportError:  # joblib without multiprocessing
        from concurrent.futures.process import BrokenProcessPool

        return BrokenProcessPool
    died = isinstance(error, WorkerDiedError)
    return process_executor.TerminatedWorkerError if died else process_executor.BrokenProcessPool
