"""Starts the threads of nbpar: all are daemons, each has a name, and a start that fails is an error.

A new thread that finds no memory to begin with ends without a word, and Python waits for it without end. Nothing of
nbpar may hang for that: room is looked for before, and the wait has an end. Used by whoever owns a thread:
:mod:`nbpar.views.ticker`, :mod:`nbpar.backends.dispatcher`, :mod:`nbpar.backends.threads`, :mod:`nbpar.worker.profile`,
:mod:`nbpar.worker.eventloop`, :mod:`nbpar.wire.exceptions`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["start_thread"]

STACK_BYTES, SPARE_BYTES = 8 << 20, 2 << 20
"""What the system gives a thread by default, and what it takes to begin, which comes second."""

BEGINS_WITHIN_S = 20.0
"""A thread that has not begun by then has died: on a loaded machine it takes some milliseconds."""


def start_thread(target: Callable[..., None], *args: Any, name: str) -> threading.Thread:
    """Start a daemon thread.

    Parameters
    ----------
    target : callable
        What it runs, with `args`.
    name : str
        What debuggers and tests call it.

    Raises
    ------
    RuntimeError
        It cannot be started, for want of threads or of memory; `target` will not run.

    Examples
    --------
    >>> seen = []
    >>> start_thread(seen.append, 1, name="example").join()
    >>> seen
    [1]
    """
    thread = _Daemon(target=target, args=args, name=name, daemon=True)
    try:
        _look_for_room()
        thread.start()
    except (MemoryError, OSError) as error:
        raise RuntimeError("can't start new thread: out of memory") from error
    if not thread.has_begun():
        raise RuntimeError("can't start new thread: it found no memory")
    return thread


def _look_for_room() -> None:
    import mmap  # not needed to import nbpar

    mmap.mmap(-1, (threading.stack_size() or STACK_BYTES) + SPARE_BYTES).close()  # 5 us: no page of it is touched


class _Daemon(threading.Thread):
    """Its start is not waited for without end, and it does not run once that was given up."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._begins = threading.Lock()  # guards the next: a thread runs, or its start has failed
        self._is_given_up = False
        self._started = _Begun()  # what `Thread.start` waits for

    def has_begun(self) -> bool:
        """Whether it runs, or has run; when not, it never will."""
        with self._begins:
            if not self._started.is_set():
                self._is_given_up = True
                vars(threading).get("_limbo", {}).pop(self, None)  # or it is listed for ever
        return not self._is_given_up

    def _bootstrap(self) -> None:
        with self._begins:
            if self._is_given_up:
                return
        super()._bootstrap()  # type: ignore[misc]  # absent from typeshed

    def run(self) -> None:
        with self._begins:
            if self._is_given_up:
                return
        super().run()


class _Begun(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(BEGINS_WITHIN_S if timeout is None else timeout)
