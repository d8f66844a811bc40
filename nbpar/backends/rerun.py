"""What a job keeps so that tasks of it can be run once more: its function, its options, and items.

Owns :class:`Recipe`. Made by :mod:`nbpar.pool`, held by :class:`nbpar.job.Job`; used by ``%nbpar debug``, which runs
one failed task in the caller's thread, and by ``Job.retry_failed``, which runs all that failed or never began, in the
pool that :func:`retrier` finds.

What it keeps, and how long:

* of a job that is done, the items of its failures; of one that failed or was cancelled, its input;
* both until the next job begins, when nobody has the :class:`~nbpar.job.Job`; then a range, or else the items of the
  first 100 failures, are what stays (:meth:`Recipe.trim`);
* of a stream, whose items come once, those of the first 100 failures.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Literal

from nbpar.backends.base import ItemSource, JobSpec, Listed
from nbpar.errors import PoolClosedError
from nbpar.wire import shared
from nbpar.wire.board import Slot
from nbpar.worker.context import Context, current_context, seed_task, set_context
from nbpar.worker.execute import Work, is_async

__all__ = ["Recipe", "retrier"]

MAX_ITEMS = 100
"""Failures whose items are kept for good, of each job."""


class Recipe:
    """How a job's tasks are called.

    Parameters
    ----------
    job : JobSpec
        Its function, options and seed are kept, its input as said above.
    checkpoint : object
        What the job's results were kept with, if they were.

    Attributes
    ----------
    function, star, options, seed, checkpoint
        Of the job.
    """

    def __init__(self, job: JobSpec, checkpoint: Any = None) -> None:
        self.function = job.function
        self.star = job.star
        self.options = job.options
        self.seed = job.seed
        self.checkpoint = checkpoint
        self._source: ItemSource | None = job.source
        self._is_listed = isinstance(job.source, Listed)
        self._items: dict[int, Any] = {}

    def keep(self, index: int) -> None:
        """Keep the item of a failure. Called by the backend's thread while the item is there."""
        if self._source is not None and (self._is_listed or len(self._items) < MAX_ITEMS):
            self._items[index] = self._source.take(index, index + 1)[0]

    def ended(self, status: Literal["done", "failed", "cancelled"]) -> Recipe | None:
        """The job is over: what is needed of this from now on."""
        if status == "done" or not self._is_listed:
            self._source = None
        return self if self._items or self._source is not None else None

    def trim(self) -> None:
        """Let the input go, and the items of all failures but the first."""
        if not (isinstance(self._source, Listed) and self._source.is_free):
            self._source = None
        self._items = dict(islice(self._items.items(), MAX_ITEMS))

    def source_of(self, ranges: Sequence[tuple[int, int]]) -> ItemSource:
        """The items of these tasks.

        Raises
        ------
        LookupError
            When some were not kept.
        """
        if self._source is not None:
            return self._source
        return _Chosen([(start, [self._items[i] for i in range(start, stop)]) for start, stop in ranges])

    def task(self, index: int) -> Callable[[], Any]:
        """A function that runs the task here and now, with its own `current_task` and its own exception.

        Raises
        ------
        LookupError
            When the item was not kept.
        """
        item = self._items[index]

        def run() -> Any:
            __tracebackhide__ = True
            slot = Slot.alone()
            outer, context = current_context(), Context(0, slot, seed=self.seed)
            set_context(context, whole_process=False)
            try:
                argument = shared.unwrap(item)
                is_seeded = self.options.seed is not None
                if is_async(self.function):
                    from nbpar.worker.coroutines import run_one

                    work = Work(self.function, self.star, self.seed, is_seeded, at_once=1)
                    return run_one(work, argument, index, context)
                slot.begin_task(index)
                if is_seeded:
                    seed_task(self.seed, index)
                return self.function(*argument) if self.star else self.function(argument)
            finally:
                set_context(outer, whole_process=False)

        return run


class _Chosen:
    """Some items of an input, by their places in it; an :class:`~nbpar.backends.base.ItemSource`."""

    def __init__(self, parts: list[tuple[int, list[Any]]]) -> None:
        self._parts = parts
        self._starts = [start for start, _ in parts]

    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Items of one part: the scheduler cuts chunks out of the ranges that it was given."""
        first, items = self._parts[bisect_right(self._starts, start) - 1]
        return items[start - first : stop - first]

    def drop(self, start: int, stop: int) -> None:
        """They are kept for the case that they fail again."""


def retrier(pool: Any) -> Callable[[Any], Any]:
    """What runs the rest of a job: its pool as long as that is open, else the one that took its place."""
    reference, successor = weakref.ref(pool), pool.successor

    def retry(job: Any) -> Any:
        here = reference()
        if here is None or here._closed:
            if successor is None:
                raise PoolClosedError(
                    f"the pool of {job!r} was shut down; call retry_failed() while it is open, or map the items again"
                )
            here = successor()
        return here.retry(job)

    return retry
