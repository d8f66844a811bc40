"""joblib with ``backend="nbpar"``: results, options, errors, nesting, and one job for each call of `Parallel`."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

import nbpar
import nbpar.interop.joblib
from nbpar.errors import JobCancelledError, OptionsError, WorkerDiedError
from nbpar.interop.joblib import naming, pools, workers
from tests.helpers import alive, jobs_since, no_leftovers, run_script, start_script, until


@pytest.fixture(autouse=True, scope="module")
def backend() -> Iterator[None]:
    """joblib knows the backend, and one pool of two serves most tests."""
    nbpar.configure(n_workers=2)
    nbpar.interop.joblib.register()
    yield
    nbpar.interop.joblib.shutdown()
    nbpar.shutdown(cancel=True)


OF_PARALLEL = ("return_as", "timeout", "pre_dispatch", "batch_size", "verbose", "max_nbytes")


def run(calls: Any, n_jobs: int | None = 2, **options: Any) -> Any:
    """A call of `Parallel`; options of nbpar's go where every joblib takes them."""
    joblibs = {name: options.pop(name) for name in OF_PARALLEL if name in options}
    with parallel_config(backend="nbpar", **options):
        return Parallel(n_jobs=n_jobs, **joblibs)(calls)


def square(x: Any) -> Any:
    return x * x


def last_job() -> nbpar.Job[Any]:
    return nbpar.jobs()[-1]


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_come_in_order() -> None:
    assert run(delayed(square)(x) for x in range(500)) == [x * x for x in range(500)]


def test_arguments_by_name_arrive() -> None:
    assert run([delayed(int)("ff", base=16), delayed(int)("7")]) == [255, 7]


def test_lambdas_closures_and_own_classes_travel() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    (made,) = run([delayed(lambda x: Point(x + 1))(4)])
    assert type(made) is Point and made.x == 5


def test_a_changed_closure_is_seen_by_the_next_call() -> None:
    factor = 2
    times = lambda x: factor * x  # noqa: E731  # as users write it
    assert run([delayed(times)(5)]) == [10]
    factor = 3
    assert run([delayed(times)(5)]) == [15]


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
@pytest.mark.parametrize("pre_dispatch", ["all", "n_jobs", 3])
def test_batches_change_nothing(batch_size: Any, pre_dispatch: Any) -> None:
    calls = (delayed(square)(x) for x in range(40))
    assert run(calls, batch_size=batch_size, pre_dispatch=pre_dispatch) == [x * x for x in range(40)]
    assert last_job().n_done == 40


def test_no_calls_give_no_results() -> None:
    assert run([]) == []


def test_a_generator_gives_results_in_order_as_they_come(tmp_path: Path) -> None:
    results = run((delayed(wait_for)(tmp_path / "go", x) for x in (0, 1, 2)), return_as="generator")
    assert next(results) == 0
    (tmp_path / "go").touch()
    assert list(results) == [1, 2]


def wait_for(gate: Path, x: int) -> int:
    """All but the first wait until the test opens the gate."""
    if x:
        until(gate.exists)
    return x


def test_an_unordered_generator_gives_what_is_there(tmp_path: Path) -> None:
    calls = (delayed(wait_for)(tmp_path / "go", x) for x in (1, 0, 0, 0))
    results = run(calls, return_as="generator_unordered")
    assert [next(results) for _ in range(3)] == [0, 0, 0]
    (tmp_path / "go").touch()
    assert list(results) == [1]


def test_a_generator_that_is_dropped_stops_its_tasks(tmp_path: Path) -> None:
    results = run((delayed(wait_for)(tmp_path / "never", x) for x in (0, 1, 1, 1)), return_as="generator")
    assert next(results) == 0
    job = last_job()
    with pytest.warns(UserWarning, match="have been cancelled"):
        results = None
    until(job.done)
    assert job.status == "cancelled"
    assert run([delayed(square)(3)]) == [9]


def test_no_more_is_read_than_pre_dispatch_says(tmp_path: Path) -> None:
    read: list[int] = []

    def calls() -> Iterator[Any]:
        for x in range(6):
            read.append(x)
            yield delayed(wait_for)(tmp_path / "go", 1)

    results = run(calls(), batch_size=1, pre_dispatch=3, return_as="generator")
    job = last_job()
    until(lambda: job._backend.activities(job.id))
    assert read == [0, 1, 2]
    (tmp_path / "go").touch()
    assert list(results) == [1] * 6


def test_an_iterable_may_use_nbpar_itself() -> None:
    def calls() -> Iterator[Any]:
        for x in range(20):
            yield delayed(square)(nbpar.map(square, [x])[0])

    assert run(calls()) == [x**4 for x in range(20)]


def test_two_threads_call_at_once() -> None:
    found: dict[int, list[int]] = {}

    def call(k: int) -> None:
        found[k] = run(delayed(square)(x + k) for x in range(50))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [(x + k) ** 2 for x in range(50)] for k in range(3)}


# --- n_jobs, pools and options ----------------------------------------------------------------------------------------


def test_n_jobs_counts_the_workers_of_the_notebooks_pool() -> None:
    with parallel_config(backend="nbpar"):
        counts = {n: joblib.effective_n_jobs(n) for n in (None, 1, 2, 5, -1, -2, -9)}
    assert counts == {None: 2, 1: 1, 2: 2, 5: 5, -1: 2, -2: 1, -9: 1}
    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        run([delayed(square)(1)], n_jobs=0)


def test_one_job_runs_here() -> None:
    known = nbpar.jobs()
    assert run((delayed(os.getpid)() for _ in range(3)), n_jobs=1) == [os.getpid()] * 3
    assert jobs_since(known) == []


def test_two_jobs_use_the_warm_workers_of_the_notebook() -> None:
    nbpar.map(square, [1])
    pids = set(run((delayed(os.getpid)() for _ in range(20)), n_jobs=2))
    assert pids <= set(nbpar.default_pool().pids().values())


def pids_of(n_jobs: int, **options: Any) -> set[int]:
    return set(run((delayed(os.getpid)() for _ in range(20)), n_jobs=n_jobs, **options))


def test_another_number_of_jobs_has_a_pool_that_stays_warm() -> None:
    first = pids_of(3)
    own = set(nbpar.default_pool().pids().values())
    assert first.isdisjoint(own)
    pool = pools.pool_for(3, {})
    assert first <= set(pool.pids().values()) and pool.options.idle_timeout == pools.IDLE_S
    assert pids_of(3) <= set(pool.pids().values())


def test_pools_that_are_not_kept_end_by_themselves() -> None:
    pids = pids_of(2, env={"WHICH": "first"})
    for k in range(pools.MAX_KEPT):
        pools.pool_for(2, {"env": {"WHICH": str(k)}})
    gc.collect()
    until(lambda: not any(map(alive, pids)))


def test_shutdown_ends_what_was_made_for_joblib_alone() -> None:
    pids, own = pids_of(3), pids_of(2)
    nbpar.interop.joblib.shutdown()
    assert not any(map(alive, pids))
    assert any(map(alive, own))
    assert pids_of(3).isdisjoint(pids)


def test_an_initializer_runs_in_each_worker_and_its_pool_is_found_again() -> None:
    initializer = functools.partial(os.environ.__setitem__, "WORD")

    def words(word: str) -> set[tuple[str, int]]:
        calls = (delayed(lambda: (os.environ["WORD"], os.getpid()))() for _ in range(10))
        return set(run(calls, initializer=initializer, initargs=(word,)))

    first = words("one")
    assert {word for word, _ in first} == {"one"}
    pool = pools._kept[-1].pool
    assert {pid for _, pid in words("one")} <= set(pool.pids().values())
    assert {word for word, _ in words("two")} == {"two"}
    assert pools._kept[-1].pool is not pool


def test_an_initializer_that_fails_is_a_broken_pool() -> None:
    with pytest.raises(BrokenProcessPool, match="worker_init failed") as caught:
        run([delayed(square)(1)], initializer=operator_failing, initargs=(1,))
    assert isinstance(caught.value.__cause__, nbpar.WorkerStartError)


def operator_failing(x: int) -> None:
    raise LookupError(x)


def test_options_are_checked_before_anything_starts() -> None:
    known = nbpar.jobs()
    with pytest.raises(OptionsError, match="start_method='ray' is not allowed"):
        run([delayed(square)(1)], start_method="ray")
    with pytest.raises(OptionsError, match=r"cores=3 is not allowed; allowed: .* and cpu_ids, env"):
        run([delayed(square)(1)], cores=3)
    with (
        pytest.raises(OptionsError, match="cores=3 is not allowed"),
        parallel_config(backend="nbpar", cores=3),
    ):
        pass
    with pytest.raises(OptionsError, match="retries=-1 is not allowed"):
        run([delayed(square)(1)], retries=-1)
    assert jobs_since(known) == []


def test_retries_are_nbpars() -> None:
    assert run([delayed(fails_once)()], retries=1) == [2]


def fails_once() -> int:
    attempt = nbpar.current_task().attempt
    assert attempt > 1
    return attempt


@pytest.mark.parametrize("threads", [1, 3])
def test_inner_threads_are_limited(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with parallel_config(backend="nbpar", n_jobs=2, inner_max_num_threads=threads):
        found = Parallel()(delayed(os.environ.get)("OMP_NUM_THREADS") for _ in range(2))
    assert found == [str(threads)] * 2


def test_a_library_that_prefers_threads_has_threads() -> None:
    with parallel_config(backend="nbpar", n_jobs=2):
        assert Parallel(prefer="threads")(delayed(os.getpid)() for _ in range(4)) == [os.getpid()] * 4
        assert last_job().n_done == 4
        shared: list[int] = []
        Parallel(require="sharedmem", n_jobs=2)(delayed(shared.append)(x) for x in range(4))
    assert sorted(shared) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="does not support shared memory"):
        Parallel(n_jobs=2, backend="nbpar", require="sharedmem")


def test_it_can_be_the_default() -> None:
    before = joblib.parallel.DEFAULT_BACKEND
    try:
        nbpar.interop.joblib.register(make_default=True)
        assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(3)) == [0, 1, 4]
        assert last_job().n_done == 3
    finally:
        joblib.parallel.DEFAULT_BACKEND = before


def test_joblib_is_not_loaded_before_it_is_asked_for() -> None:
    run_script("import sys, nbpar.interop.joblib\nassert 'joblib' not in sys.modules")


def test_without_joblib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'nbpar\[joblib\]'"):
        nbpar.interop.joblib.register()


def test_a_joblib_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "__version__", "1.3.2")
    with pytest.raises(ImportError, match=r"needs joblib 1.4 or newer, and 1.3.2 is there"):
        nbpar.interop.joblib.register()


# --- errors and ends --------------------------------------------------------------------------------------------------


def fails(x: int) -> int:
    if x == 2:
        raise LookupError("no two")
    return x


def test_an_error_is_the_tasks_own_with_its_call_and_its_frames() -> None:
    with pytest.raises(LookupError, match="no two") as caught:
        run(delayed(fails)(x) for x in range(4))
    assert any("item 2 = fails(2)" in note for note in caught.value.__notes__)
    assert "raise LookupError" in "".join(traceback.format_exception(caught.value))
    job = last_job()
    assert job.status == "failed"
    assert [(error.index, error.item_repr) for error in job.errors] == [(2, "fails(2)")]


def test_a_managed_parallel_goes_on_after_an_error() -> None:
    with Parallel(n_jobs=2, backend="nbpar") as parallel:
        with pytest.raises(LookupError):
            parallel(delayed(fails)(x) for x in range(4))
        assert parallel(delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]


def test_an_error_is_raised_while_a_generator_is_read() -> None:
    results = run((delayed(fails)(x) for x in (0, 2)), return_as="generator", batch_size=1)
    with pytest.raises(LookupError, match="no two"):
        list(results)
    assert run([delayed(square)(3)]) == [9]


def test_an_error_of_the_iterable_is_raised() -> None:
    def calls() -> Iterator[Any]:
        for x in range(20):
            assert x < 15, "no more"
            yield delayed(square)(x)

    with pytest.raises(AssertionError, match="no more"):
        run(calls())
    until(last_job().done)


def test_a_worker_that_dies_is_joblibs_error_for_that() -> None:
    with pytest.raises(TerminatedWorkerError, match="exit code 3") as caught:
        run(delayed(os._exit)(code) for code in [3])
    assert isinstance(caught.value.__cause__, WorkerDiedError)
    assert run([delayed(square)(3)]) == [9]


def test_what_cannot_travel_is_a_pickling_error_that_names_it() -> None:
    with pytest.raises(pickle.PicklingError, match="the task to send") as caught:
        run([delayed(square)(iter(Refused()))])
    assert "Refused" in str(caught.value)
    with pytest.raises(pickle.PicklingError, match="Refused"):
        run([delayed(Refused)()])


class Refused:
    def __iter__(self) -> Refused:
        return self

    def __next__(self) -> None:
        raise StopIteration

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


def test_a_task_that_takes_too_long_is_joblibs_timeout_and_is_stopped() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        run([delayed(time.sleep)(60)], timeout=0.2)
    job = last_job()
    until(job.done)
    assert job.status == "cancelled"
    assert run([delayed(square)(3)]) == [9]


def test_an_interrupt_stops_the_tasks_and_is_one_line() -> None:
    def interrupt() -> None:
        until(lambda: "_retrieve" in functions_of(main))
        os.kill(os.getpid(), signal.SIGINT)

    main = threading.get_ident()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(nbpar.JobInterrupt, match="Interrupted: sleep was cancelled"):
        run(delayed(time.sleep)(60) for _ in range(4))
    thread.join()
    assert last_job().status == "cancelled"
    assert run([delayed(square)(3)]) == [9]


def functions_of(thread: int) -> list[str]:
    """The functions that a thread is in."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[thread])]


def test_an_interrupt_that_a_task_raised_is_raised_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        run([delayed(raise_interrupt)()])
    assert not isinstance(caught.value, nbpar.JobInterrupt)


def raise_interrupt() -> None:
    raise KeyboardInterrupt("mine")


def test_the_cancel_button_ends_the_call() -> None:
    def cancel() -> None:
        until(lambda: last_job().id != before and last_job().status == "running")
        last_job().cancel()

    before = last_job().id if nbpar.jobs() else 0
    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(JobCancelledError):
        run(delayed(time.sleep)(60) for _ in range(4))
    thread.join()


def test_nothing_is_left_of_calls(tmp_path: Path) -> None:
    nbpar.map(square, [1])
    run([delayed(square)(1)])
    with no_leftovers():
        run((delayed(square)(x) for x in range(20)), env={"WORD": "left"})
        with pytest.raises(LookupError):
            run(delayed(fails)(x) for x in range(4))
        results = run((delayed(wait_for)(tmp_path / "never", x) for x in (0, 1, 1)), return_as="generator")
        assert next(results) == 0
        with pytest.warns(UserWarning, match="have been cancelled"):
            del results
        nbpar.interop.joblib.shutdown()


SCRIPT = """
import time, nbpar.interop.joblib
from joblib import Parallel, delayed

nbpar.interop.joblib.register()
results = Parallel(n_jobs=2, backend="nbpar", return_as="generator")(delayed(time.sleep)(x) for x in (0, 100, 100))
print(next(results))
"""


def test_a_generator_that_nobody_reads_does_not_keep_a_script_from_ending() -> None:
    with start_script(SCRIPT) as script:
        out, err = script.communicate(timeout=30)
    assert (script.returncode, out) == (0, "None\n")
    assert "have been cancelled" in err and "Traceback" not in err


def test_where_no_thread_can_be_started_the_call_fails_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(workers, "start_thread", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            run([delayed(square)(1)])
    until(last_job().done)
    assert run([delayed(square)(3)]) == [9]


# --- nesting ----------------------------------------------------------------------------------------------------------


def nested(level: int, **options: Any) -> list[Any]:
    """The backend at each level of calls within calls."""
    with Parallel(n_jobs=2, **options) as parallel:
        here = [type(parallel._backend).__name__]
        if level:
            here += parallel(delayed(nested)(level - 1, **options) for _ in range(1))[0]
        return here


def test_calls_within_calls_use_threads_and_then_nothing() -> None:
    with parallel_config(backend="nbpar", n_jobs=2):
        assert nested(3) == ["NbparBackend", "ThreadingBackend", "SequentialBackend", "SequentialBackend"]


def test_a_call_within_a_task_that_asks_for_nbpar_runs_in_the_worker() -> None:
    inner = [x * x for x in range(5)]
    assert run(delayed(run)([delayed(square)(x) for x in range(5)]) for _ in range(3)) == [inner] * 3
    assert run(delayed(nbpar.map)(square, range(5)) for _ in range(3)) == [inner] * 3
    assert nested(1, backend="nbpar")[1:] == ["SequentialBackend"]


def test_below_threads_it_is_one_job_with_a_warning() -> None:
    def call() -> list[int]:
        with pytest.warns(UserWarning, match="nbpar-backed parallel loops cannot be nested below threads"):
            return list(run([delayed(square)(3)]))

    with parallel_config(backend="threading", n_jobs=2):
        assert Parallel()(delayed(call)() for _ in range(1)) == [[9]]


# --- what the dashboard says ------------------------------------------------------------------------------------------


def test_a_call_is_one_job_with_the_functions_name_and_the_number_of_calls() -> None:
    before = [job.id for job in nbpar.jobs()]
    run([delayed(square)(x) for x in range(30)])
    (job,) = [job for job in nbpar.jobs() if job.id not in before]
    assert (job.name, job.n_tasks, job.n_done, job.status) == ("square", 30, 30, "done")


def test_a_name_may_be_given() -> None:
    run([delayed(square)(1)], name="powers")
    assert last_job().name == "powers"


@pytest.mark.skipif(joblib.__version__.startswith("1.4."), reason="before 1.5 Parallel takes no options of a backend")
def test_options_may_be_given_to_parallel_itself() -> None:
    options: dict[str, Any] = {"name": "cubes", "env": {"WORD": "cube"}}
    with Parallel(n_jobs=2, backend="nbpar", **options) as parallel:
        assert parallel([delayed(os.environ.get)("WORD")]) == ["cube"]
        with pytest.raises(LookupError):
            parallel(delayed(fails)(x) for x in range(4))
        assert parallel([delayed(os.environ.get)("WORD")]) == ["cube"]
    assert last_job().name == "cubes"


def test_the_number_of_calls_is_told_from_the_generator_expression(tmp_path: Path) -> None:
    results = run((delayed(wait_for)(tmp_path / "go", x) for x in [0] + [1] * 9), return_as="generator")
    assert last_job().n_tasks == 10
    (tmp_path / "go").touch()
    assert len(list(results)) == 10


def wrong_lengths() -> Any:
    class Wrong:
        def __len__(self) -> int:
            raise OSError

    return Wrong()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: [1, 2], 2),
        (lambda: range(5), 5),
        (lambda: iter([1, 2, 3]), 3),
        (lambda: (x for x in range(4)), 4),
        (lambda: ((y, y) for y in (x for x in (1, 2))), 2),
        (lambda: (pair for pair in enumerate("abc")), 3),
        (lambda: zip("abc", range(9), strict=False), 3),
        (lambda: zip("abc", (x for x in "ab" if x), strict=False), None),
        (lambda: (x if x > 1 else -x for x in range(4)), None),
        (lambda: (x for x in range(4) if x), None),
        (lambda: (x for x in range(4) for _ in range(2)), None),
        (lambda: map(str, range(4)), None),
        (wrong_lengths, None),
        (lambda: 5, None),
    ],
)
def test_a_length_is_told_only_where_it_is_known(make: Callable[[], Any], expected: int | None) -> None:
    assert naming.length_of(make()) == expected
