"""multiprocessing's contexts, with nbpar's `Pool`: ``get_context("spawn").Pool(4)``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, Unpack

from nbpar.interop.multiprocessing.arguments import PoolKeywords
from nbpar.interop.multiprocessing.pool import Pool
from nbpar.options import usable_cpus

__all__ = ["cpu_count", "get_context"]


def cpu_count() -> int:
    """CPUs that this process may really use: not more than its container has."""
    return usable_cpus()


class _Context:
    """A context of multiprocessing whose pools are nbpar's."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def Pool(  # noqa: N802  # its name there
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Pool:
        """A `Pool` whose workers start in this way."""
        return Pool(processes, initializer, initargs, maxtasksperchild, self._context, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def get_context(method: str | None = None) -> Any:
    """A context of multiprocessing, with nbpar's `Pool`."""
    return _Context(multiprocessing.get_context(method))
