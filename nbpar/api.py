"""The verbs of nbpar as plain functions on the notebook's own pool, which :mod:`nbpar.default` has.

Inside a worker the same functions run serially, in the worker. Called by users and :mod:`nbpar.notebook`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from nbpar.default import configure, default_pool, shutdown
from nbpar.future import TaskFuture
from nbpar.history import jobs
from nbpar.job import Job
from nbpar.options import OnError, Progress
from nbpar.worker.context import CurrentTask, current_task, track
from nbpar.worker.per_worker import PerWorker

if TYPE_CHECKING:
    from nbpar.wire.shared import Shared

__all__ = [
    "CurrentTask",
    "configure",
    "current_task",
    "default_pool",
    "imap",
    "jobs",
    "map",
    "map_async",
    "per_worker",
    "share",
    "shutdown",
    "starmap",
    "submit",
    "track",
]

R = TypeVar("R")
T = TypeVar("T")


def map(  # noqa: A001  # the verb users know; `nbpar.map` is how it is called
    function: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    chunk_size: int | None = None,
    timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
    seed: int | None = None,
    progress: Progress = None,
    name: str | None = None,
    max_in_flight: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    profile: bool = False,
) -> list[R]:
    """Call ``function(item)`` for each item on all cores and return the results in order.

    Parameters
    ----------
    function : callable
        Any function the notebook has: a lambda, a closure, one defined two cells ago. Of coroutine functions (``async
        def``) a worker runs the tasks of a chunk at once, up to 32 or `chunk_size`.
    *iterables : iterable
        The items. Each is passed as it is: a tuple, a dict, an array is one argument. Several iterables are gone
        through side by side, as in ``builtins.map``.
    chunk_size : int, optional
        Tasks that travel together; chosen while the job runs by default.
    timeout : float, optional
        Seconds that one task may run, from its own start; then its worker is stopped, whatever it does, and it fails
        with :class:`~nbpar.errors.TaskTimeoutError`. A thread cannot be stopped: its task fails, and it may go on.
    retries : int
        How often a failed task is run again, at most: after 0.1 s, then after twice as long each time, up to 5 s. One
        that has killed two workers runs alone the next time, and is given up when it kills a third.
    on_error : {"raise", "return", "skip"}
        Raise the first task's exception and stop; or go on and have a :class:`~nbpar.errors.TaskError` in the
        failed item's place; or leave failed items out.
    seed : int, optional
        Makes ``nbpar.current_task().rng``, `random` and `numpy.random` in each task depend on this and on the item's
        index only. Threads have one `random` for all of them: in a pool of threads only ``rng`` does.
    progress : bool or "detail", optional
        Whether to show the job; by default in a notebook and in a terminal, once it has taken 0.3 s. True: also where
        the output is a file or the log of a CI run, by a line now and then. ``"detail"``: in a terminal, with a row for
        each worker.
    name : str, optional
        What the dashboard calls the job.
    max_in_flight : int, optional
        Tasks handed out and not finished, at most.
    checkpoint : str or path, optional
        A file that keeps each result as soon as its task has ended. What it has of this function, its code unchanged,
        and of an item is not computed again: run the cell once more after an error, an interrupt or the kernel's end,
        and only what is missing is done. Loading results runs what stands in the file, so it must be your own.
    profile : bool
        Look where the tasks' time goes, in every worker, and show the hot lines and the call tree when the job has
        ended; ``nbpar.jobs()[-1].profile`` has them. Needs ``pip install 'nbpar[profile]'``.

    Returns
    -------
    list
        Results in the order of the items.

    Raises
    ------
    OptionsError
        When an option is not allowed; it names the option, the value and what is allowed.
    CheckpointError
        When the file cannot serve as a checkpoint; it is left as it is, and nothing was run.
    SerializationError
        When the function, an item or a result cannot travel; it names the object and the path to it.
    Exception
        What the first failed task raised, of its own type, with a note that names the item, and with what had ended as
        its ``results`` where its class allows that. ``nbpar.jobs()[-1].retry_failed()`` runs what is left.
    JobInterrupt
        On Ctrl-C or the stop button; ``nbpar.jobs()[-1].results`` has what had finished.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> nbpar.map(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    >>> nbpar.map(pow, [2, 3], [5, 2])
    [32, 9]
    >>> nbpar.map(lambda x: 1 // x, [1, 0, 2], on_error="skip")
    [1, 0]
    """
    __tracebackhide__ = True
    return default_pool().map(
        function,
        *iterables,
        chunk_size=chunk_size,
        timeout=timeout,
        retries=retries,
        on_error=on_error,
        seed=seed,
        progress=progress,
        name=name,
        max_in_flight=max_in_flight,
        checkpoint=checkpoint,
        profile=profile,
    )


def starmap(
    function: Callable[..., R],
    /,
    iterable: Iterable[Iterable[Any]],
    *,
    chunk_size: int | None = None,
    timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
    seed: int | None = None,
    progress: Progress = None,
    name: str | None = None,
    max_in_flight: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    profile: bool = False,
) -> list[R]:
    """Call ``function(*item)`` for each item on all cores and return the results in order.

    Takes the options of :func:`nbpar.map` and raises what it raises.

    Parameters
    ----------
    function : callable
        Called with each item unpacked.
    iterable : iterable of iterable
        The items, each a sequence of arguments.

    Returns
    -------
    list
        Results in the order of the items.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> nbpar.starmap(pow, [(2, 5), (3, 2)])
    [32, 9]
    """
    __tracebackhide__ = True
    return default_pool().starmap(
        function,
        iterable,
        chunk_size=chunk_size,
        timeout=timeout,
        retries=retries,
        on_error=on_error,
        seed=seed,
        progress=progress,
        name=name,
        max_in_flight=max_in_flight,
        checkpoint=checkpoint,
        profile=profile,
    )


def imap(
    function: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    ordered: bool = True,
    chunk_size: int | None = None,
    timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
    seed: int | None = None,
    progress: Progress = None,
    name: str | None = None,
    max_in_flight: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    profile: bool = False,
) -> Iterator[R]:
    """Give results out one by one, while the input is read a bounded way ahead.

    Takes the options of :func:`nbpar.map` and raises what it raises, at the item's turn.

    Parameters
    ----------
    function : callable
        Called with each item.
    *iterables : iterable
        The items; may be without end. They are read in the thread that takes the results.
    ordered : bool
        Give results in the order of the items, or as they finish.
    max_in_flight : int, optional
        Items read and not given out yet, at most; by default four chunks for each worker. However many that are, once
        256 MB of results from worker processes wait to be taken no further task is begun: large results do not pile up
        in front of a loop that is slow. Beyond that there can be what each worker has in hand.

    Yields
    ------
    object
        Results. Leaving the loop cancels the rest.

    Examples
    --------
    >>> import itertools, nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> for square in nbpar.imap(lambda x: x * x, itertools.count()):
    ...     if square > 20:
    ...         break
    >>> square
    25
    """
    __tracebackhide__ = True
    return default_pool().imap(
        function,
        *iterables,
        ordered=ordered,
        chunk_size=chunk_size,
        timeout=timeout,
        retries=retries,
        on_error=on_error,
        seed=seed,
        progress=progress,
        name=name,
        max_in_flight=max_in_flight,
        checkpoint=checkpoint,
        profile=profile,
    )


def map_async(
    function: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    chunk_size: int | None = None,
    timeout: float | None = None,
    retries: int = 0,
    on_error: OnError = "raise",
    seed: int | None = None,
    progress: Progress = None,
    name: str | None = None,
    max_in_flight: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    profile: bool = False,
) -> Job[R]:
    """Begin a map and return at once: the cell ends, the dashboard lives on.

    Takes the options of :func:`nbpar.map`.

    Returns
    -------
    Job
        Its ``result()`` waits and returns the list, or raises what :func:`nbpar.map` raises; so does ``await job``.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> job = nbpar.map_async(abs, [-1, -2])
    >>> job.result()
    [1, 2]
    """
    __tracebackhide__ = True
    return default_pool().map_async(
        function,
        *iterables,
        chunk_size=chunk_size,
        timeout=timeout,
        retries=retries,
        on_error=on_error,
        seed=seed,
        progress=progress,
        name=name,
        max_in_flight=max_in_flight,
        checkpoint=checkpoint,
        profile=profile,
    )


def submit(function: Callable[..., R], /, *args: Any, **kwargs: Any) -> TaskFuture[R]:
    """Call ``function(*args, **kwargs)`` in a worker.

    Returns
    -------
    TaskFuture
        A :class:`concurrent.futures.Future` that can be awaited as well; cancelling it stops the task.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> nbpar.submit(int, "ff", base=16).result()
    255
    """
    __tracebackhide__ = True
    return default_pool().submit(function, *args, **kwargs)


def share(obj: T) -> Shared[T]:
    """Put an object into shared memory once, for all workers.

    Parameters
    ----------
    obj : object
        Anything that can be pickled; arrays, frames and models gain, since their buffers are mapped, not copied.

    Returns
    -------
    Shared
        A handle; ``.value`` is the object. As an argument of a task it arrives unwrapped. Workers may write to it: what
        they write stays their own.

    Raises
    ------
    SerializationError
        When the object cannot be pickled; it names the part and the path to it.

    Examples
    --------
    >>> import nbpar, numpy as np
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> big = nbpar.share(np.arange(1_000_000))
    >>> nbpar.map(lambda i: int(big.value[i]), [0, 10])
    [0, 10]
    """
    from nbpar.wire.shared import Shared

    return Shared(obj)


def per_worker(factory: Callable[[], T]) -> PerWorker[T]:
    """Build something once in each worker, on first use: a model, a connection, a cache.

    Parameters
    ----------
    factory : callable
        Called without arguments.

    Returns
    -------
    PerWorker
        Call it inside a task for the object. Its ``replace(factory)`` has each worker build another one.

    Raises
    ------
    OptionsError
        When `factory` cannot be called.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=1, start_method="threads")
    >>> seen = nbpar.per_worker(list)
    >>> nbpar.map(lambda x: seen().append(x) or len(seen()), "abc")
    [1, 2, 3]
    """
    return PerWorker(factory)
