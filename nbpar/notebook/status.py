"""The text of ``%nbpar status``: the workers and the latest jobs.

Owns the wording of that table and nothing else. Called by :mod:`nbpar.notebook.magics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbpar.job import Job
from nbpar.pool import WorkerPool

__all__ = ["status_text"]

N_JOBS = 10
_HEAD = ("id", "name", "status", "tasks", "failed", "seconds")


def status_text(pools: Sequence[WorkerPool], jobs: Sequence[Job[Any]]) -> str:
    """A line for each pool and a table of the latest jobs, the newest last.

    Parameters
    ----------
    pools : sequence of WorkerPool
    jobs : sequence of Job
        The oldest first.

    Examples
    --------
    >>> with WorkerPool(n_workers=2, start_method="threads") as pool:
    ...     print(status_text([pool], []))
    2 workers (threads), not started yet
    No jobs yet.
    """
    lines = [_of_pool(pool) for pool in pools]
    if not jobs:
        return "\n".join([*lines, "No jobs yet."])
    rows = [_HEAD, *(_of_job(job) for job in jobs[-N_JOBS:])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines.append("")
    for row in rows:
        cells = [
            text.ljust(width) if name in ("name", "status") else text.rjust(width)
            for name, text, width in zip(_HEAD, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    if len(jobs) > N_JOBS:
        lines.append(f"... and {len(jobs) - N_JOBS} older: nbpar.jobs()")
    return "\n".join(lines)


def _of_pool(pool: WorkerPool) -> str:
    plural = "s" if pool.n_workers != 1 else ""
    head = f"{pool.n_workers} worker{plural} ({pool.start_method})"
    pids = pool.pids()
    if not pids:
        return f"{head}, not started yet"
    return f"{head}, pid{'s' if len(set(pids.values())) > 1 else ''} " + " ".join(str(pid) for pid in _unique(pids))


def _unique(pids: dict[int, int]) -> list[int]:
    return list(dict.fromkeys(pid for _, pid in sorted(pids.items())))


def _of_job(job: Job[Any]) -> tuple[str, ...]:
    snapshot = job.snapshot()
    tasks = str(snapshot.n_done) if snapshot.n_tasks is None else f"{snapshot.n_done}/{snapshot.n_tasks}"
    name = job.name if len(job.name) <= 40 else job.name[:39] + "…"
    return str(job.id), name, snapshot.status, tasks, str(snapshot.n_failed), f"{snapshot.elapsed_s:.2f}"
