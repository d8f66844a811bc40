"""A picture of a terminal in which a job runs: a real pseudo terminal, drawn as a page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.terminals import Terminal
from tools.shots import cells

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["page_of", "take"]

COLUMNS, ROWS = 100, 24
ROOT = Path(__file__).parents[2]

Styled = Sequence[Sequence[tuple[str, str, bool]]]

_COLOURS = {
    "default": "#d6dbe1",
    "black": "#6b7580",
    "red": "#ff8a6b",
    "green": "#4cc38a",
    "brown": "#f0c674",
    "blue": "#6aa5f2",
    "magenta": "#c3a6e8",
    "cyan": "#62c7d0",
    "white": "#e6e9ed",
}

_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #fff; }}
#terminal {{ display: inline-block; background: #14181d; border-radius: 8px; padding: 12px 18px 14px; }}
pre {{ margin: 0; font: 13px/1.38 "DejaVu Sans Mono", ui-monospace, monospace; color: {default}; }}
</style><div id="terminal"><pre>{text}</pre></div>"""


def page_of(lines: Styled) -> str:
    """What a terminal shows, as HTML.

    Examples
    --------
    >>> "<span style='color:#4cc38a'>ok</span>" in page_of([[("ok", "green", False), ("  ", "default", False)]])
    True
    """
    text = "\n".join(_line(line) for line in lines)
    return _PAGE.format(default=_COLOURS["default"], text=text)


def _line(runs: Sequence[tuple[str, str, bool]]) -> str:
    parts = []
    for text, colour, is_bold in runs:
        style = "" if colour == "default" else f"color:{_colour(colour)}"
        style += ";font-weight:bold" if is_bold else ""
        parts.append(f"<span style='{style.lstrip(';')}'>{escape(text)}</span>" if style else escape(text))
    return "".join(parts).rstrip()


def _colour(name: str) -> str:
    """Of the names of pyte; bright ones are drawn like the others."""
    plain = name.removeprefix("bright")
    if plain in _COLOURS:
        return _COLOURS[plain]
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else _COLOURS["default"]


def take(browser: Browser, scale: float) -> Iterator[tuple[str, bytes]]:
    """Run the script in a terminal and take the picture in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "download.py").write_text(cells.TERMINAL, encoding="utf-8")
        lines = [[("$ python download.py", "default", True)], *_in_the_middle(folder)]
    page = browser.new_page(viewport={"width": 1000, "height": 700}, device_scale_factor=scale)
    page.set_content(page_of(lines))
    data = page.locator("#terminal").screenshot()
    page.close()
    yield "terminal", data


def _in_the_middle(folder: str) -> Styled:
    environ = dict(os.environ, PYTHONPATH=str(ROOT), TERM="xterm-256color", LANG="C.UTF-8")
    for name in ("CI", "NBPAR_UI", "LC_ALL", "NO_COLOR"):
        environ.pop(name, None)
    terminal = Terminal(COLUMNS, ROWS)
    slave = terminal.slave
    process = subprocess.Popen(
        [sys.executable, "download.py"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=environ,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + 90.0
        while not _is_well_under_way(terminal.look()):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("\n".join(["the script did not get to its middle:", *terminal.look()]))
            time.sleep(0.05)
        return terminal.styled()
    finally:
        process.kill()
        process.wait()
        terminal.close()


def _is_well_under_way(lines: Sequence[str]) -> bool:
    found = re.search(r"(\d+) of (\d+) tasks", "\n".join(lines))
    return found is not None and int(found[1]) >= 0.6 * int(found[2])
