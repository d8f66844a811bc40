"""Programs for `ProcessPoolExecutor` that keep a model in a global run with nbpar's Executor in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.programs import ported, run_program, unguarded
from tests.notebook.kernels import Kernel, start_kernel

LINE = "from concurrent.futures import ProcessPoolExecutor, as_completed"
DOOR = "from nbpar.interop.futures import ProcessPoolExecutor, as_completed"

# The first task of a process loads the model, and a global keeps it for the next ones.
LAZY = """
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
log = logging.getLogger("scoring")

_network = None


def network():
    global _network
    if _network is None:
        time.sleep(0.05)
        with open("loads.txt", "a") as file:
            file.write(f"{os.getpid()}\\n")
        _network = {"weights": list(range(1000)), "loaded by": os.getpid()}
        log.info("loaded")
    return _network


def score(sample: int) -> dict:
    model = network()
    assert model["loaded by"] == os.getpid()
    return {"sample": sample, "score": sample * sum(model["weights"])}


def main() -> None:
    samples = [7, 3, 11, 2, 5, 13, 17, 19]
    with ProcessPoolExecutor(max_workers=2, mp_context=None) as pool:
        by_map = list(pool.map(score, samples))
        futures = {pool.submit(score, sample): sample for sample in samples}
        by_submit = {futures[done]: done.result()["score"] for done in as_completed(futures)}
    for row in by_map:
        assert by_submit[row["sample"]] == row["score"]
        print(row["sample"], row["score"])
    print("the main process has loaded", _network)


if __name__ == "__main__":
    main()
"""

# An initializer loads it, with arguments, into globals that the tasks read.
INITIALIZED = """
import os
from concurrent.futures import ProcessPoolExecutor, as_completed

state = {}
scale = None


def prepare(path, factor):
    global scale, cutoff
    scale, cutoff = factor, 2.5
    with open(path) as file:
        state["words"] = set(file.read().split())
    state["n_seen"] = 0
    with open("loads.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")


def known(text):
    state["n_seen"] += 1
    found = sum(word in state["words"] for word in text.split())
    return min(found * scale, cutoff), state["n_seen"]


def main():
    with open("words.txt", "w") as file:
        file.write("a pool of warm workers")
    texts = ["a warm day", "cold workers", "the pool of workers is warm", "nothing"] * 5
    with ProcessPoolExecutor(2, initializer=prepare, initargs=("words.txt", 1.0)) as pool:
        waiting = [pool.submit(known, text) for text in texts]
        told = [future.result() for future in waiting]
        again = list(pool.map(known, texts, chunksize=3))
    assert [score for score, _ in told] == [score for score, _ in again]
    assert max(n for _, n in again) > len(texts) / 2, "each process has gone on counting"
    print([score for score, _ in told[:4]])


if __name__ == "__main__":
    main()
"""

# What the programs print with the standard library's own executor, where this was written.
PRINTED = {
    LAZY: "".join(f"{sample} {sample * 499500}\n" for sample in (7, 3, 11, 2, 5, 13, 17, 19))
    + "the main process has loaded None\n",
    INITIALIZED: "[2.0, 1.0, 2.5, 0.0]\n",
}
NAMES = {"a model that tasks load": LAZY, "a model that the initializer loads": INITIALIZED}


@pytest.fixture(params=[*NAMES.values()], ids=[*NAMES])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def n_loads(folder: Path) -> int:
    loads = (folder / "loads.txt").read_text().split()
    assert len(loads) == len(set(loads)), "a process has loaded twice"
    return len(loads)


def test_a_script_runs_with_the_import_changed(program: str, tmp_path: Path) -> None:
    assert run_program(ported(program, LINE, DOOR), tmp_path) == PRINTED[program]
    assert n_loads(tmp_path) <= 2


def test_a_script_runs_without_a_guard(program: str, tmp_path: Path) -> None:
    assert run_program(unguarded(ported(program, LINE, DOOR)), tmp_path) == PRINTED[program]
    assert n_loads(tmp_path) <= 2


def test_the_standard_library_prints_the_same(program: str, tmp_path: Path) -> None:
    assert run_program(program, tmp_path) == PRINTED[program]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with start_kernel(tmp_path) as kernel:
        yield kernel


def test_a_notebook_runs_both_with_the_import_changed(kernel: Kernel, tmp_path: Path) -> None:
    for program in (LAZY, INITIALIZED):
        result = kernel.run(unguarded(ported(program, LINE, DOOR)))
        assert result.error is None, str(result.error)
        assert result.stdout == PRINTED[program]
        assert n_loads(tmp_path) <= 2
        (tmp_path / "loads.txt").unlink()
