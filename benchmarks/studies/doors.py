"""Programs of other libraries, as they are and with the import changed: what a front door costs or gains.

Each program runs in fresh interpreters, with the one import and with the other in turn. It does its work over and over;
its figure is the median without the first, and the study's that of the interpreters. Run it by itself with
``make bench BENCH_ARGS="--only doors"``.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.studies.base import Section, Study, markdown_table

__all__ = ["CASES", "Case", "Doors"]

N_ROUNDS = 5
N_TIMES = 10
LIMIT_S = 120.0

_PROGRAM = """
import statistics, time
import numpy as np
from benchmarks.tasks.plain import add_one, mean_and_spread, part_sum
{imports}

W = {n_workers}
{setup}
found = []
for _ in range({n_times} + 1):
    begin_s = time.perf_counter()
{timed}
    found.append(time.perf_counter() - begin_s)
    assert {check}, result
{end}
print(statistics.median(found[1:]))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A program for both.

    Attributes
    ----------
    name : str
        What it does.
    needs : str
        The package that the library is in; without it the case is left out.
    theirs, ours : str
        The import, as the library has it and as the door has it.
    timed : str
        What is timed, and leaves `result`.
    check : str
        What must be true of that.
    setup, end : str
        Before and after.
    n_units : int
        The time is that of one of so many.
    """

    name: str
    needs: str
    theirs: str
    ours: str
    timed: str
    check: str
    setup: str = ""
    end: str = ""
    n_units: int = 1

    def program(self, imports: str, *, n_workers: int, n_times: int) -> str:
        """The source, with this import."""
        return _PROGRAM.format(
            imports=imports,
            n_workers=n_workers,
            n_times=n_times,
            setup=self.setup,
            timed=textwrap.indent(textwrap.dedent(self.timed).strip(), "    "),
            check=self.check,
            end=self.end,
        )


_MPIRE: dict[str, Any] = {
    "needs": "mpire",
    "theirs": "from mpire import WorkerPool",
    "ours": "from nbpar.interop.mpire import WorkerPool",
}
_FUTURES: dict[str, Any] = {
    "needs": "concurrent.futures",
    "theirs": "from concurrent.futures import ProcessPoolExecutor",
    "ours": "from nbpar.interop.futures import ProcessPoolExecutor",
}
_POOL: dict[str, Any] = {
    "needs": "multiprocessing",
    "theirs": "from multiprocessing import Pool",
    "ours": "from nbpar.interop.multiprocessing import Pool",
}
_TQDM: dict[str, Any] = {
    "needs": "tqdm",
    "theirs": "from tqdm.contrib.concurrent import process_map",
    "ours": "from nbpar.interop.tqdm import process_map",
}
_KEPT: dict[str, Any] = {"setup": "pool = WorkerPool(n_jobs=W, keep_alive=True)", "end": "pool.terminate()"}
_EXECUTOR: dict[str, Any] = {"setup": "pool = ProcessPoolExecutor(W)", "end": "pool.shutdown()"}
_KEPT_POOL: dict[str, Any] = {"setup": "pool = Pool(W)", "end": "pool.terminate(); pool.join()"}

CASES: tuple[Case, ...] = (
    Case(
        "MPIRE: a pool for one map of two tasks",
        timed="""
        with WorkerPool(n_jobs=W) as pool:
            result = pool.map(add_one, [1, 2])
        """,
        check="result == [2, 3]",
        **_MPIRE,
    ),
    Case(
        "MPIRE, keep_alive: a map of two tasks",
        timed="result = pool.map(add_one, [1, 2])",
        check="result == [2, 3]",
        **_KEPT,
        **_MPIRE,
    ),
    Case(
        "MPIRE, keep_alive: a tiny task of 10,000 in a map",
        timed="result = pool.map(add_one, range(10_000))",
        check="result[-1] == 10_000",
        n_units=10_000,
        **_KEPT,
        **_MPIRE,
    ),
    Case(
        "MPIRE, keep_alive: a tiny task of 2,000, each a chunk",
        timed="result = pool.map(add_one, range(2_000), chunk_size=1)",
        check="result[-1] == 2_000",
        n_units=2_000,
        **_KEPT,
        **_MPIRE,
    ),
    Case(
        "MPIRE, keep_alive: apply",
        timed="result = [pool.apply(add_one, (i,)) for i in range(200)]",
        check="result[-1] == 200",
        n_units=200,
        **_KEPT,
        **_MPIRE,
    ),
    Case(
        "MPIRE, keep_alive: 16 arrays of 16 MB as items",
        timed="result = pool.map(mean_and_spread, [np.ones(2_000_000) for _ in range(16)], chunk_size=1)",
        check="result == [(1.0, 0.0)] * 16",
        **_KEPT,
        **_MPIRE,
    ),
    Case(
        "MPIRE: a pool that shares 80 MB, for one map",
        setup="table = np.ones(10_000_000)",
        timed="""
        with WorkerPool(n_jobs=W, shared_objects=table) as pool:
            result = pool.map(part_sum, [(part, 10) for part in range(10)])
        """,
        check="result == [1_000_000.0] * 10",
        **_MPIRE,
    ),
    Case(
        "concurrent.futures: an executor for two tasks",
        timed="""
        with ProcessPoolExecutor(W) as pool:
            result = list(pool.map(add_one, [1, 2]))
        """,
        check="result == [2, 3]",
        **_FUTURES,
    ),
    Case(
        "concurrent.futures: submit, then result",
        timed="result = [pool.submit(add_one, i).result() for i in range(200)]",
        check="result[-1] == 200",
        n_units=200,
        **_EXECUTOR,
        **_FUTURES,
    ),
    Case(
        "concurrent.futures: one of 1,000 submitted at once",
        timed="""
        futures = [pool.submit(add_one, i) for i in range(1_000)]
        result = [future.result() for future in futures]
        """,
        check="result[-1] == 1_000",
        n_units=1_000,
        **_EXECUTOR,
        **_FUTURES,
    ),
    Case(
        "concurrent.futures: a tiny task of 2,000 in a map",
        timed="result = list(pool.map(add_one, range(2_000)))",
        check="result[-1] == 2_000",
        n_units=2_000,
        **_EXECUTOR,
        **_FUTURES,
    ),
    Case(
        "multiprocessing: a pool for one map of two tasks",
        timed="""
        with Pool(W) as pool:
            result = pool.map(add_one, [1, 2])
        """,
        check="result == [2, 3]",
        **_POOL,
    ),
    Case(
        "multiprocessing: a tiny task of 100,000 in a map",
        timed="result = pool.map(add_one, range(100_000))",
        check="result[-1] == 100_000",
        n_units=100_000,
        **_KEPT_POOL,
        **_POOL,
    ),
    Case(
        "multiprocessing: apply",
        timed="result = [pool.apply(add_one, (i,)) for i in range(200)]",
        check="result[-1] == 200",
        n_units=200,
        **_KEPT_POOL,
        **_POOL,
    ),
    Case(
        "tqdm: process_map of 2,000 tiny tasks",
        timed="result = process_map(add_one, range(2_000), max_workers=W, chunksize=50, disable=True)",
        check="result[-1] == 2_000",
        **_TQDM,
    ),
)


class Doors(Study):
    """Each program with each import."""

    name: ClassVar[str] = "doors"
    title: ClassVar[str] = "Front doors: programs of other libraries with the import changed"

    def run(self, peers: Sequence[str]) -> Section:
        """Fresh interpreters; of the peers, MPIRE's cases take part only with it."""
        section = Section()
        n_rounds, n_times = (1, 1) if self.is_quick else (N_ROUNDS, N_TIMES)
        rows = []
        for case in CASES:
            if importlib.util.find_spec(case.needs) is None or (case.needs == "mpire" and "mpire" not in peers):
                continue
            try:
                rows.append(self._row(case, n_rounds, n_times))
            except subprocess.CalledProcessError as error:
                lines = str(error.stderr).strip().splitlines() or [f"exit code {error.returncode}"]
                rows.append([case.name, lines[-1][:120], "", ""])
            except subprocess.TimeoutExpired:
                rows.append([case.name, f"did not end within {LIMIT_S:.0f} s", "", ""])
        section.lines += markdown_table(["", "as it is, ms", "with nbpar's import, ms", "ratio"], rows)
        return section

    def _row(self, case: Case, n_rounds: int, n_times: int) -> list[str]:
        theirs: list[float] = []
        ours: list[float] = []
        for _ in range(n_rounds):
            for imports, found in ((case.theirs, theirs), (case.ours, ours)):
                program = case.program(imports, n_workers=self.n_workers, n_times=n_times)
                line = [sys.executable, "-c", program]
                done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=LIMIT_S)
                found.append(float(done.stdout.split()[-1]) / case.n_units)
        their_s, our_s = statistics.median(theirs), statistics.median(ours)
        return [case.name, _ms(their_s), _ms(our_s), f"{their_s / our_s:.2f}"]


def _ms(time_s: float) -> str:
    return f"{1e3 * time_s:.3g}"
