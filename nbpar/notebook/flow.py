"""What is set, and what it may share with outer objects, at each point of one iteration of a loop.

Owns the order in which Python goes through statements: assignments, branches, inner loops, ``match``. Each path through
the body is followed from the item to the iteration's end, so a name that may be read before the same iteration has set
it is found: its value would come from an earlier iteration. Called by :mod:`nbpar.notebook.loops`.

::

    Flow, statements ──> Ways, what leaves a block ──> Reads, expressions ──> State, what is known of the names
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from nbpar.notebook.aliases import FRESH, Value, element_of
from nbpar.notebook.flow_state import State, join
from nbpar.notebook.flow_ways import Ways
from nbpar.notebook.shapes import always_matches, has_elements

__all__ = ["Flow"]


class _Statements(Ways, ast.NodeVisitor):
    """Statements, in the order in which Python goes through them."""

    # --- statements ---------------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        """Go through statements."""
        around = self.at
        for statement in body:
            self.at = statement
            self.changed()
            self.visit(statement)
        self.at = around

    def generic_visit(self, node: ast.AST) -> None:
        """Any other statement: ``pass``, and what there may be in a later Python."""
        for child in ast.iter_child_nodes(node):
            self.read(child)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not self.effects.call(node, self):
            self.read(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self.effects.extreme(node, self):
            return
        self.read(node.value)
        value = self.value(node.value)
        elements = [self.value(one) for one in node.value.elts] if isinstance(node.value, ast.Tuple) else []
        for target in node.targets:
            if isinstance(target, ast.Tuple | ast.List) and _one_to_one(target, node.value):
                for one, known in zip(target.elts, elements, strict=True):
                    self.store(one, known, node)
            else:
                self.store(target, value, node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.read(node.value)
            self.store(node.target, self.value(node.value), node)
        elif not isinstance(node.target, ast.Name):
            self.read(node.target)
        self.read(node.annotation)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if self.effects.augmented(node, self):
            return
        if isinstance(node.target, ast.Name):
            self.read(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target))
            self.read(node.value)
            old = self.value(ast.Name(node.target.id, ast.Load()))
            self.bind(node.target.id, Value(old.own, old.inner | self.value(node.value).all), is_same=True)
            return
        assert isinstance(node.target, ast.Attribute | ast.Subscript)
        self._read_path(node.target)
        self.read(node.value)
        self.effects.local_store(node.target, node, self)

    def store(self, target: ast.expr, value: Value, statement: ast.stmt) -> None:
        """An assignment to one target."""
        match target:
            case ast.Name():
                self.bind(target.id, value)
            case ast.Tuple() | ast.List():
                for element in target.elts:
                    self.store(element, element_of(value), statement)
            case ast.Starred():
                self.store(target.value, Value(inner=value.all), statement)
            case ast.Attribute() | ast.Subscript():
                if not self.effects.store(target, value, statement, self):
                    self._read_path(target)
                    self.effects.local_store(target, statement, self)

    def _read_path(self, target: ast.Attribute | ast.Subscript) -> None:
        self.read(target.value)
        if isinstance(target, ast.Subscript):
            self.read(target.slice)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.read(ast.copy_location(ast.Name(target.id, ast.Load()), target))
                self.unbind(target.id)
            elif isinstance(target, ast.Attribute | ast.Subscript):
                self._read_path(target)
                self.effects.local_store(target, node, self)
            else:
                assert isinstance(target, ast.Tuple | ast.List)
                self.visit_Delete(ast.copy_location(ast.Delete(target.elts), node))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.read(decorator)
        self.function(node)
        self.bind(node.name, FRESH)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.read(part)
        self.made_class(node)
        self.bind(node.name, FRESH)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = alias.name if alias.asname else alias.name.partition(".")[0]
            self.bind(alias.asname or module, Value(frozenset([f"module {module}"]), frozenset([f"module {module}"])))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            name = f"module {node.module}.{alias.name}"
            self.bind(alias.asname or alias.name, Value(frozenset([name]), frozenset([name])))

    def visit_TypeAlias(self, node: Any) -> None:
        self.bind(node.name.id, FRESH)

    # --- branches and loops -------------------------------------------------------------------------------------------

    def visit_Assert(self, node: ast.Assert) -> None:
        true, self.state = self.condition(node.test)
        if node.msg is not None:
            self.read(node.msg)
        self.changed()
        self.state = true

    def visit_If(self, node: ast.If) -> None:
        true, false = self.condition(node.test)
        self.state = true
        self.block(node.body)
        after, self.state = self.state, false
        self.block(node.orelse)
        self.state = join(after, self.state)

    def visit_For(self, node: ast.For) -> None:
        self.read(node.iter)
        element = element_of(self.value(node.iter))
        start = self.state

        def turn() -> State:
            self.store(node.target, element, node)
            self.block(node.body)
            return self.state

        ends, after = self._turns(start, turn)
        self.state = join(*ends) if has_elements(node.iter) else join(start, *ends)
        self.block(node.orelse)
        self.state = join(self.state, *after)

    def visit_While(self, node: ast.While) -> None:
        false: list[State] = []

        def turn() -> State:
            true, no = self.condition(node.test)
            false.append(no)
            self.state = true
            self.block(node.body)
            return self.state

        ends, after = self._turns(self.state, turn)
        for state in ends:
            self.state = state
            false.append(self.condition(node.test)[1])
        self.state = join(*false)
        self.block(node.orelse)
        self.state = join(self.state, *after)

    def _turns(self, start: State, turn: Callable[[], State]) -> tuple[list[State], list[State]]:
        """States at the ends of a loop's turns, and where it is left by ``break``: until nothing new comes."""
        before, ends = start, []
        breaks: list[State] = []
        while True:
            self.continues.append([])
            self.breaks.append(breaks)
            self.state = before
            end = join(turn(), *self.continues.pop())
            self.breaks.pop()
            ends.append(end)
            both = join(before, end)
            if both == before:
                return ends, breaks
            before = both

    def visit_Match(self, node: ast.Match) -> None:
        self.read(node.subject)
        value = self.value(node.subject)
        ends: list[State] = []
        for case in node.cases:
            missed = self.state
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchValue):
                    self.read(part.value)
                elif isinstance(part, ast.MatchMapping):
                    for key in part.keys:
                        self.read(key)
                elif isinstance(part, ast.MatchClass):
                    self.read(part.cls)
            for part in ast.walk(case.pattern):
                name = getattr(part, "rest" if isinstance(part, ast.MatchMapping) else "name", None)
                if name:
                    self.bind(name, value if part is case.pattern else element_of(value))
            if case.guard is not None:
                self.state, no = self.condition(case.guard)
                missed = join(missed, no) if not always_matches(case.pattern) else no
            elif always_matches(case.pattern):
                missed = missed.dead_end()
            self.block(case.body)
            ends.append(self.state)
            self.state = missed
        self.state = join(self.state, *ends)


class Flow(_Statements):
    """Goes through the body; :meth:`run` gives the state at the iteration's end."""

    def run(self) -> State:
        """Follow all paths through the body."""
        self.block(self.body)
        return join(self.state, *self.continues[0])


def _one_to_one(target: ast.Tuple | ast.List, value: ast.expr) -> bool:
    """``a, b = c, d``."""
    if not isinstance(value, ast.Tuple) or len(target.elts) != len(value.elts):
        return False
    return not any(isinstance(part, ast.Starred) for part in (*target.elts, *value.elts))
