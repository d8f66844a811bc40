"""Each advice, provoked by the smallest job that does it for real, and the job beside it that must hear nothing of it.

Thresholds are tried on snapshots made by hand, in tests/unit/test_advice.py. Here a job may hear other advice as well:
on a loaded machine it may be true.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nbpar
import nbpar.facts
from nbpar.engine.snapshot import Snapshot
from nbpar.options import usable_cpus
from tests.backends.conftest import PROCESSES, MakePool, only
from tests.helpers import until

MB = 1_000_000

needs_cpus = pytest.mark.skipif(usable_cpus() < 2, reason="with one CPU there is nothing to share out")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of single threads")

Cell = Callable[[str], dict[str, Any]]


@pytest.fixture
def cell() -> Iterator[Cell]:
    """Runs code as a notebook's cell: what it defines is in ``__main__``, so that its functions travel by value."""
    main = vars(sys.modules["__main__"])
    before = dict(main)

    def run(code: str) -> dict[str, Any]:
        exec(compile(code, "<cell>", "exec"), main)
        return main

    yield run
    for name in set(main) - set(before):
        del main[name]


def watched(pool: nbpar.WorkerPool, function: Callable[..., Any], *iterables: Any, **options: Any) -> Snapshot:
    """The picture of a job at its end; it is looked at meanwhile, as by a view."""
    return until_said(pool, function, *iterables, text="\0", **options)


def until_said(
    pool: nbpar.WorkerPool, function: Callable[..., Any], *iterables: Any, text: str, **options: Any
) -> Snapshot:
    """The picture of a job at its end, or as soon as its advice has this text: then it is cancelled."""
    job = pool.map_async(function, *iterables, progress=False, **options)
    until(lambda: (shown := job.snapshot()).ended or any(text in one for one in shown.advice), within_s=50.0)
    shown = job.snapshot()
    job.cancel()
    job.wait()
    return shown


def says(shown: Snapshot, text: str) -> bool:
    assert shown.elapsed_s > 0.5, "it is over before anything is said"
    return any(text in one for one in shown.advice)


def busy(seconds: float) -> int:
    end_s, n = time.perf_counter() + seconds, 0
    while time.perf_counter() < end_s:
        n += sum(range(100))
    return n


# --- transfer ---------------------------------------------------------------------------------------------------------

FIRST = "import numpy as np\ngrid = np.zeros(4_000_000)\ndef first(i, array): return float(array[i])"


@only("forkserver")
def test_an_array_that_is_an_argument_of_each_task_is_to_be_shared_by_its_name(
    pool: nbpar.WorkerPool, cell: Cell
) -> None:
    names = cell(FIRST)
    text = "receiving grid (32 MB): share it once with nbpar.share(grid)"
    shown = until_said(pool, names["first"], range(9999), [names["grid"]] * 9999, text=text)
    assert (shown.repeated[0].what, shown.repeated[0].n_bytes) == ("grid", 32 * MB)
    assert says(shown, text), shown.advice


@only("forkserver")
def test_an_array_without_a_name_is_to_be_shared_too(pool: nbpar.WorkerPool) -> None:
    hidden = np.zeros(4_000_000)
    items, text = [(i, hidden) for i in range(9999)], "receiving an array of 32 MB again and again ("
    shown = until_said(pool, lambda pair: float(pair[1][pair[0]]), items, text=text)
    assert says(shown, text), shown.advice


@only("forkserver")
def test_an_array_that_is_shared_takes_no_time(pool: nbpar.WorkerPool, cell: Cell) -> None:
    names = cell(FIRST)
    shared = nbpar.share(names["grid"])
    shown = watched(pool, lambda i, array: time.sleep(0.01), range(120), [shared] * 120)
    assert shown.repeated == () and not says(shown, "went into")


@only("forkserver")
def test_arrays_that_differ_are_not_taken_for_one(pool: nbpar.WorkerPool) -> None:
    made = (np.zeros(1_000_000) for _ in range(40))  # each may lie where the last one was
    assert sum(pool.imap(np.count_nonzero, made)) == 0
    assert nbpar.jobs()[-1].snapshot().repeated == ()
    arrays = [np.zeros(1_000_000) for _ in range(10)]
    assert watched(pool, np.count_nonzero, arrays).repeated == ()


@only("forkserver")
def test_large_results_are_told(pool: nbpar.WorkerPool) -> None:
    made, text = np.ones(500_000), "of the workers' time went into sending results ("
    results = pool.imap(lambda _: (made + 1, made + 2), range(99_999), progress=False)
    job = nbpar.jobs()[-1]
    until(lambda: next(results) is not None and any(text in one for one in job.snapshot().advice))
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert job.snapshot().repeated == ()


# --- how tasks are cut ------------------------------------------------------------------------------------------------


@only("forkserver")
def test_chunks_of_one_short_task_are_told(pool: nbpar.WorkerPool) -> None:
    text = "leave out chunk_size=1, which sends too few of them at once"
    shown = until_said(pool, lambda x: x, range(500_000), chunk_size=1, text=text)
    assert says(shown, text), shown.advice


@only("forkserver")
def test_chunks_of_one_long_task_are_right(pool: nbpar.WorkerPool) -> None:
    shown = watched(pool, time.sleep, [0.005] * 300, chunk_size=1)
    assert not says(shown, "chunk_size") and not says(shown, "tasks take")


@needs_cpus
@only("forkserver")
def test_too_few_tasks_are_told_and_enough_are_not(pool: nbpar.WorkerPool) -> None:
    shown = watched(pool, time.sleep, [0.6])
    assert says(shown, "1 task for 2 workers: one of them had nothing to do"), shown.advice
    assert not says(watched(pool, time.sleep, [0.02] * 70), "for 2 workers")


@only("forkserver")
def test_one_task_that_holds_the_end_is_told_while_it_runs_and_afterwards(pool: nbpar.WorkerPool) -> None:
    job = pool.map_async(time.sleep, [0.01] * 20 + [2.0], progress=False)
    until(lambda: any("has run item 20 for" in one for one in job.snapshot().advice) or job.done())
    assert not job.done()
    job.result()
    shown = job.snapshot()
    assert says(shown, "item 20 took 2.0 s,") and says(shown, "and the other worker waited"), shown.advice


@only("forkserver")
def test_one_long_task_among_others_holds_nothing(pool: nbpar.WorkerPool) -> None:
    shown = watched(pool, time.sleep, [0.4] + [0.01] * 90)
    assert not says(shown, "item 0")


# --- threads and pools ------------------------------------------------------------------------------------------------

MULTIPLY = """
import numpy as np, time
def multiply(seconds):
    a, end_s = np.ones((400, 400)), time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        a @ a
"""


@on_linux
@needs_cpus
@only("forkserver")
def test_blas_threads_that_hold_each_other_up_are_told(make_pool: MakePool, cell: Cell) -> None:
    multiply = cell(MULTIPLY)["multiply"]
    n_threads = usable_cpus()
    text = f"leave out threads_per_worker={n_threads}"
    shown = until_said(make_pool(threads_per_worker=n_threads), multiply, [0.1] * 500, text=text)
    assert says(shown, text), shown.advice


@on_linux
@needs_cpus
@only("forkserver")
def test_one_blas_thread_each_and_many_that_do_nothing_are_right(make_pool: MakePool, cell: Cell) -> None:
    multiply = cell(MULTIPLY)["multiply"]
    assert not says(watched(make_pool(), multiply, [0.1] * 20), "threads")
    assert not says(watched(make_pool(threads_per_worker=usable_cpus()), busy, [0.1] * 20), "threads")


@only("forkserver")
def test_pools_that_are_made_in_a_loop_are_told(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbpar.facts, "_lives", ())
    advice = []
    for seconds in (0.001, 0.001, 0.4):
        pool = make_pool(worker_init=lambda: time.sleep(0.3))
        shown = watched(pool, time.sleep, [seconds] * 2)
        advice.append([one for one in shown.advice if "pools" in one])
        pool.shutdown()
    assert [len(one) for one in advice] == [0, 0, 1]
    assert advice[2][0].startswith("3 pools were made within a minute, and starting this one took ")


@only("forkserver")
def test_one_pool_with_many_jobs_is_right(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbpar.facts, "_lives", ())
    pool = make_pool()
    for _ in range(4):
        pool.map(abs, [-1])
    shown = watched(pool, time.sleep, [0.3] * 4)
    assert shown.facts is not None and shown.facts.n_short_pools == 0 and not says(shown, "pools")


@on_linux
@needs_cpus
@only("threads")
def test_threads_that_compute_in_python_are_told(make_pool: MakePool) -> None:
    text = "for Python runs one of them at a time"
    shown = until_said(make_pool(), busy, [0.1] * 1000, text=text)
    assert says(shown, text), (shown.advice, shown.threads_cpu)


@on_linux
@needs_cpus
@only("threads")
def test_threads_that_sleep_or_leave_the_interpreter_are_right(make_pool: MakePool) -> None:
    pool = make_pool()
    assert not says(watched(pool, time.sleep, [0.1] * 20), "Python")
    values = np.random.default_rng(1).random(1_000_000)
    shown = watched(pool, lambda _: np.sort(values).size, range(20))
    assert not says(shown, "Python"), shown.threads_cpu


@on_linux
@only("forkserver")
def test_memory_near_the_limit_is_told_and_far_from_it_not(make_pool: MakePool) -> None:
    def hold(n_bytes: int) -> int:
        held = b"x" * n_bytes
        time.sleep(1.2)
        return len(held)

    pool = make_pool(memory_limit=1_000 * MB)
    shown = watched(pool, hold, [20 * MB, 900 * MB])
    assert says(shown, ", and memory_limit is 1 GB: let a task hold less at a time"), (shown.failures, shown.advice)
    assert not says(watched(pool, hold, [20 * MB] * 2), "memory_limit")


# --- lost updates -----------------------------------------------------------------------------------------------------

CHANGE = """
cache, n = {}, 0
def remember(x):
    global n
    n += 1
    cache[x] = x
    return x
def recall(x):
    return cache.get(x, n)
"""


@only(*PROCESSES)
def test_what_tasks_change_in_their_worker_is_told_once_for_each_job(
    pool: nbpar.WorkerPool, cell: Cell, capfd: pytest.CaptureFixture[str]
) -> None:
    names = cell(CHANGE)
    for _ in range(2):
        job = pool.map_async(names["remember"], range(1, 50), progress=False)
        assert job.result() == list(range(1, 50))
        shown = job.snapshot()
        assert shown.lost == ("n", "cache")
        assert shown.advice == shown.aloud and "`n` and `cache` were changed by tasks" in shown.aloud[0]
    assert names["cache"] == {} and names["n"] == 0
    assert capfd.readouterr().err.count("`n` and `cache` were changed by tasks in their workers, where") == 2


@only(*PROCESSES)
def test_what_is_changed_late_in_a_job_is_told(pool: nbpar.WorkerPool, cell: Cell) -> None:
    check = cell("""
import time
errors = []
def check(x):
    time.sleep(0.002)
    if x == 100:
        errors.append(x)
""")["check"]
    job = pool.map_async(check, range(120), progress=False)
    job.result()
    assert job.snapshot().lost == ("errors",)


@only(*PROCESSES)
def test_reading_is_no_change_and_what_belongs_to_the_worker_may_change(pool: nbpar.WorkerPool, cell: Cell) -> None:
    names = cell(
        CHANGE
        + """
import nbpar, random
memory = nbpar.per_worker(dict)
rng = random.Random(1)
def keep(x):
    return memory().setdefault(x, 1)
def draw(x):
    return rng.random()
"""
    )
    for function in (names["recall"], names["keep"], names["draw"], lambda x: x):
        job = pool.map_async(function, range(20), progress=False)
        job.result()
        assert (job.snapshot().lost, job.snapshot().aloud) == ((), ())


@only("threads", "serial")
def test_nothing_is_lost_where_workers_share_the_kernels_memory(pool: nbpar.WorkerPool, cell: Cell) -> None:
    names = cell(CHANGE)
    job = pool.map_async(names["remember"], range(20), progress=False)
    job.result()
    assert names["cache"] == {x: x for x in range(20)} and job.snapshot().lost == ()
