"""Snapshots as what the dashboard's JavaScript draws: all of it, or what changed since the last tick.

One message per tick, whatever the number of workers: 64 lanes as 64 messages lag by seconds, as one they do not. Pure:
no widget here. The front end makes the words of numbers that change with every tick; what stands in a message only
where it changed is listed at :meth:`Scene.change`. Spans are merged by :mod:`~nbpar.views.merging`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

from nbpar.engine.events import Failure, OutputLine
from nbpar.engine.snapshot import Lane, Snapshot, Usage
from nbpar.views import wording
from nbpar.views.merging import Marks, step_for, units

__all__ = ["Scene"]

WIDTH = 600
"""Pixels that a lane is taken to have until a front end tells its own."""

MOST_STEPS = 24_000
"""Of all lanes together: with many of them a step is several pixels, and all marks at once are at most 1 MB or so."""

N_LINES = 200
LINE_LENGTH = 400
TRACEBACK_LENGTH = 3000  # its end, which says most
MANY_LANES = 48
"""From here on lanes are a heat strip, without a curve of each worker's memory."""

_LANE = ("pid", "n_done", "busy", "begin", "ready", "init", "alive", "index", "since", "track")
_NOTHING: tuple[Any, ...] = (object(),) * len(_LANE)  # unlike any value
_TIMES = frozenset(("begin", "ready", "init", "since"))


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
        self._width = WIDTH
        self._step = 1
        self._lanes: dict[int, _LaneNews] = {}
        self._lines: deque[list[Any]] = deque(maxlen=N_LINES)
        self._n_lines = 0
        self._n_lines_sent = 0

    @property
    def job_id(self) -> int | None:
        """The job's, None before the first change."""
        snapshot = self._snapshot
        return None if snapshot is None else snapshot.job_id

    def set_width(self, pixels: object) -> None:
        """A front end says how wide it draws a lane; what it says is not trusted."""
        if isinstance(pixels, int | float) and math.isfinite(pixels):
            self._width = min(4000, max(100, int(pixels)))

    def write(self, lines: list[OutputLine]) -> None:
        """Keep what tasks wrote, the last 200 lines, for the next change."""
        kept = [
            [line.worker_id, line.index, line.stream == "stderr", wording.clean(line.text, LINE_LENGTH, multiline=True)]
            for line in lines[-N_LINES:]
        ]
        with self._lock:
            self._lines.extend(kept)
            self._n_lines += len(lines)

    def change(self, snapshot: Snapshot, *, cell_is_running: bool) -> dict[str, Any]:
        """What is new in `snapshot` since the last call, everything at the first.

        Only where they changed: a lane, and each of its fields; the name, notes, advice, durations, slowest tasks;
        failures and lines, of which the new ones are sent.

        Parameters
        ----------
        snapshot : Snapshot
            The job now.
        cell_is_running : bool
            Whether the cell that started the job still runs.
        """
        with self._lock:
            before, self._snapshot = self._snapshot, snapshot
            self._running_cell = cell_is_running
            self._seq += 1
            if before is not None and len(snapshot.lanes) < len(self._lanes):
                before = None  # workers are never taken out; if they were, their lanes would stay
            if before is None:
                self._lanes = {}
            self._merge(snapshot)
            message = self._message(snapshot, before)
            self._n_lines_sent = self._n_lines
            if before is None:
                for lane in snapshot.lanes:  # what is known from now on
                    self._lanes[lane.worker_id].message(lane, full=False, many=len(snapshot.lanes) >= MANY_LANES)
            return message

    def full(self) -> dict[str, Any]:
        """Everything, as of the last change; {} before the first."""
        with self._lock:
            return {} if self._snapshot is None else self._message(self._snapshot, None)

    def _merge(self, snapshot: Snapshot) -> None:
        lanes = snapshot.lanes
        n_steps = max(64, min(2 * self._width, MOST_STEPS // max(1, len(lanes))))
        step = step_for(units(snapshot.elapsed_s), n_steps, self._step)
        if step != self._step:
            self._step = step
            for news in self._lanes.values():
                news.marks.coarsen(step)
        for lane in lanes:
            known = self._lanes.get(lane.worker_id)
            if known is None:
                known = self._lanes[lane.worker_id] = _LaneNews()
            known.marks.take(lane.spans, step)

    def _message(self, snapshot: Snapshot, before: Snapshot | None) -> dict[str, Any]:
        full = before is None
        many = len(snapshot.lanes) >= MANY_LANES
        lanes = [self._lanes[lane.worker_id].message(lane, full=full, many=many) for lane in snapshot.lanes]
        message: dict[str, Any] = {
            "seq": self._seq,
            "full": full,
            "job": snapshot.job_id,
            "status": snapshot.status,
            "cell_is_running": self._running_cell,
            "can_pause": snapshot.can_pause,
            "n_tasks": snapshot.n_tasks,
            "n_done": snapshot.n_done,
            "n_failed": snapshot.n_failed,
            "elapsed": units(snapshot.elapsed_s),
            "n_workers": snapshot.n_workers,
            "tasks": wording.tasks(snapshot),
            "figures": wording.figures(snapshot),
            "step": self._step,
            "lanes": [lane for lane in lanes if len(lane) > 1],
        }
        if before is None or before.name != snapshot.name:
            message["name"] = wording.clean(snapshot.name)
        if before is None or before.notes != snapshot.notes:
            message["notes"] = [wording.clean(note, 400) for note in snapshot.notes]
        if before is None or before.advice != snapshot.advice:
            message["advice"] = [wording.clean(sentence, 400) for sentence in snapshot.advice]
        if before is None or before.durations != snapshot.durations:
            message["durations"] = [
                [_finite(part.from_s), _finite(part.to_s), part.n_tasks] for part in snapshot.durations
            ]
        if before is None or before.slowest != snapshot.slowest:
            message["slowest"] = [
                [slow.task_index, _finite(slow.duration_s), slow.worker_id, wording.clean(slow.item_repr)]
                for slow in snapshot.slowest
            ]
        if before is None or before.failures != snapshot.failures:
            n = 0 if before is None else _n_same(before.failures, snapshot.failures)
            message["failures_kept"] = n
            message["failures"] = [_failure(failure) for failure in snapshot.failures[n:]]
        n_lines = self._n_lines if full else self._n_lines - self._n_lines_sent
        if n_lines or full:
            message["n_lines"] = self._n_lines
            message["lines"] = list(self._lines)[-min(n_lines, N_LINES) :] if n_lines else []
        return message


class _LaneNews:
    """One lane as the front end knows it."""

    __slots__ = ("_fields", "_usage", "marks")

    def __init__(self) -> None:
        self.marks = Marks()
        self._fields = _NOTHING
        self._usage: tuple[Usage, ...] = ()

    def message(self, lane: Lane, *, full: bool, many: bool) -> dict[str, Any]:
        """All of the lane, or its id and what changed since the last call that was not for all of it."""
        fields = (
            lane.pid,
            lane.n_done,
            _percent(lane.busy),
            lane.begin_s,
            lane.ready_s,
            lane.times.init_s,
            lane.alive,
            lane.current_index,
            lane.current_since_s,
            lane.track,
        )
        usage = lane.usage[-1:] if many else lane.usage
        message: dict[str, Any] = {"id": lane.worker_id}
        known = _NOTHING if full else self._fields
        for name, new, old in zip(_LANE, fields, known, strict=True):
            if new is not old and new != old:
                message[name] = units(new) if name in _TIMES else new  # type: ignore[arg-type]  # those are floats
        if full:
            message["kept"], message["marks"] = 0, self.marks.all()
            message["usage_kept"], message["usage"] = 0, _flat(usage)
            return message
        self._fields = fields
        kept, marks = self.marks.news()
        if marks or kept < len(self.marks):
            message["kept"], message["marks"] = kept, marks
        if usage != self._usage:
            n = _n_same(self._usage, usage)
            message["usage_kept"], message["usage"] = n, _flat(usage[n:])
            self._usage = usage
        return message


def _percent(share: float) -> int:
    return int(100 * share + 0.5) if math.isfinite(share) else 0


def _flat(usage: tuple[Usage, ...]) -> list[int]:
    """Time, memory in kB and per cent of a core of each sample."""
    return [
        number for sample in usage for number in (units(sample.at_s), sample.memory_bytes // 1000, _percent(sample.cpu))
    ]


def _failure(failure: Failure) -> list[Any]:
    traceback = wording.clean(failure.traceback[-TRACEBACK_LENGTH:], TRACEBACK_LENGTH, multiline=True)
    return [
        failure.index,
        wording.clean(failure.item_repr),
        wording.failure_text(failure),
        failure.worker_id,
        traceback,
    ]


def _n_same(old: tuple[Any, ...], new: tuple[Any, ...]) -> int:
    """Length of the common beginning."""
    if new[: len(old)] == old:  # the same objects, mostly: as fast as comparing pointers
        return len(old)
    n = 0
    for ours, theirs in zip(old, new, strict=False):
        if ours != theirs:
            break
        n += 1
    return n


def _finite(number: float) -> float:
    """JSON has no NaN."""
    return round(number, 7) if math.isfinite(number) else 0.0
