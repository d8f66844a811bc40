"""One failed task once more, in the caller's thread: what `%nbpar debug` needs.

Owns :class:`Recipe`, what a job keeps for it: the function, and the items of its failures, let go with the job.
Made by :mod:`nbpar.pool`, held by :class:`nbpar.job.Job`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbpar.backends.base import ItemSource, JobSpec
from nbpar.wire import shared
from nbpar.wire.board import Slot
from nbpar.worker.context import Context, current_context, seed_task, set_context

__all__ = ["Recipe"]

MAX_ITEMS = 100
"""Failures whose items are kept, of each job."""


class Recipe:
    """How a job's tasks are called.

    Parameters
    ----------
    job : JobSpec
        Its function and seed are kept, its input until :meth:`ended`.
    """

    def __init__(self, job: JobSpec) -> None:
        self._function = job.function
        self._star = job.star
        self._seed = job.seed
        self._seeded = job.options.seed is not None
        self._source: ItemSource | None = job.source
        self._items: dict[int, Any] = {}

    def keep(self, index: int) -> None:
        """Keep the item of a failure. Called by the backend's thread while the item is there."""
        if self._source is not None and len(self._items) < MAX_ITEMS:
            self._items[index] = self._source.take(index, index + 1)[0]

    def ended(self) -> Recipe | None:
        """The job is over: what is needed of this from now on."""
        self._source = None
        return self if self._items else None

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
            outer = current_context()
            set_context(Context(0, slot, seed=self._seed), whole_process=False)
            try:
                slot.begin_task(index)
                if self._seeded:
                    seed_task(self._seed, index)
                argument = shared.unwrap(item)
                return self._function(*argument) if self._star else self._function(argument)
            finally:
                set_context(outer, whole_process=False)

        return run
