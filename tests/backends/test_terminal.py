"""Real jobs in real pseudo terminals: scripts, Ctrl-C, CI, IPython."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, until
from tests.unit.terminals import Terminal

# Makes the terminal the script's own, so that Ctrl-C in it interrupts.
BEGIN = """
import fcntl, os, termios, time
from pathlib import Path
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
import nbpar
import tqdm

def wait(name):
    while not Path(name).exists():
        time.sleep(0.01)

def task(i):
    for step in tqdm.tqdm(range(4)):
        if step == 3:
            print("task", i, "waits")
            wait("go")
    if i == 1:
        raise ValueError("as it should")
    return i
"""


class Script:
    """A script in a terminal of its own."""

    def __init__(self, code: str, folder: Path, **variables: str) -> None:
        self.terminal = Terminal(100, 24)
        self._folder = folder
        environ = dict(os.environ, PYTHONPATH=str(ROOT), TERM="xterm-256color", LANG="en_US.UTF-8", HOME=str(folder))
        for name in ("CI", "NBPAR_UI", "LC_ALL", "NO_COLOR"):
            environ.pop(name, None)
        slave = self.terminal.slave
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BEGIN + code],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environ | variables,
            start_new_session=True,
        )

    def go(self) -> None:
        """Let the tasks end."""
        (self._folder / "go").touch()

    def until_shown(self, pattern: str) -> re.Match[str]:
        """Wait until the screen shows something."""
        try:
            until(lambda: re.search(pattern, "\n".join(self.terminal.look())))
        except AssertionError:
            raise AssertionError("\n".join(["not shown:", pattern, *self.terminal.look()])) from None
        found = re.search(pattern, "\n".join(self.terminal.look()))
        assert found is not None, "it was shown for a moment only"
        return found

    def type(self, text: str) -> None:
        os.write(self.terminal.master, text.encode())

    def end(self) -> list[str]:
        """Wait for its end; what the terminal shows then."""
        assert self.process.wait(30) == 0, self.terminal.look()
        return self.terminal.shown()

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self.process.kill()
        self.process.wait()
        self.terminal.close()


Start = Callable[..., Script]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts scripts, and ends them."""
    made: list[Script] = []

    def begin(code: str, **variables: str) -> Script:
        made.append(Script(code, tmp_path, **variables))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_a_script_shows_its_workers_and_leaves_a_line(start: Start) -> None:
    script = start(
        """
with nbpar.WorkerPool(n_workers=2) as pool:
    found = pool.map(task, range(4), progress="detail", on_error="return", name="simulate")
print("got", len(found))
""",
    )
    script.until_shown(r"(?s)simulate .*0%.* 0 +\S+ +75%  item \d .* 1 +\S+ +75%  item \d")
    script.go()
    *lines, end, failure, got = script.end()
    assert sorted(line.partition("] ")[2] for line in lines) == [f"task {i} waits" for i in range(4)]
    assert re.fullmatch(r"simulate: 4 of 4 tasks · .* · took .* · 1 failed", end)
    assert failure == "  #1  1  ValueError: as it should"
    assert got == "got 4"


def test_ctrl_c_ends_the_table_and_the_terminal_is_as_it_was(start: Start) -> None:
    script = start(
        """
pool = nbpar.WorkerPool(n_workers=2)
try:
    pool.map(task, range(4), progress="detail", name="simulate")
except KeyboardInterrupt:
    print("interrupted")
print(pool.map(abs, [-1]))
pool.shutdown()
""",
    )
    script.until_shown("item 1 ")
    script.type("\x03")
    shown = script.end()
    assert [line for line in shown if re.match("simulate cancelled: 0 of 4 tasks", line)]
    assert shown[-2:] == ["interrupted", "[1]"]
    assert not [line for line in shown if "75%" in line]


def test_the_log_of_a_ci_run_has_what_tasks_print_alone(start: Start) -> None:
    script = start(
        """
with nbpar.WorkerPool(n_workers=1) as pool:
    pool.map(lambda i: (time.sleep(0.4), print("hello")), range(2))
""",
        CI="true",
    )
    assert script.end() == [f"[worker 0 · item {i}] hello" for i in range(2)]
    assert b"\x1b[" not in script.terminal.raw


def test_ipython_shows_a_bar_and_leaves_the_prompt_alone(start: Start) -> None:
    script = start(
        """
def grow_old(i):
    time.sleep(0.8)
    print("old enough for a picture")
    wait("go")

from IPython import start_ipython
start_ipython(["--no-banner", "--no-confirm-exit", "--no-autoindent"], user_ns=globals())
""",
        PROMPT_TOOLKIT_NO_CPR="1",
    )
    script.until_shown(r"In \[1\]:")
    script.type('pool = nbpar.WorkerPool(n_workers=2); job = pool.map_async(grow_old, [0], name="later")\r')
    script.until_shown(r"In \[2\]:")
    n_bytes = len(script.terminal.raw)  # on a busy machine the bar is there before the prompt
    script.until_shown(r"(?s)old enough.*In \[2\]:")
    assert b"%|" not in script.terminal.raw[n_bytes:]
    script.go()
    script.until_shown(r"(?s)later: 1 of 1 tasks .*\nIn \[2\]:")
    script.type('pool.map(time.sleep, [0.6] * 2, name="now")\r')
    script.until_shown(r"now 100%\|")
    script.type("pool.shutdown(); exit()\r")
    script.end()
