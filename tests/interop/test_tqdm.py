"""`process_map` and `thread_map` as programs that were written for tqdm use them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from tqdm.std import TqdmKeyError, tqdm

import nbpar
from nbpar.errors import OptionsError, WorkerDiedError
from nbpar.interop import tqdm as door
from nbpar.interop.tqdm import ensure_lock, process_map, thread_map
from nbpar.views.cell import Cell
from tests.helpers import no_leftovers, until


@pytest.fixture(autouse=True)
def default_pool() -> Iterator[None]:
    """The notebook's own pool is one of threads, but where a test asks for others."""
    nbpar.configure(n_workers=2, start_method="threads")
    yield
    nbpar.configure()


class Recorded(tqdm):  # type: ignore[type-arg]  # not subscriptable when it runs
    """Remembers what became of its last instance."""

    last: Recorded

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"file": io.StringIO(), **kwargs})
        self.was_closed = False
        Recorded.last = self

    def close(self) -> None:
        self.was_closed = True
        super().close()


def test_results_are_those_of_map() -> None:
    assert process_map(abs, [-1, 2, -3]) == [1, 2, 3]
    assert thread_map(abs, (i for i in [-1, 2])) == [1, 2]
    assert process_map(pow, [2, 3, 4], iter([5, 2]), chunksize=1) == [32, 9]
    assert process_map(abs, []) == thread_map(abs, []) == process_map(abs) == []


def test_a_call_takes_the_pool_of_the_notebook_unless_it_asks_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Pool(nbpar.WorkerPool):
        def __init__(self, **options: Any) -> None:
            made.append({name: value for name, value in options.items() if value is not None})
            super().__init__(**(options | {"start_method": "threads"}))

    monkeypatch.setattr(door, "WorkerPool", Pool)
    assert set(process_map(lambda _: os.getpid(), range(4))) == {os.getpid()}
    assert made == []
    process_map(abs, [1], max_workers=3)
    process_map(abs, [1], max_tasks_per_child=2)
    process_map(abs, [1], mp_context="spawn")
    assert made == [{"n_workers": 3}, {"tasks_per_worker": 2}, {"start_method": "spawn"}]
    thread_map(abs, [1])
    thread_map(abs, [1], max_workers=2)
    n_default = min(32, (os.cpu_count() or 1) + 4)
    assert made[3:] == [{"n_workers": n, "start_method": "threads"} for n in (n_default, 2)]


def test_workers_of_one_call_end_with_it() -> None:
    assert process_map(abs, [1], max_workers=1) == [1]  # so that the fork server runs, which stays
    with no_leftovers():
        (pid,) = set(process_map(lambda _: os.getpid(), range(4), max_workers=1))
        assert pid != os.getpid()
        with pytest.raises(ZeroDivisionError):
            process_map(lambda x: 1 / x, [1, 0], max_workers=1)


def test_the_first_exception_is_raised_with_its_item() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        process_map(lambda x: 1 / x, [1, 0])
    assert "item 1 = 0" in caught.value.__notes__[0]


def test_a_dead_worker_is_a_broken_pool_that_names_the_item() -> None:
    with pytest.raises(BrokenProcessPool, match=r"item 1 = 3.*exit code 3") as caught:
        process_map(lambda x: x and os._exit(x), [0, 3], max_workers=1, chunksize=1)
    error: Any = caught.value
    assert isinstance(error.__cause__, WorkerDiedError)
    assert error.results == [0]


def test_a_call_gives_up_after_its_time_and_stops_its_tasks() -> None:
    begin_s = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        process_map(time.sleep, [60, 60], timeout=0.05, max_workers=2)
    assert time.monotonic() - begin_s < 30
    assert process_map(abs, [-1], timeout=30) == [1]


@pytest.mark.parametrize("bad", [{"max_workers": 0}, {"chunksize": 0}, {"retries": -1}, {"buffersize": 0}])
def test_arguments_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|not allowed"):
        process_map(abs, [1], **bad)


def test_what_is_no_argument_of_tqdm_is_refused_as_tqdm_refuses_it() -> None:
    ran: list[int] = []
    with pytest.raises(TqdmKeyError, match="nonsense"):
        process_map(ran.append, [1], nonsense=3)
    assert process_map(abs, [1]) == [1]
    assert ran == []


def test_options_of_nbpar_come_beside_those_of_tqdm() -> None:
    tries: list[int] = []

    def second_time_lucky(x: int) -> int:
        tries.append(x)
        if len(tries) < 2:
            raise ValueError(x)
        return x

    assert process_map(second_time_lucky, [5], retries=1, buffersize=1, seed=3) == [5]
    with pytest.raises(OptionsError, match="seed"):
        thread_map(abs, [1], seed=-1)


def test_a_call_inside_a_task_runs_there() -> None:
    def inner(x: int) -> tuple[list[int], list[int]]:
        return process_map(lambda _: os.getpid(), [1, 2], max_workers=2), thread_map(abs, [-x])

    (pids, values), _ = process_map(inner, [1, 2], max_workers=1)
    assert values == [1]
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


# --- progress ---------------------------------------------------------------------------------------------------------


def test_the_description_names_the_job_and_its_progress(capsys: pytest.CaptureFixture[str]) -> None:
    process_map(time.sleep, [0.4, 0], desc="naps", chunksize=1)
    assert nbpar.jobs()[-1].name == "naps"
    assert "naps: 2 of 2 tasks" in capsys.readouterr().err  # of an output that is no terminal: a line at the end


@pytest.mark.parametrize("disable", [True, None])
def test_a_disabled_bar_is_not_shown_where_there_is_no_terminal(
    disable: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    process_map(time.sleep, [0.4, 0], desc="naps", disable=disable, chunksize=1)
    assert capsys.readouterr().err == ""


def test_a_bar_of_another_class_counts_the_tasks() -> None:
    seen: list[float] = []

    def look(x: int) -> int:
        if x:
            until(lambda: Recorded.last.n == 2)
            seen.append(Recorded.last.n)
        return x

    assert process_map(look, [0, 0, 1], tqdm_class=Recorded, desc="counted", total=7, chunksize=1) == [0, 0, 1]
    bar = Recorded.last
    assert (bar.n, bar.total, bar.desc, bar.was_closed) == (3, 7, "counted", True)
    assert seen == [2]


def test_a_bar_knows_how_many_tasks_there_are_and_is_closed_after_a_failure() -> None:
    thread_map(pow, iter([1, 2, 3]), [4, 5], tqdm_class=Recorded)
    assert (Recorded.last.total, Recorded.last.n) == (2, 2)
    with pytest.raises(ZeroDivisionError):
        thread_map(lambda x: 1 / x, [0], tqdm_class=Recorded)
    assert Recorded.last.was_closed


def test_a_bar_with_a_look_of_its_own_is_tqdms() -> None:
    file = io.StringIO()
    process_map(abs, [1, 2], file=file, unit="page", desc="read", ascii=True)
    assert "read: 100%|##########| 2/2" in file.getvalue()
    assert "page/s" in file.getvalue()


@pytest.mark.parametrize(
    ("kwargs", "in_terminal", "in_notebook"),
    [
        ({}, False, False),
        ({"desc": "a", "total": 3, "mininterval": 1, "miniters": 2, "smoothing": 0.3}, False, False),
        ({"leave": True, "unit": "it", "position": None, "file": None}, False, False),
        ({"leave": False}, True, False),
        ({"unit": "page"}, True, False),
        ({"leave": False, "disable": True}, False, False),
        ({"file": io.StringIO()}, True, True),
        ({"nonsense": None}, True, True),
    ],
)
def test_a_notebook_has_its_card_whatever_a_bar_would_look_like(
    kwargs: dict[str, Any], in_terminal: bool, in_notebook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert door._wants_bar(None, kwargs) is in_terminal
    assert door._wants_bar(Recorded, kwargs) is True
    monkeypatch.setattr(Cell, "current", object)
    assert door._wants_bar(None, kwargs) is in_notebook
    assert door._wants_bar(Recorded, kwargs) is True


def test_a_lock_is_lent_to_a_class_of_bars() -> None:
    class Bar(Recorded):
        pass

    own = threading.RLock()
    before = getattr(Bar, "_lock", None)
    with ensure_lock(Bar, lock=own) as lock:
        assert lock is own
        assert vars(Bar)["_lock"] is own
    assert getattr(Bar, "_lock", None) is before
    with ensure_lock(Bar, "mp_lock") as lock:
        assert vars(Bar)["_lock"] is lock


def test_tqdm_is_not_loaded_before_a_bar_of_it_is_asked_for() -> None:
    code = (
        "import sys, nbpar\n"
        "from nbpar.interop.tqdm import process_map\n"
        "nbpar.configure(start_method='serial')\n"
        "assert process_map(abs, [-1], desc='a') == [1]\n"
        "assert 'tqdm' not in sys.modules\n"
        "sys.modules['tqdm'] = None\n"
        "try:\n"
        "    process_map(abs, [-1], leave=False)\n"
        "except ImportError as error:\n"
        "    assert 'pip install tqdm' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
