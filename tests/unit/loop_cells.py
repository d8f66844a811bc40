"""What the tests of reading loops share: a cell as a loop, its refusal, and its effects done without any worker."""

from __future__ import annotations

import ast
import copy
import textwrap
from typing import Any

import pytest

from nbpar.notebook.loop_model import ITEM, LOG, Loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Refused, Source, define, function_of


def read(cell: str, **options: Any) -> Loop:
    """The loop of a cell."""
    source = Source(textwrap.dedent(cell).strip("\n"))
    return read_loop(source.parse(source.text), source, **options)


def refused(cell: str, **options: Any) -> Refused:
    """Why a cell is refused."""
    with pytest.raises(Refused) as caught:
        read(cell, **options)
    return caught.value


def underlined(cell: str, **options: Any) -> str:
    """The part of the text that a refusal underlines."""
    place = refused(cell, **options).place
    assert place is not None
    lines = textwrap.dedent(cell).strip("\n").split("\n")
    end = place.end_column if place.end_line == place.line else None
    return lines[place.line - 1][place.column : end]


class Log(list[tuple[int, tuple[Any, ...]]]):
    """Takes the place of a worker's recorder."""

    def note(self, number: int, *values: Any) -> None:
        self.append((number, values))


def run(loop: Loop, namespace: dict[str, Any]) -> None:
    """Do a loop in two steps: the tasks, each with a copy of its item, then their effects."""
    execute(loop.before, namespace)
    items = list(eval(compile(ast.Expression(loop.iterable), "<cell>", "eval"), namespace))
    outcomes = [task(loop, item, namespace) for item in copy.deepcopy(items)]
    kept: dict[str, Any] = {}
    for item, (log, values) in zip(items, outcomes, strict=True):
        for number, recorded in log:
            site = loop.sites[number]
            names = {f".v{position}": value for position, value in enumerate(recorded)}
            assert len(recorded) == site.n_values
            if site.on_item:
                bind = ast.copy_location(ast.Assign([loop.target], ast.Name(".item", ast.Load())), site.statement)
                around = {name: namespace[name] for name in loop.targets if name in namespace}
                execute([bind, site.statement], namespace, {".item": item, **names})
                for name in loop.targets:
                    namespace.pop(name)
                namespace.update(around)
            else:
                execute([site.statement], namespace, names)
        kept.update({name: value for name, value in values.items() if name in (*loop.targets, *loop.bound)})
        if loop.always:
            assert loop.always <= values.keys()
        assert not loop.never_kept & values.keys()
    namespace.update(kept)
    execute(loop.after, namespace)


def task(loop: Loop, item: Any, namespace: dict[str, Any]) -> tuple[Log, dict[str, Any]]:
    """What one iteration notes, and its local names at the end."""
    take = ast.For(loop.target, ast.Tuple([ast.Name(ITEM, ast.Load())], ast.Load()), loop.body, [])
    names = ast.Return(ast.Call(ast.Name(".locals", ast.Load()), [], []))
    definition = define("<loop>", ITEM, [ast.copy_location(take, loop.target), names], loop.target)
    log = Log()
    function = function_of(
        ast.fix_missing_locations(definition), Source(""), dict(namespace), {LOG: log, ".locals": locals}
    )
    return log, function(item)


def execute(statements: list[ast.stmt], namespace: dict[str, Any], names: dict[str, Any] | None = None) -> None:
    """Run statements of a cell, with names that no cell can name."""
    namespace.update(names or {})
    exec(compile(ast.fix_missing_locations(ast.Module(statements, [])), "<cell>", "exec"), namespace)
    for name in names or {}:
        del namespace[name]
