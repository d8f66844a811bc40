"""A limit for one call of any library: some hang, and a run of all workloads must still end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["TookTooLong", "limit"]


class TookTooLong(BaseException):  # not an Exception, so that no library's handler swallows it
    """The limit has passed."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in the main thread after `seconds`.

    Waits on locks and sockets can be broken off so. Without SIGALRM (Windows), or in another thread, there is no limit.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
