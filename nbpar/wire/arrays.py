"""Reducers for numpy's arrays where its own would copy them into the pickle, at a tenth of the speed; for memoryviews.

numpy hands a buffer over only for a plain contiguous array of numbers. Here others go beside the pickle, too: arrays
with gaps (by one copy, in the order in which they lie in memory, so that a task finds the same layout), of dates,
subclasses that leave pickling to numpy, and masked arrays. A memoryview arrives as one. Used by
:mod:`nbpar.wire.special`, where numpy is not imported for it; the ``make_*`` functions are named inside pickles.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["LARGE_BYTES", "reduce_array", "reducer_of_array"]

LARGE_BYTES = 64 << 10
"""Buffers of at least this size travel beside the pickle."""


def reducer_of_array(kind: type) -> Callable[[Any, Any], Any] | None:
    """How arrays of a type, or memoryviews, are reduced; None for others, and for arrays with a way of their own."""
    if kind is memoryview:
        return _reduce_view
    numpy: Any = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)  # numpy may be on its way in, in another thread
    if array is None or not issubclass(kind, array):
        return None
    if kind is array:
        return _reduce_plain
    masked = sys.modules.get("numpy.ma")
    if masked is not None and kind is getattr(masked, "MaskedArray", None):
        return _reduce_masked
    own = any(
        getattr(kind, name) is not getattr(array, name) for name in ("__reduce__", "__reduce_ex__", "__setstate__")
    )
    return None if own else _reduce_subclass


def _reduce_plain(_pickler: object, array: Any) -> Any:
    return reduce_array(array)


def reduce_array(array: Any) -> Any:
    """The reduce value of a plain array."""
    if array.nbytes < LARGE_BYTES or array.dtype.hasobject:
        return array.__reduce_ex__(5)
    if not array.flags.forc:
        return _reduce_with_gaps(array)
    try:
        memoryview(array)
    except ValueError:  # dates, alone or in a record, are unknown to the buffer protocol
        layout = array.shape, array.dtype, "C" if array.flags.c_contiguous else "F"
        return make_of_bytes, (array.reshape(-1, order="A").view("u1"), *layout)
    return array.__reduce_ex__(5)


def make_of_bytes(data: Any, shape: tuple[int, ...], dtype: Any, order: Any) -> Any:
    """An array around its bytes."""
    numpy: Any = sys.modules["numpy"]
    return numpy.ndarray(shape, dtype, data, order=order)


def _reduce_with_gaps(array: Any) -> Any:
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    lying = array.transpose(axes)
    if not lying.flags.c_contiguous:
        lying = lying.copy(order="C")
    if axes == sorted(axes):
        return reduce_array(lying)
    return make_transposed, (lying, sorted(range(array.ndim), key=axes.__getitem__))


def make_transposed(array: Any, axes: list[int]) -> Any:
    """An array whose axes do not lie in memory in their order."""
    return array.transpose(axes)


def _reduce_subclass(_pickler: object, array: Any) -> Any:
    if array.nbytes < LARGE_BYTES or array.dtype.hasobject:
        return array.__reduce_ex__(5)
    numpy: Any = sys.modules["numpy"]
    plain = array.view(numpy.ndarray)
    if plain.dtype.type is numpy.record:
        plain = plain.view(numpy.dtype((numpy.void, plain.dtype)))
    return make_subclass, (type(array), plain, array.dtype)


def make_subclass(kind: Any, array: Any, dtype: Any) -> Any:
    """As numpy does it: neither is `__new__` of the subclass called, nor are attributes kept."""
    numpy: Any = sys.modules["numpy"]
    lying = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))  # a buffer has no gaps
    return numpy.ndarray.__new__(kind, array.shape, dtype, lying, 0, array.strides)


def _reduce_masked(_pickler: object, array: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    data = array.data
    if type(data) is not numpy.ndarray or data.nbytes < LARGE_BYTES or data.dtype.hasobject:
        return array.__reduce_ex__(5)
    return make_masked, (type(array), data, numpy.ma.getmaskarray(array), array._fill_value)


def make_masked(kind: Any, data: Any, mask: Any, fill_value: Any) -> Any:
    """A masked array around its data."""
    array = kind(data, mask=mask)
    array.fill_value = fill_value
    return array


# --- memoryviews ------------------------------------------------------------------------------------------------------

_FORMATS_OF_CAST = frozenset("cbB?hHiIlLqQnNfdP")


def _reduce_view(_pickler: object, view: memoryview) -> Any:
    if view.format not in _FORMATS_OF_CAST or (view.nbytes == 0 and view.ndim != 1):
        return _reduce_view_by_numpy(view)
    data: Any = view
    if not view.c_contiguous:
        data = view.tobytes() if view.readonly else bytearray(view.tobytes())
    return make_view, (pickle.PickleBuffer(data), view.format, view.shape)


def make_view(data: Any, view_format: Any, shape: tuple[int, ...]) -> memoryview:
    """A memoryview around its bytes."""
    flat = memoryview(data).cast("B")
    return flat.cast(view_format) if len(shape) == 1 else flat.cast(view_format, shape)


def _reduce_view_by_numpy(view: memoryview) -> Any:
    # memoryview.cast() makes neither an empty one of several axes nor a format of several characters.
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "ascontiguousarray"):  # numpy may be on its way in, in another thread
        with contextlib.suppress(ValueError):  # it does not know the format either
            array = numpy.ascontiguousarray(view).reshape(view.shape)
            if memoryview(array).format == view.format:
                return make_view_of_array, (array, view.readonly)
    raise pickle.PicklingError(
        f"a memoryview of format {view.format!r} cannot be made again there; send the object it is a view of"
    )


def make_view_of_array(array: Any, readonly: bool) -> memoryview:
    """A memoryview of an array."""
    view = memoryview(array)
    return view.toreadonly() if readonly else view
