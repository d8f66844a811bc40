"""Objects of an iteration's own that it has stored in an outer one: what is changed there, the iteration would not see.

``groups[k] = rows`` and then ``groups[k].append(x)`` changes `rows`, but in the kernel, when the iteration has ended;
so `rows` cannot be read any more. Owns the book of that, kept in the :class:`nbpar.notebook.flow_state.State`. Used by
:mod:`nbpar.notebook.effects` and :mod:`nbpar.notebook.flow_reads`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbpar.notebook.aliases import Value
from nbpar.notebook.flow_state import DELETED, SET, State

if TYPE_CHECKING:
    from nbpar.notebook.effects import Effect

__all__ = ["changed_through", "held", "let_go"]

# How far below the container that is changed a statement stores its value itself, and what is in it; and how far below
# it makes changes. `groups[k].append(x)` of depth 1 stores x at level 2 of `groups`, and changes level 1.
_STORES: dict[str, tuple[int | None, int]] = {
    "append": (1, 2),
    "add": (1, 2),
    "setitem": (1, 2),
    "extend": (None, 1),
    "update": (None, 1),
    "augname": (None, 1),
    "augitem": (None, 2),
    "extreme": (0, 1),
}
_CHANGES = {"augitem": 1, "extreme": -1}


def held(state: State, effect: Effect, value: Value) -> State:
    """The state after an effect that stores a value, and may change what was stored before."""
    facts = dict(state.facts)
    lowest = effect.depth + _CHANGES.get(effect.kind, 0)
    for key in facts:
        if key.startswith("~"):
            _, holder, level = key.split("|")
            if holder == effect.name and int(level) <= lowest:
                facts[key] = facts[key][0] | DELETED, facts[key][1]
    itself, inside = _STORES[effect.kind]
    stored = [(name, inside) for name in value.inner]
    if itself is not None:
        stored += [(name, itself) for name in value.own]
    for name, below in stored:
        if name.startswith("~"):
            facts.setdefault(f"{name}|{effect.name}|{effect.depth + below}", (SET, Value()))
    return State(facts, state.dead)


def let_go(state: State, name: str) -> State:
    """The state when a name is given another object."""
    mine = f"~{name}|"
    return State({key: fact for key, fact in state.facts.items() if not key.startswith(mine)}, state.dead)


def changed_through(state: State, name: str) -> str | None:
    """The accumulator through which the object of a name may have been changed."""
    names = state.value(name).all
    for key, (mark, _) in state.facts.items():
        if mark & DELETED and key.startswith("~"):
            one, holder, _level = key.split("|")
            if one in names:
                return holder
    return None
