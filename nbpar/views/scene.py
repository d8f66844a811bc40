"""Snapshots as what the dashboard's JavaScript draws: all of it, or what changed since the last tick.

One message per tick, whatever the number of workers: 64 lanes as 64 messages lag by seconds, as one they do not. Pure:
no widget here. The front end makes the words of numbers that change with every tick; what stands in a message only
where it changed is listed at :meth:`Scene.change`.

What is told of lanes goes field by field, as columns of one value per lane: most that change do so for most lanes, and
a column is made and compared in C. Spans are numbers already, merged by :mod:`nbpar.engine.spans`; the front end merges
what it has by the same step.
"""

from __future__ import annotations

import math
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nbpar.engine.events import Failure, OutputLine
from nbpar.engine.snapshot import Lane, Snapshot, Span, Usage
from nbpar.engine.spans import UNITS_PER_S, Spans, units
from nbpar.views import wording

__all__ = ["Scene", "packed", "plain"]

N_LINES = 200
LINE_LENGTH = 400
TRACEBACK_LENGTH = 3000  # its end, which says most
MANY_LANES = 48
"""From here on lanes are a heat strip, without a curve of each worker's memory."""


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
        self._lines: deque[list[Any]] = deque(maxlen=N_LINES)
        self._n_lines = 0
        self._n_lines_sent = 0

    @property
    def job_id(self) -> int | None:
        """The job's, None before the first change."""
        snapshot = self._snapshot
        return None if snapshot is None else snapshot.job_id

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

        Only where they changed: each field of the lanes, their spans and usage; the name, notes, advice, durations,
        slowest tasks; failures and lines, of which the new ones are sent. The spans' numbers are arrays: :func:`packed`
        and :func:`plain` make of the message what can be sent.

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
            if before is not None and len(snapshot.lanes) < len(before.lanes):
                before = None  # workers are never taken out; if they were, their lanes would stay
            message = self._message(snapshot, before)
            self._n_lines_sent = self._n_lines
            return message

    def full(self) -> dict[str, Any]:
        """Everything, as of the last change, :func:`plain`; {} before the first."""
        with self._lock:
            return {} if self._snapshot is None else plain(self._message(self._snapshot, None))

    def _message(self, snapshot: Snapshot, before: Snapshot | None) -> dict[str, Any]:
        full = before is None
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
            "step": snapshot.step,
            **_lanes(snapshot.lanes, () if before is None else before.lanes),
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


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as JSON can have it."""
    return message | {"marks": [[row, kept, *numbers] for row, kept, numbers in message["marks"]]}


def packed(message: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """A message as JSON, and the numbers of its marks as bytes beside it: as text they would be most of the work.

    ``packed`` has row, how many to keep, and how many numbers follow, for each lane in ``marks``; 64 bits each.
    """
    content = {name: value for name, value in message.items() if name != "marks"}
    content["packed"] = [[row, kept, len(numbers)] for row, kept, numbers in message["marks"]]
    numbers = array("q", b"".join([numbers for _, _, numbers in message["marks"]]))
    if sys.byteorder == "big":
        numbers.byteswap()
    return content, [numbers.tobytes()]


# --- lanes ------------------------------------------------------------------------------------------------------------


def _lanes(lanes: tuple[Lane, ...], before: tuple[Lane, ...]) -> dict[str, Any]:
    """Of the lanes' fields the columns that are not as they were; of spans and usage, lane by lane, what is new.

    ``marks`` and ``usage`` have an entry for each lane that has news: its row, how many marks or samples to keep, and
    the numbers of those that follow.
    """
    columns: dict[str, Any] = {}
    marks: list[tuple[int, int, array[int]]] = []
    usage: list[list[int]] = []
    if lanes:
        now, then = _columns(lanes), _columns(before or (_NO_LANE,))
        for place, name, told in _FIELDS:
            if now[place] != then[place] or not before:
                columns[name] = now[place] if told is None else told(now[place])
        old_spans, old_usage = then[_SPANS], then[_USAGE]
        if "id" in columns:
            known = {lane.worker_id: lane for lane in before}
            old = [known.get(lane.worker_id, _NO_LANE) for lane in lanes]
            old_spans, old_usage = tuple(lane.spans for lane in old), tuple(lane.usage for lane in old)
        for row, (new, old) in enumerate(zip(now[_SPANS], old_spans, strict=True)):
            if new is not old:
                kept, numbers = _spans(new).since(_spans(old))
                if numbers or kept < len(old):
                    marks.append((row, kept, numbers))
        if now[_USAGE] != old_usage:
            many = len(lanes) >= MANY_LANES
            for row, (new, old) in enumerate(zip(now[_USAGE], old_usage, strict=True)):
                if new != old:
                    kept = 0 if many else _n_same(old, new)
                    usage.append([row, kept, *_flat(new[-1:] if many else new[kept:])])
    return {"lanes": columns, "marks": marks, "usage": usage}


def _columns(lanes: tuple[Lane, ...]) -> list[tuple[Any, ...]]:
    """Of each field of a lane the values of all lanes; of its times those of init."""
    columns = list(zip(*lanes, strict=True))
    columns[_TIMES] = tuple([times.init_s for times in columns[_TIMES]])
    return columns


def _spans(spans: Sequence[Span]) -> Spans:
    return spans if isinstance(spans, Spans) else Spans.of(spans)


def _times(column: tuple[float, ...]) -> list[int]:
    try:
        return [int(seconds * UNITS_PER_S + 0.5) for seconds in column]
    except (ValueError, OverflowError):  # one is not finite
        return [units(seconds) for seconds in column]


def _percents(column: tuple[float, ...]) -> list[int]:
    return [_percent(share) for share in column]


_SPANS, _TIMES, _USAGE = (Lane._fields.index(name) for name in ("spans", "times", "usage"))
_NO_LANE = Lane(-1, 0, 0, 0.0, Spans.of(()))

_FIELDS: tuple[tuple[int, str, Callable[[Any], list[int]] | None], ...] = tuple(
    (Lane._fields.index(field), name, told)
    for field, name, told in (
        ("worker_id", "id", None),
        ("pid", "pid", None),
        ("n_done", "n_done", None),
        ("busy", "busy", _percents),
        ("begin_s", "begin", _times),
        ("ready_s", "ready", _times),
        ("times", "init", _times),
        ("alive", "alive", None),
        ("current_index", "index", None),
        ("current_since_s", "since", _times),
        ("track", "track", None),
    )
)
"""Where a field stands in a :class:`Lane`, what it is called in a message, and how it is told."""


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
