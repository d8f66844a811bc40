"""MPIRE's insights: the numbers of a pool's maps under MPIRE's names, as strings in its format.

The measuring is nbpar's own (:mod:`nbpar.engine.insights`); here the jobs of a pool are summed up. Owned by
:class:`nbpar.interop.mpire.pool.WorkerPool`, which begins a new sum whenever it starts workers, and adds each job that
has ended. Jobs end in any thread, so a lock guards the sums.

=========  =============================================================================
part       of a worker's time
=========  =============================================================================
start up   from being asked to start until it was ready, without `worker_init`
init       in `worker_init`
waiting    for tasks while a map was under way, and for their arguments and results
working    in the function
exit       in `worker_exit`
=========  =============================================================================
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nbpar.engine.events import SlowTask
from nbpar.engine.insights import Insights
from nbpar.interop.mpire.utils import format_seconds

__all__ = ["PARTS", "PoolInsights", "format_args"]

PARTS = ("start_up", "init", "waiting", "working", "exit")

N_LONGEST = 5

LEAST_WORKING_RATIO = 0.8

NOTHING = "No profiling stats available. Try to run a function first with insights enabled ..."


class _Long(NamedTuple):
    duration_s: float
    args: str


def format_args(args: Sequence[Any], kwargs: dict[str, Any] | None = None, text_of: Callable[[Any], str] = repr) -> str:
    """The arguments of a task as MPIRE shows them.

    Examples
    --------
    >>> format_args((3, "x"), {"scale": 2.0})
    "Arg 0: 3 | Arg 1: 'x' | Arg scale: 2.0"
    """
    named = [*enumerate(args), *(kwargs or {}).items()]
    return " | ".join(f"Arg {name}: {text_of(value)}" for name, value in named)


def _arg_of(slow: SlowTask) -> str:
    return f"Arg 0: {slow.item_repr}"


class PoolInsights:
    """What the workers of one pool did, in all of its maps since they were started.

    Parameters
    ----------
    n_jobs : int
        Workers; each has a place in the lists, also when it had nothing to do.

    Examples
    --------
    >>> import nbpar
    >>> told = PoolInsights(n_jobs=1)
    >>> with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
    ...     job = pool.map_async(abs, [-1, -2])
    ...     _ = job.result()
    >>> told.add(job.insights)
    >>> told.as_dict()["n_completed_tasks"]
    [2]
    """

    def __init__(self, n_jobs: int) -> None:
        self._n_completed = [0] * n_jobs
        self._parts = {part: [0.0] * n_jobs for part in PARTS}
        self._longest: list[_Long] = []
        self._lock = threading.Lock()  # guards the three above

    def add(self, told: Insights, args_of: Callable[[SlowTask], str] = _arg_of) -> None:
        """Count a job in.

        Parameters
        ----------
        told : Insights
            Of a job that has ended, or as it is now; each job is to be added once.
        args_of : callable
            Gives the arguments of one of its slow tasks in the format of :func:`format_args`.
        """
        with self._lock:
            for row in told.workers:
                if row.worker_id >= len(self._n_completed):
                    continue
                self._n_completed[row.worker_id] += row.n_done
                times = row.start_s, row.init_s, row.wait_s + row.transfer_s, row.work_s, row.exit_s
                for part, time_s in zip(PARTS, times, strict=True):
                    self._parts[part][row.worker_id] += time_s
            self._keep(_Long(slow.duration_s, args_of(slow)) for slow in told.slowest)

    def add_task(self, worker_id: int, duration_s: float, args: str) -> None:
        """Count a single task in, which belonged to no job."""
        with self._lock:
            self._n_completed[worker_id] += 1
            self._parts["working"][worker_id] += duration_s
            self._keep([_Long(duration_s, args)])

    def move(self, worker_id: int, to: str, duration_s: float) -> None:
        """Time that a job counted as working belongs to another part: a `worker_init` that ran in front of a task."""
        with self._lock:
            working = self._parts["working"]
            working[worker_id] = max(0.0, working[worker_id] - duration_s)
            self._parts[to][worker_id] += duration_s

    def add_time(self, worker_id: int, part: str, duration_s: float) -> None:
        """Count time in that no job knows of: a `worker_exit` after the last one."""
        with self._lock:
            self._parts[part][worker_id] += duration_s

    def as_dict(self) -> dict[str, Any]:
        """What ``get_insights()`` returns: times as strings, ratios as numbers.

        Returns
        -------
        dict
            ``n_completed_tasks``; for each part ``<part>_time`` of each worker, ``total_<part>_time``,
            ``<part>_ratio``, ``<part>_time_mean`` and ``<part>_time_std``; ``total_time``;
            ``top_5_max_task_durations`` and ``top_5_max_task_args`` of the tasks that took over 1 ms.
        """
        with self._lock:
            n_completed = list(self._n_completed)
            parts = {part: list(times) for part, times in self._parts.items()}
            longest = list(self._longest)
        totals = {part: sum(times) for part, times in parts.items()}
        total_s = sum(totals.values())
        told: dict[str, Any] = {"n_completed_tasks": n_completed}
        told |= {f"{part}_time": [_text(time_s) for time_s in times] for part, times in parts.items()}
        told |= {f"total_{part}_time": _text(time_s) for part, time_s in totals.items()}
        told["top_5_max_task_durations"] = [_text(one.duration_s) for one in longest]
        told["top_5_max_task_args"] = [one.args for one in longest]
        told["total_time"] = _text(total_s)
        for part, times in parts.items():
            mean_s = totals[part] / len(times)
            std_s = math.sqrt(sum((time_s - mean_s) ** 2 for time_s in times) / len(times))
            told[f"{part}_ratio"] = totals[part] / (total_s + 1e-8)
            told[f"{part}_time_mean"] = _text(mean_s)
            told[f"{part}_time_std"] = _text(std_s)
        return told

    def as_text(self) -> str:
        """What ``print_insights()`` prints."""
        told = self.as_dict()
        lines = [*_heading("WorkerPool insights"), f"Total number of tasks completed: {sum(told['n_completed_tasks'])}"]
        lines += [
            f"Total {_words(part)} time: {told[f'total_{part}_time']}s (mean: {told[f'{part}_time_mean']}, "
            f"std: {told[f'{part}_time_std']}, ratio: {told[f'{part}_ratio']:.2%})"
            for part in PARTS
        ]
        if told["working_ratio"] < LEAST_WORKING_RATIO:
            lines += ["", f"Efficiency warning: working ratio is < {LEAST_WORKING_RATIO:.0%}!"]
        lines += ["", *_heading("Stats per worker")]
        for worker_id, n_completed in enumerate(told["n_completed_tasks"]):
            times = [f"{_words(part)}: {told[f'{part}_time'][worker_id]}s" for part in PARTS]
            lines.append(" - ".join([f"Worker {worker_id}", f"Tasks completed: {n_completed}", *times]))
        lines += ["", *_heading("Top 5 longest tasks")]
        longest = zip(told["top_5_max_task_durations"], told["top_5_max_task_args"], strict=True)
        lines += [f"{rank}. Time: {duration} - {args}" for rank, (duration, args) in enumerate(longest, start=1)]
        return "\n".join(lines)

    def _keep(self, more: Any) -> None:
        self._longest = sorted([*self._longest, *more], key=lambda one: -one.duration_s)[:N_LONGEST]


def _heading(text: str) -> list[str]:
    return [text, "-" * len(text)]


def _words(part: str) -> str:
    return part.replace("_", " ")


def _text(time_s: float) -> str:
    return format_seconds(time_s, with_milliseconds=True)
