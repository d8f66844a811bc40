"""Workers' lines as plain text: the view without a picture, and the writing that the other views share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from typing import IO

from nbpar.engine.events import NO_WORKER, UNLABELLED, OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import terminal
from nbpar.views.cell import Cell

__all__ = ["PlainOutput", "label", "put", "write_lines"]


def label(line: OutputLine, file: IO[str] | None = None) -> str:
    """The line with who wrote it in front, in characters that `file` has.

    Examples
    --------
    >>> label(OutputLine(worker_id=1, index=17, stream="stdout", text="hello"))
    '[worker 1 · item 17] hello'
    >>> label(OutputLine(worker_id=1, index=None, stream="stderr", text="ready"))
    '[worker 1] ready'
    """
    if line.worker_id == NO_WORKER:
        return f"nbpar: {line.text}"
    if line.worker_id == UNLABELLED:
        return line.text
    item = "" if line.index is None else f" · item {line.index}"
    if item and terminal.is_ascii(file):
        item = f", item {line.index}"
    return f"[worker {line.worker_id}{item}] {line.text}"


def write_lines(lines: Iterable[OutputLine], cell: Cell | None = None) -> None:
    """Write labelled lines to ``sys.stdout`` and ``sys.stderr``, in order, into `cell` where there is one.

    A line is never split over two write calls, so lines of other threads cannot come into its middle.
    """
    if cell is not None:
        with cell.enter():
            write_lines(lines)
        return
    for stream, run in groupby(lines, key=lambda line: line.stream):
        file = sys.stdout if stream == "stdout" else sys.stderr
        put(file, "".join(label(line, file) + "\n" for line in run))


def put(file: IO[str] | None, text: str) -> None:
    """Write `text` and flush; a character that `file` cannot encode is written as its escape."""
    if file is None:  # pythonw
        return
    try:
        file.write(text)
    except UnicodeEncodeError:
        encoding = getattr(file, "encoding", None) or "ascii"
        file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()


class PlainOutput:
    """The view that draws nothing: workers' lines are written, labelled. For ``progress=False``, pipes and CI logs."""

    def __init__(self, cell: Cell | None = None) -> None:
        self._cell = cell

    def open(self, snapshot: Snapshot) -> None:
        """Draw nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Draw nothing."""

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines."""
        write_lines(lines, self._cell)

    def close(self, snapshot: Snapshot) -> None:
        """Draw nothing."""
