"""How MPIRE cuts an input into chunks: sizes that may be fractions, a known or announced length, arrays by slices.

Owns the arithmetic. Called by :mod:`nbpar.interop.mpire.params` for each map, by the pool where a chunk has a worker of
its own (``order_tasks``), and by users as ``mpire.utils``.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Any

from nbpar.errors import OptionsError
from nbpar.options import usable_cpus

__all__ = [
    "apply_numpy_chunking",
    "chunk_lengths",
    "chunk_tasks",
    "get_n_chunks",
    "is_array",
    "make_single_arguments",
]

SPLITS_PER_WORKER = 4
"""Slices of an array for each worker, where neither `chunk_size` nor `n_splits` says otherwise."""


def is_array(value: object) -> bool:
    """Whether this is a numpy array; numpy is not imported to find out."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def chunk_lengths(chunk_size: float) -> Iterator[int]:
    """Lengths of chunks that have `chunk_size` tasks in the mean: a fraction is carried over to the next.

    Examples
    --------
    >>> list(itertools.islice(chunk_lengths(2.5), 4)), list(itertools.islice(chunk_lengths(0.3), 2))
    ([3, 2, 3, 2], [1, 1])
    """
    end = 0
    for n_chunks in itertools.count(1):
        begin, end = end, max(end + 1, _whole(n_chunks * chunk_size))
        yield end - begin


def chunk_tasks(
    iterable_of_args: Iterable[Any],
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
) -> Generator[Collection[Any], None, None]:
    """Cut an input into chunks, as it is read.

    Parameters
    ----------
    iterable_of_args : iterable
        A numpy array is cut into slices, everything else into tuples.
    iterable_len : int, optional
        No more than this is taken; `n_splits` needs it where the input has no length.
    chunk_size : float, optional
        Elements of a chunk in the mean; counts before `n_splits`.
    n_splits : int, optional
        Number of chunks.

    Raises
    ------
    OptionsError
        When both sizes are None, or the length that `n_splits` needs is not known. It is a ValueError.

    Examples
    --------
    >>> list(chunk_tasks(range(7), n_splits=3))
    [(0, 1, 2), (3, 4), (5, 6)]
    """
    if chunk_size is None and n_splits is None:
        raise OptionsError("chunk_size", None, "a number, as n_splits is None too")
    if chunk_size is None:
        assert n_splits is not None
        chunk_size = _length_of(iterable_of_args, iterable_len, "n_splits", n_splits) / n_splits
    array: Any = iterable_of_args
    source = None if is_array(array) else iter(array)
    begin = 0
    for length in chunk_lengths(chunk_size):
        if iterable_len is not None:
            length = min(length, iterable_len - begin)  # noqa: PLW2901
        if length <= 0:
            return
        end = begin + length
        chunk: Collection[Any] = array[begin:end] if source is None else tuple(itertools.islice(source, length))
        if len(chunk) == 0:
            return
        yield chunk
        begin += len(chunk)


def get_n_chunks(
    iterable_of_args: Iterable[Any],
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
    n_jobs: int | None = None,
) -> int:
    """Chunks that an input is cut into: by `chunk_size`, else `n_splits`, else four for each of `n_jobs` workers.

    Raises
    ------
    OptionsError
        When the input has no length and `iterable_len` is None. It is a ValueError.

    Examples
    --------
    >>> get_n_chunks(range(10), chunk_size=3), get_n_chunks(range(10), n_jobs=2)
    (4, 8)
    """
    n_tasks = _length_of(iterable_of_args, iterable_len, "iterable_len", iterable_len)
    if n_tasks == 0:
        return 0
    if chunk_size is None:
        chunk_size = n_tasks / (n_splits or (n_jobs or usable_cpus()) * SPLITS_PER_WORKER)
    return min(n_tasks, _whole(n_tasks / chunk_size))


def apply_numpy_chunking(
    iterable_of_args: Any,
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
    n_jobs: int | None = None,
) -> tuple[Iterator[tuple[Any]], int, int, None]:
    """Cut an array into slices along its first axis, each of which is the only argument of a task.

    Returns
    -------
    tuple
        What replaces `iterable_of_args`, `iterable_len`, `chunk_size` and `n_splits`: the slices as tuples of one,
        their number, 1 and None.

    Raises
    ------
    OptionsError
        When nothing says how many slices there should be. It is a ValueError.

    Examples
    --------
    >>> import numpy as np
    >>> slices, n_slices, *_ = apply_numpy_chunking(np.arange(5), n_splits=2)
    >>> n_slices, [slice.tolist() for (slice,) in slices]
    (2, [[0, 1, 2], [3, 4]])
    """
    if chunk_size is None and n_splits is None:
        if n_jobs is None:
            raise OptionsError("chunk_size", None, "a number, as n_splits and n_jobs are None too")
        n_splits = n_jobs * SPLITS_PER_WORKER
    if iterable_len is not None:
        iterable_of_args = iterable_of_args[:iterable_len]
    n_chunks = get_n_chunks(iterable_of_args, iterable_len, chunk_size, n_splits, n_jobs)
    slices = chunk_tasks(iterable_of_args, len(iterable_of_args), chunk_size, n_splits)
    return ((one,) for one in slices), n_chunks, 1, None


def make_single_arguments(iterable_of_args: Iterable[Any], generator: bool = True) -> Iterable[tuple[Any]]:
    """Wrap each element in a tuple, so that a map passes it as one argument instead of unpacking it.

    Parameters
    ----------
    generator : bool
        Whether to return a generator, else a list.

    Examples
    --------
    >>> make_single_arguments([[1, 2], "ab"], generator=False)
    [([1, 2],), ('ab',)]
    """
    singles = ((one,) for one in iterable_of_args)
    return singles if generator else list(singles)


def _whole(number: float) -> int:
    """Rounded up, but not for what a division leaves behind its ninth digit: 63 / (63 / 13) is 13.000000000000002."""
    return math.ceil(round(number, 9))


def _length_of(items: Any, announced: int | None, option: str, value: object) -> int:
    if announced is not None:
        return min(announced, len(items)) if hasattr(items, "__len__") else announced
    if hasattr(items, "__len__"):
        return len(items)
    raise OptionsError(option, value, "iterable_len besides, or an iterable that has a length")
