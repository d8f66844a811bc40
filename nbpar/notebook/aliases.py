"""What a value in the body of a loop may share with objects outside of it, as far as the text tells.

Owns :class:`Value`, what is known of an expression's value, and the rules of expressions. An object made in the
iteration (a literal, arithmetic, what a constructor gives) may be changed freely; one that may be an outer object, a
part of the item, or in one of them, may not. Of what a call gives nothing is known here: the worker looks, after the
tasks, whether something that it was sent has changed. Used by :mod:`nbpar.notebook.flow`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from nbpar.notebook.scopes import target_names

__all__ = ["FRESH", "Lookup", "Value", "element_of", "join_values", "value_of"]


@dataclass(frozen=True, slots=True)
class Value:
    """Names of what a value may be (or be a view of), and of what it may hold references to.

    A name of the loop's has a ``~`` before it and stands for the object that it was given last.
    """

    own: frozenset[str] = frozenset()
    inner: frozenset[str] = frozenset()

    @property
    def outer(self) -> frozenset[str]:
        """What of outside the iteration it may be."""
        return frozenset(name for name in self.own if not name.startswith("~"))

    @property
    def all(self) -> frozenset[str]:
        """Both."""
        return self.own | self.inner


FRESH = Value()

Lookup = Callable[[ast.Name], Value]

# Methods that give a part of their object or a view of it. Other methods may, too: what they give counts as new.
_VIEWS = "view reshape ravel transpose squeeze swapaxes diagonal astype"
_PARTS = "get setdefault pop popitem popleft values items __getitem__ iter itertuples iterrows"
_GIVE_PARTS = frozenset(f"{_VIEWS} {_PARTS}".split())
_NEW_WITH_PARTS = frozenset(["list", "tuple", "set", "frozenset", "dict", "sorted", "deque", "copy", "defaultdict"])
_GO_THROUGH = frozenset(["zip", "enumerate", "reversed", "filter", "iter", "chain", "islice", "product"])
_FUNCTION_FIRST = frozenset(["defaultdict", "filter"])
_GIVE_ELEMENT = frozenset(["min", "max", "next"])


def join_values(*values: Value) -> Value:
    """What may be any of them."""
    return Value(
        frozenset().union(*(value.own for value in values)), frozenset().union(*(value.inner for value in values))
    )


def element_of(value: Value) -> Value:
    """What comes out when one goes over a value: elements, or the rows of an array, which are views."""
    return Value(value.all, value.all)


def value_of(node: ast.expr, lookup: Lookup) -> Value:
    """What is known of an expression's value.

    Parameters
    ----------
    lookup : callable
        What is known of the value of a name.

    Examples
    --------
    >>> def known(name):
    ...     return Value(frozenset([name.id]), frozenset([name.id]))
    >>> def of(text):
    ...     value = value_of(ast.parse(text, mode="eval").body, known)
    ...     return sorted(value.own), sorted(value.inner)
    >>> of("a[0]"), of("[a]"), of("a * 2"), of("f(a)")
    ((['a'], ['a']), ([], ['a']), ([], ['a']), ([], []))
    """

    def of(part: ast.expr) -> Value:
        return value_of(part, lookup)

    if isinstance(node, ast.Name):
        return lookup(node)
    match node:
        case ast.NamedExpr() | ast.Starred() | ast.Await():
            return of(node.value)
        case ast.Attribute() | ast.Subscript():
            return element_of(of(node.value))
        case ast.IfExp():
            return join_values(of(node.body), of(node.orelse))
        case ast.BoolOp():
            return join_values(*map(of, node.values))
        case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
            parts = (*node.keys, *node.values) if isinstance(node, ast.Dict) else node.elts
            return Value(inner=frozenset().union(*(of(part).all for part in parts if part is not None)))
        case ast.BinOp(op=ast.Add() | ast.Mult() | ast.BitOr()):  # a list plus a list holds the elements of both
            return Value(inner=of(node.left).all | of(node.right).all)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return Value(inner=_of_comprehension(node.generators, elements, lookup))
        case ast.Call():
            return _of_call(node, lookup)
    return FRESH


def _of_call(node: ast.Call, lookup: Lookup) -> Value:
    arguments = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg != "key")]
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _FUNCTION_FIRST:
        del arguments[:1]
    given = frozenset().union(*(value_of(argument, lookup).all for argument in arguments))
    match node.func:
        case ast.Attribute(attr="deepcopy"):
            return FRESH
        case ast.Attribute(value=base, attr="copy"):  # both a.copy() and copy.copy(a)
            return Value(
                inner=given | (frozenset() if isinstance(base, ast.Name) and arguments else _all(base, lookup))
            )
        case ast.Attribute(value=base, attr=method):
            if method in _GIVE_PARTS:
                return element_of(value_of(base, lookup))
            if method in ("asarray", "asanyarray", "ravel", "atleast_1d", "atleast_2d"):
                return Value(given, given)
            return FRESH
        case ast.Name(id=name):
            if name in _NEW_WITH_PARTS | _GO_THROUGH:
                return Value(inner=given)
            if name in _GIVE_ELEMENT:
                return Value(given, given)
    return FRESH


def _all(node: ast.expr, lookup: Lookup) -> frozenset[str]:
    return value_of(node, lookup).all


def _of_comprehension(generators: list[ast.comprehension], elements: list[ast.expr], lookup: Lookup) -> frozenset[str]:
    own: dict[str, Value] = {}

    def inside(name: ast.Name) -> Value:
        return own[name.id] if name.id in own else lookup(name)

    for generator in generators:
        value = element_of(value_of(generator.iter, inside))
        own.update(dict.fromkeys(target_names(generator.target), value))
    return frozenset().union(*(value_of(element, inside).all for element in elements))
