"""Between a job and its view: lines that wait to be shown, and the moment from which there is something to draw.

Owned by each :class:`nbpar.job.Job` and :class:`nbpar.future.TaskFuture`. What bounds the lines: 1 MB; what is beyond
is counted and said.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import choose
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import PlainOutput
from nbpar.views.ticker import Watch, watch

__all__ = ["Display", "Lines", "watch_job", "watch_lines"]

MAX_LINE_BYTES = 1 << 20


class Lines:
    """Lines of output that wait to be shown; the dispatcher's thread writes, the ticker's takes."""

    def __init__(self) -> None:
        self._lines: deque[OutputLine] = deque()
        self._n_bytes = 0
        self._n_dropped = 0
        self._lock = threading.Lock()  # guards the three above

    def put(self, line: OutputLine) -> None:
        """Add a line, or count it as dropped."""
        with self._lock:
            if self._n_bytes > MAX_LINE_BYTES:
                self._n_dropped += 1
            else:
                self._lines.append(line)
                self._n_bytes += len(line.text) + 50

    def take(self) -> list[OutputLine]:
        """All lines since the last call."""
        with self._lock:
            lines = list(self._lines)
            if self._n_dropped:
                text = f"... {self._n_dropped:,} more lines were dropped: they came faster than they could be shown"
                lines.append(OutputLine(lines[-1].worker_id if lines else 0, None, "stderr", text))
            self._lines.clear()
            self._n_bytes = self._n_dropped = 0
        return lines


class Display:
    """The view of one job, made when there is something to show: the job has lasted, or a task has written.

    Parameters
    ----------
    make : callable
        Begins to watch the job with its view. It was prepared in the caller's thread, so it knows the caller's cell.
    """

    def __init__(self, make: Callable[[], Watch]) -> None:
        self._make = make
        self._watch: Watch | None = None
        self._lock = threading.Lock()  # guards making the watch once

    def begin(self) -> None:
        """There is something to show: have the job watched from now on."""
        with self._lock:
            if self._watch is None:
                self._watch = self._make()

    def finish(self, *, wait: bool) -> None:
        """The job has ended; with `wait`, what there is to see has been drawn when this returns."""
        if self._watch is not None:
            self._watch.finish(wait=wait)


def watch_job(job: Any, progress: bool | None, cell: Cell | None) -> Watch:
    """Begin to show a job, below the cell that it came from."""
    controls = Controls(cancel=lambda: _ignore(job.cancel()), pause=job.pause, resume=job.resume)
    return watch(choose(progress, cell=cell, controls=controls), job.snapshot, job.take_lines)


def watch_lines(future: Any, cell: Cell | None) -> Watch:
    """Begin to show what a single task writes: nothing is drawn, so the picture stays empty."""
    return watch(PlainOutput(cell), _no_snapshot, future.take_lines)


def _no_snapshot() -> Snapshot:
    return Snapshot(0, "", "running", 1, 0, 0, 0.0, 0.0, None, 1, ())


def _ignore(_value: object) -> None:
    """For callbacks whose result nobody wants."""
