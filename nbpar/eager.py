"""The eager cousin of `imap`: tasks run as fast as workers can, whether or not anybody takes the results.

`nbpar.imap` reads its input in the thread that takes the results, and stops when that stops. Other libraries go on:
programs that were written for them let the tasks run for what they do, and never ask for a result.
:class:`EagerStream` serves them, for :mod:`nbpar.interop`. An input that is all there is handed out as a whole; any
other is read by a thread of its own, which ends with the job.

What bounds it: of an input that is read, four chunks for each worker are handed out at a time, and no more is read
while `MAX_WAITING` results, or large ones of :data:`~nbpar.backends.base.FULL_BYTES`, wait to be taken; unless nobody
can take them any more, or :meth:`Reader.run_freely` says so. Results of an input that is all there wait without a
limit of their own: there are as many as items.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from nbpar.backends.base import Listed, Streamed
from nbpar.daemon import start_thread
from nbpar.errors import JobCancelledError, NbparError, PoolClosedError, TaskError
from nbpar.inputs import is_sliceable
from nbpar.options import JobOptions
from nbpar.outcomes import Outcomes
from nbpar.waiting import Latch

if TYPE_CHECKING:
    from nbpar.job import Job
    from nbpar.pool import WorkerPool

__all__ = ["EagerStream", "NotYetError", "Reader"]

R = TypeVar("R")

MAX_WAITING = 10_000
"""Small results that may wait to be taken, of an input whose length is not known."""

_WHOLE = (list, tuple, range, dict, set, frozenset, str, bytes, deque)


class NotYetError(NbparError, TimeoutError):
    """There is no outcome within the time; the job goes on."""


class EagerStream(Generic[R]):
    """The results of a job that does not wait for whoever takes them.

    Dropping it does not stop the tasks; their results are then dropped as they come.

    Parameters
    ----------
    pool : WorkerPool
    function : callable
    items : iterable
        One that is all there is copied; any other is read by a thread of the stream's own.
    options : JobOptions
        With ``on_error="return"``: a failed task stops no other.
    ordered : bool
        Give results in the order of the items, or as they come.
    group : int
        Items are read so many at a time; when the input raises in the midst of a group, the whole of it is left out.
    when_read : callable, optional
        Called with :attr:`reader` when all of the input has been handed out, or never will be; in whatever thread does
        that.

    Attributes
    ----------
    reader : Reader
        What hands out the input, also when the stream is dropped.

    Examples
    --------
    >>> import nbpar
    >>> with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
    ...     stream = EagerStream(pool, abs, iter([-1, -2]), JobOptions(on_error="return"), ordered=True)
    ...     stream.take(), stream.take()
    ((1, None), (2, None))
    """

    def __init__(
        self,
        pool: WorkerPool,
        function: Callable[[Any], R],
        items: Iterable[Any],
        options: JobOptions,
        *,
        ordered: bool,
        group: int = 1,
        when_read: Callable[[Reader], None] | None = None,
    ) -> None:
        __tracebackhide__ = True
        listed: Any = None
        if is_sliceable(items):
            listed = items
        elif type(items) in _WHOLE:
            listed = list(items)
        source = Streamed() if listed is None else Listed(listed)
        rest = iter(items) if listed is None else iter(())
        self._job: Job[R] = pool._begin(function, source, None, options, star=False, is_held=False, checkpoint=None)
        self._job.show_now()
        self._ordered = ordered
        self._n_out = 0
        self._found: deque[tuple[int, Any]] = deque()
        self.reader = Reader(pool, self._job, source, when_read)
        if listed is not None:
            self.reader.end(len(listed))
        else:
            start_thread(self.reader.run, rest, group, name="nbpar-reader")
        self._abandon = weakref.finalize(self, self.reader.run_freely, drop=True)
        self._abandon.atexit = False

    @property
    def job(self) -> Job[R]:
        """The job, for its name, its state and its display."""
        return self._job

    def take(self, timeout: float | None = None) -> tuple[R | None, TaskError | None]:
        """The next outcome: a value, or a failure. Waits for it.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        Exception
            What the input raised, once all that came before was given out.
        StopIteration
            When all were given out.
        NotYetError
            When the time has passed first.
        JobCancelledError
            When the job was cancelled before this task had ended.
        """
        __tracebackhide__ = True
        if not self._found:
            try:
                self._found.extend(self._job.wait_for(self._look, timeout) or ())
            except KeyboardInterrupt as interrupt:
                self._job.interrupt(interrupt)
            if not self._found:
                self._raise_end()
        index, value = self._found.popleft()
        self._n_out += 1
        self.reader.taken(index)
        error = self._job.error_of(index)
        return (value, None) if error is None else (None, error)

    def _look(self, outcomes: Outcomes[R]) -> list[tuple[int, Any]] | None:
        if found := outcomes.take_ready(self._n_out, ordered=self._ordered):
            return found
        return [] if self.reader.n_items == self._n_out else None

    def _raise_end(self) -> NoReturn:
        """Say why there is nothing to take."""
        job, reader = self._job, self.reader
        if reader.n_items == self._n_out:
            job.is_taken = True
            error, reader.error = reader.error, None
            raise StopIteration if error is None else error
        if not job.done():
            raise NotYetError(f"{job!r} has no result yet; it goes on")
        raise job.exception() or JobCancelledError(f"{job.name} was cancelled")


class Reader:
    """Hands out the items of one stream; what its thread holds on to, so that the stream itself can be dropped.

    Attributes
    ----------
    n_items : int or None
        Once all were read: how many there are.
    error : Exception or None
        What the input raised after its last item.
    is_read : Latch
        Set when nothing more will be handed out.
    """

    def __init__(
        self, pool: WorkerPool, job: Job[Any], source: Listed | Streamed, when_read: Callable[[Reader], None] | None
    ) -> None:
        self._pool = pool  # lives until all was read
        self._job = job
        self._source = source
        self._when_read = when_read
        self._n_taken = 0  # written by the consumer's thread alone
        self._runs_freely = False
        self._drops = False
        self.n_items: int | None = None
        self.error: Exception | None = None
        self.is_read = Latch()

    def run(self, items: Iterator[Any], group: int) -> None:
        """Read to the end; in the thread of its own."""
        source, backend, job = self._source, self._pool._backend, self._job
        assert isinstance(source, Streamed)
        n_room = 0
        try:
            while True:
                if n_room <= 0:
                    n_room = self._room(source)
                    if not n_room:
                        break
                try:
                    read = list(islice(items, group))
                except Exception as error:  # noqa: BLE001  # the input's own: raised when what came before is out
                    self.error = error
                    break
                if not read:
                    break
                for item in read:
                    source.add(item)
                n_room -= len(read)
                # At once: the next item may be long in coming, or wait for the result of this one.
                with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
                    backend.feed(job.id, source.n_added, closed=False)
        finally:
            self.end(source.n_added)

    def _room(self, source: Streamed) -> int:
        """Wait until more may be read; how many items, 0 when the job is over."""
        limit = 4 * self._pool.n_workers * self._pool._backend.chunk_size(self._job.id)

        def look(outcomes: Outcomes[Any]) -> int | None:
            if self._drops:
                for index, _ in outcomes.take_ready(0, ordered=False):
                    self._n_taken += 1
                    source.result_taken(index)
            n_waiting = len(outcomes.ready)
            if n_waiting >= MAX_WAITING and not self._runs_freely:
                return None
            return max(0, limit - (source.n_added - n_waiting - self._n_taken)) or None

        room = self._job.wait_for(look)
        return 0 if room is None or self._job.done() else room

    def end(self, n_items: int) -> None:
        """All was read."""
        self._job.input_ended(n_items)
        self.n_items = n_items
        with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
            self._pool._backend.feed(self._job.id, n_items, closed=True)
        self._job.look_again()
        self.is_read.set()
        if self._when_read is not None:
            self._when_read(self)

    def taken(self, index: int) -> None:
        """The consumer has one result more."""
        self._n_taken += 1
        source = self._source
        if isinstance(source, Streamed):
            if source.sizes and source.result_taken(index):
                self._make_room()
            if not self.is_read.is_set():
                self._job.look_again()

    def _make_room(self) -> None:
        with contextlib.suppress(PoolClosedError):
            self._pool._backend.make_room(self._job.id)

    def run_freely(self, *, drop: bool) -> None:
        """Mind no longer how many results wait."""
        self._runs_freely, self._drops = True, self._drops or drop
        if drop:
            self._job.is_taken = True
        if isinstance(self._source, Streamed):
            self._source.is_unbounded = True
            self._make_room()
        self._job.look_again()
