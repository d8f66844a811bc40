"""The workers of a pool from their start to their end: without `keep_alive` those of one map.

Owns a :class:`nbpar.WorkerPool`, what its workers are told of it (:class:`~nbpar.interop.mpire.hooks.Setup`), and what
`worker_exit` returned. Made by :class:`nbpar.interop.mpire.pool.WorkerPool` when a call needs workers and there are
none; a changed setting makes the next one.

How shared objects get to the workers, by start method:

===================  ===========================================================================================
forkserver, spawn    into shared memory once; large buffers are mapped, and what a worker writes stays its own
fork                 as they are, with the rest of the process: locks and open files as well
threads              they are the same objects
===================  ===========================================================================================

What cannot be sent (a lock of multiprocessing among the shared objects, or in a global of the function) makes a pool
without a start method of its own take fork, which is MPIRE's default.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from typing import Any

import nbpar.pool
from nbpar.errors import OptionsError, SerializationError
from nbpar.interop.mpire import alias
from nbpar.interop.mpire.hooks import Carried, ExitTask, Inherited, Own, Setup, bequeath, disinherit
from nbpar.interop.mpire.insights import PoolInsights
from nbpar.interop.mpire.params import START_METHODS, WorkerPoolParams
from nbpar.interop.mpire.raising import Limits, as_mpire
from nbpar.options import JobOptions, StartMethod, default_start_method
from nbpar.wire.shared import AttachedShared, Shared

__all__ = ["NO_LIMIT_S", "PinningError", "Shift"]

NO_LIMIT_S = 1e9
"""Thirty years: the timeout of a job in which only parts of tasks have a limit."""


class PinningError(OptionsError, AttributeError):
    """Threads cannot be pinned to CPUs: an OptionsError, and the AttributeError that MPIRE raises.

    Examples
    --------
    >>> issubclass(PinningError, AttributeError)
    True
    """


class Shift:
    """Workers with one life each, or several where `lifespan` ends them.

    Parameters
    ----------
    params : WorkerPoolParams
        As they are now; what the pool's setters change later does not reach this shift.
    lifespan : int, optional
        Tasks after which a worker is replaced.
    start_method : str, optional
        By default the one of `params`.
    before : Shared, optional
        The shared objects of the shift before, which are passed on as they are while nothing has changed in them.

    Attributes
    ----------
    pool : nbpar.WorkerPool
    setup : Setup
    exit : callable or None
        The `worker_exit` of the last call.
    exit_results : list
        What `worker_exit` returned so far.
    insights : PoolInsights
        What its workers did.
    is_fresh : bool
        Whether no worker has been started yet.
    """

    def __init__(
        self,
        params: WorkerPoolParams,
        *,
        lifespan: int | None,
        start_method: StartMethod | None = None,
        before: Shared[Any] | None = None,
    ) -> None:
        given: Any = None if params.start_method is None else START_METHODS[params.start_method]
        method: StartMethod = start_method or given or default_start_method()
        if params.cpu_ids and method == "threads":
            raise PinningError("cpu_ids", params.cpu_ids, "None with start_method='threading'")
        self.lifespan = lifespan
        self._before = before
        self.key = uuid.uuid4().hex
        self._may_fork = method != "fork" and given is None and "fork" in _start_methods()
        self._inherited: list[str] = []
        # Also of a shift that was forgotten.
        self._finalizer = weakref.finalize(self, _disinherit_all, self._inherited)
        shared: Any = None
        if params.shared_objects is not None:
            try:
                shared = self._share(params.shared_objects, method)
            except SerializationError:
                if not self._may_fork:
                    raise
                method, self._may_fork = "fork", False
                shared = self._share(params.shared_objects, method)
        self.method = method
        self.setup = Setup(
            key=self.key,
            pass_worker_id=params.pass_worker_id,
            shared=shared,
            use_worker_state=params.use_worker_state,
            is_daemon=params.daemon and method != "threads",
            tells_times=params.enable_insights,
        )
        self.pool = nbpar.pool.WorkerPool(
            n_workers=params.n_jobs,
            start_method=method,
            tasks_per_worker=lifespan,
            worker_init=alias.for_workers(),
            cpu_ids=params.cpu_ids or None,
            keep_globals=True,
        )
        self.exit: Callable[..., Any] | Inherited | None = None
        self.exit_results: list[Any] = []
        self.insights = PoolInsights(params.n_jobs)
        self.is_fresh = True

    def _share(self, value: Any, method: StartMethod) -> Shared[Any] | AttachedShared | Inherited | Own:
        if isinstance(value, Shared | AttachedShared):
            return value
        if method == "threads":
            return Own(value)
        if method == "fork":
            return self.bequeath(value)
        before, self._before = self._before, None
        return before if before is not None and before.holds(value) else Shared(value)

    @property
    def can_inherit(self) -> bool:
        """Whether its workers can have what cannot be sent: they are forked, and none is there yet."""
        return self.method == "fork" and self.is_fresh

    @property
    def may_fork(self) -> bool:
        """Whether a shift that forks may take its place, for the sake of what cannot be sent."""
        return self._may_fork and self.is_fresh

    def bequeath(self, value: object) -> Inherited:
        """Have the workers inherit an object; it is kept as long as this shift."""
        key = f"{self.key}-{len(self._inherited)}"
        self._inherited.append(key)
        return bequeath(key, value)

    def take(self, value: Any) -> Any:
        """The function's result out of what came back, and the rest into the books."""
        if type(value) is not Carried:
            return value
        if value.init_s is not None and self.setup.tells_times:
            self.insights.move(value.worker_id, "init", value.init_s)
        if value.exit_s is not None:
            self.exit_results.append(value.exit_value)
            if self.setup.tells_times:
                self.insights.move(value.worker_id, "exit", value.exit_s)
        return value.value

    def end(self, limits: Limits) -> None:
        """End the workers; those that have had tasks call `worker_exit` first.

        Raises
        ------
        BaseException
            What the first `worker_exit` raised that failed; the workers have ended by then.
        """
        try:
            if self.exit is not None and not self.is_fresh:
                self._leave(self.exit, limits)
        except BaseException:
            self.kill()
            raise
        self.pool.shutdown(wait=True)
        self._finalizer()

    def _leave(self, function: Callable[..., Any] | Inherited, limits: Limits) -> None:
        task = ExitTask(self.setup, exit=function, exit_limit_s=limits.exit_s)
        timeout = None if limits.exit_s is None else NO_LIMIT_S
        options = JobOptions(pin=1.0, timeout=timeout, on_error="return", progress=False)
        futures = [self.pool._submit(task, (), options, worker_id) for worker_id in range(self.pool.n_workers)]
        failed: BaseException | None = None
        for worker_id, future in enumerate(futures):
            error = future.exception()
            if error is None:
                carried: Carried = future.result()
                if carried.exit_s is not None:
                    self.exit_results.append(carried.exit_value)
                    if self.setup.tells_times:
                        self.insights.add_time(worker_id, "exit", carried.exit_s)
            elif failed is None:
                failed = as_mpire(future.task_error or error, limits, "")
        if failed is not None:
            raise failed

    def kill(self, *, wait: bool = True) -> None:
        """End the workers now, without `worker_exit`."""
        self.pool.shutdown(wait=wait, cancel=True)
        if wait:
            self._finalizer()


def _start_methods() -> list[str]:
    import multiprocessing

    return multiprocessing.get_all_start_methods()


def _disinherit_all(keys: list[str]) -> None:
    for key in keys:
        disinherit(key)
