"""What stands before and after a loop: ordinary code of the cell, run in the notebook as IPython runs a cell.

Called by :mod:`nbpar.notebook.loop_run`; needs no IPython, but goes by its setting ``ast_node_interactivity``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from typing import Any

from nbpar.notebook.source import Source

__all__ = ["check_code", "run_code"]


def check_code(statements: Sequence[ast.stmt], source: Source) -> None:
    """See whether the compiler takes it, before anything has run.

    Raises
    ------
    Refused
        When it does not.
    """
    source.compile(ast.Module(list(statements), []))


def run_code(
    statements: Sequence[ast.stmt],
    source: Source,
    namespace: dict[str, Any],
    *,
    interactivity: str = "last_expr",
    is_end: bool = True,
) -> Any:
    r"""Run statements.

    Parameters
    ----------
    interactivity : str
        IPython's setting: which values are shown.
    is_end : bool
        Whether the cell ends with them.

    Returns
    -------
    object
        The value that the cell shows at its end, or None.

    Examples
    --------
    >>> cell, names = Source("y = x + 1\ny * 2"), {"x": 1}
    >>> run_code(cell.parse(cell.text).body, cell, names), names["y"]
    (4, 2)
    """
    __tracebackhide__ = True
    statements = list(statements)
    last = statements[-1] if statements and is_end and interactivity != "none" else None
    if interactivity == "last_expr_or_assign" and (named := _assigned_name(last)) is not None:
        statements.append(ast.copy_location(ast.Expr(named), named))
        last = statements[-1]
    waiting: list[ast.stmt] = []
    for statement in statements:
        if not isinstance(statement, ast.Expr) or (statement is not last and interactivity != "all"):
            waiting.append(statement)
            continue
        _run(waiting, source, namespace)
        waiting = []
        code = ast.fix_missing_locations(ast.Expression(statement.value))
        value = eval(compile(code, source.filename, "eval", source.future_flags, dont_inherit=True), namespace)
        if statement is last:
            return value
        sys.displayhook(value)
    _run(waiting, source, namespace)
    return None


def _run(statements: list[ast.stmt], source: Source, namespace: dict[str, Any]) -> None:
    __tracebackhide__ = True
    if statements:
        exec(source.compile(ast.Module(statements, [])), namespace)


def _assigned_name(statement: ast.stmt | None) -> ast.Name | None:
    target: Any = None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        target = statement.target
    return ast.copy_location(ast.Name(target.id, ast.Load()), target) if isinstance(target, ast.Name) else None
