"""What a task writes becomes labelled lines in the kernel: prints, warnings, logging, and C or subprocess output.

Owns the worker's ``sys.stdout`` and ``sys.stderr`` and its descriptors 1 and 2. Python-level text travels as OUTPUT
messages, a whole line each, in order with the results. What goes to the descriptors directly (C libraries,
``os.system``, faulthandler) is written into a pipe that the kernel reads. Installed by :mod:`nbpar.worker.main`.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

from nbpar.wire.channel import Message, WorkerChannel
from nbpar.wire.messages import Kind
from nbpar.worker.context import Context, TaskInterrupt

__all__ = ["Sender", "TaskStream", "apply_logging", "apply_warning_filters", "install_output"]


class Sender:
    """Sends messages from any thread of the worker, one at a time, and never torn by an interrupt.

    The worker's SIGINT handler asks `busy` before it raises: an exception inside a send would leave half a message.
    """

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._main = threading.main_thread().ident
        self._lock = threading.Lock()  # guards the socket's sending side: helper threads of a task may print
        self._sender = 0  # the thread that sends at the moment
        self._waiting: deque[Message] = deque()  # what a finalizer wrote in the middle of a send; sent right after it
        self._deferred = False
        self._is_torn = False
        self.busy = False

    def defer_interrupt(self) -> None:
        """Raise the interrupt when the message is out; the signal handler calls it while `busy`."""
        self._deferred = True

    def send(self, message: Message) -> None:
        """Send a whole message; none once a send has failed: the kernel would take it for the rest of that one."""
        me = threading.get_ident()
        if self._sender == me:
            # The garbage collector ran within a send of this thread, and a finalizer of the user's prints.
            self._waiting.append(message)
            return
        main = me == self._main
        if main:
            self.busy = True
        try:
            with self._lock:
                if self._is_torn:
                    return
                self._sender, self._is_torn = me, True
                try:
                    self._channel.send(message)
                    while self._waiting:
                        self._channel.send(self._waiting.popleft())
                    self._is_torn = False
                finally:
                    self._sender = 0
        finally:
            if main:
                self.busy = False
        if main and self._deferred:
            self._deferred = False
            raise TaskInterrupt


class TaskStream(io.TextIOBase):
    """A text stream whose lines go to the kernel, labelled with the task that wrote them."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, name: str, sender: Sender, context: Context) -> None:
        super().__init__()
        self.name = name
        self._is_stderr = int(name == "<stderr>")
        self._sender = sender
        self._context = context
        self._lock = threading.RLock()  # guards the unfinished line: threads of a task may print together
        self._line = ""
        self._owner: int | None = None  # the task that wrote the unfinished line

    def writable(self) -> bool:
        """Whether `write` works: always."""
        return True

    def fileno(self) -> int:
        """The descriptor beneath, for ``subprocess`` and C libraries: its output arrives through the pipe."""
        return 2 if self._is_stderr else 1

    def write(self, text: str) -> int:
        """Take text; each whole line leaves at once."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            index = self._context.index
            if self._line and index != self._owner:
                self._finish_line()
            self._owner = index
            whole, newline, rest = text.rpartition("\n")
            if newline:
                self._emit(self._line + whole)
                self._line = rest
            else:
                self._line += rest
        return len(text)

    def flush(self) -> None:
        """Nothing to do: whole lines have left, and half a line waits for its end or for the end of its task."""

    def finish(self) -> None:
        """Send an unfinished line; called when the chunk's results are about to leave."""
        if not self._line:
            return
        with self._lock:
            self._finish_line()

    def _finish_line(self) -> None:
        if self._line:
            line, self._line = self._line, ""
            self._emit(line)

    def _emit(self, text: str) -> None:
        # A bar that redraws itself leaves only its last state.
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        number = 0 if self._owner is None else self._owner + 1
        payload = "\n".join(lines).encode(self.encoding, self.errors)
        self._sender.send(Message(Kind.OUTPUT, (number, self._is_stderr, 0, 0, 0), payload=payload))


def install_output(sender: Sender, context: Context, pipe_fd: int | None) -> tuple[TaskStream, TaskStream]:
    """Put the worker's output streams in place.

    Parameters
    ----------
    pipe_fd : int or None
        Write end of the pipe for what goes to descriptors 1 and 2; it is closed here once duplicated.
    """
    if pipe_fd is not None:
        os.dup2(pipe_fd, 1)
        os.dup2(pipe_fd, 2)
        os.close(pipe_fd)
        faulthandler.enable(2)
    out, err = TaskStream("<stdout>", sender, context), TaskStream("<stderr>", sender, context)
    sys.stdout = sys.__stdout__ = out  # type: ignore[assignment, misc]
    sys.stderr = sys.__stderr__ = err  # type: ignore[assignment, misc]
    return out, err


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever ``sys.stderr`` is at the moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """The worker's stderr."""
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        """Ignored: the stream is always the worker's."""


def apply_logging(settings: dict[str, Any]) -> None:
    """Give the worker the kernel's log levels and format.

    Parameters
    ----------
    settings : dict
        ``levels`` by logger name ("" for the root) and ``format`` (None: as if logging was never configured).
    """
    root = logging.getLogger()
    for name, level in settings["levels"].items():
        logging.getLogger(name or None).setLevel(level)
    ours = next((handler for handler in root.handlers if isinstance(handler, _StderrHandler)), None)
    if settings["format"] is None:
        if ours is not None:
            root.removeHandler(ours)
        return
    if ours is None:
        ours = _StderrHandler()
        root.addHandler(ours)
    ours.setFormatter(logging.Formatter(settings["format"], settings["datefmt"]))


def apply_warning_filters(filters: Iterable[tuple[Any, ...]]) -> None:
    """Give the worker the kernel's warning filters.

    Parameters
    ----------
    filters : iterable of tuple
        Action, message pattern, (module, name) of the category, module pattern, line. A filter whose category's module
        is not loaded here is left out: it has nothing to warn of.
    """
    warnings.resetwarnings()
    for action, message, (home, name), module, line in reversed(list(filters)):
        category = getattr(sys.modules.get(home), name, None)
        if isinstance(category, type) and issubclass(category, Warning):
            warnings.filterwarnings(action, message or "", category, module or "", line)
