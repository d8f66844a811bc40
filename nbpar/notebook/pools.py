"""The workers that the magics use: the notebook's pool, and one more for ``-j N``.

Owns that one more pool: like the notebook's in all but the number of workers, kept warm for the next ``-j N``, replaced
by the next other N. Called by :mod:`nbpar.notebook.magics` and :mod:`nbpar.notebook.status`, in the main thread only.
"""

from __future__ import annotations

from dataclasses import fields, replace

from nbpar.api import default_pool, shutdown
from nbpar.backends.surroundings import ModuleWatch
from nbpar.options import PoolOptions
from nbpar.pool import WorkerPool

__all__ = ["all_pools", "pool_of", "restart_pools", "shutdown_pools"]


class _Extra:
    """A pool of another size, and what has to be watched for it."""

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self.pool = WorkerPool(**{field.name: getattr(options, field.name) for field in fields(options)})
        self._watch = ModuleWatch()
        self._watch.changed()

    def renew(self) -> None:
        """Restart the workers when a module of the user's changed."""
        if changed := self._watch.changed():
            self.pool.renew(f"{', '.join(sorted(changed))} changed: the workers were restarted with the new code.")


_extra: _Extra | None = None


def pool_of(n_workers: int | None) -> WorkerPool:
    """The pool for ``-j n_workers``; the notebook's own for None and for its own number.

    Raises
    ------
    OptionsError
        When the notebook's kind of pool cannot have so many workers.
    """
    global _extra
    pool = default_pool()
    if n_workers is None or n_workers == pool.n_workers:
        return pool
    # CPUs that were given to so many workers say nothing about another number of them.
    options = replace(pool.options, n_workers=n_workers, cpu_ids=None)
    if _extra is None or _extra.options != options:
        made = _Extra(options)
        if _extra is not None:
            _extra.pool.shutdown(wait=False)
        _extra = made
    else:
        _extra.renew()
    return _extra.pool


def all_pools() -> list[WorkerPool]:
    """The notebook's pool, then that of the last ``-j N`` if there is one."""
    return [default_pool()] + ([] if _extra is None else [_extra.pool])


def restart_pools() -> None:
    """Replace all workers; running tasks end first."""
    for pool in all_pools():
        pool.restart()


def shutdown_pools(*, cancel: bool = False) -> None:
    """End all workers; the next call starts new ones."""
    global _extra
    if _extra is not None:
        _extra.pool.shutdown(wait=False, cancel=cancel)
        _extra = None
    shutdown(wait=False, cancel=cancel)
