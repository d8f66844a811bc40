"""Which inputs of a pool are still being read: its workers end when all is read, and what was read has ended.

Owns :class:`Reading`, which a pool has one of. The user's threads begin and wait, the readers' threads end.
"""

from __future__ import annotations

import threading

from nbpar.eager import Reader
from nbpar.pool import WorkerPool

__all__ = ["Reading"]


class Reading:
    """The inputs of one pool.

    Parameters
    ----------
    workers : WorkerPool
        Shut down after `close`, once all was read.
    """

    def __init__(self, workers: WorkerPool) -> None:
        self._workers = workers
        self._readers: list[Reader] = []
        self._is_closing = False
        self._lock = threading.RLock()  # guards the two above

    def began(self, reader: Reader) -> None:
        """An input may still be read."""
        with self._lock:
            if not reader.is_read.is_set():
                self._readers.append(reader)

    def ended(self, reader: Reader) -> None:
        """An input was read; called by whatever thread did that."""
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)
            is_last = self._is_closing and not self._readers
        if is_last:
            self._workers.shutdown(wait=False)

    def close(self) -> None:
        """End the workers when all is read, and what was read has ended."""
        with self._lock:
            self._is_closing = True
            if self._readers:
                return
        self._workers.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until all is read, however many results nobody takes."""
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.run_freely(drop=False)
        for reader in readers:
            reader.is_read.wait()
