"""The soak's books: what is right passes, and each kind of wrong is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbpar.errors import WorkerDiedError
from tests.soak.books import BEGUN, DIES, ENDED, FAILED, Claim, Deaths, Run, audit, note, read_runs

ALIVE = os.getpid()
DEAD = 2**22 + 1  # above any pid
GOOD = [Run(1, ALIVE, ENDED)]


def problems(
    claim: Claim, runs: dict[int, list[Run]], *, retries: int = 0, n_tasks: int | None = 2, **more: Any
) -> str:
    def wrong_value(index: int, value: object) -> str:
        return "" if value == 10 * index else "another"

    def wrong_error(_: int, error: BaseException) -> str:
        return "" if isinstance(error, ValueError | WorkerDiedError) else "of no kind that was asked for"

    found = audit(
        claim,
        runs,
        more.pop("deaths", Deaths()),
        n_tasks=n_tasks,
        retries=retries,
        book="book",
        check_value=wrong_value,
        check_error=wrong_error,
        **more,
    )
    return "\n".join(found)


def done(values: dict[int, Any], errors: dict[int, BaseException] | None = None) -> Claim:
    return Claim("done", values, errors or {})


def test_a_job_that_went_well_is_well() -> None:
    assert problems(done({0: 0, 1: 10}), {0: GOOD, 1: GOOD}) == ""


def test_what_is_allowed_is_well() -> None:
    failed, lost = Run(1, ALIVE, FAILED), Run(1, DEAD, "")
    again = [Run(1, DEAD, ENDED), Run(1, ALIVE, ENDED)]  # it had not been reported when its worker died
    assert problems(done({0: 0, 1: 10}), {0: again, 1: GOOD}) == ""
    assert problems(done({0: 0, 1: 10}), {0: [failed, Run(2, ALIVE, ENDED)], 1: GOOD}, retries=1) == ""
    assert problems(done({1: 10}, {0: ValueError()}), {0: [failed], 1: GOOD}) == ""
    assert problems(done({1: 10}, {0: WorkerDiedError("died")}), {0: [lost], 1: GOOD}) == ""
    assert problems(Claim("cancelled", {1: 10}), {0: [Run(1, ALIVE, "")], 1: GOOD}) == ""
    assert problems(done({0: 0, 1: 10}), {1: GOOD}, restored={0: 0}) == ""


WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "lost": (lambda: problems(done({0: 0}), {0: GOOD, 1: GOOD}), "tasks [1] have no outcome"),
    "shifted": (lambda: problems(done({0: 10, 1: 0}), {0: GOOD, 1: GOOD}), "wrong value"),
    "two outcomes": (lambda: problems(done({0: 0, 1: 10}, {0: ValueError()}), {0: GOOD, 1: GOOD}), "and an error"),
    "another error": (lambda: problems(done({1: 10}, {0: KeyError()}), {0: GOOD, 1: GOOD}), "wrong error"),
    "never ran": (lambda: problems(done({0: 0, 1: 10}), {0: GOOD}), "never ended well"),
    "twice": (lambda: problems(done({0: 0, 1: 10}), {0: 2 * GOOD, 1: GOOD}), "ended well more than once"),
    "without need": (
        lambda: problems(done({1: 10}, {0: ValueError()}), {0: 3 * [Run(1, ALIVE, FAILED)], 1: GOOD}),
        "failed 3 times, with retries=0",
    ),
    "after all": (
        lambda: problems(done({0: 0, 1: 10}), {0: [Run(1, ALIVE, FAILED), Run(2, ALIVE, ENDED)], 1: GOOD}),
        "too many attempts",
    ),
    "no end": (
        lambda: problems(done({0: 0, 1: 10}), {0: [Run(1, ALIVE, ""), *GOOD], 1: GOOD}),
        "neither ended nor lost its worker",
    ),
    "known": (lambda: problems(done({0: 0, 1: 10}), {0: GOOD, 1: GOOD}, restored={0: 0}), "though its value was known"),
    "threads": (lambda: problems(done({0: 0, 1: 10}), {0: 2 * GOOD, 1: GOOD}, abandons=True), "ran 2 times"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_found(kind: str) -> None:
    said, expected = WRONG[kind]
    assert expected in said()


def test_a_task_that_is_blamed_for_the_death_of_another_is_found() -> None:
    deaths = Deaths()
    deaths.by_act(DEAD, "book", 1)
    error = WorkerDiedError("died")
    error.pid = DEAD
    runs = {0: [Run(1, DEAD, "")], 1: [Run(1, DEAD, DIES)]}
    said = problems(done({}, {0: error, 1: error}), runs, deaths=deaths)
    assert "task 0 has a wrong error: task ('book', 1) ended that worker" in said
    assert "task 1 has" not in said


def test_what_tasks_write_is_read_again(tmp_path: Path) -> None:
    book = str(tmp_path / "book")
    assert read_runs(book) == {}
    for kind, index, attempt in [(BEGUN, 3, 1), (BEGUN, 4, 1), (FAILED, 3, 1), (BEGUN, 3, 2), (ENDED, 3, 2)]:
        note(book, kind, index, attempt)
    assert read_runs(book) == {3: [Run(1, ALIVE, FAILED), Run(2, ALIVE, ENDED)], 4: [Run(1, ALIVE, "")]}
    assert read_runs(book, skip=3) == {3: [Run(2, ALIVE, ENDED)]}
