"""The reading side of `imap`: results out, items in, neither further ahead than a window.

What bounds it: items read and not given out by the window; results that wait by :data:`~nbpar.backends.base.FULL_BYTES`
as well, and what the workers are about at that moment.

Called by :mod:`nbpar.pool` in the consumer's thread, which is where the user's iterator runs: its errors are the
consumer's, and nothing is read any more once the consumer stops.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nbpar.backends.base import Backend, Streamed
from nbpar.errors import PoolClosedError
from nbpar.job import Job
from nbpar.options import OnError
from nbpar.raising import as_raised_inside

if TYPE_CHECKING:
    from nbpar.resume import Checkpoint

__all__ = ["stream"]

R = TypeVar("R")

SLOW_S = 0.01
"""Longer than this the input is not read on before what was read is handed out and what has ended is given out."""


def stream(
    job: Job[R],
    backend: Backend,
    items: Iterator[Any],
    source: Streamed,
    *,
    ordered: bool,
    on_error: OnError,
    n_workers: int,
    window: int | None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[R]:
    """Give out a job's results while its items are read.

    Parameters
    ----------
    window : int, optional
        Items read and not given out yet, at most; by default four chunks for each worker.
    checkpoint : Checkpoint, optional
        May have results of items already.

    Yields
    ------
    object
        Results, in order of the items if `ordered`, else as they come.
    """
    reader = _Reader(
        job, backend, items, source, ordered=ordered, n_workers=n_workers, window=window, checkpoint=checkpoint
    )
    n_out = 0
    try:
        yield cast("R", None)  # taken by the pool: from here on `finally` runs, also if no result is ever asked for
        while reader.read(n_out):
            found = deque(job.next_streamed(n_out, ordered=ordered))
            n_out += len(found)
            while found:
                index = found[0][0]
                if source.sizes and source.result_taken(index):
                    with contextlib.suppress(PoolClosedError):  # then the job ends with its pool
                        backend.make_room(job.id)
                error = job.error_of(index)
                if error is None:
                    yield found.popleft()[1]  # no reference stays: it may be large
                    continue
                found.popleft()
                if on_error == "return":
                    yield cast("R", error)
                elif on_error == "raise":
                    job.wait(1.0)
                    raise as_raised_inside(error)
        job.wait()
    except KeyboardInterrupt as interrupt:
        job.interrupt(interrupt)
    finally:
        job.is_taken = True
        if checkpoint is not None:
            checkpoint.end_input()
            checkpoint.close_reader()
        # Not waited for: a generator that is dropped may be closed by any thread, the dispatcher's own included.
        job.cancel()


class _Reader:
    """Reads items for a job, no further ahead than its window."""

    def __init__(
        self,
        job: Job[Any],
        backend: Backend,
        items: Iterator[Any],
        source: Streamed,
        *,
        ordered: bool,
        n_workers: int,
        window: int | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._job = job
        self._backend = backend
        self._items = items
        self._source = source
        self._ordered = ordered
        self._n_workers = n_workers
        self._window = window
        self._checkpoint = checkpoint
        self._n_looked_up = 0
        self._closed = False
        self._error: Exception | None = None

    def read(self, n_out: int) -> bool:
        """Read what may be read when `n_out` results were given out; False when all were."""
        source = self._source
        per_round = self._n_workers * self._backend.chunk_size(self._job.id)
        limit = self._window or 4 * per_round
        begin_s = time.perf_counter()
        n_read = n_fed = 0
        while not self._closed and source.n_added - n_out < limit:
            # However slow the input, the workers get what is there, and the consumer what has ended.
            slow = time.perf_counter() - begin_s > SLOW_S
            if (n_read >= per_round or slow) and self._job.has_ready(n_out, ordered=self._ordered):
                break
            if n_read - n_fed >= per_round or (slow and n_read > n_fed):
                self._feed()
                n_fed = n_read
            try:
                source.add(next(self._items))
                n_read += 1
            except StopIteration:
                self._close()
            except Exception as error:  # noqa: BLE001  # the input's own: it is raised when what came before is out
                self._error = error
                self._close()
        if n_read > n_fed:
            self._feed()
        ended = self._closed and n_out == source.n_added
        if ended and self._error is not None:
            raise self._error
        return not ended

    def _close(self) -> None:
        self._closed = True
        self._job.input_ended(self._source.n_added)
        self._feed()

    def _feed(self) -> None:
        todo = None if self._checkpoint is None else self._look_up(self._checkpoint)
        self._backend.feed(self._job.id, self._source.n_added, closed=self._closed, todo=todo)

    def _look_up(self, checkpoint: Checkpoint) -> list[tuple[int, int]]:
        """Give out what the checkpoint has of the items that were read; the others are to be done."""
        first, self._n_looked_up = self._n_looked_up, self._source.n_added
        known, todo = checkpoint.look_up(self._source.take(first, self._n_looked_up))
        checkpoint.restore(known)
        for start, values in known:
            self._source.drop(start, start + len(values))
        if self._closed:
            checkpoint.end_input()
        return todo
