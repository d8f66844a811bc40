"""What a task can ask about itself: `current_task`, `track`, `per_worker`.

Owns the context of the running task: one for a worker process, one for each thread of the threads backend. Set by the
backends' run loops (:mod:`nbpar.worker.main`, :mod:`nbpar.backends.threads`, :mod:`nbpar.backends.serial`), read by
the user's code inside a task.
"""

from __future__ import annotations

import random
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nbpar.errors import NbparError

if TYPE_CHECKING:
    import numpy as np

    from nbpar.wire.board import Slot

__all__ = ["Context", "CurrentTask", "PerWorker", "TaskInterrupt", "current_context", "current_task", "track"]

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
        What `per_worker` built here, by key.
    block : tuple of (int, iterator)
        While a block of tasks runs: where its chunk ends, and the iterator over the chunk's items.
    """

    worker_id: int
    slot: Slot
    attempt: int = 1
    seed: int = 0
    values: dict[str, Any] | None = None
    block: tuple[int, Iterator[Any]] | None = None
    nested: Any = None  # the serial pool of maps inside a task; made by nbpar.default

    @property
    def index(self) -> int | None:
        """Index of the running task."""
        if self.block is None:
            return self.slot.index
        stop, rest = self.block
        return stop - length_hint(rest) - 1


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
    return getattr(_of_thread, "context", None) or _of_process


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

    Parameters
    ----------
    iterable : iterable
        What the task goes through.
    total : int, optional
        Its length, where ``len`` does not tell.

    Yields
    ------
    object
        The items, unchanged. Outside a task nothing is reported.

    Examples
    --------
    >>> import nbpar
    >>> sum(nbpar.track(range(4)))
    6
    """
    context = current_context()
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]  # not every iterable has a length
        except TypeError:
            total = None
    if context is None:
        yield from iterable
        return
    report = context.slot.track
    report(0, total)
    for n_done, item in enumerate(iterable, 1):
        yield item
        report(n_done, total)


class PerWorker(Generic[T]):
    """What `nbpar.per_worker` returns: call it inside a task for the object built in that worker.

    Parameters
    ----------
    factory : callable
        Called without arguments, once in each worker that asks.
    """

    __fixed_parts__ = ("_factory", "_key")  # see nbpar.wire.unchanged

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._key = uuid.uuid4().hex

    def __call__(self) -> T:
        """The object of this worker; built at the first call."""
        context = current_context()
        if context is None:
            values = _kernel_values
        else:
            if context.values is None:
                context.values = {}
            values = context.values
        if self._key not in values:
            values[self._key] = self._factory()
        value: T = values[self._key]
        return value

    def __repr__(self) -> str:
        return f"per_worker({getattr(self._factory, '__qualname__', self._factory)!s})"


_kernel_values: dict[str, Any] = {}  # what per_worker objects built when called outside a task; ends with the process
