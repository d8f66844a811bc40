"""What a piece of syntax is for, or surely does: small questions about a tree.

Owns no state and no rule of what is allowed. Used by :mod:`nbpar.notebook.flow`, :mod:`nbpar.notebook.effects` and
:mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from typing import Any

__all__ = [
    "advice_on_carried",
    "advice_on_read",
    "always_matches",
    "extreme_name",
    "has_elements",
    "path_of",
    "root_of",
    "swallows",
    "unused_values",
]

_SWALLOW = frozenset(["suppress", "raises", "assertRaises", "ExitStack"])

_DO_NOT_NAMES = """
    open errstate catch_warnings no_grad inference_mode TemporaryDirectory NamedTemporaryFile TemporaryFile closing
    nullcontext redirect_stdout redirect_stderr localcontext ZipFile Lock RLock ThreadPoolExecutor ProcessPoolExecutor
    Pool Session urlopen connect Popen option_context
"""
_DO_NOT = frozenset(_DO_NOT_NAMES.split())


def path_of(node: ast.expr) -> tuple[ast.Name, list[ast.expr]] | None:
    """The name and the keys of ``name[key][key]``; None for anything else.

    Examples
    --------
    >>> name, keys = path_of(ast.parse("a[i]['n']", mode="eval").body)
    >>> name.id, [ast.unparse(key) for key in keys]
    ('a', ['i', "'n'"])
    """
    keys: list[ast.expr] = []
    while isinstance(node, ast.Subscript):
        keys.insert(0, node.slice)
        node = node.value
    return (node, keys) if isinstance(node, ast.Name) else None


def root_of(node: ast.expr) -> ast.expr:
    """What attributes and items are taken of: ``a`` in ``a.b[c].d``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node


def extreme_name(node: ast.AST) -> str | None:
    """The name of ``name = min(name, value)``, in either order of arguments.

    Examples
    --------
    >>> extreme_name(ast.parse("best = max(f(x), best)").body[0])
    'best'
    """
    match node:
        case ast.Assign(
            targets=[ast.Name(id=name)],
            value=ast.Call(func=ast.Name(id="min" | "max"), args=[_, _, *_] as arguments, keywords=[]),
        ):
            n_same = sum(isinstance(argument, ast.Name) and argument.id == name for argument in arguments)
            is_starred = any(isinstance(argument, ast.Starred) for argument in arguments)
            return name if n_same == 1 and not is_starred else None
    return None


def unused_values(body: list[ast.stmt]) -> set[Any]:
    """Expressions whose value is not used, or only as true or false: they are there for what they change."""
    unused: set[Any] = set()
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Expr(value=value) | ast.Lambda(body=value):
                    unused.add(value)
                case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                    unused.add(node.elt)
                case ast.BoolOp():
                    unused.update(node.values)
                case ast.IfExp():
                    unused.update((node.body, node.orelse))
                case ast.UnaryOp(op=ast.Not()):
                    unused.add(node.operand)
    return unused


def has_elements(node: ast.expr) -> bool:
    """Whether an inner loop surely has a first turn.

    Examples
    --------
    >>> [has_elements(ast.parse(text, mode="eval").body) for text in ("range(3)", "range(n)", "(a, b)")]
    [True, False, True]
    """
    match node:
        case ast.List() | ast.Tuple() | ast.Set():
            return any(not isinstance(element, ast.Starred) for element in node.elts)
        case ast.Constant(value=str() | bytes() as text):
            return bool(text)
        case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(stop))], keywords=[]):
            return stop > 0
        case ast.Call(func=ast.Name(id="enumerate"), args=[only], keywords=[]):
            return has_elements(only)
    return False


def always_matches(pattern: ast.pattern) -> bool:
    """Whether a pattern of ``match`` fits everything."""
    match pattern:
        case ast.MatchAs(pattern=None):
            return True
        case ast.MatchAs(pattern=inner) if inner is not None:
            return always_matches(inner)
        case ast.MatchOr(patterns=patterns):
            return any(map(always_matches, patterns))
    return False


def swallows(context: ast.expr) -> bool | None:
    """Whether a context manager ends exceptions; None where its name does not tell.

    Examples
    --------
    >>> [swallows(ast.parse(text, mode="eval").body) for text in ("open(p)", "contextlib.suppress(E)", "timer")]
    [False, True, None]
    """
    function = context.func if isinstance(context, ast.Call) else context
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return True if name in _SWALLOW else False if name in _DO_NOT else None


def advice_on_carried(name: str, body: list[ast.stmt], targets: frozenset[str]) -> str:
    """What to write instead of a value that is carried from one iteration to the next; empty if there is no saying.

    Examples
    --------
    >>> advice_on_carried("best", ast.parse("if v > best: best = v").body, frozenset("v"))
    'Write `best = max(best, v)`, which is done in the order of the loop'
    """
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.If(
                    test=ast.Compare(left=left, ops=[ast.Gt() | ast.Lt() as operator], comparators=[right]),
                    body=[ast.Assign(targets=[ast.Name(id=best)], value=value), *_],
                ) if best == name:
                    sides, new = [ast.unparse(left), ast.unparse(right)], ast.unparse(value)
                    if sorted(sides) == sorted([name, new]):
                        kind = "max" if isinstance(operator, ast.Gt) == (sides[0] == new) else "min"
                        return f"Write `{name} = {kind}({name}, {new})`, which is done in the order of the loop"
                case ast.Assign(
                    targets=[ast.Name(id=total)],
                    value=ast.BinOp(left=ast.Name(id=left_name), op=operation, right=added),
                ) if total == left_name == name:
                    written = ast.unparse(ast.AugAssign(ast.Name(name, ast.Store()), operation, added))
                    return f"Write `{written}`, which is done in the order of the loop"
                case ast.Assign(targets=[ast.Name(id=previous)], value=ast.Name(id=item)) if node is body[-1]:
                    if previous == name and item in targets:
                        return f"To see two items at once, go over pairs: `for {name}, {item} in zip(xs, xs[1:])`"
    return ""


def advice_on_read(name: str, body: list[ast.stmt]) -> str:
    """What to write instead of reading what the loop collects; empty if there is no saying.

    Examples
    --------
    >>> advice_on_read("seen", ast.parse("if x not in seen: seen.add(x)").body)
    'Collect all, and drop what is double after the loop, as in `list(dict.fromkeys(values))`'
    """
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=container)]):
                    if container == name:
                        return (
                            "Collect all, and drop what is double after the loop, as in `list(dict.fromkeys(values))`"
                        )
                case ast.AugAssign(target=ast.Name(id=count), op=ast.Add(), value=ast.Constant(value=1)):
                    if count == name:
                        return "Use `for i, x in enumerate(xs)` for a number that counts the items"
                case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=container)]) if container == name:
                    return "Use `for i, x in enumerate(xs)` for the position, or look at the length after the loop"
                case ast.Assign(
                    targets=[ast.Name(id=total)], value=ast.BinOp(left=left, op=ast.Add(), right=right)
                ) if total == name:
                    added = [part for part in (left, right) if not (isinstance(part, ast.Name) and part.id == name)]
                    if len(added) == 1:
                        return f"Write `{name} += {ast.unparse(added[0])}`, which is done in the order of the loop"
    return ""
