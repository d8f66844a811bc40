"""What to write instead of a loop whose iterations need each other, by the shape of what stands there.

Owns the recognition of what people write most: a running best, a sum, a set of what was seen, a pair of neighbours.
Advice is a part of a refusal and decides nothing. Used by :mod:`nbpar.notebook.flow_reads` and
:mod:`nbpar.notebook.loops`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

__all__ = ["advice_on_carried", "advice_on_read"]

_JOIN = frozenset({"concat", "concatenate", "append", "vstack", "hstack"})
_IN_ORDER = "which is done in the order of the loop"


def advice_on_carried(name: str, body: list[ast.stmt], targets: Collection[str]) -> str:
    """Advice for a value that is carried from one iteration to the next; empty if there is no saying.

    Examples
    --------
    >>> advice_on_carried("best", ast.parse("if v > best: best = v").body, ["v"])
    'Write `best = max(best, v)`, which is done in the order of the loop'
    """
    for node in _nodes(body):
        advice = ""
        match node:
            case ast.If(test=ast.Compare() as test):
                advice = _of_best(name, test, node.body)
            case ast.Assign(targets=[ast.Name(id=total)], value=value) if total == name:
                advice = _of_sum(name, value)
                if isinstance(value, ast.Name) and value.id in targets and node is body[-1]:
                    advice = f"To see two items at once, go over pairs: `for {name}, {value.id} in zip(xs, xs[1:])`"
        if advice:
            return advice
    return ""


def advice_on_read(name: str, body: list[ast.stmt]) -> str:
    """Advice for reading what the loop changes; empty if there is no saying.

    Examples
    --------
    >>> advice_on_read("seen", ast.parse("if x not in seen: seen.add(x)").body)
    '`seen.add(x)` alone does the same'
    """
    for node in _nodes(body):
        match node:
            case ast.If(
                test=ast.Compare(left=left, ops=[ast.NotIn()], comparators=[ast.Name(id=container)]), body=[only]
            ) if container == name:
                return _of_missing(name, left, only)
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=container)]) if container == name:
                return "Collect all, and drop what is double after the loop, as in `list(dict.fromkeys(values))`"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=container), attr="get")) if container == name:
                return (
                    f"Make `{name}` a `collections.Counter` or a `collections.defaultdict`, which need no look before: "
                    f"`{name}[key] += 1`"
                )
            case ast.AugAssign(target=ast.Name(id=count), op=ast.Add(), value=ast.Constant(value=1)) if count == name:
                return "Use `for i, x in enumerate(xs)` for a number that counts the items"
            case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=container)]) if container == name:
                return "Use `for i, x in enumerate(xs)` for the position, or look at the length after the loop"
            case ast.Assign(targets=[ast.Name(id=total)], value=value) if total == name and _of_sum(name, value):
                return _of_sum(name, value)
    for node in _nodes(body):
        match node:
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=container), slice=key)]) if container == name:
                return (
                    f"Collect what is new in a dict of its own, as in `new[{ast.unparse(key)}] = ...`, and put it into "
                    f"`{name}` after the loop"
                )
    return ""


def _of_best(name: str, test: ast.Compare, body: list[ast.stmt]) -> str:
    """``if v > best: best = v``."""
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Gt | ast.Lt | ast.GtE | ast.LtE):
        return ""
    sides = [ast.unparse(test.left), ast.unparse(test.comparators[0])]
    sets: dict[str, str] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=best)], value=value):
                sets[best] = ast.unparse(value)
    for best, new in sets.items():
        if sorted(sides) == sorted([best, new]) and name in sets:
            kind = "max" if isinstance(test.ops[0], ast.Gt | ast.GtE) == (sides[0] == new) else "min"
            if len(sets) == 1:
                return f"Write `{best} = {kind}({best}, {new})`, {_IN_ORDER}"
            values = ", ".join([new, *(value for other, value in sets.items() if other != best)])
            return f"Keep what belongs together in one value: `{best} = {kind}({best}, ({values}))`, {_IN_ORDER}"
    return ""


def _of_sum(name: str, value: ast.expr) -> str:
    """``total = total + v``, and a `max` that is not understood."""
    match value:
        case ast.BinOp(left=ast.Name(id=left), op=ast.Add(), right=ast.List(elts=[element])) if left == name:
            return f"Write `{name}.append({ast.unparse(element)})`, {_IN_ORDER}"
        case ast.BinOp(left=ast.Name(id=left), op=operator, right=right) if left == name:
            written = ast.unparse(ast.AugAssign(ast.Name(name, ast.Store()), operator, right))
            return f"Write `{written}`, {_IN_ORDER}"
        case ast.Call(func=ast.Attribute(attr=joined), args=arguments) if joined in _JOIN and any(
            isinstance(one, ast.Name) and one.id == name for argument in arguments for one in ast.walk(argument)
        ):
            made = f"{ast.unparse(value.func)}(parts)" if joined != "append" else "np.array(parts)"
            return f"Collect in a list, `parts.append(...)`, and write `{name} = {made}` once, after the loop"
        case ast.Call(func=ast.Name(id="min" | "max" as kind), args=[*arguments, _], keywords=[ast.keyword(arg="key")]):
            others = [one for one in (*arguments, value.args[-1]) if not isinstance(one, ast.Name) or one.id != name]
            if len(others) == 1:
                new, key = ast.unparse(others[0]), ast.unparse(value.keywords[0].value)
                return (
                    f"`{kind}` is understood without `key=`: keep pairs, `{name} = {kind}({name}, ({key}({new}), "
                    f"{new}))`"
                )
    return ""


def _of_missing(name: str, key: ast.expr, statement: ast.stmt) -> str:
    """``if key not in name: ...``."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=container), attr="add"), args=[added])):
            if container == name and ast.dump(added) == ast.dump(key):
                return f"`{ast.unparse(statement)}` alone does the same"
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=container))], value=value) if container == name:
            if isinstance(value, ast.List | ast.Dict | ast.Set | ast.Call) and not getattr(value, "elts", []):
                made = {ast.List: "list", ast.Dict: "dict"}.get(type(value), "set")
                return f"Make `{name}` a `collections.defaultdict({made})`, which needs no look before"
            if isinstance(value, ast.Constant):
                return f"Make `{name}` a `collections.Counter`, which needs no look before"
    return "Collect all, and drop what is double after the loop, as in `list(dict.fromkeys(values))`"


def _nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)
