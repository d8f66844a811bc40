"""``!command`` inside a task: a worker has no IPython that could run it.

Owns the rewriting of what IPython makes of ``!`` (``get_ipython().system('...')``, ``.getoutput('...')``) into calls of
the two functions here, with the values that the command names, and these functions, which run in the worker. Magics are
refused: they work on the kernel. Called by :mod:`nbpar.notebook.cells`.
"""

from __future__ import annotations

import ast
import re
import string
import subprocess
from typing import Any

from nbpar.notebook.source import Refused, Source, place_of

__all__ = ["getoutput", "rewrite_shell_calls", "system"]

_MODULE = ".shell"  # a local name of the task, which no cell can name
_DOLLAR = re.compile(r"\$\$?([^\W\d]\w*)")


def system(command: str, values: dict[str, Any]) -> None:
    """Run a command and print what it writes.

    Parameters
    ----------
    command : str
        As the user wrote it, with ``{expression}`` and ``$name`` in it.
    values : dict
        What the names in it stand for.
    """
    with subprocess.Popen(
        _expanded(command, values),
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")  # noqa: T201  # it is the task's output


def getoutput(command: str, values: dict[str, Any], split: bool = True) -> Any:
    """Run a command and return what it writes: a list of lines that IPython calls an SList."""
    from IPython.utils.text import LSString, SList

    done = subprocess.run(
        _expanded(command, values),
        shell=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return SList(done.stdout.splitlines()) if split else LSString(done.stdout)


def _expanded(command: str, values: dict[str, Any]) -> str:
    from IPython.utils.text import DollarFormatter

    try:
        return str(DollarFormatter().vformat(command, (), values))
    except Exception:  # noqa: BLE001  # braces of the shell's own: as IPython does, leave the command as it is
        return command


def rewrite_shell_calls(body: ast.Module, source: Source, names: set[str]) -> ast.Module:
    """The tree of a task's body with the calls that IPython made for ``!`` replaced; the tree is changed.

    Parameters
    ----------
    names : set of str
        Names that exist outside the body: the notebook's and the target's.

    Raises
    ------
    Refused
        For a magic.
    """
    stored = {node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    rewriter = _Rewriter(source, stored | names)
    rewriter.visit(body)
    if rewriter.n_found:
        first = body.body[0]
        load = ast.ImportFrom("nbpar.notebook", [ast.alias("shell", _MODULE)], 0)
        for node in ast.walk(load):
            ast.copy_location(node, first)
        body.body.insert(0, load)
    return body


class _Rewriter(ast.NodeTransformer):
    def __init__(self, source: Source, known: set[str]) -> None:
        self._source = source
        self._known = known
        self.n_found = 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=method),
                args=[ast.Constant(value=str(command)), *_],
            ):
                if method in ("run_line_magic", "run_cell_magic"):
                    sign = "%" if method == "run_line_magic" else "%%"
                    place = place_of(node, self._source.text)
                    raise Refused(f"{sign}{command} cannot stand in a task: magics work on the kernel only.", place)
                if method in ("system", "getoutput"):
                    return self._replaced(node, method, command)
        return self.generic_visit(node)

    def _replaced(self, node: ast.Call, method: str, command: str) -> ast.Call:
        self.n_found += 1
        names = sorted(_names_in(command) & self._known)
        values = ast.Dict([ast.Constant(name) for name in names], [ast.Name(name, ast.Load()) for name in names])
        function = ast.Attribute(ast.Name(_MODULE, ast.Load()), method, ast.Load())
        made = ast.Call(function, [node.args[0], values], node.keywords)
        for part in (made, function, function.value, *ast.walk(values)):
            ast.copy_location(part, node)
        return made


def _names_in(command: str) -> set[str]:
    """Names in the ``{...}`` and ``$name`` of a command."""
    names = set(_DOLLAR.findall(command))
    try:
        # As IPython: what looks like a format specification is the rest of a slice.
        parsed = [(field, spec) for _, field, spec, _ in string.Formatter().parse(command) if field]
        fields = [f"{field}:{spec}" if spec else field for field, spec in parsed]
    except ValueError:
        return names
    for field in fields:
        try:
            tree = ast.parse(field.strip(), mode="eval")
        except SyntaxError:
            continue
        names.update(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return names
