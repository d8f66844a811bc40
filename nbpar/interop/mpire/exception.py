"""The exceptions of MPIRE's that programs name: those by which a running task is stopped.

MPIRE raises them in a task of which nobody wants the result any more: another one has failed, or the pool is ended. A
program that catches them there, to clean up, catches what nbpar raises instead. Here they are no ``Exception``, so a
plain ``except Exception`` in a task does not keep it from being stopped.

Examples
--------
>>> from nbpar.interop.mpire.exception import InterruptWorker, StopWorker
>>> issubclass(StopWorker, Exception)
False
"""

from __future__ import annotations

from nbpar.worker.context import TaskInterrupt

__all__ = ["InterruptWorker", "StopWorker"]

StopWorker = InterruptWorker = TaskInterrupt
