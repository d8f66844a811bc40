"""Turns the windows that pandas has asked for into a column and the bounds of each.

Windows overlap: a column and two numbers for each are less than the windows. Called by
:mod:`nbpar.interop.pandas.grouped`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from nbpar.interop.pandas.pieces import Cut, Parts, joined

__all__ = ["Windows", "cut_windows"]


class Windows(Cut):
    """Windows of one column: arrays, or where there is an `index` Series."""

    def __init__(self, values: Any, starts: Any, stops: Any, index: Any = None, first: int = 0) -> None:
        self._values = values
        self._starts = starts
        self._stops = stops
        self._index = index
        self._first = first
        self._series: Any = None

    def __len__(self) -> int:
        return len(self._starts)

    def take(self, index: int) -> Any:
        """As of every cut."""
        start, stop = self._starts[index], self._stops[index]
        if self._index is None:
            return self._values[start:stop]
        if self._series is None:
            self._series = pd.Series(self._values, index=self._index, copy=False)
        return self._series.iloc[start:stop]

    def label(self, index: int) -> str:
        """As of every cut."""
        start, stop = self._first + self._starts[index], self._first + self._stops[index]
        return f"the window of rows {start} to {stop - 1}"

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        starts, stops = self._starts[start:stop], self._stops[start:stop]
        first, last = (int(starts.min()), int(stops.max())) if len(starts) else (0, 0)
        index = None if self._index is None else self._index[first:last]
        return Windows(self._values[first:last], starts - first, stops - first, index, self._first + first)

    def __reduce__(self) -> tuple[Any, ...]:
        return Windows, (self._values, self._starts, self._stops, self._index)


def cut_windows(asked: list[Any], index: Any, data: Any = None) -> Cut:
    """The windows, as they were asked for.

    Parameters
    ----------
    asked : list of array or Series
        What pandas has called the function with. Arrays are views of a column.
    index : Index, optional
        Of the rows; then Series are made of the arrays.
    data : DataFrame or Series, optional
        What the windows are of; needed with an index.
    """
    if not isinstance(asked[0], np.ndarray):
        return Parts(asked, lambda n: f"window {n}")
    starts = np.array([_address(one) for one in asked]) // asked[0].itemsize
    stops = starts + np.array([len(one) for one in asked])
    columns, places = np.zeros(len(asked), dtype=np.intp), starts
    if index is not None and len(index):
        columns, places = _places(asked, starts, len(index), data)
    ends = [
        n + 1
        for n, (one, other) in enumerate(pairwise(asked))
        if one.base is not other.base
        or columns[n] != columns[n + 1]
        or starts[n] > starts[n + 1]
        or stops[n] > stops[n + 1]
    ]
    found: list[Cut] = []
    for begin, end in zip([0, *ends], [*ends, len(asked)], strict=True):
        first, place = starts[begin], int(places[begin]) if index is not None else 0
        own, until = starts[begin:end] - first, stops[begin:end] - first
        values = _column(asked[begin:end], own, until)
        rows = None if index is None else index[place : place + len(values)]
        found.append(Windows(values, own, until, rows, place))
    return joined(found)


def _column(windows: list[Any], starts: Any, stops: Any) -> Any:
    """The values that windows are views of; starts and stops do not fall."""
    values = np.empty(int(stops[-1]), dtype=windows[0].dtype)
    filled = 0
    for window, start, stop in zip(windows, starts.tolist(), stops.tolist(), strict=True):
        if stop > filled:
            new = max(filled, start)
            values[new:stop] = window[new - start :]
            filled = stop
    return values


def _places(asked: list[Any], starts: Any, n_rows: int, data: Any) -> tuple[Any, Any]:
    """For each window a number of its column, and the row that it begins with."""
    # What pandas has converted is all of an array, or one of the columns in it, one behind the other. Floats it takes
    # as they are: where `data` has them, which may be a part of a larger frame.
    size = asked[0].itemsize
    columns, places = np.divmod(starts - np.array([_address(_base(one)) for one in asked]) // size, n_rows)
    parts = [data] if data.ndim == 1 else [data.iloc[:, n] for n in range(data.shape[1])]
    arrays = [array for one in parts if (array := _floats_of(one)) is not None]  # kept, for the sake of their addresses
    own = [_address(array) // size for array in arrays if array.strides == (size,)]
    if own:
        begins = np.sort(np.unique(own))
        nearest = np.searchsorted(begins, starts, side="right") - 1
        offsets = starts - begins[nearest]
        is_own = (nearest >= 0) & (offsets < n_rows)
        columns, places = np.where(is_own, -1 - nearest, columns), np.where(is_own, offsets, places)
    return columns, places


def _floats_of(column: Any) -> Any:
    """The array that pandas takes the floats of a column from, if there is one without a conversion."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy() if column.dtype == np.float64 else None
    return column.to_numpy(np.float64, na_value=np.nan) if pd.api.types.is_numeric_dtype(column.dtype) else None


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _base(array: Any) -> Any:
    """The array that has the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
