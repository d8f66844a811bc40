"""What the body of a loop does to objects outside of it, noted in the worker and sent instead of being done.

The function of one task, made by :mod:`nbpar.notebook.loop_task`, makes a recorder, notes each effect on it, and
returns what :meth:`Recorder.end` gives: the outcome of one iteration, which :mod:`nbpar.notebook.replay` does in the
kernel. Owns the form of that outcome, and what has to be settled while the task runs: values that are used up at once
are kept as they were, objects of the notebook's own become origins, and functions that see the loop's names are caught.

An outcome is a flat tuple: site's number, its values, next site's number, and so on. It begins with a dict where names
have last values to tell; it is an :class:`Outcome` where something in it has to be looked at first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import CodeType, FrameType
from typing import Any

from nbpar.worker.contents import written
from nbpar.worker.context import current_context
from nbpar.worker.copies import VIEWS, are_same, content_of, copied_now
from nbpar.worker.escapes import MAX_TOLD_BYTES, codes_in, made_of, why_not
from nbpar.worker.origins import ITEM_ORIGIN, PLAIN_TYPES, Known, are_plain, with_origins

__all__ = ["ITEM_NOW", "UNSET", "CannotTell", "Escaped", "Outcome", "Recorder", "Recorders"]


_HOLD_OTHERS = (list, tuple, dict)

_Copy = tuple[int, int, Any, Any, bool]
"""Of a value that was noted: site, place in the outcome, a deep copy, a shallow one where it holds others, and whether
it is used up at once."""


class Outcome(tuple[Any, ...]):
    """The outcome of an iteration that holds origins, or last values of names."""

    __slots__ = ()


class Escaped(Exception):  # noqa: N818  # a verdict: the loop is refused
    """Something that one iteration made would go on to see the loop's names, or was changed after it had been stored.

    Attributes
    ----------
    number : int
        The site that stores it.
    reason : str
        What it is, for a sentence.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number
        self.reason = reason


class CannotTell:
    """Stands for a last value that cannot travel."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return CannotTell, (self.reason,)


class _Unset:
    """Stands for the last value of a name that the iteration has unset."""

    def __reduce__(self) -> str:
        return "UNSET"


UNSET = _Unset()

ITEM_NOW = ".item"
"""Stands among last values for what the item holds in the end (:func:`nbpar.worker.contents.written`)."""


@dataclass(eq=False)
class Recorders:
    """What the recorders of a job have to know; called with the item for that of one task.

    Attributes
    ----------
    always, sometimes : tuple of str
        Names whose last values are wanted: those that every iteration sets, and others.
    last_index : int
        Of the last task; -1 where that shall make no difference.
    tells_all : bool
        Whether not only the last task tells the values of `always`.
    named : tuple of str
        Globals of the task's function that may be the notebook's own objects.
    n_values : tuple of int
        How many values each site notes.
    used_up : dict
        By the number of a site, positions of values that the statement uses at once (keys, what is added), and of those
        of which that is not known.
    collected : dict
        By the number of a site, positions of iterables that are gone through: of ``extend`` and the like.
    is_early : bool
        What came with the task is changed by it (in its copy), so it is looked at before.
    finds_functions : bool
        Whether the body makes functions, classes or generators.
    tells_items : bool
        Whether more than the effects on it may change an item, so that the kernel has to see what became of it.
    """

    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    last_index: int = -1
    named: tuple[str, ...] = ()
    n_values: tuple[int, ...] = ()
    used_up: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    collected: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    is_early: bool = False
    finds_functions: bool = False
    tells_items: bool = False
    tells_all: bool = False

    def __post_init__(self) -> None:
        self._named: Known | None = None
        self._is_plain: bool | None = None  # found out when the first task begins

    def __reduce__(self) -> tuple[Any, ...]:
        # What was found out in one process is not part of it: the pickle stays the same while tasks run.
        return Recorders, tuple(getattr(self, one.name) for one in fields(self))

    def __call__(self, item: Any) -> Recorder:
        """The recorder of a task."""
        if self._is_plain is None:
            self._is_plain = not (self.used_up or self.collected or self.is_early or self.sometimes or self.tells_items)
            self.known_by_name(sys._getframe(1).f_globals)  # as it is before any task has used it
        if self._is_plain:
            return _Plain(self, item)
        recorder = Recorder(self, item)
        if self.is_early:
            recorder.known = Known({ITEM_ORIGIN: item})
            self.known_by_name(sys._getframe(1).f_globals)
        return recorder

    def known_by_name(self, names: Mapping[str, Any]) -> Known:
        """What the function brought along; looked at once in a worker."""
        if self._named is None:
            self._named = Known({name: names[name] for name in self.named if name in names})
        return self._named

    @property
    def is_last(self) -> bool:
        """Whether the last task runs."""
        context = current_context()
        return context is None or context.index == self.last_index


class Recorder(list[Any]):
    """The effects of one iteration, as far as it has got: an outcome in the making."""

    __slots__ = ("copies", "item", "job", "known", "unset_names")

    def __init__(self, job: Recorders, item: Any) -> None:
        self.job = job
        self.item = item
        self.copies: list[_Copy] | None = None
        self.unset_names: set[str] | None = None
        self.known: Known | None = None

    def note(self, number: int, *values: Any) -> None:
        """Note that the site `number` was reached, with the values that its statement was computed to have."""
        job = self.job
        if number in job.collected:
            self._collect(number, values)
            return
        if number in job.used_up and not are_plain(values):
            values = self._keep_copies(number, values)
        self += (number, *values)

    def unset(self, name: str) -> None:
        """Note that a name has been unset."""
        self.unset_names = {*(self.unset_names or ()), name}

    @property
    def is_asked(self) -> bool:
        """Whether last values are wanted of this task."""
        return self.job.tells_all or self.job.is_last

    def end(self, names: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """The outcome; `names` are the local ones of the task's function, where last values are wanted."""
        return self._outcome(names, sys._getframe(1))

    def _outcome(self, names: Mapping[str, Any] | None, frame: FrameType) -> tuple[Any, ...]:
        job = self.job
        if self.copies is not None:
            self._settle_copies(self.copies)
        told = None if names is None else self._last_values(names, frame)
        if job.tells_items:
            told = {**(told or {}), ITEM_NOW: written(self.item)}
        if not told and are_plain(self):
            return tuple(self)
        if job.finds_functions:
            self._check_functions(codes_in(frame.f_code))
        values = (told, *self) if told else tuple(self)
        tables = [job.known_by_name(frame.f_globals)]
        if self.known is not None:
            tables.insert(0, self.known)
        elif not are_plain((self.item,)):
            tables.insert(0, Known({ITEM_ORIGIN: self.item}))
        named = with_origins(values, tables)
        return values if named is values else Outcome(named)

    # --- values that are used up at once ------------------------------------------------------------------------------

    def _collect(self, number: int, values: tuple[Any, ...]) -> None:
        """Go through what is added, as the statement would; what came before an error is added as well."""
        noted = list(values)
        try:
            for position in self.job.collected[number]:
                noted[position], failure = content_of(values[position])
                if failure is not None:
                    raise failure
        finally:
            self += (number, *noted)

    def _keep_copies(self, number: int, values: tuple[Any, ...]) -> tuple[Any, ...]:
        surely, perhaps = self.job.used_up[number]
        noted = list(values)
        for position in (*surely, *perhaps):
            value = values[position]
            if hasattr(type(value), "__next__") or type(value) in VIEWS:  # neither travels
                noted[position] = iter(list(value))
            elif (copied := copied_now(value)) is not None:
                if self.copies is None:
                    self.copies = []
                # What a container holds may be stored, though the container is used up.
                shallow = type(value)(value) if type(value) in _HOLD_OTHERS else None
                self.copies.append((number, len(self) + 1 + position, copied, shallow, position in surely))
        return tuple(noted)

    def _settle_copies(self, copies: list[_Copy]) -> None:
        """What was changed since it was noted: as it was then."""
        for number, place, copied, shallow, is_sure in copies:
            if not are_same(self[place], copied):
                if not is_sure or (shallow is not None and not are_same(shallow, copied)):
                    raise Escaped(number, "is changed after it was stored, in the same iteration")
                self[place] = copied if shallow is None else shallow

    # --- last values --------------------------------------------------------------------------------------------------

    def _last_values(self, names: Mapping[str, Any], frame: FrameType) -> dict[str, Any]:
        job = self.job
        told: dict[str, Any] = {}
        if job.sometimes:
            unset = self.unset_names or ()
            for name in job.sometimes:
                if name in names:
                    told[name] = names[name]
                elif name in unset:
                    told[name] = UNSET
        if job.always and self.is_asked:
            told.update({name: names[name] for name in job.always if name in names})
        if all(map(_is_small, told.values())):
            return told
        codes = codes_in(frame.f_code)
        limit_bytes = math.inf if job.is_last else MAX_TOLD_BYTES
        known = job.known_by_name(frame.f_globals).by_id
        for name, value in told.items():
            if value is not UNSET and id(value) not in known and (reason := why_not(codes, value, limit_bytes)):
                told[name] = CannotTell(reason)
        return told

    # --- functions ----------------------------------------------------------------------------------------------------

    def _check_functions(self, codes: frozenset[CodeType]) -> None:
        """Find what the body has made and would see the loop's names later."""
        if are_plain(self) or not made_of(codes, list(self)):
            return
        at = 0
        while at < len(self):
            number = self[at]
            after = at + 1 + self.job.n_values[number]
            if made := made_of(codes, self[at + 1 : after]):
                raise Escaped(number, f"holds {made}, which the loop's body makes")
            at = after


class _Plain(Recorder):
    """For loops of which every value is noted as it is: that is most, and a task may be as short as this."""

    __slots__ = ()

    copies = None  # in the place of the slots, which cost time to fill
    unset_names = None
    known = None

    def __init__(self, job: Recorders, item: Any) -> None:
        self.job = job
        self.item = item

    def note(self, number: int, *values: Any) -> None:
        """As above."""
        self += (number, *values)

    def end(self, names: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """As above."""
        if names is None and PLAIN_TYPES.issuperset(map(type, self)):
            return tuple(self)
        return self._outcome(names, sys._getframe(1))


def _is_small(value: object) -> bool:
    """Whether there is nothing to be asked about a last value."""
    return value is UNSET or (are_plain((value,)) and not (isinstance(value, str | bytes) and len(value) > 1000))
