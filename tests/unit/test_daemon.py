"""Threads of nbpar begin, or it is said that they cannot."""

from __future__ import annotations

import threading

import pytest

from nbpar import daemon
from nbpar.daemon import start_thread
from tests.helpers import until


def test_a_thread_runs_and_has_its_name() -> None:
    seen: list[object] = []
    thread = start_thread(lambda one: seen.append((one, threading.current_thread())), 1, name="nbpar-example")
    thread.join()
    assert seen == [(1, thread)]
    assert thread.daemon
    assert thread.name == "nbpar-example"


def start_function() -> str:
    names = ("_start_joinable_thread", "_start_new_thread")  # Python 3.13, and before
    return next(name for name in names if hasattr(threading, name))


def test_a_thread_that_dies_before_it_begins_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "BEGINS_WITHIN_S", 0.01)
    monkeypatch.setattr(threading, start_function(), lambda *_args, **_kwargs: None)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        start_thread(print, name="nbpar-example")
    vars(threading)["_limbo"].clear()  # where Python keeps those that are about to begin


def test_a_thread_that_begins_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "BEGINS_WITHIN_S", 0.01)
    late: list[threading.Timer] = []
    start = getattr(threading, start_function())

    def start_late(function: object, *args: object, **kwargs: object) -> None:
        monkeypatch.undo()
        late.append(threading.Timer(0.1, start, (function, *args), kwargs))
        late[0].start()
        monkeypatch.setattr(daemon, "BEGINS_WITHIN_S", 0.01)

    monkeypatch.setattr(threading, start_function(), start_late)
    seen: list[object] = []
    with pytest.raises(RuntimeError):
        start_thread(seen.append, 1, name="nbpar-late")
    late[0].join()
    until(lambda: all(thread.name != "nbpar-late" for thread in threading.enumerate()))  # it has come, and gone
    assert seen == []


def test_want_of_memory_is_told_as_want_of_threads_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_args: object, **_kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, start_function(), no_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        start_thread(print, name="nbpar-example")
