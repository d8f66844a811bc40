"""Signals held back while the main thread does the dispatcher's work, which an exception in its middle would tear.

Python runs signal handlers in the main thread between any two bytecodes, and most of them raise: Ctrl-C, a stop button,
an alarm. Used by :mod:`nbpar.backends.dispatcher`.
"""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

__all__ = ["HeldSignals"]

# The C functions beneath `signal`, whose own spend 20 us on enums here: each short map comes by.
_c_signal: Any = importlib.import_module("_signal")

_NAMES = ("SIGALRM", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT")
_NUMBERS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))


class HeldSignals:
    """For a ``with`` block in the main thread: handlers of signals that come are run at its end.

    Attributes
    ----------
    may_break : bool
        While set, a handler runs at once, and what it raises goes through.
    """

    __slots__ = ("_came", "_handlers", "_holds", "may_break")

    def __init__(self) -> None:
        self.may_break = False
        self._holds = False
        self._handlers: dict[int, Any] = {}
        self._came: list[int] = []

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Before and after the block, too: a handler that raises between two lines of `__enter__` or `__exit__` leaves
        # this one in the place of others. It then does what they did.
        if self._holds and not self.may_break:
            self._came.append(number)
        else:
            self._handlers[number](number, frame)

    def __enter__(self) -> HeldSignals:
        for number in _NUMBERS:
            handler = _c_signal.getsignal(number)
            while isinstance(left := getattr(handler, "__self__", None), HeldSignals) and not left._holds:
                handler = left._handlers[number]
            if callable(handler) and not isinstance(handler, int):  # SIG_DFL and SIG_IGN are numbers
                self._handlers[number] = handler
                _c_signal.signal(number, self._handle)
        self._holds = True
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._holds = False
        try:
            for number, handler in self._handlers.items():
                _c_signal.signal(number, handler)
        finally:
            for number in self._came:
                self._handlers[number](number, sys._getframe())
