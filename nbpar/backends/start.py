"""How a worker process is started, with what multiprocess needs to be told for it.

Owns three arrangements: workers never import the user's main module (so no ``if __name__ == "__main__"`` guard is
needed, in a notebook or a script), the fork server loads the worker's code and numpy once for all workers, and no
Ctrl-C hits a process that is not ready for it. Called by :mod:`nbpar.backends.processes`, in the dispatcher's thread.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import multiprocess
import multiprocess.forkserver
import multiprocess.process
import multiprocess.resource_tracker
import multiprocess.spawn

__all__ = ["forget_process", "get_context", "start_process"]

_NAME = "nbpar-worker"
_PRELOAD = ["nbpar.worker.preload"]

_lock = threading.Lock()  # guards the settings of the process-wide fork server while it may be started
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


def start_process(context: Any, worker_id: int, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
    """Start a worker process and return it.

    The calling thread must outlive the process: Linux ties the death signal to the thread that made it.

    Raises
    ------
    OSError
        When the system gives no more processes, descriptors or memory.
    """
    with _lock:
        # It unblocks SIGINT in this thread when it starts its process, so it goes first.
        if context.get_start_method() != "fork" and sys.platform != "win32":
            multiprocess.resource_tracker.ensure_running()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if context.get_start_method() == "forkserver":
            preload = [*_PRELOAD, "numpy"] if "numpy" in sys.modules else _PRELOAD
            context.set_forkserver_preload(preload)
        process = context.Process(target=target, args=args, name=f"{_NAME}-{worker_id}", daemon=False)
        process.start()
    return process


def forget_process(process: Any) -> None:
    """Take a process off multiprocess's list: at exit it would wait for it, and we end our workers ourselves."""
    multiprocess.process._children.discard(process)
