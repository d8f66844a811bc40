"""Single calls: those of a pool that overlap are one job, with one card.

A job for each of thousands of `apply_async` would cost more than the calls. :class:`Calls` has at most one open at a
time: the first call begins it, further ones are fed to it, and it ends when none is under way. It is the source and the
outlet of an :class:`~nbpar.outlet.OutletJob`: the backend's thread takes calls out and brings outcomes in.

Bounds: calls that wait are the caller's, as with multiprocessing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nbpar.backends.base import short_repr
from nbpar.errors import JobCancelledError, TaskError
from nbpar.inputs import name_of
from nbpar.interop.multiprocessing.results import ApplyResult
from nbpar.options import JobOptions
from nbpar.outlet import OutletJob
from nbpar.pool import WorkerPool
from nbpar.raising import as_raised
from nbpar.worker.execute import call

__all__ = ["Calls"]


class Calls:
    """The calls of one pool.

    Parameters
    ----------
    workers : WorkerPool
        Runs them; not the serial one, whose calls have ended when they are made.
    """

    def __init__(self, workers: WorkerPool) -> None:
        self._workers = workers
        self._burst: _Burst | None = None  # takes the calls that are made now
        # Guards the one above and what a burst counts. Reentrant: while the main thread helps the backend with it held,
        # outcomes come in.
        self.lock = threading.RLock()

    def add(self, function: Callable[..., Any], args: tuple[Any, ...], kwds: Mapping[str, Any], result: Any) -> None:
        """Have a call made; its outcome goes to `result`."""
        with self.lock:
            burst = self._burst
            if burst is None:
                burst = self._burst = _Burst(self, self._workers, name_of(function))
                try:
                    burst.job.begin()
                except BaseException:
                    self._burst = None
                    raise
            burst.add(_Call((function, args, dict(kwds))), result)

    def close(self) -> None:
        """No more calls will come."""
        with self.lock:
            burst, self._burst = self._burst, None
            if burst is not None:
                burst.job.feed(burst.n_added, closed=True)

    def has_ended(self, burst: _Burst) -> None:
        """No call of a burst is under way; under the lock."""
        if self._burst is burst:
            self.close()

    def is_over(self, burst: _Burst) -> None:
        """The job of a burst has ended, in whatever way."""
        with self.lock:
            if self._burst is burst:
                self._burst = None


class _Call(tuple[Any, ...]):
    """Function, arguments and keyword arguments: shown as one would write it, and sent as a plain tuple."""

    __slots__ = ()

    def __repr__(self) -> str:
        function, args, kwds = self
        given = [short_repr(one) for one in args] + [f"{name}={short_repr(one)}" for name, one in kwds.items()]
        return f"{name_of(function)}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


class _Burst:
    """Calls of which there was always one under way."""

    def __init__(self, calls: Calls, workers: WorkerPool, name: str) -> None:
        self._calls = calls
        self._waiting: dict[int, tuple[_Call, ApplyResult[Any]]] = {}  # that have no outcome yet, by index
        self.n_added = self._n_ended = 0
        self._is_shown = False
        # One by one: the outcome of a call may be what another one waits for.
        options = JobOptions(chunk_size=1, on_error="return", name=f"apply {name}")
        self.job = OutletJob(workers, call, self, self, options, star=True, is_listed=False)

    def add(self, one: _Call, result: ApplyResult[Any]) -> None:
        """One more call, under the lock."""
        self._waiting[self.n_added] = one, result
        self.n_added += 1
        result.follow(self.job)
        self.job.feed(self.n_added)
        if not self._is_shown and self.n_added - self._n_ended > 1:  # calls that are made in turn need no card
            self._is_shown = True
            self.job.show()

    # ItemSource
    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Calls that are about to be sent, or have failed."""
        return [self._waiting[index][0] for index in range(start, stop)]

    def drop(self, start: int, stop: int) -> None:
        """They are forgotten with their outcomes."""

    # Outlet
    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Give results their values."""
        for index, value in enumerate(values, start):
            self._settle(index, value, None)

    def failed(self, error: TaskError) -> None:
        """Give a result its exception."""
        self._settle(error.index, None, as_raised(error))

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """What has no outcome will have none."""
        self._calls.is_over(self)
        for index in list(self._waiting):
            self._settle(index, None, error or JobCancelledError("the call was cancelled"))

    def _settle(self, index: int, value: Any, error: BaseException | None) -> None:
        entry = self._waiting.pop(index, None)
        try:
            if entry is not None:
                entry[1].settle(value, error)  # calls back: what is called there may be part of this burst
        finally:
            with self._calls.lock:
                self._n_ended += 1
                if self._n_ended == self.n_added:
                    self._calls.has_ended(self)
