"""What a task can ask and tell about itself: `current_task`, `track`.

Owns the context of the running task: one for a worker process, one for each thread of the threads backend. Set by the
backends' run loops (:mod:`nbpar.worker.main`, :mod:`nbpar.backends.threads`, :mod:`nbpar.backends.serial`), read by
the user's code inside a task.
"""

from __future__ import annotations

import contextvars
import operator
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import length_hint
from typing import TYPE_CHECKING, Any, TypeVar

from nbpar.errors import NbparError, OptionsError
from nbpar.wire.board import CHUNK, TRACK_DONE, TRACK_TOTAL

if TYPE_CHECKING:
    import numpy as np

    from nbpar.wire.board import PartName, Slot

__all__ = [
    "Context",
    "CurrentTask",
    "TaskInterrupt",
    "current_context",
    "current_task",
    "of_coroutine",
    "timed_part",
    "track",
]

T = TypeVar("T")

_MASK_64 = (1 << 64) - 1


class TaskInterrupt(BaseException):
    """Ends the running task: its job was cancelled. Not an ``Exception``, so that a task's own handlers let it pass."""


@dataclass(slots=True, eq=False)
class Context:
    """A worker as the task in it sees it.

    Attributes
    ----------
    slot : Slot
        The worker's words on the board.
    attempt, seed : int
        Of the chunk under way; `seed` is the job's.
    values : dict
        What `per_worker` built here: version and object, by key.
    former : dict
        Objects of former versions, by key and version, for jobs that began with those.
    n_jobs : int
        Jobs that this worker has tasks of.
    block : tuple of (int, iterator)
        While a block of tasks runs: where its chunk ends, and the iterator over the chunk's items.
    tracking : tuple of (int, int), optional
        Chunk and task whose progress is being told; this very object is held by the one that tells it.
    """

    worker_id: int
    slot: Slot
    attempt: int = 1
    seed: int = 0
    values: dict[str, Any] | None = None
    former: dict[tuple[str, int], Any] = field(default_factory=dict)
    n_jobs: int = 1
    block: tuple[int, Iterator[Any]] | None = None
    nested: Any = None  # the serial pool of maps inside a task; made by nbpar.default
    tracking: tuple[int, int] | None = None
    together: Any = None  # a nbpar.worker.coroutines.Together, while coroutines run here
    loop: Any = None  # their event loop, made for the first of them

    @property
    def index(self) -> int | None:
        """Index of the running task; of coroutines, of the one that asks, or that began what asks."""
        if self.together is not None:
            context, index = of_coroutine.get()
            return index if context is self else None
        if self.block is None:
            return self.slot.index
        stop, rest = self.block
        return stop - length_hint(rest) - 1

    def begin_tracking(self) -> tuple[int, int] | None:
        """Become the one that tells the running task's progress; None where one around it does, or no task runs.

        Only as long as :attr:`tracking` *is* what this returns: what outlives its task tells nothing of the next one.
        """
        index, held = self.index, self.tracking
        if index is None or self.together is not None:  # a lane has one progress, and they are many
            return None
        task = (self.slot.words[CHUNK], index)
        if held == task:
            n_done, n_total = self.slot.tracked or (0, None)
            if n_total is None or n_done < n_total:  # else it has told all that it had to tell
                return None
        self.tracking = task
        return task

    def end_tracking(self, mine: tuple[int, int] | None) -> None:
        """Leave what was told as it is, and let another one tell."""
        if mine is None or self.tracking is not mine:
            return
        self.tracking = None
        if self.block is not None:  # within a block nothing wipes the board between two tasks
            self.slot.words[TRACK_TOTAL] = 0


of_coroutine: contextvars.ContextVar[tuple[Context | None, int]] = contextvars.ContextVar(
    "nbpar_task", default=(None, 0)
)
"""The worker and the index of a task that is a coroutine; also for the asyncio tasks and threads that it starts."""

_of_thread = threading.local()
_of_process: Context | None = None


def set_context(context: Context | None, *, whole_process: bool) -> None:
    """Say which worker this thread, or this whole process, is."""
    global _of_process
    if whole_process:
        _of_process = context
    else:
        _of_thread.context = context


def current_context() -> Context | None:
    """The worker that this code runs in; None in the kernel."""
    return getattr(_of_thread, "context", None) or _of_process or of_coroutine.get()[0]


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The running task.

    Attributes
    ----------
    index : int
        Position of its item in the input.
    worker_id : int
        The worker it runs on.
    attempt : int
        1 on the first run, 2 on the first retry.
    """

    index: int
    worker_id: int
    attempt: int
    _seed: int

    @property
    def rng(self) -> np.random.Generator:
        """A random generator of this task's own.

        It depends on the job's seed and the task's index only: not on the number of workers, nor on the schedule,
        nor on the attempt. Each access gives a fresh generator at its beginning.
        """
        import numpy as np

        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self.index,)))


def current_task() -> CurrentTask:
    """The task that this code runs in.

    Returns
    -------
    CurrentTask
        With `index`, `worker_id`, `attempt` and `rng`.

    Raises
    ------
    NbparError
        Outside a task.

    Examples
    --------
    >>> import nbpar
    >>> with nbpar.WorkerPool(start_method="serial") as pool:
    ...     pool.map(lambda x: (nbpar.current_task().index, x), "ab")
    [(0, 'a'), (1, 'b')]
    """
    context = current_context()
    index = None if context is None else context.index
    if context is None or index is None:
        raise NbparError("current_task() was called outside a task; call it in the function given to nbpar.map")
    return CurrentTask(index, context.worker_id, context.attempt, context.seed)


@contextmanager
def timed_part(name: PartName, limit_s: float | None) -> Iterator[None]:
    """Time what runs inside apart from the task around it, whose own time begins when this ends.

    For what prepares a worker within its first task, say: it may take longer than any task. Counts in jobs with a
    ``timeout``; one that runs longer fails its task, with the name as the error's `part`.

    Parameters
    ----------
    name : {"worker_init", "worker_exit"}
        What it is.
    limit_s : float or None
        How long it may take.
    """
    context = current_context()
    if context is None or context.together is not None:  # coroutines of one worker have one slot
        yield
        return
    context.slot.begin_part(name, limit_s)
    try:
        yield
    finally:
        context.slot.end_part()


def seed_task(seed: int, index: int) -> None:
    """Seed the global generators of `random` and `numpy.random` for one task."""
    mixed = (seed ^ (index * 0x9E3779B97F4A7C15)) & _MASK_64
    random.seed(mixed)
    if "numpy" in sys.modules:
        import numpy as np

        words = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(4)
        np.random.seed(words)  # noqa: NPY002  # the global generator is what the task may use


def track(iterable: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Report progress within a task, one step for each item of `iterable`.

    It is shown as the progress of the item, in the worker's lane of the dashboard and in the text view. Of nested
    loops the outermost counts. A plain `tqdm` in a task does the same.

    Parameters
    ----------
    iterable : iterable
        What the task goes through.
    total : int, optional
        Its length, where ``len`` does not tell.

    Returns
    -------
    iterator
        Gives the items, unchanged. Outside a task nothing is reported.

    Raises
    ------
    OptionsError
        When `total` is no whole number, 0 or more.

    Examples
    --------
    >>> import nbpar
    >>> def add_up(n):
    ...     return sum(nbpar.track(range(n)))
    >>> with nbpar.WorkerPool(start_method="serial") as pool:
    ...     pool.map(add_up, [3, 4])
    [3, 6]
    """
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]  # not every iterable has a length
        except Exception:  # noqa: BLE001  # whatever a __len__ of the user's raises: it is no more than a picture
            total = None
    else:
        known: Any = total
        if isinstance(known, bool) or not hasattr(known, "__index__") or known < 0:
            raise OptionsError("total", total, "a whole number, 0 or more, or None (the length, where there is one)")
        total = operator.index(known)
    return _steps(iterable, total)


def _steps(iterable: Iterable[T], total: int | None) -> Iterator[T]:
    context = current_context()
    mine = None if context is None else context.begin_tracking()
    if context is None or mine is None:
        yield from iterable
        return
    context.slot.track(0, total)
    words, n_done = context.slot.words, 0
    try:
        for item in iterable:
            yield item
            n_done += 1
            # A plain store, 50 ns a step with the rest of it: telling only some of them would take as long to decide.
            if context.tracking is mine:
                words[TRACK_DONE] = n_done
    finally:
        context.end_tracking(mine)
