"""What a user gets raised for a failed task: the task's own exception, and on it where the rest of the job is.

Called by :mod:`nbpar.job` and :mod:`nbpar.streaming` in the thread of the user who waits.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

from nbpar.errors import JobInterrupt, NbparError, TaskError

__all__ = ["PartialResults", "add_note", "as_raised", "as_raised_inside", "carry_results", "drop_own_frames"]

_PACKAGE = str(Path(__file__).parent) + os.sep


class PartialResults(list[Any]):
    """The results that an exception carries as its ``results``: what had ended of the job, in the order of the input.

    They stay in the process: an exception that is pickled is sent without them.

    Examples
    --------
    >>> import pickle
    >>> pickle.loads(pickle.dumps(PartialResults([1, 2])))
    []
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return PartialResults, ()


def as_raised(error: TaskError) -> BaseException:
    """The exception that a blocking call raises for a failed task: the task's own type, with a note on the item."""
    cause = error.__cause__
    if type(error) is not TaskError or cause is None:
        return error
    add_note(cause, f"nbpar: {error.where}" + ("" if error.worker_id is None else f", on worker {error.worker_id}"))
    return cause


def add_note(error: BaseException, note: str) -> None:
    """Have a traceback end with a note, once."""
    notes = getattr(error, "__notes__", ())
    if note in notes:
        return
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001  # its class refuses new attributes (a frozen dataclass): set as Python sets its own
        with contextlib.suppress(Exception):
            BaseException.__setattr__(error, "__notes__", [*notes, note])


def carry_results(error: Any, results: list[Any]) -> None:
    """Set ``error.results``, unless the class of a user's exception has something of that name, or refuses it."""
    is_ours = isinstance(error, NbparError | JobInterrupt)
    if not is_ours and type(getattr(error, "results", PartialResults())) is not PartialResults:
        return
    with contextlib.suppress(Exception):
        error.results = PartialResults(results)


def as_raised_inside(error: TaskError) -> BaseException:
    """The same in generators and coroutines: of a StopIteration Python makes a RuntimeError there, without the item."""
    raised = as_raised(error)
    return error if isinstance(raised, StopIteration) else raised


def drop_own_frames(error: BaseException) -> None:
    """Take the frames of nbpar's own calls out of the traceback of an exception that was raised.

    A job keeps the exception, and these frames keep what the job was called with: its input.
    """
    steps = []
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            steps.append(step)
        step = step.tb_next
    for before, after in itertools.pairwise(steps):
        before.tb_next = after
    if steps:
        with contextlib.suppress(Exception):
            BaseException.__setattr__(error, "__traceback__", steps[0])
