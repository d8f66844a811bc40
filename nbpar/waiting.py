"""Waiting that a Ctrl-C may break off at any moment without leaving a lock held.

``threading.Event`` and ``Condition`` are Python code around a lock: an interrupt between their lines leaves it locked,
and the dispatcher, which needs it to tell the job's news, would wait for ever. What is here holds no lock across Python
code. Used by :mod:`nbpar.job`, :mod:`nbpar.future` and :mod:`nbpar.backends.dispatcher`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

__all__ = ["Latch", "Waiters", "until_done"]

_LOOK_S = 1.0
"""A waiter looks by itself so often: the one that was to pass the wake-up on may have been interrupted."""

_WAKE_S = 0.2
"""An event loop wakes so often."""


class Latch:
    """Set once; any number of threads wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held until the latch is set: a waiter acquires it and lets go at once
        self._lock.acquire()
        self._is_set = False

    def set(self) -> None:
        """Let all waiters go on."""
        if not self._is_set:
            self._is_set = True
            with contextlib.suppress(RuntimeError):  # another thread sets it in the same moment
                self._lock.release()

    def is_set(self) -> bool:
        """Whether :meth:`set` was called."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, or for `timeout` seconds; whether it is set."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left_s = _LOOK_S if deadline_s is None else min(_LOOK_S, deadline_s - time.monotonic())
            if left_s <= 0:
                break
            if self._lock.acquire(timeout=left_s):
                self._lock.release()
        return self._is_set


class Waiters:
    """Threads that wait for a change; each looks again after every :meth:`wake`.

    The owner calls `add` and `wake` under its own lock, and `wait` outside of it.
    """

    def __init__(self) -> None:
        self._locks: list[threading.Lock] = []  # one for each wait under way, or broken off, since the last wake

    def add(self) -> threading.Lock:
        """A lock to :meth:`wait` on, for one wait; taken before the owner's lock is given up, so no wake is missed."""
        lock = threading.Lock()
        lock.acquire()
        self._locks.append(lock)
        return lock

    @staticmethod
    def wait(lock: threading.Lock, timeout: float | None = None) -> None:
        """Wait for the next wake, or for `timeout` seconds."""
        lock.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))

    def wake(self) -> None:
        """Let all waiters look again."""
        if self._locks:
            locks, self._locks = self._locks, []
            for lock in locks:
                lock.release()


async def until_done(add_done_callback: Callable[[Callable[[Any], None]], None]) -> None:
    """Wait in an event loop for what calls back when it is done, from whatever thread.

    Raises
    ------
    KeyboardInterrupt
        When the stop button was pressed and a cell itself waits: ipykernel cancels the cell's task then.
    """
    import asyncio  # slow to load, and loaded already where anything is awaited

    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not over.done():
            over.set_result(None)

    def wake(_: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    add_done_callback(wake)
    with _noticing_interrupts(asyncio.current_task()) as interrupts:
        try:
            while not over.done():  # ipykernel hears of an interrupt when the loop next wakes: it has to, now and then
                await asyncio.wait((over,), timeout=_WAKE_S)
        except asyncio.CancelledError:
            if interrupts:  # and not a timeout, or another task
                raise KeyboardInterrupt from None
            raise


@contextlib.contextmanager
def _noticing_interrupts(task: asyncio.Task[Any] | None) -> Iterator[list[int]]:
    """Collects the interrupts that come meanwhile, and passes them on to whom they would have reached.

    Only in the task of a cell: it waits for one thing at a time, so that signal handlers are put back in their order,
    and a KeyboardInterrupt goes no further than IPython, which shows it.
    """
    noticed: list[int] = []
    is_cell = getattr(task and task.get_coro(), "__name__", "") == "run_cell_async"  # IPython's
    if not is_cell or threading.current_thread() is not threading.main_thread():
        yield noticed
        return
    import signal

    before = signal.getsignal(signal.SIGINT)

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        if signal.getsignal(signal.SIGINT) is notice:
            signal.signal(signal.SIGINT, before)
