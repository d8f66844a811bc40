"""What a loop's tasks bring along, looked at just before they run: whether what the text promised is so of the objects.

The text of a cell (:mod:`nbpar.notebook.loops`) tells names apart, not objects: two names may stand for one list, a
function may read what the loop changes. Owns these checks, and their wording; the search itself is
:mod:`nbpar.notebook.reach`, what only a run can tell is :mod:`nbpar.worker.strict`. Called by
:mod:`nbpar.notebook.loop_run` after the code before the loop has run.
"""

from __future__ import annotations

import ast
import builtins
import gc
import io
import sys
from collections.abc import Callable, ItemsView, KeysView, Mapping, Sequence, ValuesView
from types import GeneratorType
from typing import Any

from nbpar.notebook import capture_words as words
from nbpar.notebook.effect_types import add_changed, check_types
from nbpar.notebook.loop_items import Coming, check_changed_items, check_items, is_iterator
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.own_slots import check_slots
from nbpar.notebook.reach import Changed, OutOfTime, Search, names_read_by
from nbpar.notebook.source import Place, Refused, Source, place_of
from nbpar.worker.changes import stores_in
from nbpar.worker.strict import Strict

__all__ = ["Captures"]

_VIEWS = (KeysView, ValuesView, ItemsView)
_LOOK_UPS = frozenset({"globals", "eval", "exec"})


class Captures:
    r"""The checks of one loop.

    Parameters
    ----------
    loop : Loop
    source : Source
    namespace : dict
        The user's, as it is when the loop begins.
    copies : mapping
        Copies of the namespace, whose references to objects are no names of the user's.

    Examples
    --------
    >>> from nbpar.notebook.loops import read_loop
    >>> cell = Source("for x in xs:\n    out.append(len(seen))")
    >>> loop = read_loop(cell.parse(cell.text), cell)
    >>> names = {"xs": [1], "out": []}
    >>> names["seen"] = names["out"]
    >>> Captures(loop, cell, names).check([1])
    Traceback (most recent call last):
    ...
    nbpar.notebook.source.Refused: `seen` is the same list as `out`, which the loop changes: ...
    """

    def __init__(self, loop: Loop, source: Source, namespace: dict[str, Any], *copies: Mapping[str, Any]) -> None:
        self._loop = loop
        self._source = source
        self._namespace = namespace
        self._held_by = (namespace, *copies)
        self._reading = ""
        self._runs_code = False
        self._place: Place = loop.place
        self._watch: Strict | None = None
        self._coming: Coming | None = None
        check_types(loop, namespace)

    def _changed_by_loop(self) -> Changed:
        changed = Changed(*self._held_by)
        for site in self._loop.sites:
            if not site.on_item and site.name in self._namespace:
                add_changed(site, self._namespace, changed)
        return changed

    # --- before the items are read ------------------------------------------------------------------------------------

    def check_iterable(self, value: Any, function: Callable[[Any], Any]) -> None:
        """Whether going through the iterable would see what the loop changes.

        Parameters
        ----------
        function : callable
            Of the tasks. Where code of the user's makes the items, what this function brings is watched meanwhile.

        Raises
        ------
        Refused
        """
        if type(value) in (range, str, bytes):
            return
        own, place = self._own_slots_of(value), place_of(self._loop.iterable, self._source.text)
        changed = self._changed_by_loop()
        search = Search(changed if own is None else changed.without(own), self._meet_generator, _ignore)
        self._reading, self._place, self._runs_code = "", place, False
        try:
            found = search.find(value)
        except OutOfTime:
            raise Refused(words.too_much("the iterable", self._loop), place) from None
        if found is not None:
            raise Refused(words.of_iterable(found.changed), place)
        if self._runs_code:
            self._watch = Strict(function, keeps_items=False, seeded=True)

    def watched(self, value: Any) -> Any:
        """The iterable, to be gone through: what code of the user's makes is looked at as it comes."""
        if not self._runs_code:
            return value
        self._coming = Coming(value)
        return self._coming

    def _own_slots_of(self, value: Any) -> str | None:
        """The name of a container of which the loop changes each slot as it comes to it."""
        for name in {site.name for site in self._loop.sites if site.own_slot}:
            container = self._namespace.get(name)
            if isinstance(container, dict):
                if value is container or (isinstance(value, _VIEWS) and _is_held_by(container, value)):
                    return name
            elif type(value) is enumerate and any(_is_held_by(container, one) for one in gc.get_referents(value)):
                return name
        return None

    # --- before the tasks run -----------------------------------------------------------------------------------------

    def check(self, items: Sequence[Any]) -> None:
        """Whether tasks see nothing of what the loop changes, and change nothing that others see.

        Raises
        ------
        Refused
        """
        loop, changed = self._loop, self._changed_by_loop()
        if self._watch is not None and (names := self._watch.look(1.0, is_last=True)):
            raise Refused(words.changed_by_iterable(names[0]), place_of(loop.iterable, self._source.text))
        if self._coming is not None and self._coming.has_changed():
            raise Refused(words.CHANGED_AFTERWARDS, place_of(loop.iterable, self._source.text))
        self._check_names()
        search = Search(changed, self._meet_function, self._meet_other)
        own_slots = {site.name for site in loop.sites if site.own_slot}
        for name in sorted(loop.reads & self._namespace.keys()):
            root = self._namespace[name]
            self._reading, self._place = name, words.place_of_name(name, loop, self._source)
            if name in own_slots:  # what is in its slots: see `check_slots`
                search.changed = changed.without(name)
            try:
                found = search.find(root)
            except OutOfTime:
                raise Refused(words.too_much(f"`{name}`", loop), self._place) from None
            search.changed = changed
            if found is not None:
                raise Refused(words.in_common(name, root, found, self._namespace), self._place)
        place = place_of(loop.iterable, self._source.text)
        if type(items) is not range:
            apart = changed
            for name in own_slots:
                apart = apart.without(name)
            check_items(loop, items, Search(apart, _ignore, _ignore), place)
        if any(site.on_item for site in loop.sites):
            check_changed_items(loop, self._source, self._namespace, items, place)
        for site in loop.sites:
            if site.own_slot and (site.name in loop.reads or _names(loop.iterable, site.name)):
                check_slots(site, loop, self._source, self._namespace, items)

    def _check_names(self) -> None:
        namespace = self._namespace
        for site in self._loop.sites:
            if site.guarded and not site.on_item and site.name not in namespace:
                raise Refused(
                    f"`{site.name}` is not there, which the `try` or `with` around would see in each iteration. Make "
                    f"it before the loop.",
                    site.place,
                )
            if site.kind == "extreme":
                call: Any = getattr(site.statement, "value", None)
                function = call.func.id
                own = getattr(builtins, function)
                if namespace.get(function, own) is not own:
                    raise Refused(
                        f"`{function}` is not Python's own here, so nothing is known of what it does.", site.place
                    )
        for name in self._loop.never_kept:
            if name in namespace:
                raise Refused(
                    f"`{name}` is a name of the notebook's, and the loop would delete it; use another name there.",
                    words.place_of_name(name, self._loop, self._source),
                )

    # --- what the search meets ----------------------------------------------------------------------------------------

    def _meet_function(self, function: Any) -> None:
        if isinstance(function, GeneratorType):
            self._meet_other(function)
        known, names = names_read_by(function)
        if known is not self._namespace:
            return
        for name in sorted({*self._loop.targets, *self._loop.bound, *self._loop.accumulators} & names):
            raise Refused(words.reads_name(function, name, self._loop), self._place)
        for name in sorted(_LOOK_UPS & names):
            if name not in known:
                raise Refused(
                    f"{words.called(function)} calls `{name}`, so that nothing is known of the names it uses. Use "
                    f"arguments instead.",
                    self._place,
                )

    def _meet_generator(self, function: Any) -> None:
        """Of an iterable: it runs before all tasks, and not in turns with them."""
        known, names = names_read_by(function)
        if known is not self._namespace:
            return
        for name in sorted(self._loop.accumulators & names):
            raise Refused(words.reads_name(function, name, self._loop), self._place)
        code = function.gi_code if isinstance(function, GeneratorType) else function.__code__
        self._runs_code = self._runs_code or code.co_name != "<genexpr>"
        for name in sorted(self._loop.reads & stores_in(code)[0]):
            raise Refused(words.changed_by_iterable(name), self._place)

    def _meet_other(self, value: Any) -> None:
        is_file = isinstance(value, io.IOBase) and value not in _streams() and not value.closed
        if is_file or (is_iterator(value) and not isinstance(value, io.IOBase)):
            is_itself = self._namespace.get(self._reading) is value
            said = words.file_or_iterator(self._reading, value, is_file=is_file, is_itself=is_itself)
            raise Refused(said, self._place)


def _streams() -> tuple[object, ...]:
    return sys.stdout, sys.stderr, sys.stdin, sys.__stdout__, sys.__stderr__, sys.__stdin__


def _ignore(_: object) -> None:
    """Nothing is looked for but what is changed."""


def _names(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _is_held_by(container: object, holder: object) -> bool:
    return any(one is container for one in gc.get_referents(holder))
