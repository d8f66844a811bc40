"""What is known of a job's pool and surroundings, for advice: :class:`PoolLife` gives the facts of each job.

Owned by :class:`nbpar.pool.WorkerPool`. A job asks when somebody first looks at it, so that short ones pay nothing.

Bounds: the last `MAX_LIVES` pools that had a job are remembered, each with three numbers.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable

from nbpar.engine.snapshot import Facts
from nbpar.options import JobOptions, PoolOptions, usable_cpus
from nbpar.wire.memory import usable_memory_bytes

__all__ = ["PoolLife"]

MAX_LIVES = 64

SHORT_JOBS = 2
"""A pool that had more jobs was worth its start."""

RECENT_S = 60.0


class _Life:
    """One pool since its first job."""

    __slots__ = ("begin_s", "is_over", "n_jobs")

    def __init__(self) -> None:
        self.begin_s = time.monotonic()
        self.n_jobs = 0
        self.is_over = False


_lives: tuple[_Life, ...] = ()  # replaced as a whole: any thread may go through it, and a fork needs no lock


class PoolLife:
    """How long a pool lives and what it is used for.

    Parameters
    ----------
    options : PoolOptions
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._life: _Life | None = None
        self._end: Callable[[], object] | None = None

    def began(self, options: JobOptions) -> Callable[[], Facts]:
        """A job began; what gives its facts."""
        global _lives
        life = self._life
        if life is None:
            life = self._life = _Life()
            _lives = (*_lives[1 - MAX_LIVES :], life)
            self._end = weakref.finalize(self, setattr, life, "is_over", True)  # also of a pool that is dropped
        life.n_jobs += 1
        pool_options, begin_s = self._options, time.monotonic()
        return lambda: _facts(pool_options, options.chunk_size, life, begin_s)

    def over(self) -> None:
        """The pool was shut down."""
        if self._end is not None:
            self._end()


def _facts(options: PoolOptions, chunk_size: int | None, life: _Life, begin_s: float) -> Facts:
    has_processes = options.start_method not in ("threads", "serial")
    n_short = sum(
        one is life or (one.is_over and 0 <= begin_s - one.begin_s <= RECENT_S)
        for one in _lives
        if one.n_jobs <= SHORT_JOBS
    )
    usable_bytes = None
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows, or a system that does not tell
        usable_bytes = usable_memory_bytes()
    return Facts(
        start_method=options.start_method,
        n_cpus=usable_cpus(),
        chunk_size=chunk_size,
        blas_threads=options.threads if has_processes else None,
        memory_limit_bytes=options.memory_limit_bytes,
        n_short_pools=n_short,
        usable_memory_bytes=usable_bytes,
    )
