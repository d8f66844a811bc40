"""Runs programs that were written for another library: as they are, but for the import of nbpar's door.

A program is text, as its user has it in a file. Above its last lines stands a guard, which :func:`unguarded` takes
away: notebooks and quick scripts have none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["ROOT", "ported", "run_program", "unguarded"]

ROOT = Path(__file__).parents[2]
GUARD = '\n\nif __name__ == "__main__":\n'


def ported(program: str, line: str, door: str) -> str:
    """The program with one import line changed, and nothing else."""
    lines = program.strip("\n").split("\n")
    assert lines.count(line) == 1
    lines[lines.index(line)] = door
    return "\n".join(lines) + "\n"


def unguarded(program: str) -> str:
    """The program without the guard of its last lines."""
    definitions, guard, end = program.partition(GUARD)
    assert guard
    return definitions + "\n\n" + textwrap.dedent(end)


def run_program(program: str, folder: Path, *args: str) -> str:
    """Run a program as a script in a process of its own; what it printed.

    It must end by itself and tell no error. What it writes to stderr besides is a progress bar's.
    """
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
    return done.stdout
