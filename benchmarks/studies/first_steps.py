"""What a notebook feels first: the import, and the first result of a cold and of a warmed pool.

Each figure is a median over fresh interpreters, those of the libraries alternated.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict

__all__ = ["FirstSteps"]

N_RUNS = 5
IMPORT_LIMIT_S = 0.06

_TIMED = """
import time
begin_s = time.perf_counter()
{code}
print(time.perf_counter() - begin_s)
"""

# Two workers each, so that all do the same on every machine. From nothing imported to the first result.
_COLD = {
    "nbpar": "import nbpar\npool = nbpar.WorkerPool(n_workers=2)\npool.map(abs, [-1])",
    "Pool": "import multiprocessing\npool = multiprocessing.get_context('fork').Pool(2)\npool.map(abs, [-1])",
    "ProcessPoolExecutor": (
        "import concurrent.futures, multiprocessing\n"
        "pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))\n"
        "list(pool.map(abs, [-1]))"
    ),
    "mpire": "import mpire\npool = mpire.WorkerPool(n_jobs=2, keep_alive=True)\npool.map(abs, [-1])",
    "loky": "from joblib.externals import loky\npool = loky.ProcessPoolExecutor(2)\nlist(pool.map(abs, [-1]))",
    "joblib": "import joblib\njoblib.Parallel(n_jobs=2)([joblib.delayed(abs)(-1)])",
}

_WARMED = """
import time, nbpar
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbpar")
while len(nbpar.default_pool().pids()) < nbpar.default_pool().n_workers:
    time.sleep(0.01)
time.sleep(0.5)  # the time a person needs for the next cell
begin_s = time.perf_counter()
nbpar.map(abs, [-1])
print(time.perf_counter() - begin_s)
"""


class FirstSteps(Study):
    """Import, cold start, warmed start."""

    name: ClassVar[str] = "first-steps"
    title: ClassVar[str] = "First steps: import, first result of a cold pool, of a pool warmed by %load_ext"

    def run(self, peers: Sequence[str]) -> Section:
        """Fresh interpreters, over and over."""
        section = Section()
        n_runs = 1 if self.is_quick else N_RUNS
        figures: dict[str, Callable[[], float]] = {"import nbpar, on top of Python's start": _import_s}
        for peer, code in _COLD.items():
            if peer in peers:
                figures[f"{peer}: import, start of 2 workers, first result"] = _Fresh(_TIMED.format(code=code))
        figures["nbpar: first result, pool warmed by %load_ext"] = _Fresh(_WARMED)
        found: dict[str, list[float]] = {name: [] for name in figures}
        problems: dict[str, str] = {}
        for _ in range(n_runs):
            for name, figure in figures.items():
                if name in problems:
                    continue
                try:
                    found[name].append(figure())
                except subprocess.CalledProcessError as error:
                    lines = str(error.stderr).strip().splitlines() or [f"exit code {error.returncode}"]
                    problems[name] = lines[-1][:120]
                except subprocess.TimeoutExpired:
                    problems[name] = "did not end within 60 s"
        rows = [[name, problems.get(name) or f"{1e3 * statistics.median(found[name]):.1f}"] for name in figures]
        section.lines += markdown_table(["", "ms"], rows)
        imported = found[next(iter(figures))]
        if imported:
            median_s = statistics.median(imported)
            asked = f"import under {1e3 * IMPORT_LIMIT_S:.0f} ms"
            section.verdicts.append(Verdict(asked, f"{1e3 * median_s:.1f} ms", median_s < IMPORT_LIMIT_S))
        return section


class _Fresh:
    """What `code` prints last, run in a fresh interpreter."""

    def __init__(self, code: str) -> None:
        self._command = [sys.executable, "-c", code]

    def __call__(self) -> float:
        done = subprocess.run(self._command, capture_output=True, text=True, check=True, timeout=60)
        return float(done.stdout.split()[-1])


def _import_s() -> float:
    def start_s(code: str) -> float:
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
        return time.perf_counter() - begin_s

    return start_s("import nbpar") - start_s("pass")
