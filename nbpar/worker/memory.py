"""What this worker holds, compared with the pool's `memory_limit` whenever a chunk has ended.

The kernel watches workers while tasks run (:mod:`nbpar.backends.memory`), yet only the worker knows when its task is
over and its arguments are gone. Used by :mod:`nbpar.worker.main`.
"""

from __future__ import annotations

import gc
import os

from nbpar.system import private_bytes
from nbpar.wire.memory import return_freed_memory
from nbpar.worker.boot import WorkerSetup

__all__ = ["OwnMemory"]


class OwnMemory:
    """The memory of this process.

    Attributes
    ----------
    limit_bytes : int or None
        The pool's limit.
    inherited_bytes : int
        What the process was forked with: pages that are the kernel's as well. What it takes on top is its own.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.limit_bytes = setup.memory_limit_bytes
        self.inherited_bytes = 0
        if setup.start_method == "fork":
            return_freed_memory()  # else it is given back later, and counts then against what tasks leave
            self.inherited_bytes = self._private()

    def too_many_bytes(self, pending_bytes: int) -> int | None:
        """How much it holds if that is more than the limit; None else.

        Parameters
        ----------
        pending_bytes : int
            What is gone in a moment, when the results have been sent.
        """
        most_bytes = (self.limit_bytes or 0) + self.inherited_bytes + pending_bytes
        if self.limit_bytes is None or self._private() <= most_bytes:
            return None
        gc.collect()
        return_freed_memory()  # what the allocator keeps for the next task is not what the task has left behind
        held_bytes = self._private()
        return held_bytes - self.inherited_bytes - pending_bytes if held_bytes > most_bytes else None

    @staticmethod
    def _private() -> int:
        return private_bytes(os.getpid()) or 0
