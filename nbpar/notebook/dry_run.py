"""``--dry-run``: what ``%%parallel`` would run, found out without running anything of the cell.

Owns the way from each of the three forms to a :class:`~nbpar.notebook.plan.Plan`: the task's lines, its effects, what
it brings along, the number of items where that can be told from what is there. Neither the iterable nor the code before
a loop is evaluated. Called by :mod:`nbpar.notebook.magics`; needs no IPython.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nbpar.notebook.baggage import Baggage, kind_of, pack
from nbpar.notebook.captures import Captures
from nbpar.notebook.cells import each_task, read_header
from nbpar.notebook.comprehensions import look_at_comprehension
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.plan import Effect, Line, Plan
from nbpar.notebook.source import Refused, Source
from nbpar.wire.names import globals_of

__all__ = ["n_items", "plan_of_comprehension", "plan_of_each", "plan_of_loop"]

_SIZED = (list, tuple, dict, set, frozenset, str, bytes, range, deque, defaultdict, OrderedDict, Counter)
_SAME_LENGTH = frozenset({"enumerate", "list", "tuple", "sorted", "reversed", "iter"})
_BUILTIN = frozenset(vars(builtins))


def plan_of_loop(
    read: Callable[[], Loop],
    body: ast.Module,
    source: Source,
    namespace: dict[str, Any],
    *,
    n_workers: int,
) -> Plan:
    """What the loop form would do.

    Parameters
    ----------
    read : callable
        Gives the loop of the cell, or raises `Refused`.
    body : ast.Module
        The cell below the magic's line; not changed.
    source : Source
        The whole cell.
    namespace : dict
        The notebook's; not changed.
    """
    loops = [statement for statement in body.body if isinstance(statement, ast.For)]
    plain = loops[0] if len(loops) == 1 else None
    lines, header = _lines_of(plain.body if plain else [], source), _header_of(plain)
    before = body.body[: body.body.index(plain)] if plain else []
    made = _bound_by(before)
    known = {name: value for name, value in namespace.items() if name not in made} | _literals(before)
    n = n_items(plain.iter, known) if plain else None
    try:
        loop = read()
    except Refused as refused:
        return Plan(header, n, n_workers, lines, refusals=(source.describe(refused),))
    effects = {site.place.line for site in loop.sites}
    refusals: tuple[str, ...] = ()
    try:
        _check_objects(loop, source, namespace, made)
    except Refused as refused:
        refusals = (source.describe(refused),)
    names = [name for name in sorted(loop.reads) if name not in made]
    return Plan(
        header=loop.header,
        n_items=n,
        n_workers=n_workers,
        lines=tuple(Line(line.number, line.text, line.number in effects) for line in lines),
        effects=tuple(
            Effect(site.place.line, site.text, "the item's own" if site.on_item else _kind(site.name, known))
            for site in loop.sites
            if site.kind != "touch"
        ),
        kept=tuple(name for name in (*loop.targets, *loop.bound) if name not in loop.never_kept),
        serial=tuple(_spans(loop.before)) + tuple(_spans(loop.after)),
        baggage=pack(names, known, _BUILTIN),
        made=tuple(sorted(made & (loop.reads | _names(loop.iterable)))),
        refusals=refusals,
    )


def _check_objects(loop: Loop, source: Source, namespace: dict[str, Any], made: frozenset[str]) -> None:
    """Refuse what the objects do not allow, of those that are there now: the code before the loop may make others."""
    value = namespace.get(loop.iterable.id) if isinstance(loop.iterable, ast.Name) else None
    items: Sequence[Any] = ()
    if isinstance(value, list | tuple | range) and not made & _names(loop.iterable):
        items = value
    seen = replace(loop, sites=tuple(site for site in loop.sites if site.name not in made), reads=loop.reads - made)
    Captures(seen, source, namespace).check(items)


def plan_of_each(
    form: str, body: ast.Module, source: Source, namespace: dict[str, Any], *, column: int, n_workers: int
) -> Plan:
    """What the each form would do; `form` is what follows ``each``, at `column` of the first line."""
    lines = _lines_of(body.body, source)
    try:
        header = read_header(form, source, column=column)
        last = body.body[-1] if body.body else None
        task = each_task(header, body, source, namespace)
    except Refused as refused:
        text = f"each {' '.join(form.split())}"
        return Plan(text, None, n_workers, lines, refusals=(source.describe(refused),))
    result = "It has no result, for the cell does not end with an expression."
    if isinstance(last, ast.Expr):
        result = f"The result of an item: {_one_line(ast.unparse(last.value))}"
    return Plan(
        header=f"each {header.text}",
        n_items=n_items(header.iterable, namespace),
        n_workers=n_workers,
        lines=lines,
        result=result,
        baggage=_baggage_of(task.function, namespace),
    )


def plan_of_comprehension(
    source: Source, namespace: dict[str, Any], scope: Mapping[str, Any] | None, *, n_workers: int
) -> Plan:
    """What the line form would do."""
    header = _one_line(source.text)
    try:
        iterable, texts, task = look_at_comprehension(source, namespace, scope)
    except Refused as refused:
        return Plan(header, None, n_workers, refusals=(source.describe(refused),))
    known = {**namespace, **(scope or {})}
    return Plan(
        header=header,
        n_items=n_items(iterable, known),
        n_workers=n_workers,
        lines=tuple(Line(source.first_line, _one_line(text)) for text in texts),
        result=f"The notebook goes through `{_one_line(ast.unparse(iterable))}`, and puts the value together in order.",
        baggage=_baggage_of(task, known),
    )


def _baggage_of(function: Any, known: Mapping[str, Any]) -> Baggage:
    return pack([*globals_of(function.__code__), *function.__code__.co_freevars], known, _BUILTIN)


# --- the text ---------------------------------------------------------------------------------------------------------


def _lines_of(statements: Sequence[ast.stmt], source: Source) -> tuple[Line, ...]:
    """The lines of some statements as the user wrote them, without the indentation that all have."""
    if not statements:
        return ()
    written = (source.written or source.text).split("\n")
    first, last = statements[0].lineno, statements[-1].end_lineno or statements[-1].lineno
    if isinstance(statements[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        first = min([first, *(decorator.lineno for decorator in statements[0].decorator_list)])
    texts = written[first - 1 : last]
    margin = min((len(text) - len(text.lstrip()) for text in texts if text.strip()), default=0)
    if first == statements[0].lineno and statements[0].col_offset > margin:  # `for x in xs: body`
        texts[0], margin = texts[0][statements[0].col_offset :], 0
    return tuple(Line(number, text[margin:].rstrip()) for number, text in enumerate(texts, first))


def _header_of(loop: ast.For | None) -> str:
    if loop is None:
        return "%%parallel"
    target = ast.unparse(loop.target)
    if isinstance(loop.target, ast.Tuple):
        target = target.removeprefix("(").removesuffix(")")
    return f"for {target} in {_one_line(ast.unparse(loop.iter))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _spans(statements: Sequence[ast.stmt]) -> Iterator[tuple[int, int]]:
    if statements:
        yield statements[0].lineno, statements[-1].end_lineno or statements[-1].lineno


def _bound_by(statements: Sequence[ast.stmt]) -> frozenset[str]:
    """Names that statements may bind; too many where functions have names of their own, which does no harm."""
    found: set[str] = set()
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return frozenset(found)


def _literals(statements: Sequence[ast.stmt]) -> dict[str, Any]:
    """Names that are set to something that is written out, and used no further: ``n, out = 100, []``."""
    times: Counter[str] = Counter()
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Name):
            times[node.id] += 1
    values: dict[str, Any] = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name() as target], value=value):
                pairs = [(target, value)]
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=parts)) if len(targets) == len(
                parts
            ):
                pairs = [
                    (target, part) for target, part in zip(targets, parts, strict=True) if isinstance(target, ast.Name)
                ]
            case _:
                continue
        for target, value in pairs:
            if times[target.id] == 1:  # nothing else in there can have changed it
                with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    values[target.id] = ast.literal_eval(value)
    return values


def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(one.id for one in ast.walk(node) if isinstance(one, ast.Name))


def _kind(name: str, known: Mapping[str, Any]) -> str:
    return f"{name}: {kind_of(known[name])}".removesuffix(" of 0") if name in known else ""


# --- how many ---------------------------------------------------------------------------------------------------------


def n_items(iterable: ast.expr, known: Mapping[str, Any]) -> int | None:
    """How many items an expression gives, when that can be told without evaluating it.

    Names of containers, ``range``, ``enumerate``, ``zip`` and the like of such, slices, views of dicts, displays.

    Examples
    --------
    >>> def count(text, **known):
    ...     return n_items(ast.parse(text, mode="eval").body, known)
    >>> count("enumerate(xs)", xs=[1, 2, 3]), count("range(1, len(xs))", xs="abc"), count("load()")
    (3, 2, None)
    """
    match iterable:
        case ast.Name(id=name) if name in known:
            return _length(known[name])
        case ast.List(elts=parts) | ast.Tuple(elts=parts) if not any(isinstance(one, ast.Starred) for one in parts):
            return len(parts)
        case ast.Constant(value=str() | bytes() as value):
            return len(value)
        case ast.Subscript(value=whole, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            length = n_items(whole, known)
            ends = [None if one is None else _number(one, known) for one in (lower, upper, step)]
            if length is None or any(
                end is None and one is not None for end, one in zip(ends, (lower, upper, step), strict=True)
            ):
                return None
            return None if ends[2] == 0 else len(range(*slice(*ends).indices(length)))
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items" | "keys" | "values"), args=[]):
            return _length(known[name]) if isinstance(known.get(name), dict) else None
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="itertuples" | "iterrows")):
            frame: Any = known.get(name)
            return int(frame.shape[0]) if _is_frame(frame) else None
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name not in known:
            return _of_call(name, arguments, known)
    return None


def _of_call(name: str, arguments: Sequence[ast.expr], known: Mapping[str, Any]) -> int | None:
    if name == "range" and arguments:
        ends = [_number(one, known) for one in arguments]
        if len(ends) > 3 or None in ends or (len(ends) == 3 and ends[2] == 0):
            return None
        return len(range(*(end for end in ends if end is not None)))
    if name in _SAME_LENGTH and arguments:
        return n_items(arguments[0], known)
    if name == "zip" and arguments:
        lengths = [n_items(one, known) for one in arguments]
        return None if None in lengths else min(length for length in lengths if length is not None)
    return None


def _number(node: ast.expr, known: Mapping[str, Any]) -> int | None:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            positive = _number(operand, known)
            return None if positive is None else -positive
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            a, b = _number(left, known), _number(right, known)
            if a is None or b is None:
                return None
            return a + b if isinstance(op, ast.Add) else a - b if isinstance(op, ast.Sub) else a * b
        case ast.Name(id=name) if type(known.get(name)) is int:
            return int(known[name])
        case ast.Call(func=ast.Name(id="len"), args=[one], keywords=[]) if "len" not in known:
            return n_items(one, known)
    return None


def _length(value: Any) -> int | None:
    """The length of a container whose own way of telling it is known."""
    if type(value) in _SIZED:
        return len(value)
    arrays = getattr(sys.modules.get("numpy"), "ndarray", ())
    if isinstance(value, arrays) or type(value) is getattr(sys.modules.get("pandas"), "Series", ()):
        return int(value.shape[0]) if value.shape else None
    return int(value.shape[1]) if _is_frame(value) else None  # a loop over a frame goes through its columns


def _is_frame(value: Any) -> bool:
    return type(value) is getattr(sys.modules.get("pandas"), "DataFrame", ())
