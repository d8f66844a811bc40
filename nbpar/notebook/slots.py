"""Where a loop may read what it changes: its own slot, and what is looked at before the first iteration.

Owns two questions about accumulators. ``a[i] = f(a[i])`` with the loop's own ``i`` needs no other iteration; and
``for i in range(len(a))`` is through with ``a`` before the loop begins, as ``for k in list(d)`` is. Called by
:mod:`nbpar.notebook.loops`; that keys differ, and values are no views, is seen to when objects are looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping

from nbpar.notebook.effects import Effect
from nbpar.notebook.scopes import COMPREHENSIONS, free_names

__all__ = ["is_own", "own_slots", "reads_of_iterable"]

_THROUGH = frozenset(["len", "list", "tuple", "set", "frozenset", "dict", "sorted", "range", "sum", "min", "max"])


def own_slots(effects: Iterable[Effect], targets: Collection[str], rebound: Collection[str]) -> dict[str, ast.expr]:
    """Accumulators of which each iteration changes only ``name[key]``, with that key.

    Parameters
    ----------
    targets : collection of str
        Names of the loop's target.
    rebound : collection of str
        Names that the body binds: as a key they are not the loop's any more.

    Examples
    --------
    >>> statement = ast.parse("a[i] += 1").body[0]
    >>> list(own_slots([Effect("augitem", "a", 0, statement, statement.target)], ["i"], []))
    ['a']
    """
    keys: dict[str, list[ast.expr | None]] = {}
    for effect in effects:
        if not effect.on_item:
            keys.setdefault(effect.name, []).append(_key(effect, set(targets) - set(rebound)))
    return {
        name: found[0]
        for name, found in keys.items()
        if found[0] is not None and all(is_own(key, found[0]) for key in found)
    }


def is_own(key: ast.expr | None, own: ast.expr) -> bool:
    """Whether a key is the own one."""
    return key is not None and ast.dump(key) == ast.dump(own)


def _key(effect: Effect, targets: set[str]) -> ast.expr | None:
    if effect.kind not in ("setitem", "augitem") or effect.depth or not isinstance(effect.target, ast.Subscript):
        return None
    key = effect.target.slice
    parts = key.elts if isinstance(key, ast.Tuple) else [key]
    named = [part.id for part in parts if isinstance(part, ast.Name)]
    if len(named) + sum(isinstance(part, ast.Constant) for part in parts) < len(parts):
        return None
    return key if named and set(named) <= targets else None


def reads_of_iterable(
    loop: ast.For, changed: Collection[str], accumulators: Collection[str], slots: Mapping[str, ast.expr]
) -> Iterator[tuple[ast.Name, bool]]:
    """Names in the iterable whose values the loop's changes could reach while it goes on.

    Parameters
    ----------
    changed : collection of str
        Names that the loop binds.
    accumulators : collection of str
        Names whose objects it changes.
    slots : mapping
        From :func:`own_slots`.

    Yields
    ------
    (ast.Name, bool)
        And whether that is no harm, because the iteration's own slot is what it changes, after it was gone over.

    Examples
    --------
    >>> def names(text):
    ...     return [name.id for name, _ in reads_of_iterable(ast.parse(text).body[0], [], ["a"], {})]
    >>> names("for i in range(len(a)): pass"), names("for x in zip(a, b): pass")
    ([], ['a'])
    """
    own = _gone_over_in_step(loop, slots)
    for node, lazy in _reads(loop.iter, through=False):
        if lazy and node.id in changed:
            yield node, False
        elif node.id in accumulators and lazy is not None:
            yield node, node is own


def _reads(node: ast.AST, *, through: bool) -> Iterator[tuple[ast.Name, bool | None]]:
    """Names with whether they are read while the loop goes on (True), may be (False), or surely not (None)."""
    match node:
        case ast.Name():
            yield node, None if through else False
            return
        case ast.Lambda():
            for name in free_names(node):
                yield name, True
            return
        case ast.GeneratorExp():
            for name in free_names(node):
                yield name, None if through else True
            return
        case ast.Call(func=ast.Name(id=name)) if name in _THROUGH:
            through = True
        case ast.Call(func=ast.Attribute(attr="copy")) | ast.Attribute(attr="shape" | "size" | "ndim"):
            through = True
    if isinstance(node, COMPREHENSIONS):
        for name in free_names(node):
            yield name, None
        return
    for child in ast.iter_child_nodes(node):
        yield from _reads(child, through=through)


def _gone_over_in_step(loop: ast.For, slots: Mapping[str, ast.expr]) -> ast.Name | None:
    """``a`` in ``for i, x in enumerate(a)`` and the like, where ``a[i]`` is the own slot."""
    first = loop.target
    match loop.iter:
        case ast.Call(func=ast.Name(id="enumerate"), args=[ast.Name() as name], keywords=[]):
            is_pair = True
        case ast.Call(func=ast.Attribute(value=ast.Name() as name, attr="items"), args=[], keywords=[]):
            is_pair = True
        case ast.Call(func=ast.Attribute(value=ast.Name() as name, attr="keys"), args=[], keywords=[]):
            is_pair = False
        case ast.Name() as name:  # right for a dict only, which is looked at later
            is_pair = False
        case _:
            return None
    if is_pair:
        if not isinstance(loop.target, ast.Tuple | ast.List) or not loop.target.elts:
            return None
        first = loop.target.elts[0]
    key = slots.get(name.id)
    if not isinstance(first, ast.Name) or not isinstance(key, ast.Name) or key.id != first.id:
        return None
    names = [node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)]
    return name if names.count(key.id) == 1 else None
