"""The jobs of an executor: one for calls that are submitted, one for each `map`.

::

    submit --> Submitted --feed--> workers, one call at a time    each outcome --> its future
    map    --> Mapped    --feed--> workers, in adaptive chunks    outcomes, in order --> the iterator

Both are the source and the outlet of an :class:`~nbpar.outlet.OutletJob`: the backend's thread takes calls out and
brings outcomes in. Calls that were submitted while none was under way begin a job, which ends when none is left, so
that what belongs together has one card. Owned by :class:`nbpar.interop.futures.crew.Crew`, whose lock guards what is
counted here.

Bounds: calls that wait, and results of a `map` that were not taken yet, are the caller's, as in the standard library;
`buffersize` bounds both.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Literal

from nbpar.backends.base import Wait, short_repr
from nbpar.errors import JobCancelledError, TaskError
from nbpar.future import HELP_S, LatchFuture
from nbpar.inputs import name_of
from nbpar.interop.futures.errors import is_deadly, of_task
from nbpar.options import JobOptions
from nbpar.outlet import OutletJob
from nbpar.views.cell import Cell
from nbpar.waiting import Latch, Waiters
from nbpar.worker.execute import call

if TYPE_CHECKING:
    from nbpar.interop.futures.crew import Crew

__all__ = ["CallFuture", "Mapped", "Submitted"]

Status = Literal["done", "failed", "cancelled"]

REST_S = 0.05
"""After such a rest a call begins a job: what the notebook has changed meanwhile counts for it. To begin one for each
of many calls in turn would take longer than they do."""


class CallFuture(LatchFuture[Any]):
    """What `Executor.submit` returns: pending until its call is sent to a worker, and from then on not cancelled."""

    def cancel(self) -> bool:
        """Take back a call that is pending; False when it runs or has ended."""
        if not super().cancel():
            return False
        self._notify_cancelled()
        return True

    def begin(self) -> bool:
        """The call is about to be sent, perhaps once more; False when it was cancelled."""
        self._free_lock()
        with self._condition:
            if self._state == "PENDING":
                return self.set_running_or_notify_cancel()
        if self.cancelled():
            self._notify_cancelled()
            return False
        return True

    def _notify_cancelled(self) -> None:
        """Let `concurrent.futures.wait` know at once; whichever thread comes first does it."""
        with self._condition:
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        self._over.set()


class _Call(tuple[Any, ...]):
    """Function, arguments and keyword arguments: shown as one would write it, and sent as a plain tuple."""

    __slots__ = ()

    def __repr__(self) -> str:
        function, args, kwargs = self
        given = [short_repr(one) for one in args] + [f"{name}={short_repr(one)}" for name, one in kwargs.items()]
        return f"{name_of(function)}({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


_NOTHING = _Call((bool, (), {}))
"""Is called in the place of a call that was cancelled before it was sent."""


class Submitted:
    """Calls that were submitted while there was always one under way."""

    def __init__(self, crew: Crew, name: str) -> None:
        self._crew = crew
        self._calls: dict[int, tuple[CallFuture, _Call]] = {}  # that have no outcome yet, by index
        self.n_added = self.n_ended = 0
        self.has_begun = Latch()  # or could not begin
        self.is_shown = False
        self.idle_since_s = 0.0  # when all calls had ended
        self._cell = Cell.current()
        options = JobOptions(chunk_size=1, on_error="return", name=name, progress=crew.progress)
        self.job = OutletJob(crew.pool, call, self, self, options, star=True, is_listed=False)

    def add(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallFuture:
        """One more call, under the crew's lock."""
        future = CallFuture(self._crew.backend)
        self._calls[self.n_added] = future, _Call((function, args, kwargs))
        self.n_added += 1
        return future

    @property
    def is_past(self) -> bool:
        """Whether a call that comes now has nothing to do with it: from another cell, or after a rest."""
        if self._cell is not None and not self._cell.is_current:
            return True
        return self.n_ended == self.n_added and time.monotonic() - self.idle_since_s > REST_S

    @property
    def is_seen(self) -> bool:
        """Whether anybody sees that the job goes on."""
        return self.is_shown or self.job.has_written

    def close(self) -> None:
        """No more calls will come."""
        self.has_begun.wait()
        self.job.feed(self.n_added, closed=True)

    def cancel_pending(self) -> None:
        """Cancel what has not been sent."""
        self.has_begun.wait()
        for future, _ in list(self._calls.values()):
            future.cancel()
        self.job.drain(self.n_added)

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """Nothing of it will have an outcome any more."""
        calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            future._settle((), make_error())

    # ItemSource
    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Calls that are about to be sent: from now on they run, as far as anybody can tell."""
        found = [self._calls.get(index) for index in range(start, stop)]
        return [_NOTHING if entry is None or not entry[0].begin() else entry[1] for entry in found]

    def drop(self, start: int, stop: int) -> None:
        """Forget calls, and their arguments."""
        for index in range(start, stop):
            self._calls.pop(index, None)

    # Outlet
    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Give futures their results."""
        for index, value in enumerate(values, start):
            entry = self._calls.pop(index, None)
            if entry is not None:
                entry[0]._settle((value,), None)
        self._have_ended(len(values))

    def failed(self, error: TaskError) -> None:
        """Give a future its exception, or all of them when a worker died."""
        if is_deadly(error):
            self._crew.break_down(error)
        elif (entry := self._calls.pop(error.index, None)) is not None:
            entry[0]._settle((), of_task(error, error.item_repr, is_remote=self._crew.is_remote))
        self._have_ended(1)

    def ended(self, status: Status, error: BaseException | None) -> None:
        """What is left was cancelled, by the card's button, or fails with what ended the job."""
        if status != "cancelled" and error is not None:
            if is_deadly(error):
                self._crew.break_down(error)
            self._crew.has_ended(self)
            self.fail(lambda: error)
            return
        self._crew.has_ended(self)
        for future, _ in list(self._calls.values()):
            future.cancel()
        self.fail(lambda: JobCancelledError("the call was cancelled"))

    def _have_ended(self, n_calls: int) -> None:
        self.n_ended += n_calls
        self._crew.close_if_idle(self)


class Mapped:
    """The calls of one `map`."""

    def __init__(
        self, crew: Crew, function: Callable[..., Any], items: Iterator[Any], *, star: bool, chunk_size: int | None
    ) -> None:
        self._crew = crew
        self._rest = items
        self._items: dict[int, Any] = {}  # that have no outcome yet, by index
        self._ready: dict[int, tuple[Any, BaseException | None]] = {}  # outcomes that were not taken yet, by index
        self._end: Callable[[], BaseException] | None = None  # makes what is raised where there is no outcome
        self._lock = threading.RLock()  # guards the two above
        self._waiters = Waiters()
        self.n_added = 0
        self._is_read = False  # to its end
        options = JobOptions(
            chunk_size=chunk_size, on_error="return", name=f"map {name_of(function)}", progress=crew.progress
        )
        self.job = OutletJob(crew.pool, function, self, self, options, star=star)

    def read(self, n_items: int | None) -> None:
        """Read so many items, or all, and hand them out."""
        before = self.n_added
        for item in itertools.islice(self._rest, n_items):
            self._items[self.n_added] = item
            self.n_added += 1
        self._is_read = n_items is None or self.n_added - before < n_items
        self.job.feed(self.n_added, closed=self._is_read)

    def close(self) -> None:
        """No more items will be read."""
        self.job.feed(self.n_added, closed=True)

    def results(self, end_s: float | None, *, is_buffered: bool) -> Iterator[Any]:
        """Results in order; at its end, whatever that is, what has not begun is not begun any more."""
        n_out = 0
        try:
            while n_out < self.n_added:
                if is_buffered and not self._is_read:
                    self._crew.check_open()
                    self.read(1)
                left_s = None if end_s is None else end_s - time.monotonic()
                n_out += 1
                yield self._take(n_out - 1, left_s)
        finally:
            if n_out < self.n_added or not self._is_read:
                self.stop()

    def _take(self, index: int, left_s: float | None) -> Any:
        self._wait_for(index, left_s)
        with self._lock:
            if index not in self._ready:
                assert self._end is not None
                raise self._end()
            value, error = self._ready.pop(index)
        if error is None:
            return value
        try:
            raise error
        finally:
            del self, error  # the traceback would keep what its frame refers to

    def _wait_for(self, index: int, left_s: float | None) -> None:
        if self._has(index):
            return
        end_s = None if left_s is None else time.monotonic() + left_s
        limit_s = HELP_S if left_s is None else max(0.0, min(HELP_S, left_s))
        self.job.help(Wait(lambda: self._has(index), limit_s))
        while True:
            with self._lock:
                if self._has(index):
                    return
                waiter = self._waiters.add()
            wait_s = None if end_s is None else end_s - time.monotonic()
            if wait_s is not None and wait_s <= 0:
                raise TimeoutError
            Waiters.wait(waiter, wait_s)

    def _has(self, index: int) -> bool:
        return index in self._ready or self._end is not None

    def stop(self) -> None:
        """Begin nothing more of it."""
        self._rest = iter(())
        self.job.stop()

    def cancel_pending(self) -> None:
        """As :meth:`stop`; whoever waits for what was not begun is told."""
        self.stop()

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """What has no outcome will have none."""
        with self._lock:
            if self._end is None:
                self._end = make_error
            self._items.clear()
            self._waiters.wake()

    # ItemSource
    def take(self, start: int, stop: int) -> Sequence[Any]:
        """Items by index."""
        return [self._items.get(index) for index in range(start, stop)]

    def drop(self, start: int, stop: int) -> None:
        """Forget items."""
        for index in range(start, stop):
            self._items.pop(index, None)

    # Outlet
    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Results that the iterator may give out."""
        with self._lock:
            self._ready.update((index, (value, None)) for index, value in enumerate(values, start))
            self._waiters.wake()

    def failed(self, error: TaskError) -> None:
        """An exception that the iterator raises at its turn."""
        if is_deadly(error):
            self._crew.break_down(error)
            return
        with self._lock:
            self._ready[error.index] = None, of_task(error, error.where, is_remote=self._crew.is_remote)
            self._waiters.wake()

    def ended(self, status: Status, error: BaseException | None) -> None:
        """What has no outcome will have none."""
        if status != "cancelled" and error is not None and is_deadly(error):
            self._crew.break_down(error)
        self._crew.has_ended(self)
        if status != "cancelled" and error is not None:
            self.fail(lambda: error)
        elif status == "cancelled":
            self.fail(lambda: JobCancelledError("the map was cancelled"))
        else:
            self.fail(CancelledError)


def items_of(iterables: Sequence[Iterable[Any]]) -> Iterator[Any]:
    """The arguments of each call, as `map` of the standard library puts them together."""
    return iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
