"""Which pool runs a call of `Parallel`, and who ends it.

A call with as many jobs as the notebook's own pool has workers, and no options, runs in that one. Others get a pool of
their own, with the options of the notebook's but for those that were given; it stays warm for the next call that asks
for the same. Called by :mod:`nbpar.interop.joblib.backend` in users' threads.

What bounds it: the last `MAX_KEPT` pools are kept, and their workers end after `IDLE_S` without a call. A pool that is
not kept any more lives until its jobs have ended.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from nbpar.backends.surroundings import ModuleWatch
from nbpar.default import default_pool
from nbpar.options import PoolOptions
from nbpar.pool import WorkerPool

__all__ = ["IDLE_S", "POOL_OPTIONS", "pool_for", "shutdown", "start_method_of"]

MAX_KEPT = 3

IDLE_S = 300.0
"""As long as joblib's own workers stay."""

POOL_OPTIONS = frozenset(field.name for field in dataclasses.fields(PoolOptions)) - {"n_workers"}

_NEED_PROCESSES = ("memory_limit", "cpu_ids", "env")


class _Kept(NamedTuple):
    settings: dict[str, Any]
    pool: WorkerPool
    watch: ModuleWatch


_lock = threading.RLock()  # guards the next
_kept: list[_Kept] = []  # the newest last


def start_method_of(options: Mapping[str, Any]) -> str:
    """How workers of a pool with these options exist."""
    return options.get("start_method") or default_pool().start_method


def pool_for(n_workers: int, options: Mapping[str, Any]) -> WorkerPool:
    """A pool of so many workers, with these options of :class:`nbpar.WorkerPool`; it may be warm already.

    Raises
    ------
    OptionsError
        When an option is not allowed.
    """
    own = default_pool()
    settings = {name: getattr(own.options, name) for name in POOL_OPTIONS}
    if own.n_workers == n_workers and _are_same(settings, {**settings, **options}):
        return own
    settings["cpu_ids"] = None
    if settings["idle_timeout"] is None:
        settings["idle_timeout"] = IDLE_S
    if options.get("start_method") in ("threads", "serial"):
        settings.update(dict.fromkeys(_NEED_PROCESSES))
    settings.update(options, n_workers=n_workers)
    with _lock:
        found = next((one for one in _kept if _are_same(one.settings, settings) and not one.pool._closed), None)
        if found is None:
            found = _Kept(settings, WorkerPool(**settings), ModuleWatch())
            found.watch.changed()
        else:
            _kept.remove(found)
            if changed := found.watch.changed():
                found.pool.renew(f"{', '.join(sorted(changed))} changed: the workers were restarted with the new code.")
        _kept.append(found)
        del _kept[:-MAX_KEPT]  # what is not referred to any more ends by itself, once its jobs have
        return found.pool


def _are_same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    try:
        return bool(before == now)
    except Exception:  # noqa: BLE001  # arguments of an initializer may compare in ways of their own, as arrays do
        return False


def shutdown(*, wait: bool) -> None:
    """End all that are kept."""
    with _lock:
        kept, _kept[:] = list(_kept), []
    for one in kept:
        one.pool.shutdown(wait=wait)


def _forget_after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _kept.clear()  # their threads and sockets belong to the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
