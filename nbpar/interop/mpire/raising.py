"""What MPIRE's users get raised: its types of exceptions, with what nbpar knows of the failure.

Called by :mod:`nbpar.interop.mpire.maps`, :mod:`nbpar.interop.mpire.shift` and
:mod:`nbpar.interop.mpire.async_result`, in the kernel.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from nbpar.errors import TaskError, TaskTimeoutError, WorkerDiedError
from nbpar.job import Job
from nbpar.raising import as_raised, carry_results

__all__ = ["NO_LIMITS", "Limits", "WorkerTraceback", "as_mpire", "task_error_of"]


class WorkerTraceback(Exception):  # noqa: N818  # a text to be shown: nobody catches it
    """The cause of a task's exception: worker, arguments and traceback, as text.

    Examples
    --------
    >>> print(WorkerTraceback("Exception occurred in Worker-0"))
    Exception occurred in Worker-0
    """


class Limits(NamedTuple):
    """How long things may take, in seconds; None for as long as they like."""

    task_s: float | None = None
    init_s: float | None = None
    exit_s: float | None = None


NO_LIMITS = Limits()


def task_error_of(job: Job[Any], raised: BaseException) -> BaseException:
    """What a job knows of an exception that it raised: the :class:`~nbpar.errors.TaskError`, if it is of a task."""
    for error in job.errors:
        if error is raised or error.__cause__ is raised:
            return error
    return raised


def as_mpire(error: BaseException, limits: Limits, args: str | None = None) -> BaseException:
    """The exception that MPIRE raises in the place of nbpar's.

    * A task's own exception stays as it is. Its cause is the traceback in the worker as text; a cause that it had is
      the cause of that.
    * A dead worker is a RuntimeError, and a timeout a TimeoutError, with MPIRE's words; the cause is nbpar's own error.
    * All others (what cannot be pickled, an exception that cannot be rebuilt) are nbpar's errors, which say more.

    Parameters
    ----------
    error : BaseException
        What a job or a future failed with; a :class:`~nbpar.errors.TaskError` where there is one.
    limits : Limits
        For the words of a timeout.
    args : str, optional
        The arguments of a call that is no item of a map.

    Examples
    --------
    >>> from nbpar.errors import WorkerDiedError
    >>> as_mpire(WorkerDiedError("it ended with exit code 1", index=3, item_repr="7", worker_id=0), Limits())
    RuntimeError('Worker-0 died unexpectedly: item 3 = 7: it ended with exit code 1')
    """
    raised: BaseException
    why: object = error
    if args is not None and isinstance(error, TaskError):
        why, error.item_repr = error.message, args
    if isinstance(error, WorkerDiedError):
        raised = RuntimeError(f"Worker-{error.worker_id} died unexpectedly: {why}")
    elif isinstance(error, TaskTimeoutError):
        limit_s = {"worker_init": limits.init_s, "worker_exit": limits.exit_s}.get(error.part, limits.task_s)
        raised = TimeoutError(f"Worker-{error.worker_id} {error.part or 'task'} timed out (timeout={limit_s}): {why}")
    elif type(error) is TaskError and error.__cause__ is not None:
        raised = as_raised(error) if args is None else error.__cause__
        if not isinstance(raised.__cause__, WorkerTraceback):
            told_args = f"Arg 0: {error.item_repr}" if args is None else args.replace(" | ", "\n")
            told = WorkerTraceback(
                f"\n\nException occurred in Worker-{error.worker_id} with the following arguments:\n"
                f"{told_args}\n{error.remote_traceback}"
            )
            with contextlib.suppress(Exception):  # a class of the user's may refuse the setting of attributes
                told.__cause__, raised.__cause__ = raised.__cause__, told
        return raised
    else:
        return error
    raised.__cause__ = error
    if error.results:
        carry_results(raised, list(error.results))
    return raised
