"""Turns the groups that pandas has asked for into blocks of rows in the order of the groups.

Pandas has them as thousands of small frames; a slice of all rows, sorted, travels a hundred times as fast. Called by
:mod:`nbpar.interop.pandas.grouped`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from nbpar.interop.pandas.pieces import Cut, Parts, joined, label_of, no_label

__all__ = ["Groups", "cut_groups"]

_MISSING = object()


class Groups(Cut):
    """The groups of a frame or a Series whose rows are in the order of the groups.

    Parameters
    ----------
    data : DataFrame or Series
    bounds : array, shape (n + 1,)
        Where each group begins, and where the last one ends.
    names : list, optional
        What each has as its ``name``; None: as `data` has it.
    label : callable
        What an error calls the group at an index.
    """

    def __init__(
        self, data: Any, bounds: Any, names: list[Any] | None, label: Callable[[int], str], first: int = 0
    ) -> None:
        self._data = data
        self._bounds = bounds
        self._names = names
        self._label = label
        self._first = first

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def take(self, index: int) -> Any:
        """As of every cut."""
        # A slice remembers what it is cut from, and pandas 2 warns when it is written to; a shallow copy does not.
        group = self._data.iloc[self._bounds[index] : self._bounds[index + 1]].copy(deep=False)
        if self._names is not None:
            object.__setattr__(group, "name", self._names[index])  # as pandas does: a column may have that name
        return group

    def label(self, index: int) -> str:
        """As of every cut."""
        return self._label(self._first + index)

    def part(self, start: int, stop: int) -> Cut:
        """As of every cut."""
        bounds = self._bounds[start : stop + 1]
        names = None if self._names is None else self._names[start:stop]
        data = self._data.iloc[bounds[0] : bounds[-1]]
        return Groups(data, bounds - bounds[0], names, self._label, self._first + start)

    def __reduce__(self) -> tuple[Any, ...]:
        return Groups, (self._data, self._bounds, self._names, no_label)


def cut_groups(grouped: Any, asked: list[Any], *, is_first: bool = True, by_column: bool = True) -> Cut:
    """The groups, as they were asked for: all of a frame, or those of each column in turn; where not, one by one.

    Parameters
    ----------
    grouped : DataFrameGroupBy or SeriesGroupBy
    asked : list of DataFrame or Series
        What its method has called the function with.
    is_first : bool
        Nothing was asked before: what is asked begins with the first column.
    by_column : bool
        Columns are asked for in turn, each with all its groups; else (by ``transform``) each group with all its
        columns, and if as a frame, then perhaps all but the first group.
    """
    n_frames = sum(isinstance(one, pd.DataFrame) for one in asked)
    is_of_columns = n_frames == 0 and isinstance(grouped, pd.api.typing.DataFrameGroupBy)
    is_sure = n_frames == len(asked) or (n_frames == 0 and (not is_of_columns or (is_first and by_column)))
    if is_sure and getattr(grouped, "axis", 0) == 0:
        numbers = grouped.ngroup().to_numpy()  # in the order in which they are gone through; NaN where the key is
        n_in = int((numbers >= 0).sum())
        order = np.argsort(np.where(numbers >= 0, numbers, np.inf), kind="stable")[:n_in]
        lengths = np.bincount(numbers[order].astype(np.intp), minlength=grouped.ngroups)
        for chosen in (np.arange(len(lengths)), np.flatnonzero(lengths)):  # with those of no rows, or without
            for start in (0,) if by_column else (0, 1):
                n = len(chosen) - start
                if len(asked) == n or (is_of_columns and n and len(asked) % n == 0):
                    found = _blocks(grouped, asked, order, lengths, chosen[start:])
                    if found is not None:
                        return found
    return Parts(asked, _labels(asked, None), _names(asked, _MISSING))


def _blocks(grouped: Any, asked: list[Any], order: Any, lengths: Any, chosen: Any) -> Cut | None:
    """Blocks, if it is these groups that were asked for, once or for each column; None if it is not."""
    n, own = len(chosen), lengths[chosen]
    if not (np.reshape([len(one) for one in asked], (-1, n)) == own).all():
        return None
    order = order[int(lengths[: chosen[0]].sum()) :]
    bounds = np.concatenate([[0], np.cumsum(own)])
    keys = getattr(getattr(grouped, "_grouper", None), "result_index", ())
    found: list[Cut] = []
    for turn in range(len(asked) // n):
        groups = asked[turn * n : turn * n + n]
        data = _source(grouped, groups[0], turn)
        if data is None:
            return None
        data = data.take(order)
        if not all(data.index[bounds[i] : bounds[i + 1]].equals(groups[i].index) for i in (0, n // 2, n - 1)):
            return None
        label = _labels(groups, [keys[i] for i in chosen] if len(keys) == len(lengths) else None)
        found.append(Groups(data, bounds, _names(groups, getattr(data, "name", None)), label))
    return joined(found)


def _source(grouped: Any, group: Any, turn: int) -> Any:
    """The frame or the column that a group is cut out of; None if it cannot be found."""
    # Without the keys first: it is its columns that are gone through in turn, and names may be there twice.
    for source in (grouped._obj_with_exclusions, grouped._selected_obj):
        if isinstance(group, pd.DataFrame):
            if isinstance(source, pd.DataFrame) and _have_same_columns(source, group):
                return source
        elif isinstance(source, pd.Series):
            if source.dtype == group.dtype:
                return source
        elif turn < source.shape[1]:
            column = source.iloc[:, turn]
            if column.dtype == group.dtype and (column.name is group.name or column.name == group.name):
                return column
    return None


def _have_same_columns(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.columns.equals(other.columns) and list(one.dtypes) == list(other.dtypes)


def _names(groups: list[Any], of_data: Any) -> list[Any] | None:
    """What each group has as its ``name`` where the data have it not."""
    if isinstance(groups[0], pd.DataFrame):
        names = [vars(one).get("name", _MISSING) for one in groups]  # an attribute that does not travel
        return None if any(name is _MISSING for name in names) else names
    if of_data is _MISSING or all(one.name is of_data for one in groups):
        return None  # it travels with a Series
    return [one.name for one in groups]


def _labels(groups: list[Any], keys: list[Any] | None) -> Callable[[int], str]:
    """What errors call the groups."""

    def label(index: int) -> str:
        group = groups[index]
        key = keys[index] if keys is not None else _names([group], _MISSING)
        if isinstance(group, pd.Series):
            return f"group {label_of(key)} of {label_of(group.name)}" if keys is not None else f"{label_of(group.name)}"
        return f"group {label_of(key)}" if keys is not None else f"group {index}"

    return label
