"""``%nbpar debug``: a failed item once more, in the kernel, so that its exception is a real one with real frames.

Owns the choice of job and item, and the sentence that says what is run. Called by :mod:`nbpar.notebook.magics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nbpar.errors import SerializationError, TaskError, TaskTimeoutError, WorkerDiedError
from nbpar.job import Job
from nbpar.notebook.source import Refused

__all__ = ["failed_task"]


def failed_task(
    jobs: Sequence[Job[Any]], job_id: int | None, index: int | None, *, force: bool
) -> tuple[str, Callable[[], Any]]:
    """What is run again, in one line, and the function that does.

    Parameters
    ----------
    jobs : sequence of Job
        The oldest first.
    job_id : int, optional
        By default the last job that has failures.
    index : int, optional
        Position of the item; by default the first that failed.
    force : bool
        Run an item in the kernel although it killed its worker.

    Raises
    ------
    Refused
        When there is no such failure, or running it here is a risk.
    """
    job = _job(jobs, job_id)
    errors = job.errors
    error = errors[0] if index is None else next((one for one in errors if one.index == index), None)
    if error is None:
        failed = ", ".join(str(one.index) for one in errors[:10]) + (", ..." if len(errors) > 10 else "")
        raise Refused(f"item {index} of job {job.id} ({job.name}) did not fail; failed: {failed}")
    if isinstance(error, WorkerDiedError) and not force:
        raise Refused(
            f"item {error.index} ended its worker ({error.message}) and could end the kernel as well. "
            f"To run it here all the same: %nbpar debug --force {job.id} {error.index}"
        )
    try:
        task = job._rerun(error.index)
    except LookupError:
        raise Refused(
            f"the value of item {error.index} of job {job.id} was not kept: there are too many failures"
        ) from None
    return f"Running {error.where} of job {job.id} ({job.name}) again in the kernel{_hint(error)}.", task


def _hint(error: TaskError) -> str:
    if isinstance(error, TaskTimeoutError):
        return ", without its time limit: the stop button interrupts it"
    if isinstance(error, SerializationError):
        return "; what failed was the way to or from the worker"
    return ""


def _job(jobs: Sequence[Job[Any]], job_id: int | None) -> Job[Any]:
    failed = [job for job in jobs if job.errors]
    if job_id is None:
        if not failed:
            raise Refused("no job has failures")
        return failed[-1]
    for job in jobs:
        if job.id == job_id:
            if not job.errors:
                raise Refused(f"job {job_id} ({job.name}) has no failures")
            return job
    known = ", ".join(str(job.id) for job in failed[-10:])
    raise Refused(f"there is no job {job_id}" + (f"; jobs with failures: {known}" if known else ""))
