"""What a replay changes, so that all of it can be taken back.

Owns the notes of how objects were before they were first changed, and the way back. Used by
:mod:`nbpar.notebook.replay`, in the main thread; an interrupt or a full memory in the middle is a reason to go back
like any other, and going back goes on until it is done.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from nbpar.notebook.source import Refused

__all__ = ["Undo", "key_of"]

LARGE_BYTES = 1 << 20
"""Of arrays up to this size all is kept; of larger ones, only what is written over."""

_DICTS = (dict, OrderedDict, defaultdict, Counter)
_OPERATORS = (
    "add",
    "and",
    "floordiv",
    "lshift",
    "matmul",
    "mod",
    "mul",
    "or",
    "pow",
    "rshift",
    "sub",
    "truediv",
    "xor",
)
_IN_PLACE = tuple(f"__i{name}__" for name in _OPERATORS)
_FIXED = frozenset({int, float, complex, bool, str, bytes, tuple, frozenset, type(None), range})


class _Keys:
    """Gives what stands between the brackets: ``key_of[1:3, 0]``."""

    def __getitem__(self, key: Any) -> Any:
        return key


key_of = _Keys()


class Undo:
    """The way back for the objects of one replay."""

    def __init__(self) -> None:
        self.seen_by_tasks: dict[int, str] = {}  # ids of objects that the body reads, with a name they have
        self._steps: list[Callable[[], None]] = []
        self._kept: set[int] = set()  # ids of objects of which all is kept; the steps keep them alive
        self._lengths: set[int] = set()

    # --- before a change ----------------------------------------------------------------------------------------------

    def keep_length(self, target: Any) -> None:
        """Something will be added at the end of a list."""
        if type(target) is not list or id(target) in self.seen_by_tasks:
            self.keep(target)
        elif id(target) not in self._kept and id(target) not in self._lengths:
            self._lengths.add(id(target))
            length = len(target)
            self._steps.append(lambda: target.__delitem__(slice(length, None)))

    def keep_missing(self, target: Any) -> None:
        """Something will be looked up, which may be made by it."""
        if type(target) is defaultdict:
            self.keep(target)

    def keep_slot(self, target: Any, key: Any) -> None:
        """An item will be changed: by an operator that may do so in place."""
        self.keep_item(target, key)
        if not _is_array(target) or target.dtype.hasobject:
            try:
                item = target[key]
            except Exception:  # noqa: BLE001  # as below
                return
            self.keep(item)

    def keep_item(self, target: Any, key: Any) -> None:
        """An item will be stored."""
        if not _is_array(target) or target.nbytes <= LARGE_BYTES or id(target) in self.seen_by_tasks:
            self.keep(target)
            return
        if self._has_base_of(target):
            return
        try:
            old = target[key]
        except Exception:  # noqa: BLE001  # the statement that follows will say so
            return
        old = old.copy() if hasattr(old, "copy") else old
        self._steps.append(lambda: target.__setitem__(key, old))

    def keep(self, target: Any) -> None:
        """Anything of it may be changed.

        Raises
        ------
        Refused
            It is of a type of which nothing is known.
        """
        kind = type(target)
        if kind in _FIXED:
            return
        if (name := self.seen_by_tasks.get(id(target))) is not None:
            raise Refused(
                f"an object is changed that the loop has stored there, and that it also reads, as `{name}` or a part "
                f"of it. Store a copy"
            )
        if id(target) in self._kept:
            return
        step = self._way_back(target, kind)
        if step is not None:
            self._steps.append(step)
            self._kept.add(id(target))

    def _way_back(self, target: Any, kind: type) -> Callable[[], None] | None:
        if kind in (list, bytearray, array):
            saved = target[:]
            return lambda: target.__setitem__(slice(None), saved)
        if kind in _DICTS:
            items = dict(target)
            return lambda: _refill(target, items)
        if kind is set:
            values = set(target)
            return lambda: (target.clear(), target.update(values))[0]
        if kind is deque:
            elements = list(target)
            return lambda: (target.clear(), target.extend(elements))[0]
        if _is_array(target):
            if not target.flags.writeable or self._has_base_of(target):
                return None
            content = target.copy()
            return lambda: target.__setitem__(..., content)
        if not any(hasattr(kind, name) for name in _IN_PLACE) and not hasattr(kind, "__setitem__"):
            return None  # operators give new objects
        raise Refused(
            f"a {kind.__qualname__} is changed in place, and nbpar knows no way back if the loop fails. Collect the "
            f"values in a list, and change it after the loop"
        )

    def _has_base_of(self, target: Any) -> bool:
        """Whether all of the array that this one is a view of is kept."""
        base = target.base
        while base is not None:
            if id(base) in self._kept:
                return True
            base = getattr(base, "base", None)
        return False

    # --- the way back -------------------------------------------------------------------------------------------------

    def bind(self, namespace: dict[str, Any], name: str) -> None:
        """A name will be bound anew."""
        if name in namespace:
            old = namespace[name]
            self._steps.append(lambda: namespace.__setitem__(name, old))
        else:
            self._steps.append(lambda: namespace.pop(name, None) and None)

    def undo(self) -> None:
        """Take everything back, the last change first; an interrupt is raised when that is done."""
        interrupt: KeyboardInterrupt | None = None
        while self._steps:
            try:
                self._steps[-1]()  # each may be done twice
                self._steps.pop()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _refill(target: Any, items: dict[Any, Any]) -> None:
    target.clear()
    for key, value in items.items():
        target[key] = value


def _is_array(target: object) -> bool:
    return type(target) is getattr(sys.modules.get("numpy"), "ndarray", None)
