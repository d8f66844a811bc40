"""From nbpar's errors to those that ``concurrent.futures`` raises.

A task's own exception is raised as it is. For what has none, the classes here are both: nbpar's, which say what
happened to which object, and the standard library's, which code that was written for it catches.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from pickle import PicklingError
from typing import Any

from nbpar.errors import NbparError, SerializationError, TaskError, TaskMemoryError, WorkerDiedError
from nbpar.raising import add_note

__all__ = [
    "NotPicklableError",
    "NotRebuiltError",
    "TaskOutOfMemoryError",
    "as_raised",
    "broken",
    "is_deadly",
    "of_task",
]

BROKEN = "A process in the process pool was terminated abruptly while the future was running or pending."
"""The standard library's own words."""


class NotPicklableError(SerializationError, PicklingError):
    """An argument cannot be sent to a worker; the message names the object and the path to it."""


class NotRebuiltError(SerializationError, BrokenProcessPool):
    """What was sent could not be unpickled where it came to.

    The standard library's pool breaks of that, so this is a ``BrokenProcessPool``; nbpar's goes on.
    """


class TaskOutOfMemoryError(TaskMemoryError, BrokenProcessPool):
    """A task's worker was stopped for its memory. Only this task has failed: the pool goes on."""


def of_task(error: TaskError, where: str, *, is_remote: bool) -> BaseException:
    """What a future raises for a failed task that leaves the pool in order.

    Parameters
    ----------
    error : TaskError
        What nbpar says of it.
    where : str
        The call in words, for the note on the exception.
    is_remote : bool
        Whether it was raised in another process.
    """
    cause = error.__cause__
    if type(error) is TaskError and cause is not None:
        if is_remote and cause.__cause__ is None:
            quoted: Any = _quoted(error.remote_traceback)  # typeshed knows another class
            cause.__cause__ = _RemoteTraceback(quoted)
            cause.__traceback__ = None  # its frames are in that text
        add_note(cause, f"nbpar: {where}" + ("" if error.worker_id is None else f", on worker {error.worker_id}"))
        return cause
    if isinstance(error, TaskMemoryError):
        return _as(TaskOutOfMemoryError, error)
    if isinstance(error, SerializationError):
        if error.has_arrived:
            return _as(NotRebuiltError, error)
        if cause is not None:  # what the result's own pickling raised
            add_note(cause, f"nbpar: {error.message}")
            return cause
        return _as(NotPicklableError, error)
    return error


def as_raised(error: SerializationError) -> TaskError:
    """What a call raises at once when its function cannot be sent."""
    return _as(NotPicklableError, error)


def is_deadly(error: BaseException | None) -> bool:
    """Whether the standard library's pool would be broken of it, and so is the executor."""
    if isinstance(error, TaskError):
        return isinstance(error, WorkerDiedError) and not isinstance(error, TaskMemoryError)
    return isinstance(error, NbparError)


def broken(reason: str, cause: BaseException | None) -> BrokenProcessPool:
    """What each future of a broken executor raises, and each call of it."""
    error = BrokenProcessPool(reason)
    error.__cause__ = cause
    return error


def _quoted(text: str) -> str:
    return f'\n"""\n{text}"""'


def _as(kind: type[TaskError], error: TaskError) -> TaskError:
    new = kind(error.message)
    new.__dict__.update(error.__dict__)
    new.__cause__ = error.__cause__
    return new
