"""MPIRE's interface: change ``from mpire import WorkerPool`` to ``from nbpar.interop.mpire import WorkerPool``.

A program that is not to be changed at all runs after ``sys.modules["mpire"] = nbpar.interop.mpire``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbpar.interop.mpire.alias import install

if TYPE_CHECKING:
    from nbpar.interop.mpire.params import cpu_count
    from nbpar.interop.mpire.pool import WorkerPool

__all__ = ["WorkerPool", "cpu_count"]

# Loaded when asked for: a worker imports this package for what runs there, and needs no pool.
_HOMES = {"WorkerPool": "pool", "cpu_count": "params"}

install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
