"""How a worker process is started, with what multiprocess needs to be told for it.

Owns three arrangements: workers never import the user's main module (so no ``if __name__ == "__main__"`` guard is
needed, in a notebook or a script), the fork server loads the worker's code and numpy once for all workers, and no
Ctrl-C hits a process that is not ready for it. Called by :mod:`nbpar.backends.processes`, in the dispatcher's thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import multiprocess
import multiprocess.forkserver
import multiprocess.process
import multiprocess.resource_tracker
import multiprocess.spawn

__all__ = ["begin_server", "forget_process", "get_context", "start_process"]

_NAME = "nbpar-worker"
_PRELOAD = ["nbpar.worker.preload"]

_lock = threading.Lock()  # guards the settings of the process-wide fork server while it may be started


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a worker is forked while it is held, and may start a pool of its own
    # The server is the parent's: only the parent may wait for it, and it must end with the parent, not with its forks.
    server = multiprocess.forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None
    server._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_preparation_data: Callable[[str], dict[str, Any]] = multiprocess.spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    """What a child is told before it runs; one of ours is not told of the main module, so it does not import it."""
    data = _preparation_data(name)
    if name.startswith(_NAME):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


# multiprocess offers no hook for this. Only processes by our name are treated differently, so that whatever else uses
# multiprocess here is not touched.
multiprocess.spawn.get_preparation_data = _without_main


def get_context(start_method: str) -> Any:
    """The multiprocess context for ``"forkserver"``, ``"spawn"`` or ``"fork"``."""
    return multiprocess.get_context(start_method)


def begin_server(start_method: str) -> None:
    """Have the fork server load what workers need while this process goes on with its own imports.

    Does nothing for other start methods. A server that cannot be started is told by :func:`start_process`.
    """
    if start_method == "forkserver":
        with _lock, contextlib.suppress(OSError), _without_interrupts():
            _set_preload()
            multiprocess.forkserver.ensure_running()


def start_process(context: Any, worker_id: int, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
    """Start a worker process and return it.

    The calling thread must outlive the process: Linux ties the death signal to the thread that made it.

    Raises
    ------
    OSError
        When the system gives no more processes, descriptors or memory.
    """
    with _lock, _without_interrupts():
        if context.get_start_method() == "forkserver":
            _set_preload()  # it may have ended since, or be another process's after a fork
        process = context.Process(target=target, args=args, name=f"{_NAME}-{worker_id}", daemon=False)
        process.start()
    return process


def _set_preload() -> None:
    numpy = ["numpy"] if "numpy" in sys.modules else []
    multiprocess.forkserver.set_forkserver_preload([*_PRELOAD, *numpy])


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT in this thread, and so in what is started from it, until that says otherwise."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It unblocks SIGINT in this thread when it starts its process, so it goes first.
    multiprocess.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forget_process(process: Any) -> None:
    """Take a process off multiprocess's list: at exit it would wait for it, and we end our workers ourselves."""
    multiprocess.process._children.discard(process)
