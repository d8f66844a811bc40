"""Tasks on numbers and arrays."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "PartOfKept",
    "add_one",
    "keep_table",
    "make_array",
    "mean_and_spread",
    "mean_and_spread_20",
    "mean_and_spread_50",
    "nap",
    "part_sum",
    "part_sums",
    "read_all",
    "shifted",
    "size_of",
]

Array = npt.NDArray[np.float64]

ARRAY_LENGTH = 250_000  # of float64: 2 MB


def add_one(x: int) -> int:
    """The trivial task."""
    return x + 1


def nap(seconds: float) -> float:
    """A task that takes a time known beforehand."""
    time.sleep(seconds)
    return seconds


def size_of(block: bytes) -> int:
    """A trivial task on an item of some size."""
    return len(block)


def mean_and_spread(array: Array) -> tuple[float, float]:
    """One pass over an array."""
    return float(array.mean()), float(array.std())


def _passes(array: Array, n: int) -> tuple[float, float]:
    found = (0.0, 0.0)
    for _ in range(n):
        found = mean_and_spread(array)
    return found


def mean_and_spread_20(array: Array) -> tuple[float, float]:
    """Twenty passes."""
    return _passes(array, 20)


def mean_and_spread_50(array: Array) -> tuple[float, float]:
    """Fifty passes."""
    return _passes(array, 50)


def shifted(array: Array) -> Array:
    """An array in, one of the same size out."""
    return array + 1.0


def make_array(index: int) -> Array:
    """A number in, an array out."""
    return np.arange(index, index + ARRAY_LENGTH, dtype=np.float64)


def read_all(array: npt.NDArray[np.uint8]) -> int:
    """Read one byte of each 64, so that every cache line is touched and little is computed."""
    return int(array[::64].sum(dtype=np.int64))


def part_sum(table: Array, part: int, n_parts: int) -> float:
    """Sum of one part of a large table."""
    length = len(table) // n_parts
    return float(table[part * length : (part + 1) * length].sum())


def part_sums(table: Array, parts: Sequence[int], n_parts: int) -> list[float]:
    """Sums of several parts, as one task."""
    return [part_sum(table, part, n_parts) for part in parts]


_table: Array | None = None


def keep_table(table: Array) -> None:
    """Initializer of pools: the table as a global of the worker."""
    global _table
    _table = table


class PartOfKept:
    """`part_sum` of the table that `keep_table` was given, as a function of the part alone.

    Parameters
    ----------
    n_parts : int
        Into how many the table is divided.
    """

    def __init__(self, n_parts: int) -> None:
        self.n_parts = n_parts

    def __call__(self, part: int) -> float:
        """Sum of one part."""
        if _table is None:
            raise RuntimeError("no table was given to this worker")
        return part_sum(_table, part, self.n_parts)
