"""Runs the tasks of a chunk and reports how they ended; the same loop for processes, threads and serial.

Called by :mod:`nbpar.worker.main`, :mod:`nbpar.backends.threads` and :mod:`nbpar.backends.serial`. Nothing that a
task does gets out of here but as a report: every ``BaseException`` is that task's failure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import CO_COROUTINE
from itertools import islice, starmap
from time import perf_counter
from types import FunctionType
from typing import Any, NamedTuple

from nbpar.errors import SerializationError
from nbpar.wire import shared
from nbpar.wire.board import BLOCK, TASK
from nbpar.wire.diagnose import is_interrupt
from nbpar.wire.exceptions import release_memory
from nbpar.worker.context import Context, TaskInterrupt, seed_task

__all__ = ["Report", "Unusable", "Work", "call", "call_async", "cannot_rebuild", "is_async", "run_chunk", "unwrapped"]

REPORT_S = 0.05
"""Results are reported at least this often inside a long chunk: all that a dying worker can make others repeat. A chunk
that was sized by a guess (`returnable`) ends then, and what is left of it goes back to be shared out again."""

MAX_BLOCK = 256
"""Tasks at the quick pace between two looks at the clock."""

SHORT_TASK_S = 5e-6
"""Tasks shorter than this are told to the board by the block: they can do nothing that must not be done twice."""


def is_async(function: object) -> bool:
    """Whether a call gives a coroutine, so that many can run at once: ``async def``, also in ``functools.partial``."""
    if type(function) is FunctionType and not function.__dict__:  # the rest takes 2 us
        return bool(function.__code__.co_flags & CO_COROUTINE)
    call = getattr(type(function), "__call__", None)  # noqa: B004  # of an instance whose class defines it
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


class Work(NamedTuple):
    """The function of a job, ready to be called.

    Attributes
    ----------
    at_once : int
        Calls give coroutines, of which so many run at once; 0: they give values.
    timeout_s : float, optional
        For coroutines: others are stopped from outside.
    """

    function: Callable[..., Any]
    star: bool = False
    seed: int = 0
    seeded: bool = False
    at_once: int = 0
    timeout_s: float | None = None


@dataclass(slots=True, eq=False)
class Report:
    """Tasks from `first` on that ended: values of the good ones in order, exceptions of the others by index.

    Attributes
    ----------
    begin_s, end_s : float
        The time in tasks; without one that was interrupted, where others had ended.
    unpack_s : float
        What rebuilding the arguments had taken before; in the first report of a chunk.
    longest_index, longest_s : int, float
        The task that took longest of those that were timed one by one; -1 when none was.
    """

    first: int
    n_ended: int = 0
    begin_s: float = 0.0
    end_s: float = 0.0
    final: bool = False
    values: list[Any] = field(default_factory=list)
    failures: list[tuple[int, BaseException]] = field(default_factory=list)
    unpack_s: float = 0.0
    longest_index: int = -1
    longest_s: float = 0.0


def run_chunk(
    work: Work,
    items: Sequence[Any],
    *,
    chunk_id: int,
    start: int,
    context: Context,
    quick: bool,
    report: Callable[[Report], None],
    returnable: bool = False,
    unpack_s: float = 0.0,
) -> None:
    """Run ``function(item)`` for each item; tell `report` as they end, the last time with ``final`` set.

    Parameters
    ----------
    items : sequence
        Arguments; an element that is an exception wrapped in :class:`Unusable` fails without being run.
    quick : bool
        The tasks are thought to be short: the clock is read now and then, and the first failure or the first long
        stretch ends the quick pace.
    returnable : bool
        Tasks that are not begun within `REPORT_S` may be left: the last report then ends before the chunk does.
    unpack_s : float
        What it took to rebuild the arguments, for the report.
    """
    slot = context.slot
    if slot.drops(chunk_id):
        report(Report(start, final=True))
        slot.end_chunk()
        return
    if work.at_once:
        from nbpar.worker.coroutines import Together  # it loads asyncio

        together = Together(
            work,
            items,
            chunk_id=chunk_id,
            start=start,
            context=context,
            report=report,
            returnable=returnable,
            unpack_s=unpack_s,
        )
        together.run()
        return
    slot.begin_chunk(chunk_id)
    foreign: TaskInterrupt | None = None
    begin_s = then_s = perf_counter()
    current = Report(start, begin_s=begin_s, unpack_s=unpack_s)
    try:
        if quick and not work.seeded:
            then_s = _run_quickly(work, items, context, current)
        index = start + current.n_ended
        while index < start + len(items):
            # A failure is told before the next task, which may take long.
            if current.n_ended and (then_s - current.begin_s > REPORT_S or current.failures):
                slot.words[TASK] = 0  # from here to the next task no interrupt is raised: it would tear the message
                if returnable and then_s - begin_s > REPORT_S:
                    break
                current.end_s = then_s
                report(current)
                then_s = perf_counter()
                current = Report(index, begin_s=then_s)
            if slot.drops(chunk_id):
                break
            then_s = _run_one(work, items[index - start], context, current, then_s)
            index += 1
        slot.words[TASK] = 0  # inside the try: an interrupt comes before this store, or not at all
    except TaskInterrupt as interrupt:
        if not slot.drops(chunk_id):  # it is meant for a task around this one, whose map this is
            foreign = interrupt
        if current.n_ended and then_s > current.begin_s:  # of the last task that was not interrupted
            current.end_s = then_s
    slot.words[TASK] = 0
    current.end_s = current.end_s or perf_counter()
    current.final = True
    report(current)
    slot.end_chunk()  # not when the report fails: then this chunk is what the worker dies of
    if foreign is not None:
        raise foreign


class Unusable:
    """Stands for an argument that could not be rebuilt."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def unwrapped(item: Any) -> Any:
    """The object behind a `Shared` handle, :class:`Unusable` where it cannot be rebuilt; anything else unchanged."""
    try:
        return shared.unwrap(item)
    except TaskInterrupt:
        raise
    except BaseException as error:  # whatever a __setstate__ of the user's raises
        if is_interrupt(error):
            raise
        return Unusable(cannot_rebuild("shared object", error))


def cannot_rebuild(what: str, error: BaseException) -> SerializationError:
    """The error of a task whose argument could not be unpickled."""
    release_memory(error)
    refused = SerializationError(f"the {what} could not be rebuilt: {type(error).__name__}: {error}")
    refused.has_arrived = True
    refused.__cause__ = error
    return refused


def _run_quickly(work: Work, items: Sequence[Any], context: Context, current: Report) -> float:
    """Blocks of tasks between two looks at the clock. Ends at a failure or after a while; returns the time by then.

    The board is told of each task, so that a death is blamed on the right one. That takes 35 ns, as much as the
    shortest task itself: of those it is told by the block, and if the worker dies in one, they run again one by one.
    """
    words, values, function = context.slot.words, current.values, work.function
    rest = iter(items)
    context.block = current.first + len(items), rest
    n_done, n_block, is_short = 0, 1, False
    then_s = current.begin_s
    try:
        while n_done < len(items) and then_s - current.begin_s < REPORT_S:
            n_block = min(n_block, len(items) - n_done)
            part = islice(rest, n_block)
            if is_short:
                words[BLOCK] = n_block
                words[TASK] = current.first + n_done + 1
                values.extend(starmap(function, part) if work.star else map(function, part))
                words[BLOCK] = 1
                if len(values) < n_done + n_block:  # `map` takes it for the end of its input
                    raise StopIteration("raised by the function")
            else:
                for item in part:
                    words[TASK] = current.first + len(values) + 1
                    values.append(function(*item) if work.star else function(item))
            n_done += n_block
            now_s = perf_counter()
            if n_block == 1 and now_s - then_s > current.longest_s:
                current.longest_index, current.longest_s = current.first + n_done - 1, now_s - then_s
            is_short = now_s - then_s < n_block * SHORT_TASK_S
            n_block, then_s = min(2 * n_block, MAX_BLOCK), now_s
        current.n_ended = n_done
    except TaskInterrupt:
        current.n_ended = len(values)
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a task raises is that task's failure
        release_memory(error)
        current.failures.append((current.first + len(values), error))
        current.n_ended = len(values) + 1
        then_s = perf_counter()
    finally:
        context.block = None
        words[BLOCK] = 1
    return then_s


def _run_one(work: Work, item: Any, context: Context, current: Report, then_s: float) -> float:
    """The next task, timed from `then_s` on; returns the time when it had ended."""
    index = current.first + current.n_ended
    if isinstance(item, Unusable):
        current.failures.append((index, item.error))
        current.n_ended += 1
        return then_s
    context.slot.begin_task(index)
    try:
        if work.seeded:
            seed_task(work.seed, index)
        value = work.function(*item) if work.star else work.function(item)
    except TaskInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # see above
        release_memory(error)
        current.failures.append((index, error))
    else:
        current.values.append(value)
    current.n_ended += 1
    now_s = perf_counter()
    if now_s - then_s > current.longest_s:
        current.longest_index, current.longest_s = index, now_s - then_s
    return now_s


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a worker calls for :meth:`nbpar.WorkerPool.submit`."""
    return function(*map(shared.unwrap, args), **{name: shared.unwrap(value) for name, value in kwargs.items()})


async def call_async(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a worker calls for a coroutine function."""
    return await call(function, args, kwargs)
