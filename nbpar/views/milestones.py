"""A view for logs, for ``progress=True`` where nothing can move: a line for each tenth of a job or half minute."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import rows, terminal, wording
from nbpar.views.cell import Cell
from nbpar.views.plain import put, write_lines

__all__ = ["Milestones"]

AT_LEAST_EVERY_S = 30.0


class Milestones:
    """Whole lines on stderr, no carriage returns.

    Parameters
    ----------
    cell : Cell, optional
        Where they go in a kernel.
    """

    def __init__(self, cell: Cell | None = None) -> None:
        self._cell = cell
        self._n_tenths = 0
        self._said_s = 0.0

    def open(self, snapshot: Snapshot) -> None:
        """Say nothing yet: the first tenth is soon enough."""
        self._said_s = snapshot.elapsed_s

    def update(self, snapshot: Snapshot) -> None:
        """Say how far the job is, when a tenth more is done or half a minute has passed."""
        n_tenths = 10 * snapshot.n_done // snapshot.n_tasks if snapshot.n_tasks else 0
        if n_tenths > self._n_tenths or snapshot.elapsed_s - self._said_s >= AT_LEAST_EVERY_S:
            self._n_tenths, self._said_s = n_tenths, snapshot.elapsed_s
            share = f"{wording.percent(snapshot.n_done / snapshot.n_tasks)}, " if snapshot.n_tasks else ""
            name, _, figures = rows.plain(rows.end(snapshot)).partition(": ")
            self._put([f"{name.removesuffix(' running')}: {share}{figures}"])

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines."""
        write_lines(lines, self._cell)

    def close(self, snapshot: Snapshot) -> None:
        """Say how it ended."""
        self._put([rows.plain(line) for line in (rows.end(snapshot), *rows.afterword(snapshot))])

    def _put(self, lines: list[str]) -> None:
        text = "".join(line + "\n" for line in lines)
        with nullcontext() if self._cell is None else self._cell.enter():
            put(sys.stderr, terminal.in_ascii(text) if terminal.is_ascii(sys.stderr) else text)
