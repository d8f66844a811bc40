"""The sentences of refusals of the loop form: what is in the way, and what to write instead.

Owns their wording. Each names the name and says what to do; :mod:`nbpar.notebook.source` adds the line with the place
underlined. Used by :mod:`nbpar.notebook.effects` and :mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

__all__ = ["NAMESPACE_FUNCTIONS"]

NAMESPACE_FUNCTIONS = frozenset(["exec", "eval", "globals", "locals", "vars", "dir"])

_Path = tuple[ast.Name, list[ast.expr]] | None


def _said(own: Collection[str], targets: Collection[str]) -> str:
    """What a value may be a part of."""
    name = sorted(own)[0]
    if name.startswith("module "):
        return f"the module `{name.removeprefix('module ')}`"
    return f"the item (`{name}`)" if name in targets else f"`{name}`"


def _owner(root: str, own: Collection[str], targets: Collection[str]) -> str:
    """The object that is changed: a name, or what the name may stand for."""
    if root in own:
        return "the item" if root in targets else f"`{root}`, which is outside of the loop,"
    return f"`{root}`, which may be {_said(own, targets)} or a part of it,"


def store(
    target: ast.Attribute | ast.Subscript,
    statement: ast.stmt,
    own: Collection[str],
    targets: Collection[str],
    path: _Path,
) -> str:
    """A store or deletion that is no effect."""
    written = ast.unparse(target)
    root: ast.expr = target
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    owner = _owner(root.id, own, targets) if isinstance(root, ast.Name) else _said(own, targets)
    if isinstance(statement, ast.Delete):
        return (
            f"`del {written}` changes {owner} and would be lost in a worker. Collect what is to be deleted in a list "
            f"and delete it after the loop"
        )
    if isinstance(target, ast.Attribute):
        return (
            f"`{written} = ...` sets an attribute of {owner} and would be lost in a worker. Collect the values with "
            f"`values.append(...)` and set the attributes after the loop"
        )
    if path is not None:
        return (
            f"`{written} = ...` changes {owner} and would be lost in a worker. Write the change on the outer name "
            f"itself, or change a copy"
        )
    return (
        f"`{written} = ...` changes a part of {owner} that is reached through an attribute or a call. Bind it to a name "
        f"before the loop, as in `part = {ast.unparse(target.value)}`, and write `part[...] = ...`"
    )


def method(
    node: ast.Call, base: ast.expr, name: str, own: Collection[str], targets: Collection[str], path: _Path
) -> str:
    """A call of a method that changes an object, and is no effect."""
    written = f"{ast.unparse(base)}.{name}(...)"
    root: ast.expr = base
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    owner = _owner(root.id, own, targets) if isinstance(root, ast.Name) else _said(own, targets)
    change = f"`{written}` changes {owner}"
    if name in ("append", "extend", "add", "update"):
        if path is None:
            return (
                f"{change} and would be lost in a worker. Bind the container to a name before the loop, as in "
                f"`out = {ast.unparse(base)}`, and write `out.{name}(...)`"
            )
        if path[0].id in own:
            return f"{change} in the middle of an expression. Write it as a statement of its own, in an `if` if need be"
        return (
            f"{change}: a change through another name would be lost in a worker. Write it on the outer name itself, as "
            f"in `{_said(own, targets).strip('`')}[key].{name}(...)`, or change a copy"
        )
    advice = {
        "insert": "Append in the loop and put things in order after it",
        "sort": "Sort after the loop, or use `sorted(...)`, which gives a new list",
        "reverse": "Reverse after the loop, or use `reversed(...)`",
        "setdefault": "Use a `collections.defaultdict`: `groups[key].append(value)`",
        "clear": "Clear it before or after the loop",
        "pop": "Read it with `[...]` in the loop and take it out after the loop",
        "fill": "Assign to its items instead, as in `a[i] = value`",
        "appendleft": "Append in the loop, and go through it from the other end after the loop",
    }.get(name, "Do it after the loop, or change a copy")
    return f"{change} and would be lost in a worker. {advice}"


def unclear_call(text: str, name: str) -> str:
    """Not exactly one argument."""
    return f"`{text}` is not understood: `{name}` is recorded with exactly one argument"


def starred_argument(text: str) -> str:
    """`*` or `**` in an effect."""
    return f"`{text}` is recorded for plain arguments only; give the object without its `*`"


def odd_target(written: str, statement: ast.stmt) -> str:
    """An outer object's item as the target of for or with."""
    word = "with ... as" if isinstance(statement, ast.With) else "for"
    return f"`{written}` is set by `{word}`. Give that a plain name, and write `{written} = name` below"


def item_or_not(written: str) -> str:
    """The item on one path, something else on another."""
    return (
        f"`{written}` changes the item on some paths through the loop and something else on others. Give one of the two "
        f"another name"
    )


def next_of(written: str, name: str, targets: Collection[str]) -> str:
    """next() of an outer iterator."""
    where = "the item" if name in targets else "an iterator outside of the loop"
    return (
        f"`next({written})` takes from {where}: which value comes next depends on the iterations before. Pair the values "
        f"with the items, as in `for x, y in zip(xs, {name}):`"
    )


def namespace_function(name: str) -> str:
    """exec and its kind."""
    return f"`{name}()` in a loop's body could reach any name, so nothing can be known of it. Use the names themselves"


def function_changes(function: str, argument: str, dotted: str) -> str:
    """A library function that changes its argument."""
    if dotted.endswith(".add.at"):
        return f"`{function}({argument}, ...)` changes `{argument}` and would be lost. Write `{argument}[...] += ...`"
    return (
        f"`{function}({argument}, ...)` changes `{argument}`, which is outside of the loop or may be, and would be lost "
        f"in a worker. Work on a copy, or do it after the loop"
    )


def handed_on(written: str, name: str) -> str:
    """A bound method that changes something."""
    return f"`{written}` is handed on without being called, and changes `{name}` when it is. Call it: `{written}(...)`"


def in_place(function: str, base: str) -> str:
    """inplace=True."""
    return f"`{function}(..., inplace=True)` changes an object that is not the iteration's own. Write `new = {function}(...)`"


def out_argument(argument: str, name: str) -> str:
    """out=."""
    return (
        f"`out={argument}` writes to `{name}`, which is outside of the loop, and would be lost in a worker. Write "
        f"`{argument}[...] = ...`, or leave `out` away and collect the results"
    )


def random(function: str) -> str:
    """A generator of random numbers that all iterations share."""
    return (
        f"`{function}` draws from a generator that the iterations share, so each depends on those before. Use "
        f"`rng = nbpar.current_task().rng` and `rng.random()`, or write `%%parallel --seed 1` for a generator of its own "
        f"in each task"
    )


def inside(name: str) -> str:
    """An effect in a nested function."""
    return (
        f"`{name}` is changed by a function or a class that the loop makes. Let the function return the value, and write "
        f"the change in the loop's body itself"
    )


def carried(name: str, hint: str) -> str:
    """A value of an earlier iteration."""
    return (
        f"`{name}` is carried from one iteration to the next: it is read here before the same iteration has surely set "
        f"it. {hint or 'Set it first in each iteration, or keep the loop serial'}"
    )


def read_accumulator(name: str, hint: str) -> str:
    """An outer name that the loop changes and reads."""
    return (
        f"`{name}` is changed by this loop and read here, so an iteration would need what those before have done. "
        f"{hint or 'Collect in the loop and look at it after the loop, or keep the loop serial'}"
    )
