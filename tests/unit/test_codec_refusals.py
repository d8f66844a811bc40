"""What cannot travel: that it is refused, with the path to the culprit and words that help."""

from __future__ import annotations

import contextvars
import pickle
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nbpar.wire.codec import (
    OUT_OF_BAND_BYTES,
    CannotPickle,
    Codec,
)
from tests.unit.cells import Holder, cell, endless, refusal

LARGE = OUT_OF_BAND_BYTES


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class Hostile:
    """Everything about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)

    def __repr__(self) -> str:
        raise ValueError("repr")


@pytest.fixture
def endpoint() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def test_the_path_leads_to_the_culprit(endpoint: socket.socket) -> None:
    error = refusal([0, {"models": [1, 2, Holder(endpoint)]}])
    assert error.path == "args[1]['models'][2].lock"
    assert (error.type_name, error.index) == ("socket", 1)
    assert "inside the function" in error.problem
    assert isinstance(error.__cause__, TypeError)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.path, copied.index) == (str(error), error.path, 1)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("conn = bad\ndef f(): return conn", "global 'conn' used by 'f'"),
        ("conn = bad\ndef g(): return conn\ndef f(): return g()", "global 'conn' used by 'g'"),
        (
            "def make(handle):\n    def f(): return handle\n    return f\nf = make(bad)",
            "closure variable 'handle' of function 'f'",
        ),
        ("def f(x, y=bad): pass", "default of 'y' in function 'f'"),
        ("class C:\n    attr = bad\ndef f(): return C", "attribute 'attr' of class 'C'"),
        ("class C:\n    pass\nc = C()\nc.x = [bad]\ndef f(): return c", "global 'c' used by 'f'.x[0]"),
        ("def f(): pass\nf.handle = bad", "attribute 'handle' of function 'f'"),
    ],
)
def test_the_path_into_a_function(source: str, path: str) -> None:
    function = cell(source, bad=endless()).f
    with pytest.raises(CannotPickle) as caught:
        Codec().encode_function(function)
    assert caught.value.path == path
    assert caught.value.type_name == "generator"
    error = refusal([function])
    assert error.path == f"{path}, at args[0]"
    assert error.index == 0


def test_a_class_that_cannot_travel_is_found_from_its_instance() -> None:
    ns = cell("class C:\n    handle = bad", bad=endless())
    assert refusal([ns.C()]).path == "attribute 'handle' of class 'C', at args[0] (its class)"


async def sleepless() -> None:
    pass


def make_frame() -> types.FrameType:
    return sys._getframe()


def make_traceback() -> Any:
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (endless, "make a list of it"),
        (make_frame, "call stack"),
        (make_traceback, "call stack"),
        (threading.local, "threads of this process"),
        (lambda: contextvars.ContextVar("v"), "variable.get()"),
        (lambda: np.frompyfunc(abs, 1, 1), "make it inside the function"),
    ],
    ids=["generator", "frame", "traceback", "local", "contextvar", "ufunc"],
)
def test_each_kind_has_its_own_message(make: Callable[[], Any], words: str) -> None:
    thing = make()
    assert words in str(refusal([thing]))
    assert refusal([thing]).path == "args[0]"


def test_connections_coroutines_and_temporary_files() -> None:
    connection = sqlite3.connect(":memory:")
    assert "belongs to the process" in str(refusal([connection]))
    connection.close()
    coroutine = sleepless()
    assert "await it" in str(refusal([coroutine]))
    coroutine.close()
    with tempfile.NamedTemporaryFile() as file:
        assert ".name" in str(refusal([file]))


def test_an_object_that_names_itself_in_the_notebook_is_refused_at_once() -> None:
    sentinel = cell(
        """
        class Sentinel:
            def __reduce__(self): return "MISSING"
        MISSING = Sentinel()
        """
    ).MISSING
    assert "known in the notebook only" in str(refusal([sentinel]))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, RecursionError, pickle.PicklingError])
def test_whatever_user_code_raises_is_a_refusal(kind: type[BaseException]) -> None:
    error = kind("no")
    refused = refusal([1, Raises(error)])
    assert refused.path == "args[1]"
    assert refused.index == 1
    assert refused.__cause__ is error or isinstance(error, RecursionError)


def test_a_real_interrupt_is_not_swallowed() -> None:
    class Slow:
        def __reduce__(self) -> Any:
            signal.raise_signal(signal.SIGINT)
            return Slow, ()

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Codec().encode([Slow()])

        class Cancelled(BaseException):
            pass

        def handler(_signum: int, _frame: object) -> None:
            raise Cancelled

        signal.signal(signal.SIGINT, handler)
        with pytest.raises(Cancelled):
            Codec().encode([Slow()])
    finally:
        signal.signal(signal.SIGINT, previous)


def test_hostile_and_endless_objects_are_survived() -> None:
    assert refusal([1, Hostile()]).index == 1
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in str(refusal([1, deep]))
    while deep:  # its own deallocation would recurse
        deep = deep[0]
    own: list[Any] = []
    own.append(own)
    own.append({"own": own, "bad": endless()})
    assert refusal(own).path == "args[1]['bad']"
    whole: dict[str, Any] = {}
    whole["innocent"] = Holder(whole)  # fails alone too, but only by leading back
    whole["guilty"] = endless()
    assert refusal([whole]).path == "args[0]['guilty']"
    a, b = Holder(None), Holder(None)
    a.lock, b.lock = b, [a, threading.local()]
    assert refusal([a]).path == "args[0].lock.lock[1]"


def test_the_search_ends_soon(endpoint: socket.socket) -> None:
    big = [list(range(1000)) for _ in range(300)]
    big[177] = [1, endpoint]  # type: ignore[list-item]
    assert refusal([0, {"rows": big}]).path == "args[1]['rows'][177][1]"
    wide: Any = endpoint
    for _ in range(12):
        wide = [list(range(100_000)), wide]
    start = time.perf_counter()
    refusal([wide])
    assert time.perf_counter() - start < 5  # 0.2 s of search; the rest is pickling, twice, on a busy machine


def test_results_are_called_results(endpoint: socket.socket) -> None:
    assert refusal([endpoint], Codec(in_worker=True)).path == "result[0]"
