"""Runs the tasks of a chunk at once where they are coroutines; what :mod:`nbpar.worker.execute` does for all others.

Called by :func:`nbpar.worker.execute.run_chunk`, for processes, threads and serial alike, and loaded with asyncio by
the first job of that kind. A worker has one event loop as long as it lives: what `per_worker` built is used again.

::

    caller's thread  begin ── loop.run_forever() ── report what has ended ── run_forever() ── ... ── clear up ── report
                                 │    ▲ loop.stop(): a task failed, the last has ended, or 50 ms have passed
    coroutine of a task  _drive: enter (the board: this task) ── a step of the user's ── leave (the board: one of many)

The board names a task while a step of it runs, so that a death is blamed on the right one, and a signal breaks off what
never waits. Between two steps it names all that are under way. Nothing is reported from within the event loop: what is
raised there would be swallowed. Where an event loop runs already (a notebook's own, for serial) ours has a thread.

Bounds: `STOP_S` for tasks that go on although they were cancelled, for their job or their time, and for what they have
left behind; then the loop is abandoned and the next chunk has a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import types
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, perf_counter_ns
from typing import Any

from nbpar.errors import TaskTimeoutError
from nbpar.wire.board import BLOCK, SINCE_NS, TASK
from nbpar.wire.exceptions import release_memory
from nbpar.worker.context import Context, TaskInterrupt, of_coroutine, seed_task
from nbpar.worker.eventloop import Aside, close, close_loop, loop_runs_here
from nbpar.worker.execute import REPORT_S, Report, Unusable, Work

__all__ = ["Together", "run_one"]

STOP_S = 1.0
"""What was cancelled has so long to end. A worker process is ended by its kernel after half of that."""


class _Task:
    """One coroutine under way."""

    __slots__ = ("begin_s", "error", "index", "is_late", "is_over", "states", "task", "timer", "took_s", "value")

    def __init__(self, index: int) -> None:
        self.index = index
        self.begin_s = self.took_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.is_over = self.is_late = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.states: tuple[Any, Any] | None = None  # of the global random generators, while another task runs


class Together:
    """The tasks of one chunk, run at once; the parameters are those of :func:`nbpar.worker.execute.run_chunk`."""

    def __init__(
        self,
        work: Work,
        items: Sequence[Any],
        *,
        chunk_id: int,
        start: int,
        context: Context,
        report: Callable[[Report], None],
        returnable: bool = False,
        unpack_s: float = 0.0,
    ) -> None:
        self._work = work
        self._items = items
        self._chunk_id = chunk_id
        self._start = self._first = self._next = start  # tasks before `_first` are reported, before `_next` begun
        self._stop_index = start + len(items)
        self._context = context
        self._words = context.slot.words
        self._report = report
        self._returnable = returnable
        self._unpack_s = unpack_s
        self._running: dict[int, _Task] = {}
        self._ended: dict[int, _Task] = {}  # not reported yet
        self._told: set[int] = set()  # reported, behind `_first`
        self._timer: asyncio.TimerHandle | None = None  # of the next report
        self._is_stepping = self._was_asked = False
        self._stop_by_s: float | None = None  # since it is being stopped
        self._broken: BaseException | None = None  # what the event loop itself was ended by
        self._foreign: BaseException | None = None  # an interrupt that is meant for a task around this map
        self._generators_of: _Task | None = None
        self._begin_s = self._told_s = perf_counter()
        self._is_abandoned = False
        if context.loop is None:
            context.loop = asyncio.new_event_loop()
        self._loop: asyncio.AbstractEventLoop = context.loop
        if self._loop.is_running():  # for the task whose map this is
            self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Run them all, and report."""
        context, slot = self._context, self._context.slot
        outer, context.together = context.together, self
        slot.begin_chunk(self._chunk_id)
        aside = Aside(context) if loop_runs_here() else None
        spin: Callable[[], None] = self._loop.run_forever if aside is None else lambda: aside.run(self._loop)
        # For `asyncio.to_thread`: with one of the loop's own, its threads would be there as long as the worker.
        executor = ThreadPoolExecutor(thread_name_prefix="nbpar-to-thread")
        self._loop.set_default_executor(executor)
        try:
            self._begin_more()
            self._spin(spin)
            self._clear_up(spin)
            self._flush(final=True)
        except BaseException:
            self._abandon()
            raise
        finally:
            context.together = outer
            executor.shutdown(wait=False, cancel_futures=True)
            if aside is not None:
                aside.end()
            if context.loop is not self._loop and not self._is_abandoned:
                close(self._loop)
        slot.end_chunk()  # not when a report fails: then this chunk is what the worker dies of
        if self._foreign is not None:
            raise self._foreign

    def interrupt(self) -> bool:
        """Have the tasks cancelled; any thread, also a signal handler. True when one is amid a step, the first time."""
        if self._was_asked:
            return False
        self._was_asked = True
        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            self._loop.call_soon_threadsafe(self._stop)
        return self._is_stepping

    # --- around the event loop ----------------------------------------------------------------------------------------

    def _spin(self, spin: Callable[[], None]) -> None:
        while self._running:
            if self._stop_by_s is not None and perf_counter() > self._stop_by_s:
                self._abandon()
                return
            self._leave()
            try:
                spin()
            except SystemExit:  # of an asyncio task that a task has begun; who waits for it hears of it
                pass
            except (KeyboardInterrupt, TaskInterrupt) as interrupt:
                if self._foreign is not None:  # once more, before all have ended
                    self._abandon()
                    return
                if isinstance(interrupt, KeyboardInterrupt) or not self._context.slot.drops(self._chunk_id):
                    self._foreign = interrupt
                self.interrupt()
                continue
            except BaseException as error:  # noqa: BLE001  # no memory, or raised by a signal handler of the user's
                self._broken = self._broken or error
                self.interrupt()
                continue
            if self._running:
                self._flush(final=False)

    def _flush(self, *, final: bool) -> None:
        """Report what has ended: a report for each run of neighbours that took as long, the time shared out."""
        self._words[TASK] = 0
        if not self._ended and not final:
            return
        now_s, ended, self._ended = perf_counter(), self._ended, {}
        self._timer = None
        share_s = (now_s - self._told_s) / max(len(ended), 1)
        runs: list[Report] = []
        for index in sorted(ended):
            if not runs or not _belongs(ended[index], runs[-1]):
                begin_s = runs[-1].end_s if runs else self._told_s
                runs.append(Report(index, 0, begin_s, begin_s, unpack_s=self._unpack_s))
                self._unpack_s = 0.0
            _add(runs[-1], ended[index], share_s)
        self._told.update(ended)
        while self._first in self._told:
            self._told.remove(self._first)
            self._first += 1
        if final and not runs:
            begin_s = now_s if self._stop_by_s is None else self._told_s  # then what was done since is lost
            runs.append(Report(self._first, 0, begin_s, now_s, unpack_s=self._unpack_s))
        self._told_s = now_s
        del ended
        if final:
            runs[-1].final = True
        for one in runs:
            self._report(one)

    def _clear_up(self, spin: Callable[[], None]) -> None:
        """Cancel what tasks have begun and not waited for, before the job ends with the last results."""
        if self._is_abandoned or not (left := asyncio.all_tasks(self._loop)):
            return
        for task in left:
            task.cancel()
        waiting = self._loop.create_task(asyncio.wait(left, timeout=STOP_S))
        waiting.add_done_callback(lambda _: self._loop.stop())
        while not waiting.done():
            try:
                spin()
            except SystemExit:
                continue
            except (KeyboardInterrupt, TaskInterrupt) as interrupt:
                self._foreign = self._foreign or interrupt
                break
        if stubborn := [task for task in left if not task.done()]:
            names = ", ".join(sorted({_name_of(task) for task in stubborn}))
            sys.stderr.write(f"left behind by a task, and goes on although it was cancelled: {names}\n")
            self._abandon()

    def _abandon(self) -> None:
        """Leave the event loop to what does not end."""
        for one in self._running.values():
            if self._broken is not None and not one.is_over:
                self._ended[one.index] = one
                one.error = self._broken
            one.is_over = True
        self._running.clear()
        if self._context.loop is self._loop:
            self._context.loop = None
        self._is_abandoned = True
        close(self._loop)

    # --- within it ----------------------------------------------------------------------------------------------------

    def _begin_more(self) -> None:
        """Begin the next tasks, as long as there may be more."""
        while self._next < self._stop_index and len(self._running) < self._work.at_once and self._may_begin():
            one = _Task(self._next)
            item = self._items[self._next - self._start]
            self._next += 1
            if isinstance(item, Unusable):
                one.error = item.error
                self._ended[one.index] = one
                continue
            self._running[one.index] = one
            one.task = self._loop.create_task(self._live(one, item))
            one.task.add_done_callback(lambda _, one=one: self._over(one))  # type: ignore[misc]  # mypy #15459

    def _may_begin(self) -> bool:
        if self._was_asked or self._context.slot.drops(self._chunk_id):
            return False
        return not self._returnable or self._next == self._start or perf_counter() - self._begin_s < REPORT_S

    async def _live(self, one: _Task, item: Any) -> None:
        of_coroutine.set((self._context, one.index))
        one.begin_s = perf_counter()
        if self._work.timeout_s is not None:
            one.timer = self._loop.call_later(self._work.timeout_s, self._expire, one)
        await self._drive(one, _called(self._work, item))

    @types.coroutine
    def _drive(self, one: _Task, coroutine: Any) -> Generator[Any, None, None]:
        """Run a task step by step, each between :meth:`_enter` and :meth:`_leave`."""
        thrown: BaseException | None = None
        while True:
            try:
                self._enter(one)
                waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
                self._is_stepping = False
            except StopIteration as end:
                self._is_stepping = False
                one.value, one.is_over = end.value, True
                return
            except TaskInterrupt as interrupt:
                self._is_stepping = False
                if not self._context.slot.drops(self._chunk_id):
                    self._foreign = self._foreign or interrupt
                self.interrupt()
                if coroutine.cr_frame is None:
                    return
                thrown = asyncio.CancelledError()  # it came just before the step, or just after it
                continue
            except BaseException as error:  # noqa: BLE001  # whatever a task raises is that task's failure
                self._is_stepping = False
                one.error, one.is_over = error, True
                return
            finally:
                self._is_stepping = False
                self._leave()
            try:
                thrown = None
                yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001  # it was cancelled
                thrown = error

    def _enter(self, one: _Task) -> None:
        """A step of a task begins."""
        if self._work.seeded and self._generators_of is not one:
            self._swap_generators(one)
        words = self._words
        words[SINCE_NS] = perf_counter_ns()
        words[TASK] = one.index + 1
        words[BLOCK] = 1
        self._is_stepping = True

    def _leave(self) -> None:
        """None runs: if the worker dies now, of one that has not been reported."""
        words = self._words
        words[SINCE_NS] = perf_counter_ns()
        words[BLOCK] = max(2, self._next - self._first)  # before the next: no single task is to be blamed
        words[TASK] = self._first + 1

    def _swap_generators(self, one: _Task) -> None:
        """Give a task the global random generators as it left them."""
        numpy = sys.modules.get("numpy")
        if self._generators_of is not None:
            self._generators_of.states = random.getstate(), None if numpy is None else numpy.random.get_state()
        if one.states is None:
            seed_task(self._work.seed, one.index)
        else:
            random.setstate(one.states[0])
            if numpy is not None and one.states[1] is not None:
                numpy.random.set_state(one.states[1])
        self._generators_of = one

    def _over(self, one: _Task) -> None:
        """The asyncio task of a task has ended."""
        assert one.task is not None
        error = None if one.task.cancelled() else one.task.exception()  # asked for, or asyncio would complain
        if self._running.pop(one.index, None) is None:  # it was given up before
            return
        if one.timer is not None:
            one.timer.cancel()
        one.took_s = perf_counter() - one.begin_s if one.begin_s else 0.0
        if one.is_late:
            one.error = _too_late(self._work)
        elif self._broken is not None:
            one.error = self._broken
        elif not one.is_over:  # it was not begun, or broken off between two steps
            one.error = error or asyncio.CancelledError()
        if one.error is None or not self._was_asked or self._broken is not None:  # else it was interrupted
            self._ended[one.index] = one
        self._told_of(one)

    def _told_of(self, one: _Task) -> None:
        self._begin_more()
        if not self._running or one.error is not None:
            self._loop.stop()
        elif self._timer is None:
            self._timer = self._loop.call_later(REPORT_S, self._loop.stop)

    def _expire(self, one: _Task) -> None:
        """A task's time is over."""
        assert one.task is not None
        one.is_late = True
        one.task.cancel()
        one.timer = self._loop.call_later(STOP_S, self._give_up, one)

    def _give_up(self, one: _Task) -> None:
        """A task goes on although its time is over."""
        if self._running.pop(one.index, None) is not None:
            one.error, one.took_s = _too_late(self._work), perf_counter() - one.begin_s
            self._ended[one.index] = one
            self._told_of(one)

    def _stop(self) -> None:
        """Cancel all that run."""
        self._was_asked = True
        self._stop_by_s = perf_counter() + STOP_S
        self._loop.call_later(STOP_S + 0.01, self._loop.stop)
        for one in self._running.values():
            assert one.task is not None
            one.task.cancel()
        self._loop.stop()


def run_one(work: Work, item: Any, index: int, context: Context) -> Any:
    """The value of one task, or the exception that it raises, outside of all jobs."""
    reports: list[Report] = []
    try:
        Together(work, [item], chunk_id=1, start=index, context=context, report=reports.append).run()
    finally:
        close_loop(context)
    for report in reports:
        for _, error in report.failures:
            raise error
        if report.values:
            return report.values[0]
    raise asyncio.CancelledError  # it ignored that it was interrupted


async def _called(work: Work, item: Any) -> Any:
    return await (work.function(*item) if work.star else work.function(item))


def _belongs(one: _Task, report: Report) -> bool:
    """Whether a task may be told of with those before it: as if all had taken as long as the longest."""
    if one.index != report.first + report.n_ended:
        return False
    return max(one.took_s, report.longest_s) < REPORT_S or 0.75 < one.took_s / max(report.longest_s, 1e-9) < 1.33


def _add(report: Report, one: _Task, share_s: float) -> None:
    if one.error is not None:
        release_memory(one.error)
        report.failures.append((one.index, one.error))
    else:
        report.values.append(one.value)
    report.n_ended += 1
    report.end_s += share_s
    if one.took_s > report.longest_s:
        report.longest_index, report.longest_s = one.index, one.took_s


def _too_late(work: Work) -> TaskTimeoutError:
    return TaskTimeoutError(f"ran longer than timeout={work.timeout_s:g} s and was cancelled")


def _name_of(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", None) or task.get_name())
