"""Runners that are wrong on purpose: the oracle is to be believed because it finds each of them.

:func:`faithful` is right (it knows beforehand whether the loop will raise); the others do one thing of it wrongly, each
something that a parallel loop might well do. Used by :mod:`tests.loops.test_oracle`.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable
from typing import Any

from tests.loops.oracle import FILENAME, Case, Refusal, Runner, fresh, parts_of

__all__ = ["MUTANTS", "faithful"]

Names = dict[str, Any]


def _run(tree: ast.Module, names: Names) -> None:
    exec(compile(ast.fix_missing_locations(tree), FILENAME, "exec", dont_inherit=True), names)


def _will_raise(case: Case) -> BaseException | None:
    """What the loop raises: tried out on a namespace of its own."""
    before, loop, _ = parts_of(case.cell)
    assert loop is not None
    states = random.getstate()
    try:
        names = fresh(case.setup)
        _run(before, names)
        _run(ast.Module([_loop_alone(loop)], []), names)
    except BaseException as error:  # noqa: BLE001  # whatever it is
        return error
    finally:
        random.setstate(states)
        fresh(case.setup)
    return None


def _loop_alone(loop: ast.For) -> ast.For:
    return ast.copy_location(ast.For(loop.target, loop.iter, loop.body, []), loop)


def faithful(case: Case) -> Runner:
    """Raises what serial raises without having done a thing; else runs the cell."""

    def run(cell: str, names: Names, _: object) -> None:
        try:
            compile(cell, FILENAME, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise Refusal(str(error)) from None
        _, loop, _ = parts_of(cell)
        if loop is None:
            raise Refusal("no loop")
        if (raised := _will_raise(case)) is not None:
            raise raised
        exec(compile(cell, FILENAME, "exec", dont_inherit=True), names)

    return run


def _with_loop(change: Callable[[ast.For, Names], None]) -> Callable[[Case], Runner]:
    """A runner that is faithful but for the loop."""

    def mutant(case: Case) -> Runner:
        def run(cell: str, names: Names, _: object) -> None:
            before, loop, after = parts_of(cell)
            if loop is None or _will_raise(case) is not None:
                raise Refusal("not tried")
            _run(before, names)
            change(_loop_alone(loop), names)
            _run(after, names)

        return run

    return mutant


def _items_as(make: Callable[[Any], Any]) -> Callable[[ast.For, Names], None]:
    def change(loop: ast.For, names: Names) -> None:
        names[".make"] = make
        loop.iter = ast.Call(ast.Name(".make", ast.Load()), [loop.iter], [])
        try:
            _run(ast.Module([loop], []), names)
        finally:
            del names[".make"]

    return change


def _targets(loop: ast.For) -> set[str]:
    return {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}


def _last_values_lost(loop: ast.For, names: Names) -> None:
    old = {name: names[name] for name in _targets(loop) & names.keys()}
    _run(ast.Module([loop], []), names)
    for name in _targets(loop):
        names.pop(name, None)
    names.update(old)


def _on_copies(loop: ast.For, names: Names) -> None:
    """Accumulators are bound to copies, so that other names for them see nothing."""
    for name, value in list(names.items()):
        if name.startswith(("acc", "bag", "out")) and isinstance(value, list | dict | set):
            names[name] = copy.copy(value)
    _run(ast.Module([loop], []), names)


def _in_copies_of_the_world(loop: ast.For, names: Names) -> None:
    """Each iteration sees what was there before the loop, and the last one's results are kept."""
    names[".items"] = list(eval(compile(ast.fix_missing_locations(ast.Expression(loop.iter)), "", "eval"), names))
    one_by_one = [[item] for item in names.pop(".items")]
    start = {k: v for k, v in names.items() if isinstance(v, int | float | str | tuple)}
    for one in one_by_one:
        names.update(start)
        names[".one"] = one
        loop.iter = ast.Name(".one", ast.Load())
        _run(ast.Module([loop], []), names)
        del names[".one"]


def _values_through_floats(loop: ast.For, names: Names) -> None:
    _run(ast.Module([loop], []), names)
    for name, value in names.items():
        if type(value) is int and name in _targets(loop):
            names[name] = float(value)


def _summed_in_parts(loop: ast.For, names: Names) -> None:
    """Each number is added up by itself and then put upon what was there: other bits, where it is a float."""
    start = {k: v for k, v in names.items() if type(v) is float}
    names.update(dict.fromkeys(start, 0.0))
    _run(ast.Module([loop], []), names)
    for name, value in start.items():
        if type(names[name]) is float:
            names[name] += value


def _changes_on_error(case: Case) -> Runner:
    def run(cell: str, names: Names, _: object) -> None:
        if _will_raise(case) is None:
            raise Refusal("not tried")
        exec(compile(cell, FILENAME, "exec", dont_inherit=True), names)

    return run


def _bindings_on_error(case: Case) -> Runner:
    def run(cell: str, names: Names, _: object) -> None:
        before, loop, _ = parts_of(cell)
        if loop is None:
            raise Refusal("no loop")
        _run(before, names)
        raise Refusal("too late")

    return run


def _swallows(case: Case) -> Runner:
    def run(cell: str, names: Names, _: object) -> None:
        if _will_raise(case) is None:
            raise Refusal("not tried")

    return run


def _other_error(case: Case) -> Runner:
    def run(cell: str, names: Names, _: object) -> None:
        if _will_raise(case) is None:
            raise Refusal("not tried")
        raise RuntimeError("something")

    return run


def _random_moves(loop: ast.For, names: Names) -> None:
    random.random()
    _run(ast.Module([loop], []), names)


MUTANTS: dict[str, Callable[[Case], Runner]] = {
    "out of order": _with_loop(_items_as(lambda items: list(items)[::-1])),
    "one item too few": _with_loop(_items_as(lambda items: list(items)[:-1])),
    "the first item twice": _with_loop(_items_as(lambda items: [*list(items)[:1], *list(items)][:9])),
    "items copied": _with_loop(_items_as(lambda items: copy.deepcopy(list(items)))),
    "last values lost": _with_loop(_last_values_lost),
    "accumulators replaced by copies": _with_loop(_on_copies),
    "nothing carried": _with_loop(_in_copies_of_the_world),
    "floats for integers": _with_loop(_values_through_floats),
    "sums in another order": _with_loop(_summed_in_parts),
    "random numbers drawn": _with_loop(_random_moves),
    "no undo after an error": _changes_on_error,
    "names left by a refusal": _bindings_on_error,
    "an error swallowed": _swallows,
    "another error": _other_error,
}
