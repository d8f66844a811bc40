"""The reading side of `imap`: results out, items in, neither further ahead than a window.

Called by :mod:`nbpar.pool` in the consumer's thread, which is where the user's iterator runs: its errors are the
consumer's, and nothing is read any more once the consumer stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from nbpar.backends.base import Backend, Streamed
from nbpar.errors import JobInterrupt
from nbpar.job import Job, as_raised
from nbpar.options import OnError

__all__ = ["stream"]

R = TypeVar("R")


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
) -> Iterator[R]:
    """Give out a job's results while its items are read.

    Parameters
    ----------
    window : int, optional
        Items read and not given out yet, at most; by default four chunks for each worker.

    Yields
    ------
    object
        Results, in order of the items if `ordered`, else as they come.
    """
    reader = _Reader(job, backend, items, source, ordered=ordered, n_workers=n_workers, window=window)
    n_out = 0
    try:
        yield cast("R", None)  # taken by the pool: from here on `finally` runs, also if no result is ever asked for
        while reader.read(n_out):
            found = job.next_streamed(n_out, ordered=ordered)
            n_out += len(found)
            for index, value in found:
                error = job.error_of(index)
                if error is None:
                    yield value
                elif on_error == "return":
                    yield cast("R", error)
                elif on_error == "raise":
                    job.wait(1.0)
                    raise as_raised(error)
        job.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, JobInterrupt) or any(interrupt is error.__cause__ for error in job.errors):
            raise
        job.interrupt()
    finally:
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
    ) -> None:
        self._job = job
        self._backend = backend
        self._items = items
        self._source = source
        self._ordered = ordered
        self._n_workers = n_workers
        self._window = window
        self._closed = False

    def read(self, n_out: int) -> bool:
        """Read what may be read when `n_out` results were given out; False when all were."""
        source = self._source
        per_round = self._n_workers * self._backend.chunk_size(self._job.id)
        limit = self._window or 4 * per_round
        n_read = 0
        while not self._closed and source.n_added - n_out < limit:
            if n_read >= per_round and self._job.has_ready(n_out, ordered=self._ordered):
                break  # the workers have enough; the consumer need not wait for the input
            try:
                item = next(self._items)
            except StopIteration:
                self._closed = True
                self._job.input_ended(source.n_added)
                self._feed()
                break
            source.add(item)
            n_read += 1
            if n_read % per_round == 0:  # the workers begin while the input is read on
                self._feed()
        if n_read % per_round:
            self._feed()
        return not (self._closed and n_out == source.n_added)

    def _feed(self) -> None:
        self._backend.feed(self._job.id, self._source.n_added, closed=self._closed)
