"""The event loop of a worker's coroutines: where it runs, and how it is closed.

Owned by a :class:`nbpar.worker.context.Context`; used by :mod:`nbpar.worker.coroutines`, and by the backends when a
worker or a job ends. Two event loops cannot run in one thread, and a notebook's runs in the kernel's main thread all
the time: :class:`Aside` has a thread for another one.
"""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from nbpar.daemon import start_thread
from nbpar.worker.context import Context, set_context

__all__ = ["Aside", "close", "close_loop", "loop_runs_here"]


def loop_runs_here() -> bool:
    """Whether this thread is within an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def close_loop(context: Context) -> None:
    """Close the event loop of a worker that ends, if it has one."""
    loop, context.loop = context.loop, None
    if loop is not None:
        close(loop)


def close(loop: asyncio.AbstractEventLoop) -> None:
    """Close an event loop, whatever is left in it."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it has been told of, and cannot be helped
    if not loop.is_running():
        loop.close()


class Aside:
    """A thread for an event loop, where one runs already in the caller's: two cannot run in one thread."""

    def __init__(self, context: Context) -> None:
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._is_busy = False
        start_thread(self._serve, context, name="nbpar-await")

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop until it is stopped; an interrupt of the caller's leaves it running, for the next call."""
        if not self._is_busy:
            self._is_busy = True
            self._orders.put(loop)
        while True:
            try:
                error = self._ended.get(timeout=0.5)  # Windows hears of an interrupt in between only
                break
            except queue.Empty:
                continue
        self._is_busy = False
        if error is not None:
            raise error

    def end(self) -> None:
        """Let the thread end."""
        self._orders.put(None)

    def _serve(self, context: Context) -> None:
        set_context(context, whole_process=False)
        while (loop := self._orders.get()) is not None:
            error = None
            try:
                loop.run_forever()
            except BaseException as raised:  # noqa: BLE001  # it is raised in the caller's thread
                error = raised
            self._ended.put(error)
