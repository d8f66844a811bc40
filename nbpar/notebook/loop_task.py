"""From a loop to the function of one task: the body, and around it the recorder that notes what it does.

::

    def <loop>(.item):
        .log = .new_log(.item)
        for TARGET in (.item,):         # so that `continue` just works
            BODY
        return .log.end(.locals())

Owns that function, and which names' last values and which values a worker has to look after. Called by
:mod:`nbpar.notebook.loop_run`.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbpar.notebook.loop_model import ITEM, LOG, Loop, Site
from nbpar.notebook.shell import rewrite_shell_calls
from nbpar.notebook.source import Source, define, function_of
from nbpar.worker.recorder import Recorders

__all__ = ["LoopTask", "look_after", "task_of"]

_NAME, _NEW_LOG, _LOCALS = "<loop>", ".new_log", ".locals"
_CHANGE_NOTHING = frozenset(
    {
        *(
            "abs",
            "bool",
            "bytes",
            "chr",
            "complex",
            "dict",
            "divmod",
            "enumerate",
            "float",
            "format",
            "frozenset",
            "int",
        ),
        *(
            "isinstance",
            "len",
            "list",
            "max",
            "min",
            "ord",
            "pow",
            "print",
            "range",
            "repr",
            "reversed",
            "round",
            "set",
        ),
        *("sorted", "str", "sum", "tuple", "type", "zip"),
    }
)
"""Python's own functions that do nothing to what they are given."""

_BY_REFERENCE = (list, dict, OrderedDict, defaultdict, Counter, deque)
"""Containers that take what is stored in them as it is; arrays take its content."""


@dataclass(frozen=True, slots=True)
class LoopTask:
    """The function of one task.

    Attributes
    ----------
    function : callable
        Of an item; gives an outcome (:mod:`nbpar.worker.recorder`).
    recorders : Recorders
        Part of the function's closure; which task is the last is set there once that is known.
    kept : tuple of str
        Targets that the body leaves alone: their last values are those of the last item.
    """

    function: Callable[[Any], Any]
    recorders: Recorders
    kept: tuple[str, ...]


def task_of(loop: Loop, source: Source, namespace: dict[str, Any]) -> LoopTask:
    """The function of one task.

    Parameters
    ----------
    loop : Loop
        Not changed.
    source : Source
        The whole cell, for tracebacks.
    namespace : dict
        Becomes the function's globals; it is not changed.

    Raises
    ------
    Refused
        When the compiler finds fault with the body, or it has a magic.
    """
    body = ast.Module(copy.deepcopy(loop.body), [])
    rebound = _stored_in(body)
    for node in ast.walk(loop.target):
        if isinstance(node, ast.Starred):  # a list that the iteration makes
            rebound |= _stored_in(node)
    kept = tuple(name for name in loop.targets if name not in rebound)
    told = [name for name in (*loop.targets, *loop.bound) if name not in kept]
    always = tuple(name for name in told if name in loop.always)
    sometimes = tuple(name for name in told if name not in loop.always)
    if sometimes:
        body = _Unsets(frozenset(sometimes)).visit(body)
    body = rewrite_shell_calls(body, source, {*namespace, *loop.targets, *loop.bound})
    recorders = Recorders(
        always=always,
        sometimes=sometimes,
        named=tuple(sorted(loop.reads)),
        n_values=tuple(site.n_values for site in loop.sites),
        is_early=any(site.on_item or site.own_slot for site in loop.sites),
        finds_functions=loop.makes_functions,
        tells_items=any(site.on_item for site in loop.sites) and _calls(body),
    )
    definition = define(
        _NAME,
        ITEM,
        [
            ast.Assign([ast.Name(LOG, ast.Store())], _call(_NEW_LOG, ast.Name(ITEM, ast.Load()))),
            ast.For(loop.target, ast.Tuple([ast.Name(ITEM, ast.Load())], ast.Load()), body.body, []),
            ast.Return(_end(told, always_asked=bool(sometimes))),
        ],
        loop.target,
    )
    for statement in definition.body:
        _place(statement, loop.target)
    function = function_of(definition, source, namespace, {_NEW_LOG: recorders, _LOCALS: locals})
    return LoopTask(function, recorders, kept)


def _end(told: Collection[str], *, always_asked: bool) -> ast.expr:
    """``.log.end(.locals())``, where names are to be told."""
    log = ast.Name(LOG, ast.Load())
    end = ast.Attribute(log, "end", ast.Load())
    plain, telling = ast.Call(end, [], []), ast.Call(end, [_call(_LOCALS)], [])
    if not told:
        return plain
    return telling if always_asked else ast.IfExp(ast.Attribute(log, "is_asked", ast.Load()), telling, plain)


def look_after(recorders: Recorders, loop: Loop, namespace: Mapping[str, Any]) -> None:
    """Say which values are used up at once: that depends on what the notebook's names are when the tasks begin."""
    used_up: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    collected: dict[int, tuple[int, ...]] = {}
    for site in loop.sites:
        if site.kind in ("extend", "update"):
            collected[site.number] = tuple(_positions(_arguments_of(site)))
        elif site.kind in ("augname", "augitem", "touch"):
            used_up[site.number] = tuple(range(site.n_values)), ()
        elif site.kind == "extreme":
            used_up[site.number] = (), tuple(range(site.n_values))
        elif site.kind == "setitem":
            used_up[site.number] = _used_up_by_store(site, namespace)
    recorders.used_up, recorders.collected = used_up, collected


def _calls(body: ast.AST) -> bool:
    """Whether the body calls what might change an item."""
    called = [node.func for node in ast.walk(body) if isinstance(node, ast.Call)]
    plain = {id(one) for one in called if isinstance(one, ast.Name) and one.id in _CHANGE_NOTHING}
    own = {id(one) for one in called if isinstance(one, ast.Attribute) and ast.unparse(one.value) == LOG}
    return any(id(one) not in plain | own for one in called)


def _positions(nodes: Collection[ast.AST]) -> Iterator[int]:
    """Which recorded values stand directly in these places of a site's statement."""
    for node in nodes:
        if isinstance(node, ast.Name) and node.id.startswith(".v"):
            yield int(node.id[2:])


def _arguments_of(site: Site) -> list[ast.expr]:
    call = getattr(site.statement, "value", None)
    return call.args if isinstance(call, ast.Call) else []


def _used_up_by_store(site: Site, namespace: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    value: Any = getattr(site.statement, "value", None)
    stored = tuple(_positions([value]))
    keys = tuple(position for position in range(site.n_values) if position not in stored)
    target: Any = site.statement.targets[0] if isinstance(site.statement, ast.Assign) else None
    if site.depth or site.on_item or target is None:
        return keys, stored
    if isinstance(target.slice, ast.Slice):
        return (*keys, *stored), ()
    if type(namespace.get(site.name)) in _BY_REFERENCE:
        return keys, ()
    return (*keys, *stored), ()


def _stored_in(body: ast.AST) -> set[str]:
    """Names that the body binds anywhere, inner scopes included."""
    found: set[str] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        else:  # except ... as name, a pattern's names
            found.update(str(name) for field in ("name", "rest") if (name := getattr(node, field, None)))
    return found


class _Unsets(ast.NodeTransformer):
    """Has the log told of names that the body unsets: ``del name``, the end of ``except ... as name``."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        if node.name in self._names:
            node.body.insert(0, self._told(node.name, node.body[0]))
        return node

    def visit_Delete(self, node: ast.Delete) -> list[ast.stmt]:
        deleted = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return [node, *(self._told(name, node) for name in deleted if name in self._names)]

    def _visit_scope(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _visit_scope  # noqa: N815

    @staticmethod
    def _told(name: str | None, at: ast.AST) -> ast.stmt:
        call = ast.Call(ast.Attribute(ast.Name(LOG, ast.Load()), "unset", ast.Load()), [ast.Constant(name)], [])
        told: ast.stmt = _place(ast.Expr(call), at)
        return told


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [*arguments], [])


def _place(tree: Any, at: ast.AST) -> Any:
    """Give parts of a tree that have no place that of another node."""
    for node in ast.walk(tree):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            ast.copy_location(node, at)
    return tree
