"""Which statement of a cell is the loop, and what to say where none is or several are.

Owns :func:`find_loop` and the loop's header as text. Called by :mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from typing import NoReturn

from nbpar.notebook.source import Place, Refused, Source, place_of

__all__ = ["find_loop", "header_of", "header_place"]

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_INSTEAD = "`%%parallel -o results each x in xs` takes the code below it as the task for one item"


def find_loop(body: list[ast.stmt], source: Source) -> int:
    r"""The position of the cell's only top-level ``for``.

    Raises
    ------
    Refused
        When there is none, or more than one.

    Examples
    --------
    >>> find_loop(ast.parse("import math\nfor x in xs: print(x)").body, Source(""))
    1
    """
    at = [position for position, statement in enumerate(body) if isinstance(statement, ast.For)]
    if not at:
        _refuse_without(body, source)
    if len(at) > 1:
        lines = " and ".join(str(body[position].lineno) for position in at)
        raise Refused(
            f"the cell has {len(at)} loops (lines {lines}), and one can run in parallel. Give each a cell of its own.",
            place_of(body[at[1]], source.text),
        )
    return at[0]


def _refuse_without(body: list[ast.stmt], source: Source) -> NoReturn:
    for statement in body:
        place = place_of(statement, source.text)
        if isinstance(statement, ast.AsyncFor):
            raise Refused("`async for` takes its items one after the other. Make a list first and loop over it.", place)
        if isinstance(statement, ast.While):
            raise Refused(
                "`while` decides after each turn whether there is a next one, so its turns cannot run at the same "
                "time. Write it as a `for` over all that is to be done.",
                place,
            )
    for statement in body:
        for node in ast.walk(statement):
            place = place_of(node, source.text)
            if isinstance(node, ast.For):
                around = {
                    ast.FunctionDef: "a function",
                    ast.AsyncFunctionDef: "a function",
                    ast.ClassDef: "a class",
                    ast.With: "a `with`",
                    ast.AsyncWith: "a `with`",
                    ast.If: "an `if`",
                }.get(type(statement), "another statement")
                raise Refused(
                    f"the loop stands in {around}; %%parallel takes one that stands in the cell itself. Move it out, "
                    f"or call `nbpar.map` there.",
                    place,
                )
            if isinstance(node, _COMPREHENSIONS):
                raise Refused(
                    f"the cell has no `for` loop. For a comprehension write `%parallel` before it, in the same line: "
                    f"`ys = %parallel {ast.unparse(node)}`.",
                    place,
                )
    whole = place_of(body[0], source.text) if body else None
    raise Refused(f"the cell has no `for` loop. {_INSTEAD}.", whole)


def header_of(loop: ast.For) -> str:
    """``for i, x in enumerate(xs)``, in one line."""
    target = ast.unparse(loop.target)
    if isinstance(loop.target, ast.Tuple):
        target = target.removeprefix("(").removesuffix(")")
    return f"for {target} in {ast.unparse(loop.iter)}"


def header_place(loop: ast.For, source: Source) -> Place:
    """Where it stands."""
    start, end = place_of(loop, source.text), place_of(loop.iter, source.text)
    return Place(start.line, start.column, end.end_line, end.end_column)
