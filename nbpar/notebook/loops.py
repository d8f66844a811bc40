"""The loop form of ``%%parallel``: from the text of a cell to what is known of its loop, or to a refusal.

Owns :func:`read_loop`: which statements of the cell are the loop, which names are whose, and that no iteration needs
another. Knows the text only; what objects could bring to nothing is looked at by :mod:`nbpar.notebook.captures`. Called by
:mod:`nbpar.notebook.magics`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from nbpar.notebook import loop_words as words
from nbpar.notebook.effects import Effects, extreme_name
from nbpar.notebook.flow import Flow
from nbpar.notebook.flow_state import DELETED, ITEM_PART, MAYBE_SWALLOWED, SET, UNTOUCHED
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.scopes import bindings, target_names
from nbpar.notebook.shell import rewrite_shell_calls
from nbpar.notebook.sites import rewrite
from nbpar.notebook.source import Place, Refused, Source, place_of

__all__ = ["read_loop"]


def read_loop(
    body: ast.Module, source: Source, *, seeded: bool = False, namespace: Mapping[str, Any] | None = None
) -> Loop:
    """Read a cell with one top-level ``for``.

    Parameters
    ----------
    body : ast.Module
        The cell below the magic's line; not changed.
    source : Source
        The whole cell.
    seeded : bool
        Whether each task has a seed of its own, so that it may draw random numbers.
    namespace : mapping, optional
        The user's: which names there are, and which of them are modules. No other object is looked at.

    Raises
    ------
    Refused
        When an iteration may need another, or the loop does what cannot be done elsewhere or later.

    Examples
    --------
    >>> cell = Source("out = []\\nfor x in xs:\\n    y = f(x)\\n    out.append(y)")
    >>> loop = read_loop(cell.parse(cell.text), cell)
    >>> loop.header, loop.targets, loop.bound, sorted(loop.reads), sorted(loop.accumulators)
    ('for x in xs', ('x',), ('y',), ['f'], ['out'])
    >>> print(ast.unparse(loop.body[1]), "|", ast.unparse(loop.sites[0].statement))
    .log.note(0, y) | out.append(.v0)
    """
    namespace = namespace or {}
    at = _find_loop(body.body, source)
    loop = body.body[at]
    assert isinstance(loop, ast.For)
    before, after = body.body[:at], loop.orelse + body.body[at + 1 :]
    statements = copy.deepcopy(loop.body)
    targets = tuple(target_names(loop.target))
    known = {*namespace, *targets, *(name for name, _ in bindings(before))}
    statements = rewrite_shell_calls(ast.Module(statements, []), source, known).body
    modules = {name: value.__name__ for name, value in namespace.items() if isinstance(value, ModuleType)}
    bound, extremes = _names(statements, targets)
    effects = Effects(statements, modules, extremes, seeded=seeded)
    flow = Flow(targets, bound, effects, source)
    end = flow.run(statements)
    accumulators = {effect.name for effect in effects.found.values() if not effect.on_item}
    for node in (*flow.outer, *(read.value for read, _ in flow.slots)):
        if isinstance(node, ast.Name) and node.id in accumulators:
            flow.refuse(node, words.read_accumulator(node.id, ""))
    reads = {node.id for node in (*flow.outer, *(read.value for read, _ in flow.slots)) if isinstance(node, ast.Name)}
    always, never = set(), set()
    for name in (*targets, *bound):
        mark = end.mark(name)
        if mark & DELETED and mark & (SET | ITEM_PART):
            raise Refused(f"`{name}` is deleted in some iterations and not in others.", place_of(loop, source.text))
        if mark & DELETED:
            never.add(name)
        elif not mark & (UNTOUCHED | MAYBE_SWALLOWED):
            always.add(name)
    rewritten, sites = rewrite(statements, effects.found, {}, source)
    return Loop(
        before=before,
        after=after,
        target=loop.target,
        iterable=loop.iter,
        targets=targets,
        bound=tuple(name for name in bound if not name.startswith(".")),
        always=frozenset(name for name in always if not name.startswith(".")),
        never_kept=frozenset(never),
        reads=frozenset(reads),
        sites=sites,
        body=rewritten,
        makes_functions=flow.makes_functions,
        header=_header(loop),
        place=_header_place(loop, source),
    )


def _names(body: list[ast.stmt], targets: tuple[str, ...]) -> tuple[tuple[str, ...], set[str]]:
    """Names that the body binds, and outer names that are only ever set by ``+=`` and ``n = min(n, ...)``."""
    extreme_targets = {
        id(node.targets[0])
        for statement in body
        for node in ast.walk(statement)
        if extreme_name(node) and isinstance(node, ast.Assign)
    }
    ordinary: dict[str, None] = {}
    reductions: set[str] = set()
    for name, node in bindings(body):
        if isinstance(node, ast.AugAssign) or id(node) in extreme_targets:
            reductions.add(name)
        else:
            ordinary.setdefault(name)
    return tuple(name for name in ordinary if name not in targets), reductions - ordinary.keys() - set(targets)


def _find_loop(body: list[ast.stmt], source: Source) -> int:
    at = [position for position, statement in enumerate(body) if isinstance(statement, ast.For)]
    if len(at) != 1:
        raise Refused("the cell needs exactly one top-level `for`")
    return at[0]


def _header(loop: ast.For) -> str:
    target = ast.unparse(loop.target)
    if isinstance(loop.target, ast.Tuple):
        target = target.removeprefix("(").removesuffix(")")
    return f"for {target} in {ast.unparse(loop.iter)}"


def _header_place(loop: ast.For, source: Source) -> Place:
    start, end = place_of(loop, source.text), place_of(loop.iter, source.text)
    return Place(start.line, start.column, end.end_line, end.end_column)
