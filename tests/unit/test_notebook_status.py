"""`%nbpar`: the table, and running a failed item again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import nbpar
from nbpar.notebook.debug import failed_task
from nbpar.notebook.shell import getoutput, system
from nbpar.notebook.source import Refused
from nbpar.notebook.status import status_text


@pytest.fixture
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
        yield pool


def inverse(x: int) -> float:
    return 1 / x


def failing(pool: nbpar.WorkerPool, **options: Any) -> nbpar.Job[Any]:
    job = pool.map_async(inverse, [1, 0, 2, 0], on_error="return", name="inverses", **options)
    job.wait()
    return job


def test_table(pool: nbpar.WorkerPool) -> None:
    job = failing(pool)
    lines = status_text([pool], [job]).splitlines()
    assert lines[0].startswith("1 worker (threads), pid ")
    assert lines[2].split() == ["id", "name", "status", "tasks", "failed", "seconds"]
    assert lines[3].split()[:5] == [str(job.id), "inverses", "done", "4/4", "2"]


def test_table_keeps_to_the_latest_jobs(pool: nbpar.WorkerPool) -> None:
    jobs = [pool.map_async(abs, [n]) for n in range(12)]
    for job in jobs:
        job.wait()
    lines = status_text([], jobs).splitlines()
    assert len(lines) == 1 + 1 + 10 + 1
    assert "2 older" in lines[-1]


def test_the_first_failure_of_the_last_failed_job(pool: nbpar.WorkerPool) -> None:
    earlier, job = failing(pool), failing(pool)
    good = pool.map_async(abs, [1])
    good.wait()
    sentence, task = failed_task([earlier, job, good], None, None, force=False)
    assert sentence == f"Running item 1 = 0 of job {job.id} (inverses) again in the kernel."
    with pytest.raises(ZeroDivisionError) as raised:
        task()
    assert raised.traceback[-1].name == "inverse"


def test_item_and_job_by_number(pool: nbpar.WorkerPool) -> None:
    job = failing(pool)
    sentence, _ = failed_task([job], job.id, 3, force=False)
    assert "item 3 = 0" in sentence


@pytest.mark.parametrize(("index", "reason"), [(0, "did not fail; failed: 1, 3"), (9, "did not fail")])
def test_no_such_failure(pool: nbpar.WorkerPool, index: int, reason: str) -> None:
    job = failing(pool)
    with pytest.raises(Refused, match=reason):
        failed_task([job], job.id, index, force=False)


def test_no_such_job(pool: nbpar.WorkerPool) -> None:
    job = failing(pool)
    with pytest.raises(Refused, match=f"no job 0; jobs with failures: {job.id}"):
        failed_task([job], 0, None, force=False)
    with pytest.raises(Refused, match="no job has failures"):
        failed_task([], None, None, force=False)


def test_the_task_knows_itself_and_its_seed(pool: nbpar.WorkerPool) -> None:
    seen: list[tuple[int, float]] = []

    def task(x: int) -> None:
        seen.append((nbpar.current_task().index, random.random()))
        raise ValueError(x)

    job = pool.map_async(task, [5, 6], on_error="skip", seed=3)
    job.wait()
    state = random.getstate()
    _, again = failed_task([job], job.id, 1, force=False)
    try:
        with pytest.raises(ValueError, match="6"):
            again()
    finally:
        random.setstate(state)
    assert seen[2] == seen[1]
    assert seen[1][0] == 1
    with pytest.raises(nbpar.NbparError, match="outside a task"):
        nbpar.current_task()


def test_starred_items(pool: nbpar.WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.starmap(divmod, [(1, 1), (1, 0)])
    with pytest.raises(ZeroDivisionError):
        failed_task(nbpar.jobs(), None, None, force=False)[1]()


def test_streamed_items(pool: nbpar.WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError):
        list(pool.imap(inverse, iter([1, 0, 1])))
    sentence, task = failed_task(nbpar.jobs(), None, None, force=False)
    assert "item 1 = 0" in sentence
    with pytest.raises(ZeroDivisionError):
        task()


def test_good_jobs_keep_nothing(pool: nbpar.WorkerPool) -> None:
    job = pool.map_async(abs, [1, 2])
    job.wait()
    assert job._recipe is None
    assert failing(pool)._recipe is not None


def test_what_killed_its_worker_is_not_run_here() -> None:
    with nbpar.WorkerPool(n_workers=1) as pool:
        job = pool.map_async(_die, [1], on_error="skip")
        job.wait()
    with pytest.raises(Refused, match=f"%nbpar debug --force {job.id} 0"):
        failed_task([job], None, None, force=False)
    assert "item 0" in failed_task([job], None, None, force=True)[0]


def _die(_: int) -> None:
    import os

    os._exit(3)


def test_shell_commands(capfd: pytest.CaptureFixture[str]) -> None:
    system("echo {n + 1} $n; echo err >&2", {"n": 1})
    assert capfd.readouterr().out == "2 1\nerr\n"
    assert getoutput("echo a; echo {n}", {"n": 1}) == ["a", "1"]
    assert getoutput("echo ${HOME:+x} {", {}) == ["x {"]
