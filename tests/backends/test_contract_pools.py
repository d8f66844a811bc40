"""What every backend promises of its workers: their start, their surroundings, their replacement, what they print."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import SerializationError, WorkerStartError
from tests.backends.conftest import PROCESSES, WITH_WORKERS, MakePool, only
from tests.helpers import alive, no_leftovers, until

Pool = nbpar.WorkerPool


def log_to(path: Path) -> Callable[[], None]:
    """A hook that leaves a line for each call."""

    def hook() -> None:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")

    return hook


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_hooks_run_once_in_each_worker_when_given(make_pool: MakePool, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    with make_pool(worker_init=log_to(begun), worker_exit=log_to(ended)) as pool:
        pool.map(abs, range(10))
        until(lambda: len(pool.pids()) == pool.n_workers and len(lines(begun)) == pool.n_workers)
        pool.map(abs, range(10))
        assert lines(ended) == []
    assert sorted(lines(ended)) == sorted(lines(begun))


def test_state_of_the_init_is_there_when_tasks_run(make_pool: MakePool) -> None:
    def init() -> None:
        os.environ["NBPAR_TEST_INIT"] = "here"

    try:
        with make_pool(worker_init=init) as pool:
            assert set(pool.map(lambda _: os.environ.get("NBPAR_TEST_INIT"), range(4))) == {"here"}
    finally:
        os.environ.pop("NBPAR_TEST_INIT", None)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_init_error_is_raised_once_when_it_fails(
    make_pool: MakePool, method: str, tmp_path: Path, kind: type[BaseException]
) -> None:
    if method == "serial" and kind is SystemExit:
        pytest.skip("in the caller's own thread it is the caller's exit")
    count = log_to(tmp_path / "log")

    def broken_init() -> None:
        count()
        raise kind("no licence")

    pool = make_pool(worker_init=broken_init)
    with pytest.raises(WorkerStartError, match=f"worker_init failed: {kind.__name__}: no licence") as caught:
        pool.map(abs, range(10))
    assert type(caught.value.__cause__) is kind
    steps = []
    step = caught.value.__cause__.__traceback__
    while step is not None:
        steps.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert "broken_init" in steps
    n_calls = len(lines(tmp_path / "log"))
    assert n_calls <= 2 * pool.n_workers, "workers are started again and again"
    with pytest.raises(WorkerStartError):
        pool.map(abs, range(10))


def test_shutdown_goes_on_when_the_exit_hook_fails(make_pool: MakePool, method: str) -> None:
    def broken_exit() -> None:
        raise ValueError("in the exit")

    pool = make_pool(worker_exit=broken_exit)
    assert pool.map(abs, [-1]) == [1]
    pool.shutdown()
    assert pool.pids() == {} or method == "serial"


@only(*PROCESSES)
def test_hook_is_refused_at_once_when_it_cannot_be_sent(make_pool: MakePool) -> None:
    held = (x for x in "ab")
    with pytest.raises(SerializationError, match="worker_init cannot be sent"):
        make_pool(worker_init=lambda: next(held))


# --- replacement ------------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_workers_are_replaced_when_they_have_done_their_tasks(make_pool: MakePool) -> None:
    pool = make_pool(tasks_per_worker=3)
    pids = pool.map(lambda _: os.getpid(), range(10))
    assert max(pids.count(pid) for pid in set(pids)) <= 3
    assert pool.map(abs, range(7), chunk_size=5) == list(range(7))


@only("forkserver", "fork", "threads")
def test_every_item_has_its_result_when_workers_are_replaced_all_the_time(make_pool: MakePool) -> None:
    pool = make_pool(tasks_per_worker=1)
    assert pool.map(lambda x: x, range(12)) == list(range(12))


@only(*PROCESSES)
def test_workers_end_and_come_back_when_idle(make_pool: MakePool) -> None:
    pool = make_pool(idle_timeout=0.1)
    first = set(pool.map(lambda _: os.getpid(), range(4)))
    until(lambda: not pool.pids())
    until(lambda: not any(alive(pid) for pid in first))
    assert not first & set(pool.map(lambda _: os.getpid(), range(4)))


@only(*PROCESSES)
def test_workers_are_new_when_the_pool_is_restarted(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.map(abs, range(4))
    until(lambda: len(pool.pids()) == 2)
    before = set(pool.pids().values())
    pool.restart()
    assert not before & set(pool.map(lambda _: os.getpid(), range(20)))
    until(lambda: not any(alive(pid) for pid in before))


@only(*WITH_WORKERS)
def test_workers_are_up_before_the_first_job_when_warmed(make_pool: MakePool) -> None:
    pool = make_pool()
    assert pool.pids() == {}
    pool.warm()
    until(lambda: len(pool.pids()) == 2)


@only(*PROCESSES)
def test_nothing_is_left_when_a_pool_is_shut_down(pool: Pool, method: str) -> None:
    with no_leftovers(), nbpar.WorkerPool(n_workers=2, start_method=method) as other:  # type: ignore[arg-type]
        other.map(abs, range(10))
        other.starmap(lambda array, i: array[i], [(nbpar.share(np.zeros(1000)), 5)])


@only(*WITH_WORKERS)
def test_nothing_is_left_when_a_pool_is_dropped(pool: Pool, method: str) -> None:
    with no_leftovers():
        other = nbpar.WorkerPool(n_workers=2, start_method=method)  # type: ignore[arg-type]
        other.map(abs, range(10))
        del other


@only(*WITH_WORKERS)
def test_a_job_ends_and_nothing_is_left_when_its_pool_is_dropped(pool: Pool, method: str, tmp_path: Path) -> None:
    def task(x: int) -> int:
        (tmp_path / "begun").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return x

    with no_leftovers():
        other = nbpar.WorkerPool(n_workers=2, start_method=method)  # type: ignore[arg-type]
        job = other.map_async(task, range(4))
        until((tmp_path / "begun").exists)
        del other
        (tmp_path / "go").touch()
        assert job.result(timeout=10) == [0, 1, 2, 3]


@only(*PROCESSES)
def test_descriptors_do_not_add_up_when_maps_are_many(pool: Pool) -> None:
    from tests.helpers import descriptors

    for _ in range(5):
        pool.map(lambda x: x, range(10))
    before = len(descriptors())
    for i in range(60):
        pool.map(lambda x, i=i: x + i, range(10))
    assert len(descriptors()) <= before


# --- surroundings -----------------------------------------------------------------------------------------------------


@only(*PROCESSES)
def test_environment_is_the_kernels_and_the_options_when_tasks_look(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBPAR_TEST_KERNEL", "kernel")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pool = make_pool(env={"NBPAR_TEST_OPTION": "option"}, threads_per_worker=3)
    names = ("NBPAR_TEST_KERNEL", "NBPAR_TEST_OPTION", "OMP_NUM_THREADS")

    def look(name: str) -> str | None:
        return os.environ.get(name)

    assert pool.map(look, names) == ["kernel", "option", "3"]
    assert "NBPAR_TEST_OPTION" not in os.environ


@only(*PROCESSES)
@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_workers_stay_on_their_cpus_when_told(make_pool: MakePool) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    first, last = cpus[0], cpus[-1]
    pool = make_pool(cpu_ids=[first, [last]])
    got = dict(pool.map(lambda _: (nbpar.current_task().worker_id, os.sched_getaffinity(0)), range(40), chunk_size=1))
    assert got.items() <= {0: {first}, 1: {last}}.items()
    assert got


@only(*PROCESSES)
def test_blas_is_limited_when_threads_are_given(make_pool: MakePool) -> None:
    def n_threads(_: int) -> list[int]:
        import numpy as np
        from threadpoolctl import threadpool_info

        np.ones((2, 2)) @ np.ones((2, 2))
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    pool = make_pool(threads_per_worker=1)
    assert all(numbers == [1] * len(numbers) for numbers in pool.map(n_threads, range(2)))


@only(*PROCESSES)
def test_folder_and_path_are_the_kernels_when_they_change(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"found_{pool.start_method}.py").write_text("VALUE = 5")

    def task(name: str) -> tuple[str, int]:
        import importlib

        return str(Path.cwd()), importlib.import_module(name).VALUE

    assert pool.map(task, [f"found_{pool.start_method}"]) == [(str(tmp_path), 5)]


@only(*PROCESSES)
def test_tasks_run_in_the_main_thread_when_they_want_signals(pool: Pool) -> None:
    assert pool.map(lambda _: threading.current_thread() is threading.main_thread(), [1]) == [True]


# --- output -----------------------------------------------------------------------------------------------------------

Capture = pytest.CaptureFixture[str]


@only(*WITH_WORKERS)
def test_lines_arrive_whole_and_labelled_when_tasks_print(pool: Pool, capsys: Capture) -> None:
    def task(x: int) -> None:
        for i in range(3):
            print("item", x, end=" ")
            print("line", i)
        print("to stderr", x, file=sys.stderr)
        print("no end", x, end="")

    pool.map(task, range(10))
    out, err = capsys.readouterr()
    for x in range(10):
        mine = [line for line in out.splitlines() if f"item {x}]" in line]
        texts = [line.partition("] ")[2] for line in mine]
        assert texts == [f"item {x} line {i}" for i in range(3)] + [f"no end {x}"]
        assert [line.partition("] ")[2] for line in err.splitlines() if f"item {x}]" in line] == [f"to stderr {x}"]
    assert len(out.splitlines()) == 40


def test_prints_come_out_when_the_pool_is_serial(capsys: Capture) -> None:
    with nbpar.WorkerPool(start_method="serial") as pool:
        pool.map(print, "ab")
    assert capsys.readouterr().out == "a\nb\n"


@only(*PROCESSES)
def test_output_arrives_when_it_goes_to_the_descriptors(pool: Pool, capsys: Capture) -> None:
    def task(x: int) -> None:
        os.write(1, b"raw %d\n" % x)
        subprocess.run(["echo", "child", str(x)], check=True)
        os.system(f"echo shell {x} 1>&2")

    pool.map(task, range(5))
    out = capsys.readouterr().out
    for x in range(5):
        for kind in ("raw", "child", "shell"):
            assert f"{kind} {x}" in out


@only(*WITH_WORKERS)
def test_lines_arrive_when_the_task_fails(pool: Pool, capsys: Capture) -> None:
    def task(x: int) -> None:
        print("before the error")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        pool.map(task, [0])
    assert "before the error" in capsys.readouterr().out


@only(*WITH_WORKERS)
def test_lines_arrive_when_the_task_was_submitted(pool: Pool, capsys: Capture) -> None:
    pool.submit(print, "hello").result()
    seen = ""

    def arrived() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return "hello" in seen

    until(arrived)


@only("forkserver", "spawn")  # a forked worker has the recorder of warnings that pytest is
def test_warnings_and_logs_arrive_when_tasks_make_them(pool: Pool, capsys: Capture) -> None:
    def task(x: int) -> None:
        warnings.warn("watch out", stacklevel=1)
        logging.getLogger("nbpar-test").warning("logged %d", x)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        pool.map(task, [0])
    err = capsys.readouterr().err
    assert "UserWarning: watch out" in err
    assert "logged 0" in err


@only(*PROCESSES)
def test_warnings_are_errors_in_tasks_when_they_are_in_the_kernel(pool: Pool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="watch out"):
            pool.map(lambda x: warnings.warn("watch out", stacklevel=1), [0])


@only(*WITH_WORKERS)
def test_flood_is_cut_and_said_when_tasks_print_too_much(pool: Pool, capsys: Capture) -> None:
    pool.map(lambda x: [print("x" * 1000) for _ in range(4000)] and None, range(2))
    out, err = capsys.readouterr()
    n_lines = sum("xxx" in line for line in out.splitlines())
    assert n_lines == 8000 or "more lines were dropped" in err


# --- the notebook's own pool ------------------------------------------------------------------------------------------


def test_verbs_use_the_notebooks_pool_when_called_as_functions(method: str) -> None:
    settings: dict[str, Any] = {"start_method": method}
    if method != "serial":
        settings["n_workers"] = 2
    nbpar.configure(**settings)
    try:
        assert nbpar.map(abs, [-1, -2]) == [1, 2]
        assert nbpar.starmap(pow, [(2, 3)]) == [8]
        assert list(nbpar.imap(abs, [-1])) == [1]
        assert nbpar.map_async(abs, [-1]).result() == [1]
        assert nbpar.submit(abs, -1).result() == 1
        assert nbpar.default_pool().start_method == method
    finally:
        nbpar.shutdown()
        nbpar.configure()


@only("forkserver", "spawn")
def test_new_code_runs_when_a_module_was_edited(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    name = f"edited_{method}"
    module_file = tmp_path / f"{name}.py"
    module_file.write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module(name)
    nbpar.configure(n_workers=1, start_method=method)  # type: ignore[arg-type]
    try:
        assert nbpar.map(module.f, [1]) == [1]
        module_file.write_text("def f(x):\n    return x + 100\n")
        importlib.reload(module)
        assert nbpar.map(module.f, [1]) == [101]
    finally:
        nbpar.shutdown()
        nbpar.configure()
