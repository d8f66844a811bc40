"""Threads of nbpar begin, or it is said that they cannot."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from nbpar import daemon
from nbpar.daemon import start_thread
from tests.helpers import run_script


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
    before = threading.enumerate()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        start_thread(print, name="nbpar-example")
    assert threading.enumerate() == before


def test_a_thread_that_begins_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "BEGINS_WITHIN_S", 0.01)
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(threading, start_function(), lambda function, *_args, **_kwargs: held.append(function))
    seen: list[object] = []
    with pytest.raises(RuntimeError):
        start_thread(seen.append, 1, name="nbpar-late")
    monkeypatch.undo()
    late = threading.Thread(target=held[0])
    late.start()
    late.join()
    assert seen == []


def test_want_of_memory_is_told_as_want_of_threads_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_args: object, **_kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, start_function(), no_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        start_thread(print, name="nbpar-example")


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on address space")
def test_a_thread_for_whose_stack_there_is_room_but_not_for_more_is_an_error_at_once() -> None:
    script = """
import os, resource, sys, threading
from pathlib import Path
from nbpar.daemon import STACK_BYTES, start_thread
start_thread(print, "warm", name="warm").join()
threading.stack_size(STACK_BYTES)
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
for spare in range(int(sys.argv[1]), 0, -(64 << 10)):
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
    try:
        start_thread(int, name="one").join()
    except RuntimeError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(error)
        break
print([thread.name for thread in threading.enumerate()])
"""
    assert run_script(script, str(16 << 20)).splitlines() == [
        "warm",
        "can't start new thread: out of memory",
        "['MainThread']",
    ]
