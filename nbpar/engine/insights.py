"""Where a job's time went, in numbers: :class:`Insights`, worked out from a snapshot of the job.

What a user gets of it is ``job.insights`` (:class:`nbpar.insights.JobInsights`, which adds the table and the frame);
views and advice draw on the same numbers here. Nothing is measured here, and nothing is said in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from nbpar.engine.events import SlowTask
from nbpar.engine.snapshot import Bin, Lane, Snapshot, Status

__all__ = ["Durations", "Insights", "WorkerRow", "insights_rows", "presence_s", "quantile_s", "speedup"]


class WorkerRow(NamedTuple):
    """One worker's part of a job: a row of the table.

    Attributes
    ----------
    worker_id, pid, n_done : int
        The worker, its process (the last one, where it was replaced), and the tasks that ended on it.
    start_s, init_s, wait_s, transfer_s, work_s, exit_s : float
        See :class:`~nbpar.engine.snapshot.Times`.
    busy : float
        Share of its time as a ready worker that it spent in tasks, 0 to 1.
    peak_memory_bytes : int or None
        The most that was seen of its memory; None when nobody looked (see `Lane.usage`).
    cpu : float or None
        Cores that it used in the mean; None as above.
    sent_bytes, received_bytes : int
        Arguments that went to it, results that came back.
    """

    worker_id: int
    pid: int
    n_done: int
    start_s: float
    init_s: float
    wait_s: float
    transfer_s: float
    work_s: float
    exit_s: float
    busy: float
    peak_memory_bytes: int | None
    cpu: float | None
    sent_bytes: int
    received_bytes: int


class Durations(NamedTuple):
    """How long tasks took: half of them at most `median_s`, 19 of 20 at most `p95_s`; within a tenth or so."""

    median_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Insights:
    """A job in numbers.

    Attributes
    ----------
    name : str
        The job's.
    status : str
        ``"running"``, ``"paused"``, ``"done"``, ``"failed"`` or ``"cancelled"``.
    n_tasks : int or None
        None while the length of the input is not known.
    n_done, n_failed : int
        Tasks that have ended, and how many of those failed.
    elapsed_s : float
        Since the job's start, until its end.
    serial_s : float
        Time spent in tasks, summed over the workers: what the job would take without them, by estimate.
    speedup : float
        `serial_s` over `elapsed_s`.
    efficiency : float
        Share of the workers' time, their start included, that was spent in tasks: 0 to 1.
    sent_bytes, received_bytes : int
        Arguments that went to the workers, results that came back.
    kernel_s : float
        What the kernel took to pickle arguments and to rebuild results.
    durations : Durations or None
        Of the tasks; None before one has ended.
    slowest : tuple of SlowTask
        At most five tasks with their items, the slowest first, of those that took over 1 ms.
    workers : tuple of WorkerRow
        One for each, by `worker_id`.
    """

    name: str
    status: Status
    n_tasks: int | None
    n_done: int
    n_failed: int
    elapsed_s: float
    serial_s: float
    speedup: float
    efficiency: float
    sent_bytes: int
    received_bytes: int
    kernel_s: float
    durations: Durations | None
    slowest: tuple[SlowTask, ...]
    workers: tuple[WorkerRow, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The numbers of a job as it was when the snapshot was taken."""
        rows = insights_rows(snapshot)
        serial_s = sum(row.work_s for row in rows)
        present_s = sum(presence_s(lane) for lane in snapshot.lanes)
        return cls(
            name=snapshot.name,
            status=snapshot.status,
            n_tasks=snapshot.n_tasks,
            n_done=snapshot.n_done,
            n_failed=snapshot.n_failed,
            elapsed_s=snapshot.elapsed_s,
            serial_s=serial_s,
            speedup=speedup(snapshot),
            efficiency=min(1.0, serial_s / present_s) if present_s > 0 else 0.0,
            sent_bytes=sum(row.sent_bytes for row in rows),
            received_bytes=sum(row.received_bytes for row in rows),
            kernel_s=snapshot.kernel_s,
            durations=_durations(snapshot.durations, snapshot.slowest),
            slowest=snapshot.slowest,
            workers=rows,
        )


def insights_rows(snapshot: Snapshot) -> tuple[WorkerRow, ...]:
    """One row for each worker."""
    return tuple(_row(lane) for lane in snapshot.lanes)


def _row(lane: Lane) -> WorkerRow:
    usage = lane.usage
    return WorkerRow(
        lane.worker_id,
        lane.pid,
        lane.n_done,
        *lane.times,
        busy=lane.busy,
        peak_memory_bytes=max(one.memory_bytes for one in usage) if usage else None,
        cpu=sum(one.cpu for one in usage) / len(usage) if usage else None,
        sent_bytes=lane.sent_bytes,
        received_bytes=lane.received_bytes,
    )


def presence_s(lane: Lane) -> float:
    """How long a worker was there for the job, from being asked to start until its end or now."""
    times = lane.times
    return times.start_s + times.init_s + times.wait_s + times.transfer_s + times.work_s


def speedup(snapshot: Snapshot) -> float:
    """Time spent in tasks over the time that passed: how much faster than without workers, by estimate."""
    return snapshot.work_s / snapshot.elapsed_s if snapshot.elapsed_s > 0 else 0.0


def _durations(bins: Sequence[Bin], slowest: Sequence[SlowTask]) -> Durations | None:
    if not bins:
        return None
    longest_s = slowest[0].duration_s if slowest else quantile_s(bins, 1.0)
    return Durations(min(quantile_s(bins, 0.5), longest_s), min(quantile_s(bins, 0.95), longest_s), longest_s)


def quantile_s(bins: Sequence[Bin], share: float) -> float:
    """The duration that this share of the tasks did not exceed, by estimate: inside a bin they lie evenly.

    Parameters
    ----------
    bins : sequence of Bin
        Ascending, at least one, with at least one task.

    Examples
    --------
    >>> quantile_s([Bin(1.0, 2.0, 8), Bin(2.0, 4.0, 2)], 0.5)
    1.625
    """
    wanted = share * sum(one.n_tasks for one in bins)
    for one in bins:
        if one.n_tasks and wanted <= one.n_tasks:
            return one.from_s + (one.to_s - one.from_s) * max(0.0, wanted) / one.n_tasks
        wanted -= one.n_tasks
    return bins[-1].to_s  # rounding
