"""Every error nbpar raises of its own, in one tree under :class:`NbparError`.

Owns the classes and their one-line messages; any layer raises them. A task's own exception is *not* wrapped when it is
raised: the user gets the type the task raised, with a note that names the item. The classes here stand for what has no
exception of its own (a dead worker, a timeout, an object that cannot travel) and for outcomes that are returned
instead of raised (``on_error="return"``, ``job.errors``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CheckError",
    "CheckpointError",
    "InternalError",
    "JobCancelledError",
    "JobInterrupt",
    "LostUpdateError",
    "NbparError",
    "OptionsError",
    "PoolClosedError",
    "RemoteError",
    "SerializationError",
    "TaskError",
    "TaskMemoryError",
    "TaskTimeoutError",
    "WorkerDiedError",
    "WorkerStartError",
]


class NbparError(Exception):
    """Root of all errors that nbpar raises of its own.

    Attributes
    ----------
    results : sequence
        Where it ended a job: what had ended of it by then, in the order of the input. A user's own exception gets this
        as well, where its class allows it.
    """

    results: Sequence[Any] = ()


class OptionsError(NbparError, ValueError):
    """An argument is not allowed; raised before any work starts.

    Parameters
    ----------
    option : str
        Name of the argument, as the caller wrote it.
    value : object
        What came.
    allowed : str
        What is allowed, in words.
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(option, value, allowed)
        self.option = option
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} is not allowed; allowed: {self.allowed}"


class CheckpointError(NbparError):
    """A file cannot serve as a job's checkpoint; raised before any work starts.

    Attributes
    ----------
    path : str
        The file, which is as it was.
    problem : str
        What is the matter with it.
    """

    def __init__(self, path: str, problem: str, *, was_there: bool = True) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem
        self._was_there = was_there

    def __str__(self) -> str:
        left = ". It was left as it is; name another file, or remove this one" if self._was_there else ""
        return f"{self.path} cannot be the checkpoint: {self.problem}{left}"


class TaskError(NbparError):
    """One task failed. ``__cause__`` is the exception the task raised, if it raised one.

    Attributes
    ----------
    index : int
        Position of the item in the input.
    item_repr : str
        Short repr of the item.
    worker_id : int or None
        The worker that ran the task; None when it never reached one.
    message : str
        What happened, in one line.
    remote_traceback : str
        The traceback from the worker as text; empty when there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int = -1,
        item_repr: str = "",
        worker_id: int | None = None,
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.item_repr = item_repr
        self.worker_id = worker_id
        self.remote_traceback = remote_traceback

    @property
    def where(self) -> str:
        """The item in a form fit for a sentence: ``item 3 = {'n': 0}``."""
        return f"item {self.index} = {self.item_repr}" if self.item_repr else f"item {self.index}"

    def __str__(self) -> str:
        return self.message if self.index < 0 else f"{self.where}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__)


def _rebuild(cls: type[TaskError], state: dict[str, Any]) -> TaskError:
    """Unpickle a :class:`TaskError` of any subclass, whatever its signature."""
    error = cls.__new__(cls, state["message"])
    error.args = (state["message"],)
    error.__dict__.update(state)
    return error


class WorkerDiedError(TaskError):
    """A worker process ended while it ran this task.

    Attributes
    ----------
    exit_code : int or None
        The exit code, or minus the signal's number; None when it could not be learnt.
    pid : int or None
        The process that ended.
    n_deaths : int
        Workers that have died of this task, this one included. The third is the last, whatever the job's ``retries``.
    """

    exit_code: int | None = None
    pid: int | None = None
    n_deaths: int = 1


class TaskMemoryError(WorkerDiedError):
    """A task's worker was stopped by nbpar: beyond the pool's `memory_limit`, or the machine had nearly nothing left.

    Attributes
    ----------
    used_bytes : int
        What the worker held.
    """

    used_bytes: int = 0


class TaskTimeoutError(TaskError, TimeoutError):
    """A task ran longer than the job's ``timeout`` and was stopped.

    Attributes
    ----------
    part : str
        The part of it that took longer than a limit of its own: ``"worker_init"`` or ``"worker_exit"``; else empty.
    """

    part: str = ""


class SerializationError(TaskError):
    """An argument, a function or a result could not travel; the message names the object and the path to it.

    Attributes
    ----------
    has_arrived : bool
        Whether it was sent, and could not be rebuilt where it came to.
    of_result : bool
        Whether the task has run, and it is its result that cannot come back.
    """

    has_arrived: bool = False
    of_result: bool = False


class RemoteError(TaskError):
    """A task raised an exception that could not be rebuilt here.

    Attributes
    ----------
    type_name : str
        Qualified name of the original exception's type.
    """

    type_name: str = ""


class JobCancelledError(NbparError):
    """The job was cancelled; what had finished is in its ``results``. Shown as one line."""

    def _render_traceback_(self) -> Sequence[str]:
        """One line in IPython instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class PoolClosedError(NbparError, RuntimeError):
    """The pool was shut down and takes no more jobs."""


class WorkerStartError(NbparError, RuntimeError):
    """Workers could not be started, or their ``worker_init`` failed (then ``__cause__`` is its exception)."""


class LostUpdateError(NbparError):
    """Tasks of a loop changed what the notebook has as well: in their copies, where the change would be lost.

    Attributes
    ----------
    names : tuple of str
        What was changed, as in ``cache``, ``Sim.count`` or ``the item``.

    Examples
    --------
    >>> print(LostUpdateError(("cache",)))
    `cache` was changed by tasks in copies of their own, where the change would be lost
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        named = [name if " " in name else f"`{name}`" for name in self.names]
        if len(named) > 1:
            named[-2:] = [f"{named[-2]} and {named[-1]}"]
        was, change_is = ("was", "the change") if len(named) == len(self.names) == 1 else ("were", "the changes")
        return f"{', '.join(named)} {was} changed by tasks in copies of their own, where {change_is} would be lost"


class CheckError(NbparError):
    """``--check``: an item does not give serially what it gave in a worker.

    Attributes
    ----------
    index : int
        Position of the item in the input.
    """

    index: int = -1

    def _render_traceback_(self) -> Sequence[str]:
        """The message alone in IPython: no line of the user's has raised this."""
        return [f"{type(self).__name__}: {self}"]


class InternalError(NbparError):
    """A state that should never be; please report it with the message."""


class JobInterrupt(KeyboardInterrupt):
    """The stop button or Ctrl-C ended a job; shown as one line. Its ``results`` are what had ended by then.

    A :class:`KeyboardInterrupt`, so that the cells after this one do not run and ``except Exception`` does not
    swallow it.
    """

    results: Sequence[Any] = ()

    def _render_traceback_(self) -> Sequence[str]:
        """One line in IPython instead of a traceback."""
        return [str(self)]
