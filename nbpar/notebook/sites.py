"""From effects that were found to a body for workers and statements for the kernel.

Owns the rewriting. In the body an effect becomes ``.log.note(number, *values)``, the values computed in Python's order;
the kernel gets the same statement with ``.v0``, ``.v1`` ... in their places. Annotations of the body's names are taken
away: in a function they would mean something else. Called by :mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations
import __future__

import ast
import copy
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nbpar.notebook.effects import Effect
from nbpar.notebook.loop_model import LOG, Site, value_name
from nbpar.notebook.source import Refused, Source, place_of

__all__ = ["rewrite"]

_LAZY = frozenset(["zip", "map", "filter", "enumerate", "reversed", "iter"])


def rewrite(
    body: list[ast.stmt],
    found: Mapping[ast.AST, Effect],
    slots: Mapping[str, ast.expr],
    needed: Mapping[ast.AST, Iterable[str]],
    source: Source,
) -> tuple[list[ast.stmt], tuple[Site, ...]]:
    """The body that workers run, and its sites; the tree is changed.

    Parameters
    ----------
    found : mapping
        Effects by statement or target.
    slots : mapping
        Names whose items are all own slots, with the key.
    needed : mapping
        Names to look at before a statement: one that is not set is an error there, which nobody can end.
    """
    rewriter = _Rewriter(found, slots, source)
    rewriter.needed = needed
    return rewriter.block(body), tuple(rewriter.sites)


class _Values:
    """What one site records."""

    def __init__(self) -> None:
        self.recorded: list[ast.expr] = []

    def put(self, node: ast.expr) -> ast.expr:
        """Record a value; gives what stands for it in the kernel's statement."""
        if isinstance(node, ast.Constant):
            return node
        name = ast.Name(value_name(len(self.recorded)), ast.Load())
        self.recorded.append(node)
        return ast.copy_location(name, node)

    def put_key(self, node: ast.expr) -> ast.expr:
        """Record a key, of which ``:`` and the commas stay."""
        if isinstance(node, ast.Tuple):
            made: ast.expr = ast.Tuple([self.put_key(element) for element in node.elts], ast.Load())
        elif isinstance(node, ast.Slice):
            parts = [self.put(part) if part is not None else None for part in (node.lower, node.upper, node.step)]
            made = ast.Slice(*parts)
        elif isinstance(node, ast.Starred):
            made = ast.Starred(self.put(ast.copy_location(ast.Tuple([node], ast.Load()), node)), ast.Load())
        else:
            return self.put(node)
        return ast.copy_location(made, node)

    def put_path(self, node: ast.expr) -> ast.expr:
        """Record the keys of a path."""
        if not isinstance(node, ast.Subscript):
            return node
        value = self.put_path(node.value)
        return ast.copy_location(ast.Subscript(value, self.put_key(node.slice), node.ctx), node)


class _Rewriter(ast.NodeTransformer):
    def __init__(self, found: Mapping[ast.AST, Effect], slots: Mapping[str, ast.expr], source: Source) -> None:
        self.sites: list[Site] = []
        self.needed: Mapping[ast.AST, Iterable[str]] = {}
        self._found = found
        self._slots = slots
        self._source = source
        self._n_temporaries = 0

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Rewrite statements."""
        made: list[ast.stmt] = []
        for statement in body:
            result = self.visit(statement)
            made.extend(result if isinstance(result, list) else [result])
        return made

    def visit(self, node: ast.AST) -> Any:
        """Rewrite a statement, and look at names before it."""
        result = super().visit(node)
        if not (names := sorted(self.needed.get(node, ()))):
            return result
        looked_at = ast.Tuple([ast.Name(name, ast.Load()) for name in names], ast.Load())
        look = ast.Assign([ast.Name(self._temporary(), ast.Store())], looked_at)
        return [ast.fix_missing_locations(ast.copy_location(look, node)), result]

    def _unchanged(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _unchanged  # noqa: N815

    # --- statements ---------------------------------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> Any:
        effect = self._found.get(node)
        if effect is None:
            return node
        call, values = node.value, _Values()
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        path = values.put_path(call.func.value)
        made = self._touched(effect, path, values, [*call.args, *(keyword.value for keyword in call.keywords)])
        if effect.kind == "extend" and effect.guarded and not _is_display(call.args[0]):
            return [*made, *self._one_by_one(effect, path, values, call)]
        goes_through = effect.kind in ("extend", "update")
        arguments = [
            values.put(self._made_now(argument, effect, node) if goes_through else argument) for argument in call.args
        ]
        keywords = [ast.keyword(keyword.arg, values.put(keyword.value)) for keyword in call.keywords]
        function = ast.copy_location(ast.Attribute(path, call.func.attr, ast.Load()), call.func)
        for keyword, written in zip(keywords, call.keywords, strict=True):
            ast.copy_location(keyword, written)
        done = ast.copy_location(ast.Expr(ast.copy_location(ast.Call(function, arguments, keywords), call)), node)
        return [*made, *self._noted(effect, done, values)]

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        effect = self._found.get(node)
        if effect is None:
            return node
        values = _Values()
        target: Any = values.put_path(node.target)
        made = self._touched(effect, target, values, [node.value])
        value = values.put(self._made_now(node.value, effect, node))
        done = ast.copy_location(ast.AugAssign(target, node.op, value), node)
        return [*made, *self._noted(effect, done, values)]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        made: list[ast.stmt] = []
        if node.value is not None:
            result = self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))
            made.extend(result if isinstance(result, list) else [result])
        if sys.version_info < (3, 14) and not self._source.flags & __future__.annotations.compiler_flag:
            made.append(ast.copy_location(ast.Expr(node.annotation), node))
        return made or ast.copy_location(ast.Pass(), node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if not any(part in self._found for target in node.targets for part in ast.walk(target)):
            return node
        first = node.targets[0]
        if len(node.targets) == 1 and first in self._found:
            if self._found[first].kind == "extreme":
                return self._extreme(self._found[first], node)
            return self._setitem(first, node.value, node)
        name = self._temporary()
        made: list[ast.stmt] = [self._set(name, node.value, node)]
        for target in node.targets:
            made.extend(self._assigned(target, self._load(name, target), node))
        return made

    def _assigned(self, target: ast.expr, value: ast.expr, node: ast.Assign) -> list[ast.stmt]:
        """One target of several: each part of it gets its value before the next is looked at."""
        if not any(part in self._found for part in ast.walk(target)):
            return [ast.copy_location(ast.Assign([target], value), node)]
        if target in self._found:
            return self._setitem(target, value, node)
        parts: list[tuple[ast.expr, str]] = []

        def opened(one: ast.expr) -> ast.expr:
            if isinstance(one, ast.Tuple | ast.List):
                made: ast.expr = ast.Tuple([opened(element) for element in one.elts], ast.Store())
            elif isinstance(one, ast.Starred):
                made = ast.Starred(opened(one.value), ast.Store())
            else:
                parts.append((one, self._temporary()))
                made = ast.Name(parts[-1][1], ast.Store())
            return ast.copy_location(made, one)

        made: list[ast.stmt] = [ast.copy_location(ast.Assign([opened(target)], value), node)]
        for part, name in parts:
            made.extend(self._assigned(part, self._load(name, part), node))
        return made

    # --- sites --------------------------------------------------------------------------------------------------------

    def _setitem(self, target: ast.expr, value: ast.expr, node: ast.Assign) -> list[ast.stmt]:
        effect, values = self._found[target], _Values()
        stored = values.put(value)
        path = values.put_path(target)
        return self._noted(effect, ast.copy_location(ast.Assign([path], stored), node), values)

    def _extreme(self, effect: Effect, node: ast.Assign) -> list[ast.stmt]:
        values, call = _Values(), node.value
        assert isinstance(call, ast.Call)
        arguments = [
            argument if isinstance(argument, ast.Name) and argument.id == effect.name else values.put(argument)
            for argument in call.args
        ]
        done = ast.copy_location(ast.Call(call.func, arguments, []), call)
        return self._noted(effect, ast.copy_location(ast.Assign(node.targets, done), node), values)

    def _touched(self, effect: Effect, path: ast.expr, values: _Values, rest: Iterable[ast.expr]) -> list[ast.stmt]:
        """Look a path up where computing the `rest` may raise and be caught: serially it has been by then."""
        if not effect.guarded or not isinstance(path, ast.Subscript):
            return []
        if all(isinstance(one, ast.Constant) for one in rest):
            return []
        keys = [(self._temporary(), key) for key in values.recorded]
        values.recorded = [self._load(name, key) for name, key in keys]
        looked_at = copy.deepcopy(path)
        looked_at.ctx = ast.Load()
        recorded = _Values()
        recorded.recorded = list(values.recorded)
        done = ast.copy_location(ast.Expr(looked_at), effect.statement)
        made = [self._set(name, key, effect.statement) for name, key in keys]
        return [*made, *self._noted(replace(effect, kind="touch"), done, recorded)]

    def _one_by_one(self, effect: Effect, path: ast.expr, values: _Values, call: ast.Call) -> list[ast.stmt]:
        """``out.extend(lines)`` where an exception may be caught: what came before it has been added."""
        keys = [(self._temporary(), key) for key in values.recorded]
        name = self._temporary()
        values.recorded = [self._load(key, written) for key, written in keys]
        value = values.put(self._load(name, call.args[0]))
        function = ast.copy_location(ast.Attribute(path, "extend", ast.Load()), call.func)
        one = ast.copy_location(ast.Tuple([value], ast.Load()), call.args[0])
        done = ast.copy_location(ast.Expr(ast.copy_location(ast.Call(function, [one], []), call)), effect.statement)
        noted = self._noted(effect, done, values)
        target = ast.copy_location(ast.Name(name, ast.Store()), call.args[0])
        loop = ast.copy_location(ast.For(target, call.args[0], noted, []), effect.statement)
        return [*(self._set(key, written, effect.statement) for key, written in keys), loop]

    def _noted(self, effect: Effect, done: ast.stmt, values: _Values) -> list[ast.stmt]:
        number = len(self.sites)
        ast.fix_missing_locations(done)
        written = effect.statement
        self.sites.append(
            Site(
                number=number,
                kind=effect.kind,
                name=effect.name,
                depth=effect.depth,
                statement=done,
                n_values=len(values.recorded),
                place=place_of(written, self._source.text),
                text=self._source.line_of(written),
                guarded=effect.guarded,
                on_item=effect.on_item,
                own_slot=not effect.on_item and effect.name in self._slots,
                key=None if effect.on_item else self._slots.get(effect.name),
            )
        )
        made: list[ast.stmt] = []
        recorded = values.recorded
        if effect.on_item:  # computed once, for the worker's own copy of the item and for the record
            names = [self._temporary() for _ in recorded]
            made = [self._set(name, value, written) for name, value in zip(names, recorded, strict=True)]
            made.append(_with_values(done, names))
            recorded = [_apart(self._load(name, value), value) for name, value in zip(names, recorded, strict=True)]
        note = ast.Attribute(ast.Name(LOG, ast.Load()), "note", ast.Load())
        call = ast.Expr(ast.Call(note, [ast.Constant(number), *recorded], []))
        return [*made, ast.fix_missing_locations(ast.copy_location(call, written))]

    def _made_now(self, node: ast.expr, effect: Effect, statement: ast.stmt) -> ast.expr:
        """What would be gone through later, as a list."""
        is_lazy = isinstance(node, ast.GeneratorExp) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _LAZY
        )
        if is_lazy and effect.guarded:
            reason = (
                "a `try` or a `with` around may end an exception half way through what is added: make it a list first."
            )
            raise Refused(f"`{ast.unparse(statement)}`: {reason}", place_of(node, self._source.text))
        if isinstance(node, ast.GeneratorExp):
            return ast.copy_location(ast.ListComp(node.elt, node.generators), node)
        if is_lazy or (effect.kind == "extend" and not _is_display(node)):
            return ast.fix_missing_locations(
                ast.copy_location(ast.List([ast.Starred(node, ast.Load())], ast.Load()), node)
            )
        return node

    # --- temporaries --------------------------------------------------------------------------------------------------

    def _temporary(self) -> str:
        self._n_temporaries += 1
        return f".t{self._n_temporaries - 1}"

    def _set(self, name: str, value: ast.expr, at: ast.AST) -> ast.stmt:
        made = ast.Assign([ast.copy_location(ast.Name(name, ast.Store()), value)], value)
        return ast.copy_location(made, at)

    def _load(self, name: str, at: ast.AST) -> ast.expr:
        return ast.copy_location(ast.Name(name, ast.Load()), at)


def _with_values(statement: ast.stmt, names: list[str]) -> ast.stmt:
    """The kernel's statement for the worker: temporaries for what was recorded."""
    by_value = {value_name(position): name for position, name in enumerate(names)}

    def copied(node: Any) -> Any:
        if isinstance(node, list):
            return [copied(one) for one in node]
        if not isinstance(node, ast.AST):
            return node
        fields = {name: copied(value) for name, value in ast.iter_fields(node)}
        if isinstance(node, ast.Name):
            fields["id"] = by_value.get(node.id, node.id)
        return ast.copy_location(type(node)(**fields), node)

    made = copied(statement)
    assert isinstance(made, ast.stmt)
    return made


def _apart(name: ast.expr, value: ast.expr) -> ast.expr:
    """What is recorded of a value that goes into the worker's item as well, where the next statement may change it."""
    made: ast.expr
    if isinstance(value, ast.List | ast.ListComp):
        made = ast.List([ast.Starred(name, ast.Load())], ast.Load())
    elif isinstance(value, ast.Set | ast.SetComp):
        made = ast.Set([ast.Starred(name, ast.Load())])
    elif isinstance(value, ast.Dict | ast.DictComp):
        made = ast.Dict([None], [name])
    else:
        return name
    return ast.fix_missing_locations(ast.copy_location(made, value))


def _is_display(node: ast.expr) -> bool:
    """Whether a value is a new list or the like, complete when it is there."""
    return isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp)
