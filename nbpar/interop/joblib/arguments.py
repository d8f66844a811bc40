"""Large arguments of the calls of one `Parallel`: in memory once where copies would fill it, and never stale.

joblib itself writes a large array to a file when it first meets it, and hands out that file from then on, whatever has
become of the array. nbpar copies it for each task into recycled shared memory, which takes 80 us a megabyte. Only where
a copy for each worker would take up much of the memory, an array that goes out once more is shared: it is compared with
what is shared before each call it goes to, and each task has a mapping of its own, copy-on-write, so that a task may
write to it as to a copy. To compare takes as long as to copy, and the new mapping twice as long once more.

Arrays in mapped files travel by the name of the file, as with joblib: what tasks write to them is in the file.

:class:`Arguments` is the kernel's side, in whatever thread joblib hands out calls; :func:`opened` the worker's.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from nbpar.wire.memory import can_pass_memory, usable_memory_bytes
from nbpar.wire.shared import Shared, unwrap

__all__ = ["Arguments", "opened"]

MUCH = 16
"""This part of the memory: below it copies are cheaper for tasks that read all of their array."""

_SMALL = (int, float, str, bool, type(None), bytes)


class Arguments:
    """What is known of the large arguments of a call of `Parallel`; ends with it.

    Parameters
    ----------
    least_bytes : int or None
        No array or table below this size is shared; None: none is.
    n_workers : int
        Workers that would have a copy each.
    """

    def __init__(self, least_bytes: int | None, n_workers: int = 1) -> None:
        self._least_bytes = least_bytes if can_pass_memory() else None
        self._n_workers = n_workers
        self._much_bytes = 0  # looked up for the first large argument
        self._met: dict[int, _Met] = {}  # by id, as long as the object lives

    def pack(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call as they travel."""
        return tuple(map(self._packed, args)), {name: self._packed(value) for name, value in kwargs.items()}

    def _packed(self, value: Any) -> Any:
        if type(value) in _SMALL:
            return value
        if (mapped := _mapped(value)) is not None:
            return mapped
        if self._least_bytes is None or (size_bytes := _size_bytes(value)) < self._least_bytes:
            return value
        self._much_bytes = self._much_bytes or usable_memory_bytes() // MUCH
        if size_bytes * self._n_workers < self._much_bytes:
            return value
        met = self._met.get(id(value))
        if met is None or met.owner() is not value:
            with contextlib.suppress(TypeError):  # what has no weak references
                self._met[id(value)] = _Met(value, self._met)
            return value
        return met.lent(value)


class _Met:
    """An argument that has gone out before."""

    __slots__ = ("_lent", "owner")

    def __init__(self, value: Any, met: dict[int, _Met]) -> None:
        self._lent: Lent | None = None
        key = id(value)

        def forget(owner: weakref.ref[Any]) -> None:
            if (mine := met.get(key)) is not None and mine.owner is owner:
                del met[key]

        self.owner = weakref.ref(value, forget)

    def lent(self, value: Any) -> Any:
        """What stands for it in shared memory; itself, where there is no memory to be had."""
        if self._lent is None or not self._lent.shared.holds(value):
            self._lent = None  # let go before as much is asked for
            try:
                self._lent = Lent(Shared(value))
            except OSError:
                return value
        return self._lent


class Lent:
    """An argument in shared memory; each task that opens it has a mapping of its own."""

    __slots__ = ("shared",)

    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def open(self) -> Any:
        """The argument."""
        return self.shared.fresh()

    def __reduce__(self) -> tuple[Any, ...]:
        return Lent, (self.shared,)

    def __repr__(self) -> str:
        return f"<{self.shared.size_bytes:,} bytes in shared memory>"


class FileArray:
    """An array whose memory is a mapped file: it travels by the file's name, and what tasks write is in the file.

    Parameters
    ----------
    file : str
    mode : str
        Of the mapping, as numpy has it.
    start, stop : int
        Where in the file the array's bytes are.
    first : int
        Where among them its first element is: not at their beginning, when a stride is below 0.
    layout : tuple
        Shape, dtype and strides of the array; None for the strides of a `numpy.memmap` without gaps.
    """

    __slots__ = ("_made_of",)

    def __init__(self, file: str, mode: str, start: int, stop: int, first: int, layout: tuple[Any, Any, Any]) -> None:
        self._made_of = file, mode, start, stop, first, layout

    def open(self) -> Any:
        """The array."""
        import numpy as np

        memmap: Any = np.memmap  # its types want literals for modes
        file, mode, start, stop, first, (shape, dtype, strides) = self._made_of
        if strides is None:
            return memmap(file, dtype, mode, start, shape)
        return np.ndarray(shape, dtype, memmap(file, "u1", mode, start, (stop - start,)), first, strides)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileArray, self._made_of

    def __repr__(self) -> str:
        return f"<array of shape {self._made_of[5][0]} in {self._made_of[0]}>"


def _mapped(value: Any) -> FileArray | None:
    """What stands for an array in a mapped file; None for all else, and for mappings that are copied on write."""
    numpy: Any = sys.modules.get("numpy")
    memmap = getattr(numpy, "memmap", None)
    if memmap is None or not isinstance(value, numpy.ndarray) or value.dtype.hasobject or value.size == 0:
        return None
    owner: Any = value
    while isinstance(owner.base, numpy.ndarray):  # a view of a memmap is one too, with an offset that says nothing
        owner = owner.base
    if not isinstance(owner, memmap) or owner.filename is None or owner.mode == "c":
        return None
    begin, end = _bounds(value)
    start = owner.offset + begin - owner.__array_interface__["data"][0]
    first = value.__array_interface__["data"][0] - begin
    is_plain = type(value) is memmap and value.flags.c_contiguous
    layout = value.shape, value.dtype, None if is_plain else value.strides
    mode = "r+" if value.flags.writeable else "r"
    return FileArray(str(owner.filename), mode, start, start + end - begin, first, layout)


def _bounds(value: Any) -> tuple[int, int]:
    """The addresses that an array lies between."""
    begin = end = value.__array_interface__["data"][0]
    for length, stride in zip(value.shape, value.strides, strict=True):
        begin += min(0, (length - 1) * stride)
        end += max(0, (length - 1) * stride)
    return begin, end + value.itemsize


def _size_bytes(value: Any) -> int:
    """Of an array, a table or a sparse matrix; 0 for all else."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return 0
    if isinstance(value, numpy.ndarray):
        return 0 if value.dtype.hasobject else int(value.nbytes)
    module = type(value).__module__
    with contextlib.suppress(Exception):  # a class of theirs that is measured in another way: then it goes as it is
        if module.partition(".")[0] == "pandas":
            return int(numpy.sum(value.memory_usage(index=False)))
        if module.startswith("scipy.sparse"):
            return int(value.data.nbytes)
    return 0


def opened(value: Any) -> Any:
    """An argument as the task sees it; a handle of `nbpar.share` is unwrapped as everywhere."""
    return value.open() if type(value) is Lent or type(value) is FileArray else unwrap(value)
