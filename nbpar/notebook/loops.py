"""The loop form of ``%%parallel``: from the text of a cell to what is known of its loop, or to a refusal.

Owns :func:`read_loop`: which statements of the cell are the loop, which names are whose, and that no iteration needs
another. Knows the text only; what objects could bring to nothing is looked at by :mod:`nbpar.notebook.captures`. Called
by :mod:`nbpar.notebook.magics`.

::

    loops ──> loop_bans   what cannot stand there at all
          ──> flow        each path through one iteration  ──> effects   which statements change something outside
          ──> slots       what may be read although it is changed
          ──> sites       the body without its effects, and these for the kernel
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, cast

from nbpar.notebook import loop_words as words
from nbpar.notebook.effects import Effects
from nbpar.notebook.flow import Flow
from nbpar.notebook.flow_state import DELETED, ITEM_PART, MAYBE_SWALLOWED, SET, UNTOUCHED, State
from nbpar.notebook.loop_advice import advice_on_read
from nbpar.notebook.loop_bans import check_body, check_header
from nbpar.notebook.loop_cell import find_loop, header_of, header_place
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.scopes import bindings, target_names
from nbpar.notebook.shapes import extreme_name
from nbpar.notebook.shell import rewrite_shell_calls
from nbpar.notebook.sites import rewrite
from nbpar.notebook.slots import is_own, own_slots, reads_of_iterable
from nbpar.notebook.source import Refused, Source, place_of

__all__ = ["read_loop"]

# What names stand for where nothing is known of the namespace.
_CUSTOMARY = {
    "math": "math",
    "np": "numpy",
    "numpy": "numpy",
    "operator": "operator",
    "os": "os",
    "pd": "pandas",
    "random": "random",
}


_METHODS = (MethodType, BuiltinMethodType)


def read_loop(
    body: ast.Module, source: Source, *, seeded: bool = False, namespace: Mapping[str, Any] | None = None
) -> Loop:
    r"""Read a cell with one top-level ``for``.

    Parameters
    ----------
    body : ast.Module
        The cell below the magic's line; not changed.
    source : Source
        The whole cell.
    seeded : bool
        Whether each task has a seed of its own, so that it may draw random numbers.
    namespace : mapping, optional
        The user's: which names there are, and which of them stand for modules or functions of ``random``.

    Raises
    ------
    Refused
        When an iteration may need another, or the loop does what cannot be done elsewhere or later.

    Examples
    --------
    >>> cell = Source("out = []\nfor x in xs:\n    y = f(x)\n    out.append(y)")
    >>> loop = read_loop(cell.parse(cell.text), cell)
    >>> loop.header, loop.targets, loop.bound, sorted(loop.reads), sorted(loop.accumulators)
    ('for x in xs', ('x',), ('y',), ['f'], ['out'])
    >>> print(ast.unparse(loop.body[1]), "|", ast.unparse(loop.sites[0].statement))
    .log.note(0, y) | out.append(.v0)
    """
    at = find_loop(body.body, source)
    loop = cast("ast.For", body.body[at])
    before = body.body[:at]
    check_header(loop, source)
    check_body(loop.body, source)
    source.compile(body, may_await=True)  # what else is no Python
    targets = tuple(target_names(loop.target))
    known = {*(namespace or ()), *targets, *(name for name, _ in bindings(before))}
    statements = rewrite_shell_calls(ast.Module(copy.deepcopy(loop.body), []), source, known).body
    bound, reductions = _names(statements, targets)
    modules, imported = _modules(before, namespace)
    effects = Effects(statements, reductions, modules=modules, imported=imported, seeded=seeded)
    flow = Flow(statements, targets, bound, effects, source)
    always, never_kept = _last_values(flow.run(), (*targets, *bound), loop, source)
    reading = _Reading(loop, flow, effects, source, (*targets, *bound))
    body_for_workers, sites = rewrite(statements, effects.found, reading.slots, flow.needed, source)
    return Loop(
        before=before,
        after=loop.orelse + body.body[at + 1 :],
        target=loop.target,
        iterable=loop.iter,
        targets=targets,
        bound=tuple(name for name in bound if not name.startswith(".")),
        always=always,
        never_kept=never_kept,
        reads=reading.names,
        sites=sites,
        body=body_for_workers,
        makes_functions=flow.makes_functions,
        header=header_of(loop),
        place=header_place(loop, source),
        slots_read=reading.slots_read,
    )


def _names(body: list[ast.stmt], targets: tuple[str, ...]) -> tuple[tuple[str, ...], set[str]]:
    """Names that the body binds, and outer names that are only ever set by ``+=`` and ``n = min(n, ...)``."""
    extremes = {
        node.targets[0]
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign) and extreme_name(node)
    }
    ordinary: dict[str, None] = {}
    reductions: set[str] = set()
    for name, node in bindings(body):
        if isinstance(node, ast.AugAssign) or node in extremes:
            reductions.add(name)
        else:
            ordinary.setdefault(name)
    return tuple(name for name in ordinary if name not in targets), reductions - ordinary.keys() - set(targets)


def _modules(before: list[ast.stmt], namespace: Mapping[str, Any] | None) -> tuple[dict[str, str], dict[str, str]]:
    """Names that stand for modules, and for what is imported from them, with full names."""
    modules = dict(_CUSTOMARY) if namespace is None else {}
    imported: dict[str, str] = {}
    for name, value in (namespace or {}).items():
        if isinstance(value, ModuleType):
            modules[name] = value.__name__
        elif type(value) in _METHODS and type(value.__self__).__module__ in ("random", "numpy.random.mtrand"):
            imported[name] = f"random.{name}"  # `from random import choice`, in an earlier cell
    for name, node in bindings(before):
        modules.pop(name, None)
        imported.pop(name, None)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (alias.asname or alias.name.partition(".")[0]) == name:
                    modules[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    imported[name] = f"{node.module}.{alias.name}"
    return modules, imported


def _last_values(
    end: State, names: tuple[str, ...], loop: ast.For, source: Source
) -> tuple[frozenset[str], frozenset[str]]:
    """Names that are set whenever an iteration ends, and those that are unset then."""
    always, never_kept = set(), set()
    for name in names:
        mark = end.mark(name)
        if mark & DELETED and mark & (SET | ITEM_PART):
            deleting = next((node for one, node in bindings(loop.body) if one == name and _deletes(node)), loop)
            raise Refused(f"{words.sometimes_deleted(name)}.", place_of(deleting, source.text))
        if mark & DELETED:
            never_kept.add(name)
        elif not mark & (UNTOUCHED | MAYBE_SWALLOWED) and not name.startswith("."):
            always.add(name)
    return frozenset(always), frozenset(never_kept)


def _deletes(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del))


class _Reading:
    """Which outer names the body reads; refuses what another iteration may have changed.

    Attributes
    ----------
    names : frozenset of str
        All of them.
    slots : dict
        Accumulators of which each iteration only changes its own slot, with the key.
    slots_read : frozenset of str
        Those of them that are read.
    """

    def __init__(self, loop: ast.For, flow: Flow, effects: Effects, source: Source, changed: tuple[str, ...]) -> None:
        found = effects.found.values()
        accumulators = {effect.name for effect in found if not effect.on_item}
        rebound = [name for name, _ in bindings(loop.body)]
        self.slots = own_slots(found, flow.targets, rebound)
        for node in flow.outer:
            if node.id in accumulators:
                flow.refuse(node, words.read_accumulator(node.id, advice_on_read(node.id, loop.body)))
        slots_read = set()
        for read, mark in flow.slots:
            name = cast("ast.Name", read.value)
            if name.id not in accumulators:
                continue
            own, written = self.slots.get(name.id), ast.unparse(read)
            if own is None:
                flow.refuse(read, words.read_accumulator(name.id, advice_on_read(name.id, loop.body)))
            if not is_own(read.slice, own):
                flow.refuse(read, words.other_slot(written, name.id, ast.unparse(own)))
            if mark != UNTOUCHED:
                flow.refuse(read, words.slot_changed_before(written, name.id))
            slots_read.add(name.id)
        for node, is_harmless in reads_of_iterable(loop, changed, accumulators, self.slots):
            if not is_harmless:
                say = words.iterable_changes if node.id in accumulators else words.iterable_reads
                raise Refused(f"{say(node.id)}.", place_of(node, source.text))
            slots_read.add(node.id)
        self.slots_read = frozenset(slots_read)
        read_names = (*flow.outer, *(cast("ast.Name", read.value) for read, _ in flow.slots))
        self.names = frozenset(node.id for node in read_names)
