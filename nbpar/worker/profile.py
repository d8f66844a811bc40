"""Looks where the time of a job's tasks goes, in the thread that runs them: pyinstrument, and a watch beside it.

Owns :class:`Sampler`, one for each job and worker that is asked for it, running only while chunks of the job run. Used
by :mod:`nbpar.worker.main`, :mod:`nbpar.backends.threads` and :mod:`nbpar.backends.serial`; what it tells is put
together by :mod:`nbpar.engine.profile`. pyinstrument is imported with the first sampler.

pyinstrument looks at calls and returns, so it knows each function, those in C too, and its time. But it charges what
calls nothing, a loop, say, to the line of the next call or return. So a thread looks from outside as well, at any
moment: which lines of a function took its time is taken from these looks where there are any (over the whole job, by
:mod:`nbpar.engine.profile`). The thread also tells what there is about once a second, whatever the task does: a worker
that dies takes little with it.

What is told is JSON, compressed: ``[note, frames, stacks, pending]``. A frame is ``[function, file, first line]``, a
stack ``[microseconds, microseconds of which the lines are not sure, samples, looks from outside, frame, line, frame,
line, ...]`` from the task's function inwards. What is pending (a stretch under way) is told once more with the next
message.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from types import FrameType
from typing import Any

from nbpar.daemon import start_thread
from nbpar.wire import board, exceptions
from nbpar.worker import context, execute

__all__ = ["Sampler"]

INTERVAL_S = 0.001
"""Between two looks of pyinstrument."""

WATCH_S = 0.004
"""Between two looks from outside; each may take the GIL from the task for some microseconds."""

LONG_S = 0.003
"""A C function that held the GIL for so long: the look that waited for it says nothing of what came after."""

TELL_S = 1.0
TELL_SHARE = 0.05
"""What has been seen is told when it is so much of all that was seen, or a second: that is all that can be lost."""

REST_S = 0.5
"""The watching thread ends when no chunk has run for so long."""

MAX_RECORDS, MAX_LOOKS = 5_000, 200
MAX_STACKS, MAX_DEPTH = 500, 80
"""Of one message, which keeps it below some 100 KB. Stacks are cut at their inner ends, their time stays."""

N_LOOKING = 6
_LOOKERS = (f"pyinstrument{os.sep}stack_sampler.py", f"nbpar{os.sep}worker{os.sep}main.py", __file__)
"""What may run on top of a task: pyinstrument as it looks, the handler of an interrupt. So many frames at most."""

_RUNNERS = ("_run_one\0", "_run_quickly\0")
_BUILT_IN = "<built-in>"
_OWN_FILES = frozenset(module.__file__ for module in (execute, context, board, exceptions))
_OWN_CALLS = frozenset({"isinstance", "len", "list.append", "list.extend", "min", "perf_counter"})
"""What the loop over tasks calls between them."""

Stack = tuple[str, ...]
"""What pyinstrument says of each frame, from the outermost inwards."""

_Found = dict[Stack, list[float]]
"""Seconds, seconds of which the lines are not sure, samples, looks from outside."""

_samplers: weakref.WeakSet[Sampler] = weakref.WeakSet()


def _after_fork() -> None:
    """In a process that a task has forked: nobody there asks for a profile."""
    for sampler in list(_samplers):
        sampler.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sampler:
    """Samples one thread at a time, between `start` and `stop`, which that thread calls.

    Parameters
    ----------
    tell : callable
        Takes what was seen, packed; called by the sampled thread and by the watching one, never by both at once.
    only_watch : bool
        Look from outside alone. For threads in Python 3.11: one that is profiled there waits at each call as long as an
        exception is pending in any other (as in one whose task has timed out in C code).
    """

    def __init__(self, tell: Callable[[bytes], None], *, only_watch: bool = False) -> None:
        self._tell = tell
        self._only_watch = only_watch
        self._carried_s = 0.0  # time in chunks since the last look, where only these count
        self._pyinstrument: Any = None
        self._note = ""
        self._is_running = False
        self._is_gone = False
        self._n_outer = 0  # frames around `run_chunk`
        self._thread_id = 0
        self._last_s = 0.0  # when pyinstrument looked last
        # (when, seconds since the one before, stack): appended by the sampled thread, taken by whoever holds the lock.
        self._records: list[tuple[float, float, list[str]]] = []
        self._lock = threading.Lock()  # guards all that follows
        self._looks: list[tuple[float, Stack]] = []
        self._look_every_s = WATCH_S
        self._found: _Found = {}
        self._unsaid_s = self._said_s = 0.0
        self._told_s = time.perf_counter()
        self._had_pending = False
        self._watcher: threading.Thread | None = None
        self._woken = threading.Event()
        _samplers.add(self)

    # --- the sampled thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Sample this thread from now on; the caller is about to call `run_chunk`."""
        if self._note or self._is_gone or self._is_running:
            return
        if sys.getprofile() is not None and not self._only_watch:
            self._give_up("another profiler is active in it")
            return
        frame: FrameType | None = sys._getframe(1)
        n_outer = 0
        while frame is not None:
            n_outer += 1
            frame = frame.f_back
        self._n_outer = n_outer + 1  # and the thread itself, which pyinstrument has as the outermost
        self._thread_id = threading.get_ident()
        try:
            if self._pyinstrument is None:
                self._pyinstrument = _load()
            self._last_s = time.perf_counter()
            self._is_running = True  # first: an interrupt may come in between
            if not self._only_watch:
                self._subscribe()
        except Exception as error:  # noqa: BLE001  # not installed there, or not as it was: the tasks run all the same
            self._give_up(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            self._woken.set()
            if self._watcher is None:
                self._begin_watch()

    def stop(self) -> None:
        """Sample no more for now, and tell what was seen when it is much."""
        if not self._is_running:
            return
        if not self._only_watch:
            self._unsubscribe()
        self._is_running = False
        with self._lock:
            self._carried_s += time.perf_counter() - self._last_s
            self._woken.clear()
            self._take_over()
            self._looks.clear()
            if self._had_pending or self._unsaid_s > min(TELL_S, TELL_SHARE * self._said_s):
                self._say({})

    def _subscribe(self) -> None:
        sampler = self._pyinstrument.get_stack_sampler()  # this thread's
        sampler.subscribe(self._saw, desired_interval=INTERVAL_S, use_async_context=False)

    def _unsubscribe(self) -> None:
        sampler = self._pyinstrument.get_stack_sampler()
        try:
            sampler.unsubscribe(self._saw)
        except sampler.SubscriberNotFound:  # an interrupt has broken off a start or a stop: have both done in whole
            self._subscribe()
            sampler.unsubscribe(self._saw)

    def _give_up(self, why: str) -> None:
        self._note, self._is_running = why, False
        with self._lock:
            self._tell(_packed(why, {}, {}))

    def _saw(self, stack: list[str], seconds: float, _async_state: object) -> None:
        """Note that pyinstrument has looked; in the sampled thread."""
        self._last_s = now_s = time.perf_counter()
        if len(self._records) < MAX_RECORDS:
            self._records.append((now_s, seconds, stack))

    # --- the watching thread ------------------------------------------------------------------------------------------

    def _begin_watch(self) -> None:
        try:
            self._watcher = start_thread(self._watch, name="nbpar-profile")
        except RuntimeError:  # no more threads: pyinstrument alone is better than nothing
            return

    def _watch(self) -> None:
        while not self._is_gone:
            is_busy = self._woken.wait(REST_S)
            if is_busy:
                time.sleep(self._look_every_s)
            with self._lock:
                if not is_busy and not self._woken.is_set():
                    self._watcher = None
                    return
                if self._is_running:
                    try:
                        self._look(time.perf_counter())
                    except Exception:  # noqa: BLE001  # the kernel is gone; the worker's own thread will notice
                        self._is_gone = True

    def _look(self, now_s: float) -> None:
        if self._only_watch:
            if (stack := self._stack_now()) is not None:
                self._saw(stack, self._carried_s + now_s - self._last_s, None)
                self._carried_s = 0.0
        elif (stack := self._stack_now()) is not None:
            self._looks.append((now_s, self._own(stack)))
            if self._looks[0][0] <= self._last_s:
                self._look_every_s = WATCH_S
                if len(self._looks) >= MAX_LOOKS:
                    self._take_over()
            elif len(self._looks) >= MAX_LOOKS:  # all in one stretch
                del self._looks[::2]
                self._look_every_s = min(2 * self._look_every_s, TELL_S / 4)
        if now_s - self._told_s >= TELL_S:
            self._take_over()
            pending: _Found = {}
            _share_out(pending, now_s - self._last_s, [stack for _, stack in self._looks])
            if self._found or pending:
                self._say(pending)

    def _stack_now(self) -> list[str] | None:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return None
        stack: list[str] = self._pyinstrument.build_call_stack(frame, "line", None)
        return stack

    # --- with the lock ------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Add up the records so far; the time of a record goes to the lines that were seen in it from outside."""
        records, self._records = self._records, []
        at, looks = 0, self._looks
        blocked_s = 0.0  # until then no look could be had
        for now_s, seconds, frames in records:
            stack = self._own(frames)
            inside: list[Stack] = []
            while at < len(looks) and looks[at][0] <= now_s:
                if looks[at][0] > max(now_s - seconds, blocked_s):
                    inside.append(looks[at][1])
                at += 1
            if self._only_watch or (stack and _BUILT_IN in stack[-1]):
                # It was in that C function: its call was a moment to look, too.
                self._unsaid_s += _share_out(self._found, seconds, [stack], n_looks=0)
                if seconds > LONG_S:
                    blocked_s = now_s + INTERVAL_S
            elif inside:
                self._unsaid_s += _share_out(self._found, seconds, inside)
            elif stack:
                entry = self._found.setdefault(stack, [0.0, 0.0, 0, 0])
                entry[1] += seconds
                entry[2] += 1
                self._unsaid_s += seconds
        del looks[:at]

    def _own(self, frames: list[str]) -> Stack:
        """The part of a stack that is the task's, without nbpar's own frames around it; empty when there is none."""
        inner = frames[self._n_outer :]
        if len(inner) < 3 or not inner[1].startswith(_RUNNERS) or _file_of(inner[1]) != execute.__file__:
            return ()
        function, file, _ = inner[2].split("\0", 2)
        if file in _OWN_FILES or (file == _BUILT_IN and function in _OWN_CALLS):
            return ()
        end = len(inner)
        for at in range(max(3, end - N_LOOKING), end):
            if _file_of(inner[at]).endswith(_LOOKERS):
                end = at
                break
        return tuple(inner[2 : min(end, 2 + MAX_DEPTH)])

    def _say(self, pending: _Found) -> None:
        data = _packed("", _bounded(self._found), _bounded(pending))
        self._found = {}
        self._said_s += self._unsaid_s
        self._unsaid_s = 0.0
        self._told_s = time.perf_counter()
        self._had_pending = bool(pending)
        self._tell(data)

    def abandon(self) -> None:
        """Sample no more in this process; others' threads, and what they held, are not there after a fork."""
        if self._is_running and threading.get_ident() == self._thread_id:
            sys.setprofile(None)
        self._is_gone = True
        self._is_running = False


def _load() -> Any:
    """The sampler of pyinstrument. Where clocks are slow it would advise on stderr what only its own users can do."""
    name = "PYINSTRUMENT_IGNORE_OVERHEAD_WARNING"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        from pyinstrument import stack_sampler
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
    return stack_sampler


def _file_of(frame: str) -> str:
    return frame.split("\0", 2)[1]


def _share_out(into: _Found, seconds: float, stacks: list[Stack], n_looks: int = 1) -> float:
    """Add a stretch of time, in equal parts, to the stacks seen in it; how much of it was the task's."""
    own_s = 0.0
    for stack in stacks:
        if stack:
            entry = into.setdefault(stack, [0.0, 0.0, 0, 0])
            entry[0] += seconds / len(stacks)
            entry[2] += 1
            entry[3] += n_looks
            own_s += seconds / len(stacks)
    return own_s


def _bounded(found: _Found) -> _Found:
    """At most `MAX_STACKS`: those that took least are cut at their inner ends, so that they become the same."""
    for depth in (20, 5, 1, 0):
        if len(found) <= MAX_STACKS:
            break
        ordered = sorted(found.items(), key=lambda item: -item[1][0] - item[1][1])
        found = dict(ordered[: MAX_STACKS // 2])
        for stack, spent in ordered[MAX_STACKS // 2 :]:
            # At last the function alone, without its line: tasks have but one.
            shorter = stack[:depth] or (stack[0].partition("\1")[0],)
            found[shorter] = [a + b for a, b in zip(found.get(shorter, (0.0, 0.0, 0, 0)), spent, strict=True)]
    return found if len(found) <= MAX_STACKS else dict(list(found.items())[:MAX_STACKS])


def _packed(note: str, found: _Found, pending: _Found) -> bytes:
    """See this module's docstring."""
    numbers: dict[str, int] = {}
    frames: list[tuple[str, str, int]] = []

    def rows(stacks: _Found) -> list[list[int]]:
        made = []
        for stack, (sure_s, unsure_s, n_samples, n_looks) in stacks.items():
            row = [round(sure_s * 1e6), round(unsure_s * 1e6), int(n_samples), int(n_looks)]
            for frame in stack:
                identifier, *attributes = frame.split("\1")
                owner = next((one[1:] + "." for one in attributes if one.startswith("c")), "")
                line = next((int(one[1:]) for one in attributes if one.startswith("l")), 0)
                function, file, first = identifier.split("\0")
                if (number := numbers.setdefault(owner + identifier, len(frames))) == len(frames):
                    frames.append((owner + function, file, int(first)))
                row += number, line
            made.append(row)
        return made

    said = [note, frames, rows(found), rows(pending)]
    return zlib.compress(json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode(), 1)
