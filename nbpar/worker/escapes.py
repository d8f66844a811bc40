"""What in a task's values cannot go out: functions that the body of a loop made, and what does not travel.

Owns the look through the values, by a pickler that keeps nothing, so that it goes the ways that sending goes. Used by
:mod:`nbpar.worker.recorder`.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Collection
from typing import Any

from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.names import goes_by_name

__all__ = ["MAX_TOLD_BYTES", "codes_in", "made_of", "why_not"]

MAX_TOLD_BYTES = 64 << 10
"""Of a last value that may turn out not to be the last: most names that are set under a condition are set again."""

LARGE = (
    "it has more than 64 KB; such values of names that an iteration need not set come back from the last iteration "
    "only, and not with --checkpoint"
)

Codes = Collection[types.CodeType]
_GENERATORS = {types.GeneratorType: "gi_code", types.CoroutineType: "cr_code", types.AsyncGeneratorType: "ag_code"}


class _FoundError(Exception):
    """Something was found in the values; the message says what."""


class _Nowhere:
    """A file that keeps nothing."""

    def __init__(self, limit_bytes: float) -> None:
        self._left_bytes = limit_bytes

    def write(self, data: Any) -> int:
        """Count what comes."""
        n_bytes = memoryview(data).nbytes
        self._left_bytes -= n_bytes
        if self._left_bytes < 0:
            raise _FoundError(LARGE)
        return n_bytes

    def beside(self, buffer: Any) -> bool:
        """Count what need not be copied."""
        self.write(buffer.raw())
        return False


class _Finder(ByValuePickler):
    """Goes through values as they are sent, and stops at what the body has made."""

    def __init__(self, codes: Codes, limit_bytes: float = math.inf) -> None:
        file: Any = _Nowhere(limit_bytes)
        self._codes = codes
        self._classes = {code.co_qualname for code in codes if not code.co_flags & inspect.CO_OPTIMIZED}
        super().__init__(file, buffer_callback=file.beside, in_worker=True)

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


def why_not(codes: Codes, value: object, limit_bytes: float = math.inf) -> str:
    """Why a last value does not travel, in a few words; nothing when it does."""
    if isinstance(value, str | bytes):
        return LARGE if len(value) > limit_bytes else ""
    try:
        _Finder(codes, limit_bytes).dump(value)
    except _FoundError as found:
        return str(found) if str(found) == LARGE else f"it is or holds {found}, made by the loop's body"
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
