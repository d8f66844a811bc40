"""A sweep in a real kernel that is killed: the next kernel, with the cells run again, does what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebook.kernels import Kernel, ipykernels, start_kernel

CELLS = (
    "import dataclasses, os, time, nbpar\nos.chdir('..')\n%load_ext nbpar\nnbpar.configure(n_workers=2)",
    "@dataclasses.dataclass\nclass Score:\n    item: int\n    value: float",
    "rate = 2.0",
    "def helper(x):\n    with open('runs.txt', 'a') as file: file.write(f'{x}\\n')\n    return x * rate",
    "def simulate(x):\n    score = Score(x, helper(x))\n    print('ended', x)\n    time.sleep(0.02)\n    return score",
)
SWEEP = "scores = nbpar.map(simulate, range(40), chunk_size=1, progress=False, checkpoint='sweep.db')"


def run_cells(kernel: Kernel, *changes: tuple[str, str]) -> None:
    for cell in CELLS:
        for before, after in changes:
            cell = cell.replace(before, after)  # noqa: PLW2901  # edited, as a user would
        kernel.run(cell)


def n_runs(folder: Path) -> int:
    file = folder / "runs.txt"
    n_lines = len(file.read_text().splitlines()) if file.exists() else 0
    file.unlink(missing_ok=True)
    return n_lines


@pytest.fixture(params=list(ipykernels().values()), ids=list(ipykernels()))
def pythonpath(request: pytest.FixtureRequest) -> str | None:
    path: str | None = request.param
    return path


def test_a_kernel_that_was_killed_is_no_loss(tmp_path: Path, pythonpath: str | None) -> None:
    with start_kernel(tmp_path / "first", pythonpath=pythonpath) as kernel:
        run_cells(kernel)
        cell = kernel.start(SWEEP)
        cell.wait_for("ended 4")
        kernel.interrupt()
        assert "was cancelled" in str(cell.wait().error)
        cell = kernel.start(SWEEP)
        cell.wait_for("ended 14")
        kernel.process.kill()
    n_first = n_runs(tmp_path)
    assert 13 <= n_first < 40
    with start_kernel(tmp_path / "second", pythonpath=pythonpath) as kernel:
        kernel.run("1 + 1")  # other numbers of cells and lines than before, and other file names behind them
        run_cells(kernel, ("def simulate", "# the same, lower down\n\ndef simulate"))
        result = kernel.run(SWEEP)
        n_second = n_runs(tmp_path)
        assert n_second <= 40 - 13
        assert n_first + n_second <= 44  # two ran when it was interrupted, and two when it was killed
        known = 40 - n_second
        assert f"nbpar: {known} of 40 results came from sweep.db; {n_second} were left to compute." in result.stderr
        assert kernel.evaluate("[type(s) is Score for s in scores] == [True] * 40") is True
        assert kernel.evaluate("scores == [Score(x, x * 2.0) for x in range(40)]") is True
        # Over at once: nothing is drawn, but it is said.
        result = kernel.run(SWEEP.replace(", progress=False", ""))
        assert n_runs(tmp_path) == 0
        assert result.stderr == "nbpar: 40 of 40 results came from sweep.db; none was left.\n"
        # A global that a helper in another cell reads.
        kernel.run("rate = 3.0")
        result = kernel.run(SWEEP.replace(", progress=False", ""))
        assert n_runs(tmp_path) == 40
        note = "another version of simulate; the code has changed since (rate), so this starts anew."
        shown = [" ".join(display.get("text/plain", "").split()) for display in result.displays]
        assert note in result.stderr or any(note in text for text in shown)
        assert kernel.evaluate("scores[39].value") == 117.0
        kernel.run("del Score")  # nobody can load its objects now
        info = kernel.run("nbpar.checkpoint.info('sweep.db')").value
        assert info is not None and [line.split()[0] for line in info.splitlines()] == [
            "sweep.db:",
            "simulate",
            "simulate",
        ]


def test_the_magics_take_a_checkpoint(kernel: Kernel) -> None:
    kernel.run("%load_ext nbpar\nxs = range(5)")
    cell = "%%parallel --checkpoint sweep.db -o ys each x in xs\nprint('ran')\nx * x"
    assert kernel.run(cell).stdout.count("ran") == 5
    again = kernel.run(cell)
    assert again.stdout == ""
    assert again.stderr == "nbpar: 5 of 5 results came from sweep.db; none was left.\n"
    assert kernel.evaluate("ys") == [0, 1, 4, 9, 16]
    changed = kernel.run(cell.replace("x * x", "x * x + 1"))
    assert changed.stdout.count("ran") == 5
    assert changed.stderr == "nbpar: sweep.db has 5 results of another cell, so this starts anew.\n"
    line = "zs = %parallel --checkpoint 'sweep.db' [x + 1 for x in xs if x % 2]"
    kernel.run(line)
    assert "5 of 5 results" in kernel.run(line).stderr
    kernel.run("some = %parallel --checkpoint sweep.db any(x > 3 for x in xs)")
    assert kernel.evaluate("some") is True
    kernel.run("open('mine.txt', 'w').write('mine')")
    result = kernel.run("%%parallel --checkpoint mine.txt each x in xs\nx", raises=True)
    assert result.error is not None
    assert result.error.traceback.count("\n") == 0
    assert "mine.txt cannot be the checkpoint: it is too short to be one" in result.error.traceback
