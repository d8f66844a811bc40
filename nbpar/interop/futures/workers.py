"""Makes the pool of an executor, with the standard library's way of initializing workers.

An initializer and its arguments are sent to workers. What cannot be sent, locks of multiprocessing's own above all,
comes along with a fork: that is how the standard library starts workers on Linux by default, and programs count on it.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbpar.errors import SerializationError
from nbpar.interop.futures.errors import as_raised
from nbpar.options import StartMethod
from nbpar.pool import WorkerPool
from nbpar.worker.context import current_context

__all__ = ["make_pool"]

_kept: dict[int, Callable[[], object]] = {}  # of the pools that fork; an entry ends with its pool
_tokens = itertools.count()


@dataclass(frozen=True)
class _Inherited:
    """An initializer that workers have by the fork, and not by a pickle."""

    token: int

    def __call__(self) -> None:
        """Run it in a worker."""
        _kept[self.token]()


def make_pool(
    max_workers: int | None,
    start_method: StartMethod | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    options: dict[str, Any],
) -> WorkerPool:
    """The pool of an executor.

    Parameters
    ----------
    max_workers : int, optional
        By default as many as CPUs; in a worker one, since the others are at work.
    start_method : str, optional
        By default nbpar's own; ``"fork"`` where the initializer cannot be sent.
    options : dict
        Further ones of :class:`~nbpar.pool.WorkerPool`.

    Raises
    ------
    OptionsError
        An option is not allowed.
    NotPicklableError
        The initializer cannot be sent, and a fork is out of the question.
    """
    __tracebackhide__ = True  # a verbose traceback would show what is in `env`
    if max_workers is None and current_context() is not None:
        max_workers = 1
    hook = None if initializer is None else functools.partial(initializer, *initargs)
    make = functools.partial(WorkerPool, n_workers=max_workers, keep_globals=True, **options)
    if start_method != "fork" or hook is None:
        try:
            return make(start_method=start_method, worker_init=hook)
        except SerializationError as error:
            can_fork = hasattr(os, "fork") and options["tasks_per_worker"] is None
            if start_method is not None or hook is None or not can_fork:
                raise as_raised(error) from None
    inherited = _Inherited(next(_tokens))
    _kept[inherited.token] = hook
    try:
        pool = make(start_method="fork", worker_init=inherited)
    except BaseException:
        del _kept[inherited.token]
        raise
    weakref.finalize(pool, _kept.pop, inherited.token).atexit = False
    return pool
