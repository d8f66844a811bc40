"""The kernel's side of the fork server: starts it, asks it for workers, notices its end.

There is one for all pools of a process (:data:`server`), started with the first. Called by
:mod:`nbpar.backends.start`, under its lock. What the server does is in :mod:`nbpar.worker.server`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from multiprocess import process, spawn, util

from nbpar.worker.server import ANSWER

__all__ = ["ForkServer", "server"]


class ForkServer:
    """A process that makes workers.

    Attributes
    ----------
    pid : int or None
        The server's, None while there is none.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self._requests: socket.socket | None = None

    def ensure_running(self, preload: Sequence[str]) -> None:
        """Start the server unless it runs; it loads `preload` while this process goes on.

        Raises
        ------
        OSError
            When the system gives no more processes, descriptors or memory.
        """
        if self.pid is not None:
            self.reap()
        if self.pid is not None and self._requests is not None:
            return
        self._end()
        paths = [process.ORIGINAL_DIR if path == "" else path for path in sys.path]
        ours, theirs = socket.socketpair()
        with theirs:
            # What it finds by itself comes first, as in any new interpreter: a folder of the user's may have a module
            # by a name of Python's.
            code = (
                f"import sys; sys.path.extend(one for one in {paths!r} if one not in sys.path); "
                f"from nbpar.worker.server import main; main({theirs.fileno()}, {list(preload)!r})"
            )
            executable = spawn.get_executable()
            command = [executable, *util._args_from_interpreter_flags(), "-c", code]
            try:
                self.pid = util.spawnv_passfds(executable, command, [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        self._requests = ours

    def make_process(self, fds: Sequence[int]) -> tuple[int, int]:
        """Have the server make a process that gets `fds`.

        Returns
        -------
        tuple of int
            Descriptors to read its pid and, in the end, its exit code from; and to write to it what it is to run.

        Raises
        ------
        OSError
            When the server cannot make one, or has ended.
        """
        assert self._requests is not None
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as theirs:
            status_fd, their_status_fd = os.pipe()
            on_failure.callback(os.close, status_fd)
            theirs.callback(os.close, their_status_fd)
            their_data_fd, data_fd = os.pipe()
            on_failure.callback(os.close, data_fd)
            theirs.callback(os.close, their_data_fd)
            request = [their_data_fd, their_status_fd, *fds]
            socket.send_fds(self._requests, [bytes([len(request)])], request)
            try:
                answer = self._requests.recv(ANSWER.size, socket.MSG_WAITALL)
            except BaseException:  # a Ctrl-C: the answer will come, and must not be taken for that to another request
                self._end()
                raise
            if len(answer) < ANSWER.size:
                raise ConnectionResetError("the fork server has ended")
            (error,) = ANSWER.unpack(answer)
            if error:
                raise OSError(error, os.strerror(error))
            on_failure.pop_all()
        return status_fd, data_fd

    def watch(self) -> int | None:
        """A descriptor that tells when the server has ended, for the caller to close; None where there is none."""
        if self.pid is None or not hasattr(os, "pidfd_open"):
            return None
        with contextlib.suppress(OSError):
            return os.pidfd_open(self.pid)
        return None

    def reap(self) -> bool:
        """Take note of the server's end: a Jupyter kernel that shuts down waits for its children, dead ones too.

        Returns
        -------
        bool
            Whether somebody ended it by SIGTERM, as such a kernel does.
        """
        if self.pid is None:
            return False
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for it, or SIGCHLD is ignored here
            pid, status = self.pid, 0
        if pid:
            self.forget()
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM

    def forget(self) -> None:
        """Let go of a server that has ended or, in a fork, is the parent's: it must end with that alone."""
        if self._requests is not None:
            self._requests.close()
        self.pid = self._requests = None

    __del__ = forget  # else Python warns at its exit of a socket that nobody has closed

    def _end(self) -> None:
        """End a server that cannot be spoken to any more."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        self.forget()


server = ForkServer()
"""The server of this process."""
