"""The fork server: a process that has loaded what workers need, and makes each of them as a copy of itself.

::

    kernel --request: descriptors--> server --fork--> worker, which reads what it is to run from the kernel
           <----- 0, or an errno ---
           <--- the worker's status pipe: its pid, and in the end its exit code

Requests come by an inherited socket that has no name: a killed kernel leaves nothing behind, and nobody else can ask.
The kernel alone has the other end. When it is gone the server ends, and by their death signal all workers. A fork that
the system refuses is an answer, and not the end of the server and so of all workers.

Started by :mod:`nbpar.backends.forkserver`. multiprocess, which has a server of its own that does none of this, starts
the worker's process as it does in that one.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NoReturn

from multiprocess import forkserver, spawn, util

__all__ = ["ANSWER", "main"]

ANSWER = struct.Struct("<i")
"""The answer to a request: 0, or the errno of what failed."""

_MAX_FDS = 64


def main(requests_fd: int, preload: Sequence[str]) -> NoReturn:
    """Load modules, then make workers until the kernel is gone.

    Parameters
    ----------
    requests_fd : int
        One end of the socket; the kernel has the other.
    preload : sequence of str
        Names of modules.
    """
    for name in preload:
        with contextlib.suppress(Exception):  # a worker that needs it will say what is the matter
            importlib.import_module(name)
    util._close_stdin()
    with socket.socket(fileno=requests_fd) as requests:
        _Server(requests).serve()
    os._exit(0)  # at once: the workers end with it


class _Server:
    """The loop, and what it knows of workers that have not ended."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._status_fds: dict[int, int] = {}  # by pid
        self._signal_in, self._signal_out = os.pipe()
        for fd in (self._signal_in, self._signal_out):
            os.set_blocking(fd, False)
        # The kernel may have blocked or ignored the signal of a worker's end, which wakes the loop. A Ctrl-C goes to
        # the whole process group.
        self._handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, _do_nothing),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        }
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        signal.set_wakeup_fd(self._signal_out)

    def serve(self) -> None:
        """Work until the kernel is gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._signal_in, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._signal_in in ready:
                    os.read(self._signal_in, 1 << 16)
                    self._bury()
                if self._requests in ready:
                    fds = self._receive()
                    if fds is None:
                        return
                    self._answer(fds, selector)

    def _bury(self) -> None:
        """Tell the kernel how workers have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            status_fd = self._status_fds.pop(pid, None)
            if status_fd is not None:
                _tell(status_fd, os.waitstatus_to_exitcode(status))
                os.close(status_fd)

    def _receive(self) -> list[int] | None:
        """The descriptors of a request, none when they could not all be received; None when the kernel is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._requests, 1, _MAX_FDS)
        except ConnectionError:
            return None
        if not data:
            return None
        if len(fds) == data[0]:
            return fds
        for fd in fds:
            os.close(fd)
        return []

    def _answer(self, fds: list[int], selector: selectors.BaseSelector) -> None:
        error = 0 if fds else errno.EMFILE
        try:
            pid = os.fork() if fds else -1
        except OSError as refusal:  # no more processes, or no memory for one
            pid, error = -1, refusal.errno or errno.EAGAIN
        if pid == 0:
            selector.close()
            self._become_worker(fds)
        with contextlib.suppress(ConnectionError):  # the kernel is gone: the next turn finds out
            self._requests.sendall(ANSWER.pack(error))
        for fd in fds if error else fds[:1] + fds[2:]:
            os.close(fd)
        if not error:
            self._status_fds[pid] = fds[1]
            _tell(fds[1], pid)

    def _become_worker(self, fds: list[int]) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._requests.close()
            data_fd, status_fd, *own_fds = fds
            for fd in (self._signal_in, self._signal_out, status_fd, *self._status_fds.values()):
                os.close(fd)
            for fd in (data_fd, *own_fds):
                os.set_inheritable(fd, False)  # programs that tasks start have no use for them
            forkserver._forkserver._inherited_fds = own_fds
            code = spawn._main(data_fd, os.dup(data_fd))
        except EOFError:  # the kernel was gone before it had said what to run
            pass
        except Exception:  # noqa: BLE001  # told as an interpreter tells it, which this process no longer gets to
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(code)


def _tell(status_fd: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the kernel does not want to know any more
        forkserver.write_signed(status_fd, number)


def _do_nothing(*_: object) -> None:
    """Handle a signal: to be woken by it is enough."""
