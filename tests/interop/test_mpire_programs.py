"""Programs as MPIRE's users write them, by the topics of its documentation; only the import is another."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbpar.interop.mpire import WorkerPool
from nbpar.interop.mpire.utils import make_single_arguments
from tests.helpers import ROOT

# --- a connection to a database for each worker -----------------------------------------------------------------------


def connect(worker_state: dict[str, Any]) -> None:
    worker_state["connection"] = sqlite3.connect(":memory:")
    worker_state["connection"].execute("CREATE TABLE seen (number INTEGER, square INTEGER)")


def insert(worker_state: dict[str, Any], number: int) -> int:
    connection = worker_state["connection"]
    connection.execute("INSERT INTO seen VALUES (?, ?)", (number, number * number))
    (n_rows,) = connection.execute("SELECT count(*) FROM seen").fetchone()
    return int(n_rows)


def total(worker_state: dict[str, Any]) -> int:
    (found,) = worker_state["connection"].execute("SELECT sum(square) FROM seen").fetchone()
    worker_state["connection"].close()
    return int(found)


def test_database_connection_is_opened_and_closed_in_each_worker() -> None:
    with WorkerPool(n_jobs=2, use_worker_state=True) as pool:
        pool.map(insert, range(40), worker_init=connect, worker_exit=total, chunk_size=5)
        assert sum(pool.get_exit_results()) == sum(x * x for x in range(40))


def test_database_connection_is_renewed_with_its_worker() -> None:
    with WorkerPool(n_jobs=2, use_worker_state=True) as pool:
        n_rows = pool.map(insert, range(12), worker_init=connect, worker_exit=total, worker_lifespan=3, chunk_size=1)
        assert max(n_rows) <= 3
        assert sum(pool.get_exit_results()) == sum(x * x for x in range(12))


# --- a large array for all workers ------------------------------------------------------------------------------------


def window_mean(worker_id: int, data: tuple[np.ndarray[Any, Any], int], start: int) -> tuple[int, float]:
    signal, width = data
    return worker_id, float(signal[start : start + width].mean())


def test_windows_of_a_signal_that_all_workers_have() -> None:
    signal = np.random.default_rng(3).random(300_000)
    with WorkerPool(n_jobs=2, shared_objects=(signal, 1000), pass_worker_id=True, order_tasks=True) as pool:
        results = pool.map(window_mean, range(0, 10_000, 1000), chunk_size=1, progress_bar=False)
    assert [worker_id for worker_id, _ in results] == [0, 1] * 5
    expected = [float(signal[start : start + 1000].mean()) for start in range(0, 10_000, 1000)]
    assert [mean for _, mean in results] == expected


# --- words counted in the workers, and put together at the end --------------------------------------------------------


def begin_counting(state: dict[str, Any]) -> None:
    state["words"] = Counter()


def count_words(state: dict[str, Any], text: str) -> None:
    state["words"].update(text.split())


def give_counts(state: dict[str, Any]) -> Counter[str]:
    counts: Counter[str] = state["words"]
    return counts


def test_words_are_counted_where_they_are_and_added_up_at_the_end() -> None:
    texts = ["a b a", "b c", "a", "c c c", ""]
    pool = WorkerPool(n_jobs=2, use_worker_state=True, keep_alive=True)
    for _ in range(2):
        pool.map_unordered(
            count_words,
            make_single_arguments(texts),
            iterable_len=5,
            worker_init=begin_counting,
            worker_exit=give_counts,
        )
    pool.stop_and_join()
    assert sum(pool.get_exit_results(), Counter()) == Counter(a=6, b=4, c=8)


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_rows_of_an_array_are_normalised_in_slices() -> None:
    def normalise(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return result

    table = np.random.default_rng(5).random((1000, 8)) + 0.1
    with WorkerPool(n_jobs=2) as pool:
        result = pool.map(normalise, table, n_splits=4)
    assert result.shape == table.shape
    assert np.allclose(result, normalise(table))


# --- keyword arguments, generators, laziness --------------------------------------------------------------------------


def area(width: float, height: float = 1.0, *, scale: float = 1.0) -> float:
    return width * height * scale


def test_records_as_keyword_arguments_come_from_a_generator() -> None:
    records = ({"width": w, "height": 2.0, "scale": 10.0} for w in range(5))
    with WorkerPool(n_jobs=2) as pool:
        found = list(pool.imap(area, records, iterable_len=5, chunk_size=2))
    assert found == [0.0, 20.0, 40.0, 60.0, 80.0]


def test_first_hit_ends_the_search() -> None:
    def is_hit(candidate: int) -> tuple[int, bool]:
        return candidate, candidate % 97 == 96

    with WorkerPool(n_jobs=2) as pool:
        hits = (candidate for candidate, hit in pool.imap(is_hit, range(1_000_000), chunk_size=10) if hit)
        assert next(hits) == 96


# --- single tasks -----------------------------------------------------------------------------------------------------


def download(page: int) -> str:
    if page == 3:
        raise ConnectionError(f"page {page} is gone")
    return f"page {page}"


def test_downloads_are_collected_by_callbacks() -> None:
    pages: list[str] = []
    failures: list[str] = []
    with WorkerPool(n_jobs=2) as pool:
        results = [
            pool.apply_async(
                download, args=(n,), callback=pages.append, error_callback=lambda error: failures.append(str(error))
            )
            for n in range(6)
        ]
        for result in results:
            result.wait()
        pool.stop_and_join()
    assert sorted(pages) == [f"page {n}" for n in range(6) if n != 3]
    assert failures == ["page 3 is gone"]
    assert [result.successful() for result in results] == [n != 3 for n in range(6)]


class Prices:
    """Has a pool of its own, and maps its own method."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.pool = WorkerPool(n_jobs=2, keep_alive=True)

    def convert(self, price: float) -> float:
        return price * self.rate

    def convert_all(self, prices: list[float]) -> list[float]:
        found: list[float] = self.pool.map(self.convert, prices)
        return found


def test_object_that_has_a_pool_maps_its_own_method() -> None:
    prices = Prices(2.0)
    with prices.pool:
        assert prices.convert_all([1.0, 2.5]) == [2.0, 5.0]
        prices.rate = 3.0
        assert prices.convert_all([1.0]) == [3.0]
        assert prices.pool.apply(prices.convert, 2.0) == 6.0


# --- nested -----------------------------------------------------------------------------------------------------------


def train(fold: int) -> list[int]:
    with WorkerPool(n_jobs=2, start_method="threading") as pool:
        scores: list[int] = pool.map(lambda seed: fold * 10 + seed, range(3))
    return scores


def test_folds_use_threads_of_their_own() -> None:
    with WorkerPool(n_jobs=2, daemon=False) as pool:
        assert pool.map(train, range(2), chunk_size=1) == [[0, 1, 2], [10, 11, 12]]


# --- insights and time limits -----------------------------------------------------------------------------------------


def test_slowest_tasks_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(n_jobs=2, enable_insights=True) as pool:
        pool.map(time.sleep, [0.001, 0.08, 0.002, 0.001], chunk_size=1)
        insights = pool.get_insights()
        pool.print_insights()
    assert sum(insights["n_completed_tasks"]) == 4
    assert insights["top_5_max_task_args"][0] == "Arg 0: 0.08"
    assert "Total number of tasks completed: 4" in capsys.readouterr().out


def test_slow_task_is_given_up_and_the_pool_goes_on() -> None:
    with WorkerPool(n_jobs=2, keep_alive=True) as pool:
        with pytest.raises(TimeoutError):
            pool.map(time.sleep, [0, 60], task_timeout=0.3)
        assert pool.map(abs, [-1, -2], task_timeout=20) == [1, 2]


# --- a script ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import nbpar.interop.mpire
sys.modules["mpire"] = nbpar.interop.mpire

import os
from mpire import WorkerPool
from mpire.utils import chunk_tasks

factor = 3

def scale(shared, x):
    return x * factor + shared["offset"]

if GUARD:
    with WorkerPool(n_jobs=2, start_method=METHOD, shared_objects={"offset": 1}) as pool:
        print(pool.map(scale, range(5)), len(list(chunk_tasks(range(5), chunk_size=2))))
    forgotten = WorkerPool(n_jobs=1, keep_alive=True)
    print(forgotten.map(abs, [-1]))
"""


@pytest.mark.parametrize(
    ("method", "guard"), [("None", "True"), ('"spawn"', '__name__ == "__main__"'), ('"fork"', "True")]
)
def test_script_runs_with_and_without_a_guard(tmp_path: Path, method: str, guard: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("METHOD", method).replace("GUARD", guard))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environ, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("[1, 4, 7, 10, 13] 3\n[1]\n", "")
    assert done.returncode == 0
