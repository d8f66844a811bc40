"""nbpar's executor under the name and with the private attributes that CPython's tests look at.

The attributes are given from public ones; what they cannot stand for is on the list in
:mod:`tests.interop.test_cpython_futures`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from nbpar.interop.futures import Executor
from tests.helpers import alive, until

__all__ = ["ProcessPoolExecutor"]


class _Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid

    def terminate(self) -> None:
        psutil.Process(self.pid).terminate()

    def join(self) -> None:
        until(lambda: not alive(self.pid))


class _Processes(Mapping[int, _Process]):
    """The workers that are up, and those that were when last looked at."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._pool = executor._crew.pool
        self._known: dict[int, _Process] = {}

    def _look(self) -> dict[int, _Process]:
        self._known.update((pid, _Process(pid)) for pid in self._pool.pids().values())
        return self._known

    def __getitem__(self, pid: int) -> _Process:
        return self._look()[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._look()))

    def __len__(self) -> int:
        return len(self._look())


class _NoQueue:
    """nbpar has no queue with a thread that feeds it."""

    def join_thread(self) -> None:
        pass


class ProcessPoolExecutor(Executor):
    """The class that takes the place of the standard library's."""

    _call_queue = _NoQueue()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processes = _Processes(self)
        self._is_first = True

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future = super().submit(fn, *args, **kwargs)
        if self._is_first:  # the standard library has started processes by now, and given them calls
            backend: Any = self._crew.pool._backend
            until(lambda: backend._controller.scheduler.has_all_workers or self._crew.reason)
            self._processes._look()
            self._is_first = False
        return future

    @property
    def _broken(self) -> str | bool:
        return self._crew.reason or False

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        backend: Any = self._crew.pool._backend
        thread: threading.Thread = backend._thread
        return thread
