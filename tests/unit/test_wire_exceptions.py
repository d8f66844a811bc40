"""Exceptions on their way from a worker to the kernel."""

from __future__ import annotations

import gc
import pickle
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbpar.errors import RemoteError
from nbpar.wire.codec import (
    OUT_OF_BAND_BYTES,
    CannotPickle,
    Codec,
)
from nbpar.wire.exceptions import decode_exception, encode_exception, release_memory, without_callers
from tests.unit.cells import BadState, cell, endless

LARGE = OUT_OF_BAND_BYTES


class TwoArguments(Exception):  # noqa: N818
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Unpicklable(Exception):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("what happened")
        self.handle = endless()


class NastyException(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no text")

    def __reduce__(self) -> Any:
        raise SystemExit


class Frozen(Exception):  # noqa: N818
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("did not raise")


def raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def travel(error: BaseException) -> BaseException:
    return decode_exception(encode_exception(error))[0]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("k"),
        SystemExit(3),
        OSError(2, "no", "file"),
        TwoArguments(7, "t"),
        Frozen("f"),
        StopIteration(1),
        UnicodeDecodeError("utf8", b"x", 0, 1, "bad"),
        CannotPickle("p", "t", "why", 3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back_as_themselves(error: BaseException) -> None:
    back = travel(caught(raiser(error)))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))
    trace = back.__traceback__
    assert trace is not None
    names = [frame.f_code.co_name for frame, _ in __import__("traceback").walk_tb(trace)]
    assert names == ["caught", "fail"]


def test_what_cannot_travel_becomes_a_remote_error() -> None:
    for error, name, message in (
        (Unpicklable(), "Unpicklable", "what happened"),
        (NastyException(), "NastyException", "__str__ raised ValueError"),
    ):
        back, text = decode_exception(encode_exception(caught(raiser(error))))
        assert type(back) is RemoteError
        assert back.type_name.endswith(name)
        assert message in str(back)
        assert "in fail" in back.remote_traceback == text
        assert back.__traceback__ is not None


def test_chains_notes_and_suppressed_contexts() -> None:
    def chain() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as error:
                error.add_note("see the manual")
                raise Unpicklable from error
        except Unpicklable:
            raise ValueError("last") from None

    back = travel(caught(chain))
    assert back.__suppress_context__
    assert back.__cause__ is None
    middle = back.__context__
    assert type(middle) is RemoteError
    assert type(middle.__cause__) is KeyError
    assert middle.__cause__ is middle.__context__
    assert middle.__cause__.__notes__ == ["see the manual"]
    assert middle.__cause__.__traceback__ is not None


def test_long_and_cyclic_chains_end() -> None:
    error: BaseException = ValueError(0)
    for i in range(2000):
        following = ValueError(i)
        following.__cause__ = following.__context__ = error
        error = following
    start = time.perf_counter()
    back = travel(error)
    assert time.perf_counter() - start < 5
    assert back.args == (1999,)
    a, b = ValueError("a"), ValueError("b")
    a.__context__, b.__context__ = b, a
    back = travel(a)
    assert back.__context__ is not None
    assert back.__context__.__context__ is back


def test_groups_keep_their_parts() -> None:
    parts = [caught(raiser(ValueError(1))), caught(raiser(Unpicklable())), ExceptionGroup("inner", [KeyError(2)])]
    back = travel(caught(raiser(ExceptionGroup("outer", parts))))  # type: ignore[type-var]
    assert isinstance(back, ExceptionGroup)
    assert back.message == "outer"
    assert [type(part) for part in back.exceptions] == [ValueError, RemoteError, ExceptionGroup]
    assert back.exceptions[0].__traceback__ is not None
    assert travel(BaseExceptionGroup("g", [SystemExit(1)])).exceptions[0].args == (1,)  # type: ignore[attr-defined]


def test_the_traceback_shows_the_cells_own_lines_and_none_of_nbpars() -> None:
    import linecache
    import traceback

    source = "def f(x):\n    return 1 + g(x)\n\ndef g(x):\n    return [1 / x for _ in 'a'][0]\n"
    linecache.cache["<cell 3>"] = (len(source), None, source.splitlines(keepends=True), "<cell 3>")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell 3>", "exec"), names)
    failing = Codec().encode([0])

    def run() -> None:
        names["f"](*Codec().decode(failing.payload))

    back, text = decode_exception(encode_exception(caught(run)))
    shown = "".join(traceback.format_exception(back))
    assert "return 1 + g(x)\n" in shown
    assert "\n            ~~^~~\n" in shown  # under 1 / x
    assert shown.replace(__file__, "") == text.replace(__file__, "")
    inside = caught(lambda: Codec().decode(Codec().encode([BadState()]).payload))
    step = inside.__traceback__
    assert step is not None
    inside.__traceback__ = step.tb_next.tb_next  # type: ignore[union-attr]  # begins in nbpar, as in a worker
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(travel(inside).__traceback__)]
    assert [Path(file).name for file in files] == ["cells.py"]  # the __setstate__ that raised
    linecache.cache.pop("<cell 3>")


def test_a_runaway_recursion_travels() -> None:
    def run(n: int) -> int:
        return run(n + 1)

    data = encode_exception(caught(lambda: run(0)))
    back, text = decode_exception(data)
    assert type(back) is RecursionError
    assert len(data) < 50_000
    assert "Previous line repeated" in text


def test_garbage_never_raises() -> None:
    for data in (b"", b"garbage", pickle.dumps(3), pickle.dumps(([], "")), encode_exception(ValueError())[:-3]):
        back, text = decode_exception(data)
        assert isinstance(back, RemoteError)
        assert isinstance(text, str)


def test_an_exception_whose_class_is_gone_becomes_a_remote_error() -> None:
    ns = cell("class Local(Exception):\n    pass")
    kernel = Codec()
    kernel.decode(kernel.encode_function(lambda: ns.Local).payload)  # as a worker receives it
    data = encode_exception(ns.Local("text"))
    assert type(decode_exception(data)[0]) is ns.Local
    kernel.drop_kept()
    del ns.Local
    gc.collect()
    back, _ = decode_exception(data)
    assert type(back) is RemoteError
    assert "Local: text" in str(back)


def callers(error: BaseException) -> set[str]:
    """The files of all frames that an exception holds, by its traceback and up from there."""
    found = set()
    step = error.__traceback__
    while step is not None:
        frame: Any = step.tb_frame.f_back
        while frame is not None:
            found.add(frame.f_code.co_filename)
            frame = frame.f_back
        step = step.tb_next
    return found


def test_a_rebuilt_traceback_holds_nothing_of_where_it_was_rebuilt() -> None:
    rebuilt, _ = decode_exception(encode_exception(caught(raiser(ValueError("x")))))
    assert rebuilt.__traceback__ is not None
    assert __file__ not in callers(rebuilt)


def test_an_exception_without_callers_has_its_lines_and_not_their_data() -> None:
    def fail(data: bytearray) -> None:
        raise LookupError("lost")

    error = caught(lambda: fail(bytearray(10)))
    assert __file__ in callers(error)
    before = [(step.name, step.lineno) for step in traceback.extract_tb(error.__traceback__)]
    assert without_callers(error) is error
    assert [(step.name, step.lineno) for step in traceback.extract_tb(error.__traceback__)] == before
    assert __file__ not in callers(error)
    step = error.__traceback__
    while step is not None:
        assert "data" not in step.tb_frame.f_locals
        step = step.tb_next


@pytest.mark.parametrize("kind", [MemoryError, ValueError])
def test_what_a_task_held_goes_when_memory_was_short(kind: type[BaseException]) -> None:
    class Large:
        pass

    dead: list[int] = []

    def fail() -> None:
        hoard = Large()
        weakref.finalize(hoard, dead.append, 1)
        raise kind

    error = caught(fail)
    release_memory(error)
    assert bool(dead) == (kind is MemoryError)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"
