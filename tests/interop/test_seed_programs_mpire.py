"""Programs as MPIRE's users write them run with nbpar's door: one import line differs, or the alias stands above."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.programs import ported, run_program, unguarded
from tests.notebook.kernels import Kernel, start_kernel

LINE = "from mpire import WorkerPool"
DOOR = "from nbpar.interop.mpire import WorkerPool"

# A connection for each worker in its state, a pool that is made once and kept for all batches.
DATABASE = """
import os
import sqlite3
import sys
from mpire import WorkerPool

METHOD = "fork"


def connect(state):
    state["db"] = sqlite3.connect(sys.argv[1])
    state["n_asked"] = 0


def disconnect(state):
    state["db"].close()
    return os.getpid(), state["n_asked"]


def total(state, order, day):
    state["n_asked"] += 1
    query = "select sum(price * amount) from lines where order_id = ? and day = ?"
    return state["db"].execute(query, (order, day)).fetchone()[0]


def main():
    totals, pids = [], set()
    with WorkerPool(n_jobs=2, start_method=METHOD, use_worker_state=True, keep_alive=True) as pool:
        for day in range(6):
            orders = [(order, day) for order in range(20)]
            totals.append(sum(pool.map(total, orders, worker_init=connect, worker_exit=disconnect, n_splits=4)))
        pool.stop_and_join()
        left = pool.get_exit_results()
    print(totals)
    print("asked", sum(n for _, n in left), "workers", len(left) <= 2, "in processes", METHOD == "threading" or
          os.getpid() not in {pid for pid, _ in left})


if __name__ == "__main__":
    main()
"""

# What its project page shows: a bar, state, insights, time limits.
TOUR = """
import time
from mpire import WorkerPool

DATA = list(range(100, 200))


class Regressor:
    def __init__(self, slope):
        self.slope = slope

    def predict(self, x):
        return self.slope * x


def load(state):
    state["data"] = DATA
    state["model"] = Regressor(3)


def unload(state):
    return state["model"].slope


def predict(state, index):
    return state["model"].predict(state["data"][index])


def work(x):
    time.sleep(0.002)
    return x * 2


def wait(_):
    time.sleep(60)


def never_ready():
    time.sleep(60)


def main():
    with WorkerPool(n_jobs=2) as pool:
        print(pool.map(work, range(20), progress_bar=True, progress_bar_options={"desc": "working"})[-3:])

    with WorkerPool(n_jobs=2, use_worker_state=True) as pool:
        print(pool.map(predict, range(10), worker_init=load, worker_exit=unload))
        print(sorted(set(pool.get_exit_results())))

    with WorkerPool(n_jobs=2, enable_insights=True) as pool:
        print(sorted(pool.imap_unordered(work, range(10), chunk_size=2)))
        insights = pool.get_insights()
        print(sum(insights["n_completed_tasks"]), len(insights["top_5_max_task_durations"]), sorted(insights)[:3])

    for options in ({"task_timeout": 0.2}, {"worker_init": never_ready, "worker_init_timeout": 0.2}):
        function = wait if "task_timeout" in options else work
        began = time.monotonic()
        try:
            with WorkerPool(n_jobs=2) as pool:
                pool.map(function, range(4), chunk_size=1, **options)
        except TimeoutError:
            print("timed out", time.monotonic() - began < 20)


if __name__ == "__main__":
    main()
"""

# Large data that every task reads, arrays cut into slices and put together, single calls with callbacks.
SHARED = """
import numpy as np
from mpire import WorkerPool
from mpire.utils import make_single_arguments

rng = np.random.default_rng(0)
prices, names = rng.random((1000, 200)), [f"stock {i}" for i in range(200)]


def column(shared, i):
    table, titles = shared
    return titles[i], round(float(table[:, i].mean()), 6)


def scale(part):
    assert part.ndim == 2
    return part * 2


def product(x, y=1, z=1):
    return x * y * z


def first(pair):
    return pair[0]


def fail(x):
    raise KeyError(f"nothing at {x}")


def main():
    with WorkerPool(n_jobs=2, shared_objects=(prices, names)) as pool:
        means = pool.map(column, range(200), iterable_len=200)
    assert means == [column((prices, names), i) for i in range(200)]

    with WorkerPool(n_jobs=2, keep_alive=True) as pool:
        doubled = pool.map(scale, prices, chunk_size=100)
        print(means[:2], np.array_equal(doubled, prices * 2))
        print(pool.map(product, [{"x": i, "z": 2} for i in range(4)]), pool.map(product, [(2, 3), (4, 5, 6)]))
        print(pool.map(first, make_single_arguments([(1, 2), (3, 4)], generator=False)))
        called = []
        tasks = [pool.apply_async(product, (i, 2), callback=called.append) for i in range(5)]
        print([task.get() for task in tasks], sorted(called))
        print(pool.apply(product, 7, {"y": 3}))
        try:
            pool.map(fail, range(10))
        except KeyError as error:
            print("caught", type(error).__name__, "nothing at" in str(error))


if __name__ == "__main__":
    main()
"""

# Methods of an object that holds its pool, functions in functions, a pool given to atexit, pages fetched in turn.
OBJECTS = """
import atexit
import logging
import os
from functools import partial
from mpire import WorkerPool
from mpire.exception import StopWorker
from mpire.utils import make_single_arguments


class Blocks:
    def __init__(self, texts, n_workers):
        self.texts = texts
        self.pool = WorkerPool(n_jobs=n_workers, shared_objects={"texts": texts}, start_method="fork")

    def tokens(self, shared, first, last):
        found = {}
        for index in range(first, last):
            for token in shared["texts"][index].split():
                found.setdefault(token, []).append(index)
        return found

    def build(self):
        cuts = range(0, len(self.texts), 2)
        merged = {}
        for part in self.pool.map(self.tokens, [(cut, cut + 2) for cut in cuts]):
            for token, where in part.items():
                merged.setdefault(token, []).extend(where)
        self.pool.terminate()
        return merged


class Frames:
    threshold = 3

    def draw(self, index, low, high):
        return index * self.threshold + high - low

    def save(self, n):
        with WorkerPool(n_jobs=2) as pool:
            return pool.map(self.draw, zip(range(n), range(n), range(1, n + 1)), iterable_len=n)


def open_reader(state, path, log_level):
    logging.basicConfig(level=log_level)
    state["file"] = open(path)
    state["n"] = 0


def close_reader(state):
    state["file"].close()
    return state["n"]


def read(state, line):
    try:
        state["n"] += 1
        return {line: not state["file"].closed}
    except StopWorker:
        state["file"].close()
        raise


def run(options, call):
    function, args, more = call
    return function(*args, **options, **more)


def area(width, height=1, depth=1):
    return width * height * depth


def with_offset(offset):
    def add(*args):
        left, right = args
        return left + right + offset

    with WorkerPool(n_jobs=2) as pool:
        return pool.map(add, [(i, i) for i in range(5)])


def main():
    texts = ["to be or", "not to be", "that is", "the question to", "ask"]
    print(sorted(Blocks(texts + ["now"], 2).build()["to"]), Frames().save(5), with_offset(100))

    with WorkerPool(n_jobs=2, use_worker_state=True, keep_alive=True) as pool:
        begin = partial(open_reader, path=__file__, log_level=logging.WARNING)
        lines = (line for line in range(300))
        options = {"worker_init": begin, "worker_exit": close_reader, "chunk_size": 10, "iterable_len": 300}
        read_lines = {}
        for one in pool.imap_unordered(read, lines, **options):
            read_lines.update(one)
        pool.stop_and_join()
        print(len(read_lines), all(read_lines.values()), sum(pool.get_exit_results()))

    with WorkerPool(n_jobs=2, daemon=False) as pool:
        atexit.register(pool.__exit__)
        calls = [[{"height": height}, (area, (2,), {"depth": 5})] for height in range(3)]
        print(pool.map(run, calls))

    with WorkerPool(n_jobs=2, start_method="threading", use_dill=True) as pool:
        before, after = pool.map(lambda side: side.title(), ["before", "after"])
    rows = [{"id": 1}, {"id": 2}]
    with WorkerPool(n_jobs=2) as pool:
        for page in range(2):
            singles = make_single_arguments(rows, generator=False)
            print(before, after, page, pool.map(lambda row: row["id"] * 10, singles))


if __name__ == "__main__":
    main()
"""

# What the programs print with MPIRE itself (2.10.2), where this was written.
PRINTED = {
    DATABASE: "[570, 630, 690, 750, 810, 870]\nasked 120 workers True in processes True\n",
    TOUR: "[34, 36, 38]\n"
    "[300, 303, 306, 309, 312, 315, 318, 321, 324, 327]\n"
    "[3]\n"
    "[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]\n"
    "10 5 ['exit_ratio', 'exit_time', 'exit_time_mean']\n"
    "timed out True\n"
    "timed out True\n",
    SHARED: "[('stock 0', 0.502002), ('stock 1', 0.483065)] True\n"
    "[0, 2, 4, 6] [6, 120]\n"
    "[1, 3]\n"
    "[0, 2, 4, 6, 8] [0, 2, 4, 6, 8]\n"
    "21\n"
    "caught KeyError True\n",
    OBJECTS: "[0, 1, 3] [1, 4, 7, 10, 13] [100, 102, 104, 106, 108]\n"
    "300 True 300\n"
    "[0, 10, 20]\n"
    "Before After 0 [10, 20]\n"
    "Before After 1 [10, 20]\n",
}
PROGRAMS = {"a connection per worker": DATABASE, "the tour": TOUR, "shared objects": SHARED, "objects": OBJECTS}


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Lines of 20 orders on 6 days."""
    path = tmp_path / "orders.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table lines (order_id int, day int, price int, amount int)")
        places = [(order, day, line) for order in range(20) for day in range(6) for line in (0, 1)]
        rows = [(order, day, order + day, 1 + (order + line) % 2) for order, day, line in places]
        connection.executemany("insert into lines values (?, ?, ?, ?)", rows)
    connection.close()
    return str(path)


@pytest.mark.parametrize("program", [*PROGRAMS.values()], ids=[*PROGRAMS])
def test_a_script_runs_with_the_import_changed(program: str, tmp_path: Path, database: str) -> None:
    code = ported(program, LINE, DOOR).replace("from mpire.", "from nbpar.interop.mpire.")
    assert run_program(code, tmp_path, database) == PRINTED[program]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "threading"])
def test_a_connection_per_worker_runs_by_every_start_method(method: str, tmp_path: Path, database: str) -> None:
    code = ported(DATABASE, LINE, DOOR).replace('METHOD = "fork"', f'METHOD = "{method}"')
    if method == "threading":  # a connection of sqlite3 is used by the thread that made it, also at its end
        code = code.replace("sys.argv[1])", "sys.argv[1], check_same_thread=False)")
    assert run_program(code, tmp_path, database) == PRINTED[DATABASE]


def test_a_script_runs_without_a_guard_and_with_the_alias_alone(tmp_path: Path, database: str) -> None:
    alias = "import sys\n\nimport nbpar.interop.mpire\n\nsys.modules['mpire'] = nbpar.interop.mpire\n\n"
    assert run_program(alias + unguarded(SHARED), tmp_path) == PRINTED[SHARED]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with start_kernel(tmp_path) as kernel:
        yield kernel


def test_a_notebook_runs_them_with_the_import_changed(kernel: Kernel, database: str) -> None:
    kernel.run(f"import sys\nsys.argv[1:] = [{database!r}]")
    for program in (DATABASE, SHARED):
        code = ported(program, LINE, DOOR).replace("from mpire.", "from nbpar.interop.mpire.")
        result = kernel.run(unguarded(code.replace('"fork"', '"forkserver"')))
        assert result.error is None, str(result.error)
        assert result.stdout == PRINTED[program]
