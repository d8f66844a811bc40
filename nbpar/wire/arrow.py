"""A reducer for pieces of pyarrow's tables: pyarrow pickles a slice with all that it is a slice of.

The hundred slices of a table would be sent as a hundred tables. Arrow's own format for streams has the slice alone, in
one buffer. Used by :mod:`nbpar.wire.special`; pyarrow is not imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nbpar.wire.arrays import LARGE_BYTES

__all__ = ["reducer_of_arrow"]


def reducer_of_arrow(kind: type) -> Callable[[Any, Any], Any] | None:
    """The reducer for a type of pyarrow's that can be sliced; None for all other types."""
    if kind.__module__ != "pyarrow.lib":
        return None
    arrow: Any = sys.modules["pyarrow.lib"]
    if issubclass(kind, (arrow.Array, arrow.ChunkedArray)):
        return _reduce_column
    return _reduce_table if kind is arrow.Table or kind is arrow.RecordBatch else None


def _is_piece(data: Any) -> bool:
    """Whether most of the memory behind it is not its own."""
    n_bytes = data.get_total_buffer_size()
    return bool(n_bytes >= LARGE_BYTES and n_bytes > 2 * data.nbytes)


def _reduce_table(_pickler: object, table: Any) -> Any:
    if not _is_piece(table):
        return table.__reduce_ex__(5)
    arrow: Any = sys.modules["pyarrow"]
    is_batch = isinstance(table, arrow.RecordBatch)
    whole = arrow.Table.from_batches([table]) if is_batch else table
    return make_table, (_written(whole), is_batch)


def make_table(data: Any, is_batch: bool) -> Any:
    """A table, or a batch of records, from Arrow's format."""
    table = _read(data)
    if not is_batch:
        return table
    arrow: Any = sys.modules["pyarrow"]
    # An empty one has no batch in its table.
    return next(iter(table.to_batches()), None) or arrow.RecordBatch.from_pylist([], table.schema)


def _reduce_column(_pickler: object, column: Any) -> Any:
    if not _is_piece(column):
        return column.__reduce_ex__(5)
    arrow: Any = sys.modules["pyarrow"]
    is_chunked = isinstance(column, arrow.ChunkedArray)
    return make_column, (_written(arrow.table([column], ["column"])), is_chunked)


def make_column(data: Any, is_chunked: bool) -> Any:
    """An array, in one piece or in chunks, from Arrow's format."""
    column = _read(data).column(0)
    return column if is_chunked else column.combine_chunks()


def _written(table: Any) -> Any:
    arrow: Any = sys.modules["pyarrow"]
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()  # an Arrow buffer: it goes beside the pickle


def _read(data: Any) -> Any:
    arrow: Any = sys.modules["pyarrow"]
    return arrow.ipc.open_stream(data).read_all()
