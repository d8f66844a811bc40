"""What the dashboard calls a call of `Parallel`, and how many tasks it will have.

joblib's backends are told neither. The name is found from who called: inside of scikit-learn the estimator at work, or
its function; elsewhere the function of the first task. The number is the iterable's, where it has one, or can be told
from the generator expression around it. All of this is for the eye: where something is not as expected, the card has
the function's name and a count without a total. Called by :mod:`nbpar.interop.joblib.backend` in the thread that calls
`Parallel`.
"""

from __future__ import annotations

import dis
import operator
import types
from typing import Any

__all__ = ["caller_of", "length_of", "name_for", "tasks_of"]

_BETWEEN = ("joblib", "nbpar", "sklearn.utils.parallel")
"""Modules between a backend and whoever called `Parallel`."""

MAX_DEPTH = 5
"""Generators around generators that are looked into."""


def caller_of(frame: types.FrameType | None) -> types.FrameType | None:
    """The frame that called `Parallel`, from one inside of joblib."""
    while frame is not None and _is_between(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return frame


def _is_between(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in _BETWEEN)


def name_for(caller: types.FrameType | None) -> str | None:
    """What a call from here is called; None where the function's name says more."""
    if caller is None or not _is_of_sklearn(caller):
        return None
    code = caller.f_code
    if "self" in (*code.co_varnames[: code.co_argcount], *code.co_freevars):
        return type(caller.f_locals.get("self")).__name__
    return code.co_name if code.co_name.isidentifier() else None


def _is_of_sklearn(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "sklearn"


def tasks_of(caller: types.FrameType | None, iterable: Any) -> int | None:
    """How many tasks a call will have; None where that cannot be told."""
    if (found := length_of(iterable)) is not None:
        return found
    if caller is None or not _is_of_sklearn(caller) or caller.f_code.co_name != "evaluate_candidates":
        return None
    counts = [caller.f_locals.get(name) for name in ("n_candidates", "n_splits")]  # a search: each on each split
    return operator.mul(*counts) if all(type(count) is int for count in counts) else None


def length_of(iterable: Any, depth: int = 0) -> int | None:
    """How many items an iterable has; None where that cannot be told.

    Examples
    --------
    >>> length_of(x * x for x in range(5))
    5
    >>> length_of(x for x in range(5) if x) is None
    True
    """
    if isinstance(iterable, types.GeneratorType):
        if depth > MAX_DEPTH or not _is_one_to_one(iterable):
            return None
        frame: Any = iterable.gi_frame
        return length_of(frame.f_locals[".0"], depth + 1)
    if type(iterable) in (enumerate, zip) and depth <= MAX_DEPTH:
        inner = iterable.__reduce__()[1]  # the iterators inside; nothing is taken from them
        lengths = [length_of(one, depth + 1) for one in (inner[:1] if type(iterable) is enumerate else inner)]
        known = [length for length in lengths if length is not None]
        return min(known) if known and len(known) == len(lengths) else None
    length = getattr(type(iterable), "__len__", None) or getattr(type(iterable), "__length_hint__", None)
    if length is None:
        return None
    try:
        found = operator.length_hint(iterable, -1)
    except Exception:  # noqa: BLE001  # a user's `__len__` may raise anything: it is no more than a number on a card
        return None
    return found if found >= 0 else None


def _is_one_to_one(generator: Any) -> bool:
    """Whether it is a generator expression that has not begun, with one ``for`` and no condition."""
    frame = getattr(generator, "gi_frame", None)
    if frame is None or generator.gi_code.co_name != "<genexpr>" or ".0" not in frame.f_locals:
        return False
    names = [one.opname for one in dis.get_instructions(generator.gi_code)]
    return names.count("FOR_ITER") == 1 and not any(name.startswith("POP_JUMP") for name in names)
