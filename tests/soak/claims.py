"""What a job says of its tasks, by what it gave out and what it raised; and whether that fits together."""

from __future__ import annotations

from typing import Any

import numpy as np

import nbpar
from nbpar.errors import JobCancelledError, PoolClosedError, TaskError, WorkerStartError
from tests.soak.books import Claim
from tests.soak.stage import Story

__all__ = ["cause_of", "claim_of", "claim_without_job", "wrong_raise", "wrong_value"]


def claim_of(job: nbpar.Job[Any], found: Any, n_tasks: int, on_error: str) -> tuple[Claim, list[str]]:
    """What a job, and the list that it gave, say of its tasks."""
    errors = {error.index: cause_of(error) for error in job.errors}
    if job.are_gone:  # it was done, and was interrupted in the last moment
        return Claim("left", {}, errors), []
    if found is None:
        return Claim(job.status, dict(job.results_by_index), errors), []
    wrong = [f"there was a result, but the job is {job.status}"] if job.status != "done" else []
    places = [index for index in range(n_tasks) if on_error != "skip" or index not in errors]
    if len(found) != len(places):
        wrong.append(f"{len(found)} results in the place of {len(places)}")
    values = {}
    for index, value in zip(places, found, strict=False):
        if isinstance(value, TaskError):
            if on_error != "return" or value.index != index or index not in errors:
                wrong.append(f"at {index} stands the error {value!r}")
        else:
            values[index] = value
    return Claim(job.status, values, errors), wrong


def claim_without_job(found: Any) -> Claim:
    """What a list says by itself; which tasks were skipped it does not say."""
    return Claim("left", {value[0]: value for value in found or () if not isinstance(value, TaskError)})


def cause_of(error: BaseException) -> BaseException:
    """The task's own exception, where it has one."""
    return error.__cause__ if type(error) is TaskError and error.__cause__ is not None else error


def wrong_raise(story: Story, job: nbpar.Job[Any], raised: BaseException | None) -> list[str]:
    """Whether what a call raised belongs to how its job ended."""
    if job.status == "done":
        is_well = raised is None or isinstance(raised, KeyboardInterrupt)  # which came a moment too late
    elif job.status == "cancelled":
        is_well = raised is None or isinstance(raised, KeyboardInterrupt | JobCancelledError | PoolClosedError)
    elif isinstance(raised, WorkerStartError) or (isinstance(raised, nbpar.WorkerDiedError) and not job.errors):
        is_well = True  # three in a row were killed before they were ready, or before they had begun
    else:
        # Of a StopIteration, which no generator and no coroutine can raise, these raise the error that has it as cause.
        causes = [*map(cause_of, job.errors), *(one for one in job.errors if isinstance(one.__cause__, StopIteration))]
        named = any(f"item {error.index}" in _text(raised) for error in job.errors)
        is_well = story.options.get("on_error") == "raise" and raised in causes and named
        is_well = is_well or isinstance(raised, KeyboardInterrupt)
    return (
        [] if is_well else [f"it is {job.status} with the errors {job.errors}, and raised {raised!r}: {_text(raised)}"]
    )


def _text(error: BaseException | None) -> str:
    return "" if error is None else "\n".join([str(error), *getattr(error, "__notes__", ())])


def wrong_value(story: Story, index: int, value: Any) -> str:
    spec, (number, result) = story.spec, value
    if number != index:
        return f"it is that of {number}"
    if isinstance(result, np.ndarray):
        return "" if np.array_equal(result, 2 * spec.array(index, len(result))) else "another array"
    expected = spec.number(index)
    if story.kind == "starmap":
        expected ^= index ^ spec.salt ^ index
    return "" if result == expected else f"{result}, not {expected}"
