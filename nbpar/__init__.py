"""nbpar makes a notebook use every core it has, and shows it happening.

General layout: this module is names only. ``api`` is the functions on the notebook's pool, ``pool`` and ``job`` the
objects behind them, ``engine`` the pure logic, ``backends`` how workers exist, ``wire`` how objects travel, ``worker``
what runs in a worker, ``views`` what is drawn, ``notebook`` the magics. All but the errors loads when it is first used,
so that ``import nbpar`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbpar.errors import (
    CheckpointError,
    InternalError,
    JobCancelledError,
    JobInterrupt,
    NbparError,
    OptionsError,
    PoolClosedError,
    RemoteError,
    SerializationError,
    TaskError,
    TaskMemoryError,
    TaskTimeoutError,
    WorkerDiedError,
    WorkerStartError,
)

if TYPE_CHECKING:
    from nbpar import checkpoint
    from nbpar.api import (
        configure,
        current_task,
        default_pool,
        imap,
        jobs,
        map,  # noqa: A004
        map_async,
        per_worker,
        share,
        shutdown,
        starmap,
        submit,
        track,
    )
    from nbpar.future import TaskFuture
    from nbpar.insights import JobInsights
    from nbpar.job import Job
    from nbpar.notebook import load_ipython_extension, unload_ipython_extension
    from nbpar.pool import WorkerPool
    from nbpar.wire.shared import Shared

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "InternalError",
    "Job",
    "JobCancelledError",
    "JobInsights",
    "JobInterrupt",
    "NbparError",
    "OptionsError",
    "PoolClosedError",
    "RemoteError",
    "SerializationError",
    "Shared",
    "TaskError",
    "TaskFuture",
    "TaskMemoryError",
    "TaskTimeoutError",
    "WorkerDiedError",
    "WorkerPool",
    "WorkerStartError",
    "checkpoint",
    "configure",
    "current_task",
    "default_pool",
    "imap",
    "jobs",
    "load_ipython_extension",
    "map",
    "map_async",
    "per_worker",
    "share",
    "shutdown",
    "starmap",
    "submit",
    "track",
    "unload_ipython_extension",
]

_HOMES = {
    "Job": "nbpar.job",
    "JobInsights": "nbpar.insights",
    "Shared": "nbpar.wire.shared",
    "TaskFuture": "nbpar.future",
    "WorkerPool": "nbpar.pool",
    "load_ipython_extension": "nbpar.notebook",
    "unload_ipython_extension": "nbpar.notebook",
}


_MODULES = frozenset({"checkpoint"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nbpar' has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"nbpar.{name}")
    value = getattr(importlib.import_module(_HOMES.get(name, "nbpar.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
