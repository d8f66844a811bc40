"""Whose turn it is: the jobs of a pool share its workers' time, however long the tasks of each are.

By turns alone a job of tasks of a second would get a hundred times the time of one whose chunks take 10 ms. So the next
chunk is one of the job that the workers have spent the least time on, counted from when it came, or came back: who was
not there has saved nothing up. Among jobs that have had the same, those that were not served yet come first, in the
order in which they came: so single tasks (`submit`) are begun in their order. Owned by
:class:`nbpar.engine.scheduler.Scheduler`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from nbpar.engine.chunking import AHEAD_S
from nbpar.engine.plans import Held, JobRecord, WorkerRecord

__all__ = ["Turns"]

SUM_S = 0.005
"""What is on its way is summed up so often at most, since that takes 1 us for each worker; in between, what is sent is
added. A chunk has 10 ms of work."""


class Turns:
    """The order in which jobs are served.

    Parameters
    ----------
    jobs : mapping of job_id to JobRecord
        The scheduler's, all of them.
    workers : sequence of WorkerRecord
        The scheduler's.
    """

    def __init__(self, jobs: Mapping[int, JobRecord], workers: Sequence[WorkerRecord]) -> None:
        self._jobs = jobs
        self._workers = workers
        self._new: OrderedDict[int, None] = OrderedDict()  # ids of jobs that were not served since they came, in order
        self._last: OrderedDict[int, None] = OrderedDict()  # of the others; the one that was served last stands last
        self._joining: set[int] = set()
        self._spent: dict[int, float] = {}  # seconds of workers that each job has had, as of the next
        self._summed_s = float("-inf")

    def joins(self, job_id: int) -> None:
        """A job is new, or goes on after it had nothing to send."""
        self._joining.add(job_id)
        self._last.pop(job_id, None)
        self._new[job_id] = None

    def leaves(self, job_id: int) -> None:
        """A job has ended."""
        self._new.pop(job_id, None)
        self._last.pop(job_id, None)
        self._joining.discard(job_id)
        self._spent.pop(job_id, None)

    def served(self, job_id: int, n_tasks: int) -> None:
        """A job's chunk goes out."""
        self._new.pop(job_id, None)
        self._last[job_id] = None
        self._last.move_to_end(job_id)
        if job_id in self._spent:
            self._spent[job_id] += (self._jobs[job_id].sizer.mean_s or 0.0) * n_tasks

    def order(self, now_s: float) -> list[int]:
        """Ids of the jobs, the next to be served first."""
        if len(self._new) + len(self._last) < 2:
            self._joining.clear()  # nobody is there to be behind of
            return [*self._new, *self._last]
        if self._joining or now_s - self._summed_s > SUM_S:
            self._spent, self._summed_s = self._sum(now_s), now_s
            self._let_join(self._spent)
        return sorted((*self._new, *self._last), key=self._spent.__getitem__)

    def _let_join(self, spent: dict[int, float]) -> None:
        """Have those that come begin where the others are: what they did not use before is not made up for."""
        there = [spent[job_id] for job_id, job in self._jobs.items() if job.is_active and job_id not in self._joining]
        for job_id in self._joining if there else ():
            late_s = max(0.0, min(there) - spent[job_id])
            spent[job_id] += late_s
            self._jobs[job_id].spent_s += late_s
        self._joining.clear()

    def may_wait_behind(self, held: Held) -> bool:
        """Whether a chunk of another job may be sent to a worker that has this one still to do."""
        job = self._jobs.get(held.chunk.job_id)
        mean_s = None if job is None else job.sizer.mean_s
        return mean_s is not None and mean_s * len(held.chunk) < AHEAD_S

    def _sum(self, now_s: float) -> dict[int, float]:
        """What each job has had, and will have had when its chunks on the way have ended."""
        spent = {job_id: job.spent_s for job_id, job in self._jobs.items()}
        for worker in self._workers:
            for place, held in enumerate(worker.held):
                job = self._jobs.get(held.chunk.job_id)
                if job is None:
                    continue
                expected_s = (job.sizer.mean_s or 0.0) * (held.chunk.stop - held.done_to)
                since_s = now_s - held.sent_at_s - held.work_s if place == 0 else 0.0
                spent[held.chunk.job_id] += max(expected_s, since_s)
        return spent
