"""CPython's own tests of ``ProcessPoolExecutor``, with nbpar's executor in its place.

The suite of Python 3.10, which is one file, is looked for beside the running Python and on the PATH; it is run by the
running one, in processes of its own. By default: all of it with forkserver, with fork what does not sleep for seconds,
and with spawn, which takes a second to start, what is about beginning and end. ``NBPAR_WHOLE_SUITE=1`` runs all of it
with all three.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CANNOT_HOLD = {
    r"\.test_idle_process_reuse_": "it counts processes: all of nbpar's start together, in milliseconds",
    r"(Forkserver|Spawn).*\.test_processes_terminate$": "as above: it wants three of five",
    r"\.test_killed_child$": "it kills a process that does nothing: nbpar replaces that, and no call is lost",
    r"FailingInitializerTest\.": "it looks for the log record in a worker; nbpar writes one record, in this process",
}
"""Patterns of names, and why what they name cannot hold of nbpar's executor."""

SLOW = r"(WaitTest|AsCompletedTest|\.test_map_timeout$)"
"""These sleep for seconds; what they ask of futures is the same with all start methods."""

BEGIN_AND_END = r"(InitializerTest|ShutdownTest)\."
"""What a start method makes different."""

N_AT_ONCE = 3
"""Processes that run parts of the suite side by side: most of it is sleep."""


def _suite() -> Path | None:
    """The folder of the tests of a Python 3.10."""
    found = [Path(sys.base_prefix)] if sys.version_info < (3, 11) else []
    found += sorted(Path(sys.base_prefix).parent.glob("3.10*"))
    if (on_path := shutil.which("python3.10")) is not None:
        found.append(Path(on_path).resolve().parents[1])
    for prefix in (*found, Path("/usr"), Path("/usr/local")):
        folder = prefix / "lib" / "python3.10" / "test"
        if (folder / "test_concurrent_futures.py").is_file():
            return folder
    return None


_FOLDER = _suite()
_OWN = Path(os.__file__).parent / "test"

pytestmark = [
    pytest.mark.skipif(_FOLDER is None, reason="there is no Python 3.10 here, whose tests these are"),
    pytest.mark.skipif(not (_OWN / "support").is_dir(), reason="this Python came without test.support"),
    pytest.mark.timeout(600 if os.environ.get("NBPAR_WHOLE_SUITE") else 60),
]

_SITE = """
import concurrent.futures as _futures

_own = _futures.__getattr__


def _look_up(name):
    if name != "ProcessPoolExecutor":
        return _own(name)
    from tests.interop.cpython.adapter import ProcessPoolExecutor

    _futures.ProcessPoolExecutor = ProcessPoolExecutor
    return ProcessPoolExecutor


_futures.__getattr__ = _look_up
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``test`` has the suite and ``concurrent.futures`` has nbpar's executor."""
    folder = tmp_path_factory.mktemp("cpython")
    (folder / "test").mkdir()
    (folder / "test" / "__init__.py").write_text(f"__path__ = {[str(_OWN), str(_FOLDER)]!r}\n")
    (folder / "sitecustomize.py").write_text(_SITE)
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "PYTHONWARNINGS": "default"}


def _start(environ: dict[str, str], target: Path, names: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.interop.cpython.run", str(target), *names]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def names(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All tests of process pools that the suite has."""
    target = tmp_path_factory.mktemp("names") / "names.json"
    with _start(environ, target, []) as process:
        text, _ = process.communicate(timeout=50)
    assert process.returncode == 0, text
    found: list[str] = json.loads(target.read_text())
    return found


def _cannot_hold(name: str) -> bool:
    return any(re.search(pattern, name) for pattern in CANNOT_HOLD)


def _parts(names: list[str]) -> Iterator[list[str]]:
    """The names shared out, those that sleep too."""
    ordered = sorted(names, key=lambda name: (re.search(SLOW, name) is None, name))
    for i in range(N_AT_ONCE):
        yield ordered[i::N_AT_ONCE]


def test_what_cannot_hold_is_in_the_suite(names: list[str]) -> None:
    assert [pattern for pattern in CANNOT_HOLD if not any(re.search(pattern, name) for name in names)] == []
    assert sum(map(_cannot_hold, names)) < len(names) / 10


@pytest.mark.parametrize("start_method", ["Forkserver", "Spawn", pytest.param("Fork", id="Fork")])
def test_the_suite_passes(start_method: str, environ: dict[str, str], names: list[str], tmp_path: Path) -> None:
    mine = [name for name in names if re.match(f"ProcessPool{start_method}[A-Z]", name) and not _cannot_hold(name)]
    chosen = mine
    if not os.environ.get("NBPAR_WHOLE_SUITE") and start_method == "Fork":
        chosen = [name for name in mine if not re.search(SLOW, name)]
    elif not os.environ.get("NBPAR_WHOLE_SUITE") and start_method == "Spawn":
        chosen = [name for name in mine if re.search(BEGIN_AND_END, name)]
    assert len(chosen) > 10
    targets = [tmp_path / f"{i}.json" for i in range(N_AT_ONCE)]
    outcomes: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_start(environ, *one)) for one in zip(targets, _parts(chosen), strict=True)]
        for process in running:
            stack.callback(process.kill)  # what is still there when one has failed
        for process, target in zip(running, targets, strict=True):
            text, _ = process.communicate()
            assert process.returncode == 0, text
            outcomes.update(json.loads(target.read_text())["outcomes"])
    assert sorted(outcomes) == sorted(chosen)
    bad = [f"{name}: {text}" for name, (outcome, text) in outcomes.items() if outcome not in ("ok", "skipped")]
    assert bad == [], "\n".join(bad)
    assert sum(outcome == "skipped" for outcome, _ in outcomes.values()) <= 4  # for Windows, or as the suite says
