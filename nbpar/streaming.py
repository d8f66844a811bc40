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
    n_out = 0
    closed = False
    try:
        while not (closed and n_out == source.n_added):
            per_round = n_workers * backend.chunk_size(job.id)
            limit = window or 4 * per_round
            n_read = 0
            while not closed and source.n_added - n_out < limit:
                if n_read >= per_round and job.has_ready(n_out, ordered=ordered):
                    break  # the workers have enough; the consumer need not wait for the input
                try:
                    item = next(items)
                except StopIteration:
                    closed = True
                    job.input_ended(source.n_added)
                else:
                    source.add(item)
                    n_read += 1
                if n_read % per_round == 0:
                    backend.feed(job.id, source.n_added, closed=closed)
            if n_read or closed:
                backend.feed(job.id, source.n_added, closed=closed)
            if closed and n_out == source.n_added:
                break
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
