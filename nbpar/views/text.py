"""The terminal's view: one tqdm bar per job on stderr, workers' lines above it, and on request a line for each worker.

With rich, what is on request is drawn by :mod:`~nbpar.views.richtext` instead.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import rows, terminal, wording
from nbpar.views.cell import Cell
from nbpar.views.plain import label, put, write_lines

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["TextView"]

_BAR = "{desc} {percentage:3.0f}%|{bar}| "
_NO_BAR = "{desc} "


class TextView:
    """A tqdm bar whose figures are the snapshot's own.

    Parameters
    ----------
    cell : Cell, optional
        Where workers' lines go in a kernel, with ``NBPAR_UI=text``.
    detail : bool
        A line for each worker below the bar, as many as the terminal has room for.
    """

    def __init__(self, cell: Cell | None = None, *, detail: bool = False) -> None:
        self._cell = cell
        self._detail = detail
        self._bar: tqdm[Any] | None = None
        self._rows: list[tqdm[Any]] = []
        self._with_track = False
        self._pace = terminal.Pace()
        self._is_ascii = False

    def open(self, snapshot: Snapshot) -> None:
        """Show the bar."""
        if terminal.is_prompting():  # `update` opens it in the next cell
            return
        self._is_ascii = terminal.is_ascii(sys.stderr)
        with self._enter():
            self._bar = self._make(total=snapshot.n_tasks, bar_format=_NO_BAR)
        self.update(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the bar anew."""
        if terminal.is_prompting():
            return
        bar = self._bar
        if bar is None:
            self.open(snapshot)
            return
        columns, n_rows = terminal.size(sys.stderr)
        bar.total = snapshot.n_tasks
        bar.n = snapshot.n_done
        bar.ncols = columns
        # Ours, not tqdm's {postfix}, which comes with a comma in front.
        figures = wording.figures(snapshot)
        if snapshot.n_failed:  # to the front: what does not fit into the line is cut at its end
            figures.insert(0, figures.pop())
        text = self._shown(" · ".join([wording.tasks(snapshot), *figures])).replace("{", "{{").replace("}", "}}")
        # Below 60 columns there is room for a bar or for the figures.
        bar.bar_format = (_BAR if snapshot.n_tasks and columns >= 59 else _NO_BAR) + text
        status = "" if snapshot.status in ("running", "done") else f" {snapshot.status}"
        bar.set_description_str(
            self._shown(wording.clean(snapshot.name, max(12, columns // 4)) + status), refresh=False
        )
        with self._enter():
            bar.refresh()
            if self._detail and not snapshot.ended and self._pace.is_due():
                with self._pace.drawing():
                    self._draw_rows(snapshot, columns, n_rows)

    def _draw_rows(self, snapshot: Snapshot, columns: int, n_rows: int) -> None:
        self._with_track = self._with_track or any(lane.track is not None for lane in snapshot.lanes)
        # Three lines are left for what is above: a table that fills the terminal would scroll with each line of output.
        lines = rows.workers(
            snapshot, columns, max(0, n_rows - 3), with_track=self._with_track, ascii_only=self._is_ascii
        )
        while len(self._rows) < len(lines):
            self._rows.append(self._make(bar_format="{desc}", leave=False))
        for i, one in enumerate(self._rows):
            one.ncols, one.nrows = columns, n_rows + 1
            one.set_description_str(self._shown(rows.plain(lines[i])) if i < len(lines) else "", refresh=False)
            one.refresh()

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines above the bar."""
        if self._bar is None or terminal.is_prompting():
            write_lines(lines, self._cell)
            return
        with self._enter():
            for stream, run in groupby(lines, key=lambda line: line.stream):
                file = sys.stdout if stream == "stdout" else sys.stderr
                self._above(file, "".join(label(line, file) + "\n" for line in run))

    def close(self, snapshot: Snapshot) -> None:
        """Leave the bar as it is at the end, and say what failed and what would have been faster."""
        below = [rows.plain(line) for line in rows.afterword(snapshot)]
        if self._bar is None or terminal.is_prompting():  # the bar would be drawn into the prompt
            below.insert(0, rows.plain(rows.end(snapshot)))
            for one in (*self._rows, self._bar):
                if one is not None:
                    one.disable = True
        else:
            with self._enter():
                for one in reversed(self._rows):
                    one.close()
                self.update(snapshot)
                self._bar.close()
        self._bar, self._rows = None, []
        text = "".join(self._shown(line) + "\n" for line in below)
        if text:
            with self._enter():
                put(sys.stderr, text)

    def _make(self, **options: Any) -> tqdm[Any]:
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]  # not subscriptable when it runs
            monitor_interval = 0  # no thread of tqdm's own: this bar is drawn at every tick anyway

        columns, n_rows = terminal.size(sys.stderr)
        return Bar(file=sys.stderr, ncols=columns, nrows=n_rows + 1, ascii=self._is_ascii or None, **options)

    def _shown(self, text: str) -> str:
        return terminal.in_ascii(text) if self._is_ascii else text

    def _enter(self) -> AbstractContextManager[None]:
        return nullcontext() if self._cell is None else self._cell.enter()

    @staticmethod
    def _above(file: IO[str], text: str) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=file):  # what tqdm.write does, with our way of writing
            put(file, text)
