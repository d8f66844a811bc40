"""What has become of a job's tasks: values, errors, and what is left to be done.

Owned by a :class:`nbpar.job.Job`, whose lock guards it: the backend's thread adds, the user's threads look.

Bounds: of a job with a list, one place for each item; of one that streams, what was not given out yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from nbpar.errors import TaskError
from nbpar.options import OnError

__all__ = ["Outcomes"]

R = TypeVar("R")

_MISSING = object()

Range = tuple[int, int]


class Outcomes(Generic[R]):
    """Values and errors by the position of their item.

    Parameters
    ----------
    n_tasks : int or None
        None for a job that streams.
    on_error : str
        The job's option.

    Attributes
    ----------
    errors : dict of int to TaskError
        The failures, as they came.
    ready : dict
        Of a job that streams: values and errors that were not given out yet.
    are_gone : bool
        Whether the values were let go.
    """

    def __init__(self, n_tasks: int | None, on_error: OnError) -> None:
        self.is_streamed = n_tasks is None
        self.errors: dict[int, TaskError] = {}
        self.ready: dict[int, Any] = {}
        self.are_gone = False
        self._values: list[Any] = [] if n_tasks is None else [_MISSING] * n_tasks
        self._on_error = on_error

    # --- the backend's thread -----------------------------------------------------------------------------------------

    def put(self, start: int, values: Sequence[R]) -> None:
        """Tasks from `start` on have these values."""
        if self.is_streamed:
            self.ready.update(enumerate(values, start))
        else:
            self._values[start : start + len(values)] = values

    def fail(self, error: TaskError) -> None:
        """A task has failed."""
        self.errors[error.index] = error
        if self.is_streamed:
            self.ready[error.index] = error
        elif self._on_error == "return":
            self._values[error.index] = error

    def let_go(self) -> None:
        """Forget the values."""
        self._values, self.ready, self.are_gone = [], {}, True

    # --- users' threads -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._values)

    def has(self, index: int) -> bool:
        """Whether a task of a job with a list has ended."""
        return self._values[index] is not _MISSING or index in self.errors

    def get(self, index: int) -> tuple[bool, Any]:
        """What a task's place in the list holds, and whether it holds anything."""
        value = self._values[index]
        return value is not _MISSING, value

    def as_list(self) -> list[R]:
        """The list that `map` returns."""
        if self._on_error == "skip" and self.errors:
            return [value for value in self._values if value is not _MISSING]
        return self._values

    def by_index(self) -> dict[int, R]:
        """Values that are there."""
        if self.is_streamed:
            return {i: value for i, value in sorted(self.ready.items()) if i not in self.errors}
        found = {i: value for i, value in enumerate(self._values) if value is not _MISSING}
        if self._on_error == "return":
            found = {i: value for i, value in found.items() if i not in self.errors}
        return found

    def split(self) -> tuple[list[tuple[int, list[R]]], list[Range]]:
        """What there is of a job with a list, and what there is not.

        Returns
        -------
        known : list of (start, values)
        left : list of (start, stop)
            Tasks that failed or have not ended.
        """
        known: list[tuple[int, list[R]]] = []
        left: list[Range] = []
        for index, value in enumerate(self._values):
            if value is _MISSING or index in self.errors:
                start = left.pop()[0] if left and left[-1][1] == index else index
                left.append((start, index + 1))
        begin = 0
        for start, stop in [*left, (len(self._values), 0)]:
            if start > begin:
                known.append((begin, self._values[begin:start]))
            begin = stop
        return known, left

    def take_ready(self, n_out: int, *, ordered: bool) -> list[tuple[int, Any]]:
        """Outcomes of a job that streams that can be given out when `n_out` were; they are forgotten here."""
        if not ordered:
            found = list(self.ready.items())
            self.ready.clear()
            return found
        found = []
        while n_out + len(found) in self.ready:
            index = n_out + len(found)
            found.append((index, self.ready.pop(index)))
        return found
