"""The smallest notebook that still goes wrong: statements are left out, and expressions made simpler, while it does.

Owns :func:`reduced`. Works on syntax trees, knows nothing of loops; used by ``python -m tests.loops``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.loops.oracle import Case

__all__ = ["reduced"]

_MOST_TRIES = 1500


def reduced(case: Case, is_wrong: Callable[[Case], bool]) -> Case:
    """A smaller case for which `is_wrong` holds as well."""
    n_tries = 0
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(case):
            n_tries += 1
            if n_tries > _MOST_TRIES:
                return case
            if len(str(candidate)) < len(str(case)) and is_wrong(candidate):
                case, smaller = candidate, True
                break
    return case


def _candidates(case: Case) -> Iterator[Case]:
    for part in ("setup", "cell"):
        try:
            tree = ast.parse(getattr(case, part))
        except SyntaxError:
            continue
        for smaller in _smaller(tree):
            try:
                text = ast.unparse(ast.fix_missing_locations(smaller))
                ast.parse(text)
            except (SyntaxError, ValueError, TypeError, AttributeError):
                continue
            yield replace(case, setup=text + "\n") if part == "setup" else replace(case, cell=text + "\n")


def _smaller(tree: ast.Module) -> Iterator[ast.Module]:
    """Copies of a tree, each with one thing less."""
    n_nodes = sum(1 for _ in ast.walk(tree))
    for at in range(n_nodes):
        for change in (_without_statement, _opened, _simpler):
            for way in range(8):
                made = copy.deepcopy(tree)
                node = list(ast.walk(made))[at]
                if not change(node, way):
                    break
                yield made


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        found = getattr(node, field, None)
        if isinstance(found, list):
            yield found


def _without_statement(node: ast.AST, way: int) -> bool:
    """Leave out the `way`-th statement of what a node holds."""
    places = [(body, i) for body in _bodies(node) for i in range(len(body))]
    if way >= len(places):
        return False
    body, i = places[way]
    del body[i]
    if not body and not isinstance(node, ast.Module) and body is getattr(node, "body", None):
        body.append(ast.Pass())
    return True


def _opened(node: ast.AST, way: int) -> bool:
    """Put what is in a compound statement in its place."""
    places = [(body, i) for body in _bodies(node) for i, one in enumerate(body) if isinstance(one, _COMPOUND)]
    if way >= len(places):
        return False
    body, i = places[way]
    inner = body[i]
    parts = [*_bodies(inner), *(one.body for one in (*getattr(inner, "cases", ()), *getattr(inner, "handlers", ())))]
    body[i : i + 1] = [statement for part in parts for statement in part]
    return True


_COMPOUND = (ast.If, ast.While, ast.With, ast.Try, ast.Match, ast.For)


def _simpler(node: ast.AST, way: int) -> bool:
    """An expression becomes one of its parts, or the number one."""
    places = []
    for field, value in ast.iter_fields(node):
        for i, one in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(one, ast.expr) and not isinstance(getattr(one, "ctx", ast.Load()), ast.Store | ast.Del):
                inner = [child for child in ast.iter_child_nodes(one) if isinstance(child, ast.expr)]
                places += [(field, i, new) for new in (*inner, *([] if isinstance(one, ast.Constant) else [_ONE]))]
    if way >= len(places):
        return False
    field, i, new = places[way]
    found = getattr(node, field)
    if isinstance(found, list):
        found[i] = copy.deepcopy(new)
    else:
        setattr(node, field, copy.deepcopy(new))
    return True


_ONE = ast.Constant(1)
