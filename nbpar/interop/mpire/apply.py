"""Single tasks: `apply` and `apply_async`.

Owns :class:`Applying`, which :class:`nbpar.interop.mpire.pool.WorkerPool` is one of.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from nbpar.backends.base import short_repr
from nbpar.inputs import check_function
from nbpar.interop.mpire.async_result import AsyncResult, Plan
from nbpar.interop.mpire.base import Function, PoolBase
from nbpar.interop.mpire.checks import check_timeouts
from nbpar.interop.mpire.hooks import ApplyTask, Carried, call_single, split_arguments
from nbpar.interop.mpire.insights import format_args
from nbpar.interop.mpire.maps import Hooks
from nbpar.interop.mpire.raising import Limits
from nbpar.interop.mpire.shift import Shift
from nbpar.options import JobOptions

__all__ = ["Applying"]

R = TypeVar("R")

_PLAIN = JobOptions(on_error="return", progress=False)


class Applying(PoolBase):
    """The pool's verbs for one task."""

    def apply(
        self,
        func: Callable[..., R],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[R], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
    ) -> R:
        """Call ``func(*args, **kwargs)`` in a worker and return its result; see :meth:`apply_async`.

        Examples
        --------
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.apply(pow, (2, 5))
        32
        """
        __tracebackhide__ = True
        return self.apply_async(
            func,
            args,
            kwargs,
            callback,
            error_callback,
            worker_init,
            worker_exit,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
        ).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[R], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
    ) -> AsyncResult[R]:
        """Have a worker call ``func(*args, **kwargs)``; returns at once.

        A task that fails, takes too long or kills its worker takes no other task with it. `worker_init`, `worker_exit`
        and their timeouts count where this call starts the workers.

        Parameters
        ----------
        func : callable
        args : object
            What cannot be iterated, strings, bytes, arrays and frames are one argument.
        kwargs : dict, optional
        callback, error_callback : callable, optional
            Called here, in a thread of their own, with the result or the exception.
        worker_init, worker_exit, task_timeout, worker_init_timeout, worker_exit_timeout : optional
            As of :meth:`map`.

        Examples
        --------
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     results = [pool.apply_async(pow, (2, n)) for n in range(3)]
        ...     [result.get() for result in results]
        [1, 2, 4]
        """
        __tracebackhide__ = True
        check_function(func)
        check_timeouts(task_timeout, worker_init_timeout, worker_exit_timeout)
        positional, named = split_arguments(list(args) if isinstance(args, dict) else args)
        item = func, tuple(positional), {**named, **(kwargs or {})}
        with self._starting:
            if self._shift is None or self._is_stale:
                hooks = Hooks(worker_init, worker_exit, Limits(None, worker_init_timeout, worker_exit_timeout))
                self._shift_for(hooks, lifespan=None)
        limits = self._hooks.limits._replace(task_s=task_timeout)
        hooks = Hooks(self._hooks.init, self._hooks.exit, limits)

        def submit(shift: Shift, inherits: bool) -> AsyncResult[R]:
            timeout = hooks.timeout_s(shift)
            options = _PLAIN if timeout is None else dataclasses.replace(_PLAIN, timeout=timeout)
            task = ApplyTask(**hooks.for_workers(shift, inherits=inherits))
            future = shift.pool._submit(call_single, (task, *item), options)
            describe = functools.partial(format_args, item[1], item[2], text_of=short_repr)
            take = _taker(shift, describe) if shift.setup.tells_times else shift.take
            forget = self._pending.discard
            return AsyncResult(future, Plan(take, self._callbacks, callback, error_callback, forget, limits, describe))

        result = self._begin(submit)
        self._pending.add(result)
        result.begin()
        return result


def _taker(shift: Shift, describe: Callable[[], str]) -> Callable[[Any], Any]:
    """Makes the function's result of what came back, and counts the task in."""

    def take(value: Any) -> Any:
        if type(value) is Carried:
            shift.insights.add_task(value.worker_id, value.work_s + (value.init_s or 0.0), describe())
        return shift.take(value)

    return take
