"""Chunks that wait behind a long task are asked back and go to a worker that has nothing to do.

::

    parked too long, another is idle --Recall--> the worker's board --(later, and it has not begun)--> put back

Called by :class:`nbpar.engine.scheduler.Scheduler` in each decision in which a worker holds two chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nbpar.engine.instructions import Recall
from nbpar.engine.plans import JobRecord, Running, WorkerRecord

__all__ = ["is_waiting_for", "recall", "take_back"]

RECALL_AFTER_S = 0.05
"""A chunk that waits so long behind another, while a worker has nothing to do, is asked back. After the same time
again the worker either has begun it or cannot but see that it is not to (see :mod:`nbpar.wire.board`), and it goes
elsewhere."""


def recall(workers: Sequence[WorkerRecord], jobs: Mapping[int, JobRecord], now_s: float) -> Iterator[Recall]:
    """Ask for chunks back that wait behind a long task while a worker has nothing to do.

    Not for those of a pinned job: no other worker may have them, and what is sent after them would be done before them.
    """
    if not any(worker.state == "ready" and not worker.stale and not worker.held for worker in workers):
        return
    for worker_id, worker in enumerate(workers):
        if len(worker.held) < 2 or worker.held[1].interrupted:
            continue
        parked = worker.held[1]
        job = jobs.get(parked.chunk.job_id)
        if job is not None and job.lanes:
            continue
        if parked.recalled_at_s is None and now_s - parked.sent_at_s >= RECALL_AFTER_S:
            parked.recalled_at_s = now_s
            yield Recall(worker_id, parked.chunk.chunk_id)


def take_back(
    workers: Sequence[WorkerRecord], jobs: Mapping[int, JobRecord], now_s: float, running: Mapping[int, Running]
) -> None:
    """Put back the chunks that were asked for in time and have not been begun."""
    for worker_id, worker in enumerate(workers):
        if len(worker.held) < 2 or worker.held[1].interrupted:
            continue
        head, parked = worker.held
        if parked.recalled_at_s is None or now_s - parked.recalled_at_s < RECALL_AFTER_S:
            continue
        seen, job = running.get(worker_id), jobs.get(parked.chunk.job_id)
        begun = seen is None or seen.chunk_id != head.chunk.chunk_id
        if job is not None and not begun:
            worker.held.pop()
            worker.slow = True
            job.n_in_flight -= len(parked.chunk)
            job.put_back(parked.chunk.start, parked.chunk.stop, parked.chunk.attempt)


def is_waiting_for(workers: Sequence[WorkerRecord]) -> bool:
    """Whether a chunk was asked back: the board is then needed to tell whether it has been begun."""
    return any(len(worker.held) > 1 and worker.held[1].recalled_at_s is not None for worker in workers)
