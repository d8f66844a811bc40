"""Pools that keep globals: what init and tasks do to the notebook's names stays in their worker, and is never stale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nbpar
from tests.backends.conftest import METHODS
from tests.helpers import run_script

Pool = nbpar.WorkerPool

CELL = """
import functools

model = None
state = {}
calls = []
limit = 1
weights = np.zeros(300_000)

class Box:
    pass

class Single:
    one, n_asked = None, 0

    @classmethod
    def get(cls):
        cls.n_asked += 1
        if cls.one is None:
            cls.one = object()
            return "made", cls.n_asked
        return "kept", cls.n_asked

box = Box()

def init():
    global model, undeclared
    model, undeclared = "loaded", 3
    state["model"] = box.model = "loaded"

def bound():
    return model

def undeclared_one():
    return undeclared

def changed():
    return state.get("model"), getattr(box, "model", None)

def asked():
    calls.append(0)
    return len(calls)

@functools.lru_cache(maxsize=None)
def load():
    return []

def loaded():
    load().append(0)
    return len(load())

def over_limit(x):
    return x > limit

def greeting():
    return "hello"

def greet():
    return greeting()

def total():
    return float(weights.sum())
"""


@pytest.fixture
def cell() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__", "np": np}
    exec(CELL, names)
    return names


@pytest.fixture
def pool(cell: dict[str, Any]) -> Iterator[Pool]:
    """One worker, that ran the cell's init."""
    with Pool(n_workers=1, worker_init=cell["init"], keep_globals=True) as made:
        yield made


def ask(pool: Pool, cell: dict[str, Any], name: str, *args: Any) -> Any:
    """The same by a job and by `submit`, which sends its function in another way."""
    by_map = pool.starmap(cell[name], [args])[0]
    assert pool.submit(cell[name], *args).result() == by_map
    return by_map


def test_tasks_have_what_init_did_to_globals(pool: Pool, cell: dict[str, Any]) -> None:
    assert ask(pool, cell, "bound") == "loaded"
    assert ask(pool, cell, "undeclared_one") == 3
    assert ask(pool, cell, "changed") == ("loaded", "loaded")
    assert cell["model"] is None and cell["state"] == {}


def test_what_tasks_do_to_globals_is_there_for_later_ones(
    pool: Pool, cell: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [pool.submit(cell["asked"]).result() for _ in range(3)] == [1, 2, 3]
    assert pool.starmap(cell["asked"], [()] * 3) == [4, 5, 6]
    assert [pool.submit(cell["loaded"]).result() for _ in range(3)] == [1, 2, 3]
    asked = [pool.submit(cell["Single"].get).result(), *pool.starmap(cell["Single"].get, [()] * 2)]
    assert asked == [("made", 1), ("kept", 2), ("kept", 3)]
    assert capsys.readouterr().err == ""  # nothing is lost, so nothing is said


def test_what_the_notebook_changes_is_never_stale(pool: Pool, cell: dict[str, Any]) -> None:
    assert ask(pool, cell, "over_limit", 2) is True
    assert ask(pool, cell, "greet") == "hello"
    assert ask(pool, cell, "total") == 0.0
    assert ask(pool, cell, "bound") == "loaded"
    cell["limit"] = 5
    cell["weights"][-1] = 1.0
    exec("def greeting():\n    return 'good evening'", cell)
    cell["model"] = "another"
    assert ask(pool, cell, "over_limit", 2) is False
    assert ask(pool, cell, "greet") == "good evening"
    assert ask(pool, cell, "total") == 1.0
    assert ask(pool, cell, "bound") == "another"


def test_a_class_made_anew_is_the_one_that_tasks_see(pool: Pool, cell: dict[str, Any]) -> None:
    exec(
        "class Shape:\n    def area(self):\n        return 1\nshape = Shape()\ndef area():\n    return shape.area()",
        cell,
    )
    assert ask(pool, cell, "area") == 1
    exec("class Shape:\n    def area(self):\n        return 2\nshape = Shape()", cell)
    assert ask(pool, cell, "area") == 2


def test_a_function_in_a_container_is_seen_when_it_is_another_one(pool: Pool, cell: dict[str, Any]) -> None:
    exec("table = {'f': lambda: 1}\ndef use():\n    return table['f']()", cell)
    assert ask(pool, cell, "use") == 1
    exec("table = {'f': lambda: 2}", cell)
    assert ask(pool, cell, "use") == 2


def test_globals_are_those_of_the_call_when_they_are_not_kept(cell: dict[str, Any]) -> None:
    with Pool(n_workers=1, worker_init=cell["init"]) as pool:
        assert pool.starmap(cell["bound"], [()]) == [None]
        assert [pool.submit(cell["asked"]).result() for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("method", METHODS)
def test_a_script_that_loads_in_init_runs_by_every_method(method: str) -> None:
    code = f"""
import nbpar
model = None
def init():
    global model
    model = [1, 2, 3]
def predict(x):
    return model[x]
with nbpar.WorkerPool(n_workers=1, start_method={method!r}, worker_init=init, keep_globals=True) as pool:
    print(pool.map(predict, range(3)), pool.submit(predict, 0).result())
"""
    assert run_script(code) == "[1, 2, 3] 1\n"


def test_the_notebooks_own_pool_does_not_keep_globals() -> None:
    with pytest.raises(TypeError, match="keep_globals"):
        nbpar.configure(keep_globals=True)  # type: ignore[call-arg]  # loops count on names as they are at the call
