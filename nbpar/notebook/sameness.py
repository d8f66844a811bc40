"""Whether two values are the same, bit for bit as far as types tell, and where they begin to differ.

Owns that comparison alone. ``==`` will not do: ``nan != nan``, ``1 == True``, ``0.0 == -0.0``, and of an array it is
one more array. Called by :mod:`nbpar.notebook.rehearsal`.
"""

from __future__ import annotations

import math
import struct
import sys
import types
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["difference"]

Difference = tuple[str, Any, Any]
"""The way to a part, as in ``[2]['mean']`` (nothing: the whole value), and that part of either value."""

_NAMED = (type, types.BuiltinFunctionType, types.ModuleType)


def difference(one: Any, other: Any) -> Difference | None:
    """Where two values begin to differ; None when they are the same.

    Parts are compared with their types: numbers by their bits, but all NaN are one; lists, tuples and dicts in order;
    sets without; arrays with ``dtype`` and shape; pandas by its own exact test; other objects by what they would
    pickle, or by their own ``==`` where that says that they are equal.

    Examples
    --------
    >>> difference([1, {"a": float("nan")}], [1, {"a": float("nan")}])
    >>> difference([1, {"a": 0.1}], [1, {"a": 0.2}])
    ("[1]['a']", 0.1, 0.2)
    """
    try:
        return _Comparison().of(one, other, "")
    except RecursionError:  # too deep to go through; so `==` is, most likely
        return None if _says_equal(one, other) else ("", one, other)


class _Comparison:
    """One comparison, with the pairs that it has met: objects may hold themselves."""

    def __init__(self) -> None:
        self._met: dict[tuple[int, int], tuple[Any, Any]] = {}  # held, so that no id is used again

    def of(self, one: Any, other: Any, path: str) -> Difference | None:
        if one is other:
            return None
        kind = type(one)
        if kind is not type(other):
            return path, one, other
        plain = _are_same_plain(one, other, kind)
        if plain is not None:
            return None if plain else (path, one, other)
        if (id(one), id(other)) in self._met:
            return None
        self._met[id(one), id(other)] = one, other
        if isinstance(one, list | tuple | dict):
            found = self._of_container(one, other, path)
        elif isinstance(one, set | frozenset):
            found = None if _are_same_sets(one, other) else (path, one, other)
        elif isinstance(one, BaseException):
            found = self.of(one.args, other.args, f"{path}.args")
        elif isinstance(one, types.FunctionType):
            found = self._of_functions(one, other, path)
        else:
            return self._of_objects(one, other, path)
        return found or self._of_attributes(one, other, path)

    def _of_container(self, one: Any, other: Any, path: str) -> Difference | None:
        if len(one) != len(other):
            return path, one, other
        if isinstance(one, dict):
            if self.of(list(dict.keys(one)), list(dict.keys(other)), ""):
                return path, one, other
            parts: Iterator[tuple[Any, Any, Any]] = zip(
                map(_key, dict.keys(one)), dict.values(one), dict.values(other), strict=True
            )
        else:
            names: Sequence[str] = getattr(one, "_fields", ()) if isinstance(one, tuple) else ()
            marks = (f".{name}" for name in names) if len(names) == len(one) else (f"[{i}]" for i in range(len(one)))
            parts = zip(marks, one, other, strict=True)
        for mark, left, right in parts:
            if found := self.of(left, right, path + mark):
                return found
        return None

    def _of_attributes(self, one: Any, other: Any, path: str) -> Difference | None:
        """What instances of subclasses have beside their content."""
        if isinstance(one, defaultdict) and (found := self.of(one.default_factory, other.default_factory, "")):
            return f"{path}.default_factory", found[1], found[2]
        mine, others = getattr(one, "__dict__", None), getattr(other, "__dict__", None)
        if not mine and not others:
            return None
        found = self.of(mine, others, "")
        return None if found is None else (f"{path}.__dict__{found[0]}", found[1], found[2])

    def _of_functions(self, one: Any, other: Any, path: str) -> Difference | None:
        cells = [[cell.cell_contents for cell in function.__closure__ or ()] for function in (one, other)]
        mine, others = (
            (function.__code__, function.__defaults__, function.__kwdefaults__, *held)
            for function, held in zip((one, other), cells, strict=True)
        )
        return (path, one, other) if self.of(mine, others, "") else None

    def _of_objects(self, one: Any, other: Any, path: str) -> Difference | None:
        kind = type(one)
        if isinstance(one, _NAMED):
            name = "__qualname__" if hasattr(one, "__qualname__") else "__name__"
            same = [getattr(each, name, None) for each in (one, other)]
            return None if same[0] == same[1] else (path, one, other)
        library = kind.__module__.partition(".")[0]
        if library == "numpy" and _is_array(one):
            return self._of_arrays(one, other, path)
        if library == "pandas" and (known := _of_pandas(one, other)) is not None:
            return None if known else (path, one, other)
        try:
            mine, others = (_parts(each) for each in (one, other))
        except Exception:  # noqa: BLE001  # no pickle of it can be made, or its own code raises
            return None if _says_equal(one, other) else (path, one, other)
        found = self.of(mine[0], others[0], "") and (path, one, other)
        for name in () if found else sorted({*mine[1], *others[1]}):
            if name not in mine[1] or name not in others[1]:
                found = path, one, other
            else:
                found = self.of(mine[1][name], others[1][name], f"{path}.{name}")
            if found:
                break
        return None if found is None or _says_equal(one, other) else found

    def _of_arrays(self, one: Any, other: Any, path: str) -> Difference | None:
        numpy = sys.modules["numpy"]
        if one.dtype != other.dtype or one.shape != other.shape:
            return path, one, other
        if one.dtype.hasobject:
            return self.of(one.tolist(), other.tolist(), path)
        if one.tobytes() == other.tobytes():
            return None
        if one.dtype.kind not in "fc":
            return path, one, other
        both = numpy.isnan(one) & numpy.isnan(other)
        left, right = (numpy.where(both, 0, each).astype(one.dtype) for each in (one, other))
        return None if left.tobytes() == right.tobytes() else (path, one, other)


def _is_array(one: Any) -> bool:
    numpy = sys.modules["numpy"]
    return type(one) is numpy.ndarray or isinstance(one, numpy.generic)


def _are_same_plain(one: Any, other: Any, kind: type) -> bool | None:
    """Of plain values, whether they are the same; None of all others."""
    if kind is float:
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    if kind is complex:
        return bool(_are_same_plain(one.real, other.real, float) and _are_same_plain(one.imag, other.imag, float))
    if kind in (int, str, bytes, bytearray, bool, range, types.CodeType):
        return bool(one == other)
    return None


def _are_same_sets(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    # Equal elements may be of other types, and NaN equals nothing.
    left, right = ([(type(each).__qualname__, repr(each)) for each in group] for group in (one, other))
    return sorted(left) == sorted(right) or (one == other and _kinds(one) == _kinds(other))


def _kinds(group: Any) -> list[str]:
    return sorted(type(each).__qualname__ for each in group)


def _of_pandas(one: Any, other: Any) -> bool | None:
    pandas = sys.modules["pandas"]
    testing = pandas.testing
    for kind, check in (
        (pandas.DataFrame, testing.assert_frame_equal),
        (pandas.Series, testing.assert_series_equal),
        (pandas.Index, testing.assert_index_equal),
    ):
        if isinstance(one, kind):
            try:
                check(one, other, check_exact=True)
            except AssertionError:
                return False
            return True
    return None


def _parts(one: Any) -> tuple[Any, dict[str, Any]]:
    """What an object would pickle: how it is made, and its attributes by name."""
    reduced = one.__reduce_ex__(4)
    if isinstance(reduced, str):
        return reduced, {}
    made = [*reduced[:2], *(list(part) if part is not None else None for part in reduced[3:5])]
    state = reduced[2] if len(reduced) > 2 else None
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # of slots
        state = {**(state[0] or {}), **state[1]}
    if isinstance(state, dict) and all(isinstance(name, str) for name in state):
        return made, state
    return [*made, state], {}


def _says_equal(one: Any, other: Any) -> bool:
    if type(one).__module__ in sys.stdlib_module_names:  # a deque has `maxlen`, which `==` does not know
        return False
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  # an __eq__ of the user's
        return False


def _key(key: object) -> str:
    text = repr(key)
    return f"[{text if len(text) <= 40 else text[:37] + '...'}]"
