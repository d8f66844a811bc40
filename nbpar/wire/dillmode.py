"""``serializer="dill"``: what goes by value is pickled by dill, all of it, as a user asked for.

Called by :class:`nbpar.wire.codec.Codec`. Arrays still travel out of band, and classes of the notebook and handles on
shared memory as they always do, since results have to find the kernel's own class. Data without anything by value is
left to the C pickler, which gives the same.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

import dill

from nbpar.wire.arrays import reducer_of_array
from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.names import goes_by_name
from nbpar.wire.special import REDUCERS

__all__ = ["NamesOnlyPickler", "dump_with_dill"]


class _DillPickler(dill.Pickler):  # type: ignore[misc]  # dill is untyped
    """dill's pickler with our reducers for what must not be its own way."""

    def __init__(
        self, file: io.BytesIO, rules: ByValuePickler, buffer_callback: Callable[[pickle.PickleBuffer], Any]
    ) -> None:
        super().__init__(file, protocol=5, recurse=True, byref=False, buffer_callback=buffer_callback)
        self._rules = rules

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if (reducer := reducer_of_array(kind)) is not None:
            return reducer(self, obj)  # dill's own way copies it into the pickle
        if issubclass(kind, type) or kind in self._rules.shared_types:
            return self._rules.reducer_override(obj)
        return NotImplemented


class NeedsDillError(Exception):
    """The data holds something that goes by value."""


class NamesOnlyPickler(ByValuePickler):
    """Pickles data at C speed, and gives up at the first thing that is dill's to pickle."""

    def classify(self, kind: type) -> Any:
        """As its base does, but refuse what has a way of its own there."""
        if kind is FunctionType:
            return _refuse_by_value
        return _refuse if kind in REDUCERS else super().classify(kind)


def _refuse_by_value(_pickler: ByValuePickler, function: FunctionType) -> Any:
    if goes_by_name(function):
        return NotImplemented
    raise NeedsDillError


def _refuse(_pickler: ByValuePickler, _obj: Any) -> Any:
    raise NeedsDillError


def dump_with_dill(
    obj: object,
    file: io.BytesIO,
    rules: ByValuePickler,
    buffer_callback: Callable[[pickle.PickleBuffer], Any],
) -> None:
    """Pickle `obj` into `file`; what is met is recorded in `rules`."""
    _DillPickler(file, rules, buffer_callback).dump(obj)
