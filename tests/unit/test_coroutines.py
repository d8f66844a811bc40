"""Coroutines of a chunk in the test's own thread, how many travel together, and how the scheduler takes their ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.engine.chunking import AT_ONCE, ChunkSizer
from nbpar.engine.instructions import Chunk, EndJob, FailTask, Send
from nbpar.engine.plans import LATE_S, Held, JobPlan, Running
from nbpar.engine.scheduler import Scheduler
from nbpar.errors import TaskTimeoutError
from nbpar.wire.board import Slot
from nbpar.worker.context import Context, TaskInterrupt, current_task, set_context, track
from nbpar.worker.coroutines import run_one
from nbpar.worker.eventloop import close_loop
from nbpar.worker.execute import Report, Unusable, Work, is_async, run_chunk


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context(0, Slot.alone())
    set_context(made, whole_process=False)
    yield made
    set_context(None, whole_process=False)
    assert made.together is None
    close_loop(made)


def run(
    context: Context,
    function: Callable[[Any], Any],
    items: list[Any],
    *,
    at_once: int = 32,
    timeout_s: float | None = None,
    returnable: bool = False,
    look: Callable[[Report], None] = lambda report: None,
) -> list[Report]:
    reports: list[Report] = []

    def report(one: Report) -> None:
        reports.append(one)
        look(one)

    work = Work(function, at_once=at_once, timeout_s=timeout_s)
    run_chunk(work, items, chunk_id=9, start=100, context=context, quick=True, report=report, returnable=returnable)
    assert [one.final for one in reports] == [False] * (len(reports) - 1) + [True]
    assert context.slot.chunk_id is None
    return reports


def outcomes(reports: list[Report]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for report in reports:
        failures, values = dict(report.failures), iter(report.values)
        for index in range(report.first, report.first + report.n_ended):
            assert index not in found, "told twice"
            found[index] = failures[index] if index in failures else next(values)
        assert next(values, None) is None, "a value too many"
    return found


# --- what is one ------------------------------------------------------------------------------------------------------


async def task(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


class Asynchronous:
    async def __call__(self, x: Any) -> Any:
        return x

    async def method(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize("function", [task, partial(task), Asynchronous(), Asynchronous().method])
def test_coroutine_functions_are_known(function: object) -> None:
    assert is_async(function)


@pytest.mark.parametrize(
    "function", [len, lambda x: task(-x), partial(len), int, Asynchronous, object(), run, str.upper]
)
def test_other_functions_are_not(function: object) -> None:
    assert not is_async(function)


# --- a chunk ----------------------------------------------------------------------------------------------------------


def test_tasks_are_told_of_as_they_end_and_a_failure_at_once(context: Context) -> None:
    gate = asyncio.Event()

    async def wait(x: int) -> int:
        if x == 2:
            raise ValueError(x)
        if x == 0:
            await gate.wait()
        return 10 * x

    def look(report: Report) -> None:
        if report.failures:
            gate.set()

    reports = run(context, wait, [0, 1, 2, 3], look=look)
    found = outcomes(reports)
    assert reports[0].first == 101, "what has ended waits for what has not"
    assert (found[100], found[101], found[103], type(found[102])) == (0, 10, 30, ValueError)


def test_argument_that_cannot_be_rebuilt_fails_alone(context: Context) -> None:
    found = outcomes(run(context, task, [1, Unusable(LookupError("lost")), 3]))
    assert (found[100], type(found[101]), found[102]) == (1, LookupError, 3)
    assert type(outcomes(run(context, task, [Unusable(LookupError("lost"))]))[100]) is LookupError


def test_chunk_that_is_not_wanted_any_more_is_not_begun(context: Context) -> None:
    context.slot.drop(9)
    assert outcomes(run(context, task, [1, 2])) == {}


def test_no_more_are_begun_when_the_chunk_is_asked_back(context: Context) -> None:
    async def drop(x: int) -> int:
        if x == 3:
            context.slot.drop(9)
        return x

    assert outcomes(run(context, drop, list(range(10)), at_once=1)) == {100: 0, 101: 1, 102: 2, 103: 3}


def test_what_was_not_begun_in_time_is_given_back(context: Context) -> None:
    async def slow(x: int) -> int:
        await asyncio.sleep(0.06)
        return x

    assert sorted(outcomes(run(context, slow, list(range(10)), at_once=2, returnable=True))) == [100, 101]
    assert len(outcomes(run(context, slow, list(range(4)), at_once=2))) == 4


def test_board_names_a_task_in_a_step_and_all_that_may_be_meant_between_two(context: Context) -> None:
    slot, seen = context.slot, []

    async def look(x: int) -> None:
        seen.append((slot.index, slot.n_block))
        await asyncio.sleep(0)
        seen.append((slot.index, slot.n_block))
        asyncio.get_running_loop().call_soon(lambda: seen.append((slot.index, slot.n_block)))
        await asyncio.sleep(0.001)

    run(context, look, [0, 1, 2])
    steps = {(100 + x, 1) for x in range(3)}
    assert steps <= set(seen)
    assert {one for one in seen if one not in steps} == {(100, 3)}
    assert (slot.chunk_id, slot.index) == (None, None)


def test_board_says_that_one_task_alone_may_not_be_it_between_two_steps(context: Context) -> None:
    seen = []

    async def look(_: int) -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append((context.slot.index, context.slot.n_block)))
        await asyncio.sleep(0.001)

    run(context, look, [0])
    assert seen == [(100, 2)]


def test_interrupt_cancels_what_waits_and_breaks_off_what_does_not(context: Context) -> None:
    ended = []

    async def wait(x: int) -> None:
        try:
            if x == 2:
                context.slot.drop(9)  # then a signal comes
                assert context.together.interrupt()
                assert not context.together.interrupt(), "it is raised once"
                raise TaskInterrupt
            await asyncio.sleep(60)
        finally:
            ended.append(x)

    assert outcomes(run(context, wait, [0, 1, 2, 3])) == {}
    assert sorted(ended) == [0, 1, 2, 3]
    assert outcomes(run_again(context)) == {100: 1}


def run_again(context: Context) -> list[Report]:
    context.slot.words[8] = context.slot.words[9] = 0
    return run(context, task, [1])


def test_interrupt_of_another_thread_cancels_what_waits(context: Context) -> None:
    async def wait(_: int) -> None:
        threading.Timer(0.01, context.together.interrupt).start()
        await asyncio.sleep(60)

    assert outcomes(run(context, wait, [0, 1])) == {}


def test_interrupt_that_is_meant_for_a_task_around_goes_on_to_it(context: Context) -> None:
    async def wait(x: int) -> None:
        if x == 1:
            raise TaskInterrupt
        await asyncio.sleep(60)

    with pytest.raises(TaskInterrupt):
        run(context, wait, [0, 1])
    assert outcomes(run_again(context)) == {100: 1}


def test_error_of_a_report_is_the_callers(context: Context) -> None:
    def fail(_: Report) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(context, task, [1, 2], look=fail)


def test_tasks_that_go_on_after_their_time_are_given_up(context: Context) -> None:
    async def stubborn(x: int) -> int:
        while x:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        return x

    found = outcomes(run(context, stubborn, [0, 1], timeout_s=0.01))
    assert found[100] == 0
    assert isinstance(found[101], TaskTimeoutError)
    assert context.loop is None, "the event loop is left to it"
    assert outcomes(run_again(context)) == {100: 1}


def test_progress_within_tasks_is_not_told(context: Context) -> None:
    async def tracking(x: int) -> list[int]:
        found = []
        for step in track(range(3)):
            await asyncio.sleep(0)
            found.append(step)
        assert context.slot.tracked is None
        return found

    assert outcomes(run(context, tracking, [0, 1])) == {100: [0, 1, 2], 101: [0, 1, 2]}


def test_one_task_runs_outside_of_all_jobs_and_raises_its_own_error(context: Context) -> None:
    async def half(x: int) -> tuple[int, float]:
        await asyncio.sleep(0)
        return current_task().index, 1 / x

    async def cell(x: int) -> Any:
        return run_one(Work(half, at_once=1), x, 7, Context(0, Slot.alone()))

    assert run_one(Work(half, at_once=1), 2, 7, context) == (7, 0.5)
    assert asyncio.run(cell(2)) == (7, 0.5)
    with pytest.raises(ZeroDivisionError) as raised:
        run_one(Work(half, at_once=1), 0, 7, context)
    assert raised.traceback[-1].name == "half"


# --- how many travel together -----------------------------------------------------------------------------------------


def dealt_out(sizer: ChunkSizer, n_tasks: int) -> list[int]:
    sizes = []
    while n_tasks:
        sizes.append(sizer.next_size(n_tasks))
        n_tasks -= sizes[-1]
    return sizes


@pytest.mark.parametrize(
    ("n_tasks", "sizes"),
    [(1, [1]), (3, [2, 1]), (30, [15, 15]), (64, [32, 32]), (100, [32, 32, 18, 18]), (200, [32] * 5 + [20, 20])],
)
def test_full_chunks_while_there_are_enough_and_then_one_for_each_worker(n_tasks: int, sizes: list[int]) -> None:
    dealt = dealt_out(ChunkSizer(n_workers=2, together=True), n_tasks)
    assert sum(dealt) == n_tasks
    if n_tasks <= 100:
        assert dealt == sizes
    else:
        assert max(dealt) == AT_ONCE
        assert len(dealt) <= len(sizes) + 1


@given(n_tasks=st.integers(1, 3000), n_workers=st.integers(1, 9), waited_s=st.sampled_from([None, 1e-5, 0.3]))
def test_coroutines_end_in_as_few_rounds_as_may_be(n_tasks: int, n_workers: int, waited_s: float | None) -> None:
    sizer = ChunkSizer(n_workers=n_workers, together=True)
    if waited_s is not None:
        sizer.observe(n_tasks=32, work_s=waited_s, n_bytes=10_000_000)
    sizes = dealt_out(sizer, n_tasks)
    assert len(sizes) <= -(-n_tasks // (AT_ONCE * n_workers)) * n_workers
    assert all(one >= other for one, other in pairwise(sizes))


def test_chunks_of_short_coroutines_grow_and_those_of_a_user_stay() -> None:
    sizer = ChunkSizer(n_workers=2, together=True)
    sizer.observe(n_tasks=32, work_s=32e-5, n_bytes=1)
    assert sizer.next_size(10**6) > AT_ONCE
    assert ChunkSizer(n_workers=2, together=True, fixed=5).next_size(100) == 5


def test_share_grows_again_when_more_items_come() -> None:
    sizer = ChunkSizer(n_workers=2, together=True)
    assert sizer.next_size(2) == 1
    assert sizer.next_size(40) == 20
    assert sizer.next_size(1000) == 32


# --- what the scheduler makes of it -----------------------------------------------------------------------------------


def begun(n_tasks: int, *, timeout_s: float | None = None) -> tuple[Scheduler, Chunk]:
    scheduler = Scheduler(n_workers=1)
    scheduler.add_job(JobPlan(job_id=1, n_available=n_tasks, chunk_size=n_tasks, timeout_s=timeout_s, together=True))
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    (send,) = [one for one in scheduler.decide(0.0, {}) if isinstance(one, Send)]
    return scheduler, send.chunk


def rest_of(scheduler: Scheduler) -> list[Chunk]:
    """What is sent from now on, each chunk ended before the next."""
    found: list[Chunk] = []
    instructions = scheduler.decide(0.0, {})
    scheduler.worker_ready(0)  # another one, where the worker was lost
    instructions += scheduler.decide(0.0, {})
    while sent := [one.chunk for one in instructions if isinstance(one, Send)]:
        for chunk in sent:
            found.append(chunk)
            scheduler.tasks_ended(0, chunk.chunk_id, first=chunk.start, done_to=chunk.stop, final=True, work_s=0.1)
        instructions = scheduler.decide(0.0, {})
    return found


@given(
    order=st.permutations(range(12)), n_ended=st.integers(0, 11), n_begun=st.integers(0, 12), how=st.sampled_from("fdi")
)
def test_each_task_ends_once_whatever_the_order_and_whoever_dies(
    order: list[int], n_ended: int, n_begun: int, how: str
) -> None:
    scheduler, chunk = begun(12)
    ended = set(order[:n_ended])
    for index in order[:n_ended]:
        assert (
            scheduler.tasks_ended(0, chunk.chunk_id, first=index, done_to=index + 1, final=False, work_s=0.1) == chunk
        )
    missing = sorted(set(range(12)) - ended)
    first = missing[0]
    if how == "f":  # the worker gives back what it has not begun
        scheduler.tasks_ended(0, chunk.chunk_id, first=first, done_to=first, final=True, work_s=0.0)
        again = rest_of(scheduler)
        assert [i for one in again for i in range(one.start, one.stop)] == missing
        return
    stepping = missing[n_begun % len(missing)]
    n_block = 1 if how == "i" else max(2, n_begun - first)
    running = Running(chunk.chunk_id, stepping if how == "i" else first, 0.0, n_block)
    failed = scheduler.worker_lost(0, running, 0.0)
    suspects = [i for i in missing if running.index <= i < running.index + n_block]  # type: ignore[operator]
    again = rest_of(scheduler)
    done = [i for one in again for i in range(one.start, one.stop)]
    if len(suspects) == 1:
        assert failed == FailTask(1, suspects[0], "died", 1)
        done.append(suspects[0])
    else:
        assert failed is None
        assert all(len(one) == 1 for one in again if one.start in suspects)
    assert sorted(done) == missing


def test_job_ends_with_the_last_task_though_an_earlier_one_ended_later() -> None:
    scheduler, chunk = begun(3)
    for index in (2, 1):
        scheduler.tasks_ended(0, chunk.chunk_id, first=index, done_to=index + 1, final=False, work_s=0.1)
    assert EndJob(1, "done") not in scheduler.decide(0.0, {})
    scheduler.tasks_ended(0, chunk.chunk_id, first=0, done_to=1, final=True, work_s=0.1)
    assert EndJob(1, "done") in scheduler.decide(0.0, {})


def test_report_that_says_all_has_ended_counts_what_was_told_before() -> None:
    held = Held(Chunk(1, 1, 0, 5), 0)
    assert held.ended(3, 4) == 1
    assert held.ended(0, 5) == 4
    assert (held.done_to, held.n_left, held.apart) == (5, 0, set())


def test_worker_sees_to_the_time_of_coroutines_unless_one_holds_up_all() -> None:
    plan = JobPlan(job_id=1, n_available=3, timeout_s=2.0, together=True)
    assert plan.limit_s(Running(1, 0, 0.0, 1)) == 2.0
    assert plan.limit_s(Running(1, 0, 0.0, 3)) == 4.0 + LATE_S
    assert JobPlan(job_id=1, n_available=3, timeout_s=2.0).limit_s(Running(1, 0, 0.0, 3)) == 2.0
    assert JobPlan(job_id=1, n_available=3, together=True).limit_s(Running(1, 0, 0.0, 1)) == float("inf")
