"""Snapshots as what the dashboard's JavaScript draws: all of it, or what changed since the last tick.

One message per tick, whatever the number of workers: 64 lanes as 64 messages lag by seconds, as one they do not. Pure:
no widget here. The names on the wire are those of :class:`~nbpar.engine.snapshot.Snapshot` and ``Lane``.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from nbpar.engine.snapshot import Lane, Snapshot, Span
from nbpar.views import wording

__all__ = ["Scene"]

N_FIELDS = 6
"""Numbers per span on the wire, flat: begin, end, first, last, tasks, failed."""


class Scene:
    """What the front end knows of a job, as far as it has been sent.

    A message numbered ``seq`` builds on the one before; a ``full`` one on nothing. The methods may be called from
    several threads: the ticker's sends changes, a comm's thread answers a front end that asks for everything.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self._snapshot: Snapshot | None = None
        self._running_cell = False

    @property
    def job_id(self) -> int | None:
        """The job's, None before the first change."""
        snapshot = self._snapshot
        return None if snapshot is None else snapshot.job_id

    def change(self, snapshot: Snapshot, *, cell_is_running: bool) -> dict[str, Any]:
        """What is new in `snapshot` since the last call, everything at the first.

        Parameters
        ----------
        snapshot : Snapshot
            The job now.
        cell_is_running : bool
            Whether a cell runs that does nothing but wait for the job, so that an interrupt of the kernel hits no
            other work.
        """
        with self._lock:
            before, self._snapshot = self._snapshot, snapshot
            self._running_cell = cell_is_running
            self._seq += 1
            return self._message(snapshot, before)

    def full(self) -> dict[str, Any]:
        """Everything, as of the last change; {} before the first."""
        with self._lock:
            return {} if self._snapshot is None else self._message(self._snapshot, None)

    def _message(self, snapshot: Snapshot, before: Snapshot | None) -> dict[str, Any]:
        known = {} if before is None else {lane.worker_id: lane.spans for lane in before.lanes}
        message: dict[str, Any] = {
            "seq": self._seq,
            "full": before is None,
            "job": snapshot.job_id,
            "status": snapshot.status,
            "cell_is_running": self._running_cell,
            "can_pause": snapshot.can_pause,
            "name": wording.clean(snapshot.name),
            "n_tasks": snapshot.n_tasks,
            "n_done": snapshot.n_done,
            "n_failed": snapshot.n_failed,
            "elapsed_s": _finite(snapshot.elapsed_s),
            "tasks": wording.tasks(snapshot),
            "figures": wording.figures(snapshot),
            "lanes": [_lane(lane, known.get(lane.worker_id, ()), snapshot) for lane in snapshot.lanes],
        }
        if before is None or before.notes != snapshot.notes:
            message["notes"] = [wording.clean(note, 400) for note in snapshot.notes]
        if before is None or before.failures != snapshot.failures:
            message["failures"] = [
                [failure.index, wording.clean(failure.item_repr), wording.failure_text(failure)]
                for failure in snapshot.failures
            ]
        return message


def _lane(lane: Lane, known: tuple[Span, ...], snapshot: Snapshot) -> dict[str, Any]:
    kept = _n_same(known, lane.spans)
    return {
        "id": lane.worker_id,
        "n_done": f"{lane.n_done:,}",
        "busy": wording.percent(lane.busy),
        "begin_s": _finite(lane.begin_s),
        # A worker without a pid is still starting: its start-up lasts until now.
        "ready_s": _finite(lane.ready_s if lane.pid else snapshot.elapsed_s),
        "index": lane.current_index,
        "since_s": _finite(lane.current_since_s),
        "now": now_text(lane, snapshot),
        "track": list(lane.track) if lane.track else None,
        "alive": lane.alive,
        "kept": kept,
        "spans": [
            number
            for span in lane.spans[kept:]
            for number in (
                _finite(span.begin_s),
                _finite(span.end_s),
                span.first,
                span.last,
                span.n_tasks,
                span.n_failed,
            )
        ],
    }


def now_text(lane: Lane, snapshot: Snapshot) -> str:
    """What the worker does now, in a few words: ``item 1,285, 1.2 s``."""
    if not lane.alive:
        return "ended"
    if not lane.pid:
        return "" if snapshot.ended else "starting"
    if lane.current_index is None:
        return ""
    text = f"item {lane.current_index:,}"
    since_s = snapshot.elapsed_s - lane.current_since_s
    if since_s >= 0.5:  # of shorter tasks one would only see digits flicker
        text += f", {wording.duration(since_s)}"
    if lane.track is not None:
        done, total = lane.track
        text += f", {done:,}" if total is None else f", {done:,} of {total:,}"
    return text


def _n_same(old: tuple[Span, ...], new: tuple[Span, ...]) -> int:
    """Length of the common beginning; when neighbours were merged that is less than what was sent."""
    if new[: len(old)] == old:  # the same objects, mostly: as fast as comparing pointers
        return len(old)
    n = 0
    for ours, theirs in zip(old, new, strict=False):
        if ours != theirs:
            break
        n += 1
    return n


def _finite(seconds: float) -> float:
    """JSON has no NaN; a tenth of a millisecond is finer than any screen."""
    return round(seconds, 4) if math.isfinite(seconds) else 0.0
