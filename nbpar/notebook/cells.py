"""``%%parallel each TARGET in ITERABLE``: from the text of a cell to the function of one task.

Owns the reading of the header, the check of the body and its rewriting. The body becomes the body of a function whose
globals are the user's namespace: names assigned in it are the task's own, others are those of the notebook as of the
call. Lines keep their numbers in the cell. A body with ``await`` becomes that of a coroutine function, whose tasks a
worker runs at once (:mod:`nbpar.worker.coroutines`). Called by :mod:`nbpar.notebook.magics`; needs no IPython.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nbpar.notebook.shell import rewrite_shell_calls
from nbpar.notebook.source import Place, Refused, Source, define, function_of, place_of

__all__ = ["Header", "Task", "each_task", "evaluate", "read_header", "suggest_each"]

ITEM = ".item"  # the name of an argument that no cell can name


@dataclass(frozen=True, slots=True)
class Header:
    """``TARGET in ITERABLE``, read."""

    target: ast.expr
    iterable: ast.expr
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """The function of one task; `has_result` says whether the cell ends with an expression."""

    function: Callable[[Any], Any]
    has_result: bool


def read_header(text: str, source: Source, *, line: int = 1, column: int = 0) -> Header:
    """Read what follows ``each``.

    Parameters
    ----------
    text : str
        ``i, row in enumerate(rows)``
    line, column : int
        Where it begins in the source.

    Raises
    ------
    Refused
        When it is no target and iterable.

    Examples
    --------
    >>> header = read_header("i, (a, b) in pairs if pairs else []", Source(""))
    >>> ast.unparse(header.target), ast.unparse(header.iterable)
    ('(i, (a, b))', 'pairs if pairs else []')
    """
    whole = Place(line, column, line, column + len(text))
    at = _find_in(text)
    if at is None or not text[:at].strip() or not text[at + 2 :].strip():
        raise Refused(
            "write: %%parallel [options] each TARGET in ITERABLE, as in: %%parallel -o ys each x in xs", whole
        )
    target = _one(source.parse(f"{text[:at].strip()} = 0", line=line, column=column), ast.Assign)
    if target is None or len(target.targets) != 1 or not isinstance(target.value, ast.Constant):
        raise Refused("`each` needs a target as in a `for` loop: `x`, or `i, (a, b)`", whole)
    for node in ast.walk(target.targets[0]):
        if isinstance(node, ast.Attribute | ast.Subscript):
            raise Refused("the target of `each` must be made of plain names", place_of(node, source.text))
    start = at + 2 + len(text[at + 2 :]) - len(text[at + 2 :].lstrip())
    try:  # in parentheses, so that a tuple, a comment and `a if b else c` are what they are behind `in`
        parsed = source.parse(f"({text[start:]}\n)", line=line, column=column + len(text[:start].encode()) - 1)
    except Refused as refused:
        if re.search(r"\s-{1,2}[a-z]", text[start:]):
            raise Refused(f"{refused.reason} (options stand before `each`)", refused.place) from None
        raise
    iterable = _one(parsed, ast.Expr)
    if iterable is None:
        raise Refused("what follows `in` must be one expression", whole)
    return Header(target.targets[0], iterable.value, " ".join(text.split()))


def each_task(header: Header, body: ast.Module, source: Source, namespace: dict[str, Any]) -> Task:
    """The function of one task.

    Parameters
    ----------
    header : Header
        Its target receives the item.
    body : ast.Module
        The cell below the magic's line.
    source : Source
        The whole cell, for the places of what is refused and for tracebacks.
    namespace : dict
        Becomes the function's globals; it is not changed.

    Raises
    ------
    Refused
        When the body cannot be the body of a task.
    """
    if not body.body:
        raise Refused("the cell has no code: what stands below the first line is the task")
    _refuse_whole_loop(header, body, source)
    check = _Check(source)
    names = check.check(body, header.target)
    statements = rewrite_shell_calls(body, source, names | set(namespace)).body
    last = statements[-1]
    has_result = isinstance(last, ast.Expr)
    if isinstance(last, ast.Expr):
        statements[-1] = ast.copy_location(ast.Return(last.value), last)
    if isinstance(header.target, ast.Name):
        definition = define("<cell>", header.target.id, statements, header.target)
    else:
        item = ast.copy_location(ast.Name(ITEM, ast.Load()), header.target)
        unpack = ast.copy_location(ast.Assign([header.target], item), header.target)
        definition = define("<cell>", ITEM, [unpack, *statements], header.target)
    function = function_of(_asynchronous(definition) if check.is_async else definition, source, namespace)
    assert not function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR), "`yield` was refused"
    return Task(function, has_result)


def _asynchronous(definition: ast.FunctionDef) -> Any:
    """The same definition with ``async`` before it."""
    made = ast.AsyncFunctionDef(
        **{name: getattr(definition, name) for name in definition._fields if hasattr(definition, name)}
    )
    return ast.copy_location(made, definition)


def evaluate(
    expression: ast.expr, source: Source, namespace: dict[str, Any], captured: Mapping[str, Any] | None = None
) -> Any:
    """The value of an expression in the user's namespace."""
    definition = define("<iterable>", None, [ast.copy_location(ast.Return(expression), expression)], expression)
    return function_of(definition, source, namespace, captured)()


def suggest_each(body: ast.Module) -> str:
    r"""The first line that would do for a cell with a loop: ``%%parallel -o results each x in xs``.

    Examples
    --------
    >>> suggest_each(ast.parse("out = []\nfor i, x in enumerate(xs):\n    out.append(f(x))"))
    '%%parallel -o results each i, x in enumerate(xs)'
    """
    for node in body.body:
        if isinstance(node, ast.For):
            target = ast.unparse(node.target)
            if isinstance(node.target, ast.Tuple):
                target = target.removeprefix("(").removesuffix(")")
            return f"%%parallel -o results each {target} in {ast.unparse(node.iter)}"
    return "%%parallel -o results each x in xs"


def _refuse_whole_loop(header: Header, body: ast.Module, source: Source) -> None:
    """Refuse a cell that still has the loop which ``each`` stands for: all of it would run for each item."""
    parts = ast.unparse(header.target), ast.unparse(header.iterable)
    for statement in body.body:
        if isinstance(statement, ast.For) and (ast.unparse(statement.target), ast.unparse(statement.iter)) == parts:
            first_line = source.text.split("\n")[statement.lineno - 1]
            place = Place(statement.lineno, statement.col_offset, statement.lineno, len(first_line))
            raise Refused(
                f"the cell has the whole loop, which `each` would run once for each item. Leave out "
                f"`each {header.text}`, and `%%parallel` runs the loop in parallel; or keep its body alone.",
                place,
            )


def _find_in(text: str) -> int | None:
    """Where the ``in`` between target and iterable is."""
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.string in ("(", "["):
                depth += 1
            elif token.string in (")", "]"):
                depth -= 1
            elif token.type == tokenize.NAME and token.string == "in" and depth == 0:
                return token.start[1]
    except (tokenize.TokenError, SyntaxError):
        return None
    return None


def _one(tree: ast.Module, kind: type[Any]) -> Any:
    """The only statement of a tree if it is of that kind."""
    return tree.body[0] if len(tree.body) == 1 and isinstance(tree.body[0], kind) else None


class _Check(ast.NodeVisitor):
    """Refuses what a function body cannot hold, or would silently do otherwise than the cell."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._in_function = 0
        self._in_loop = 0
        self._assigned: set[str] = set()
        self._augmented: dict[str, ast.AugAssign] = {}
        self.is_async = False

    def check(self, body: ast.Module, target: ast.expr) -> set[str]:
        """Go through the whole body; gives the names that a task assigns."""
        self.visit(target)
        self.visit(body)
        for name, node in self._augmented.items():
            if name not in self._assigned:
                raise self._refuse(
                    node,
                    f"`{name}` is not set in this task, so there is nothing to add to; each task has names of its own. "
                    f"Make the amount the cell's last expression and add the results up; or write the whole loop, with "
                    f"`%%parallel` above it and no `each`",
                )
        return self._assigned

    def _refuse(self, node: ast.AST, reason: str) -> Refused:
        place = place_of(node, self._source.text)
        return Refused(f"{reason}.", place)

    # --- scopes -------------------------------------------------------------------------------------------------------

    def _visit_scope(self, node: Any) -> None:
        for part in (*node.decorator_list, *_outer_parts(node)):
            self.visit(part)
        if not isinstance(node, ast.ClassDef):
            self._in_function += 1
        loops, self._in_loop = self._in_loop, 0
        for statement in node.body:
            self.visit(statement)
        self._in_loop = loops
        if not isinstance(node, ast.ClassDef):
            self._in_function -= 1
        if not self._in_function:
            self._assigned.add(node.name)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_scope  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._in_function += 1
        self.visit(node.body)
        self._in_function -= 1

    def _visit_loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        head = [node.test] if isinstance(node, ast.While) else [node.target, node.iter]
        for part in head:
            self.visit(part)
        self._in_loop += 1
        for statement in node.body:
            self.visit(statement)
        self._in_loop -= 1
        for statement in node.orelse:
            self.visit(statement)

    visit_For = visit_While = _visit_loop  # noqa: N815

    # --- names --------------------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store) and not self._in_function:
            self._assigned.add(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name) and not self._in_function:
            self._augmented.setdefault(node.target.id, node)
        else:
            self.visit(node.target)

    def visit_Import(self, node: ast.Import) -> None:
        if not self._in_function:
            self._assigned.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if any(alias.name == "*" for alias in node.names):
            raise self._refuse(
                node, "`import *` cannot stand in a task: name what you need, or import in a cell before"
            )
        if node.module == "__future__":
            raise self._refuse(node, "a `__future__` import belongs in a cell of its own, before this one")
        if not self._in_function:
            self._assigned.update(alias.asname or alias.name for alias in node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name and not self._in_function:
            self._assigned.add(node.name)
        self.generic_visit(node)

    def _visit_pattern(self, node: Any) -> None:
        name = getattr(node, "name", None) or getattr(node, "rest", None)
        if name and not self._in_function:
            self._assigned.add(name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _visit_pattern  # noqa: N815

    # --- what is waited for -------------------------------------------------------------------------------------------

    def _visit_await(self, node: ast.Await | ast.AsyncWith) -> None:
        self.is_async = self.is_async or not self._in_function
        self.generic_visit(node)

    visit_Await = visit_AsyncWith = _visit_await  # noqa: N815

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.is_async = self.is_async or not self._in_function
        self._visit_loop(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.is_async = self.is_async or (bool(node.is_async) and not self._in_function)
        self.generic_visit(node)

    # --- refused ------------------------------------------------------------------------------------------------------

    def visit_Return(self, node: ast.Return) -> None:
        if not self._in_function:
            raise self._refuse(node, "`return` cannot stand here: the cell's last expression is the task's result")
        self.generic_visit(node)

    def _visit_yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        if not self._in_function:
            raise self._refuse(node, "`yield` cannot stand in a task: make a list the cell's last expression")
        self.generic_visit(node)

    visit_Yield = visit_YieldFrom = _visit_yield  # noqa: N815

    def visit_Global(self, node: ast.Global) -> None:
        raise self._refuse(node, "`global` cannot stand in a task: what it sets in a worker would be lost")

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        if not self._in_function:
            raise self._refuse(node, "`nonlocal` cannot stand here: each task has names of its own")

    def _visit_jump(self, node: ast.Break | ast.Continue) -> None:
        if not self._in_loop and not self._in_function:
            word = type(node).__name__.lower()
            raise self._refuse(node, f"`{word}` cannot stand outside a loop: the cell is one task, not a loop's body")

    visit_Break = visit_Continue = _visit_jump  # noqa: N815


def _outer_parts(node: Any) -> list[ast.AST]:
    """What of a definition belongs to the scope around it."""
    if isinstance(node, ast.ClassDef):
        return [*node.bases, *node.keywords]
    return [node.args, *([node.returns] if node.returns else [])]
