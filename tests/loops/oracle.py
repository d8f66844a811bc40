"""What a loop cell must do in parallel: the same as serially, bit for bit, or nothing at all.

Owns :class:`Case` (a notebook as two texts: what ran before, and the cell) and :func:`judge`, which runs it serially by
``exec``, gives it to a :data:`Runner`, each on a namespace of its own made by the same text, and says in what the
outcomes differ. Knows nothing of nbpar: a runner is any function. Used by the tests here and by ``python -m
tests.loops``.
"""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.loops.picture import arrays_in, differences, picture

__all__ = ["Case", "Refusal", "Runner", "Verdict", "fresh", "judge", "parts_of"]

FILENAME = "<loop cell>"
SETUP = "<cells before>"


class Refusal(Exception):  # noqa: N818  # as Refused and UsageError
    """What a runner raises for a cell that does not run in parallel; `lost` are names that it could not give back."""


@dataclass(frozen=True, slots=True)
class Case:
    """A notebook: the text of the cells before, and that of the loop cell."""

    setup: str
    cell: str
    is_plain: bool = False
    """Whether it is data-parallel, so that it should run."""

    def __str__(self) -> str:
        return f"{self.setup.rstrip()}\n# --- %%parallel\n{self.cell.rstrip()}"


class _EndlessError(Exception):
    """The serial cell does not end."""


MOST_S = 3.0
"""CPU time that a cell may take serially; all take milliseconds."""

Runner = Callable[[str, dict[str, Any], Callable[[str], None]], None]
"""Runs a cell on a namespace; raises :class:`Refusal` or what the cell raises; tells which names it leaves unset."""


@dataclass(slots=True)
class Verdict:
    """How a case went."""

    kind: str
    """``"same"``, ``"raised"`` (as serial does), ``"refused"``, ``"wrong"``, or ``"endless"``: no case at all."""
    reason: str = ""
    unset: set[str] = field(default_factory=set)
    serial_raised: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.kind == "wrong"


def parts_of(cell: str) -> tuple[ast.Module, ast.For | None, ast.Module]:
    """What stands before the only top-level ``for``, the loop, and what comes after (first its ``else``)."""
    body = ast.parse(cell).body
    loops = [i for i, statement in enumerate(body) if isinstance(statement, ast.For)]
    if len(loops) != 1:
        return ast.Module(body, []), None, ast.Module([], [])
    (at,) = loops
    loop = body[at]
    assert isinstance(loop, ast.For)
    return ast.Module(body[:at], []), loop, ast.Module([*loop.orelse, *body[at + 1 :]], [])


def judge(case: Case, run: Runner) -> Verdict:
    """Run a case both ways and compare."""
    with _quiet():
        serial = fresh(case.setup)
        serial_old, serial_arrays = dict(serial), arrays_in(serial)
        try:
            with _to_an_end():
                error = _raised_by(lambda: exec(compile(case.cell, FILENAME, "exec", dont_inherit=True), serial))
        except _EndlessError:
            return Verdict("endless", serial_raised="_EndlessError")
        expected = picture(serial, serial_old, serial_arrays)
        phase = _phase(case.cell, error)

        space = fresh(case.setup)
        old, arrays = dict(space), arrays_in(space)
        untouched = picture(space, old, arrays)
        unset: set[str] = set()

        outcome = _raised_by(lambda: run(case.cell, space, unset.add))
        got = picture(space, old, arrays)
        if unset:
            expected = {**picture(_without(serial, unset), serial_old, serial_arrays), **_states(expected)}
            got = {**picture(_without(space, unset), old, arrays), **_states(got)}

    def verdict(kind: str, reason: str = "") -> Verdict:
        return Verdict(kind, reason, unset, type(error).__name__ if error is not None else "")

    def unless(found: list[str], kind: str, what: str) -> Verdict:
        return verdict("wrong", f"{what}:\n  " + "\n  ".join(found)) if found else verdict(kind, _said(outcome))

    if outcome is None:
        if error is not None:
            return verdict("wrong", f"nothing is raised, serially {error!r}")
        if there := sorted(unset & space.keys()):
            return verdict("wrong", f"said to be unset, but there: {there}")
        return unless(differences(expected, got), "same", "serial / parallel")
    if isinstance(outcome, Refusal):
        return unless(_touched(case, untouched, got), "refused", f"refused ({outcome}), yet untouched / now")
    if error is None or (_name_of(error) != _name_of(outcome) and (phase != "loop" or not _is_the_cells(outcome))):
        said = "".join(traceback.format_exception(outcome)[-6:])
        return verdict("wrong", f"{outcome!r} is raised, serially {error!r}\n{said}")
    if phase in ("before", "after") and not differences(expected, got):
        return verdict("raised", _said(outcome))
    if phase == "after":
        return unless(differences(expected, got), "raised", f"{outcome!r} after the loop, serial / parallel")
    return unless(_touched(case, untouched, got), "raised", f"{outcome!r}, yet untouched / now")


def _is_the_cells(error: BaseException) -> bool:
    """Whether code of the cell's, or what it calls, raises an error.

    Where an effect raises and, later, the body does, serial shows the first and parallel the second: a change is tried
    when all tasks are done. Both are in the loop, and either way nothing has happened.
    """
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name in (FILENAME, SETUP) for name in frames[-2:])


def _without(names: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in left_out}


def _states(drawn: dict[str, Any]) -> dict[str, Any]:
    """Of the process's generators, as they were."""
    return {name: one for name, one in drawn.items() if name in (" random", " numpy.random")}


def _touched(case: Case, untouched: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """In what a namespace is not as it was: objects may be as the code before the loop, and its header, left them."""
    found = differences(untouched, got)
    if not found:
        return []
    space = fresh(case.setup)
    old = dict(space)
    before, loop, _ = parts_of(case.cell)
    ways: list[list[ast.Module]] = [[before]]
    if loop is not None and not isinstance(loop.iter, ast.Name | ast.List):
        consumed = ast.Expr(ast.Call(ast.Name("list", ast.Load()), [loop.iter], []))
        ways.append([before, ast.fix_missing_locations(ast.Module([ast.copy_location(consumed, loop)], []))])
    elif loop is not None:
        target = ast.For(loop.target, loop.iter, [ast.Pass()], [])
        ways.append([before, ast.fix_missing_locations(ast.Module([ast.copy_location(target, loop)], []))])
    for way in ways:
        space = fresh(case.setup)
        old, arrays = dict(space), arrays_in(space)
        for tree in way:
            if _raised_by(lambda tree=tree, space=space: exec(compile(tree, FILENAME, "exec"), space)) is not None:  # type: ignore[misc]
                break
        space.clear()
        space.update(old)
        if not differences(picture(space, old, arrays), got):
            return []
    return found


def fresh(setup: str) -> dict[str, Any]:
    """A namespace of its own, and the random generators of the process in one and the same state."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # what cells may use
    sys.modules.pop("user_module", None)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(_compiled(setup), space)
    return space


_last: list[Any] = ["", None]


def _compiled(setup: str) -> Any:
    if _last[0] != setup:
        _last[:] = setup, compile(setup, SETUP, "exec", dont_inherit=True)
    return _last[1]


def _raised_by(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except (KeyboardInterrupt, MemoryError, _EndlessError):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a cell raises is its outcome
        return error
    return None


def _name_of(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _said(outcome: BaseException | None) -> str:
    return str(outcome) if isinstance(outcome, Refusal) else type(outcome).__name__ if outcome is not None else ""


def _phase(cell: str, error: BaseException | None) -> str:
    """Which part of the cell raised."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_frame.f_code.co_filename != FILENAME:
        trace = trace.tb_next
    if trace is None:
        return ""
    before, _, after = parts_of(cell)
    for phase, tree in (("before", before), ("after", after)):
        if any(one.lineno <= trace.tb_lineno <= (one.end_lineno or 0) for one in tree.body):
            return phase
    return "loop"


@contextlib.contextmanager
def _to_an_end() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _EndlessError

    handler = signal.signal(signal.SIGVTALRM, stop)  # pytest's own limit goes by SIGALRM
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What cells print and warn of is no part of it; the generators of the process are as before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            linecache.cache.pop(FILENAME, None)
