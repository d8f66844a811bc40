"""A job's insights as a table of plain text: what ``print(job.insights)`` writes, and the saved picture's text version.

Columns of which nothing is known are left out, so that the table of a threads pool or of a short job stays narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from nbpar.engine.insights import Insights, WorkerRow
from nbpar.views.wording import clean, duration, percent

__all__ = ["NOTHING", "aligned", "insights_text", "size", "worker_cells"]

MAX_ROWS = 32
"""Workers that get a line; of more, only the busiest and the least busy would be looked at anyhow."""

NOTHING = "-"


def _seconds(value: float) -> str:
    return duration(value) if value > 0 else NOTHING


def _count(value: int) -> str:
    return f"{value:,}"


def size(n_bytes: int) -> str:
    """A size as one says it.

    Examples
    --------
    >>> [size(n) for n in (0, 999, 65_000, 2_345_000_000)]
    ['-', '999 B', '65 kB', '2.3 GB']
    """
    value, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    if not n_bytes:
        return NOTHING
    return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"


def _cores(value: float) -> str:
    return f"{value:.1f}"


# Heading, field, how it is written, and whether it is shown although it is nothing everywhere.
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str], bool], ...] = (
    ("worker", "worker_id", str, True),
    ("pid", "pid", str, True),
    ("tasks", "n_done", _count, True),
    ("start", "start_s", _seconds, False),
    ("init", "init_s", _seconds, False),
    ("wait", "wait_s", _seconds, True),
    ("transfer", "transfer_s", _seconds, False),
    ("work", "work_s", _seconds, True),
    ("exit", "exit_s", _seconds, False),
    ("busy", "busy", percent, True),
    ("memory", "peak_memory_bytes", size, False),
    ("cores", "cpu", _cores, False),
    ("sent", "sent_bytes", size, False),
    ("received", "received_bytes", size, False),
)


def insights_text(insights: Insights) -> str:
    """The job's numbers, a line for each worker, and the slowest tasks with their items."""
    lines = _head(insights)
    if insights.workers:
        lines += ["", *_table(insights.workers[:MAX_ROWS])]
        if len(insights.workers) > MAX_ROWS:
            lines.append(f"and {len(insights.workers) - MAX_ROWS} more workers: job.insights.workers has them all")
    if insights.slowest:
        lines += ["", "slowest tasks"]
        width = max(len(duration(one.duration_s)) for one in insights.slowest)
        lines += [
            f"  {duration(one.duration_s):>{width}}  item {one.task_index:,}: {clean(one.item_repr, 80)}"
            for one in insights.slowest
        ]
    return "\n".join(lines)


def _head(insights: Insights) -> list[str]:
    of = "" if insights.n_tasks is None else f" of {insights.n_tasks:,}"
    failed = f", {insights.n_failed:,} failed" if insights.n_failed else ""
    name, passed = clean(insights.name, 80), duration(insights.elapsed_s)
    lines = [f"{name}: {insights.status}, {insights.n_done:,}{of} tasks in {passed}{failed}"]
    if insights.workers:
        gain, work, share = f"{insights.speedup:.1f}", duration(insights.serial_s), percent(insights.efficiency)
        lines.append(f"{gain}\N{MULTIPLICATION SIGN} serial: {work} in tasks, {share} of the workers' time")
    if insights.durations is not None:
        median, p95, longest = (duration(one) for one in insights.durations)
        lines.append(f"a task took {median} (median), 95% took at most {p95}, the longest {longest}")
    if insights.sent_bytes or insights.received_bytes:
        sent, received = size(insights.sent_bytes), size(insights.received_bytes)
        lines.append(f"sent {sent}, received {received}; the kernel pickled for {duration(insights.kernel_s)}")
    return lines


def _table(rows: Sequence[WorkerRow]) -> list[str]:
    return aligned(worker_cells(rows))


def worker_cells(rows: Sequence[WorkerRow], *, without: Collection[str] = ()) -> list[list[str]]:
    """The table of workers: the headings, then a list of cells for each.

    Parameters
    ----------
    rows : sequence of WorkerRow
        At least one.
    without : collection of str
        Headings of columns to leave out.
    """
    columns = []
    for heading, field, write, always in _COLUMNS:
        values = [getattr(row, field) for row in rows]
        if heading not in without and (always or any(values)):
            columns.append([heading, *(NOTHING if value is None else write(value) for value in values)])
    return [list(cells) for cells in zip(*columns, strict=True)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column to the right.

    Examples
    --------
    >>> aligned([["worker", "tasks"], ["0", "1,200"], ["1", "7"]])
    ['worker  tasks', '     0  1,200', '     1      7']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
