"""One worker's part of a job as it grows: its stretches of work, what travelled, and where its time went.

Owned by :mod:`nbpar.engine.state`, which folds events into it and asks for an immutable :class:`Lane`. Times count from
the job's start, in seconds, and are never below 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbpar.engine.events import ChunkDone
from nbpar.engine.snapshot import Lane, Times, Usage
from nbpar.engine.spans import GrowingSpans

__all__ = ["Activity", "GrowingLane"]

REPORT_S = 0.25
"""So long the report of a task may take on a busy machine, from the task's end until the job has it."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make, ten times a second for each worker
class Activity:
    """What a worker does at this moment, as its board slot says.

    `n_done` counts the tasks of the chunk under way that have ended without having been reported.
    """

    index: int | None
    since_s: float
    n_done: int = 0
    track: tuple[int, int | None] | None = None


class GrowingLane:
    """See the module. One lane may have several workers in turn: one that ended is replaced under the same id."""

    __slots__ = (
        "_begin_s",
        "_exit_s",
        "_init_s",
        "_is_there",
        "_last_s",
        "_n_done",
        "_past_s",
        "_pid",
        "_ready_s",
        "_received_bytes",
        "_seen",
        "_sent_bytes",
        "_spans",
        "_start_s",
        "_transfer_s",
        "_work_s",
        "_worker_id",
    )

    def __init__(self, worker_id: int, spans: GrowingSpans) -> None:
        self._worker_id = worker_id
        self._pid = self._n_done = self._sent_bytes = self._received_bytes = 0
        self._begin_s = self._ready_s = 0.0  # of the present worker, or the last one
        self._is_there = True
        self._past_s = 0.0  # how long those before it were there, without their `worker_exit`
        self._start_s = self._init_s = self._transfer_s = self._work_s = self._exit_s = 0.0  # of all of them
        self._last_s = 0.0  # the end of the last work that was told of
        self._seen: tuple[Activity, float] | None = None  # what it did when last looked at, and when that was
        self._spans = spans

    # --- what happens -------------------------------------------------------------------------------------------------

    def started(self, pid: int, begin_s: float, ready_s: float, init_s: float) -> None:
        """A worker was asked to start at `begin_s` and was ready at `ready_s`, after an init that took `init_s`."""
        if self._is_there and self._pid:
            self.ended(begin_s, 0.0)
        self._pid, self._is_there = pid, True
        self._begin_s, self._ready_s = begin_s, max(begin_s, ready_s)
        init_s = min(init_s, self._ready_s - begin_s)
        self._init_s += init_s
        self._start_s += self._ready_s - begin_s - init_s

    def ended(self, at_s: float, exit_s: float) -> None:
        """The worker has ended, after a `worker_exit` that took `exit_s`."""
        if self._is_there:
            there_s = max(0.0, at_s - self._begin_s)
            exit_s = min(exit_s, there_s)
            self._past_s += there_s - exit_s
            self._exit_s += exit_s
        self._is_there = False

    def done(self, begin_s: float, end_s: float, event: ChunkDone) -> None:
        """Tasks ended between these two times."""
        start, stop, sent_bytes, received_bytes = event.start, event.stop, event.sent_bytes, event.received_bytes
        self._n_done += stop - start
        self._sent_bytes += sent_bytes
        self._received_bytes += received_bytes
        self._transfer_s += event.unpack_s + event.pack_s
        self._work_s += end_s - begin_s
        self._last_s = end_s
        last = stop + event.n_again - 1
        self._spans.add(begin_s, end_s, start, last, stop - start, event.n_failed, sent_bytes, received_bytes)

    def work_lost(self, begin_s: float, end_s: float) -> None:
        """It worked between these two times, and nothing came of it."""
        begin_s = max(begin_s, self._last_s)  # what had ended since is told of already
        self._work_s += max(0.0, end_s - begin_s)
        self._last_s = max(self._last_s, end_s)

    # --- as it is now -------------------------------------------------------------------------------------------------

    def doing(self, activity: Activity | None, elapsed_s: float, job_begin_s: float) -> Activity | None:
        """What the worker does: what it did a moment ago, while the report of that is on its way.

        Else a picture that is taken just then would have neither the task nor its span: a long one would be missing.
        """
        if activity is not None and activity.index is not None:
            self._seen = activity, elapsed_s
        elif self._seen is not None:
            before, seen_s = self._seen
            if self._is_there and elapsed_s - seen_s <= REPORT_S and self._last_s <= before.since_s - job_begin_s:
                return before
            self._seen = None
        return activity

    def freeze(
        self, elapsed_s: float, activity: Activity | None, since_s: float | None, usage: tuple[Usage, ...]
    ) -> Lane:
        """An immutable picture; `since_s` is when the task of `activity` began, None when none runs."""
        work_s = self._work_s
        if since_s is not None:
            work_s += max(0.0, elapsed_s - max(since_s, self._last_s))
        times = self._times(elapsed_s, work_s)
        as_ready_s = times.wait_s + times.transfer_s + times.work_s
        return Lane(
            self._worker_id,
            self._pid,
            self._n_done + (0 if activity is None else activity.n_done),
            times.work_s / as_ready_s if as_ready_s > 0 else 0.0,
            self._spans.freeze(),
            self._begin_s,
            self._ready_s,
            None if since_s is None or activity is None else activity.index,
            since_s or 0.0,
            None if activity is None else activity.track,
            self._is_there,
            times,
            self._sent_bytes,
            self._received_bytes,
            usage,
        )

    def _times(self, elapsed_s: float, work_s: float) -> Times:
        """Parts that add up to the worker's presence; what was measured a little too long is cut."""
        rest_s = self._past_s
        if self._is_there and elapsed_s > self._begin_s:
            rest_s += elapsed_s - self._begin_s
        start_s, init_s, transfer_s = self._start_s, self._init_s, self._transfer_s
        wait_s = rest_s - start_s - init_s - transfer_s - work_s
        if wait_s < 0:  # seldom: this is made for each worker ten times a second
            start_s = min(start_s, rest_s)
            rest_s -= start_s
            init_s = min(init_s, rest_s)
            rest_s -= init_s
            work_s = min(work_s, rest_s)
            rest_s -= work_s
            transfer_s = min(transfer_s, rest_s)
            wait_s = rest_s - transfer_s
        return Times(start_s, init_s, wait_s, transfer_s, work_s, self._exit_s)
