"""What runs in the workers of the soak: tasks that do as their script says, and write it into their job's book."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import nbpar
from nbpar.errors import SerializationError, TaskTimeoutError, WorkerDiedError
from tests.soak.books import BEGUN, DIES, ENDED, FAILED, note

__all__ = ["ACTS", "DEADLY", "BadArgument", "OutOfHandError", "Spec", "listen", "make_task", "perform"]

LONG_S = 30.0
"""What a task sleeps that is to be stopped by its job's time limit."""

TIMEOUT_S = 1.5


class OutOfHandError(BaseException):
    """No ``Exception``: handlers of everyday code let it pass."""


class BadArgument:
    """Cannot be rebuilt in a worker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ("argument",)


class BadResult:
    """Cannot be rebuilt in the kernel."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ("result",)


def _refuse(what: str) -> None:
    raise ValueError(f"this {what} does not want to be rebuilt")


def _raise(error: BaseException) -> None:
    raise error


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(LONG_S)


# What a task may do instead of its work, and the error that it then has. What returns something returns that.
ACTS: dict[str, tuple[Callable[[], Any], type[BaseException]]] = {
    "raise": (lambda: _raise(ValueError("as the script says")), ValueError),
    "stop": (lambda: _raise(StopIteration()), StopIteration),
    "exit": (lambda: _raise(SystemExit(4)), SystemExit),
    "interrupt": (lambda: _raise(KeyboardInterrupt()), KeyboardInterrupt),
    "base": (lambda: _raise(OutOfHandError()), OutOfHandError),
    "unpicklable": (lambda: (letter for letter in ""), SerializationError),
    "bad result": (BadResult, SerializationError),
    "sleep": (lambda: time.sleep(LONG_S), TaskTimeoutError),
    "exit 0": (lambda: os._exit(0), WorkerDiedError),
    "exit 3": (lambda: os._exit(3), WorkerDiedError),
    "kill": (lambda: _signal(signal.SIGKILL), WorkerDiedError),
    "terminate": (lambda: _signal(signal.SIGTERM), WorkerDiedError),
    "abort": (os.abort, WorkerDiedError),
    "crash": (lambda: ctypes.string_at(0), WorkerDiedError),
}

DEADLY = frozenset(name for name, (_, error) in ACTS.items() if error is WorkerDiedError)
SPOILT = frozenset(("unpicklable", "bad result"))  # the task ends well, and its result fails


@dataclass(frozen=True)
class Spec:
    """What the tasks of one job do.

    Attributes
    ----------
    book : str
        The file that they write into.
    salt : int
        Makes values differ between jobs.
    script : dict
        By index of a task: what it does instead, and up to which attempt.
    pause_s : float
        What each task sleeps.
    """

    book: str
    salt: int
    script: dict[int, tuple[str, int]] = field(default_factory=dict)
    pause_s: float = 0.0

    def number(self, index: int) -> int:
        """What the task `index` computes."""
        return (index * 0x9E3779B1 ^ self.salt) & 0xFFFFFFFF

    def array(self, index: int, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """An array that only this task of this job has."""
        return np.arange(n, dtype=np.int64) + self.number(index)


def perform(spec: Spec, index: int, payload: Any = None) -> tuple[int, Any]:
    """A task: write that it begins, do as the script says, write how it ended.

    Returns
    -------
    tuple
        The index, and a number; for an array as `payload`, an array.
    """
    attempt = nbpar.current_task().attempt
    note(spec.book, BEGUN, index, attempt)
    try:
        act, until = spec.script.get(index, ("", 0))
        result: Any = None
        if attempt <= until:
            if act in DEADLY:
                note(spec.book, DIES, index, attempt)
            result = ACTS[act][0]()
        if spec.pause_s:
            time.sleep(spec.pause_s)
        if result is None:
            result = _result(spec, index, payload)
    except BaseException:
        note(spec.book, FAILED, index, attempt)
        raise
    note(spec.book, FAILED if attempt <= until and act in SPOILT else ENDED, index, attempt)
    return index, result


def _result(spec: Spec, index: int, payload: Any) -> Any:
    if payload is None:
        return spec.number(index)
    if isinstance(payload, int):  # what came with the item must be the item's
        return payload ^ index ^ spec.number(index)
    if not np.array_equal(payload, spec.array(index, len(payload))):
        raise AssertionError(f"task {index} was called with the array of another")
    payload *= 2  # arguments are the task's own to write to
    return payload


def make_task(spec: Spec) -> Callable[..., tuple[int, Any]]:
    """A function of the kind that a notebook has: it goes to the workers by value."""

    def task(index: int, payload: Any = None) -> tuple[int, Any]:
        return perform(spec, index, payload)

    return task


def listen(folder: str) -> None:
    """Have a worker write all its stacks into a file when it gets SIGUSR1, and not when it crashes; a `worker_init`."""
    file = Path(folder, f"stack-{os.getpid()}").open("w", encoding="utf-8")  # noqa: SIM115  # the worker's, to its end
    faulthandler.register(signal.SIGUSR1, file=file)
    faulthandler.disable()


def ask_stacks(folder: str, pids: list[int], within_s: float = 2.0) -> str:
    """The stacks of workers that listen."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    time.sleep(within_s)  # a worker that hangs in C never writes: there is no state to wait for
    found = [(pid, Path(folder, f"stack-{pid}")) for pid in pids]
    return "\n".join(f"--- worker {pid}\n{file.read_text()}" for pid, file in found if file.exists())
