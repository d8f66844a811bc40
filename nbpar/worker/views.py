"""Parts of arrays that share the memory of an array of the notebook's: ``out.append(matrix[i])``.

Serially what is stored there changes with the matrix, so it has to be a part of the notebook's own array. Owns how such
a part is told from an array of its own, in the worker, and made again in the kernel. Used by
:mod:`nbpar.worker.origins`.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Arrays", "View", "is_array", "seen"]


class View(NamedTuple):
    """Stands for a part of an array of the notebook's that shares its memory.

    Attributes
    ----------
    array : Origin
        The array (:class:`nbpar.worker.origins.Origin`).
    array_strides : tuple of int
        As the worker has them: an array that is no whole piece of memory is made one when it travels.
    offset_bytes : int
        Where it begins, from where the array does.
    shape, strides : tuple of int
    dtype : numpy.dtype
    """

    array: Any
    array_strides: tuple[int, ...]
    offset_bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any


def is_array(value: object) -> bool:
    """Whether it is exactly an array of numpy's."""
    return type(value) is getattr(sys.modules.get("numpy"), "ndarray", None)


def _bounds(array: Any) -> tuple[int, int]:
    """Addresses of its first byte, and behind its last."""
    low = high = array.__array_interface__["data"][0]
    if not array.size:
        return low, low
    for length, stride in zip(array.shape, array.strides, strict=True):
        low, high = (low, high + stride * (length - 1)) if stride > 0 else (low + stride * (length - 1), high)
    return low, high + array.itemsize


class Arrays:
    """The arrays that came with a task, by their addresses.

    Parameters
    ----------
    arrays : iterable of (Origin, ndarray)
    """

    __slots__ = ("_apart",)

    def __init__(self, arrays: Iterable[tuple[Any, Any]]) -> None:
        self._apart: list[tuple[int, int, Any, Any]] = []  # without those that lie within another one
        found = [(_bounds(array), origin, array) for origin, array in arrays if array.flags.forc]
        for (low, high), origin, array in sorted(found, key=lambda one: (one[0][0], -one[0][1])):
            if high > low and (not self._apart or low >= self._apart[-1][1]):
                self._apart.append((low, high, origin, array))

    def __len__(self) -> int:
        return len(self._apart)

    def view_of(self, value: Any) -> View | None:
        """What an array is a part of; None when it has memory of its own."""
        low, high = _bounds(value)
        at = bisect.bisect_right(self._apart, low, key=lambda one: one[0]) - 1
        if at < 0 or high > self._apart[at][1] or low == high:
            return None
        start, _, origin, array = self._apart[at]
        offset = value.__array_interface__["data"][0] - start
        return View(origin, array.strides, offset, value.shape, value.strides, value.dtype)


def seen(view: View, array: Any) -> Any:
    """The part of an array that a view stands for."""
    import numpy as np

    if array.strides != view.array_strides:
        return _seen_elsewhere(view, array)
    memory = array if array.flags.c_contiguous else array.T
    return np.ndarray(view.shape, view.dtype, memory, view.offset_bytes, view.strides)


def _seen_elsewhere(view: View, array: Any) -> Any:
    """The same elements of an array that lies otherwise in memory than in the worker: turned, or with gaps.

    A copy where they do not lie evenly, for then they are no part serially, either.
    """
    import numpy as np

    order: Any = "C" if view.array_strides == np.empty(array.shape, array.dtype).strides else "F"
    size, unit = array.itemsize, np.dtype(np.intp).itemsize
    numbers = np.arange(array.size)
    steps = tuple(stride // size * unit for stride in view.strides)
    if view.dtype != array.dtype or any(part % size for part in (view.offset_bytes, *view.strides)):
        whole = np.ndarray(array.shape, array.dtype, np.empty(array.size, array.dtype), 0, view.array_strides)
        whole[...] = array
        return np.ndarray(view.shape, view.dtype, whole, view.offset_bytes, view.strides).copy()
    index = np.unravel_index(
        np.ndarray(view.shape, np.intp, numbers, view.offset_bytes // size * unit, steps), array.shape, order
    )
    places = sum(along * stride for along, stride in zip(index, array.strides, strict=True))
    first = (0,) * len(view.shape)
    strides = tuple(
        int(np.take(places, 1, axis)[first[1:]]) - int(places[first]) if length > 1 else 0
        for axis, length in enumerate(view.shape)
    )
    even = places[first] + sum(
        (along * stride for along, stride in zip(np.indices(view.shape), strides, strict=True)), np.intp(0)
    )
    if not np.array_equal(places, even):
        return array[index]
    begin = array[tuple(slice(int(along[first]), int(along[first]) + 1) for along in index)]
    return np.lib.stride_tricks.as_strided(begin, view.shape, strides)
