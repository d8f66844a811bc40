"""What a job of the accessors goes over: rows, groups and windows, cut out of blocks of a frame.

A chunk takes one block to its worker, a slice of the frame with all its rows; they are cut there, when their turn has
come. So large columns travel through shared memory as they are, and a million rows are no million pickles. Here is what
they have in common; :mod:`~nbpar.interop.pandas.rows`, :mod:`~nbpar.interop.pandas.groups` and
:mod:`~nbpar.interop.pandas.windows` have the kinds. Used in the worker by :func:`nbpar.interop.pandas.replay.call`.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nbpar.inputs import Pieces

__all__ = ["Cut", "Item", "Joined", "PackedSeries", "Parts", "joined", "label_of", "no_label"]

MOST_LABELS = 1000
"""Of a Series as a result: up to here the index, and not the values, is what takes the time."""


class Item:
    """One argument of the user's function, not cut out yet; its repr is what an error calls it."""

    __slots__ = ("_cut", "_index")

    def __init__(self, cut: Cut, index: int) -> None:
        self._cut = cut
        self._index = index

    def take(self) -> Any:
        """The argument."""
        return self._cut.take(self._index)

    def packed(self, result: Any) -> Any:
        """What the function gave for it, fit for the way back."""
        return self._cut.packed(result) if isinstance(result, pd.Series) else result

    def __repr__(self) -> str:
        return self._cut.label(self._index)

    def __reduce__(self) -> tuple[Any, ...]:
        return Item, (self._cut[self._index : self._index + 1], 0)


class PackedSeries:
    """A small Series as a result; arrives as a Series.

    Most of what it takes to pickle one is its index, which is the same for thousands of rows: as one object it travels
    once for all results of a chunk.
    """

    __slots__ = ("_index", "_name", "_values")

    def __init__(self, values: Any, index: Any, name: Any) -> None:
        self._values = values
        self._index = index
        self._name = name

    def unpacked(self) -> Any:
        """The Series."""
        return _series(self._values, self._index, self._name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _series, (self._values, self._index, self._name)


def _series(values: Any, index: Any, name: Any) -> Any:
    return pd.Series(values, index=index, name=name, dtype=values.dtype, copy=False)


class Cut(Pieces):
    """A sequence of :class:`Item`; a slice of it has only what its items need."""

    _shared_index: Any = None

    @abstractmethod
    def take(self, index: int) -> Any:
        """The argument at an index."""

    @abstractmethod
    def label(self, index: int) -> str:
        """What an error calls it."""

    @abstractmethod
    def part(self, start: int, stop: int) -> Cut:
        """The items from `start` to ``stop - 1``."""

    def packed(self, series: Any) -> Any:
        """A Series that the function gave; no longer the one that pandas puts the next row into."""
        if type(series) is not pd.Series or series.attrs or not series.flags.allows_duplicate_labels:
            return series.copy(deep=False)
        index, shared = series.index, self._shared_index
        if index is not shared:
            if len(index) > MOST_LABELS:
                return series.copy(deep=False)
            if shared is None or not index.identical(shared):
                shared = self._shared_index = index
        values = series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array
        return PackedSeries(values, shared, series.name)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return self.part(start, max(start, stop))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Item(self, index % len(self))

    def __iter__(self) -> Iterator[Item]:
        return (Item(self, index) for index in range(len(self)))


class Parts(Cut):
    """Arguments that are there one by one; where there are `names`, each gets one as its ``name``."""

    def __init__(
        self, values: Sequence[Any], label: Callable[[int], str], names: list[Any] | None = None, first: int = 0
    ) -> None:
        self._values = values
        self._label = label
        self._names = names
        self._first = first

    def __len__(self) -> int:
        return len(self._values)

    def take(self, index: int) -> Any:
        """As of every cut."""
        value = self._values[index]
        if self._names is not None:
            object.__setattr__(value, "name", self._names[index])
        return value

    def label(self, index: int) -> str:
        """As of every cut."""
        return self._label(self._first + index)

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        names = None if self._names is None else self._names[start:stop]
        return Parts(self._values[start:stop], self._label, names, self._first + start)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parts, (self._values, no_label, self._names)


class Joined(Cut):
    """Several, one after the other: the groups of each column, say."""

    def __init__(self, cuts: list[Cut]) -> None:
        self._cuts = cuts
        self._ends = list(itertools.accumulate(map(len, cuts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _place(self, index: int) -> tuple[Cut, int]:
        n = bisect_right(self._ends, index)
        return self._cuts[n], index - (self._ends[n - 1] if n else 0)

    def take(self, index: int) -> Any:
        """As of every cut."""
        cut, place = self._place(index)
        return cut.take(place)

    def label(self, index: int) -> str:
        """As of every cut."""
        cut, place = self._place(index)
        return cut.label(place)

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        found = []
        for cut, end in zip(self._cuts, self._ends, strict=True):
            begin = end - len(cut)
            if begin < stop and start < end:
                found.append(cut.part(max(start - begin, 0), min(stop, end) - begin))
        return joined(found)

    def __reduce__(self) -> tuple[Any, ...]:
        return Joined, (self._cuts,)


def joined(cuts: list[Cut]) -> Cut:
    """Several as one."""
    return cuts[0] if len(cuts) == 1 else Joined(cuts)


def label_of(label: Any) -> str:
    """A label of an index as people write it: ``3`` rather than ``np.int64(3)``."""
    if isinstance(label, tuple):
        return f"({', '.join(map(label_of, label))})"
    return repr(label.item() if isinstance(label, np.generic) else label)


def no_label(index: int) -> str:
    """In a worker, where no error is told."""
    return f"item {index}"
