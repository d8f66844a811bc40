"""One map call under way: from what it was given to a job of nbpar's, and from the job's outcomes to results.

Called by :mod:`nbpar.interop.mpire.pool`, in the caller's thread.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nbpar.backends.base import Streamed, short_repr
from nbpar.engine.events import SlowTask
from nbpar.inputs import name_of
from nbpar.interop.mpire.hooks import Carried, Inherited, MapTask, split_arguments
from nbpar.interop.mpire.insights import format_args
from nbpar.interop.mpire.params import MapParameters
from nbpar.interop.mpire.raising import NO_LIMITS, Limits
from nbpar.interop.mpire.shift import NO_LIMIT_S, Shift
from nbpar.job import Job
from nbpar.options import JobOptions
from nbpar.raising import PartialResults, carry_results
from nbpar.streaming import stream

__all__ = ["Hooks", "MapCall", "concatenated", "plain_results"]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called in each worker before its first task and after its last, and how long things may take."""

    init: Callable[..., Any] | None = None
    exit: Callable[..., Any] | None = None
    limits: Limits = NO_LIMITS

    def for_workers(self, shift: Shift, *, inherits: bool) -> dict[str, Any]:
        """As arguments of a task of this shift; with `inherits` the workers are forked with the functions."""
        hooks: list[Callable[..., Any] | Inherited | None] = [self.init, self.exit]
        if inherits:
            hooks = [None if hook is None else shift.bequeath(hook) for hook in hooks]
        shift.exit, limits = hooks[1], self.limits
        return {
            "setup": shift.setup,
            "init": hooks[0],
            "exit": hooks[1],
            "init_limit_s": limits.init_s,
            "exit_limit_s": limits.exit_s,
            "lifespan": shift.lifespan,
        }

    def timeout_s(self, shift: Shift) -> float | None:
        """For the job: the limit of a task, or one that never comes where only `init` or `exit` have a limit."""
        limits = self.limits
        is_limited = (self.init is not None and limits.init_s is not None) or (
            self.exit is not None and limits.exit_s is not None and shift.lifespan is not None
        )
        return NO_LIMIT_S if limits.task_s is None and is_limited else limits.task_s


class MapCall:
    """What a map call was given, checked.

    Parameters
    ----------
    function : callable
    told : MapParameters
    hooks : Hooks
    is_pinned : bool
        Whether each chunk has a worker of its own, in turn.
    """

    def __init__(self, function: Callable[..., Any], told: MapParameters, hooks: Hooks, *, is_pinned: bool) -> None:
        self.function = function
        self.told = told
        self.hooks = hooks
        self._is_pinned = is_pinned
        self._items: list[Any] | None = None

    @property
    def is_listed(self) -> bool:
        """Whether all items are there."""
        return self.told.is_numpy or hasattr(self.told.items, "__len__")

    @property
    def items(self) -> list[Any]:
        """All of them."""
        if self._items is None:
            self._items = list(self.told.items)
        return self._items

    def _task(self, shift: Shift, *, inherits: bool) -> MapTask:
        hooks = self.hooks
        function: Any = shift.bequeath(self.function) if inherits else self.function
        is_plain = hooks.init is hooks.exit is None and shift.setup.is_plain and not inherits
        return MapTask(function, is_plain=is_plain, **hooks.for_workers(shift, inherits=inherits))

    def _options(self, shift: Shift, *, is_streamed: bool) -> JobOptions:
        told = self.told
        is_fixed = told.is_chunk_size_given or self._is_pinned
        return JobOptions(
            chunk_size=math.ceil(told.chunk_size) or 1 if is_fixed else None,
            timeout=self.hooks.timeout_s(shift),
            progress=told.progress.progress,
            name=told.progress.name or f"map {name_of(self.function)}",
            max_in_flight=told.max_tasks_active if told.is_max_tasks_active_given and not is_streamed else None,
            pin=max(1.0, float(told.chunk_size)) if self._is_pinned else None,
        )

    def begin(self, shift: Shift, *, inherits: bool) -> Job[Any]:
        """Begin a job of all items."""
        __tracebackhide__ = True
        task = self._task(shift, inherits=inherits)
        return shift.pool._start(task, (self.items,), self._options(shift, is_streamed=False))

    def finish(self, shift: Shift, job: Job[Any]) -> list[Any]:
        """The results of that job, in order."""
        __tracebackhide__ = True
        try:
            results = job.finish()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                job.interrupt(error)
            job.cancel()  # broken off by an alarm for one; else it is over
            raise
        return [shift.take(value) for value in results] if self._may_carry(shift) else results

    def _may_carry(self, shift: Shift) -> bool:
        hooks = self.hooks
        return (hooks.init is not None and shift.setup.tells_times) or (
            hooks.exit is not None and shift.lifespan is not None
        )

    def stream(self, shift: Shift, *, ordered: bool, inherits: bool) -> tuple[Job[Any], Iterator[Any]]:
        """Begin a job that reads the items as its results are taken, and the results."""
        __tracebackhide__ = True
        told, source, pool = self.told, Streamed(), shift.pool
        task, options = self._task(shift, inherits=inherits), self._options(shift, is_streamed=True)
        job: Job[Any] = pool._begin(task, source, None, options, star=False, is_held=False, checkpoint=None)
        if told.n_tasks is not None:
            job.input_ended(told.n_tasks)  # for the views; corrected where it was announced wrongly
        results = stream(
            job,
            pool._backend,
            iter(told.items),
            source,
            ordered=ordered,
            on_error="raise",
            n_workers=pool.n_workers,
            window=told.max_tasks_active if told.is_max_tasks_active_given or told.is_chunk_size_given else None,
        )
        next(results)  # see there
        return job, results

    def args_of(self, slow: SlowTask) -> str:
        """The arguments of a slow task, for insights."""
        if self._items is None:
            return f"Arg 0: {slow.item_repr}"
        args, kwargs = split_arguments(self._items[slow.task_index])
        return format_args(tuple(args), kwargs, text_of=short_repr)


def plain_results(error: BaseException, shift: Shift) -> None:
    """Have the results that an exception carries be the function's own."""
    results = getattr(error, "results", None)
    if type(results) is PartialResults and any(type(one) is Carried for one in results):
        carry_results(error, [shift.take(one) for one in results])


def concatenated(results: list[Any]) -> Any:
    """Arrays of which there is at least one, and that have axes, as one array; all else unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> concatenated([np.arange(2), np.arange(3)]).tolist(), concatenated([1, 2])
    ([0, 1, 0, 1, 2], [1, 2])
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not results or not isinstance(results[0], numpy.ndarray) or results[0].ndim == 0:
        return results
    return numpy.concatenate(results)
