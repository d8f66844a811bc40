"""Strict jobs, as loops are: what their tasks change of what they brought fails the job, in every kind of worker."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.errors import LostUpdateError
from tests.backends.conftest import PROCESSES, MakePool, only
from tests.helpers import until

CELL = """
import functools, random, time
import numpy as np

cache, kept, counts = {}, [], np.zeros((200, 100))

class Sim:
    n = 0
    def __init__(self, x=0): self.x = x
    def step(self, x):
        self.x += x
        return self.x
    def count(self):
        type(self).n += 1

class Bad(Exception): pass

sim = Sim()

def reads(x): return x + len(cache) + len(kept) + sim.x + int(counts[0, 0]) + Sim.n
def remembers(x): cache[x] = x
def collects(x): kept.append(x)
def writes(x): counts[x, 3] = 1.0
def steps(x): return sim.step(1)
def counts_all(x): sim.count()
def draws(x): return random.random()
def makes(x): return Sim(x)
def raises(x):
    if x == 3: raise Bad(x)
    return x
def gives_back(x): return x
def grows(x): x.append(1)
def late(x):
    time.sleep(0.002)
    if x == 59: kept.append(x)
"""


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, found)
    return found


@pytest.fixture(autouse=True)
def nothing_has_changed_here(names: dict[str, Any]) -> Any:
    yield
    assert (names["cache"], names["kept"], names["sim"].x, names["Sim"].n) == ({}, [], 0, 0)
    assert not names["counts"].any()


def strictly(pool: nbpar.WorkerPool, function: Callable[..., Any], items: Any, **options: Any) -> list[Any]:
    return pool.map_strictly(function, items, progress=False, **options)


def test_tasks_that_only_read_give_their_results(pool: nbpar.WorkerPool, names: dict[str, Any]) -> None:
    assert strictly(pool, names["reads"], range(100)) == list(range(100))
    made = strictly(pool, names["makes"], range(3))
    assert [type(one) is names["Sim"] for one in made] == [True] * 3
    assert [one.x for one in made] == [0, 1, 2]
    sims = [names["Sim"](1), names["Sim"](2)]
    assert [type(one) is names["Sim"] for one in strictly(pool, names["gives_back"], sims)] == [True] * 2
    assert strictly(pool, names["gives_back"], []) == []


@pytest.mark.parametrize(
    ("function", "changed"),
    [
        ("remembers", "cache"),
        ("collects", "kept"),
        ("writes", "counts"),
        ("steps", "sim"),
        ("counts_all", "Sim.n"),
        ("draws", "the state of random"),
        ("late", "kept"),
    ],
)
def test_a_change_fails_the_job_and_happens_to_a_copy(
    pool: nbpar.WorkerPool, names: dict[str, Any], function: str, changed: str
) -> None:
    before = random.getstate()
    with pytest.raises(LostUpdateError) as caught:
        strictly(pool, names[function], range(60))
    until(lambda: random.getstate() == before)  # a thread may have been in the middle of its tasks
    assert changed in caught.value.names and "was changed by tasks" in str(caught.value)
    assert strictly(pool, names["reads"], range(3)) == [0, 1, 2]


def test_a_changed_item_fails_the_job_unless_that_is_asked_for(pool: nbpar.WorkerPool, names: dict[str, Any]) -> None:
    items: list[list[int]] = [[], []]
    with pytest.raises(LostUpdateError, match="the item"):
        strictly(pool, names["grows"], items)
    assert strictly(pool, names["grows"], items, strict="captured") == [None, None]
    assert items == [[], []]


def test_seeded_tasks_may_draw(pool: nbpar.WorkerPool, names: dict[str, Any]) -> None:
    assert strictly(pool, names["draws"], range(5), seed=1) == strictly(pool, names["draws"], range(5), seed=1)


def test_errors_of_the_notebooks_own_classes_are_those_classes(pool: nbpar.WorkerPool, names: dict[str, Any]) -> None:
    with pytest.raises(names["Bad"]):
        strictly(pool, names["raises"], range(5))
    results = strictly(pool, names["raises"], range(5), on_error="return")
    assert type(results[3].__cause__) is names["Bad"] and results[4] == 4


def test_results_and_items_that_cannot_travel_are_their_own_tasks_errors(
    pool: nbpar.WorkerPool, names: dict[str, Any]
) -> None:
    results = strictly(pool, lambda x: (y for y in [x]) if x == 1 else x, range(3), on_error="return")
    assert results[0] == 0 and results[2] == 2 and isinstance(results[1], nbpar.SerializationError)
    items = [1, (y for y in [1]), 3]
    results = strictly(pool, lambda x: x, items, on_error="return")
    assert results[0] == 1 and results[2] == 3 and isinstance(results[1], nbpar.SerializationError)


def test_a_function_that_cannot_travel_is_the_calls_error(pool: nbpar.WorkerPool) -> None:
    stream = (y for y in [1])
    with pytest.raises(nbpar.SerializationError, match="the function cannot be sent"):
        strictly(pool, lambda x: (x, stream), range(3))


def test_retries_begin_with_the_item_as_it_was(make_pool: MakePool) -> None:
    pool = make_pool()

    def grows_until_it_works(x: list[int]) -> int:
        if nbpar.current_task().attempt == 1:
            raise KeyError
        return len(x)

    assert strictly(pool, grows_until_it_works, [[1], [2]], retries=1) == [1, 1]


@only(*PROCESSES)
def test_the_last_look_is_taken_although_looking_is_dear(
    pool: nbpar.WorkerPool, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = np.zeros(3_000_000)

    def writes_at_the_end(x: int) -> None:
        time.sleep(0.003)
        if x == 49:
            grid[-1] = 1

    with pytest.raises(LostUpdateError, match="grid"):
        strictly(pool, writes_at_the_end, range(50))


def test_a_plain_map_is_not_strict(pool: nbpar.WorkerPool, names: dict[str, Any], method: str) -> None:
    if method in PROCESSES:  # elsewhere it would change the cell's
        assert pool.map(names["collects"], range(3), progress=False) == [None] * 3
