"""What a piece of syntax is for, or surely does: small questions about a tree.

Owns no state and no rule of what is allowed. Used by :mod:`nbpar.notebook.flow`, :mod:`nbpar.notebook.effects` and
:mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from typing import Any

__all__ = [
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
