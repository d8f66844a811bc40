"""What cannot stand in the body of a parallel loop, whatever its names are: ``break``, ``return``, ``global`` ...

Owns these refusals. Called by :mod:`nbpar.notebook.loops` before it looks at names.
"""

from __future__ import annotations

import ast
from typing import Any, NoReturn

from nbpar.notebook.source import Refused, Source, place_of

__all__ = ["check_body", "check_header"]

_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def check_header(loop: ast.For, source: Source) -> None:
    """Refuse a target that is more than names, and an iterable that does more than to give items.

    Raises
    ------
    Refused
    """
    for node in ast.walk(loop.target):
        if isinstance(node, ast.Attribute | ast.Subscript):
            written = ast.unparse(node)
            reason = f"`{written}` is set by the loop's header. Give that plain names, and write `{written} = x` below."
            raise Refused(reason, place_of(node, source.text))
    for node in _own_nodes(loop.iter):
        if isinstance(node, ast.NamedExpr):
            reason = f"`{ast.unparse(node)}` sets a name in the loop's header. Set it in a line before the loop."
        elif isinstance(node, ast.Await | ast.Yield | ast.YieldFrom) or getattr(node, "is_async", False):
            reason = "what the loop goes over is waited for. Do so in a line before it: `xs = await ...`."
        else:
            continue
        raise Refused(reason, place_of(node if hasattr(node, "lineno") else loop.iter, source.text))


def check_body(body: list[ast.stmt], source: Source) -> None:
    """Refuse statements that mean something else in a task, or nothing.

    Raises
    ------
    Refused
    """
    checker = _Checker(source)
    for statement in body:
        checker.visit(statement)


class _Checker(ast.NodeVisitor):
    def __init__(self, source: Source) -> None:
        self._source = source
        self._n_functions = 0
        self._n_coroutines = 0
        self._n_classes = 0
        self._n_loops = 0

    def _refuse(self, node: ast.AST, reason: str) -> NoReturn:
        raise Refused(f"{reason}.", place_of(node, self._source.text))

    # --- scopes -------------------------------------------------------------------------------------------------------

    def _visit_function(self, node: Any) -> None:
        n_loops, self._n_loops = self._n_loops, 0
        is_coroutine = isinstance(node, ast.AsyncFunctionDef)
        self._n_functions += 1
        self._n_coroutines += is_coroutine
        self.generic_visit(node)
        self._n_functions -= 1
        self._n_coroutines -= is_coroutine
        self._n_loops = n_loops

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        n_loops, self._n_loops = self._n_loops, 0
        self._n_classes += 1
        self.generic_visit(node)
        self._n_classes -= 1
        self._n_loops = n_loops

    def _visit_loop(self, node: Any) -> None:
        if isinstance(node, ast.AsyncFor):
            self._check_async(node, "`async for`")
        for part in (node.target, node.iter) if hasattr(node, "iter") else (node.test,):
            self.visit(part)
        self._n_loops += 1
        for statement in node.body:
            self.visit(statement)
        self._n_loops -= 1
        for statement in node.orelse:
            self.visit(statement)

    visit_For = visit_While = visit_AsyncFor = _visit_loop  # noqa: N815

    # --- refused ------------------------------------------------------------------------------------------------------

    def visit_Break(self, node: ast.Break) -> None:
        if not self._n_loops and not self._n_functions:
            self._refuse(
                node,
                "`break` decides whether later iterations run, which run at the same time here. Keep the loop serial, "
                "or let all iterations run and choose after the loop",
            )

    def visit_Return(self, node: ast.Return) -> None:
        if not self._n_functions:
            self._refuse(node, "`return` can only stand in a function. To go on with the next item, write `continue`")
        self.generic_visit(node)

    def _visit_yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        if not self._n_functions:
            self._refuse(node, "`yield` can only stand in a function. Collect values with `out.append(...)`")
        self.generic_visit(node)

    visit_Yield = visit_YieldFrom = _visit_yield  # noqa: N815

    def _check_async(self, node: ast.AST, what: str) -> None:
        if not self._n_coroutines:
            self._refuse(
                node,
                f"{what} cannot stand in a loop that runs in workers. Use the form whose tasks may wait, as in "
                f"`%%parallel -o results each x in xs`, or call `asyncio.run(...)`",
            )

    def visit_Await(self, node: ast.Await) -> None:
        self._check_async(node, "`await`")
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._check_async(node, "`async with`")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if node.is_async:
            self._check_async(node.target, "`async for`")
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        names = ", ".join(node.names)
        if self._n_functions:
            self._refuse(
                node,
                f"`global {names}` lets a function set a name of the notebook's, which would be lost in a worker. "
                f"Let the function return the value",
            )
        self._refuse(node, f"`global {names}` says nothing here: leave it away")

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        if not self._n_functions:
            names = ", ".join(node.names)
            self._refuse(node, f"`nonlocal {names}` can only stand in a function in a function: leave it away")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if any(alias.name == "*" for alias in node.names):
            self._refuse(node, "`import *` could set any name. Name what you need, or import it before the loop")
        if node.module == "__future__":
            self._refuse(node, "a `__future__` import belongs in a cell of its own, before this one")

    def visit_Name(self, node: ast.Name) -> None:
        if (
            self._n_classes
            and isinstance(node.ctx, ast.Load)
            and node.id.startswith("__")
            and not node.id.endswith("__")
        ):
            self._refuse(node, f"`{node.id}` means another name in a class. Give it a name with fewer underscores")


def _own_nodes(node: ast.AST) -> Any:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _OWN_SCOPE):
            yield from _own_nodes(child)
