"""Prints of worker threads become labelled lines, though all threads of a process share one ``sys.stdout``.

While worker threads live, ``sys.stdout`` and ``sys.stderr`` are routers: what a worker thread writes goes to its pool
as whole lines, what any other thread writes goes on to the stream that was there before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["route_prints"]


class _Unfinished(threading.local):
    """The outlet of a thread, None where it is no worker thread, and its unfinished lines."""

    outlet: Callable[[str, bool], None] | None = None

    def __init__(self) -> None:
        self.lines = {False: "", True: ""}


_mine = _Unfinished()
_lock = threading.Lock()  # guards the routers' coming and going
_n_users = 0
_routers: list[_Router] = []


class _Router:
    """Stands for ``sys.stdout`` or ``sys.stderr``; all but `write` is the former stream's."""

    def __init__(self, before: TextIO, *, is_stderr: bool) -> None:
        self.before = before
        self.is_stderr = is_stderr

    def write(self, text: str) -> int:
        outlet = _mine.outlet
        if outlet is None:
            return self.before.write(text)
        whole, newline, rest = (_mine.lines[self.is_stderr] + text).rpartition("\n")
        _mine.lines[self.is_stderr] = rest
        if newline:
            outlet(whole, self.is_stderr)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _mine.outlet is None:
            self.before.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)


@contextmanager
def route_prints(outlet: Callable[[str, bool], None]) -> Iterator[Callable[[], None]]:
    """Send what this thread prints to ``outlet(text, is_stderr)``, whole lines at a time.

    Yields
    ------
    callable
        Sends a line that has no end yet; called when a task has ended.
    """
    _come()
    _mine.outlet = outlet
    try:
        yield _finish
    finally:
        _finish()
        _mine.outlet = None
        _go()


def _finish() -> None:
    outlet = _mine.outlet
    for is_stderr, rest in _mine.lines.items():
        if rest and outlet is not None:
            _mine.lines[is_stderr] = ""
            outlet(rest, is_stderr)


def _come() -> None:
    global _n_users
    with _lock:
        _n_users += 1
        if _n_users == 1:
            _routers[:] = [_Router(sys.stdout, is_stderr=False), _Router(sys.stderr, is_stderr=True)]
            sys.stdout, sys.stderr = _routers


def _go() -> None:
    global _n_users
    with _lock:
        _n_users -= 1
        if _n_users == 0:
            out, err = _routers
            # Where somebody has put another stream in place meanwhile, the router stays beneath it and passes on.
            if sys.stdout is out:
                sys.stdout = out.before
            if sys.stderr is err:
                sys.stderr = err.before
