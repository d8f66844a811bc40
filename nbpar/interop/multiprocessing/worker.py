"""What pools of this door run inside their workers, and nothing else: workers import it.

:class:`Begin` is such a pool's ``worker_init``, :class:`End` its ``worker_exit``, :class:`Batch` calls a function for
the items of one of multiprocessing's chunks.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nbpar.worker.context import current_context

__all__ = ["Batch", "Begin", "End", "Inherited"]


_inherited: dict[int, tuple[Any, ...]] = {}  # of the pools that fork; an entry ends with its pool
_tokens = itertools.count()


@dataclass(frozen=True)
class Inherited:
    """Arguments that come with a fork instead of being sent: they may be what cannot be pickled, locks above all."""

    token: int

    @classmethod
    def of(cls, args: tuple[Any, ...]) -> Inherited:
        """Keep them until :meth:`forget`."""
        token = next(_tokens)
        _inherited[token] = args
        return cls(token)

    def forget(self) -> None:
        """No worker will be forked for them any more."""
        _inherited.pop(self.token, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(_inherited[self.token])


@dataclass(frozen=True)
class Begin:
    """Names the worker as multiprocessing would, and runs the user's initializer.

    Parameters
    ----------
    initializer : callable or None
        Called with `initargs`.
    is_process : bool
        The worker is a process of its own.
    """

    initializer: Callable[..., Any] | None
    initargs: Iterable[Any]
    is_process: bool

    def __call__(self) -> None:
        """What the worker begins with."""
        context = current_context()
        if self.is_process and context is not None:
            from multiprocessing.process import current_process

            # Programs tell their workers apart by these two; logging's %(processName)s is the first.
            process: Any = current_process()
            process.name, process._identity = f"PoolWorker-{context.worker_id + 1}", (context.worker_id + 1,)
        if self.initializer is not None:
            self.initializer(*self.initargs)


@dataclass(frozen=True)
class End:
    """Runs the user's hook, and then what multiprocessing does when a process ends: it flushes queues."""

    hook: Callable[[], Any] | None

    def __call__(self) -> None:
        """What the worker ends with."""
        try:
            if self.hook is not None:
                self.hook()
        finally:
            if (util := sys.modules.get("multiprocessing.util")) is not None:
                util._run_finalizers(0)
                util._run_finalizers()


@dataclass(frozen=True)
class Batch:
    """Calls a function for several items: where a worker's life is counted in chunks, a chunk has to be one task."""

    function: Callable[..., Any]
    star: bool

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """The values of one chunk."""
        return list((itertools.starmap if self.star else map)(self.function, items))
