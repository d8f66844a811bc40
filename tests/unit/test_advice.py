"""Advice on snapshots made by hand: what each rule says, and what keeps it silent. Real jobs: tests/backends."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar import engine
from nbpar.engine import snapshot as pictures
from nbpar.engine.advice import MAX_ADVICE, advise
from nbpar.engine.adviser import MIN_ELAPSED_S, Adviser
from nbpar.engine.events import LostUpdate, SentAgain, SlowTask
from nbpar.engine.snapshot import Bin, Facts, Lane, Snapshot, Span, ThreadsCpu, Times, Usage

MB = 1_000_000
GB = 1_000_000_000


def lane(worker_id: int = 0, **changes: Any) -> Lane:
    """A worker that was in a hundred tasks for all of ten seconds."""
    spans = (Span(0.0, 10.0, 100 * worker_id, 100 * worker_id + 99, 100),)
    return Lane(worker_id, 4711, 100, 1.0, spans, times=Times(work_s=10.0))._replace(**changes)


def job(*lanes: Lane, **changes: Any) -> Snapshot:
    """A job of ten seconds that nothing is to be said of."""
    lanes = lanes or (lane(0), lane(1))
    n_done = sum(one.n_done for one in lanes)
    made = Snapshot(1, "map f", "done", n_done, n_done, 0, 10.0, n_done / 10, None, len(lanes), lanes)
    made = made._replace(
        facts=Facts("forkserver", n_cpus=8),
        durations=(Bin(0.09, 0.11, n_done),),
        slowest=(SlowTask(7, 0.11, 0, "7"),),
    )
    return made._replace(**changes)


def facts(**changes: Any) -> Facts:
    return Facts("forkserver", n_cpus=8)._replace(**changes)


def test_nothing_is_said_of_a_job_that_is_as_it_should_be() -> None:
    assert advise(job()) == ()


# --- transfer ---------------------------------------------------------------------------------------------------------


def transferring(**changes: Any) -> Snapshot:
    times = Times(wait_s=3.0, transfer_s=0.8, work_s=6.2)
    lanes = [lane(i, times=times, sent_bytes=100 * 160 * MB) for i in range(2)]
    return job(*lanes, kernel_s=3.0, **changes)


def test_an_array_that_is_sent_with_each_task_is_to_be_shared() -> None:
    (said,) = advise(transferring(repeated=(SentAgain("grid", 160 * MB, 200),)))
    assert said == "38 % of the workers' time went into receiving grid (160 MB): share it once with nbpar.share(grid)"


def test_an_array_without_a_name_is_to_be_shared_too() -> None:
    (said,) = advise(transferring(repeated=(SentAgain("an array of 160 MB", 160 * MB, 200),)))
    assert said == (
        "38 % of the workers' time went into receiving an array of 160 MB again and again (200 times): share it once "
        "with nbpar.share"
    )


def test_arguments_that_differ_are_not_to_be_shared() -> None:
    (said,) = advise(transferring())
    assert said.startswith("38 % of the workers' time went into receiving arguments (32 GB): send only what is needed")
    # Each worker has to get it once.
    assert advise(transferring(repeated=(SentAgain("grid", 160 * MB, 2),))) == (said,)
    # It is a small part of what was sent.
    assert advise(transferring(repeated=(SentAgain("grid", 1 * MB, 200),))) == (said,)


def test_large_results_are_better_saved_in_the_task() -> None:
    lanes = [lane(i, times=Times(transfer_s=4.0, work_s=6.0), received_bytes=2 * GB) for i in range(2)]
    (said,) = advise(job(*lanes))
    assert said == (
        "40 % of the workers' time went into sending results (4 GB): return less, or save in the task and return the "
        "file's name"
    )


def test_transfer_is_not_spoken_of_when_it_takes_little_of_the_time() -> None:
    lanes = [lane(i, times=Times(wait_s=0.5, transfer_s=1.0, work_s=8.5), sent_bytes=16 * GB) for i in range(2)]
    assert advise(job(*lanes, kernel_s=0.5)) == ()


def test_waiting_at_the_end_is_no_transfer() -> None:
    done = (Span(0.0, 4.0, 0, 99, 100),)
    early = lane(0, times=Times(wait_s=6.0, work_s=4.0), spans=done, sent_bytes=GB)
    assert advise(job(early, lane(1, sent_bytes=GB), kernel_s=6.0)) == ()


# --- small tasks ------------------------------------------------------------------------------------------------------


def many(n_tasks: int, *, work_s: float, kernel_s: float = 6.0, **changes: Any) -> Snapshot:
    times = Times(wait_s=8.0 - work_s, transfer_s=2.0, work_s=work_s)
    lanes = [lane(i, n_done=n_tasks // 2, times=times, sent_bytes=5 * n_tasks) for i in range(2)]
    return job(*lanes, kernel_s=kernel_s, durations=(Bin(1e-7, 1e-5, n_tasks),), slowest=(), **changes)


def test_items_are_to_be_put_in_blocks_when_tasks_take_no_time() -> None:
    (said,) = advise(many(4_000_000, work_s=2.0))
    assert said == (
        "tasks take 1.0 us each, and 80 % of the workers' time went into handing them out: let a task do a block of "
        "items, 10,000 or more"
    )


def test_chunk_size_is_to_be_left_out_when_it_makes_small_chunks() -> None:
    (said,) = advise(many(20_000, work_s=1.0, facts=facts(chunk_size=1)))
    assert said == (
        "tasks take 100 us each, and the workers were busy 10 % of the time: leave out chunk_size=1, which sends too "
        "few of them at once"
    )


def test_nothing_is_said_of_small_tasks_that_keep_the_workers_busy() -> None:
    assert advise(many(4_000_000, work_s=5.0)) == ()
    assert advise(many(20_000, work_s=5.0, facts=facts(chunk_size=1))) == ()


def test_nothing_is_said_of_small_tasks_when_a_slow_reader_holds_them_up() -> None:
    times = Times(wait_s=9.9, work_s=0.1)
    lanes = [lane(i, n_done=50_000, times=times) for i in range(2)]
    assert advise(job(*lanes, kernel_s=0.1)) == ()


def test_nothing_is_said_of_a_chunk_size_that_makes_chunks_of_a_good_length() -> None:
    assert advise(many(20_000, work_s=1.0, facts=facts(chunk_size=1000))) == ()


# --- few tasks --------------------------------------------------------------------------------------------------------


def idle(worker_id: int, from_s: float = 0.0) -> Lane:
    spans = (Span(0.0, from_s, worker_id, worker_id, 1),) if from_s else ()
    times = Times(wait_s=10.0 - from_s, work_s=from_s)
    return lane(worker_id, n_done=int(from_s > 0), times=times, spans=spans)


def test_more_tasks_are_asked_for_when_workers_have_nothing_to_do() -> None:
    lanes = [lane(0, n_done=1), lane(1, n_done=1), lane(2, n_done=1), *[idle(i) for i in range(3, 8)]]
    (said,) = advise(job(*lanes))
    assert said == "3 tasks for 8 workers: 5 of them had nothing to do; cut the work into at least 8 tasks"
    (said,) = advise(job(*lanes, n_done=0, status="running", n_tasks=1))
    assert said == "1 task for 8 workers: 7 of them have nothing to do; cut the work into at least 8 tasks"


def test_smaller_tasks_are_asked_for_when_one_is_left_over() -> None:
    lanes = [lane(0, n_done=2), *[idle(i, 5.0) for i in range(1, 8)]]
    (said,) = advise(job(*lanes, durations=(Bin(4.9, 5.1, 9),), slowest=(SlowTask(8, 5.1, 0, "8"),)))
    assert said == (
        "9 tasks for 8 workers, and 44 % of their time went into waiting for the last ones: cut the work into more, "
        "smaller tasks"
    )


def test_a_chunk_size_that_leaves_workers_without_a_chunk_is_to_be_left_out() -> None:
    lanes = [lane(0), lane(1), idle(2), idle(3)]
    (said,) = advise(job(*lanes, facts=facts(chunk_size=100)))
    assert said == "chunk_size=100 makes 2 chunks for 4 workers: 2 of them had nothing to do; leave it out"


def test_few_tasks_are_enough_for_the_cpus_there_are() -> None:
    lanes = [lane(0, n_done=1), lane(1, n_done=1), *[idle(i) for i in range(2, 8)]]
    assert advise(job(*lanes, facts=facts(n_cpus=2))) == ()


def test_nothing_is_said_of_the_number_of_tasks_when_it_is_not_known() -> None:
    assert advise(job(lane(0, n_done=1), idle(1), n_tasks=None)) == ()


# --- a straggler ------------------------------------------------------------------------------------------------------


def with_straggler(*, begun_s: float = 1.9, **changes: Any) -> Snapshot:
    spans = (Span(0.0, begun_s, 0, 30, 31), Span(begun_s, 10.0, 31, 31, 1))
    others = [lane(i, spans=(Span(0.0, 3.7, 0, 0, 40),), times=Times(wait_s=6.3, work_s=3.7)) for i in (1, 2, 3)]
    duration_s = 10.0 - begun_s
    durations = (Bin(0.4, 0.41, 399), Bin(duration_s, duration_s, 1))
    return job(
        lane(0, spans=spans), *others, durations=durations, slowest=(SlowTask(31, duration_s, 0, "31"),)
    )._replace(**changes)


def test_an_item_that_held_the_end_is_to_come_first() -> None:
    (said,) = advise(with_straggler())
    assert said == (
        "item 31 took 8.1 s, 20 times the median, and the other workers waited 6.3 s for it at the end: put such items "
        "first, or split them"
    )


def test_an_item_that_came_first_and_held_the_end_is_to_be_split() -> None:
    (said,) = advise(with_straggler(begun_s=0.1))
    assert said.endswith("for it at the end: split it")


def test_nothing_is_said_of_a_long_item_that_nobody_waited_for() -> None:
    assert advise(with_straggler(lanes=(lane(0), lane(1)))) == ()
    assert advise(with_straggler(slowest=(SlowTask(5, 8.1, 1, "5"),))) == ()
    assert advise(with_straggler(status="failed")) == ()


def running(since_s: float, eta_s: float | None) -> Snapshot:
    lanes = (lane(51), lane(52, current_index=31_007, current_since_s=10.0 - since_s))
    durations = (Bin(0.4, 0.41, 200),)
    return job(*lanes, n_tasks=300, status="running", eta_s=eta_s, durations=durations)


def test_an_item_that_will_hold_the_end_is_told_while_it_runs() -> None:
    assert advise(running(8.1, 5.2)) == (
        "worker 52 has run item 31,007 for 8.1 s, 20 times the median: it will hold the end",
    )


def test_nothing_is_said_of_a_running_item_that_may_end_before_the_others() -> None:
    assert advise(running(8.1, 9.0)) == ()
    assert advise(running(3.0, 0.5)) == ()
    assert advise(running(8.1, None)) == ()


# --- threads of libraries ---------------------------------------------------------------------------------------------


def computing(other_cpu: float, **changes: Any) -> Snapshot:
    usage = tuple(Usage(float(i), 100 * MB, 1.0, other_cpu) for i in range(10))
    return job(*[lane(i, usage=usage) for i in range(2)], facts=facts(n_cpus=2, **changes))


def test_threads_per_worker_is_to_be_left_out_when_there_are_more_threads_than_cpus() -> None:
    (said,) = advise(computing(0.5, blas_threads=2))
    assert said == (
        "2 workers with 2 BLAS threads each share 2 CPUs, where they hold each other up: leave out threads_per_worker=2"
    )


def test_threads_that_tasks_start_themselves_are_told() -> None:
    (said,) = advise(computing(0.5, blas_threads=1))
    assert said.startswith("tasks start threads of their own (50 % of the CPU time), and 2 workers share 2 CPUs: have")


def test_nothing_is_said_of_threads_that_do_nothing() -> None:
    assert advise(computing(0.1, blas_threads=2)) == ()
    assert advise(computing(0.5)._replace(facts=facts(n_cpus=8, blas_threads=2))) == ()
    assert advise(computing(0.5)._replace(facts=None)) == ()


# --- pools, threads, memory -------------------------------------------------------------------------------------------


def test_one_pool_is_to_be_made_before_the_loop() -> None:
    starting = Times(start_s=1.5, init_s=0.8, work_s=7.7)
    lanes = [lane(i, times=starting) for i in range(2)]
    (said,) = advise(job(*lanes, facts=facts(n_short_pools=3)))
    assert said == (
        "3 pools were made within a minute, and starting this one took 23 % of its job: make one pool before the "
        "loop, or use nbpar.map, which keeps its own"
    )
    assert advise(job(*lanes, facts=facts(n_short_pools=2))) == ()
    assert advise(job(facts=facts(n_short_pools=30))) == ()


def with_threads(used: float, wanted: float, waits: float = 215.0, watched_s: float = 10.0, **changes: Any) -> Snapshot:
    cpu = ThreadsCpu(used, wanted, waits, watched_s)
    return job(threads_cpu=cpu, facts=facts(start_method="threads", **changes))


# As measured: alone, and beside some and many processes that compute, on two CPUs.
TURNS = [(1.02, 1.04, 215.0), (0.41, 1.44, 186.0), (0.37, 1.48, 205.0)]


@pytest.mark.parametrize("figures", TURNS)
def test_processes_are_to_be_used_when_threads_take_turns(figures: tuple[float, float, float]) -> None:
    (said,) = advise(with_threads(*figures))
    assert said == (
        f"2 threads were busy and used {figures[0]:.1f} cores together, for Python runs one of them at a time: use "
        f'processes for such tasks (leave out start_method="threads")'
    )


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param((0.03, 0.14, 1750.0), id="they sleep"),
        pytest.param((0.14, 0.95, 586.0), id="they sleep, and compute a little"),
        pytest.param((1.9, 1.95, 2.0), id="numpy"),
        pytest.param((1.0, 1.9, 2.0), id="numpy, while others compute"),
        pytest.param((0.41, 1.98, 20.0), id="numpy, while others compute, with short tasks"),
        pytest.param((0.51, 1.83, 41.0), id="many short calls of numpy, while others compute"),
        pytest.param((0.24, 1.19, 26.0), id="BLAS, which lets one in at a time"),
        pytest.param((0.6, 1.05, 34.0), id="a lock of the tasks' own around numpy"),
        pytest.param((1.0, 1.0, 0.0), id="nothing is known of stops"),
        pytest.param((math.nan,) * 3, id="nothing is known"),
    ],
)
def test_nothing_is_said_of_threads_that_wait_for_something_else(figures: tuple[float, float, float]) -> None:
    assert advise(with_threads(*figures)) == ()


def test_threads_that_were_watched_for_a_part_of_the_job_may_have_been_idle_in_it() -> None:
    assert advise(with_threads(*TURNS[0], watched_s=2.0)) != ()  # both were busy all the time
    lanes = (lane(0), lane(1, busy=0.8))
    assert advise(with_threads(*TURNS[0], watched_s=9.9)._replace(lanes=lanes)) != ()
    assert advise(with_threads(*TURNS[0], watched_s=2.0)._replace(lanes=lanes)) == ()


def test_nothing_is_said_of_threads_that_were_not_busy_or_have_one_cpu() -> None:
    assert advise(with_threads(1.0, 1.0)._replace(lanes=(lane(0), lane(1, busy=0.3)))) == ()
    assert advise(with_threads(1.0, 1.0, n_cpus=1)) == ()
    assert advise(with_threads(1.0, 1.0)._replace(threads_cpu=None)) == ()


def test_a_worker_near_its_memory_limit_is_told() -> None:
    usage = (Usage(1.0, 900 * MB, 1.0), Usage(2.0, 1_900 * MB, 1.0), Usage(3.0, 400 * MB, 1.0))
    (said,) = advise(job(lane(0), lane(1, usage=usage), facts=facts(memory_limit_bytes=2 * GB)))
    assert said == (
        "worker 1 held 1.9 GB, and memory_limit is 2 GB: let a task hold less at a time, or raise the limit and use "
        "fewer workers"
    )
    assert advise(job(lane(0), lane(1, usage=usage), facts=facts(memory_limit_bytes=3 * GB))) == ()


def test_workers_that_fill_the_machine_are_told() -> None:
    lanes = [lane(i, usage=(Usage(1.0, 7 * GB, 1.0),)) for i in range(2)]
    (said,) = advise(job(*lanes, facts=facts(usable_memory_bytes=16 * GB)))
    assert said.startswith("the workers hold 14 GB together, and 16 GB is all there is: use fewer workers")
    assert advise(job(*lanes, facts=facts(usable_memory_bytes=32 * GB))) == ()


# --- lost updates, order, when ----------------------------------------------------------------------------------------


def test_a_lost_update_comes_first_and_however_short_the_job() -> None:
    (said,) = advise(job(elapsed_s=0.01, lost=("cache",)))
    assert said == (
        "`cache` was changed by tasks in their workers, where the change is lost: return it instead, or use "
        "nbpar.per_worker for what shall stay there"
    )
    said, *more = advise(transferring(lost=("a", "b", "c")))
    assert said.startswith(
        "`a`, `b` and `c` were changed by tasks in their workers, where the changes are lost: return"
    )
    assert len(more) == 1


def test_the_weightiest_comes_first_and_three_are_the_most() -> None:
    usage = (Usage(1.0, 1_900 * MB, 1.0, 0.9),)
    times = Times(start_s=2.0, wait_s=3.0, transfer_s=1.0, work_s=4.0)
    lanes = [lane(i, times=times, usage=usage, sent_bytes=16 * GB) for i in range(2)]
    known = facts(n_cpus=2, memory_limit_bytes=2 * GB, blas_threads=2, n_short_pools=9)
    said = advise(job(*lanes, facts=known, kernel_s=3.0, lost=("n",)))
    assert [one.split(" ")[0] for one in said] == ["`n`", "worker", "50"]


def test_a_running_job_is_asked_once_a_second_and_a_finished_one_always(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def count(snapshot: Snapshot) -> tuple[str, ...]:
        asked.append(snapshot.elapsed_s)
        return (f"at {snapshot.elapsed_s}",)

    monkeypatch.setattr("nbpar.engine.advice.advise", count)
    adviser = Adviser()
    shown = [adviser.add_to(job(status="running", elapsed_s=at_s)).advice for at_s in (0.1, 0.6, 1.0, 1.7, 2.0)]
    assert asked == [0.6, 1.7]
    assert shown == [(), ("at 0.6",), ("at 0.6",), ("at 1.7",), ("at 1.7",)]
    assert adviser.add_to(job(elapsed_s=2.1)).advice == ("at 2.1",)


def test_what_was_lost_and_sent_again_is_in_the_picture_and_each_name_is_said_aloud_once() -> None:
    adviser = Adviser()
    adviser.make_facts = lambda: facts(n_cpus=3)
    said = [adviser.heed(LostUpdate(1, names)) for names in (("a",), ("a", "b"), ("b",))]
    assert [one and one.split(" ")[0] for one in said] == ["`a`", "`b`", None]
    for n_times in (2, 3):
        assert adviser.heed(SentAgain("grid", 5 * MB, n_times)) is None
    adviser.heed(SentAgain("mesh", 50 * MB, 2))
    shown = adviser.add_to(job(facts=None, elapsed_s=0.1))
    assert shown.repeated == (SentAgain("mesh", 50 * MB, 2), SentAgain("grid", 5 * MB, 3))
    assert (shown.lost, shown.facts) == (("a", "b"), facts(n_cpus=3))
    assert shown.advice[0].startswith("`a` and `b` were changed")


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 100)
counts = st.integers(0, 10) | st.integers(0, 10**9)
sizes = st.integers(0, 10**12)
times_made = st.builds(Times, *[numbers] * 6)
usage_made = st.lists(st.builds(Usage, numbers, sizes, numbers, numbers), max_size=3).map(tuple)
spans_made = st.lists(st.builds(Span, numbers, numbers, counts, counts, counts), max_size=3).map(tuple)
lanes_made = st.builds(
    Lane,
    st.integers(0, 3),
    counts,
    counts,
    numbers,
    spans_made,
    numbers,
    numbers,
    st.none() | counts,
    numbers,
    st.none(),
    st.booleans(),
    times_made,
    sizes,
    sizes,
    usage_made,
)
facts_made = st.builds(
    Facts,
    st.sampled_from(["forkserver", "threads", "serial"]),
    st.integers(1, 128),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 64),
    st.none() | st.integers(1, 10**12),
    counts,
    st.none() | st.integers(1, 10**12),
)
snapshots = st.builds(
    Snapshot,
    job_id=st.just(1),
    name=st.just("map f"),
    status=st.sampled_from(["running", "paused", "done", "failed", "cancelled"]),
    n_tasks=st.none() | counts,
    n_done=counts,
    n_failed=counts,
    elapsed_s=numbers,
    rate=numbers,
    eta_s=st.none() | numbers,
    n_workers=st.integers(1, 200),
    lanes=st.lists(lanes_made, max_size=4).map(tuple),
    n_restored=counts,
    durations=st.lists(st.builds(Bin, numbers, numbers, counts), max_size=4).map(tuple),
    slowest=st.lists(st.builds(SlowTask, counts, numbers, st.integers(0, 3), st.just("x")), max_size=3).map(tuple),
    kernel_s=numbers,
    repeated=st.lists(st.builds(SentAgain, st.sampled_from(["grid", "an array"]), sizes, counts), max_size=2).map(
        tuple
    ),
    lost=st.lists(st.sampled_from(["a", "b"]), unique=True).map(tuple),
    facts=st.none() | facts_made,
    threads_cpu=st.none() | st.builds(ThreadsCpu, numbers, numbers, numbers, numbers),
)


@given(snapshots)
def test_advice_never_raises_is_short_and_spares_short_jobs(made: Snapshot) -> None:
    said = advise(made)
    assert len(said) <= MAX_ADVICE and len(set(said)) == len(said)
    assert all(one and "\n" not in one and "nan" not in one.split() for one in said)
    if not made.elapsed_s >= MIN_ELAPSED_S:
        assert len(said) == bool(made.lost)


def test_fields_that_are_drawn_from_here_exist() -> None:
    assert {"facts", "repeated", "lost", "advice", "threads_cpu"} <= set(pictures.Snapshot._fields)


class NoFileFree:
    """What imports meet while no descriptor is free."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("nbpar.engine.advice", "nbpar.engine.rules_pool"):
            raise OSError(24, "Too many open files", name)


def test_advice_waits_for_a_free_descriptor_to_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    adviser, blocked = Adviser(), NoFileFree()
    for name in ("advice", "rules_pool"):
        monkeypatch.setattr(engine, name, getattr(engine, name))  # an import binds it there, too
        monkeypatch.delitem(sys.modules, f"nbpar.engine.{name}")
    monkeypatch.setattr(sys, "meta_path", [blocked, *sys.meta_path])
    assert adviser.heed(LostUpdate(1, ("cache",))) is None
    seen = adviser.add_to(job(status="running"))
    assert (seen.advice, seen.lost) == ((), ("cache",))
    sys.meta_path.remove(blocked)
    (said,) = adviser.add_to(job()).advice
    assert said.startswith("`cache` was changed")
