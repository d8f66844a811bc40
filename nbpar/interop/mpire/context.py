"""MPIRE's ``mpire.context``, as far as programs use it: what the system offers, and where a pool's locks come from.

Called by users, and by :mod:`nbpar.interop.mpire.base` for ``pool.ctx``.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext

from nbpar.options import default_start_method

__all__ = ["DEFAULT_START_METHOD", "FORK_AVAILABLE", "RUNNING_MACOS", "RUNNING_WINDOWS", "context_of"]

RUNNING_WINDOWS = sys.platform == "win32"
RUNNING_MACOS = sys.platform == "darwin"

FORK_AVAILABLE = "fork" in multiprocessing.get_all_start_methods()

DEFAULT_START_METHOD: str = default_start_method()
"""Of a pool that is given none: nbpar's own."""


def context_of(start_method: str | None) -> BaseContext:
    """Where to make locks, events, queues and shared values for the workers of a pool.

    Parameters
    ----------
    start_method : {"fork", "forkserver", "spawn", "threading"}, optional
        Of the pool. Threads use those of processes as well.

    Examples
    --------
    >>> context_of("spawn").get_start_method()
    'spawn'
    >>> context_of("threading").Value("i", 3).value
    3
    """
    return multiprocessing.get_context(None if start_method == "threading" else start_method or DEFAULT_START_METHOD)
