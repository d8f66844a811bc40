"""Running a loop in parallel: what stands before it, the checks, the tasks, the replay, and what stands after it.

Owns the order of these and the promise of all or nothing: from the end of what stands before the loop up to the end of
the replay, whatever goes wrong leaves the user's names as they were before the cell. Called by
:mod:`nbpar.notebook.magics`; needs no IPython.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nbpar.errors import JobCancelledError, JobInterrupt, LostUpdateError, TaskError
from nbpar.notebook.capture_words import refused_at_run_time
from nbpar.notebook.captures import Captures
from nbpar.notebook.cells import evaluate
from nbpar.notebook.identity import are_shared, by_position
from nbpar.notebook.loop_items import without_bar
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.loop_task import LoopTask, look_after, task_of
from nbpar.notebook.rehearsal import map_and_check
from nbpar.notebook.replay import Replay, told
from nbpar.notebook.serially import check_code, run_code
from nbpar.notebook.source import Refused, Source, define, function_of
from nbpar.options import Strict
from nbpar.pool import WorkerPool
from nbpar.raising import add_note, carry_results
from nbpar.worker.recorder import Escaped

__all__ = ["run_loop"]

_UNBOUND = re.compile(r"local variable '(\w+)'")
_CARRIED = "it has the value of an earlier iteration there, and tasks have names of their own. Set it in each iteration"
_VALUE, _ONE, _ADD = ".value", ".one", ".add"
_AS_THEY_ARE = (list, tuple, range, dict, set, frozenset, str)
"""Iterables that give the same items again, and run nothing of the user's to do so."""


def run_loop(
    loop: Loop,
    source: Source,
    namespace: dict[str, Any],
    *,
    pool: WorkerPool,
    call: Mapping[str, Any],
    check: int | None = None,
    interactivity: str = "last_expr",
    tell: Callable[[str], None] = print,
) -> Any:
    """Run a loop, and leave in the namespace what it leaves serially, or what was there before.

    Parameters
    ----------
    loop : Loop
    source : Source
        The whole cell.
    namespace : dict
        The user's.
    pool : WorkerPool
    call : mapping
        Options of ``pool.map``. Failed items leave nothing with ``on_error="skip"``.
    check : int, optional
        So many iterations run serially as well, and what they note is compared.
    interactivity : str
        IPython's setting ``ast_node_interactivity``.
    tell : callable
        Gets a note on a name that could not be kept.

    Returns
    -------
    object
        The value that the cell shows at its end: of the last expression after the loop.

    Raises
    ------
    Refused
        When the loop would not leave what it leaves serially.
    BaseException
        Whatever the user's code raises.
    """
    __tracebackhide__ = True
    if call.get("on_error") == "return":
        raise Refused("--on-error return: a loop has no place for an error; allowed here: raise, skip")
    run = _Run(loop, source, namespace, task_of(loop, source, namespace))
    for statements in (loop.before, loop.after):
        check_code(statements, source)
    before = dict(namespace)
    run_code(loop.before, source, namespace, interactivity=interactivity, is_end=False)
    begun = dict(namespace)
    try:
        run.read_items(before, begun)
        run.do_tasks(pool, call, check)
        notes = run.replay()
    except BaseException as error:
        try:
            _in_any_case(run.take_back)
        finally:
            _in_any_case(lambda: _set_back(namespace, before, begun, (*loop.targets, *loop.bound)))
        if (reworded := _reworded(error, loop.header)) is not error:
            raise reworded from None
        raise
    for note in notes:
        tell(note)
    for names in (before, begun):  # what follows may drop what they hold, to have the memory back
        names.clear()
    run.forget()
    return run_code(loop.after, source, namespace, interactivity=interactivity)


class _Run:
    """The loop itself: its items, its tasks, what they have left."""

    def __init__(self, loop: Loop, source: Source, namespace: dict[str, Any], task: LoopTask) -> None:
        self._loop = loop
        self._source = source
        self._namespace = namespace
        self._task = task
        self._items: Sequence[Any] = ()
        self._outcomes: list[Any] = []
        self._replay: Replay | None = None

    def read_items(self, *copies: Mapping[str, Any]) -> None:
        """Evaluate the iterable, all of it, and look at what the tasks will bring along."""
        __tracebackhide__ = True
        loop = self._loop
        captures = Captures(loop, self._source, self._namespace, *copies)
        value = evaluate(loop.iterable, self._source, self._namespace)
        if isinstance(loop.iterable, ast.Call):  # nobody else has it
            value = without_bar(value)
        captures.check_iterable(value, self._task.function)
        if type(value) is range:
            self._items = value  # slices of it travel
        elif type(value) in _AS_THEY_ARE:
            self._items = list(value)
        else:  # in code of the cell's: what the iterable raises has the line of the loop
            self._items = self._listed(captures.watched(value))
        captures.check(self._items)

    def _listed(self, value: Any) -> list[Any]:
        """All items of an iterable of any kind; not by `list`, so that the cell's line is in a traceback."""
        __tracebackhide__ = True
        items: list[Any] = []
        body: list[ast.stmt] = [
            ast.For(_name(_ONE, ast.Store()), _name(_VALUE), [ast.Expr(ast.Call(_name(_ADD), [_name(_ONE)], []))], [])
        ]
        for node in ast.walk(body[0]):
            ast.copy_location(node, self._loop.iterable)
        definition = define("<iterable>", None, body, self._loop.iterable)
        function_of(definition, self._source, self._namespace, {_VALUE: value, _ADD: items.append})()
        return items

    def do_tasks(self, pool: WorkerPool, call: Mapping[str, Any], check: int | None) -> None:
        """Run the tasks; their outcomes are kept."""
        __tracebackhide__ = True
        loop, recorders = self._loop, self._task.recorders
        skips = call.get("on_error") == "skip"
        # Of a failed last item, and of one whose outcome is in a file, nobody would know the last values.
        recorders.tells_all = skips or call.get("checkpoint") is not None
        # A file's outcomes are of the same function, however many items there are.
        recorders.last_index = -1 if call.get("checkpoint") is not None else len(self._items) - 1
        look_after(recorders, loop, self._namespace)
        options: dict[str, Any] = {**call, "on_error": "return" if skips else "raise"}
        strict: Strict = "captured" if any(site.on_item for site in loop.sites) else "all"
        options["strict"] = strict
        function, items = self._task.function, self._items
        if are_shared(items, [self._namespace[name] for name in sorted(loop.reads & self._namespace.keys())]):
            function, items = by_position(function, items), range(len(items))
        try:
            self._outcomes = map_and_check(pool.map_strictly, function, items, check, options)
        except Escaped as escaped:
            raise self._escaped(escaped) from None
        except LostUpdateError as lost:
            raise refused_at_run_time(lost, loop, self._source, self._namespace) from None
        except UnboundLocalError as error:
            if name := self._carried(error):
                raise Refused(
                    f"`{name}` is not set in an iteration that reads it: serially {_CARRIED}.", loop.place
                ) from None
            raise
        if skips:
            for outcome in self._outcomes:
                if isinstance(outcome, TaskError) and isinstance(outcome.__cause__, Escaped):
                    raise self._escaped(outcome.__cause__)
            self._outcomes = [None if isinstance(outcome, TaskError) else outcome for outcome in self._outcomes]

    def _carried(self, error: UnboundLocalError) -> str:
        """The name of the loop's that a task has read before it was set there."""
        found = _UNBOUND.search(str(error))
        step = error.__traceback__
        while step is not None and step.tb_next is not None:
            step = step.tb_next
        is_own = step is not None and step.tb_frame.f_code.co_name == "<module>"
        return found[1] if found and is_own and found[1] in self._loop.bound else ""

    def _escaped(self, escaped: Escaped) -> Refused:
        site = self._loop.sites[escaped.number]
        return Refused(
            f"what `{site.text}` stores {escaped.reason}: after the loop it would see what the names hold by then. "
            f"Store a value that is finished, or keep the loop serial.",
            site.place,
        )

    def replay(self) -> list[str]:
        """Do the effects, and bind what the loop leaves bound; gives notes on names that have no last value."""
        __tracebackhide__ = True
        self._replay = Replay(self._loop, self._source, self._namespace, self._items)
        last = self._replay.do(self._outcomes)
        ended = next((item for item, outcome in self._backwards() if outcome is not None), _NONE)
        if ended is not _NONE and self._task.kept:
            bound = self._bound_by_target(ended)
            last = {**{name: bound[name] for name in self._task.kept}, **last}
        values, unset, reasons = told(last)
        self._namespace.update(values)
        for name in unset:
            self._namespace.pop(name, None)
        return [f"`{name}` is not set: its last value cannot come back ({reason})." for name, reason in reasons.items()]

    def forget(self) -> None:
        """Let go of what the tasks were given and gave."""
        self._items, self._outcomes, self._replay = (), [], None

    def take_back(self) -> None:
        """Leave no effect."""
        if self._replay is not None:
            self._replay.undo()

    def _backwards(self) -> Iterator[tuple[Any, Any]]:
        return zip(reversed(self._items), reversed(self._outcomes), strict=True)

    def _bound_by_target(self, item: Any) -> dict[str, Any]:
        """What the loop's target binds to an item, by name."""
        target = self._loop.target
        if isinstance(target, ast.Name):
            return {target.id: item}
        bound: dict[str, Any] = {_VALUE: item}
        assign = ast.copy_location(ast.Assign([target], _name(_VALUE)), target)
        exec(self._source.compile(ast.Module([assign], [])), {}, bound)
        return bound


_NONE = object()
_NOTHING_KEPT = "nothing of the loop was kept: the names of the notebook are what they were before the cell"


def _in_any_case(call: Callable[[], None]) -> None:
    """Call something that may be done twice, whatever interrupts it."""
    while True:
        try:
            call()
        except KeyboardInterrupt:
            continue
        return


def _reworded(error: BaseException, header: str) -> BaseException:
    """The error of a job whose results are none for a user: an interrupt is one line, others get a note."""
    if isinstance(error, KeyboardInterrupt):
        return JobInterrupt(f"Interrupted: {header} was cancelled; {_NOTHING_KEPT}")
    if isinstance(error, JobCancelledError):
        return JobCancelledError(f"{header} was cancelled; {_NOTHING_KEPT}")
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list) and not isinstance(error, Refused):
        notes[:] = [note for note in notes if "retry_failed()" not in str(note)]
        add_note(error, f"nbpar: {_NOTHING_KEPT}")
        carry_results(error, [])
    return error


def _name(name: str, context: ast.expr_context | None = None) -> ast.Name:
    return ast.Name(name, context or ast.Load())


def _set_back(namespace: dict[str, Any], before: dict[str, Any], begun: dict[str, Any], names: Sequence[str]) -> None:
    """Bind the cell's names as they were before it: those that the code before the loop bound, and the loop's own."""
    missing = object()
    changed = {name for name in {**before, **begun} if before.get(name, missing) is not begun.get(name, missing)}
    for name in {*changed, *names}:
        if name in before:
            namespace[name] = before[name]
        else:
            namespace.pop(name, None)
