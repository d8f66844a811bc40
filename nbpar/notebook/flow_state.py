"""What is known of a loop's names at one point of an iteration.

Owns :class:`State`. Values, never changed in place: each branch of the body goes on with its own. Used by
:mod:`nbpar.notebook.flow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nbpar.notebook.aliases import FRESH, Value, join_values

__all__ = ["DELETED", "ITEM_PART", "MAYBE_SWALLOWED", "SET", "UNTOUCHED", "State", "join"]

# What may have happened to a name since the iteration began; of several paths, all that may have.
UNTOUCHED = 1
SET = 2
DELETED = 4
ITEM_PART = 8  # as the loop's target has set it
MAYBE_SWALLOWED = 16  # not set, should a `with` around have ended an exception before


@dataclass(frozen=True, slots=True)
class State:
    """What has happened to each name, and what its value may share with outer objects.

    A dead state is that of a point which is never reached.
    """

    facts: Mapping[str, tuple[int, Value]] = field(default_factory=lambda: MappingProxyType({}))
    dead: bool = False

    def mark(self, name: str) -> int:
        """What may have happened to a name."""
        return self.facts[name][0] if name in self.facts else SET if self.dead else UNTOUCHED

    def value(self, name: str) -> Value:
        """What its value may share."""
        return self.facts[name][1] if name in self.facts else FRESH

    def having(self, name: str, mark: int, value: Value = FRESH) -> State:
        """The state after something happened to a name."""
        return State({**self.facts, name: (mark, value)}, self.dead)

    def dead_end(self) -> State:
        """The state behind a jump: nothing gets there."""
        return State({}, dead=True)

    def perhaps(self, other: State) -> State:
        """The state here, or the other in the unlikely case that a ``with`` has ended an exception."""
        if self.dead or other.dead:
            return other if self.dead else self
        facts = {}
        for name in self.facts.keys() | other.facts.keys():
            mark, rare = self.mark(name), other.mark(name)
            if rare & ~mark & (UNTOUCHED | DELETED):
                mark |= MAYBE_SWALLOWED
            facts[name] = mark | rare & ~(UNTOUCHED | DELETED), join_values(self.value(name), other.value(name))
        return State(facts)


def join(*states: State) -> State:
    """The state where several paths meet."""
    alive = [state for state in states if not state.dead]
    if len(alive) <= 1:
        return alive[0] if alive else State({}, dead=True)
    facts: dict[str, tuple[int, Value]] = {}
    for name in {name for state in alive for name in state.facts}:
        known = alive[0].facts.get(name)
        if known is not None and all(state.facts.get(name) is known for state in alive):
            facts[name] = known
            continue
        mark = 0
        for state in alive:
            mark |= state.mark(name)
        facts[name] = mark, join_values(*(state.value(name) for state in alive))
    return State(facts)
