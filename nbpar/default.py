"""The notebook's own pool: made at the first call or by `%load_ext nbpar`, warm between cells, replaced by `configure`.

Called by :mod:`nbpar.api`, which makes these functions public, and by :mod:`nbpar.notebook`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nbpar.backends.surroundings import ModuleWatch
from nbpar.options import PoolOptions, Serializer, StartMethod, default_start_method, environment
from nbpar.pool import WorkerPool
from nbpar.worker.context import current_context

__all__ = ["configure", "default_pool", "shutdown"]

_lock = threading.RLock()  # guards the three below
_pool: WorkerPool | None = None
_settings: dict[str, Any] = {}
_watch: ModuleWatch | None = None


def default_pool() -> WorkerPool:
    """The notebook's pool; made when it is first asked for.

    Inside a worker it is a serial one, so that a map in a task does not start processes of its own.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(start_method="serial")
    >>> nbpar.default_pool().n_workers
    1
    """
    global _pool, _watch
    context = current_context()
    if context is not None:
        nested: WorkerPool | None = getattr(context, "nested", None)
        if nested is None:
            nested = context.nested = WorkerPool(start_method="serial")
        return nested
    with _lock:
        if _pool is None:
            _pool = WorkerPool(**_settings)
            _pool.successor = default_pool
            _watch = ModuleWatch()
            _watch.changed()
        elif _watch is not None and (changed := _watch.changed()):
            _pool.renew(f"{', '.join(sorted(changed))} changed: the workers were restarted with the new code.")
        return _pool


def configure(
    *,
    n_workers: int | None = None,
    start_method: StartMethod | None = None,
    worker_init: Callable[[], Any] | None = None,
    worker_exit: Callable[[], Any] | None = None,
    tasks_per_worker: int | None = None,
    memory_limit: int | str | None = None,
    cpu_ids: Sequence[int | Sequence[int]] | None = None,
    threads_per_worker: int | Literal["auto"] = "auto",
    serializer: Serializer = "auto",
    env: Mapping[str, str] | None = None,
    idle_timeout: float | None = None,
) -> None:
    """Set the options of the notebook's pool; what is not given gets its default.

    Takes the options of :class:`nbpar.WorkerPool`, but `keep_globals`: in the notebook's pool each job sees the names
    as they are at its call, which loops count on. A pool that exists is ended once its jobs have; the next call makes
    the new one.

    Raises
    ------
    OptionsError
        When an option is not allowed; then nothing changes.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> nbpar.map(str.upper, "ab")
    ['A', 'B']
    >>> nbpar.configure(n_workers=0)
    Traceback (most recent call last):
    ...
    nbpar.errors.OptionsError: n_workers=0 is not allowed; allowed: a whole number, 1 or more, or None (the CPUs this \
process may use)
    """
    __tracebackhide__ = True  # a verbose traceback would show what is in `env`
    settings: dict[str, Any] = {
        "n_workers": n_workers,
        "start_method": default_start_method() if start_method is None else start_method,
        "worker_init": worker_init,
        "worker_exit": worker_exit,
        "tasks_per_worker": tasks_per_worker,
        "memory_limit": memory_limit,
        "cpu_ids": cpu_ids,
        "threads_per_worker": threads_per_worker,
        "serializer": serializer,
        "env": environment(env),
        "idle_timeout": idle_timeout,
    }
    PoolOptions(**settings)  # checked before anything changes
    global _settings
    with _lock:
        _settings = settings
    _drop_pool(wait=False, cancel=False)


def shutdown(wait: bool = True, *, cancel: bool = False) -> None:
    """End the notebook's pool; the next call makes another one.

    Parameters
    ----------
    wait : bool
        Return when its jobs have ended and nothing is left of its workers.
    cancel : bool
        Cancel its jobs instead of letting them end.

    Examples
    --------
    >>> import nbpar
    >>> nbpar.shutdown()
    """
    _drop_pool(wait=wait, cancel=cancel)


def _drop_pool(*, wait: bool, cancel: bool) -> None:
    global _pool
    with _lock:
        pool, _pool = _pool, None
    # Not under the lock: a done callback that calls nbpar would wait for it, and this for the callback.
    if pool is not None:
        pool.shutdown(wait=wait, cancel=cancel)


def _forget_after_fork() -> None:
    global _pool, _lock
    _pool = None  # its thread and its sockets belong to the parent
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
