"""What users pass to the map family: the function and the iterables, checked and put into the form of a job.

Called by :mod:`nbpar.pool` in the user's thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbpar.errors import OptionsError

__all__ = ["Pieces", "check_function", "is_sliceable", "name_of", "zipped"]


class Pieces(Sequence[Any]):
    """Items that travel by the slice: what a chunk takes to a worker is one object, not one for each item.

    A subclass has ``len``, gives an item for an index, for a slice (without a step) another one of its kind, and can be
    pickled. Nobody changes it while a job runs.
    """


def name_of(function: Callable[..., Any]) -> str:
    """What a dashboard calls a function."""
    function = getattr(function, "func", function)  # functools.partial
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)


def check_function(function: object) -> None:
    """Refuse what cannot be called."""
    if not callable(function):
        raise OptionsError("function", function, "something that can be called")


def zipped(function: object, iterables: Sequence[Iterable[Any]]) -> Iterable[Any]:
    """The one iterable, or several side by side as in builtins.map: as long as the shortest."""
    check_function(function)
    if not iterables:
        raise OptionsError("iterables", (), "one or more iterables after the function")
    for iterable in iterables:
        if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
            raise OptionsError("iterable", iterable, "something that can be iterated")
    return iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)


def is_sliceable(items: Iterable[Any]) -> bool:
    """Whether slices of `items` may travel in their place: they iterate as the items, and nobody changes their number.

    A list is copied (8 bytes an item): the caller of `map_async` may go on to change it.
    """
    numpy: Any = sys.modules.get("numpy")
    return (
        type(items) in (tuple, range)
        or isinstance(items, Pieces)
        or (numpy is not None and type(items) is numpy.ndarray and numpy.ndim(items) >= 1)
    )
