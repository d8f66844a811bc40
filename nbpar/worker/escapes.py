"""What in a task's values cannot go out: functions that the body of a loop made, and what does not travel.

Owns the look through the values, by a pickler that keeps nothing, so that it goes the ways that sending goes. Used by
:mod:`nbpar.worker.recorder`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Collection
from typing import Any

from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.names import goes_by_name

__all__ = ["codes_in", "made_of", "why_not"]

Codes = Collection[types.CodeType]
_GENERATORS = {types.GeneratorType: "gi_code", types.CoroutineType: "cr_code", types.AsyncGeneratorType: "ag_code"}


class _FoundError(Exception):
    """The body has made something in the values; the message says what."""


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


class _Finder(ByValuePickler):
    """Goes through values as they are sent, and stops at what the body has made."""

    def __init__(self, codes: Codes) -> None:
        file: Any = _Nowhere()
        self._codes = codes
        self._classes = {code.co_qualname for code in codes if not code.co_flags & inspect.CO_OPTIMIZED}
        super().__init__(file, buffer_callback=lambda _: False, in_worker=True)

    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for everything but exact builtins."""
        kind = type(obj)
        if kind is types.FunctionType:
            if obj.__code__ in self._codes:
                raise _FoundError("a lambda" if obj.__name__ == "<lambda>" else f"a function (`{obj.__name__}`)")
        elif isinstance(obj, type):
            if obj.__qualname__ in self._classes and not goes_by_name(obj):
                raise _FoundError(f"a class (`{obj.__name__}`)")
        elif kind in _GENERATORS and getattr(obj, _GENERATORS[kind]) in self._codes:
            raise _FoundError("a generator")
        return super().reducer_override(obj)


def made_of(codes: Codes, values: list[Any]) -> str:
    """What of some values was made of that code: a function, class or generator; nothing when nothing was."""
    try:
        _Finder(codes).dump(values)
    except _FoundError as found:
        return str(found)
    except Exception:  # noqa: BLE001  # what cannot travel is the task's own error when its result is sent
        return ""
    return ""


def why_not(codes: Codes, value: object) -> str:
    """Why a last value cannot travel, in a few words; nothing when it can."""
    try:
        _Finder(codes).dump(value)
    except _FoundError as found:
        return f"it is or holds {found}, made by the loop's body"
    except Exception as error:  # noqa: BLE001  # whatever pickling raises, code of the user's too
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def codes_in(code: types.CodeType) -> frozenset[types.CodeType]:
    """The code of all functions and classes that a function makes, and of those that these make."""
    found: set[types.CodeType] = set()
    todo = [code]
    while todo:
        inner = [one for one in todo.pop().co_consts if isinstance(one, types.CodeType)]
        found.update(inner)
        todo += inner
    return frozenset(found)
