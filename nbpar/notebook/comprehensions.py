"""``%parallel [f(x) for x in xs if ok(x)]``: from a comprehension to tasks and back to its value.

Owns the rewriting: the outermost ``for`` is the parallel one, its iterable is evaluated in the kernel, and all that
follows it (conditions, inner loops, the element) becomes the function of one task, a scope as a comprehension has one.
The results are put together in order, so that the value is that of the serial comprehension. Called by
:mod:`nbpar.notebook.magics`; needs no IPython.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbpar.errors import TaskError
from nbpar.notebook.cells import ITEM, evaluate
from nbpar.notebook.source import Refused, Source, define, function_of, move, place_of

__all__ = ["CONSUMERS", "Comprehension", "look_at_comprehension", "read_comprehension"]

CONSUMERS = ("all", "any", "dict", "frozenset", "list", "max", "min", "set", "sorted", "sum", "tuple")
"""Functions that may stand around the comprehension: they use all of it, or say when they have enough."""

_OUT = ".out"  # a local name that no expression can name
_VALUES = ".values"
_KINDS = {ast.ListComp: "listcomp", ast.SetComp: "setcomp", ast.DictComp: "dictcomp", ast.GeneratorExp: "genexpr"}
_EXAMPLE = "%parallel [f(x) for x in xs if ok(x)]"

_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Comprehension:
    """A comprehension as tasks.

    Attributes
    ----------
    items : object
        Value of the outermost iterable.
    task : callable
        What one item gives: its element, or with `many` the list of its elements.
    stops_early : bool
        Whether `value` may not need all outcomes (``any``, ``all``), so that they should come one by one.
    keeps_errors : bool
        Whether a failed task's error has a place in the value.
    """

    items: Any
    task: Callable[[Any], Any]
    many: bool
    stops_early: bool
    keeps_errors: bool
    _finish: Callable[[Iterator[Any]], Any]

    def value(self, outcomes: Iterable[Any]) -> Any:
        """The value of the whole expression, from the outcomes of the tasks in order."""
        if self.many:
            outcomes = itertools.chain.from_iterable(
                [outcome] if isinstance(outcome, TaskError) else outcome for outcome in outcomes
            )
        return self._finish(iter(outcomes))


def read_comprehension(
    source: Source, namespace: dict[str, Any], scope: Mapping[str, Any] | None = None, *, column: int = 0
) -> Comprehension:
    """Read an expression and evaluate its outermost iterable.

    Parameters
    ----------
    source : Source
        The expression; its `filename` and `first_line` say where it stands.
    namespace : dict
        The user's namespace; not changed.
    scope : mapping, optional
        Local names of the function that the expression stands in.
    column : int
        Where the expression begins in that line.

    Raises
    ------
    Refused
        When it is none of the expressions that run in parallel.

    Examples
    --------
    >>> squares = read_comprehension(Source("{x: x * x for x in range(9) if x % 2}"), {})
    >>> squares.value(map(squares.task, squares.items))
    {1: 1, 3: 9, 5: 25, 7: 49}
    """
    read = _read(source, namespace, scope or {}, column)
    comprehension, captured = read.comprehension, read.captured
    kind = _KINDS[type(comprehension)]
    finish: Callable[[Iterator[Any]], Any] = {"setcomp": set, "dictcomp": dict}.get(kind, list)
    if read.consumer is not None:
        finish = _consumer(read.expression, iter if kind == "genexpr" else finish, source, namespace, captured)
    items = evaluate(comprehension.generators[0].iter, source, namespace, captured)
    return Comprehension(
        items=items,
        task=read.task,
        many=read.many,
        stops_early=read.consumer in ("any", "all") and kind == "genexpr",
        keeps_errors=kind != "dictcomp" and read.consumer in (None, "list", "tuple", "set", "frozenset"),
        _finish=finish,
    )


def look_at_comprehension(
    source: Source, namespace: dict[str, Any], scope: Mapping[str, Any] | None = None
) -> tuple[ast.expr, list[str], Callable[[Any], Any]]:
    """Of an expression the outermost iterable, the task in lines of text, and as a function; nothing is evaluated.

    Raises
    ------
    Refused
        When it is none of the expressions that run in parallel.

    Examples
    --------
    >>> _, task, function = look_at_comprehension(Source("[x * y for x in load() if x for y in x.ys]"), {})
    >>> task
    ['x * y', 'if x', 'for y in x.ys']
    """
    read = _read(source, namespace, scope or {}, 0)
    comprehension = read.comprehension
    if isinstance(comprehension, ast.DictComp):
        element = f"{ast.unparse(comprehension.key)}: {ast.unparse(comprehension.value)}"
    else:
        element = ast.unparse(comprehension.elt)
    first, *inner = comprehension.generators
    conditions = [f"if {ast.unparse(condition)}" for condition in first.ifs]
    return first.iter, [element, *conditions, *(ast.unparse(one).strip() for one in inner)], read.task


@dataclass(frozen=True, slots=True)
class _Read:
    """An expression that runs in parallel, before anything of it is evaluated."""

    expression: ast.expr
    comprehension: _Comprehension
    consumer: str | None
    captured: dict[str, Any]
    task: Callable[[Any], Any]
    many: bool


def _read(source: Source, namespace: dict[str, Any], scope: Mapping[str, Any], column: int) -> _Read:
    body = source.parse(f"({source.text}\n)", column=-1).body  # in parentheses, so that `x for x in xs` is a generator
    if len(body) != 1 or not isinstance(body[0], ast.Expr):
        raise Refused(f"%parallel takes one expression, as in: {_EXAMPLE}")
    expression = body[0].value
    comprehension, consumer = _parts(expression, source, namespace, scope)
    _check(comprehension, source)
    move(expression, source.first_line, column)
    captured = _captured(expression, scope)
    task, many = _task(comprehension, f"<{_KINDS[type(comprehension)]}>", source, namespace, captured)
    return _Read(expression, comprehension, consumer, captured, task, many)


def _parts(
    expression: ast.expr, source: Source, namespace: Mapping[str, Any], scope: Mapping[str, Any]
) -> tuple[_Comprehension, str | None]:
    """The comprehension, and the name of the function around it."""
    if isinstance(expression, _Comprehension):
        return expression, None
    allowed = f"%parallel takes a comprehension ({_EXAMPLE}), or one inside {', '.join(CONSUMERS[:-1])} or tuple"
    place = place_of(expression, source.text)
    if not isinstance(expression, ast.Call):
        raise Refused(f"{allowed}.", place)
    match expression:
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if isinstance(first, _Comprehension):
            found = scope.get(name, namespace.get(name, getattr(builtins, name, None)))
            if name in CONSUMERS and found is getattr(builtins, name):
                return first, name
            if name in CONSUMERS:
                raise Refused(f"`{name}` is not Python's own here: {allowed}.", place)
    if ast.unparse(expression.func) == "map":
        raise Refused("for `map(f, xs)` there is nbpar.map(f, xs).", place)
    raise Refused(f"{allowed}.", place)


def _check(comprehension: _Comprehension, source: Source) -> None:
    """Refuse what is not the same in a task."""
    for node in _own_nodes(comprehension):
        if isinstance(node, ast.NamedExpr):
            reason = (
                f"`{ast.unparse(node.target)} := ...` would be set in a worker and lost: it belongs to the code around"
            )
        elif isinstance(node, ast.Await) or (isinstance(node, ast.comprehension) and node.is_async):
            reason = "`await` and `async for` cannot stand in %parallel; they can in the cell below `%%parallel each`"
        else:
            continue
        written = node.target if isinstance(node, ast.comprehension) else node
        raise Refused(f"{reason}.", place_of(written, source.text))
    targets = {
        node.id
        for generator in comprehension.generators
        for node in ast.walk(generator.target)
        if isinstance(node, ast.Name)
    }
    for made in _lambdas(comprehension):
        own = {argument.arg for argument in ast.walk(made.args) if isinstance(argument, ast.arg)}
        used = sorted((targets - own) & {node.id for node in ast.walk(made.body) if isinstance(node, ast.Name)})
        if used:
            name = used[0]
            reason = f"functions that a comprehension makes all see the last `{name}`; tasks have one each"
            raise Refused(f"{reason}. Write `lambda {name}={name}: ...`.", place_of(made, source.text))


def _lambdas(comprehension: _Comprehension) -> Iterator[ast.Lambda]:
    """Functions that are elements, or parts of them."""
    waiting = [comprehension.value if isinstance(comprehension, ast.DictComp) else comprehension.elt]
    while waiting:
        element = waiting.pop()
        if isinstance(element, ast.Tuple | ast.List | ast.Set):
            waiting.extend(element.elts)
        elif isinstance(element, ast.Dict):
            waiting.extend(element.values)
        elif isinstance(element, ast.Lambda):
            yield element


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes in a comprehension's scope: lambdas have one of their own."""
    yield node
    if not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _own_nodes(child)


def _captured(expression: ast.expr, scope: Mapping[str, Any] | None) -> dict[str, Any]:
    """Local names around the expression that it uses, as they are now."""
    if not scope:
        return {}
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    return {name: scope[name] for name in sorted(names & scope.keys())}


def _task(
    comprehension: _Comprehension,
    name: str,
    source: Source,
    namespace: dict[str, Any],
    captured: Mapping[str, Any],
) -> tuple[Callable[[Any], Any], bool]:
    """The function of one task, and whether it gives a list of elements.

    A comprehension's scope is a function's, so its loops and conditions are written out as statements of one.
    """
    first, *inner = comprehension.generators
    if isinstance(comprehension, ast.DictComp):
        element: ast.expr = ast.Tuple([comprehension.key, comprehension.value], ast.Load())
        ast.copy_location(element, comprehension.key)
    else:
        element = comprehension.elt
    many = bool(inner or first.ifs)
    body: list[ast.stmt]
    if many:
        out = ast.Name(_OUT, ast.Load())
        body = [ast.Expr(ast.Call(ast.Attribute(out, "append", ast.Load()), [element], []))]
        for generator in reversed(inner):
            body = [ast.For(generator.target, generator.iter, _if(generator.ifs, body), [])]
        body = [
            ast.Assign([ast.Name(_OUT, ast.Store())], ast.List([], ast.Load())),
            *_if(first.ifs, body),
            ast.Return(ast.Name(_OUT, ast.Load())),
        ]
    else:
        body = [ast.Return(element)]
    argument = ITEM
    if isinstance(first.target, ast.Name):
        argument = first.target.id
    else:
        body.insert(0, ast.Assign([first.target], ast.Name(ITEM, ast.Load())))
    definition = define(name, argument, body, comprehension)
    _fill_places(definition, comprehension)
    function = function_of(definition, source, namespace, captured)
    assert not function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE)
    return function, many


def _if(conditions: list[ast.expr], body: list[ast.stmt]) -> list[ast.stmt]:
    for condition in reversed(conditions):
        body = [ast.If(condition, body, [])]
    return body


def _fill_places(tree: ast.AST, default: ast.AST) -> None:
    """Give nodes that were made here the place of the nearest that was written."""
    for node in ast.iter_child_nodes(tree):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            written = next((one for one in ast.walk(node) if hasattr(one, "lineno")), default)
            ast.copy_location(node, written)
        _fill_places(node, default)


def _consumer(
    expression: ast.expr,
    finish: Callable[[Iterator[Any]], Any],
    source: Source,
    namespace: dict[str, Any],
    captured: Mapping[str, Any],
) -> Callable[[Iterator[Any]], Any]:
    """The function around the comprehension, its other arguments (``key=``, ``default=``) evaluated in the kernel."""
    assert isinstance(expression, ast.Call)
    values = ast.copy_location(ast.Name(_VALUES, ast.Load()), expression.args[0])
    call = ast.copy_location(ast.Call(expression.func, [values, *expression.args[1:]], expression.keywords), expression)
    return lambda outcomes: evaluate(call, source, namespace, {**captured, _VALUES: finish(outcomes)})
