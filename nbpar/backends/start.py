"""How a worker process is started, with what multiprocess needs to be told for it.

Owns four arrangements: workers never import the user's main module (so no ``if __name__ == "__main__"`` guard is
needed, in a notebook or a script), the fork server loads the worker's code and numpy once for all workers, no Ctrl-C
hits a process that is not ready for it, and no fork is made that cannot work. Called by :mod:`nbpar.pool` when it makes
a pool, and by :mod:`nbpar.backends.processes`, in the dispatcher's thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import multiprocess
import multiprocess.forkserver
import multiprocess.process
import multiprocess.resource_tracker
import multiprocess.spawn
import multiprocess.util

from nbpar.backends.forkserver import server
from nbpar.backends.hazards import refuse_fork_with_cuda, warn_of_fork_with_threads

__all__ = [
    "begin_server",
    "explain",
    "forget_process",
    "get_context",
    "reap_server",
    "start_process",
    "watch_server",
]

_NAME = "nbpar-worker"
_PRELOAD = ["nbpar.worker.preload"]

_lock = threading.Lock()  # guards the fork server, and has one process started at a time


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a worker is forked while it is held, and may start a pool of its own
    server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_preparation_data: Callable[[str], dict[str, Any]] = multiprocess.spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    """What a child is told before it runs; one of ours is not told of the main module, so it does not import it."""
    if name.startswith(_NAME):
        vars(sys.modules["__main__"]).setdefault("__spec__", None)  # `%reset` takes it away, and multiprocess reads it
    data = _preparation_data(name)
    if name.startswith(_NAME):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


# multiprocess offers no hook for this. Only processes by our name are treated differently, so that whatever else uses
# multiprocess here is not touched.
multiprocess.spawn.get_preparation_data = _without_main


class _Starting(threading.local):
    """Whether this thread starts a process of ours at the moment, and what that one gets for the resource tracker."""

    tracker_fd: int | None = None


_starting = _Starting()
_tracker_fd: Callable[[], int] = multiprocess.resource_tracker.getfd
_run_tracker: Callable[[], None] = multiprocess.resource_tracker.ensure_running


def _our_tracker_fd() -> int:
    return _tracker_fd() if _starting.tracker_fd is None else _starting.tracker_fd


def _run_no_tracker() -> None:
    if _starting.tracker_fd is None:
        _run_tracker()


def _flags_of_our_own() -> list[str]:
    flags = _interpreter_flags()
    is_ours = _starting.tracker_fd is not None
    return [*flags, "-P"] if is_ours and "-P" not in flags and not _has_working_folder() else flags


def _has_working_folder() -> bool:
    try:
        return not {"", str(Path.cwd())}.isdisjoint(sys.path)
    except FileNotFoundError:  # it was deleted
        return False


# A process that is started by `-c` has the working folder first on its path, where a `queue.py` of the user's would be
# imported in the place of Python's own: not in one of ours, unless this process has that folder there as well.
_interpreter_flags: Callable[[], list[str]] = multiprocess.util._args_from_interpreter_flags
multiprocess.util._args_from_interpreter_flags = _flags_of_our_own

# Every process that multiprocess starts gets a descriptor of its resource tracker, a process that nbpar has no use for:
# its memory has no names. It ignores SIGTERM and lives as long as any of those descriptors, so that a Jupyter kernel,
# which waits for its children, would take seconds to shut down. Ours get /dev/null instead.
multiprocess.resource_tracker.getfd = _our_tracker_fd
multiprocess.resource_tracker.ensure_running = _run_no_tracker


def _make_served_process(fds: list[int]) -> tuple[int, int]:
    return _make_their_process(fds) if _starting.tracker_fd is None else server.make_process(fds)


# Only processes of ours come from our server (see there): what else uses multiprocess here keeps its own.
_make_their_process: Callable[[list[int]], tuple[int, int]] = multiprocess.forkserver.connect_to_new_process
multiprocess.forkserver.connect_to_new_process = _make_served_process


def get_context(start_method: str) -> Any:
    """The multiprocess context for ``"forkserver"``, ``"spawn"`` or ``"fork"``."""
    return multiprocess.get_context(start_method)


def begin_server(start_method: str) -> None:
    """Make ready for workers, in the thread that makes the pool.

    The fork server loads what workers need while this process goes on with its own imports; one that cannot be started
    is told by :func:`start_process`. Before ``"fork"`` it is seen what a fork would copy.

    Raises
    ------
    OptionsError
        When this process must not be forked.
    """
    if start_method == "forkserver":
        with _lock, contextlib.suppress(OSError), _undisturbed():
            server.ensure_running(_preload())
    elif start_method == "fork":
        refuse_fork_with_cuda()
        warn_of_fork_with_threads()


def start_process(context: Any, worker_id: int, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
    """Start a worker process and return it.

    The calling thread must outlive the process: Linux ties the death signal to the thread that made it.

    Raises
    ------
    OSError
        When the system gives no more processes, descriptors or memory.
    OptionsError
        When this process must not be forked any more.
    """
    start_method = context.get_start_method()
    if start_method == "fork":
        refuse_fork_with_cuda()
    try:
        with _lock, _undisturbed():
            if start_method == "forkserver":
                server.ensure_running(_preload())  # it may have ended since, or be another process's after a fork
            process = context.Process(target=target, args=args, name=f"{_NAME}-{worker_id}", daemon=False)
            process.start()
    except (OSError, EOFError) as error:
        raise OSError(explain(error)) from error
    return process


_HINTS = {
    errno.EAGAIN: "no more processes or threads (ulimit -u, or the limit of the container)",
    errno.EFBIG: "no file may grow (ulimit -f)",
    errno.EMFILE: "the limit of this process (ulimit -n)",
    errno.ENFILE: "the limit of the machine",
    errno.ENOMEM: "no memory for another process",
}


def explain(error: OSError | EOFError) -> str:
    """What the system has refused, and by which limit."""
    if isinstance(error, EOFError):
        return "the fork server has ended"
    text = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0)
    return text if hint is None else f"{text}: {hint}"


def _preload() -> list[str]:
    return [*_PRELOAD, "numpy"] if "numpy" in sys.modules else _PRELOAD


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes without a resource tracker and with SIGINT blocked, until they say otherwise."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: no tracker, no masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        _starting.tracker_fd = os.open(os.devnull, os.O_WRONLY)
        yield
    finally:
        if _starting.tracker_fd is not None:
            os.close(_starting.tracker_fd)
            _starting.tracker_fd = None
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def watch_server() -> int | None:
    """A descriptor that tells when the fork server has ended, for the caller to close; None where there is none."""
    with _lock:
        return server.watch()


def reap_server() -> bool:
    """Take note of the fork server's end.

    Returns
    -------
    bool
        Whether somebody ended it by SIGTERM, as a Jupyter kernel that shuts down does with its children.
    """
    with _lock:
        return server.reap()


def forget_process(process: Any) -> None:
    """Take a process off multiprocess's list: at exit it would wait for it, and we end our workers ourselves."""
    multiprocess.process._children.discard(process)
