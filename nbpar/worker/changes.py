"""Notices that tasks change what their function brought along: such a change is lost with the worker.

A function that travels by value brings objects of the notebook: globals it names, its closure, defaults. Each worker
has its own copies. :class:`Captured` takes marks of the small ones that can change before the first task, and compares
them after the first chunk and then as often as it costs next to nothing. Owned by :mod:`nbpar.worker.main`, one for
each job; threads and serial runs have no copies, and lose nothing.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator
from opcode import opmap
from time import thread_time

from nbpar.wire.unchanged import names_in
from nbpar.worker.marks import MAX_BYTES, TooLarge, are_same, is_open, mark

__all__ = ["MISSING", "Captured", "Fetch", "captured_by", "is_by_value", "parts_of", "stores_in"]

SHARE = 0.005
"""Of the time in tasks, for looking again."""

CHEAP_S = 1e-4
"""What is looked at as quickly as that is looked at after the first report, the second, the fourth and so on in any
case, so that a job of short tasks is not missed."""

MAX_NAMES = 50
"""More names than that are not looked at."""

_STORE_GLOBAL, _STORE_DEREF, _EXTENDED_ARG = (opmap[name] for name in ("STORE_GLOBAL", "STORE_DEREF", "EXTENDED_ARG"))
MISSING = object()
"""The value of a name that is not bound."""

Fetch = Callable[[], object]


class Captured:
    """The objects of one job's function in this worker, with marks of what was in them."""

    __slots__ = ("_before", "_cost_s", "_n_reports", "_work_s")

    def __init__(self, before: dict[str, tuple[Fetch, bytes]], cost_s: float) -> None:
        self._before = before
        self._cost_s = cost_s
        self._work_s = 0.0  # since the last look
        self._n_reports = 0

    def look(self, work_s: float) -> tuple[str, ...]:
        """Names of what has changed, each once; called when tasks have ended that took so long together."""
        self._work_s += work_s
        self._n_reports = n = self._n_reports + 1
        is_early = not n & (n - 1) and (n == 1 or self._cost_s < CHEAP_S)
        if not self._before or not (is_early or self._work_s * SHARE >= self._cost_s):
            return ()
        self._work_s = 0.0
        begin_s = thread_time()  # that it had to wait for a CPU is no cost of it
        changed = tuple(name for name, (fetch, before) in self._before.items() if _has_changed(fetch, before))
        for name in changed:
            del self._before[name]
        self._cost_s = thread_time() - begin_s
        return changed


def captured_by(function: object) -> Captured | None:
    """What is to be looked at of a function that was just rebuilt; None when nothing is, as for most."""
    begin_s = thread_time()
    before: dict[str, tuple[Fetch, bytes]] = {}
    left_bytes = MAX_BYTES
    try:
        for name, fetch in _names_of(function):
            if name in before or len(before) >= MAX_NAMES:
                continue
            known = _mark_of(fetch, left_bytes)
            if known is not None:
                before[name] = fetch, known
                left_bytes -= len(known)
    except Exception:  # noqa: BLE001  # a class of the user's may be of any make: then nothing is said
        return None
    return Captured(before, thread_time() - begin_s) if before else None


def _mark_of(fetch: Fetch, limit_bytes: int) -> bytes | None:
    value = fetch()
    if value is MISSING:
        return b""
    try:
        return mark(value, limit_bytes)
    except (TooLarge, RuntimeError):  # a thread of the user's changes it at this moment
        return None


def _has_changed(fetch: Fetch, before: bytes) -> bool:
    try:
        value = fetch()
        if value is MISSING:
            return bool(before)
        return not are_same(before, mark(value, len(before) + MAX_BYTES)) if before else True
    except TooLarge:  # it has grown by as much
        return True
    except Exception:  # noqa: BLE001  # as above
        return False


# --- what a function refers to ----------------------------------------------------------------------------------------


def _names_of(function: object) -> Iterator[tuple[str, Fetch]]:
    """Names of what can change among what a function refers to, each with a way to have its value now."""
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [("", function)]
    while todo:
        name, value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            if not is_by_value(value):
                continue
            for inner, fetch, is_stored in parts_of(value):
                found = fetch()
                if is_stored or is_open(found):
                    yield inner, fetch
                else:
                    todo.append((inner, found))
        elif isinstance(value, types.MethodType):
            todo += [(name, value.__func__), ("", value.__self__)]
        elif isinstance(value, functools.partial):
            todo += [(name, value.func), *(("", one) for one in value.args), *value.keywords.items()]
        elif is_open(value):  # an instance of the notebook's that is called, what a method is of or a partial holds
            yield name or f"the {type(value).__name__} object", functools.partial(_same, value)
            todo += [(name, vars(cls)["__call__"]) for cls in type(value).__mro__ if "__call__" in vars(cls)]


def _same(value: object) -> object:
    return value


def is_by_value(function: types.FunctionType) -> bool:
    """Whether it was rebuilt here; what was imported has the globals of its module."""
    known = function.__globals__
    return known is not getattr(sys.modules.get(known.get("__name__", "")), "__dict__", None)


def parts_of(function: types.FunctionType) -> Iterator[tuple[str, Fetch, bool]]:
    """What a function refers to by name, and whether its code binds the name anew."""
    code, known = function.__code__, function.__globals__
    stored_globals, stored_cells = stores_in(code)
    for name in names_in(code):
        if name in known or name in stored_globals:
            yield name, functools.partial(known.get, name, MISSING), name in stored_globals
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, functools.partial(_content_of, cell), name in stored_cells
    defaults = function.__defaults__ or ()
    n_arguments = code.co_argcount
    for name, value in zip(code.co_varnames[n_arguments - len(defaults) : n_arguments], defaults, strict=True):
        yield name, functools.partial(_same, value), False
    for name, value in (function.__kwdefaults__ or {}).items():
        yield name, functools.partial(_same, value), False
    for name, value in vars(function).items():
        yield f"{function.__name__}.{name}", functools.partial(vars(function).get, name, MISSING), _is_value(value)


def _is_value(value: object) -> bool:
    return isinstance(value, int | float | str | bytes | None)


def _content_of(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return MISSING


def stores_in(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Globals, and names of the closure, that code or code inside it binds anew."""
    in_globals: set[str] = set()
    in_cells: set[str] = set()
    for one in _codes_in(code):
        opcodes = one.co_code[::2]
        if _STORE_GLOBAL in opcodes or (code.co_freevars and _STORE_DEREF in opcodes):
            for opcode, argument in _steps_of(one):
                if opcode == _STORE_GLOBAL:
                    in_globals.add(one.co_names[argument])
                elif opcode == _STORE_DEREF and (name := _cell_name(one, argument)) in one.co_freevars:
                    in_cells.add(name)
    return in_globals, in_cells.intersection(code.co_freevars)


def _steps_of(code: types.CodeType) -> Iterator[tuple[int, int]]:
    """Operations with their arguments, at a tenth of the time that `dis` takes."""
    argument = 0
    for opcode, byte in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        argument = argument << 8 | byte
        if opcode != _EXTENDED_ARG:
            yield opcode, argument
            argument = 0


def _cell_name(code: types.CodeType, argument: int) -> str:
    name: str = code._varname_from_oparg(argument)  # type: ignore[attr-defined]  # absent from typeshed; `dis` goes by it
    return name


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes_in(one)
