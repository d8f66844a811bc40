"""Expressions in the body of a loop: which names they read, and whether these are set by then.

Owns :class:`Reads`, the half of :class:`nbpar.notebook.flow.Flow` that goes through expressions in the order in which
Python evaluates them: short circuits, ``:=``, comprehensions, and functions, which read the names around them at the
time of their definition at the earliest.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol

from nbpar.notebook import loop_words as words
from nbpar.notebook.aliases import Value, element_of, value_of
from nbpar.notebook.flow_state import DELETED, ITEM_PART, MAYBE_SWALLOWED, SET, UNTOUCHED, State, join
from nbpar.notebook.held import changed_through, let_go
from nbpar.notebook.loop_advice import advice_on_carried
from nbpar.notebook.scopes import around, bindings, free_names, target_names
from nbpar.notebook.source import Refused, Source, place_of

__all__ = ["Effects", "Reads"]

# Builtins that are through with a function or a generator that they are given when they return.
_CONSUMERS = frozenset(
    ["all", "any", "dict", "frozenset", "len", "list", "max", "min", "set", "sorted", "sum", "tuple"]
)


class Effects(Protocol):
    """What decides whether a statement changes something outside of the loop: :mod:`nbpar.notebook.effects`."""

    def call(self, node: ast.Expr, flow: Any) -> bool:
        """A call that stands alone; whether it is an effect."""

    def extreme(self, node: ast.Assign, flow: Any) -> bool:
        """An assignment; whether it is ``n = min(n, ...)``."""

    def augmented(self, node: ast.AugAssign, flow: Any) -> bool:
        """Whether ``+=`` and the like is an effect."""

    def store(self, target: ast.Attribute | ast.Subscript, value: Value, statement: ast.stmt, flow: Any) -> bool:
        """Whether an assignment to a part of an object is an effect."""

    def local_store(self, target: ast.Attribute | ast.Subscript, statement: ast.stmt, flow: Any) -> None:
        """A change of an object that a local name stands for."""

    def check(self, node: ast.Attribute | ast.Call, flow: Any) -> None:
        """A call or an attribute in an expression."""

    def inside(self, node: ast.AST, flow: Any) -> None:
        """A function or a class that the body makes."""


class Reads:
    """The reading half of the flow.

    Parameters
    ----------
    body : list of ast.stmt
        Of the loop.
    targets, bound : tuple of str
        Names of the loop.

    Attributes
    ----------
    state : State
        At the present point of the iteration.
    outer : list of ast.Name
        Reads of other names.
    needed : dict
        Names that must be set before a statement, because it could end the exception that tells that one is not.
    slots : list of (ast.Subscript, int)
        Reads of ``name[key]`` of an outer name, with what has happened to its object by then.
    """

    def __init__(
        self, body: list[ast.stmt], targets: tuple[str, ...], bound: tuple[str, ...], effects: Effects, source: Source
    ) -> None:
        self.body = body
        self.targets = frozenset(targets)
        self.local = frozenset(targets + bound)
        self.effects = effects
        self.source = source
        self.state = State()
        for name in targets:
            self.state = self.state.having(name, ITEM_PART, Value(frozenset([name]), frozenset([name])))
        self.outer: list[ast.Name] = []
        self.slots: list[tuple[ast.Subscript, int]] = []
        self.makes_functions = False
        self.guards: list[tuple[ast.stmt, State]] = []  # what may end exceptions around, and the state before it
        self.needed: dict[ast.AST, set[str]] = {}
        self.at: ast.stmt | None = None  # the statement at the present point
        self._n_lazy = 0  # generators around that are gone through later
        self._inner: list[dict[str, Value]] = []  # names of the comprehensions around
        self.called: set[ast.AST] = set()
        self._waiting: dict[str, set[str]] = {}  # functions that use names which were not set when they were defined
        self.consumed: set[ast.AST] = set()  # functions and generators that do not outlive a call

    def refuse(self, node: ast.AST, reason: str) -> NoReturn:
        """Raise the refusal."""
        raise Refused(f"{reason}.", place_of(node, self.source.text))

    def changed(self) -> None:
        """A name was bound or unbound."""

    def bind(self, name: str, value: Value, *, is_same: bool = False) -> None:
        """A name gets a value, or one that may be the same object as before."""
        if not is_same:
            self.state = let_go(self.state, name)
        self.state = self.state.having(name, SET, Value(value.own | {f"~{name}"}, value.inner))
        self.changed()

    def unbind(self, name: str) -> None:
        """A name is deleted."""
        self.state = self.state.having(name, DELETED)
        self.changed()

    def value(self, node: ast.expr) -> Value:
        """What an expression's value may share."""
        return value_of(node, self._known)

    def is_outer(self, name: str) -> bool:
        """Whether a name here is one of outside the loop."""
        return name not in self.local and not any(name in names for names in self._inner)

    def _known(self, node: ast.Name) -> Value:
        for names in reversed(self._inner):
            if node.id in names:
                return names[node.id]
        if node.id in self.local:
            return self.state.value(node.id)
        return Value(frozenset([node.id]), frozenset([node.id]))

    # --- expressions --------------------------------------------------------------------------------------------------

    def read(self, node: Any) -> None:
        """Go through an expression."""
        match node:
            case ast.Name():
                self._name(node)
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                self.state = join(*self.condition(node))
            case ast.IfExp():
                true, false = self.condition(node.test)
                self.state = true
                self.read(node.body)
                after, self.state = self.state, false
                self.read(node.orelse)
                self.state = join(after, self.state)
            case ast.NamedExpr():
                self.read(node.value)
                self.bind(node.target.id, self.value(node.value))
            case ast.Lambda():
                self.function(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.state = join(*self._comprehension(node))
            case ast.Subscript(value=ast.Name(id=name)) if self.is_outer(name):
                if self._n_lazy:
                    self.read(node.value)
                else:
                    self.slots.append((node, self.state.mark(f"{name}[]")))
                self.read(node.slice)
            case ast.Call():
                if _consumes(node.func):
                    self.consumed.update(one for one in node.args if isinstance(one, ast.GeneratorExp))
                    self.consumed.update(keyword.value for keyword in node.keywords if keyword.arg == "key")
                self.called.add(node.func)
                self.effects.check(node, self)
                self._children([node.func, *node.args, *node.keywords])
            case ast.Attribute():
                self.effects.check(node, self)
                self.read(node.value)
            case _:
                self._children(ast.iter_child_nodes(node))

    def _children(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.read(node)

    def condition(self, node: ast.expr) -> tuple[State, State]:
        """Go through a condition; the states where it is true and where it is false."""
        match node:
            case ast.BoolOp():
                ends: list[State] = []
                is_and = isinstance(node.op, ast.And)
                for part in node.values:
                    true, false = self.condition(part)
                    self.state, end = (true, false) if is_and else (false, true)
                    ends.append(end)
                return (self.state, join(*ends)) if is_and else (join(*ends), self.state)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                true, false = self.condition(operand)
                return false, true
            case ast.Compare():
                self.read(node.left)
                stops: list[State] = []
                for comparator in node.comparators:
                    self.read(comparator)
                    stops.append(self.state)
                return self.state, join(*stops)
            case ast.Constant(value=value):
                dead = self.state.dead_end()
                return (self.state, dead) if value else (dead, self.state)
            case ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp() as generator], keywords=[]):
                self.consumed.add(generator)
                self.read(node.func)
                start, end = self._comprehension(generator)
                return end, join(start, end)
        self.read(node)
        return self.state, self.state

    def _name(self, node: ast.Name) -> None:
        name = node.id
        if any(name in names for names in self._inner):
            return
        if name in self.local:
            self._needs(name, node)
        else:
            self.outer.append(node)

    def _needs(self, name: str, node: ast.AST) -> None:
        """Refuse a name of the loop's that may not be set here."""
        for missing in sorted(self._missing(name)):
            mark = self.state.mark(missing)
            if mark & DELETED:
                self.refuse(node, words.deleted(missing))
            if missing == name and self._only_deleted(name):
                self.refuse(node, words.deletes(name))
            self.refuse(node, words.carried(missing, advice_on_carried(missing, self.body, self.targets)))
        if (holder := changed_through(self.state, name)) is not None:
            self.refuse(node, words.changed_through(name, holder))
        self._look_before(name, node, self.guards[0] if self.guards else None)

    def _look_before(self, name: str, node: ast.AST, guard: tuple[ast.stmt, State] | None) -> None:
        """See to it that a name which a `with` may have left unset is looked at where nothing ends the error."""
        if guard is not None and self.state.mark(name) & MAYBE_SWALLOWED:
            statement, before = guard
            if before.mark(name) & (UNTOUCHED | DELETED):
                self.refuse(node, words.maybe_swallowed(name))
            self.needed.setdefault(statement, set()).add(name)

    def _look_now(self, name: ast.Name) -> None:
        """The same for a function, of which nobody knows where it is called: it is looked at where it is made."""
        if self.at is not None:
            self._look_before(name.id, name, self.guards[0] if self.guards else (self.at, self.state))

    def _only_deleted(self, name: str) -> bool:
        binding = [node for one, node in bindings(self.body) if one == name]
        return all(isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del) for node in binding)

    def _missing(self, name: str) -> set[str]:
        """Names, this one or what its function uses, that may not be set here."""
        return {one for one in (name, *self._waiting.get(name, ())) if self.state.mark(one) & (UNTOUCHED | DELETED)}

    # --- scopes in the loop -------------------------------------------------------------------------------------------

    def _comprehension(self, node: Any) -> tuple[State, State]:
        """States where it has made no element, and where it has made at least one."""
        is_lazy = isinstance(node, ast.GeneratorExp) and node not in self.consumed
        self.makes_functions = self.makes_functions or is_lazy
        self._n_lazy += is_lazy
        names: dict[str, Value] = {}
        none: list[State] = []
        for position, generator in enumerate(node.generators):
            if not position:
                self.read(generator.iter)
                none.append(self.state)
                self._inner.append(names)
            else:
                self.read(generator.iter)
                none.append(self.state)
            for part in ast.walk(generator.target):
                if isinstance(part, ast.Attribute | ast.Subscript):
                    self.refuse(part, words.odd_target(ast.unparse(part), "a comprehension"))
            element = element_of(self.value(generator.iter))
            names.update(dict.fromkeys(target_names(generator.target), element))
            for condition in generator.ifs:
                self.state, false = self.condition(condition)
                none.append(false)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.read(part)
        self._inner.pop()
        self._n_lazy -= is_lazy
        return join(*none), self.state

    def function(self, node: Any) -> None:
        """A function is defined here: what it uses must be set, unless it can only be called later."""
        for part in around(node):
            if part not in getattr(node, "decorator_list", ()):
                self.read(part)
        self.effects.inside(node, self)
        is_plain = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list
        own = getattr(node, "name", None)  # it cannot be called before it is set, unless a decorator does
        if node not in self.consumed:
            self.makes_functions = True
        later: set[str] = set()
        for name in free_names(node):
            if any(name.id in names for names in self._inner):
                continue
            if name.id not in self.local:
                self.outer.append(name)
                continue
            self._look_now(name)
            if is_plain:
                later |= self._missing(name.id) - {own}
            elif name.id != own:
                self._needs(name.id, name)
        if is_plain:
            self._waiting[node.name] = self._waiting.get(node.name, set()) | later

    def made_class(self, node: ast.ClassDef) -> None:
        """The body of a class runs here."""
        self.makes_functions = True
        self.effects.inside(node, self)
        own = {name for name, _ in bindings(node.body)}
        methods = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
        later = {name for method in methods for statement in method.body for name in ast.walk(statement)}
        for name in free_names(node):
            if name.id == node.name and name in later:
                continue
            if name.id not in self.local:
                self.outer.append(name)
                continue
            if name.id in own:
                self.refuse(name, words.two_names(name.id, node.name))
            self._look_now(name)
            self._needs(name.id, name)


def _consumes(function: ast.expr) -> bool:
    match function:
        case ast.Name(id=name):
            return name in _CONSUMERS
        case ast.Attribute(attr=method):
            return method in ("join", "sort", "extend", "update")
    return False
