"""The quickstart, in an environment built from ``binder/`` alone, as a newcomer's would be."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_notebooks_are_saved_without_outputs() -> None:
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), f"{path.name}, cell {cell['id']}"
            assert cell.get("execution_count") is None, f"{path.name}, cell {cell['id']}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quickstart_runs_where_only_binder_files_were_installed(tmp_path: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's, which is set for a limit of 60 seconds
    venv = tmp_path / "venv"
    # Nothing of this environment may reach the fresh one: not its packages, nor kernels of the user's.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JUPYTER", "VIRTUAL_ENV"))}
    env["PATH"] = os.pathsep.join([str(venv / "bin"), env["PATH"]])
    env["JUPYTER_DATA_DIR"] = str(tmp_path / "jupyter")
    env["IPYTHONDIR"] = str(tmp_path / "ipython")

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    run(sys.executable, "-m", "venv", venv)
    # A third of pip's time would go into bytecode of which hardly a part is ever loaded.
    run("python", "-m", "pip", "install", "--quiet", "--no-compile", "-r", "binder/requirements.txt")
    run(ROOT / "binder" / "postBuild")
    where = run("python", "-P", "-c", "import nbpar; print(nbpar.__file__)")
    assert Path(where.strip()).is_relative_to(venv)
    assert "times as fast" in run("python", "tools/run_notebook.py", "notebooks/quickstart.ipynb", tmp_path / "out")
