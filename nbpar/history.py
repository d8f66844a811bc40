"""The jobs of this session, for ``nbpar.jobs()``; and what of their results is kept.

:mod:`nbpar.pool` puts each job in. Bounded: the last 100 jobs, and of those only some with results.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

from nbpar.job import Job

__all__ = ["forget", "jobs", "let_old_results_go", "remember"]

MAX_JOBS_KEPT = 100

MAX_INPUTS_KEPT = 5
"""Jobs that keep their input for `Job.retry_failed` although it is not known whether anybody still has them."""

_recent_lock = threading.RLock()  # guards the next three
_recent: deque[Job[Any] | weakref.ref[Job[Any]]] = deque(maxlen=MAX_JOBS_KEPT)
_unsettled: deque[Job[Any]] = deque(maxlen=MAX_JOBS_KEPT)  # those of which it is open whether their results stay
_with_input: deque[Job[Any]] = deque()  # those that a caller has, or had, and that did not end well


def jobs() -> list[Job[Any]]:
    """The jobs of this session, the oldest first; the last 100 are kept.

    The newest keeps its results, and so does each that failed or was cancelled. Results of other finished jobs are let
    go when the next job begins, unless its caller holds the :class:`~nbpar.job.Job`. So are the inputs, which
    `Job.retry_failed` needs, of all jobs.

    Returns
    -------
    list of Job
        Without the single tasks of `submit`.

    Examples
    --------
    >>> import nbpar
    >>> with nbpar.WorkerPool(start_method="serial") as pool:
    ...     _ = pool.map(abs, [-1, 2])
    >>> nbpar.jobs()[-1].results
    [1, 2]
    """
    with _recent_lock:
        found = [entry() if isinstance(entry, weakref.ref) else entry for entry in _recent]
    return [job for job in found if job is not None]


def remember(job: Job[Any], *, is_held: bool) -> None:
    """Put a new job into the list; `is_held` says that its caller has it, so that it lives as long as that."""
    job.is_held = is_held
    with _recent_lock:
        _recent.append(job)
        _unsettled.append(job)


def let_old_results_go(newest: Job[Any]) -> None:
    """Forget the results of finished jobs but the newest: they must not pile up over a session.

    What has failed or was cancelled keeps what it has, but for its input.
    """
    with _recent_lock:
        for _ in range(len(_unsettled)):
            job = _unsettled.popleft()
            if job is newest or job.status in ("running", "paused"):
                _unsettled.append(job)
            elif job.status == "done" and job.is_held:
                if job in _recent:
                    _recent[_recent.index(job)] = weakref.ref(job)
            elif job.status == "done" and not job.is_taken:
                _unsettled.append(job)
            elif job.status == "done":
                job.let_results_go()
            elif not job.is_held:
                job.let_input_go()
            else:
                _with_input.append(job)
        while len(_with_input) > MAX_INPUTS_KEPT:
            _with_input.popleft().let_input_go()


def forget(job: Job[Any]) -> None:
    """Take out a job that could not be begun."""
    with _recent_lock:
        _recent.remove(job)
        _unsettled.remove(job)
