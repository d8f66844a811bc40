"""What a notebook feels first: import, the first result of a cold and of a warmed pool, and 10,000 trivial tasks.

``python -m benchmarks`` prints a table; each figure is a median over fresh interpreters, or over calls that
alternate between nbpar and ``multiprocessing.Pool`` in one process, so that both meet the same noise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import nbpar

COLD = """
import time, nbpar
begin_s = time.perf_counter()
nbpar.map(abs, [-1])
print(time.perf_counter() - begin_s)
"""

WARM = """
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


def add_one(x: int) -> int:
    """The trivial task."""
    return x + 1


def in_fresh_interpreters(code: str, n_runs: int) -> float:
    """Median of what `code` prints, in seconds."""
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(n_runs)]
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def import_s(n_runs: int) -> float:
    """Seconds that ``import nbpar`` adds to Python's own start."""

    def start_s(code: str) -> float:
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin_s

    return statistics.median(start_s("import nbpar") - start_s("pass") for _ in range(n_runs))


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], n_runs: int
) -> tuple[float, float, Sequence[float]]:
    """Median seconds of each, and the ratio theirs/ours of each pair of calls."""
    pairs = []
    for _ in range(n_runs):
        begin_s = time.perf_counter()
        ours()
        between_s = time.perf_counter()
        theirs()
        pairs.append((between_s - begin_s, time.perf_counter() - between_s))
    ratios = [their_s / our_s for our_s, their_s in pairs]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratios


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="fresh interpreters for each start-up figure")
    n_runs = parser.parse_args().runs
    print(f"import nbpar, on top of Python's start      {1e3 * import_s(n_runs):8.1f} ms")
    print(f"first result, cold pool                     {1e3 * in_fresh_interpreters(COLD, n_runs):8.1f} ms")
    print(f"first result, pool warmed by %load_ext      {1e3 * in_fresh_interpreters(WARM, n_runs):8.1f} ms")
    items = list(range(10_000))
    expected = [x + 1 for x in items]
    with multiprocessing.get_context("fork").Pool(2) as theirs, nbpar.WorkerPool(n_workers=2) as ours:
        for pool in (theirs, ours):
            for _ in range(20):
                assert pool.map(add_one, items) == expected
        our_s, their_s, ratios = alternate(lambda: ours.map(add_one, items), lambda: theirs.map(add_one, items), 100)
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"10,000 trivial tasks, warm: nbpar           {1e3 * our_s:8.2f} ms")
    print(f"10,000 trivial tasks, multiprocessing.Pool  {1e3 * their_s:8.2f} ms")
    print(f"Pool / nbpar, paired: median {quartiles[1]:.2f}, quartiles {quartiles[0]:.2f} to {quartiles[2]:.2f}")


if __name__ == "__main__":
    main()
