"""The ways out of a statement that is not at its end: an exception, ``break``, ``continue``, ``raise``.

Owns :class:`Ways`, the half of :class:`nbpar.notebook.flow.Flow` that knows where a path may leave a block and where it
goes on: handlers, ``finally``, the end of a ``with``, the iteration's end.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nbpar.notebook.aliases import FRESH, Value
from nbpar.notebook.flow_reads import Effects, Reads
from nbpar.notebook.flow_state import State, join
from nbpar.notebook.shapes import swallows
from nbpar.notebook.source import Source

__all__ = ["Ways"]


class Ways(Reads, ast.NodeVisitor):
    """What leaves a block.

    Attributes
    ----------
    continues, breaks : list of list of State
        Of each loop around, the states where it is left or goes on so.
    """

    def __init__(
        self, body: list[ast.stmt], targets: tuple[str, ...], bound: tuple[str, ...], effects: Effects, source: Source
    ) -> None:
        super().__init__(body, targets, bound, effects, source)
        self.continues: list[list[State]] = [[]]
        self.breaks: list[list[State]] = []
        self._collectors: list[list[State]] = []

    def changed(self) -> None:
        """A point where an exception may take the path to a handler."""
        for collector in self._collectors:
            collector.append(self.state)

    def block(self, body: list[ast.stmt]) -> None:
        """Go through statements."""
        raise NotImplementedError

    def store(self, target: ast.expr, value: Value, statement: ast.stmt) -> None:
        """An assignment to one target."""
        raise NotImplementedError

    # --- ways out -----------------------------------------------------------------------------------------------------

    def visit_Raise(self, node: ast.Raise) -> None:
        """An exception, from here on."""
        for child in ast.iter_child_nodes(node):
            self.read(child)
        self.changed()
        self.state = self.state.dead_end()

    def visit_Continue(self, node: ast.Continue) -> None:
        """On with the next turn, or the end of the iteration."""
        self.continues[-1].append(self.state)
        self.state = self.state.dead_end()

    def visit_Break(self, node: ast.Break) -> None:
        """Out of an inner loop."""
        self.breaks[-1].append(self.state)
        self.state = self.state.dead_end()

    # --- try and with -------------------------------------------------------------------------------------------------

    def visit_Try(self, node: Any) -> None:
        """What the body may have done is seen by handlers, and all of it by ``finally``."""
        caught: list[State] = []
        jumps = _Jumps(self) if node.finalbody else None
        jumps_out = any(isinstance(part, ast.Break | ast.Continue) for one in node.finalbody for part in ast.walk(one))
        with self._guard(node, jumps_out), self._catching(caught):
            if jumps is None:
                self._try_and_handlers(node)
            else:
                with jumps.held():
                    self._try_and_handlers(node)
        if jumps is None:
            return
        after = self.state
        for state, leave in [(join(*caught), None), *jumps.ways()]:
            self.state = state
            self.block(node.finalbody)
            if leave is not None:
                leave(self.state)
        self.state = after
        self.block(node.finalbody)

    visit_TryStar = visit_Try  # noqa: N815

    def _try_and_handlers(self, node: Any) -> None:
        caught: list[State] = []
        with self._guard(node, bool(node.handlers)), self._catching(caught):
            self.block(node.body)
        self.block(node.orelse)
        ends = [self.state]
        for handler in node.handlers:
            self.state = join(*caught)
            if handler.type is not None:
                self.read(handler.type)
            if handler.name is None:
                self.block(handler.body)
            else:
                self.bind(handler.name, FRESH)
                jumps = _Jumps(self)
                with jumps.held():
                    self.block(handler.body)
                for state, leave in jumps.ways():
                    self.state = state
                    self.unbind(handler.name)
                    leave(self.state)
                self.state = jumps.end
                self.unbind(handler.name)
                self.changed()
            ends.append(self.state)
        self.state = join(*ends)

    @contextmanager
    def _guard(self, node: ast.stmt, is_one: bool) -> Iterator[None]:
        """Within, an exception may be ended."""
        if is_one:
            self.guards.append((node, self.state))
        yield
        if is_one:
            self.guards.pop()

    @contextmanager
    def _catching(self, caught: list[State]) -> Iterator[None]:
        self._collectors.append(caught)
        self.changed()
        yield
        self.changed()
        self._collectors.pop()

    def visit_With(self, node: ast.With) -> None:
        """A context manager may end an exception; most do not."""
        swallowed: list[State] = []
        may_swallow = any(swallows(item.context_expr) is not False for item in node.items)
        with self._guard(node, may_swallow), self._catching(swallowed):
            for item in node.items:
                self.read(item.context_expr)
                if item.optional_vars is not None:
                    self.store(item.optional_vars, FRESH, node)
            self.block(node.body)
        if any(swallows(item.context_expr) is True for item in node.items):
            self.state = join(self.state, *swallowed)
        elif may_swallow:
            self.state = self.state.perhaps(join(*swallowed))


class _Jumps:
    """``break`` and ``continue`` out of a block that has something to do first: ``finally``, the end of a handler."""

    def __init__(self, flow: Ways) -> None:
        self._flow = flow
        self._held: list[tuple[list[State], list[State]]] = []
        self.end = flow.state

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the jumps of a block back."""
        flow = self._flow
        stacks = [flow.continues, flow.breaks] if flow.breaks else [flow.continues]
        real = [stack[-1] for stack in stacks]
        held: list[list[State]] = [[] for _ in stacks]
        for stack, states in zip(stacks, held, strict=True):
            stack[-1] = states
        yield
        for stack, states in zip(stacks, real, strict=True):
            stack[-1] = states
        self._held = list(zip(held, real, strict=True))
        self.end = flow.state

    def ways(self) -> list[tuple[State, Callable[[State], None]]]:
        """The state at each kind of jump, and what to call with the state that it then goes on with."""
        return [(join(*held), real.append) for held, real in self._held if held]
