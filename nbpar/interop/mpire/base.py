"""What all calls of MPIRE's pool have in common: its settings, its workers from call to call, and its end.

Owns :class:`PoolBase`; the calls themselves are in :mod:`nbpar.interop.mpire.apply` and
:mod:`nbpar.interop.mpire.pool`, which is where a picture of it all is.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from multiprocessing.context import BaseContext
from typing import Any, Self, TypeVar

from nbpar.errors import SerializationError
from nbpar.inputs import check_function
from nbpar.interop.mpire.async_result import AsyncResult, Callbacks
from nbpar.interop.mpire.context import context_of
from nbpar.interop.mpire.hooks import is_in_daemon
from nbpar.interop.mpire.insights import NOTHING, PoolInsights
from nbpar.interop.mpire.maps import Hooks, MapCall, plain_results
from nbpar.interop.mpire.params import CPUList, MapParameters, WorkerPoolParams
from nbpar.interop.mpire.raising import Limits, as_mpire, task_error_of
from nbpar.interop.mpire.shift import Shift
from nbpar.job import Job
from nbpar.options import StartMethod
from nbpar.wire.shared import Shared

__all__ = ["Function", "PoolBase"]

T = TypeVar("T")

Function = Callable[..., Any]


class PoolBase:
    """Settings, workers and end of a pool; see :class:`nbpar.interop.mpire.WorkerPool` for the parameters."""

    def __init__(
        self,
        n_jobs: int | None = None,
        daemon: bool = True,
        cpu_ids: CPUList | None = None,
        shared_objects: Any = None,
        pass_worker_id: bool = False,
        use_worker_state: bool = False,
        start_method: str | None = None,
        keep_alive: bool = False,
        use_dill: bool = False,
        enable_insights: bool = False,
        order_tasks: bool = False,
    ) -> None:
        self.pool_params = WorkerPoolParams(
            n_jobs,
            cpu_ids,
            daemon,
            shared_objects,
            pass_worker_id,
            use_worker_state,
            start_method,
            keep_alive,
            use_dill,
            enable_insights,
            order_tasks,
        )
        self._shift: Shift | None = None
        self._is_stale = False  # whether the next call needs new workers
        self._hooks = Hooks()
        self._shared: Shared[Any] | None = None  # of the last shift: to copy large objects anew for each map takes long
        self._exit_results: list[Any] = []
        self._insights = PoolInsights(self.pool_params.n_jobs)
        self._mapping: object = None  # stands for the map that is under way
        self._pending: set[AsyncResult[Any]] = set()  # changed by single operations of any thread
        self._callbacks = Callbacks()
        self._starting = threading.RLock()  # threads that call `apply_async` at once start workers once

    # --- settings -----------------------------------------------------------------------------------------------------

    def pass_on_worker_id(self, pass_on: bool = True) -> None:
        """Set `pass_worker_id`; a change ends the workers at the next call."""
        self._is_stale |= pass_on != self.pool_params.pass_worker_id
        self.pool_params.pass_worker_id = pass_on

    def set_shared_objects(self, shared_objects: Any = None) -> None:
        """Set `shared_objects`, also to an object that was changed in place; ends the workers at the next call."""
        self._is_stale = True
        self.pool_params.shared_objects = shared_objects

    def set_use_worker_state(self, use_worker_state: bool = True) -> None:
        """Set `use_worker_state`; a change ends the workers at the next call."""
        self._is_stale |= use_worker_state != self.pool_params.use_worker_state
        self.pool_params.use_worker_state = use_worker_state

    def set_keep_alive(self, keep_alive: bool = True) -> None:
        """Set `keep_alive`, from the next map on."""
        self.pool_params.keep_alive = keep_alive

    def set_order_tasks(self, order_tasks: bool = True) -> None:
        """Set `order_tasks`, from the next map on."""
        self.pool_params.order_tasks = order_tasks

    @property
    def ctx(self) -> BaseContext:
        """Where to make locks, events, queues and shared values for the workers: a context of multiprocessing."""
        return context_of(self.pool_params.start_method)

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop_and_join(self, keep_alive: bool = False) -> None:
        """Wait for tasks of `apply_async`; then, unless `keep_alive`, have workers call `worker_exit` and end them.

        Raises
        ------
        BaseException
            What a `worker_exit` raised.
        """
        shift = self._shift
        if shift is None:
            return
        for result in list(self._pending):
            result.wait()
        if keep_alive:
            return
        self._shift = None
        shift.end(self._hooks.limits)

    join = stop_and_join

    def terminate(self) -> None:
        """End the workers now, whatever they do; `worker_exit` is not called."""
        self._terminate(wait=True)

    def _terminate(self, *, wait: bool) -> None:
        shift, self._shift, self._mapping, self._shared = self._shift, None, None, None
        if shift is not None:
            shift.kill(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # programs give it to atexit, which calls it with nothing
        self.terminate()

    def __reduce__(self) -> tuple[Any, ...]:
        """One with the same settings and no workers: what a method of an object that has a pool brings to a task."""
        params = self.pool_params
        return _again, (type(self), {field.name: getattr(params, field.name) for field in dataclasses.fields(params)})

    def __repr__(self) -> str:
        state = "no workers" if self._shift is None else f"{len(self._shift.pool.pids())} up"
        return f"<WorkerPool of {self.pool_params.n_jobs} workers, as MPIRE's: {state}>"

    # --- what there is to tell ----------------------------------------------------------------------------------------

    def get_exit_results(self) -> list[Any]:
        """What `worker_exit` returned in the workers that were started last, so far."""
        return list(self._exit_results)

    def get_insights(self) -> dict[str, Any]:
        """Where the time of the workers went that were started last; empty without `enable_insights`."""
        return self._insights.as_dict() if self.pool_params.enable_insights else {}

    def print_insights(self) -> None:
        """Write it to the standard output."""
        sys.stdout.write((self._insights.as_text() if self.pool_params.enable_insights else NOTHING) + "\n")

    # --- from a call to a job -----------------------------------------------------------------------------------------

    def _call(
        self, function: Function, told: MapParameters, worker_init: Function | None, worker_exit: Function | None
    ) -> MapCall:
        __tracebackhide__ = True
        check_function(function)
        limits = Limits(told.task_timeout, told.worker_init_timeout, told.worker_exit_timeout)
        hooks = Hooks(worker_init, worker_exit, limits)
        return MapCall(function, told, hooks, is_pinned=self.pool_params.order_tasks)

    def _run(self, call: MapCall) -> list[Any]:
        __tracebackhide__ = True
        mapping = self._claim()
        try:
            if not call.items:
                return []
            self._shift_for(call.hooks, call.told.worker_lifespan)
            job = self._begin(lambda shift, inherits: call.begin(shift, inherits=inherits))
            shift = self._shift
            assert shift is not None
            try:
                results = call.finish(shift, job)
            except BaseException as error:  # noqa: BLE001  # whatever a task or the input raises
                told = self._failed(shift, job, call, error)
                raise told from told.__cause__
            self._ended(shift, job, call)
            return results
        finally:
            self._release(mapping)

    def _stream(self, call: MapCall, *, ordered: bool) -> Generator[Any, None, None]:
        __tracebackhide__ = True
        mapping = self._claim()
        try:
            self._shift_for(call.hooks, call.told.worker_lifespan)
            job, results = self._begin(lambda shift, inherits: call.stream(shift, ordered=ordered, inherits=inherits))
            shift = self._shift
            assert shift is not None
            try:
                for value in results:
                    yield shift.take(value)
                    del value
            except GeneratorExit:  # perhaps by the garbage collector, in any thread
                if self._mapping is mapping and not self.pool_params.keep_alive:
                    self._terminate(wait=False)
                raise
            except BaseException as error:  # noqa: BLE001  # whatever a task or the input raises
                told = self._failed(shift, job, call, error)
                raise told from told.__cause__
            self._ended(shift, job, call)
        finally:
            self._release(mapping)

    def _claim(self) -> object:
        if self._mapping is not None:
            raise RuntimeError("Cannot call 'map' while another 'map' is running")
        self._mapping = object()
        return self._mapping

    def _release(self, mapping: object) -> None:
        if self._mapping is mapping:  # else the pool was terminated, and there may be another map by now
            self._mapping = None

    def _shift_for(self, hooks: Hooks, lifespan: int | None) -> Shift:
        """The workers for a call; new ones where there are none, or where a setting has changed."""
        shift = self._shift
        if shift is not None and (self._is_stale or shift.lifespan != lifespan):
            self.stop_and_join()
            shift = None
        if shift is None:
            shift = self._new_shift(lifespan)
        elif (hooks.init, hooks.exit) != (self._hooks.init, self._hooks.exit) and not shift.is_fresh:
            warnings.warn(
                "worker_init or worker_exit is another one than in the call before, but the workers are kept alive: "
                "those that have called worker_init do not call the new one",
                RuntimeWarning,
                stacklevel=4,
            )
        self._hooks = hooks
        return shift

    def _new_shift(self, lifespan: int | None, start_method: StartMethod | None = None) -> Shift:
        if is_in_daemon() and self.pool_params.start_method != "threading":
            raise AssertionError(
                "daemonic processes are not allowed to have children; give the outer pool daemon=False"
            )
        shift = Shift(self.pool_params, lifespan=lifespan, start_method=start_method, before=self._shared)
        self._shift, self._is_stale = shift, False
        self._shared = shift.setup.shared if isinstance(shift.setup.shared, Shared) else None
        self._exit_results, self._insights = shift.exit_results, shift.insights
        return shift

    def _begin(self, start: Callable[[Shift, bool], T]) -> T:
        """Begin something; by fork where its functions cannot be sent, and fork is MPIRE's way, too."""
        __tracebackhide__ = True
        shift = self._shift
        assert shift is not None
        try:
            begun = start(shift, False)
        except SerializationError:
            if shift.may_fork:
                shift.kill()
                shift = self._new_shift(shift.lifespan, "fork")
            elif not shift.can_inherit:
                raise
            begun = start(shift, True)
        shift.is_fresh = False
        return begun

    def _ended(self, shift: Shift, job: Job[Any], call: MapCall) -> None:
        if shift.setup.tells_times:
            shift.insights.add(job.insights, call.args_of)
        if self._shift is shift:
            self.stop_and_join(keep_alive=self.pool_params.keep_alive)

    def _failed(self, shift: Shift, job: Job[Any], call: MapCall, error: BaseException) -> BaseException:
        """End the workers; the exception to raise."""
        if shift.setup.tells_times:
            shift.insights.add(job.insights, call.args_of)
        plain_results(error, shift)
        if self._shift is shift:
            self.terminate()
        else:
            shift.kill()
        return as_mpire(task_error_of(job, error), call.hooks.limits)


def _again(kind: type[PoolBase], settings: dict[str, Any]) -> PoolBase:
    return kind(**settings)
