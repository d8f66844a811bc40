"""Arrays of 2 MB on their way to workers and back."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from benchmarks.core import MapWorkload, WrongResultError
from benchmarks.peers import EVERYBODY
from benchmarks.targets import AtLeast
from benchmarks.tasks.plain import ARRAY_LENGTH, Array, make_array, mean_and_spread, mean_and_spread_50, shifted

__all__ = ["ArraysIn", "ArraysInAndOut", "ArraysOut", "ComputeBound"]

BUT_PROCESS_MAP = tuple(name for name in EVERYBODY if name != "process_map")
"""It is a ProcessPoolExecutor that starts with each call, as the workload `arrays-in` shows."""

_numbers = itertools.count()


def fresh_arrays(n: int) -> list[Array]:
    """New memory with contents that nobody has seen; what was cached of earlier ones gives wrong results."""
    pattern = np.random.default_rng(7).random(ARRAY_LENGTH)
    arrays = []
    for _ in range(n):
        array = pattern.copy()
        array[: ARRAY_LENGTH // 10] = next(_numbers) % 1000
        arrays.append(array)
    return arrays


def check_means(arrays: Sequence[Array], result: Any, what: str) -> None:
    """Means and standard deviations, to the last bits that the number of BLAS threads may change."""
    expected = [mean_and_spread(array) for array in arrays]
    if len(result) != len(expected) or not np.allclose(result, expected, rtol=1e-9):
        raise WrongResultError(what)


class ArraysIn(MapWorkload):
    """Arrays in, two numbers out."""

    name = "arrays-in"
    title = "100 fresh arrays of 2 MB in, mean and standard deviation out"
    about = "Every call gets new arrays, as a loop over data does."
    targets = (AtLeast(4), AtLeast(8, ("mpire", "Pool", "ProcessPoolExecutor")))
    is_fresh = True
    budget_s = 13.0

    def function(self) -> Callable[[Any], Any]:
        """One pass."""
        return mean_and_spread

    def items(self) -> Sequence[Any]:
        """New arrays."""
        return fresh_arrays(self.size(100, 4))

    def check(self, argument: Any, result: Any) -> None:
        """Against the loop's."""
        check_means(argument, result, "not the means of these arrays")


class ArraysInAndOut(ArraysIn):
    """Arrays in, arrays out."""

    peers = BUT_PROCESS_MAP
    name = "arrays-in-out"
    title = "100 fresh arrays of 2 MB in, arrays of 2 MB out"
    targets = (AtLeast(7), AtLeast(1.0, ("serial",)))
    budget_s = 15.0

    def function(self) -> Callable[[Any], Any]:
        """``array + 1``."""
        return shifted

    def check(self, argument: Any, result: Any) -> None:
        """Every byte."""
        pairs = zip(argument, result, strict=True)
        if len(result) != len(argument) or not all(np.array_equal(a + 1.0, b) for a, b in pairs):
            raise WrongResultError("not array + 1 for every array")


class ArraysOut(MapWorkload):
    """Numbers in, arrays out, and the arrays are kept."""

    peers = BUT_PROCESS_MAP
    name = "arrays-out"
    title = "100 arrays of 2 MB out, kept"
    about = (
        "The results of earlier calls stay alive (as many as a third of the free memory holds), so that memory for new "
        "ones is new as well."
    )
    targets = (AtLeast(2),)
    budget_s = 13.0

    def function(self) -> Callable[[Any], Any]:
        """``np.arange``."""
        return make_array

    def items(self) -> Sequence[Any]:
        """Where each array begins."""
        n_arrays = self.size(100, 4)
        spare_bytes = psutil.virtual_memory().available // 3
        n_lists = spare_bytes // (n_arrays * ARRAY_LENGTH * 8)
        self._kept: deque[Any] = deque(maxlen=max(len(self.peers), min(6 * len(self.peers), n_lists)))
        return range(n_arrays)

    def check(self, argument: Any, result: Any) -> None:
        """Every byte."""
        pairs = zip(argument, result, strict=True)
        if len(result) != len(argument) or not all(np.array_equal(make_array(i), array) for i, array in pairs):
            raise WrongResultError("not np.arange for every index")

    def dispose(self, result: Any) -> None:
        """Keep it."""
        self._kept.append(result)


class ComputeBound(MapWorkload):
    """So much to compute that the way there hardly matters."""

    peers = BUT_PROCESS_MAP
    name = "compute"
    title = "20 arrays of 2 MB, 50 passes over each (compute-bound)"
    targets = (AtLeast(1.75, ("serial",)),)
    budget_s = 10.0

    def function(self) -> Callable[[Any], Any]:
        """Fifty passes."""
        return mean_and_spread_50

    def items(self) -> Sequence[Any]:
        """Arrays."""
        return fresh_arrays(self.size(20, 2))

    def check(self, argument: Any, result: Any) -> None:
        """Against the loop's."""
        check_means(argument, result, "not the means of these arrays")
