"""What this worker holds, compared with the pool's `memory_limit` whenever a chunk has ended.

The kernel watches workers while tasks run (:mod:`nbpar.backends.memory`), yet only the worker knows when its task is
over and its arguments are gone. Used by :mod:`nbpar.worker.main`.
"""

from __future__ import annotations

import gc
import os

from nbpar.system import private_bytes
from nbpar.wire.arena import Place
from nbpar.wire.channel import Message
from nbpar.worker.boot import WorkerSetup, return_freed_memory

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
        self.inherited_bytes = self._private() if setup.start_method == "fork" else 0

    def too_many_bytes(self, pending: Message) -> int | None:
        """How much it holds if that is more than the limit; None else.

        Parameters
        ----------
        pending : Message
            The results, which are not sent yet: what travels in the message itself is gone in a moment.
        """
        if self.limit_bytes is None or self._held(pending) <= self.limit_bytes:
            return None
        gc.collect()
        return_freed_memory()  # what the allocator keeps for the next task is not what the task has left behind
        held_bytes = self._held(pending)
        return held_bytes if held_bytes > self.limit_bytes else None

    def _held(self, pending: Message) -> int:
        in_message = len(pending.payload)
        in_message += sum(memoryview(one).nbytes for one in pending.buffers if not isinstance(one, Place))
        return self._private() - self.inherited_bytes - in_message

    @staticmethod
    def _private() -> int:
        return private_bytes(os.getpid()) or 0
