"""The backends of this process: made for a pool by its start method, and ended with the interpreter.

Called by :mod:`nbpar.pool`. Nothing of a backend is imported before a pool needs it: each has its own dependencies.
"""

from __future__ import annotations

import atexit
import os
import weakref

from nbpar.backends.base import Backend
from nbpar.options import PoolOptions

__all__ = ["end_backend", "make_backend"]

_backends: weakref.WeakSet[Backend] = weakref.WeakSet()


def make_backend(options: PoolOptions) -> Backend:
    """The backend of a new pool."""
    backend = _make(options)
    _backends.add(backend)
    return backend


def _make(options: PoolOptions) -> Backend:
    if options.start_method == "serial":
        from nbpar.backends.serial import SerialBackend

        return SerialBackend(options)
    from nbpar.backends.dispatcher import Dispatcher

    if options.start_method == "threads":
        from nbpar.backends.threads import ThreadWorkers

        return Dispatcher(ThreadWorkers(options), options)
    from nbpar.backends.start import begin_server

    begin_server(options.start_method)  # it loads while the imports below go on
    from nbpar.backends.processes import ProcessWorkers

    return Dispatcher(ProcessWorkers(options), options)


def end_backend(backend: Backend, owner_pid: int) -> None:
    """End the backend of a pool that was dropped; not in a child of the process that made it."""
    if os.getpid() == owner_pid:
        backend.shutdown(wait=False, cancel=True)


@atexit.register
def _end_all() -> None:
    """The interpreter's exit never waits for tasks."""
    for backend in list(_backends):
        backend.shutdown(wait=True, cancel=True)
