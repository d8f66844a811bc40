"""Does in the kernel what a loop's tasks have noted: in the loop's order, by the user's statements, all or nothing.

Each site becomes a function, made of the user's statement with the noted values in place of what was computed, whose
globals are the user's namespace: so Python's own semantics decide, and a traceback shows the cell's own line. Owns
these functions, the order, and the refusals that only show here. Called by :mod:`nbpar.notebook.loop_run`, in the
thread of the cell.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from nbpar.errors import InternalError
from nbpar.notebook.loop_model import ITEM, Loop, Site, value_name
from nbpar.notebook.source import Refused, Source, function_of
from nbpar.notebook.undo import LARGE_BYTES, Undo, key_of
from nbpar.worker.contents import Written, are_equal, written
from nbpar.worker.origins import ITEM_ORIGIN, parts_of, resolved
from nbpar.worker.recorder import ITEM_NOW, UNSET, CannotTell, Outcome

__all__ = ["Replay"]

_ROWS, _ROW, _AT = ".rows", ".row", ".at"
_KEPT = (".keep", ".keep_item", ".keep_slot", ".keep_length", ".keep_missing", ".key_of")
_BINDS = ("augname", "extreme")


class Replay:
    """The effects of a job's tasks on the user's namespace.

    Parameters
    ----------
    loop : Loop
    source : Source
        The whole cell.
    namespace : dict
        The user's; changed by :meth:`do`, and as it was again after :meth:`undo`.
    items : sequence
        What the loop went through.
    """

    def __init__(self, loop: Loop, source: Source, namespace: dict[str, Any], items: Sequence[Any]) -> None:
        self._loop = loop
        self._source = source
        self._namespace = namespace
        self._items = items
        self._undo = Undo()
        self._parts: dict[str, list[Any]] = {}
        self._items_then: list[tuple[int, Written]] = []
        self._sites: dict[int, Callable[[Sequence[Any]], None]] = {}

    def do(self, outcomes: Sequence[tuple[Any, ...] | None]) -> dict[str, Any]:
        """Do everything; on an error nothing has been done.

        Parameters
        ----------
        outcomes : sequence
            Of the tasks, in the loop's order; None for one that left nothing.

        Returns
        -------
        dict
            Last values of names, of the sort that travel with outcomes.

        Raises
        ------
        Refused
            When a statement raises within a ``try`` of the body, or changes what cannot be changed back.
        BaseException
            Whatever a statement of the user's raises.
        """
        known = (
            outcomes if Outcome not in map(type, outcomes) else self._resolved(outcomes)
        )  # with objects as they were when the tasks saw them
        last: dict[str, Any] = {}
        site: Site | None = None
        if known is not outcomes:
            self._look_out_for_what_was_read()
        try:
            for number, rows in self._runs(known, last):
                site = self._loop.sites[number]
                self._function(site)(rows)
            self._compare_items()
        except BaseException as error:
            self._undo.undo()
            if site is not None and isinstance(error, Refused) and error.place is None:
                raise Refused(f"`{site.text}`: {error.reason}.", site.place) from None
            if site is not None and site.guarded and isinstance(error, Exception) and not isinstance(error, Refused):
                raise Refused(
                    f"`{site.text}` raises {type(error).__name__}: {error}. It is done when all iterations have ended, "
                    f"so the `try` or `with` around it cannot see that. Take it out of there.",
                    site.place,
                ) from None
            raise
        return last

    def _look_out_for_what_was_read(self) -> None:
        """Some of what was stored is the notebook's own: changed where it is stored, tasks should have seen that."""
        loop = self._loop
        inside = [site for site in loop.sites if not site.on_item and (site.depth or site.kind == "augitem")]
        if not inside:
            return
        roots = {name: self._namespace[name] for name in (loop.reads - loop.accumulators) & self._namespace.keys()}
        if not any(site.on_item for site in loop.sites):
            roots[" or ".join(loop.targets) or "the item"] = self._items
        for name, root in roots.items():
            for part in parts_of(root):
                self._undo.seen_by_tasks.setdefault(id(part), name)

    def _compare_items(self) -> None:
        """Items that the loop changes are now what they were in the workers, or more was done to them there."""
        for index, then in self._items_then:
            now = written(self._items[index])
            if type(then) is type(now) is bytes and not are_equal(then, now):
                site = next(site for site in self._loop.sites if site.on_item)
                stored = site.text.partition("=")[0].strip()
                raise Refused(
                    f"an iteration changes its item by a call as well, in a copy of it, where that would be lost. Have "
                    f"the call return what is to be stored, and store it as `{stored} = ...` does.",
                    site.place,
                )

    def undo(self) -> None:
        """Take back what was done."""
        self._undo.undo()

    # --- what was noted -----------------------------------------------------------------------------------------------

    def _resolved(self, outcomes: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """The outcomes with the notebook's own objects in the place of their origins."""
        found: list[tuple[Any, ...] | None] = []
        try:
            for index, outcome in enumerate(outcomes):
                if type(outcome) is Outcome:
                    self._parts.pop(ITEM_ORIGIN, None)
                    found.append(resolved(outcome, lambda name, index=index: self._parts_of(name, index)))  # type: ignore[misc]
                else:
                    found.append(outcome)
        except LookupError as error:
            raise InternalError(f"an object of the notebook's is not where a task has seen it: {error!r}") from error
        return found

    def _parts_of(self, name: str, index: int) -> list[Any]:
        parts = self._parts.get(name)
        if parts is None:
            root = self._items[index] if name == ITEM_ORIGIN else self._namespace[name]
            parts = self._parts[name] = parts_of(root)
        return parts

    def _runs(self, outcomes: Sequence[Any], last: dict[str, Any]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Effects in order, neighbours of one site together: its number, and a row of values for each."""
        sites = self._loop.sites
        if len(sites) == 1 and _is_one_each(outcomes, sites[0]):  # the most frequent loop, without a look at each note
            yield 0, list(map(itemgetter(1 if sites[0].n_values == 1 else slice(1, None)), outcomes))
            return
        now = -1
        rows: list[Any] = []
        for index, outcome in enumerate(outcomes):
            if outcome is None:
                continue
            at = 0
            if outcome and type(outcome[0]) is dict:
                told = outcome[0]
                if ITEM_NOW in told:
                    self._items_then.append((index, told.pop(ITEM_NOW)))
                last.update(told)
                at = 1
            while at < len(outcome):
                number = outcome[at]
                site = sites[number]
                row = outcome[at + 1 : (at := at + 1 + site.n_values)]
                if site.on_item:
                    row = self._items[index], *row
                if number != now:
                    if rows:
                        yield now, rows
                    now, rows = number, []
                rows.append(row[0] if len(row) == 1 else row)
        if rows:
            yield now, rows

    # --- the user's statements ----------------------------------------------------------------------------------------

    def _function(self, site: Site) -> Callable[[Sequence[Any]], None]:
        """Does a site for each of several rows."""
        function = self._sites.get(site.number)
        if function is None:
            function = self._sites[site.number] = self._compiled(site)
        return function

    def _compiled(self, site: Site) -> Callable[[Sequence[Any]], None]:
        names = [*([ITEM] if site.on_item else []), *map(value_name, range(site.n_values))]
        row: ast.expr = ast.Tuple([_name(name, ast.Store()) for name in names], ast.Store())
        if len(names) == 1:
            row = _name(names[0], ast.Store())
        elif not names:
            row = _name(_ROW, ast.Store())
        body = self._kept_before(site)
        if site.kind != "touch":
            body.append(copy.deepcopy(site.statement))
        if site.on_item:
            body.insert(0, ast.Assign([copy.deepcopy(self._loop.target)], _name(ITEM)))
        statements: list[ast.stmt] = [ast.For(row, _name(_ROWS), body, [])]
        if not site.on_item:
            statements.insert(0, ast.Global([site.name]))
        arguments = ast.arguments([], [ast.arg(_ROWS)], None, [], [], None, [])
        definition = ast.FunctionDef("<effect>", arguments, statements, [])
        definition.type_params = []  # type: ignore[attr-defined,unused-ignore]  # Python 3.12 and later want it
        for node in ast.walk(definition):
            if "lineno" in node._attributes and not hasattr(node, "lineno"):
                ast.copy_location(node, site.statement)
        definition.lineno = 1
        undo = self._undo
        ways = (undo.keep, undo.keep_item, undo.keep_slot, undo.keep_length, undo.keep_missing, key_of)
        captured = dict(zip(_KEPT, ways, strict=True))
        return function_of(definition, self._source, self._namespace, captured)

    def _kept_before(self, site: Site) -> list[ast.stmt]:
        """Statements that keep what the site will change; what can be kept once for all is kept here and now."""
        if site.kind in _BINDS:
            self._undo.bind(self._namespace, site.name)
            return [_expression(".keep", _name(site.name))]
        if site.kind == "touch":
            assert isinstance(site.statement, ast.Expr)
            made: list[ast.stmt] = []
            self._path(site.statement.value, made)
            return made
        container, key = _container_of(site.statement)
        keep = {"append": ".keep_length", "extend": ".keep_length"}.get(site.kind, ".keep")
        if not site.depth and not site.on_item and not self._is_bound_anew(site.name):
            if site.name not in self._namespace:
                return []  # the statement will say so
            target = self._namespace[site.name]
            if key is None or getattr(target, "nbytes", 0) <= LARGE_BYTES:
                getattr(self._undo, keep[1:])(target)
                if site.kind != "augitem" or hasattr(target, "nbytes"):
                    return []
        made = []
        place = self._path(container, made)
        if key is None:
            made.append(_expression(keep, place))
        else:
            looked_at = ast.Subscript(_name(".key_of"), copy.deepcopy(key), ast.Load())
            made.append(_expression(".keep_slot" if site.kind == "augitem" else ".keep_item", place, looked_at))
        return made

    def _is_bound_anew(self, name: str) -> bool:
        return any(site.kind in _BINDS and site.name == name for site in self._loop.sites)

    def _path(self, node: Any, made: list[ast.stmt]) -> ast.expr:
        """Adds the steps to an object; gives an expression for it. Nothing on the way is looked up unkept."""
        if not isinstance(node, ast.Subscript):
            root: ast.expr = copy.deepcopy(node)
            return root
        around = self._path(node.value, made)
        made.append(_expression(".keep_missing", around))
        name = f"{_AT}{len(made)}"
        found = ast.copy_location(ast.Subscript(around, copy.deepcopy(node.slice), ast.Load()), node)
        made.append(ast.copy_location(ast.Assign([_name(name, ast.Store())], found), node))
        return _name(name)


def _is_one_each(outcomes: Sequence[Any], site: Site) -> bool:
    """Whether each task has noted the only site once, and nothing else."""
    return (
        not site.on_item
        and {tuple} == set(map(type, outcomes))
        and {site.n_values + 1} == set(map(len, outcomes))
        and not any(map(itemgetter(0), outcomes))  # the number of the site; no dict of last values
    )


def told(last: dict[str, Any]) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Last values: names to set, names to unset, and names that cannot be set with the reason."""
    values = {name: value for name, value in last.items() if value is not UNSET and type(value) is not CannotTell}
    reasons = {name: value.reason for name, value in last.items() if type(value) is CannotTell}
    return values, [name for name in last if name not in values], reasons


def _container_of(statement: ast.stmt) -> tuple[ast.expr, ast.expr | None]:
    """The object that a statement changes, as an expression, and the key that it stores under."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=container))):
            return container, None
        case ast.Assign(targets=[ast.Subscript() as target]) | ast.AugAssign(target=ast.Subscript() as target):
            return target.value, target.slice
    raise InternalError(f"no effect: {ast.unparse(statement)}")


def _name(name: str, context: ast.expr_context | None = None) -> ast.Name:
    return ast.Name(name, context or ast.Load())


def _expression(function: str, *arguments: ast.expr) -> ast.stmt:
    return ast.Expr(ast.Call(_name(function), [*map(copy.deepcopy, arguments)], []))
