"""Prints of worker threads become labelled lines, though all threads of a process share one ``sys.stdout``.

While worker threads live, ``sys.stdout`` and ``sys.stderr`` are routers: what a worker thread writes goes to its pool
as whole lines, what any other thread writes goes on to the stream that was there before.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["renew_routes", "route_prints"]


Outlet = Callable[[str, bool, int | None], None]


class _Unfinished(threading.local):
    """The outlet of a thread, None where it is no worker thread, and its unfinished lines with the task of each."""

    outlet: Outlet | None = None
    running: Callable[[], int | None]

    def __init__(self) -> None:
        self.lines: dict[bool, tuple[int | None, str]] = {False: (None, ""), True: (None, "")}


_mine = _Unfinished()
_lock = threading.Lock()  # guards the routers' coming and going
_n_users = 0
# `print` holds no reference to the stream it writes to (CPython): one that is taken away meanwhile must live on.
_kept: deque[_Router] = deque(maxlen=4)


class _Router:
    """Stands for ``sys.stdout`` or ``sys.stderr``; all but `write` is the former stream's."""

    def __init__(self, before: TextIO, *, is_stderr: bool) -> None:
        self.before = before
        self.is_stderr = is_stderr

    def write(self, text: str) -> int:
        outlet = _mine.outlet
        if outlet is None:
            return self.before.write(text)
        index, (owner, begun) = _mine.running(), _mine.lines[self.is_stderr]
        if begun and owner != index:
            outlet(begun, self.is_stderr, owner)
            begun = ""
        whole, newline, rest = (begun + text).rpartition("\n")
        _mine.lines[self.is_stderr] = index, rest
        if newline:
            outlet(whole, self.is_stderr, index)
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
def route_prints(outlet: Outlet, running: Callable[[], int | None]) -> Iterator[Callable[[], None]]:
    """Send what this thread prints to ``outlet(text, is_stderr, index)``, whole lines at a time.

    Parameters
    ----------
    running : callable
        Gives the index of the task that runs now in this thread.

    Yields
    ------
    callable
        Sends a line that has no end yet; called when a task has ended.
    """
    _come()
    _mine.outlet, _mine.running = outlet, running
    try:
        yield _finish
    finally:
        _finish()
        _mine.outlet = None
        _go()


def _finish() -> None:
    outlet = _mine.outlet
    for is_stderr, (owner, rest) in _mine.lines.items():
        if rest and outlet is not None:
            _mine.lines[is_stderr] = None, ""
            outlet(rest, is_stderr, owner)


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that is not there in the child may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _come() -> None:
    global _n_users
    with _lock:
        _n_users += 1
        _install()


def renew_routes() -> None:
    """Route again when somebody has put other streams in place (``%%capture``) since; called for each job."""
    with _lock:
        if _n_users:
            _install()


def _install() -> None:
    if type(sys.stdout) is not _Router:
        sys.stdout = _Router(sys.stdout, is_stderr=False)
        _kept.append(sys.stdout)
    if type(sys.stderr) is not _Router:
        sys.stderr = _Router(sys.stderr, is_stderr=True)
        _kept.append(sys.stderr)


def _go() -> None:
    global _n_users
    with _lock:
        _n_users -= 1
        if _n_users == 0:
            # Where somebody has put another stream in place meanwhile, the router stays beneath it and passes on.
            if type(sys.stdout) is _Router:
                sys.stdout = sys.stdout.before
            if type(sys.stderr) is _Router:
                sys.stderr = sys.stderr.before
