"""Rows of a frame, as Series or as arrays, and numbers of a column: cut out of slices in the workers.

Made by :mod:`nbpar.interop.pandas.frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbpar.interop.pandas.pieces import Cut, label_of

__all__ = ["Numbers", "RawRows", "Rows", "rows_of"]

FIRST_ROWS, MOST_ROWS = 8, 1024
"""Rows made ready at once: few where each takes long, since those of a mixed frame are boxed value by value."""


class Rows(Cut):
    """The rows of a frame, each a Series as ``apply(axis=1)`` gives it."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._ready: Iterator[Any] = iter(())
        self._next, self._stop, self._ahead = -1, -1, FIRST_ROWS

    def __len__(self) -> int:
        return len(self._frame)

    def take(self, index: int) -> Any:
        """The row; valid until the next one is taken, since pandas puts all rows into one Series in turn."""
        if index != self._next or index >= self._stop:
            self._ahead = min(2 * self._ahead, MOST_ROWS) if index == self._next else FIRST_ROWS
            self._stop = min(index + self._ahead, len(self))
            self._ready = rows_of(self._frame.iloc[index : self._stop])
        self._next = index + 1
        return next(self._ready)

    def label(self, index: int) -> str:
        """As of every cut."""
        return f"row {label_of(self._frame.index[index])}"

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        return Rows(self._frame.iloc[start:stop])

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self._frame,)


def rows_of(frame: Any) -> Iterator[Any]:
    """The rows of a frame that is not empty, by pandas' own hand."""
    try:
        from pandas.core.apply import frame_apply

        rows: Iterator[Any] = iter(frame_apply(frame, len, axis=1, args=(), kwargs={}).series_generator)
    except (ImportError, AttributeError, TypeError):  # no part of pandas' public interface; 2.2 to 3.1 have it
        return (frame.iloc[index] for index in range(len(frame)))
    return rows


class RawRows(Cut):
    """The rows or the columns of a frame as arrays, for ``raw=True``."""

    def __init__(self, values: Any, word: str = "", labels: Any = None) -> None:
        self._values = values
        self._word = word
        self._labels = labels

    def __len__(self) -> int:
        return len(self._values)

    def take(self, index: int) -> Any:
        """As of every cut."""
        return self._values[index]

    def label(self, index: int) -> str:
        """As of every cut."""
        return f"{self._word} {label_of(self._labels[index])}"

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        return RawRows(self._values[start:stop], self._word, self._labels[start:stop])

    def __reduce__(self) -> tuple[Any, ...]:
        return RawRows, (self._values,)


class Numbers(RawRows):
    """Numbers of a column, which travel as an array and arrive as Python's own."""

    def take(self, index: int) -> Any:
        """As of every cut."""
        return self._values[index].item()

    def label(self, index: int) -> str:
        """As of every cut."""
        return repr(self._values[index].item())

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        return Numbers(self._values[start:stop])

    def __reduce__(self) -> tuple[Any, ...]:
        return Numbers, (self._values,)
