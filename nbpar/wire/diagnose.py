"""Why an object cannot travel: the path to the part that is to blame, and what to do about it.

Owns the search, which pickles smaller and smaller parts until none fails alone, and the advice for each kind of object.
Called by :class:`nbpar.wire.codec.Codec` after pickling has failed, so it may be slow, but not long: it ends after
`MAX_SECONDS` with what it has found by then. Any method of the user's objects may raise anything while it looks.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from types import (
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any

from nbpar.wire.advice import problem_of, short, short_repr
from nbpar.wire.byvalue import ByValuePickler, reduction_table
from nbpar.wire.names import globals_of, goes_by_name

__all__ = ["Culprit", "find_culprit", "is_interrupt"]

MAX_SECONDS = 0.2
_SECONDS_FOR_CYCLES = 0.02
_MAX_DEPTH = 60
_BATCH = 32  # parts that are tried together, at full speed, before they are tried one by one
_PROBES_PER_CLOCK = 256

_ATOMS = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None), type(...)})
_DERIVED = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "_abc_impl"})
_RAISE = dis.opmap["RAISE_VARARGS"]

PicklerMaker = Callable[..., ByValuePickler]
Step = tuple[str, Any]  # how a part is spelled, after its whole; and the part


@dataclass(frozen=True, slots=True)
class Culprit:
    """The smallest part that fails alone."""

    path: str
    type_name: str
    problem: str
    index: int | None


class _OutOfTime(BaseException):
    """The search has taken long enough; not an Exception, so that no method of a user's swallows it."""


class _Null:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Probe(ByValuePickler):
    """Pickles to nowhere; leaves out some objects; minds the clock."""

    omitted: Mapping[int, Any] = MappingProxyType({})
    deadline_s = 0.0
    n_seen = 0

    def persistent_id(self, obj: Any) -> str | None:
        self.n_seen += 1
        if not self.n_seen % _PROBES_PER_CLOCK and perf_counter() > self.deadline_s:
            raise _OutOfTime
        return "omitted" if id(obj) in self.omitted else None


def find_culprit(obj: object, name: str, failure: BaseException, make_pickler: PicklerMaker) -> Culprit:
    """Find the part of `obj` that cannot be pickled.

    Parameters
    ----------
    obj : object
        What could not be pickled.
    name : str
        What the path begins with.
    failure : BaseException
        What pickling it raised.
    make_pickler : callable
        ``make_pickler(file, base=class, **options)`` gives a pickler as it was used.

    Returns
    -------
    Culprit
    """
    search = _Search(make_pickler)
    steps: list[str] = []
    culprit: Any = obj
    error = failure
    index: int | None = None
    too_deep = isinstance(failure, RecursionError) or isinstance(failure.__cause__, RecursionError)
    try:
        while len(steps) < (1 if too_deep else _MAX_DEPTH):
            found = search.failing_part(culprit)
            if found is None:
                break
            step, culprit, error = found
            if not steps and type(obj) is list:
                index = int(step[1:-1])
            steps.append(step)
    except _OutOfTime:
        steps.append(" (somewhere in it)")
    except BaseException as unforeseen:  # user code in a repr, a property, a hash
        if is_interrupt(unforeseen):
            raise
    problem = problem_of(type(culprit), error, too_deep=too_deep)
    return Culprit(_path(name, steps), type(culprit).__name__, problem, index)


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception came from a signal (Ctrl-C, the stop button, a cancelled task), not from pickled objects."""
    handler = signal.getsignal(signal.SIGINT)
    handler_code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    last: TracebackType | None = None
    step = error.__traceback__
    while step is not None:
        if handler_code is not None and step.tb_frame.f_code is handler_code:
            return True
        last = step
        step = step.tb_next
    if not isinstance(error, KeyboardInterrupt) or last is None or handler is not signal.default_int_handler:
        return False
    # Python's own handler raises from C, anywhere in the main thread; user code does so by a `raise` statement.
    if threading.current_thread() is not threading.main_thread():
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] != _RAISE


def _path(name: str, steps: list[str]) -> str:
    """Join steps; a step that begins with a letter names its own place, so that what led there is said after it."""
    path, led = name, ""
    for step in steps:
        if step[0].isalpha():
            if name != "function":
                led = led or f", at {path}"
            path = step
        else:
            path += step
    return path + led


class _Search:
    """One search: its clock and what is on the path already."""

    def __init__(self, make_pickler: PicklerMaker) -> None:
        self._make_pickler = make_pickler
        self._deadline_s = perf_counter() + MAX_SECONDS
        self._on_path: dict[int, Any] = {}  # by id; a part that fails only by leading back there is not to blame

    def failing_part(self, whole: Any) -> tuple[str, Any, BaseException] | None:
        """The first part of `whole` that fails alone."""
        self._on_path[id(whole)] = whole
        parts = self._parts(whole)
        while batch := list(itertools.islice(parts, _BATCH)):
            if len(batch) == _BATCH and self._dump([part for _, part in batch], ByValuePickler) is None:
                continue
            for step, part in batch:
                if type(part) in _ATOMS or id(part) in self._on_path:
                    continue
                error = self._try(part)
                if error is not None:
                    return step, part, error
        return None

    def _try(self, part: Any) -> BaseException | None:
        """What pickling `part` alone raises."""
        error = self._dump(part, ByValuePickler)
        if error is None:
            return None
        try:
            # Again without what is on the path: a part may fail only because it leads back to the one to blame.
            return self._dump(part, _Probe)
        except _OutOfTime:
            return error

    def _dump(self, part: Any, base: type[ByValuePickler]) -> BaseException | None:
        now_s = perf_counter()
        if now_s > self._deadline_s:
            raise _OutOfTime
        pickler = self._make_pickler(_Null(), base=base, buffer_callback=lambda _buffer: False, whole_classes=True)
        if isinstance(pickler, _Probe):
            pickler.omitted = self._on_path
            pickler.deadline_s = now_s + _SECONDS_FOR_CYCLES
        try:
            pickler.dump(part)
        except _OutOfTime:
            raise
        except BaseException as error:  # user code in the part's own pickling
            if is_interrupt(error):
                raise
            return error
        return None

    def _parts(self, whole: Any) -> Iterator[Step]:
        kind = type(whole)
        if kind is list or kind is tuple:
            yield from ((f"[{i}]", part) for i, part in enumerate(whole))
        elif kind is dict:
            yield from _of_dict(whole)
        elif kind is set or kind is frozenset:
            yield from _of_set(whole)
        elif kind is FunctionType:
            yield from _of_function(whole)
        elif kind is MethodType:
            yield ".__self__", whole.__self__
            yield ".__func__", whole.__func__
        elif kind is functools.partial:
            yield ".func", whole.func
            yield ".args", whole.args
            yield ".keywords", whole.keywords
        elif kind is CellType:
            yield ".cell_contents", whole.cell_contents
        elif issubclass(kind, type):
            yield from _of_class(whole)
        elif kind.__name__ == "ndarray" and whole.dtype.hasobject:
            yield from ((f".flat[{i}]", part) for i, part in enumerate(whole.flat))
        elif kind not in _ATOMS:
            yield from self._of_object(whole)

    def _of_object(self, whole: Any) -> Iterator[Step]:
        """The parts that the pickler would see; none when asking for them fails: then the object is to blame."""
        try:
            reduced = self._make_pickler(_Null(), whole_classes=True).reducer_override(whole)
            if reduced is NotImplemented:
                reducer = reduction_table().get(type(whole))
                reduced = whole.__reduce_ex__(5) if reducer is None else reducer(whole)
        except BaseException as error:  # user code in the object's own __reduce__
            if is_interrupt(error):
                raise
            return
        if type(reduced) is not tuple or len(reduced) < 2:
            return
        function, args, state, items, pairs, *_ = itertools.chain(reduced, [None] * 3)
        if isinstance(state, dict):
            yield from _of_state(state)
        elif type(state) is tuple and len(state) == 2 and all(isinstance(part, dict | None) for part in state):
            for part in state:
                yield from _of_state(part or {})
        elif state is not None:
            yield " (its state)", state
        yield from ((f"[{i}]", part) for i, part in enumerate(items or ()))
        yield from ((f"[{short_repr(key)}]", part) for key, part in pairs or ())
        by_new = function in (copyreg.__newobj__, copyreg.__newobj_ex__)  # type: ignore[attr-defined]
        for i, part in enumerate(args):
            yield " (its class)" if by_new and i == 0 else f".args[{i}]", part
        yield f" (made by {short_repr(function)})", function


def _of_state(state: dict[Any, Any]) -> Iterator[Step]:
    for name, part in state.items():
        yield f".{name}", part


def _of_dict(whole: dict[Any, Any]) -> Iterator[Step]:
    for key, part in whole.items():
        yield f"[{short_repr(key)}]", part
    for key in whole:
        yield f" (key {short_repr(key)})", key


def _of_set(whole: Any) -> Iterator[Step]:
    for part in whole:
        yield f" (element {short_repr(part)})", part


def _of_function(function: FunctionType) -> Iterator[Step]:
    if goes_by_name(function):
        return
    name = function.__name__
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {variable!r} of function {name!r}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    names = function.__globals__
    for variable in globals_of(function.__code__):
        if variable in names and not isinstance(names[variable], ModuleType):
            yield f"global {variable!r} used by {name!r}", names[variable]
    n_positional = function.__code__.co_argcount - len(function.__defaults__ or ())
    for variable, part in zip(function.__code__.co_varnames[n_positional:], function.__defaults__ or (), strict=False):
        yield f"default of {variable!r} in function {name!r}", part
    for variable, part in (function.__kwdefaults__ or {}).items():
        yield f"default of {variable!r} in function {name!r}", part
    for attribute, part in vars(function).items():
        yield f"attribute {attribute!r} of function {name!r}", part
    yield f"annotations of function {name!r}", function.__annotations__


def _of_class(cls: type) -> Iterator[Step]:
    if goes_by_name(cls):
        return
    for base in (*cls.__bases__, type(cls)):
        yield f"base {short(base.__name__)!r} of class {cls.__name__!r}", base
    for attribute, part in tuple(vars(cls).items()):
        if attribute in _DERIVED or isinstance(part, GetSetDescriptorType | MemberDescriptorType):
            continue
        target = part.__func__ if isinstance(part, staticmethod | classmethod) else part
        yield f"attribute {attribute!r} of class {cls.__name__!r}", target
