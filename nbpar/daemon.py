"""Starts the threads of nbpar: all are daemons, each has a name, and a start that fails is an error.

Python waits without end for a new thread that found no memory to begin with. Nothing of nbpar may hang for that. Used
by whoever owns a thread: :mod:`nbpar.views.ticker`, :mod:`nbpar.backends.dispatcher`, :mod:`nbpar.backends.threads`,
:mod:`nbpar.worker.profile`, :mod:`nbpar.wire.exceptions`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["start_thread"]

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
    lock = threading.Lock()  # guards what follows: either the thread begins or its start has failed
    is_given_up = False

    def run() -> None:
        with lock:
            if is_given_up:
                return
        target(*args)

    thread = threading.Thread(target=run, name=name, daemon=True)
    begun = _Begun()
    thread._started = begun  # type: ignore[attr-defined]  # what `Thread.start` waits for
    try:
        thread.start()
    except MemoryError as error:
        raise RuntimeError("can't start new thread: out of memory") from error
    if not begun.is_set():
        with lock:
            is_given_up = True
        raise RuntimeError("can't start new thread: it found no memory")
    return thread


class _Begun(threading.Event):
    """Is not waited for without end."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(BEGINS_WITHIN_S if timeout is None else timeout)
