"""Exceptions to bytes and back, tracebacks included, so that the kernel can raise what a task raised.

Owns the record that travels: each exception of the chain as a pickle where that gives it back, its description where
not, with the frames of its traceback. :mod:`nbpar.worker.main` encodes, the dispatcher in the kernel decodes. Neither
side ever raises.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import os
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from nbpar.daemon import start_thread
from nbpar.errors import RemoteError
from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.memory import return_freed_memory

__all__ = [
    "decode_exception",
    "encode_exception",
    "release_memory",
    "strip_own_frames",
    "traceback_text",
    "without_callers",
]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_MAX_EXCEPTIONS = 500  # in one chain, groups and their parts included
_NO_ARGUMENTS = ast.arguments([], [], None, [], [], None, [])
_MAX_FRAMES = 100  # of one traceback: its ends are kept, the middle of a runaway recursion is not

_Place = tuple[int, int, int, int]  # line, end line, column, end column: what tracebacks underline
_Frame = tuple[str, str, str, int, _Place]  # file, function, module, the line where the function begins


@dataclass(slots=True)
class _Record:
    """One exception of the chain; others are named by their place in the list of records."""

    type_name: str
    message: str
    pickle: bytes | None = None
    frames: list[_Frame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cause: int | None = None
    context: int | None = None
    suppress: bool = False
    parts: list[int] | None = None
    is_plain_group: bool = False


def encode_exception(exc: BaseException) -> bytes:
    """Encode an exception with its traceback, its causes and its notes.

    Parameters
    ----------
    exc : BaseException
        What a task raised. Frames of nbpar's own that lead to the task are left out.

    Returns
    -------
    bytes
        For :func:`decode_exception`.
    """
    release_memory(exc)
    try:
        return pickle.dumps((_records(exc), _text(exc)), 5)
    except BaseException as error:  # noqa: BLE001  # a property of the user's exception, or no memory left
        message = f"(it cannot be described: {type(error).__name__})"
        return pickle.dumps(([_Record(_type_name(type(exc)), message)], ""), 5)


def decode_exception(data: bytes | bytearray | memoryview) -> tuple[BaseException, str]:
    """Rebuild an exception.

    Parameters
    ----------
    data : bytes
        From :func:`encode_exception`.

    Returns
    -------
    exception : BaseException
        With ``__traceback__`` set; a :class:`~nbpar.errors.RemoteError` that names the type where the exception cannot
        be rebuilt here.
    text : str
        The traceback as the worker would have printed it.
    """
    text = ""
    try:
        records, text = pickle.loads(data)
        return _Rebuilder(records, text).exception(0), text
    except BaseException as error:  # noqa: BLE001  # user code in an exception's own __setstate__
        return RemoteError(f"the task failed, but its error cannot be read: {type(error).__name__}"), text


def release_memory(exc: BaseException) -> None:
    """Where memory was short, let go of what has taken it: frames of the traceback hold it, and it is needed now."""
    chain = list(_chain(exc))
    if any(isinstance(one, MemoryError) for one in chain):
        for one in chain:
            traceback.clear_frames(one.__traceback__)
        return_freed_memory()  # objects are made in other pages than those that were freed


def without_callers(exc: BaseException) -> BaseException:
    """The same exception, its tracebacks without the frames that hold the data, and the callers, of where it came from.

    For what the user's code raises in the dispatcher: kept with an error, its frames would keep the results of others.
    """
    for one in _chain(exc):
        with contextlib.suppress(BaseException):
            BaseException.__setattr__(one, "__traceback__", _traceback(_frames(one.__traceback__)))
    return exc


def strip_own_frames(exc: BaseException) -> BaseException:
    """The same exception, its traceback without the frames of nbpar's own that lead to the task; for threads."""
    return exc.with_traceback(_without_own_frames(exc.__traceback__))


def traceback_text(exc: BaseException) -> str:
    """The traceback as Python would print it, without frames of nbpar's own that lead to the task."""
    return _text(exc)


def rebuild_bare(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """Make an exception without its ``__init__``, which may ask for other arguments; named inside pickles."""
    exc = cls.__new__(cls, *args)
    BaseException.__setattr__(exc, "args", args)
    exc.__dict__.update(attributes)
    return exc


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception, its causes and what they were raised beside."""
    waiting: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += one.__cause__, one.__context__
            yield one


# --- in the worker ----------------------------------------------------------------------------------------------------


def _records(first: BaseException) -> list[_Record]:
    exceptions = [first]
    places = {id(first): 0}

    def place(exc: BaseException | None) -> int | None:
        if exc is None:
            return None
        if id(exc) not in places:
            if len(exceptions) >= _MAX_EXCEPTIONS:
                return None
            places[id(exc)] = len(exceptions)
            exceptions.append(exc)
        return places[id(exc)]

    records = []
    for exc in exceptions:  # which grows meanwhile
        record = _Record(_type_name(type(exc)), _message(exc))
        record.frames = _frames(exc.__traceback__)
        record.notes = [note for note in getattr(exc, "__notes__", None) or () if isinstance(note, str)]
        record.cause = place(exc.__cause__)
        record.context = place(exc.__context__)
        record.suppress = exc.__suppress_context__
        if isinstance(exc, BaseExceptionGroup):
            record.message = exc.message
            record.parts = [n for part in exc.exceptions if (n := place(part)) is not None]
            record.is_plain_group = type(exc) in (ExceptionGroup, BaseExceptionGroup)
        record.pickle = None if record.is_plain_group else _pickle(exc)
        records.append(record)
    return records


def _pickle(exc: BaseException) -> bytes | None:
    """The exception alone as a pickle; None when neither way gives an exception of its type back."""
    for whole in (exc, _Bare(exc)):
        with contextlib.suppress(BaseException):
            file = io.BytesIO()
            ByValuePickler(file, in_worker=True).dump(whole)
            data = file.getvalue()
            loaded = pickle.loads(data)
            if type(loaded) is type(exc) and str(loaded) == str(exc):
                return data
    return None


class _Bare:
    """Pickles as an exception that is to be rebuilt without its ``__init__``."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_bare, (type(self.exc), self.exc.args, self.exc.__dict__)


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException as error:  # noqa: BLE001  # user code
        return f"(its __str__ raised {type(error).__name__})"


def _type_name(kind: type) -> str:
    plain = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


def _without_own_frames(step: TracebackType | None) -> TracebackType | None:
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        step = step.tb_next
    return step


def _frames(trace: TracebackType | None) -> list[_Frame]:
    frames: list[_Frame] = []
    step = _without_own_frames(trace)
    while step is not None:
        code = step.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE):  # nor those of a map within the task
            module = step.tb_frame.f_globals.get("__name__")
            names = (code.co_filename, code.co_name, module if type(module) is str else "")
            frames.append((*names, code.co_firstlineno, _place(step)))
        step = step.tb_next
    if len(frames) > _MAX_FRAMES:
        frames[_MAX_FRAMES // 2 : -_MAX_FRAMES // 2] = []
    return frames


def _place(step: TracebackType) -> _Place:
    positions = step.tb_frame.f_code.co_positions()
    line, end_line, column, end_column = next(itertools.islice(positions, step.tb_lasti // 2, None), (None,) * 4)
    if line is None or end_line is None or column is None or end_column is None:
        line = max(step.tb_lineno or 1, 1)
        return line, line, 0, 0
    return line, end_line, column, end_column


def _text(exc: BaseException) -> str:
    try:
        described = traceback.TracebackException(type(exc), exc, _without_own_frames(exc.__traceback__))
        return "".join(described.format())
    except BaseException:  # noqa: BLE001  # user code
        return f"{_type_name(type(exc))}: {_message(exc)}\n"


# --- in the kernel ----------------------------------------------------------------------------------------------------


class _Rebuilder:
    """Makes the exceptions of one list of records, each once."""

    def __init__(self, records: list[_Record], text: str) -> None:
        self._records = records
        self._text = text
        self._made: dict[int, BaseException] = {}

    def exception(self, place: int) -> BaseException:
        """The exception of a record, its links set."""
        exc = self._make(place)
        waiting = [place]
        linked: set[int] = set()
        while waiting:
            here = waiting.pop()
            if here in linked:
                continue
            linked.add(here)
            record = self._records[here]
            made = self._made[here]
            # An exception class of the user's may refuse the setting of attributes (a frozen dataclass).
            set_link = BaseException.__setattr__
            for name, other in (("__cause__", record.cause), ("__context__", record.context)):
                if other is not None:
                    set_link(made, name, self._make(other))
                    waiting.append(other)
            set_link(made, "__suppress_context__", record.suppress)
            waiting.extend(record.parts or ())
        return exc

    def _make(self, place: int) -> BaseException:
        if place not in self._made:
            record = self._records[place]
            exc = self._load(place, record)
            with contextlib.suppress(BaseException):
                BaseException.__setattr__(exc, "__traceback__", _traceback(record.frames))
            if record.notes:
                with contextlib.suppress(BaseException):
                    BaseException.__setattr__(exc, "__notes__", list(record.notes))
            self._made[place] = exc
        return self._made[place]

    def _load(self, place: int, record: _Record) -> BaseException:
        if record.pickle is not None:
            with contextlib.suppress(BaseException):
                exc = pickle.loads(record.pickle)
                if isinstance(exc, BaseException):
                    self._adopt_parts(exc, record)
                    return exc
        if record.parts:
            return BaseExceptionGroup(record.message, [self._make(part) for part in record.parts])
        exc = RemoteError(f"{record.type_name}: {record.message}", remote_traceback=self._text if place == 0 else "")
        exc.type_name = record.type_name
        return exc

    def _adopt_parts(self, exc: BaseException, record: _Record) -> None:
        """Give the parts of a user's own kind of group, which came with its pickle, their tracebacks and links."""
        if isinstance(exc, BaseExceptionGroup) and record.parts and len(exc.exceptions) == len(record.parts):
            for part, place in zip(exc.exceptions, record.parts, strict=True):
                BaseException.__setattr__(part, "__traceback__", _traceback(self._records[place].frames))
                self._made[place] = part


def _traceback(frames: list[_Frame]) -> TracebackType | None:
    """A traceback of those frames, whose lines IPython finds by file and number.

    They are made in a thread of its own: a frame holds its callers' frames, and with them all that these hold, as long
    as it lives, and with an error that is kept it lives long.
    """
    made: list[TracebackType | None] = []
    if frames:
        try:
            start_thread(lambda: made.append(_run_frames(frames)), name="nbpar-traceback").join()
        except RuntimeError:  # no more threads, or the interpreter is ending
            made.append(_run_frames(frames))
    return made[0] if made else None


def _run_frames(frames: list[_Frame]) -> TracebackType | None:
    """The same, in this thread.

    Frames cannot be made but by running code: for each one a name that is not defined, at the place in the source where
    the task's own frame was, in a function that begins where the task's did, by which IPython finds what to show.
    (tblib does the same, but loses the columns and the beginning.)
    """
    made: TracebackType | None = None
    for file, function, module, first_line, (line, end_line, column, end_column) in reversed(frames):
        name = ast.Name("_", ast.Load())
        statement = ast.Expr(name)
        for node in (name, statement):
            node.lineno, node.end_lineno, node.col_offset, node.end_col_offset = line, end_line, column, end_column
        code = compile(ast.Module([statement], []), file, "exec")
        if first_line > 1 and first_line <= line:
            inside = ast.FunctionDef("f", _NO_ARGUMENTS, [statement], [], lineno=first_line, col_offset=0)
            inside.end_lineno, inside.end_col_offset = end_line, end_column
            whole = compile(ast.Module([inside], []), file, "exec")
            code = next(constant for constant in whole.co_consts if isinstance(constant, CodeType))
        code = code.replace(co_name=function, co_qualname=function)
        try:
            exec(code, {"__name__": module, "__file__": file, "__builtins__": {}})
        except NameError as error:
            step = error.__traceback__
            assert step is not None
            assert step.tb_next is not None
            step.tb_next.tb_next = made
            made = step.tb_next
    return made
