"""What `apply_async` returns, and the thread that calls its callbacks.

A callback may take its time or call the pool: it runs in a thread of its own (:class:`Callbacks`), one at a time and in
the order in which the tasks ended. A result is ready once its callback has returned, as in MPIRE; one that raises is
logged, and the result is ready all the same.

Made by :mod:`nbpar.interop.mpire.pool`. Bounds: the queue of callbacks has one entry for each task that has ended.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, NamedTuple, TypeVar

from nbpar.daemon import start_thread
from nbpar.future import TaskFuture
from nbpar.interop.mpire.raising import Limits, as_mpire
from nbpar.waiting import Latch

__all__ = ["AsyncResult", "Callbacks", "Plan"]

R = TypeVar("R")

_log = logging.getLogger("nbpar")

_job_ids = itertools.count()


class Callbacks:
    """Calls callbacks one after the other; its thread starts with the first, and ends with this object."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the start of the thread

    def put(self, call: Callable[[], None]) -> None:
        """Have something called; it must not raise."""
        with self._lock:
            if self._thread is None:
                self._thread = start_thread(_call_all, self._calls, name="nbpar-callbacks")
                weakref.finalize(self, self._calls.put, None).atexit = False
        self._calls.put(call)


def _call_all(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it holds a result, and the next may be long in coming


class Plan(NamedTuple):
    """What is to be done when a task has ended.

    Attributes
    ----------
    take : callable
        Makes the function's result of what came back.
    callbacks : Callbacks
        Where the two following are called.
    callback, error_callback : callable or None
        The user's, for the result and for the exception.
    forget : callable
        Called last.
    limits : Limits
        For the words of a timeout.
    describe : callable
        Gives the arguments as text.
    """

    take: Callable[[Any], Any]
    callbacks: Callbacks
    callback: Callable[[Any], Any] | None
    error_callback: Callable[[BaseException], Any] | None
    forget: Callable[[AsyncResult[Any]], None]
    limits: Limits
    describe: Callable[[], str]


class AsyncResult(Generic[R]):
    """The result of one task, now or later.

    Parameters
    ----------
    future : TaskFuture
        The task.
    plan : Plan
        What is to be done when it has ended.

    Attributes
    ----------
    job_id : int
        Counts them.

    Examples
    --------
    >>> from nbpar.interop.mpire import WorkerPool
    >>> with WorkerPool(2, start_method="threading") as pool:
    ...     result = pool.apply_async(pow, (2, 5))
    ...     result.get(), result.ready(), result.successful()
    (32, True, True)
    """

    def __init__(self, future: TaskFuture[Any], plan: Plan) -> None:
        self.job_id = next(_job_ids)
        self._future = future
        self._plan: Plan | None = plan  # until it is ready: it keeps the pool
        self._value: list[R] = []  # the one value
        self._error: BaseException | None = None
        self._ready = Latch()

    def begin(self) -> None:
        """Follow the task from now on."""
        self._future.add_done_callback(self._ended)

    def ready(self) -> bool:
        """Whether the task has ended, and its callback returned."""
        return self._ready.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception.

        Raises
        ------
        ValueError
            When it is not ready.
        """
        if not self.ready():
            raise ValueError(f"{self.job_id} is not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, for `timeout` seconds at most."""
        if self.ready():
            return
        begin_s = time.perf_counter()
        with contextlib.suppress(TimeoutError, CancelledError):  # told by what follows
            self._future.exception(timeout)  # the main thread does the backend's work meanwhile
        self._ready.wait(None if timeout is None else max(0.0, timeout - (time.perf_counter() - begin_s)))

    def get(self, timeout: float | None = None) -> R:
        """The function's result; waits for it, for `timeout` seconds at most.

        Raises
        ------
        BaseException
            What the function raised.
        TimeoutError
            When it is not ready by then; and when the task ran longer than its `task_timeout`.
        RuntimeError
            When its worker died.
        JobCancelledError
            When the pool was ended before the task had.
        """
        __tracebackhide__ = True
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError(f"the task has not ended within {timeout} s; it goes on")
        if self._error is None:
            return self._value[0]
        try:
            raise self._error
        finally:
            del self  # the traceback would keep what its frame refers to

    def __repr__(self) -> str:
        state = "not ready" if not self.ready() else "failed" if self._error is not None else "done"
        return f"<AsyncResult {self.job_id}: {state}>"

    def _ended(self, _: Future[Any]) -> None:
        """The task has ended: called in the dispatcher's thread."""
        future, plan = self._future, self._plan
        assert plan is not None
        try:
            error = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is None:
            told = plan.take(future.result())
            self._value.append(told)
            call = plan.callback
        else:
            told = self._error = as_mpire(future.task_error or error, plan.limits, plan.describe())
            # Without a task's error it has ended with its pool, and not by itself: there is nobody to be told.
            call = None if future.task_error is None else plan.error_callback
        if call is None:
            self._settle()
            return

        def call_back() -> None:
            try:
                call(told)
            except BaseException:  # noqa: BLE001  # a user's: the other callbacks are still to be called
                _log.exception("nbpar: a callback of %r failed", self)
            self._settle()

        try:
            plan.callbacks.put(call_back)
        except RuntimeError:  # no more threads
            _log.exception("nbpar: a callback of %r cannot be called", self)
            self._settle()

    def _settle(self) -> None:
        plan, self._plan = self._plan, None
        self._ready.set()
        if plan is not None:
            plan.forget(self)
