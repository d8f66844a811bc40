"""Large arrays in a function's closure and globals: in shared memory once, for all workers and for the next job.

A function is pickled afresh for each job, its large buffers beside the pickle. They are kept in one piece of memory,
which workers map copy-on-write. When the next job's pickle is the same, its buffers are compared with that memory, and
only written anew when something has changed in them: comparing is exact and ten times as fast as hashing. Called by
:mod:`nbpar.backends.shipping` in users' threads; owned by :mod:`nbpar.backends.processes`.

Bounds: the last `MAX_KEPT` functions, together an eighth of the memory; what running jobs need lives besides.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from nbpar.wire.memory import can_pass_memory, usable_memory_bytes
from nbpar.wire.shared import SharedBuffers

__all__ = ["CapturedBuffers"]

MAX_KEPT = 4


class CapturedBuffers:
    """The buffers of the last functions of one pool."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, SharedBuffers] = OrderedDict()  # by digest of the pickle, the newest last
        self._lock = threading.Lock()  # guards the table, but not the work on what is in it
        self._limit_bytes = 0

    def put(self, digest: str, buffers: Sequence[memoryview]) -> SharedBuffers | None:
        """The memory that holds these buffers, which belong to the pickle with this digest.

        Returns
        -------
        SharedBuffers or None
            None where the system gives no memory for them: then they are sent to each worker.
        """
        if not can_pass_memory():
            return None
        with self._lock:
            known = self._kept.pop(digest, None)
        if known is None or not known.holds(buffers):
            known = None  # let go before as much is asked for
            try:
                known = SharedBuffers(buffers)
            except OSError:
                return None
        self._keep(digest, known)
        return known

    def _keep(self, digest: str, one: SharedBuffers) -> None:
        with self._lock:
            self._limit_bytes = self._limit_bytes or usable_memory_bytes() // 8
            self._kept[digest] = one
            while (
                len(self._kept) > MAX_KEPT or sum(kept.size_bytes for kept in self._kept.values()) > self._limit_bytes
            ):
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()
