"""Where functions that were rebuilt look up their globals: in a namespace of their own, or in one that stays.

A function that travels by value is rebuilt for each job, with globals of its own: each job sees the notebook as it was
at the call, and what a task changed is gone with it. In a worker of a pool with ``keep_globals`` all functions of a
module share one namespace, its *home*, for as long as the worker lives. What comes there again as it came before is
not taken over, so what the worker's own code has made of it stays; what the notebook has changed since is.

Owns the homes of this process, and the two functions that pickles of functions name. :mod:`nbpar.wire.byvalue` writes
those names; :mod:`nbpar.worker.contents` turns homes on; :mod:`nbpar.wire.classes` asks about attributes of classes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

from cloudpickle import cloudpickle as cp

__all__ = ["are_kept", "keep", "make_function", "news", "set_function_state"]

Look = Any
LookAt = Callable[[object], Look]
AreSame = Callable[[Look, Look], bool]

_looks: tuple[LookAt, AreSame] | None = None  # None: nothing is kept
_homes: dict[str, dict[str, Any]] = {}  # by module; end with the process
_given: dict[tuple[str, str], dict[str, Look]] = {}  # what came last, by owner and name


def keep(look_at: LookAt, are_same: AreSame) -> None:
    """Keep globals from now on, in this process.

    Parameters
    ----------
    look_at : callable
        Writes down all that an object holds; None for code, and where that is too much: it counts as changed.
    are_same : callable
        Compares two of what it wrote.
    """
    global _looks
    _looks = look_at, are_same


def are_kept() -> bool:
    """Whether functions of this process have homes."""
    return _looks is not None


def make_function(code: types.CodeType, own: dict[str, Any], *args: Any) -> types.FunctionType:
    """A function without its globals; named inside pickles.

    Parameters
    ----------
    own : dict
        The namespace that it shares with the other functions of the pickle; has the module's name.
    """
    if _looks is not None:
        home = _homes.setdefault(own.get("__name__", ""), {})
        home.update(own)
        own = home
    made: types.FunctionType = cp._make_function(code, own, *args)
    return made


def set_function_state(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Fill a function, its globals included; named inside pickles."""
    if _looks is not None:
        known = function.__globals__
        more = state[1]
        more["__globals__"] = news(("", known.get("__name__", "")), known, more["__globals__"])
    cp._function_setstate(function, state)


def news(owner: tuple[str, str], known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What of the names that came is to be bound.

    Parameters
    ----------
    owner : tuple of str
        Of a kind of owner, its name: a module, a class.
    known : mapping
        What the names are bound to here.
    given : mapping
        What came from the kernel.
    """
    if _looks is None:
        return dict(given)
    look_at, are_same = _looks
    is_new = owner not in _given
    before = _given.setdefault(owner, {})
    taken = {}
    for name, value in given.items():
        now = look_at(value)
        if name in before:
            last, before[name] = before[name], now
            if last is None or now is None or not are_same(last, now):
                taken[name] = value
        else:
            before[name] = now
            if is_new or name not in known:  # else the worker has set it by itself
                taken[name] = value
    return taken
