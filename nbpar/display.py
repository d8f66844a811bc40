"""Between a job and its views: lines that wait to be shown, and the moment from which there is something to draw.

Owned by each :class:`nbpar.job.Job` and :class:`nbpar.future.TaskFuture`. What bounds the lines: 1 MB for each view;
what is beyond is counted and said.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nbpar.engine.events import NO_WORKER, OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.errors import JobInterrupt
from nbpar.options import Progress
from nbpar.views import choose
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import PlainOutput, put, write_lines
from nbpar.views.ticker import Watch, watch

__all__ = ["Display", "Lines", "picture", "show", "watch_job", "watch_lines"]

MAX_LINE_BYTES = 1 << 20

MAX_RECENT, MAX_RECENT_LENGTH = 200, 1000
"""Lines, and characters of each, that are kept for a view which comes later; a card shows as many."""


class Lines:
    """Lines of output that wait to be shown; the dispatcher's thread writes, the ticker's takes."""

    def __init__(self) -> None:
        self._lines: deque[OutputLine] = deque()
        self._n_bytes = 0
        self._n_dropped = 0
        self._recent: deque[OutputLine] = deque(maxlen=MAX_RECENT)
        self._followers: list[Lines] = []
        self._lock = threading.Lock()  # guards the five above

    def put(self, line: OutputLine) -> None:
        """Add a line, or count it as dropped."""
        with self._lock:
            if self._n_bytes > MAX_LINE_BYTES:
                self._n_dropped += 1
            else:
                self._lines.append(line)
                self._n_bytes += len(line.text) + 50
            if len(line.text) <= MAX_RECENT_LENGTH:
                self._recent.append(line)
            for follower in self._followers:
                follower.put(line)

    def follow(self) -> Lines:
        """The last lines and those from now on once more, for a further view."""
        follower = Lines()
        with self._lock:
            for line in self._recent:
                follower.put(line)
            self._followers.append(follower)
        return follower

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
    """The views of one job. The first is made when there is something to show: it has lasted, or a task has written.

    Parameters
    ----------
    make : callable
        Begins to watch the job with its view. It was prepared in the caller's thread, so it knows the caller's cell.
    """

    def __init__(self, make: Callable[[], Watch]) -> None:
        self._make = make
        self._has_begun = False
        self._watches: list[Watch] = []
        self._is_over = False
        self._lock = threading.Lock()  # guards the three above
        self._waited_in: Cell | None = None

    def begin(self) -> None:
        """There is something to show: have the job watched from now on."""
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
            self._watches.append(self._make())
        if self._is_over:
            self.finish(wait=False)

    def add(self, watch: Watch) -> None:
        """Have a further view end with the job."""
        with self._lock:
            self._watches.append(watch)
        if self._is_over:
            self.finish(wait=True)

    def finish(self, *, wait: bool) -> None:
        """The job has ended; with `wait`, what there is to see has been drawn when this returns."""
        self._is_over = True
        for one in tuple(self._watches):
            one.finish(wait=wait)

    @contextmanager
    def waited_for(self, name: str) -> Iterator[None]:
        """While this lasts a user's thread does nothing but wait for the job; an interrupt ends that in one line."""
        # Other threads are not interrupted with the kernel. The cell tells whether it still runs, so what an interrupt
        # leaves here between two lines does no harm.
        if threading.current_thread() is threading.main_thread():
            self._waited_in = Cell.current()
        try:
            yield
        except KeyboardInterrupt:  # of a wait, not of the job
            raise JobInterrupt(f"Interrupted: this cell does not wait for {name} any more") from None
        finally:
            self._waited_in = None

    @property
    def is_waited_for(self) -> bool:
        """Whether the kernel's main thread does nothing else."""
        cell = self._waited_in
        return cell is not None and cell.is_running


def watch_job(job: Any, progress: Progress, cell: Cell | None) -> Watch:
    """Begin to show a job, below the cell that it came from."""
    view = choose(progress, cell=cell, controls=_controls(job, cell))
    is_background = job.is_held and cell is not None
    if is_background and isinstance(view, PlainOutput):
        view = _FailureLine(cell)
    return watch(view, job.snapshot, job.take_lines, tells_failure=is_background)


def _controls(job: Any, cell: Cell | None) -> Controls:
    def is_waited_for() -> bool:
        # The cell of a blocking call waits for its job all the time, that of another one as long as it says so.
        return job.is_waited_for or (not job.is_held and cell is not None and cell.is_running)

    return Controls(lambda: _ignore(job.cancel()), job.pause, job.resume, is_waited_for)


class _FailureLine(PlainOutput):
    """No picture of a background job, but a line when it fails: nothing else might ever say so."""

    def close(self, snapshot: Snapshot) -> None:
        """Say it."""
        if snapshot.status == "failed":
            from nbpar.views.wording import clean, failure_text  # not needed where all goes well

            why = [f"item {failure.index}: {failure_text(failure)}" for failure in snapshot.failures[:1]]
            text = ": ".join([f"job {snapshot.job_id}, {clean(snapshot.name)}, failed", *(why or snapshot.notes[-1:])])
            write_lines([OutputLine(NO_WORKER, None, "stderr", text)], self._cell)


def show(job: Any, display: Display, lines: Lines) -> None:
    """Draw a job once more, in the cell that runs now; outside a notebook write it as text."""
    from nbpar.views.dashboard import Dashboard

    cell, snapshot = Cell.current(), job.snapshot()
    view = None if cell is None else choose(True, cell=cell, controls=_controls(job, cell))
    if not isinstance(view, Dashboard):
        put(sys.stdout, picture(snapshot)["text/plain"] + "\n")
    elif snapshot.ended:
        view.close(snapshot)
    else:
        view.is_copy = True
        further = watch(view, job.snapshot, lines.follow().take)
        further.open()
        display.add(further)


def picture(snapshot: Snapshot) -> dict[str, str]:
    """What stays of a job, as HTML and as text."""
    from nbpar.views import report

    return {"text/html": report.to_html(snapshot), "text/plain": report.to_text(snapshot)}


def watch_lines(future: Any, cell: Cell | None) -> Watch:
    """Begin to show what a single task writes: nothing is drawn, so the picture stays empty."""
    return watch(PlainOutput(cell), _no_snapshot, future.take_lines)


def _no_snapshot() -> Snapshot:
    return Snapshot(0, "", "running", 1, 0, 0, 0.0, 0.0, None, 1, ())


def _ignore(_value: object) -> None:
    """For callbacks whose result nobody wants."""
