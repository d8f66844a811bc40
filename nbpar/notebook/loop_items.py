"""The items of a loop: whether they are apart from each other, and from all that the loop's tasks read.

Owns what is looked at of items once they are a list: iterators among them, items that lead to what the loop changes,
and, where the loop changes the items themselves, that no two of them are one. Called by :mod:`nbpar.notebook.captures`.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import thread_time
from typing import Any

from nbpar.notebook import capture_words as words
from nbpar.notebook.effect_types import check_types, inner_of
from nbpar.notebook.loop_model import Loop, Site
from nbpar.notebook.reach import ATOMS, Changed, OutOfTime, Search, bounds_of
from nbpar.notebook.source import Place, Refused, Source
from nbpar.worker.contents import Written, are_equal, is_own_class, is_plain, written

__all__ = ["Coming", "check_changed_items", "check_items", "is_iterator", "without_bar"]

COMING_S = 0.1

N_LOOKED_AT = 1_000
"""Items of which the type is looked at; more of them are of the same kind."""

_ITEMS = ".items"


def without_bar(value: Any) -> Any:
    """What a bar of tqdm goes through, the bar taken away: it would be through at once, and the job has one of its own.

    Examples
    --------
    >>> without_bar([1, 2])
    [1, 2]
    """
    bar = getattr(sys.modules.get("tqdm.std"), "tqdm", ())
    if not isinstance(value, bar) or (iterable := getattr(value, "iterable", None)) is None:
        return value
    value.leave = False
    value.close()
    return iterable


class Coming:
    """Goes through an iterable, and sees whether items are changed after they have come.

    Parameters
    ----------
    value : iterable
        Whose items code of the user's makes. Those of the first `COMING_S` of CPU time are looked at.
    """

    def __init__(self, value: Iterable[Any]) -> None:
        self._value = value
        self._then: dict[int, tuple[Any, Written]] = {}  # by id; what came is kept alive
        self._is_changed = False
        self._left_s = COMING_S

    def __iter__(self) -> Iterator[Any]:
        for item in self._value:
            if self._left_s > 0.0 and not is_plain(item):
                begin_s = thread_time()
                for part in item if type(item) is tuple else (item,):
                    if not is_plain(part) and not is_iterator(part):
                        self._look(part)
                self._left_s -= thread_time() - begin_s
            yield item

    def _look(self, part: Any) -> None:
        now = written(part)
        _, then = self._then.setdefault(id(part), (part, now))
        self._is_changed = self._is_changed or not are_equal(then, now)

    def has_changed(self) -> bool:
        """Whether one is not what it was; when all have come."""
        return self._is_changed or any(not are_equal(then, written(part)) for part, then in self._then.values())


def is_iterator(value: object) -> bool:
    """Whether an object can be gone through once."""
    return hasattr(type(value), "__next__") and not isinstance(value, type)


def check_items(loop: Loop, items: Sequence[Any], search: Search, place: Place) -> None:
    """Whether items can be taken apart from each other, and lead to nothing that the loop changes.

    Raises
    ------
    Refused
    """
    for item in itertools.islice(items, N_LOOKED_AT):
        for part in (item, *(item if type(item) is tuple else ())):
            if is_iterator(part):
                raise Refused(
                    f"the items are iterators ({type(part).__qualname__}), which can be gone through once, one after "
                    f"the other. Make lists of them before, as in `[(key, list(group)) for key, group in ...]`.",
                    place,
                )
    if not search.changed or ATOMS.issuperset(map(type, items)):
        return
    try:
        found = search.find(items)
    except OutOfTime:
        raise Refused(words.too_much("the iterable", loop), place) from None
    if found is not None:
        raise Refused(words.of_items(found.changed), place)


def check_changed_items(
    loop: Loop, source: Source, namespace: Mapping[str, Any], items: Sequence[Any], place: Place
) -> None:
    """Whether items that the loop changes are apart from each other, and from what the body reads.

    Raises
    ------
    Refused
    """
    changed = Changed({})
    changed.is_held_elsewhere = True  # by what they come from
    targets: list[tuple[Site, list[Any]]] = []
    for site in loop.sites:
        if site.on_item:
            roots = _bound(loop, source, site.name, items)
            targets.append((site, roots))
    for _, roots in targets[:1] if len({site.name for site, _ in targets}) == 1 else targets:
        changed.add_parts("an item", roots)
    for site, roots in targets:
        for value in roots:
            check_types(loop, {site.name: value}, only=site)
        kind = type(roots[0]).__name__ if roots else ""
        for depth in range(site.depth + 1):
            parts = [part for value in roots for part in inner_of(value, depth)]
            if len({id(part) for part in parts}) < len(parts) or (not depth and _share_memory(roots)):
                raise Refused(
                    f"two items are, or hold, the same {kind}, which `{site.text}` changes, so that one iteration "
                    f"would see what another one did. Make copies first, as in `in [copy.deepcopy(x) for x in ...]`.",
                    place,
                )
            if depth:
                changed.add_parts("an item", parts)
    every = [root for _, roots in targets for root in roots]
    _check_others(loop, source, namespace, changed, roots=every, place=place)


def _check_others(
    loop: Loop, source: Source, namespace: Mapping[str, Any], changed: Changed, *, roots: list[Any], place: Place
) -> None:
    search = Search(changed, lambda _: None, lambda _: None)
    try:
        for name in sorted(loop.reads & namespace.keys()):
            if search.find(namespace[name]) is not None:
                reason = (
                    f"`{name}` leads to the items, which the loop changes: an iteration would see what earlier ones "
                    f"did. Take what is needed of it before the loop."
                )
                raise Refused(reason, words.place_of_name(name, loop, source))
        for root in roots:
            for part in _elements(root):
                if type(part) not in ATOMS and changed.name_of(part) is None and search.find(part) is not None:
                    raise Refused("an item leads to another one, and the loop changes them. Keep it serial.", place)
                if changed.name_of(part) is not None and any(part is one for one in roots):
                    raise Refused("an item holds another one, and the loop changes them. Keep it serial.", place)
    except OutOfTime:
        raise Refused(words.too_much("what the loop uses", loop), place) from None


def _share_memory(roots: list[Any]) -> bool:
    """Whether arrays among the items are views that overlap."""
    spans = sorted(span for root in roots if (span := bounds_of(root)) is not None)
    return any(after[0] < before[1] for before, after in itertools.pairwise(spans))


def _bound(loop: Loop, source: Source, name: str, items: Sequence[Any]) -> list[Any]:
    """What a name of the target is bound to, for each item."""
    if isinstance(loop.target, ast.Name):
        return list(items)
    generator = ast.comprehension(loop.target, ast.Name(_ITEMS, ast.Load()), [], 0)
    every = ast.Expression(ast.ListComp(ast.Name(name, ast.Load()), [generator]))
    for node in ast.walk(every):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            ast.copy_location(node, loop.target)
    found: list[Any] = eval(compile(every, source.filename, "eval"), {_ITEMS: items})
    return found


def _elements(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        return value
    if is_own_class(type(value)):
        attributes: dict[str, Any] = getattr(value, "__dict__", {})
        return attributes.values()
    return ()
