"""The sentences of refusals of the loop form: what is in the way, and what to write instead.

Owns their wording. Each names the name and says what to do; :mod:`nbpar.notebook.source` adds the line with the place
underlined. Used by :mod:`nbpar.notebook.effects` and :mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

from nbpar.notebook.shapes import path_of, root_of

__all__ = ["NAMESPACE_FUNCTIONS"]

NAMESPACE_FUNCTIONS = frozenset(["exec", "eval", "globals", "locals", "vars", "dir"])


def _said(own: Collection[str], targets: Collection[str]) -> str:
    """What a value may be a part of."""
    name = min(own)
    if name.startswith("module "):
        return f"the module `{name.removeprefix('module ')}`"
    return f"the item (`{name}`)" if name in targets else f"`{name}`"


def _owner(root: str, own: Collection[str], targets: Collection[str]) -> str:
    """The object that is changed: a name, or what the name may stand for."""
    if root in own:
        return "the item" if root in targets else f"`{root}`, which is outside of the loop"
    return f"`{root}`, which may be {_said(own, targets)} or a part of it"


def store(
    target: ast.Attribute | ast.Subscript, statement: ast.stmt, own: Collection[str], targets: Collection[str]
) -> str:
    """A store or deletion that is no effect."""
    written = ast.unparse(target)
    root, path = root_of(target), path_of(target)
    owner = _owner(root.id, own, targets) if isinstance(root, ast.Name) else _said(own, targets)
    if isinstance(statement, ast.Delete):
        return (
            f"`del {written}` changes {owner}, and that would be lost in a worker. Collect what is to be deleted in "
            f"a list and delete it after the loop"
        )
    match target:
        case ast.Subscript(value=ast.Attribute(value=table, attr="loc" | "iloc" | "at" | "iat")):
            return (
                f"`{written} = ...` changes {owner}, and that would be lost in a worker. Collect the values with "
                f"`values.append(...)`, and after the loop write `{ast.unparse(table)}[column] = values`"
            )
    if isinstance(target, ast.Attribute):
        return (
            f"`{written} = ...` sets an attribute of {owner}, and that would be lost in a worker. Collect the values "
            f"with `values.append(...)` and set the attributes after the loop"
        )
    if path is not None:
        return (
            f"`{written} = ...` changes {owner}, and that would be lost in a worker. Write the change on the outer "
            f"name itself, or change a copy"
        )
    return (
        f"`{written} = ...` changes a part of {owner} that is reached through an attribute or a call. Bind it to a "
        f"name before the loop, as in `part = {ast.unparse(target.value)}`, and write `part[...] = ...`"
    )


def method(base: ast.expr, name: str, own: Collection[str], targets: Collection[str]) -> str:
    """A call of a method that changes an object, and is no effect."""
    written = f"{ast.unparse(base)}.{name}(...)"
    root, path = root_of(base), path_of(base)
    owner = _owner(root.id, own, targets) if isinstance(root, ast.Name) else _said(own, targets)
    change = f"`{written}` changes {owner}"
    if name in ("append", "extend", "add", "update"):
        if isinstance(base, ast.Call) and isinstance(base.func, ast.Attribute) and base.func.attr == "setdefault":
            container, key = ast.unparse(base.func.value), ast.unparse(base.args[0]) if base.args else "key"
            return (
                f"{change}. Make `{container}` a `collections.defaultdict`, and write `{container}[{key}].{name}(...)`"
            )
        if path is None:
            return (
                f"{change}, and that would be lost in a worker. Bind the container to a name before the loop, as in "
                f"`out = {ast.unparse(base)}`, and write `out.{name}(...)`"
            )
        if path[0].id in own:
            return f"{change} in the middle of an expression. Write it as a statement of its own, in an `if` if need be"
        return (
            f"{change}, and a change through another name would be lost in a worker. Write it on the outer name "
            f"itself, as in `{min(own)}[key].{name}(...)`, or change a copy"
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
    return f"{change}, and that would be lost in a worker. {advice}"


def unclear_call(text: str, name: str) -> str:
    """Not exactly one argument."""
    return f"`{text}` is not understood: `{name}` is recorded with exactly one argument"


def starred_argument(text: str) -> str:
    """`*` or `**` in an effect."""
    return f"`{text}` is recorded for plain arguments only; give the object without its `*`"


def odd_target(written: str, setter: str) -> str:
    """An outer object's item as the target of for, with or a comprehension."""
    return f"`{written}` is set by {setter}. Give that a plain name, and write `{written} = name` below"


def item_or_not(written: str) -> str:
    """The item on one path, something else on another."""
    return (
        f"`{written}` changes the item on some paths through the loop and something else on others. Give one of the "
        f"two another name"
    )


def next_of(written: str, name: str, targets: Collection[str]) -> str:
    """What next() takes from an outer iterator."""
    where = "the item" if name in targets else "an iterator outside of the loop"
    return (
        f"`next({written})` takes from {where}: which value comes next depends on the iterations before. Pair the "
        f"values with the items, as in `for x, y in zip(xs, {name}):`"
    )


def namespace_function(name: str) -> str:
    """Functions that reach names by their text."""
    return f"`{name}()` in a loop's body could reach any name, so nothing can be known of it. Use the names themselves"


def function_changes(function: str, argument: str, dotted: str) -> str:
    """A library function that changes its argument."""
    if dotted.endswith(".add.at"):
        return f"`{function}({argument}, ...)` changes `{argument}`. Write `{argument}[...] += ...`"
    return (
        f"`{function}({argument}, ...)` changes `{argument}`, which is outside of the loop or may be, and would be "
        f"lost in a worker. Work on a copy, or do it after the loop"
    )


def handed_on(written: str, name: str) -> str:
    """A bound method that changes something."""
    return f"`{written}` is handed on without being called, and changes `{name}` when it is. Call it: `{written}(...)`"


def in_place(function: str) -> str:
    """The argument inplace=True."""
    return (
        f"`{function}(..., inplace=True)` changes an object that is not the iteration's own. Write "
        f"`new = {function}(...)`"
    )


def out_argument(argument: str, name: str) -> str:
    """An argument that is written to."""
    return (
        f"`out={argument}` writes to `{name}`, which is outside of the loop, and that would be lost in a worker. "
        f"Write `{argument}[...] = ...`, or leave `out` away and collect the results"
    )


def random(function: str) -> str:
    """A generator of random numbers that all iterations share."""
    return (
        f"`{function}` draws from a generator that the iterations share, so each depends on those before. Use `rng = "
        f"nbpar.current_task().rng` and `rng.random()`, or write `%%parallel --seed 1` for a generator of its own in "
        f"each task"
    )


def inside(name: str) -> str:
    """An effect in a nested function."""
    return (
        f"`{name}` is changed by a function or a class that the loop makes. Let the function return the value, and "
        f"write the change in the loop's body itself"
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


def deleted(name: str) -> str:
    """A name that may be unset again."""
    return f"`{name}` may be deleted already when it is read here. Set it again in each iteration before"


def sometimes_deleted(name: str) -> str:
    """A name whose last value nobody can tell."""
    return (
        f"`{name}` is deleted in some iterations and set in others, so whether it exists after the loop depends on "
        f"all of them. Delete it after the loop"
    )


def maybe_swallowed(name: str) -> str:
    """A name that is set in a with that may end exceptions."""
    return (
        f"`{name}` is set in a `with` that may have ended an exception before, and is read where another one may be "
        f"ended. Set `{name}` before the `with` in each iteration"
    )


def changed_through(name: str, holder: str) -> str:
    """A local name whose object was stored and then changed where it is stored."""
    return (
        f"`{name}` was stored in `{holder}` and may be changed there by now, which is done later, in the kernel. "
        f"Finish `{name}` before it is stored"
    )


def two_names(name: str, class_name: str) -> str:
    """A name of the loop's that is also the class's."""
    return f"`{name}` is a name of the loop's and one of `class {class_name}`. Give one of the two another name"


def slot_changed_before(written: str, name: str) -> str:
    """An own slot that is read after it was changed."""
    return (
        f"`{written}` is read after the same iteration has changed `{name}`, which is done later, in the kernel. "
        f"Keep the new value in a name of its own: `new = ...`, `{written} = new`"
    )


def other_slot(written: str, name: str, key: str) -> str:
    """A slot that other iterations may change."""
    return (
        f"`{written}` is read here and `{name}` is changed by this loop, so an iteration would need what others have "
        f"done. Only `{name}[{key}]` itself may be read; for anything else read from a copy made before the loop"
    )


def iterable_reads(name: str) -> str:
    """The iterable's values are computed from what the loop sets."""
    return (
        f"`{name}` is set by this loop, and what it goes over is computed from `{name}` while it goes on. Make it a "
        f"list before: `xs = list(...)`"
    )


def deletes(name: str) -> str:
    """The deletion of an outer name."""
    return f"`del {name}` deletes a name of the notebook's. Delete it after the loop"


def iterable_changes(name: str) -> str:
    """The loop goes over what it changes."""
    return (
        f"`{name}` is changed by this loop, which goes over it at the same time. Go over a copy: `list({name})`, or "
        f"`list(...)` around all of it"
    )


def adds_list(name: str, own: Collection[str], targets: Collection[str]) -> str:
    """`+=` with a list on a name that may be an outer list."""
    owner = _owner(name, own, targets)
    instead = f"{name}.extend(...)" if name in own else f"{name} = {name} + [...]"
    return f"`{name} += [...]` changes {owner}, and that would be lost in a worker. Write `{instead}`"
