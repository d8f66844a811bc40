"""The sentences of refusals that are about objects: what tasks have in common with the loop, and what they changed.

Owns their wording, and the place in the text that each is about: where the body names the object first. Used by
:mod:`nbpar.notebook.captures` and :mod:`nbpar.notebook.loop_items`; those about the text alone are in
:mod:`nbpar.notebook.loop_words`.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from typing import Any

from nbpar.errors import LostUpdateError
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.reach import Found
from nbpar.notebook.source import Place, Refused, Source, place_of
from nbpar.wire.unchanged import names_in
from nbpar.worker.strict import ITEM, NUMPY_RANDOM, RANDOM

__all__ = [
    "CHANGED_AFTERWARDS",
    "called",
    "changed_by_iterable",
    "file_or_iterator",
    "in_common",
    "of_items",
    "of_iterable",
    "place_of_name",
    "reads_name",
    "refused_at_run_time",
    "too_much",
]

_EARLIER = "which the loop changes: an iteration would see what earlier ones did"


def place_of_name(name: str, loop: Loop, source: Source) -> Place:
    """Where the body names something first."""
    found = [
        node
        for statement in (*loop.body, loop.iterable)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and node.id == name and hasattr(node, "lineno")
    ]
    if not found:
        return loop.place
    return place_of(min(found, key=lambda node: (node.lineno, node.col_offset)), source.text)


def in_common(name: str, root: Any, found: Found, namespace: Mapping[str, Any]) -> str:
    """A name of the body's leads to what the loop changes."""
    if found.is_itself and namespace.get(found.changed) is root:
        what = f"`{name}` is the same {type(root).__name__} as `{found.changed}`"
    elif found.is_itself:
        what = f"`{name}` is a part of `{found.changed}`, or a view of it"
    elif callable(root) or isinstance(root, types.ModuleType):
        what = f"`{name}` leads to `{found.changed}`"
    else:
        what = f"`{name}` holds `{found.changed}`, or a part of it"
    return f"{what}, {_EARLIER}. Use a copy of it in the loop, or collect in a container of its own."


def of_items(changed: str) -> str:
    """The items lead to what the loop changes."""
    return f"the items lead to `{changed}`, {_EARLIER}. Go through a copy, or collect in a container of its own."


def of_iterable(changed: str) -> str:
    """The loop goes through what it changes."""
    return (
        f"the loop goes through `{changed}` while it changes it. Go through a copy, as in `in list({changed})`, so "
        f"that it is clear what it goes through."
    )


def changed_by_iterable(name: str) -> str:
    """What makes the items changes what the body reads."""
    said = name if " " in name else f"`{name}`"
    return (
        f"going through the iterable changes {said}, which the loop uses: tasks begin when all items are there, so "
        f"they would see the end of it. Make a list of the items before the loop, if that is what "
        f"is meant."
    )


CHANGED_AFTERWARDS = (
    "what makes the items changes them after it has given them out, so that an iteration would see them as they are in "
    "the end. Have it give out copies, as in `yield list(row)`."
)
"""An iterable that fills the same list again and again."""


def called(function: object) -> str:
    """A function of the notebook's, by name."""
    label = getattr(function, "__name__", "")
    return f"`{label}`" if label.isidentifier() else "a function that the loop calls"


def reads_name(function: object, name: str, loop: Loop) -> str:
    """A function reads a name that the loop sets."""
    does = "changes" if name in loop.accumulators else "sets"
    return (
        f"{called(function)} reads the notebook's `{name}`, which the loop {does}: in a worker it would not see that. "
        f"Give it `{name}` as an argument, or use another name in the loop."
    )


def file_or_iterator(name: str, value: object, *, is_file: bool, is_itself: bool) -> str:
    """A captured object has a place in it that moves."""
    what = f"`{name}` {'is' if is_itself else 'leads to'} "
    if is_file:
        return (
            f"{what}an open file, and each task has a place in it of its own. Open it in the body, or collect the "
            f"lines and write them after the loop."
        )
    return (
        f"{what}an iterator ({type(value).__qualname__}), and each task has a copy that begins anew. Go through it in "
        f"the `for` itself, as in `zip(xs, it)`, or make a list of it before the loop."
    )


def too_much(what: str, loop: Loop) -> str:
    """The search has come to no end."""
    names = " and ".join(f"`{name}`" for name in sorted(loop.accumulators)) or "an item"
    return (
        f"{names} is held by more than its name, and {what} has too much in it to see that nothing there leads to it. "
        f"Make it new before the loop, as in `out = []`."
    )


def refused_at_run_time(
    error: LostUpdateError, loop: Loop, source: Source, namespace: Mapping[str, Any] | None = None
) -> Refused:
    """What tasks have changed, as a refusal of their loop."""
    first, namespace = error.names[0], namespace or {}
    if first in (RANDOM, NUMPY_RANDOM):
        module = "random" if first == RANDOM else "numpy.random"
        reason = (
            f"the loop draws from {module}, whose state is carried from one iteration to the next. Give --seed S, so "
            f"that each iteration has a seed of its own, or draw from `nbpar.current_task().rng`."
        )
        return Refused(reason, place_of_name(module.partition(".")[0], loop, source))
    if first == ITEM:
        reason = (
            "an iteration changes its item by a call, in a copy of it, where the change would be lost. Have it work on "
            "a copy, or collect the new items with `items.append(...)`."
        )
        return Refused(reason, place_of_name(loop.targets[0], loop, source) if loop.targets else loop.place)
    said = first if " " in first else f"`{first}`"
    root = first.partition(".")[0]
    module = type(namespace.get(first)).__module__
    if module == "random" or module.startswith("numpy.random"):
        reason = (
            f"{said} is a generator of random numbers that goes on from one iteration to the next. Make one for each "
            f"item in the body, as in `rng = np.random.default_rng(i)`, or draw from `nbpar.current_task().rng`."
        )
    else:
        reason = (
            f"{said} is changed by a call in the loop, in a copy of it, where the change would be lost. Return what is "
            f"to be kept and collect it in the loop itself; for a cache there is `nbpar.per_worker(dict)`."
        )
    return Refused(reason, place_of_name(_named_by(root, loop, namespace), loop, source))


def _named_by(name: str, loop: Loop, namespace: Mapping[str, Any]) -> str:
    """The name itself when the body has it, else that of a function of the body's that has it."""
    if name not in loop.reads:
        for caller in sorted(loop.reads):
            code = getattr(namespace.get(caller), "__code__", None)
            if isinstance(code, types.CodeType) and name in names_in(code):
                return caller
    return name
