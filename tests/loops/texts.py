"""Notebooks kept as text files, for people to read and to add to: one block for each, the loop cell below its setup.

::

    === a name, or the kinds of the names that the body may use
    what ran in the cells before
    %%parallel
    the cell, or in traps.txt lines of a body

``traps.txt`` has the wrong neighbours of loops that run: what reads, carries, aliases, leaks or loses something; a line
``---`` has what follows it put at the body's end, so that other statements come between. Many of them are right as they
stand: whether one is refused is nobody's promise, that it is never wrong is. In ``whole.txt`` the cell itself is one,
``given.txt`` is what any of them may use. Used by :mod:`tests.loops.strategy` and the tests.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "complete", "given", "read"]

_WORD = re.compile(r"(?<![\w.'\"])[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Block:
    """One of a file's notebooks."""

    name: str
    setup: str
    cell: str


def read(filename: str) -> list[Block]:
    """The blocks of a file in this folder."""
    text = Path(__file__).with_name(filename).read_text()
    blocks = []
    for part in re.split(r"^===", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        setup, found, cell = f"\n{rest}".partition("\n%%parallel\n")
        assert found, part
        blocks.append(Block(name.strip(), setup.strip("\n"), cell.strip("\n")))
    return blocks


def given() -> dict[str, str]:
    """Names that cells may use, and what defines them."""
    text = Path(__file__).with_name("given.txt").read_text()
    found = {}
    for node in ast.parse(text).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        lines = "\n".join(text.split("\n")[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = lines
        elif isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = lines
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found[node.names[0].asname or node.names[0].name] = lines
    return found


_GIVEN = given()


def complete(setup: str, *texts: str) -> str:
    """The setup, with what it and the texts use of what is given before it."""
    done = {name for pair in re.findall(r"^(?:def|class) (\w+)|^(\w+) = ", setup, re.MULTILINE) for name in pair}
    lines: list[str] = []

    def need(text: str) -> None:
        for word in _WORD.findall(text):
            if word in _GIVEN and word not in done:
                done.add(word)
                need(_GIVEN[word])
                lines.append(_GIVEN[word])

    for text in (setup, *texts):
        need(text)
    return "\n".join([*lines, setup]).strip() + "\n"
