"""Which workers there should be: when one is started, replaced, asked to end, and ended by force.

Owned and called by :class:`nbpar.engine.scheduler.Scheduler`, which decides what they run.

::

    absent --StartWorker--> starting --ready--> ready --StopWorker--> stopping --lost--> absent
                               |                  |                                        ^
                               +------------------+------------------------- lost ---------+
"""

from __future__ import annotations

from collections.abc import Iterator

from nbpar.engine.instructions import Instruction, Kill, StartWorker, StopWorker
from nbpar.engine.plans import WorkerRecord

__all__ = ["Crew"]

TERMINATE_AFTER_S = 0.5
KILL_AFTER_S = 1.0
"""A task that was interrupted and still runs: its worker gets SIGTERM, then SIGKILL, so long after the interrupt."""

EXIT_WAIT_S = 2.0
"""A worker that was asked to end (its `worker_exit` may hang) gets SIGKILL after so long."""

MAX_START_FAILURES = 3
RETRY_START_S = 0.05
"""After a worker that could not be started the next is tried so much later, and twice as late each time."""


class Crew:
    """The workers of one pool.

    Parameters
    ----------
    n_workers : int
        Workers the pool is meant to have; ids are ``0`` to ``n_workers - 1``.
    tasks_per_worker : int, optional
        A worker is replaced after so many tasks.
    idle_timeout_s : float, optional
        Workers are stopped after so many seconds without a job.

    Attributes
    ----------
    workers : list of WorkerRecord
        By worker_id.
    """

    def __init__(self, *, n_workers: int, tasks_per_worker: int | None, idle_timeout_s: float | None) -> None:
        self.workers = [WorkerRecord() for _ in range(n_workers)]
        self._tasks_per_worker = tasks_per_worker
        self._idle_timeout_s = idle_timeout_s
        self._n_start_failures = self._n_failures_seen = 0
        self._start_at_s = 0.0
        self._wanted = False  # whether workers should be there at all
        self._resting = False  # no job, and a worker was ended from outside: none is started until there is a job
        self._idle_since_s: float | None = None

    # --- what is wanted -----------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Want workers from now on."""
        self._wanted, self._resting = True, False
        self._idle_since_s = None

    def retire(self) -> None:
        """Want no workers any more: the pool is closing."""
        self._wanted = False

    def rest_from(self, since_s: float | None) -> None:
        """There has been no job since then; None while there is one."""
        self._idle_since_s = since_s

    def recycle(self) -> None:
        """Replace every worker as soon as it holds no chunk."""
        for worker_id in range(len(self.workers)):
            self.replace(worker_id)

    def replace(self, worker_id: int) -> None:
        """Replace one worker as soon as it holds no chunk; it gets no other meanwhile."""
        worker = self.workers[worker_id]
        worker.stale = worker.state != "absent"

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def has_all(self) -> bool:
        """Whether every worker is ready."""
        return all(worker.state == "ready" for worker in self.workers)

    @property
    def has_any(self) -> bool:
        """Whether a worker that was ready has not ended yet."""
        return any(worker.state in ("ready", "stopping") for worker in self.workers)

    def takes(self) -> Iterator[tuple[int, WorkerRecord]]:
        """Workers that may be given chunks."""
        return ((i, worker) for i, worker in enumerate(self.workers) if worker.state == "ready" and not worker.stale)

    def allowance(self, worker: WorkerRecord) -> int | None:
        """Tasks that the worker may still be given; None when that is not limited."""
        return None if self._tasks_per_worker is None else self._tasks_per_worker - worker.n_tasks

    @property
    def start_failed(self) -> bool:
        """Whether workers cannot be started: several in a row ended before they were ready, and none is up."""
        return self._n_start_failures >= MAX_START_FAILURES and not self.has_any

    def give_up_starting(self) -> None:
        """Stop trying to start workers; the next job tries again."""
        self._wanted = False
        self._n_start_failures = 0

    # --- what happens -------------------------------------------------------------------------------------------------

    def ready(self, worker_id: int) -> None:
        """A started worker takes chunks from now on."""
        self._n_start_failures = 0
        worker = self.workers[worker_id]
        if worker.state == "starting":
            worker.state = "ready"

    def refused(self, worker_id: int) -> None:
        """A starting worker said why it cannot work; it ends by itself, and that is not news."""
        self.workers[worker_id].state = "stopping"

    def lost(self, worker_id: int, *, has_jobs: bool) -> WorkerRecord:
        """A worker is gone; its record as it was."""
        worker = self.workers[worker_id]
        if worker.state == "starting":
            self._n_start_failures += 1
        elif worker.state == "ready" and not has_jobs and not worker.n_signals and worker.condemned is None:
            # Somebody ends the workers, a kernel that shuts down for one: there is time until the next job. Those that
            # stay keep what they have built.
            self._resting = True
        self.workers[worker_id] = WorkerRecord()
        return worker

    # --- what is to be done -------------------------------------------------------------------------------------------

    def keep(self, now_s: float, *, has_jobs: bool) -> Iterator[Instruction]:
        """Start the workers that are missing, and end those that are to go."""
        if has_jobs:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif self._idle_timeout_s is not None and now_s - self._idle_since_s >= self._idle_timeout_s:
            self._wanted = False
        if self._n_start_failures != self._n_failures_seen:
            self._n_failures_seen = self._n_start_failures
            pause_s = min(RETRY_START_S * 2**self._n_start_failures, 5.0) if self._n_start_failures else 0.0
            self._start_at_s = now_s + pause_s
        may_start = self._wanted and not self._resting and not self.start_failed and now_s >= self._start_at_s
        for worker_id, worker in enumerate(self.workers):
            if worker.state == "absent" and may_start:
                worker.state = "starting"
                yield StartWorker(worker_id)
            elif not worker.held and worker.state == "ready" and (reason := self._reason_to_stop(worker)):
                worker.state, worker.asked_at_s = "stopping", None
                yield StopWorker(worker_id, reason)

    def _reason_to_stop(self, worker: WorkerRecord) -> str:
        if worker.stale:
            return "replaced"
        if not self._wanted:
            return "idle"
        if self._tasks_per_worker is not None and worker.n_tasks >= self._tasks_per_worker:
            return f"replaced after {worker.n_tasks} tasks"
        return ""

    def escalate(self, now_s: float) -> Iterator[Instruction]:
        """End the workers that were to drop their chunk, or to end, and have not."""
        for worker_id, worker in enumerate(self.workers):
            if not worker.must_yield or worker.n_signals == 2:
                continue
            asked_at_s = worker.asked_at_s = now_s if worker.asked_at_s is None else worker.asked_at_s
            deadlines = (EXIT_WAIT_S, EXIT_WAIT_S) if worker.state == "stopping" else (TERMINATE_AFTER_S, KILL_AFTER_S)
            if now_s - asked_at_s >= deadlines[1]:
                worker.n_signals, worker.stale = 2, True
                yield Kill(worker_id)
            elif now_s - asked_at_s >= deadlines[0] and worker.n_signals == 0:
                worker.n_signals, worker.stale = 1, True
                yield Kill(worker_id, gently=True)

    def looks(self, now_s: float) -> Iterator[float]:
        """Seconds until each moment at which there is something to do although nothing happened."""
        for worker in self.workers:
            if worker.must_yield and worker.n_signals < 2:
                yield 0.05
        if self._wanted and self._start_at_s > now_s:
            yield self._start_at_s - now_s
        if self._idle_timeout_s is not None and self._idle_since_s is not None and self._wanted:
            yield self._idle_since_s + self._idle_timeout_s - now_s
