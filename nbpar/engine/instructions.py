"""What the scheduler tells the dispatcher to do: plain records, carried out by :mod:`nbpar.backends.dispatcher`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "Chunk",
    "EndJob",
    "FailTask",
    "Instruction",
    "Interrupt",
    "Kill",
    "Loss",
    "Recall",
    "Send",
    "StartWorker",
    "StopWorker",
    "Tell",
]


class Chunk(NamedTuple):
    """Tasks ``start`` to ``stop - 1`` of a job; `attempt` counts from 1 and is above 1 only for a single task."""

    chunk_id: int
    job_id: int
    start: int
    stop: int
    attempt: int = 1

    def __len__(self) -> int:
        return self.stop - self.start


class Send(NamedTuple):
    """Send `chunk` to the worker."""

    worker_id: int
    chunk: Chunk


class Interrupt(NamedTuple):
    """Drop the chunk if the worker has not begun it, else interrupt the task it runs."""

    worker_id: int
    chunk_id: int


class Recall(NamedTuple):
    """Ask the worker not to begin the chunk; a task of it that runs is left alone."""

    worker_id: int
    chunk_id: int


class Kill(NamedTuple):
    """End the worker now: ``gently`` by SIGTERM, else by SIGKILL."""

    worker_id: int
    gently: bool = False


class StartWorker(NamedTuple):
    """Start a worker under this id."""

    worker_id: int


class StopWorker(NamedTuple):
    """Ask an unoccupied worker to end."""

    worker_id: int
    reason: str


Loss = Literal["died", "timeout", "memory", "function"]
"""``memory``: its worker was killed for what it held. ``function``: not a task's fault; workers die one after the other
while they load the job's function."""


@dataclass(frozen=True, slots=True)
class FailTask:
    """The task is lost with its worker and is not tried again; what :meth:`Scheduler.worker_lost` returns.

    `n_deaths` workers have died of it, those that were stopped for its timeout not counted.
    """

    job_id: int
    index: int
    loss: Loss
    n_deaths: int = 0


class Tell(NamedTuple):
    """Something about the job that a user wants to know, as a sentence."""

    job_id: int
    text: str


class EndJob(NamedTuple):
    """Nothing of the job runs any more (or the time to wait for that is over)."""

    job_id: int
    status: Literal["done", "failed", "cancelled"]


Instruction = Send | Interrupt | Recall | Kill | StartWorker | StopWorker | Tell | EndJob
