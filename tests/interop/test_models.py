"""The page on models does what it says: each section's code runs, and the weights are in memory once."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbpar
from tests.interop.programs import ROOT, run_program

PAGE = (ROOT / "docs" / "how-to" / "models.md").read_text(encoding="utf-8")
INPUTS = [0.5, 1.0, 2.0, 4.0]


def blocks(title: str) -> list[str]:
    """The Python of the section below a heading."""
    text = re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def answers(weights: Any) -> list[float]:
    return [float(np.tanh(x * weights).mean()) for x in INPUTS]


FIRST, SECOND = (np.random.default_rng(seed).random(50_000) for seed in (1, 2))


@pytest.fixture(scope="module", autouse=True)
def pool() -> Iterator[None]:
    """The notebook's pool, with two workers, for all sections."""
    nbpar.configure(n_workers=2)
    yield
    nbpar.shutdown()
    nbpar.configure()


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The notebook's names after the first section, in a folder with weights of two versions."""
    np.save(tmp_path / "weights.npy", FIRST)
    np.save(tmp_path / "weights-2.npy", SECOND)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"__name__": "__main__", "inputs": INPUTS}
    for code in blocks("Load it once in each worker"):
        exec(code, found)
    return found


def n_mapped() -> int:
    """Pieces of memory that a worker has mapped, of those that were made by `share`."""
    return len(set(re.findall(r"\S+ +\d+ +/memfd:nbpar-shared", Path("/proc/self/maps").read_text(encoding="utf-8"))))


def test_a_model_is_loaded_in_each_worker(names: dict[str, Any]) -> None:
    assert names["answers"] == pytest.approx(answers(FIRST))


def test_weights_are_shared_and_so_is_a_whole_model(names: dict[str, Any]) -> None:
    for code in blocks("Have the weights in memory once"):
        names["answers"] = None
        exec(code, names)
        assert names["answers"] == pytest.approx(answers(FIRST))


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is told by Linux alone")
def test_shared_weights_take_their_memory_once_and_others_once_for_each_worker() -> None:
    command = [sys.executable, "-m", "benchmarks.model_memory", "--n-workers", "2", "--mb", "60"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50, cwd=ROOT).stdout
    heading, _, *rows = [line.strip("|").split("|") for line in told.splitlines()]
    assert [cell.strip() for cell in heading[1:]] == [cell.strip() for cell in _table()[0][1:]]
    assert [row[0] for row in rows] == [row[0] for row in _table()[2:]]
    (_, own, together, later), (_, shared_own, shared_together, shared_later) = rows[1:]
    assert int(own) > 60 > int(shared_own)
    assert int(shared_together) < int(together) - 45  # by one copy
    assert int(shared_later) < int(shared_together) + 15  # the former weights are gone
    assert int(later) < int(together) + 15


def _table() -> list[list[str]]:
    return [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]


def test_the_pages_table_says_one_copy() -> None:
    own, together, _ = (int(cell.replace(",", "")) for cell in _table()[4][1:])
    assert own < 400 < together < 2 * 400


def test_a_model_is_replaced_while_the_workers_stay(names: dict[str, Any]) -> None:
    nbpar.shutdown()  # what other tests have shared is mapped in their workers
    (code,) = blocks("Replace it while the workers stay")
    first, second = code.split("\nmodel.replace")
    exec(first, names)
    pids = nbpar.default_pool().pids()
    exec("model.replace" + second, names)
    assert names["before"] == pytest.approx(answers(FIRST))
    assert names["after"] == pytest.approx(answers(SECOND))
    assert names["model"].version == 2
    assert nbpar.default_pool().pids() == pids
    model = names["model"]
    if sys.platform == "linux":
        assert set(nbpar.map(lambda _: (model(), n_mapped())[1], range(8))) == {1}


def needs(module: str) -> pytest.MarkDecorator:
    """Skip where a library is not installed; it is not loaded here, where its threads would be in the way of forks."""
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def run_section(title: str, folder: Path, before: str, after: str) -> None:
    """Run the code of a section in a process of its own, between more lines."""
    start = "import numpy as np\nimport nbpar\nnbpar.configure(n_workers=2)\n"
    assert run_program("\n".join([start, before, *blocks(title), after, "print('right')"]), folder) == "right\n"


@needs("sklearn")
def test_an_estimator_is_read_in_place(tmp_path: Path) -> None:
    before = "table = np.random.default_rng(3).random((2_000, 3))\ntarget = table.sum(axis=1)"
    after = """
assert np.allclose(np.concatenate(guesses), fitted.predict(table))
assert nbpar.map(lambda _: shared.value._fit_X.flags.owndata, range(2)) == [False, False]
"""
    run_section("scikit-learn", tmp_path, before, after)


@needs("torch")
def test_a_torch_module_is_built_around_shared_arrays(tmp_path: Path) -> None:
    after = """
with torch.no_grad():
    assert sum(labels, []) == trained(torch.from_numpy(images)).argmax(1).tolist()

def is_around(_):
    return net().state_dict()["0.weight"].data_ptr() == arrays.value["0.weight"].ctypes.data

assert nbpar.map(is_around, range(2)) == [True, True]
"""
    run_section("PyTorch", tmp_path, "images = np.random.default_rng(4).random((40, 1000), dtype=np.float32)", after)


def with_question(code: str, question: str) -> str:
    """The section's code, and in its pool another map, whose result is `told`."""
    return code.replace("    answers =", f"    told = pool.map({question}, range(8))\n    answers =")


def test_workers_have_as_many_threads_as_is_said(names: dict[str, Any]) -> None:
    (code,) = blocks("Threads of a model")
    exec("import os\n" + with_question(code, "lambda _: os.environ['OMP_NUM_THREADS']"), names)
    assert set(names["told"]) == {"2"}
    assert names["answers"] == pytest.approx(answers(FIRST))


def test_each_worker_chooses_its_gpu_before_it_loads(names: dict[str, Any]) -> None:
    (code,) = blocks("A GPU for each worker")
    question = "lambda _: (on_gpu(), nbpar.current_task().worker_id, os.environ['CUDA_VISIBLE_DEVICES'])[1:]"
    exec(with_question(code, question), names)
    assert names["answers"] == pytest.approx(answers(FIRST))
    assert set(names["told"]) <= {(0, "0"), (1, "1")}


def test_a_global_that_an_initializer_sets_is_the_tasks(names: dict[str, Any]) -> None:
    (code,) = blocks("Coming from an initializer")
    exec(code, names)
    assert names["answers"] == pytest.approx(answers(FIRST))
    assert names["loaded"] is None


def test_every_section_with_code_is_tested() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    source = Path(__file__).read_text(encoding="utf-8")
    assert [
        title for title in titles if blocks(title) and not re.search(rf'(?:blocks|run_section)\("{title}"', source)
    ] == []
