"""An open job: calls come one by one from whoever has them, and outcomes go back as they are there.

What `imap` is for an iterable that nbpar reads itself, :class:`Feed` is for a library that hands out its calls when it
likes: all of them are one job, with one card, one Cancel button and one line in ``nbpar.jobs()``. Called by the doors
in :mod:`nbpar.interop`; any thread may put, one thread takes.

What bounds it: whoever puts, since it hears of each outcome; results that wait to be taken by
:data:`~nbpar.backends.base.FULL_BYTES`, as with `imap`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from nbpar.backends.base import Streamed
from nbpar.errors import JobCancelledError, PoolClosedError, TaskError
from nbpar.job import Job
from nbpar.options import JobOptions
from nbpar.pool import WorkerPool

__all__ = ["Feed", "Outcome"]

R = TypeVar("R")


class Outcome(NamedTuple, Generic[R]):
    """What became of one item.

    Attributes
    ----------
    tag : object
        What was put with it.
    value : object
        What the function returned; None when it failed.
    error : TaskError or None
        Its failure.
    """

    tag: Any
    value: R | None
    error: TaskError | None


class Feed(Generic[R]):
    """A job that stays open until it is closed, fails or is cancelled.

    Parameters
    ----------
    pool : WorkerPool
        Runs it.
    function : callable
        Called with each item.
    options : JobOptions
        As of `WorkerPool.map`.
    n_expected : int, optional
        How many items will come, where that is known: for the dashboard alone.

    Attributes
    ----------
    job : Job
        What its card and ``nbpar.jobs()`` show.

    Examples
    --------
    >>> import nbpar
    >>> from nbpar.options import JobOptions
    >>> with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
    ...     feed = Feed(pool, abs, JobOptions())
    ...     feed.put([-1, -2], tags=["a", "b"])
    ...     feed.close()
    ...     sorted((outcome.tag, outcome.value) for outcome in feed.outcomes())
    [('a', 1), ('b', 2)]
    """

    def __init__(
        self, pool: WorkerPool, function: Callable[..., R], options: JobOptions, *, n_expected: int | None = None
    ) -> None:
        self._backend = pool._backend
        self._source = Streamed()
        self._tags: dict[int, Any] = {}  # of the items without an outcome, by index
        self._lock = threading.RLock()  # guards the tags, the order of items and the two below
        self._ends_with_failure = options.on_error == "raise"
        self._is_closed = False
        self._is_over = False
        self.job: Job[R] = pool._begin(
            function, self._source, None, options, star=False, is_held=False, checkpoint=None
        )
        if n_expected is not None:
            self.job.input_ended(n_expected)

    def put(self, items: Sequence[Any], tags: Sequence[Any]) -> None:
        """Add items; the tag of each comes back with its outcome, or from :meth:`unanswered`.

        Raises
        ------
        JobCancelledError
            When the feed was closed, or all outcomes were given out.
        PoolClosedError
            When its pool was shut down.
        """
        with self._lock:
            if self._is_over or self._is_closed:
                raise JobCancelledError(f"{self.job.name} is over and takes no more items")
            for item, tag in zip(items, tags, strict=True):
                self._tags[self._source.n_added] = tag
                self._source.add(item)
            self._backend.feed(self.job.id, self._source.n_added, closed=False)

    def close(self) -> None:
        """No more items will come: the job ends when those that are there have ended."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self.job.input_ended(self._source.n_added)
            with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
                self._backend.feed(self.job.id, self._source.n_added, closed=True)

    def cancel(self) -> None:
        """Stop the job: running tasks are interrupted."""
        self.job.cancel()

    @property
    def chunk_size(self) -> int:
        """Items that travel together at the moment, 10 ms of work: what to put at a time."""
        return self._backend.chunk_size(self.job.id)

    def outcomes(self) -> Iterator[Outcome[R]]:
        """Outcomes as they come, for one thread; ends when the feed was closed and all were given out.

        With ``on_error="raise"`` it ends with the first failure as well: :meth:`unanswered` has what is left.

        Raises
        ------
        BaseException
            What ended the job, when it was no task's failure.
        """
        try:
            while True:
                try:
                    found = deque(self.job.next_streamed(0, ordered=False))
                except JobCancelledError:
                    if self.job.status == "done":
                        return
                    raise
                while found:
                    index, value = found.popleft()
                    error = self.job.error_of(index)
                    if self._source.sizes and self._source.result_taken(index):
                        with contextlib.suppress(PoolClosedError):
                            self._backend.make_room(self.job.id)
                    with self._lock:
                        tag = self._tags.pop(index)
                    yield Outcome(tag, None if error is not None else value, error)
                    value = None  # it may be large
                    if error is not None and self._ends_with_failure:
                        return
        finally:
            self.job.is_taken = True
            with self._lock:
                self._is_over = True
            self.job.cancel()  # whoever stops taking wants no more of it; else it is over

    def unanswered(self) -> list[Any]:
        """Tags of the items that had no outcome when the job was over, each once."""
        with self._lock:
            tags, self._tags = self._tags, {}
            return list(tags.values())
