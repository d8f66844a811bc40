"""Whole programs as users write them with multiprocessing's `Pool` and tqdm's maps: only their imports are changed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from nbpar.interop.multiprocessing import Pool
from tests.helpers import ROOT, run_script

ARRAYS = '''
"""Statistics of many arrays: one after another, in processes, in threads, and through a list that a manager serves."""
import numpy as np
{imports}

N_ARRAYS, SIDE, N_ROUNDS = 12, 200, 3

def arrays():
    rng = np.random.default_rng(7)
    for _ in range(N_ARRAYS):
        yield rng.random((SIDE, SIDE))

def describe(array):
    for _ in range(N_ROUNDS):
        mean, spread = array.mean(), array.std()
    return mean, spread

def describe_shared(number, shared):
    return describe(shared[number])

if __name__ == "__main__":
    data = list(arrays())
    serial = [describe(array) for array in data]
    in_processes = process_map(describe, data, max_workers=2, chunksize=1)
    in_threads = thread_map(describe, data, max_workers=2)
    pool, manager = Pool(2), Manager()
    shared = manager.list(data)
    from_manager = pool.starmap(describe_shared, zip(range(len(data)), [shared] * len(data)))
    pool.close()
    pool.join()
    manager.shutdown()
    assert serial == in_processes == in_threads == from_manager
    print(len(serial), "arrays, the same four times")
'''

SUMS = '''
"""A million small calls, of which a profiler from outside shall see the time."""
{imports}

def touch(number):
    total = 0
    for step in range(20):
        total += step
    return number

if __name__ == "__main__":
    n = {n}
    with mp.Pool(mp.cpu_count()) as pool:
        results = pool.map(touch, range(n))
    print(sum(results) == n * (n - 1) // 2)
'''

OURS = {
    "arrays": "from nbpar.interop.tqdm import process_map, thread_map\n"
    "from nbpar.interop.multiprocessing import Manager, Pool",
    "sums": "import nbpar.interop.multiprocessing as mp",
}


def run(tmp_path: Path, text: str, *before: str) -> str:
    script = tmp_path / "program.py"
    script.write_text(text)
    if before:
        environ = {"PYTHONPATH": str(ROOT), "NBPAR_UI": "off", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, *before, str(script)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=55, env=environ).stdout
    return run_script(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")


def test_arrays_have_the_same_statistics_serially_in_processes_in_threads_and_from_a_manager(tmp_path: Path) -> None:
    program = ARRAYS.format(imports=OURS["arrays"])
    assert run(tmp_path, program) == "12 arrays, the same four times\n"


def test_very_many_small_calls_give_their_sum(tmp_path: Path) -> None:
    assert run(tmp_path, SUMS.format(imports=OURS["sums"], n=200_000)) == "True\n"


def test_a_profiler_from_outside_leaves_the_program_as_it_is(tmp_path: Path) -> None:
    out = run(tmp_path, SUMS.format(imports=OURS["sums"], n=2_000), "-m", "cProfile")
    assert out.startswith("True\n")
    assert "function calls" in out


def touch(number: int) -> int:
    total = 0
    for step in range(3_000):
        total += step
    return number


@pytest.mark.skipif(importlib.util.find_spec("pyinstrument") is None, reason="needs pip install 'nbpar[profile]'")
def test_the_profile_finds_the_hot_line_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with Pool(2) as pool:
        assert sum(pool.map(touch, range(3_000), profile=True, progress=False)) == 3_000 * 2_999 // 2
    profile: Any = nbpar.jobs()[-1].profile
    (hot, *_) = profile.lines
    assert Path(__file__).name in hot.place
    first = touch.__code__.co_firstlineno
    assert hot.line in (first + 2, first + 3)  # the loop
    capsys.readouterr()


def test_an_array_arrives_as_it_was_sent_and_is_the_tasks_own() -> None:
    data = [np.full((300, 300), float(i)) for i in range(4)]

    def blank(array: Any) -> float:
        total = float(array.sum())
        array[:] = 0
        return total

    with Pool(2) as pool:
        assert pool.map(blank, data) == [float(array.sum()) for array in data]
    assert [array[0, 0] for array in data] == [0.0, 1.0, 2.0, 3.0]
