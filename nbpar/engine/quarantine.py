"""When a task that has killed workers may have the pool to itself, and for how long the others wait for that.

A task that two workers died of may be the cause of that, or the victim of what runs beside it and takes the memory. So
its next try runs alone, and a third death tells: it is not tried again.

::

    wanted --> drain: nothing is handed out --quiet--> it runs, nothing is handed out --ended, or ALONE_S--> free
                 |
                 +--DRAIN_S, and long tasks still run--> free for REST_S, then once more

Owned by :class:`nbpar.engine.scheduler.Scheduler`, one for its pool: jobs share the workers and their memory. What
bounds the wait of all others: `DRAIN_S` in each `REST_S`, and `ALONE_S` for each try. What bounds that of the task
itself: the end of all other work; it never runs while another task does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

__all__ = ["ALONE_AFTER", "ALONE_S", "DRAIN_S", "MAX_DEATHS", "REST_S", "Quarantine"]

ALONE_AFTER = 2
"""Workers that died of a task before it runs alone."""

MAX_DEATHS = 3
"""Workers that died of a task when it is given up, whatever the job's retries."""

DRAIN_S = 2.0
"""Nothing is handed out for so long, that the pool gets quiet. Short tasks have ended by then; for long ones the other
workers would stand idle."""

REST_S = 20.0
"""After that has not sufficed it is not tried again for so long: a tenth of the pool's time is the most that it costs.
Where all is quiet before, the task runs then."""

ALONE_S = 30.0
"""A task that runs alone has the pool to itself for so long; after that the others go on beside it."""

Step = Literal["go", "hold", "give up", "free"]


class Quarantine:
    """Tells whether chunks may be handed out while a task is to run alone."""

    def __init__(self) -> None:
        self._chunk_id: int | None = None  # of the task that runs alone
        self._until_s = 0.0  # so long nothing else is handed out
        self._draining_since_s: float | None = None
        self._rest_until_s = 0.0
        self._is_wanted = False

    @property
    def is_on(self) -> bool:
        """Whether :meth:`step` must be asked although no task waits to run alone."""
        return self._chunk_id is not None or self._is_wanted

    def step(self, now_s: float, *, is_wanted: bool, in_flight: Collection[int]) -> Step:
        """What to do now.

        Parameters
        ----------
        is_wanted : bool
            Whether a task waits to run alone.
        in_flight : collection of int
            Ids of all chunks that workers hold.

        Returns
        -------
        {"go", "hold", "give up", "free"}
            ``go``: the pool is quiet, run the task and tell :meth:`began`; ``hold``: hand out nothing; ``free``: hand
            out as usual; ``give up``: from now on as usual, since the pool does not get quiet.
        """
        self._is_wanted = is_wanted
        if self._chunk_id not in in_flight:
            self._chunk_id = None
        if self._chunk_id is not None:
            return "hold" if now_s < self._until_s else "free"
        if not is_wanted:
            self._draining_since_s = None
            return "free"
        if not in_flight:
            return "go"
        if self._draining_since_s is None:
            if now_s < self._rest_until_s:
                return "free"
            self._draining_since_s = now_s
        if now_s < self._draining_since_s + DRAIN_S:
            return "hold"
        self._draining_since_s = None
        self._rest_until_s = now_s + REST_S
        return "give up"

    def began(self, chunk_id: int, now_s: float) -> None:
        """The task was handed out."""
        self._chunk_id, self._until_s = chunk_id, now_s + ALONE_S
        self._draining_since_s = None

    def due_s(self, now_s: float) -> float | None:
        """When :meth:`step` will say something else although nothing has happened; None for never."""
        if self._chunk_id is not None:
            due_s: float | None = self._until_s
        elif not self._is_wanted:
            due_s = None
        elif self._draining_since_s is not None:
            due_s = self._draining_since_s + DRAIN_S
        else:
            due_s = self._rest_until_s
        return due_s if due_s is not None and due_s > now_s else None
