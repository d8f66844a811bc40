"""The terminal's view: one tqdm bar per job on stderr, workers' lines above it."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import wording
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
    """

    def __init__(self, cell: Cell | None = None) -> None:
        self._cell = cell
        self._bar: tqdm[Any] | None = None

    def open(self, snapshot: Snapshot) -> None:
        """Show the bar."""
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]  # not subscriptable when it runs
            monitor_interval = 0  # no thread of tqdm's own: this bar is drawn at every tick anyway

        with self._enter():
            self._bar = Bar(total=snapshot.n_tasks, file=sys.stderr, ncols=_columns(), bar_format=_NO_BAR)
        self.update(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the bar anew."""
        bar = self._bar
        if bar is None:
            return
        bar.total = snapshot.n_tasks
        bar.n = snapshot.n_done
        bar.ncols = _columns()
        # Ours, not tqdm's {postfix}, which comes with a comma in front.
        figures = wording.figures(snapshot)
        if snapshot.n_failed:  # to the front: what does not fit into the line is cut at its end
            figures.insert(0, figures.pop())
        text = " · ".join([wording.tasks(snapshot), *figures])
        bar.bar_format = (_BAR if snapshot.n_tasks else _NO_BAR) + text
        status = "" if snapshot.status in ("running", "done") else f" {snapshot.status}"
        bar.set_description_str(wording.clean(snapshot.name, max(12, bar.ncols // 4)) + status, refresh=False)
        with self._enter():
            bar.refresh()

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines above the bar."""
        if self._bar is None:
            write_lines(lines, self._cell)
            return
        with self._enter():
            for stream, run in groupby(lines, key=lambda line: line.stream):
                text = "".join(label(line) + "\n" for line in run)
                self._above(sys.stdout if stream == "stdout" else sys.stderr, text)

    def close(self, snapshot: Snapshot) -> None:
        """Leave the bar as it is at the end, and say what failed."""
        if self._bar is None:
            return
        self.update(snapshot)
        with self._enter():
            self._bar.close()
        self._bar = None
        shown = snapshot.failures[:5]
        text = "".join(
            f"  #{failure.index}  {wording.clean(failure.item_repr, 80)}  {wording.failure_text(failure)}\n"
            for failure in shown
        )
        if snapshot.n_failed > len(shown) > 0:
            text += f"  and {snapshot.n_failed - len(shown):,} more\n"
        if text:
            with self._enter():
                put(sys.stderr, text)

    def _enter(self) -> AbstractContextManager[None]:
        return nullcontext() if self._cell is None else self._cell.enter()

    @staticmethod
    def _above(file: IO[str], text: str) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=file):  # what tqdm.write does, with our way of writing
            put(file, text)


def _columns() -> int:
    """Width of the terminal behind stderr; tqdm's own guess draws nothing where a terminal says 0, as in containers."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no terminal, no file
        columns = 0
    return columns - 1 if columns > 1 else 100
