"""Which objects an effect may change: those of which it is known what the statement does, and how it is undone.

Owns the table of types for each kind of effect, and what a nested effect (``groups[key].append(x)``) can come to.
Called by :mod:`nbpar.notebook.captures` before the tasks run; :mod:`nbpar.notebook.undo` looks again at what the replay
meets.
"""

from __future__ import annotations

import sys
import types
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nbpar.notebook.loop_model import Kind, Loop, Site
from nbpar.notebook.reach import ATOMS, Changed, OutOfTime, Search
from nbpar.notebook.source import Refused

__all__ = ["add_changed", "check_types", "inner_of"]

_DICTS: tuple[type, ...] = (dict, OrderedDict, defaultdict, Counter)
_ROWS: tuple[type, ...] = (list, deque, bytearray, array)
_ALLOWED: Mapping[Kind, tuple[type, ...]] = {
    "append": _ROWS,
    "extend": _ROWS,
    "add": (set,),
    "update": (set, *_DICTS),
    "setitem": (*_ROWS, *_DICTS),
    "augitem": (*_ROWS, *_DICTS),
}
_WITH_ARRAYS = ("setitem", "augitem", "augname")
_IN_PLACE: tuple[type, ...] = (*_ROWS, *_DICTS, set)
_OPERATORS = "add and floordiv lshift matmul mod mul or pow rshift sub truediv xor"
_METHODS = tuple(f"__i{name}__" for name in _OPERATORS.split())
_PATH: tuple[type, ...] = (tuple, *_ROWS, *_DICTS)
_SAYS = {"setitem": "stores in", "augitem": "changes an item of", "augname": "changes"}
_MAX_DEPTH = 8


def check_types(loop: Loop, values: Mapping[str, Any], *, only: Site | None = None) -> None:
    """Whether each effect is on an object of a type that it is known for.

    Parameters
    ----------
    values : mapping
        What the names are bound to; an effect on a name that is not there is left to fail as it does serially.
    only : Site, optional
        The site to be looked at; by default all that are not on items.

    Raises
    ------
    Refused
    """
    for site in loop.sites if only is None else (only,):
        if site.name not in values or (site.on_item and only is None):
            continue
        value = values[site.name]
        if site.kind in ("extreme", "touch"):
            continue
        if site.kind == "augname":
            _check_in_place(site, value)
            continue
        for holder in _path_to(site, value):
            _check(site, holder, _PATH, arrays=True)
        for target in inner_of(value, site.depth):
            _check(site, target, _ALLOWED[site.kind], arrays=site.kind in _WITH_ARRAYS)


def _path_to(site: Site, value: Any) -> Iterator[Any]:
    for depth in range(site.depth):
        yield from inner_of(value, depth)


def inner_of(value: Any, depth: int) -> Iterable[Any]:
    """What `depth` subscripts of an object can give, each object once."""
    found = [value]
    for _ in range(min(depth, _MAX_DEPTH)):
        parts: dict[int, Any] = {}
        for one in found:
            values: Iterable[Any] = ()
            if isinstance(one, dict):
                values = one.values()
            elif isinstance(one, list | tuple | deque) or (_is_array(one) and one.dtype.hasobject):
                values = one if not _is_array(one) else one.ravel().tolist()
            elif _is_array(one) and one.ndim > 1:
                continue  # rows are views: what is changed is the array
            parts.update((id(part), part) for part in values if type(part) not in ATOMS)
        found = list(parts.values())
    return found


def _check(site: Site, target: Any, allowed: tuple[type, ...], *, arrays: bool) -> None:
    kind = type(target)
    if kind in allowed or (arrays and _is_array(target)):
        return
    if kind in (str, bytes, int, float, bool, tuple, frozenset, type(None)):
        return  # Python refuses it itself, with the line
    does = _SAYS.get(site.kind, f"calls `{site.kind}` of")
    advice = "Collect the values in a list, and change it after the loop"
    if site.on_item:
        advice = f"Work on a copy, `{site.name} = {site.name}.copy()`, and collect that"
    elif kind.__module__.partition(".")[0] == "pandas":
        advice = f"Collect in a dict of its own, `new[key] = value`, and put that into `{site.name}` after the loop"
    raise Refused(
        f"`{site.text}` {does} an object of type {kind.__qualname__}, of which nbpar does not know what that does, nor "
        f"the way back. {advice}.",
        site.place,
    )


def _check_in_place(site: Site, value: Any) -> None:
    kind = type(value)
    if kind in _IN_PLACE or _is_array(value) or kind.__module__ == "builtins":
        return
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, getattr(numpy, "generic", ())):
        return
    if any(hasattr(kind, name) for name in _METHODS):
        raise Refused(
            f"`{site.text}` changes an object of type {kind.__qualname__} in place, and nbpar does not know the way "
            f"back. Collect the values in a list, and add them up after the loop.",
            site.place,
        )


def _is_array(value: Any) -> bool:
    return type(value) is getattr(sys.modules.get("numpy"), "ndarray", None)


def add_changed(site: Site, namespace: Mapping[str, Any], changed: Changed) -> None:
    """Add what a site can change in place."""
    if site.kind == "extreme" or type(namespace[site.name]) in ATOMS:
        return
    if site.kind == "augname" and not (type(namespace[site.name]) in _IN_PLACE or _is_array(namespace[site.name])):
        return
    changed.add_root(site.name)
    for depth in range(site.depth):
        for holder in inner_of(namespace[site.name], depth):
            values = inner_of(holder, 1)
            if isinstance(holder, list | tuple | deque | dict):
                values = holder.values() if isinstance(holder, dict) else holder
            changed.add_parts(site.name, values)
            if type(holder) is defaultdict:
                _check_factory(site, holder.default_factory)


def _check_factory(site: Site, factory: Any) -> None:
    """What makes missing items makes new ones, and hands out none that is there already."""
    if not isinstance(factory, types.FunctionType):
        return
    met: list[object] = []

    def meet(value: Any) -> None:
        met.append(value)

    try:
        for cell in factory.__closure__ or ():
            met += [cell.cell_contents] if type(cell.cell_contents) in _IN_PLACE else []
        met += [one for one in factory.__defaults__ or () if type(one) in _IN_PLACE]
        Search(Changed({}), lambda _: None, meet).find(factory)
    except (OutOfTime, ValueError):
        met.append(factory)
    names = factory.__code__.co_names
    known = factory.__globals__
    met += [known[name] for name in names if type(known.get(name)) in _IN_PLACE]
    if any(type(one) in _IN_PLACE or _is_array(one) for one in met):
        raise Refused(
            f"what `{site.name}` makes for a missing key may be an object that is there already; use `list`, `dict` or "
            f"another type as its default_factory.",
            site.place,
        )
