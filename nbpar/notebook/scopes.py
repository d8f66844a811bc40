"""Which names a piece of code binds, and which it takes from around it: Python's scopes, from the syntax tree alone.

Owns nothing but two questions about a tree. Used by :mod:`nbpar.notebook.flow` and :mod:`nbpar.notebook.loops` for the
body of a loop, whose scope is a module's when it is run as it stands and a function's when workers run it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["COMPREHENSIONS", "Function", "around", "bindings", "free_names", "target_names"]

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def target_names(target: ast.expr) -> list[str]:
    """Names that a target binds, in its order.

    Examples
    --------
    >>> target_names(ast.parse("i, (a, *b) = 0").body[0].targets[0])
    ['i', 'a', 'b']
    """
    return list(dict.fromkeys(node.id for node in _nodes(target) if isinstance(node, ast.Name) and not _is_load(node)))


def bindings(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Names that are bound in the scope that the nodes belong to, in the order of the text, with what binds them.

    Deletions count, and ``n += 1`` with the whole statement. What functions, classes and comprehensions bind is their
    own, except for ``:=`` in a comprehension.

    Examples
    --------
    >>> body = ast.parse("import a.b as c; i = [j := k for k in (lambda y: x)()]").body
    >>> [name for name, _ in bindings(body)]
    ['c', 'i', 'j']
    """
    for node in nodes:
        yield from _bindings(node)


def _bindings(node: Any) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Name():
            if not _is_load(node):
                yield node.id, node
        case ast.AugAssign(target=ast.Name(id=name)):
            yield from _bindings(node.value)
            yield name, node
        case ast.Import() | ast.ImportFrom():
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            walruses = (part.target for part in _nodes(node) if isinstance(part, ast.NamedExpr))
            yield from ((target.id, target) for target in walruses)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
            yield from bindings(around(node))
            if not isinstance(node, ast.Lambda):
                yield node.name, node
        case _:
            caught = getattr(node, "rest", None) if isinstance(node, ast.MatchMapping) else _name_of(node)
            if caught:
                yield caught, node
            yield from bindings(ast.iter_child_nodes(node))


def _name_of(node: ast.AST) -> str | None:
    """The name in ``except ... as name`` and in patterns of ``match``."""
    return node.name if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) else None


def free_names(node: ast.AST) -> Iterator[ast.Name]:
    """Names that a function, a lambda, a class or a comprehension reads from the scope around it.

    Only what runs in a scope of its own: decorators, defaults and base classes belong to the scope around. A name that
    the body of a class both binds and reads counts, because it may be that of the scope around when it is read.

    Examples
    --------
    >>> made = ast.parse("def f(a, b=c): d = a + e; return [d + g for g in h]").body[0]
    >>> [name.id for name in free_names(made)]
    ['e', 'h']
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield from _free_in_function(node)
    elif isinstance(node, ast.ClassDef):
        for statement in node.body:
            yield from _free(statement, frozenset())
    else:
        yield from _free_in_comprehension(node)


def _free_in_function(node: Function) -> Iterator[ast.Name]:
    statements = [node.body] if isinstance(node, ast.Lambda) else node.body
    around = {
        name
        for statement in statements
        for part in _nodes(statement)
        if isinstance(part, ast.Global | ast.Nonlocal)
        for name in part.names
    }
    arguments = node.args
    own = {
        argument.arg
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        )
    }
    own |= {parameter.name for parameter in getattr(node, "type_params", [])}
    own |= {name for name, _ in bindings(statements)} - around
    for statement in statements:
        yield from _free(statement, frozenset(own))


def _free_in_comprehension(node: Any) -> Iterator[ast.Name]:
    own = {name for generator in node.generators for name in target_names(generator.target)}
    for position, generator in enumerate(node.generators):
        yield from _free(generator.iter, frozenset(own) if position else frozenset())
        for part in (generator.target, *generator.ifs):
            yield from _free(part, frozenset(own))
    for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
        yield from _free(part, frozenset(own))


def _free(node: Any, own: frozenset[str]) -> Iterator[ast.Name]:
    """Names read in a tree that is in a scope with the names `own`, and that come from further out."""
    match node:
        case ast.Name():
            if _is_load(node) and node.id not in own:
                yield node
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
            for part in around(node):
                yield from _free(part, own)
            inner = free_names(node)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            inner = free_names(node)
        case ast.AugAssign(target=ast.Name(id=name)) if name not in own:
            yield ast.copy_location(ast.Name(name, ast.Load()), node.target)
            yield from _free(node.value, own)
            return
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _free(child, own)
            return
    yield from (name for name in inner if name.id not in own)


def around(node: Function | ast.ClassDef) -> list[ast.AST]:
    """What of a definition is computed where it stands: decorators, defaults, annotations, base classes."""
    parts: list[ast.AST | None] = [*getattr(node, "decorator_list", [])]
    if isinstance(node, ast.ClassDef):
        parts.extend((*node.bases, *node.keywords))
    else:
        arguments = node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        parts.extend((*arguments.defaults, *arguments.kw_defaults))
        parts.extend(argument.annotation for argument in every if argument is not None)
        parts.append(getattr(node, "returns", None))
    return [part for part in parts if part is not None]


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a tree without those of functions and classes in it."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _nodes(child)


def _is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)
