"""The text of a cell as tasks, tracebacks and refusals see it.

Owns :class:`Source` (a text, the file name that Python knows it by, its syntax trees) and :class:`Refused`, the reason
why something cannot run in parallel together with the place in the text. Nothing here knows of nbpar's engine; used by
:mod:`nbpar.notebook.cells`, :mod:`nbpar.notebook.comprehensions` and :mod:`nbpar.notebook.magics`.
"""

from __future__ import annotations
import __future__

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, TypeVar

__all__ = ["Place", "Refused", "Source", "aligned", "function_of", "move", "place_of"]

Node = TypeVar("Node", bound=ast.AST)

# Flags of the kernel's compiler that change what code means; the others say how to read unfinished input.
_FUTURES: int = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a text: lines from 1, columns from 0 (in characters), the end excluded."""

    line: int
    column: int
    end_line: int
    end_column: int


class Refused(Exception):  # noqa: N818  # no error of the user's program: the magics turn it into a UsageError
    """Something that cannot run in parallel.

    Parameters
    ----------
    reason : str
        A sentence: what is in the way, and what to write instead.
    place : Place, optional
        What to underline.
    """

    def __init__(self, reason: str, place: Place | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


@dataclass(frozen=True, slots=True)
class Source:
    """A text that code is compiled from.

    Attributes
    ----------
    text : str
        All of it; line 1 of a cell magic's text is the magic's own line.
    written : str
        The same, line by line, as the user wrote it, where IPython's own syntax stands for something else.
    filename : str
        What tracebacks look the text up by.
    label : str
        What people call it: ``"Cell In[3]"``.
    flags : int
        The compiler's flags, for ``from __future__`` imports of earlier cells.
    first_line : int
        Number of the text's first line in the file.
    """

    text: str
    written: str = ""
    filename: str = "<cell>"
    label: str = ""
    flags: int = 0
    first_line: int = 1

    def parse(self, text: str, *, line: int = 1, column: int = 0) -> ast.Module:
        """The syntax tree of a part of the text that begins at `line` and `column`.

        Raises
        ------
        Refused
            When it is not Python; underlines the place.
        """
        try:
            tree = compile(text, self.filename, "exec", ast.PyCF_ONLY_AST | self.future_flags, dont_inherit=True)
        except SyntaxError as error:
            raise Refused(f"this is not Python: {error.msg}", _place_of_error(error, line, column)) from None
        except ValueError as error:  # a null byte, in Python before 3.12
            raise Refused(f"this is not Python: {error}") from None
        assert isinstance(tree, ast.Module)
        return move(tree, line, column)

    def compile(self, tree: ast.Module, *, may_await: bool = False) -> CodeType:
        """Code of a tree whose places are places of this text.

        Parameters
        ----------
        may_await : bool
            Whether ``await`` may stand outside of functions, as it may in a cell.

        Raises
        ------
        Refused
            When the compiler finds what the parser does not (``return`` in a class, a name both used and global ...).
        """
        flags = self.future_flags | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if may_await else 0)
        try:
            code = compile(ast.fix_missing_locations(tree), self.filename, "exec", flags, dont_inherit=True)
        except SyntaxError as error:
            raise Refused(f"this is not Python: {error.msg}", _place_of_error(error, 1, 0)) from None
        assert isinstance(code, CodeType)
        return code

    def line_of(self, node: ast.stmt) -> str:
        """A statement as it is written, or as it would be in one line."""
        lines = self.text.split("\n")
        if node.lineno != node.end_lineno or node.lineno > len(lines):
            return ast.unparse(node)
        return lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode(errors="replace")

    @property
    def future_flags(self) -> int:
        """The ``from __future__`` part of the flags."""
        return self.flags & _FUTURES

    def describe(self, refused: Refused) -> str:
        r"""The reason, the line it is about, and the part of that line underlined.

        Examples
        --------
        >>> print(Source("%%parallel each x in xs\nreturn x").describe(Refused("no return.", Place(2, 0, 2, 8))))
        no return.
          line 2
            2 | return x
              | ^^^^^^^^
        """
        place = refused.place
        lines = self.text.split("\n")
        if place is None or not 1 <= place.line <= len(lines):
            return refused.reason
        line = lines[place.line - 1]
        written = self.written.split("\n")[place.line - 1 :][:1] if self.written else []
        if written and written != [line]:
            line = written[0]
            place = Place(place.line, len(line) - len(line.lstrip()), place.line, len(line))
        end = place.end_column if place.end_line == place.line else len(line)
        marks = " " * place.column + "^" * max(1, min(end, len(line)) - place.column)
        number = str(place.line + self.first_line - 1)
        head = f"{self.label}, line {number}" if self.label else f"line {number}"
        return f"{refused.reason}\n  {head}\n    {number} | {line}\n    {' ' * len(number)} | {marks}"


def place_of(node: ast.AST, text: str) -> Place:
    """Where a node of the syntax tree is; trees count bytes of UTF-8, a :class:`Place` characters."""
    line, column = int(getattr(node, "lineno", 1)), int(getattr(node, "col_offset", 0))
    end_line, end_column = getattr(node, "end_lineno", None) or line, getattr(node, "end_col_offset", None) or column
    lines = text.split("\n")  # as Python counts lines: str.splitlines() ends one at a form feed as well

    def characters(number: int, n_bytes: int) -> int:
        if number > len(lines):
            return n_bytes
        return len(lines[number - 1].encode()[:n_bytes].decode(errors="replace"))

    return Place(line, characters(line, column), end_line, characters(end_line, end_column))


def move(tree: Node, line: int, column: int) -> Node:
    """Shift the places of a tree: what was parsed as line 1, column 0 is at `line` and `column` (bytes)."""
    for any_node in ast.walk(tree):
        node: Any = any_node
        if hasattr(node, "lineno"):
            if node.lineno == 1:
                node.col_offset = max(node.col_offset + column, 0)
            if node.end_lineno == 1:
                node.end_col_offset = max(node.end_col_offset + column, 0)
            node.lineno = max(node.lineno + line - 1, 1)
            node.end_lineno = max(node.end_lineno + line - 1, 1)
    return tree


def aligned(raw: str, transformed: str) -> str:
    r"""The text that IPython made of a cell, each line at the number it has in the cell.

    IPython joins the lines of a magic that goes on with a backslash, and drops leading empty ones.

    Parameters
    ----------
    raw, transformed : str
        Before and after.

    Examples
    --------
    >>> print(aligned("!ls \\\n -l\nx = 1", "system('ls -l')\nx = 1"))
    system('ls -l')
    <BLANKLINE>
    x = 1
    """
    before, after = raw.removesuffix("\n").split("\n"), transformed.removesuffix("\n").split("\n")
    if len(before) == len(after):
        return transformed
    lines: list[str] = []
    for _, start, stop, new_start, new_stop in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        lines.extend(_spread(before[start:stop], after[new_start:new_stop]))
    return "\n".join(lines) + "\n" if len(lines) == len(before) else transformed


def _spread(before: list[str], after: list[str]) -> list[str]:
    """Fewer lines, with empty ones where a line was dropped or joined to the one before."""
    lines: list[str] = []
    n_lost = len(before) - len(after)

    def lose() -> None:
        nonlocal n_lost
        lines.append("")
        n_lost -= 1

    for line in after:
        while n_lost > 0 and line.strip() and not before[len(lines)].strip():
            lose()
        lines.append(line)
        while n_lost > 0 and before[len(lines) - 1].endswith("\\") and not line.endswith("\\"):
            lose()
    return lines + [""] * n_lost


def function_of(
    definition: ast.FunctionDef,
    source: Source,
    namespace: dict[str, Any],
    captured: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """The function that a definition makes, with `namespace` as its globals and nothing stored there.

    Its code is named as that of a cell, and begins at line 1: IPython then shows its frames as those of the cell, with
    the lines around. Functions and classes in it are named as the cell would name them, too.

    Parameters
    ----------
    captured : mapping, optional
        Names that are no globals: they become the function's closure.
    """
    body: list[ast.stmt] = [definition]
    if captured:
        arguments = _arguments(*captured)
        result = ast.Return(ast.Name(definition.name, ast.Load()))
        body = [_function("closure", arguments, [definition, result])]
    private: dict[str, Any] = {}
    exec(source.compile(ast.Module(body, [])), namespace, private)
    function = private["closure"](**captured) if captured else private[definition.name]
    assert isinstance(function, FunctionType)
    code = _without_prefix(function.__code__, f"{function.__code__.co_qualname}.<locals>.")
    function.__code__ = code.replace(co_name="<module>", co_qualname="<module>")
    function.__qualname__ = definition.name
    return function


def _without_prefix(code: CodeType, prefix: str) -> CodeType:
    """The code with the names that a cell gives to what is defined in it; a class has its own among its constants."""
    name = code.co_qualname

    def constant(value: object) -> object:
        if isinstance(value, CodeType):
            return _without_prefix(value, prefix)
        return name.removeprefix(prefix) if isinstance(value, str) and value == name else value

    return code.replace(co_consts=tuple(map(constant, code.co_consts)), co_qualname=name.removeprefix(prefix))


def define(name: str, argument: str | None, body: list[ast.stmt], at: ast.AST) -> ast.FunctionDef:
    """A definition of a function of at most one argument; parts without a place get that of `at`."""
    made = _function(name, _arguments(*([] if argument is None else [argument])), body)
    for node in (made, *ast.walk(made.args)):
        ast.copy_location(node, at)
    made.lineno = 1
    return made


def _arguments(*names: str) -> ast.arguments:
    return ast.arguments([], [ast.arg(name) for name in names], None, [], [], None, [])


def _function(name: str, arguments: ast.arguments, body: list[ast.stmt]) -> ast.FunctionDef:
    made = ast.FunctionDef(name, arguments, body, [])
    made.type_params = []  # type: ignore[attr-defined,unused-ignore]  # Python 3.12 and later want it
    return made


def _place_of_error(error: SyntaxError, line: int, column: int) -> Place | None:
    if error.lineno is None:
        return None
    start = max((error.offset or 1) - 1, 0)
    end_line, end = error.end_lineno or error.lineno, max((error.end_offset or 0) - 1, 0)
    if error.lineno == 1:
        start += column
    if end_line == 1:
        end += column
    end = max(end, start + 1) if end_line == error.lineno else end
    return Place(error.lineno + line - 1, start, end_line + line - 1, end)
