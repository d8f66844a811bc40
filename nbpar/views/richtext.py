"""The terminal's view in detail, where rich is installed: the job's bar and a row for each worker, in colour.

All jobs that run at once share one :class:`_Screen`, since a terminal has one end. Nothing is left of it when they have
ended but a line for each.
"""

from __future__ import annotations

import sys
import threading
from itertools import groupby
from typing import TYPE_CHECKING

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import rows, terminal
from nbpar.views.plain import label, put

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["RichView"]

_STYLES = {
    "name": "bold",
    "bar": "blue",
    "rest": "bright_black",
    "done": "green",
    "failed": "bold red",
    "quiet": "dim",
    "advice": "yellow",
}


class RichView:
    """A table that changes: what :mod:`~nbpar.views.rows` says of a job."""

    def __init__(self) -> None:
        self._with_track = False

    def open(self, snapshot: Snapshot) -> None:
        """Begin to draw."""
        self.update(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the job as it is now."""
        self._with_track = self._with_track or any(lane.track is not None for lane in snapshot.lanes)
        if not terminal.is_prompting():  # then the cell has ended, and the table waits for the next one
            _screen.show(self, snapshot)

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines above the table."""
        _screen.write(lines)

    def close(self, snapshot: Snapshot) -> None:
        """Put one line in the table's place, what failed, and what would have been faster."""
        _screen.drop(self)
        _screen.print([rows.end(snapshot), *rows.afterword(snapshot)])

    def lines(self, snapshot: Snapshot, width: int, n_rows: int, *, ascii_only: bool) -> list[rows.Line]:
        """The table, in at most so many rows."""
        head = rows.head(snapshot, width, ascii_only=ascii_only)[:n_rows]
        n_left = n_rows - len(head)
        return head + rows.workers(snapshot, width, n_left, with_track=self._with_track, ascii_only=ascii_only)


class _Screen:
    """The end of the terminal, with the tables of all jobs that are shown there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards all below; the ticker draws, and whoever waits for a job closes it
        self._tables: dict[RichView, Snapshot] = {}
        self._live: Live | None = None
        self._pace = terminal.Pace()

    def show(self, view: RichView, snapshot: Snapshot) -> None:
        """Draw a job's table, for the first time or anew."""
        with self._lock:
            self._tables[view] = snapshot
            if self._live is None:
                self._live = _live()
                self._live.start()
            if self._pace.is_due():  # jobs that run at once are drawn together
                with self._pace.drawing():
                    self._draw(self._live)

    def drop(self, view: RichView) -> None:
        """Take a job's table away."""
        with self._lock:
            self._tables.pop(view, None)
            if self._live is None:
                return
            if self._tables:
                self._draw(self._live)
            else:
                self._live.stop()
                self._live = None
                self._pace = terminal.Pace()

    def write(self, lines: list[OutputLine]) -> None:
        """Write lines of workers above the tables."""
        with self._lock:
            for stream, run in groupby(lines, key=lambda line: line.stream):
                file = sys.stdout if stream == "stdout" else sys.stderr
                text = "\n".join(label(line, file) for line in run)
                # What goes to a file does not touch the terminal. All in one: each call draws the tables anew.
                if self._live is not None and file is not None and file.isatty():
                    self._live.console.out(text, highlight=False)
                else:
                    put(file, text + "\n")

    def print(self, lines: list[rows.Line]) -> None:
        """Leave lines behind, above the tables of other jobs."""
        with self._lock:
            if terminal.is_prompting():
                put(sys.stderr, "".join(rows.plain(line) + "\n" for line in lines))
                return
            console = _console() if self._live is None else self._live.console
            for line in lines:
                console.print(_styled(line, console), soft_wrap=True, highlight=False)

    def _draw(self, live: Live) -> None:
        from rich.text import Text

        console = live.console
        width, height = terminal.size(sys.stderr)
        # One line is left for what is above: a table that fills the terminal would scroll with each line of output.
        n_rows = max(1, (height - 1) // len(self._tables))
        ascii_only = terminal.is_ascii(sys.stderr)
        lines: list[Text] = []
        for view, snapshot in self._tables.items():
            table = view.lines(snapshot, width, n_rows, ascii_only=ascii_only)
            lines.extend(_styled(line, console) for line in table)
        whole = Text("\n", no_wrap=True, overflow="crop").join(lines)
        whole.no_wrap, whole.overflow = True, "crop"
        live.update(whole, refresh=True)


def _console() -> Console:
    from rich.console import Console

    class Quiet(Console):
        """Leaves the cursor alone: a process that is killed could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Quiet(file=sys.stderr, force_jupyter=False, highlight=False, markup=False, emoji=False)


def _live() -> Live:
    from rich.live import Live

    # The streams stay as they are: worker threads have them routed, and would be cut off when it ends.
    return Live(console=_console(), auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)


def _styled(line: rows.Line, console: Console) -> Text:
    from rich.text import Text

    text = Text()
    ascii_only = terminal.is_ascii(console.file)
    for piece in line:
        text.append(terminal.in_ascii(piece.text) if ascii_only else piece.text, _STYLES.get(piece.style, ""))
    return text


_screen = _Screen()
