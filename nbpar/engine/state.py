"""A job's state: events are folded in, snapshots come out.

Owned by a :class:`nbpar.job.Job`, which locks it: the dispatcher's thread applies events, the ticker's takes snapshots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from nbpar.engine.events import ChunkDone, Failure, Note, Restored, WorkerEnded, WorkerStarted
from nbpar.engine.snapshot import Lane, Snapshot, Span, Status

__all__ = ["Activity", "JobState", "StateEvent"]

StateEvent = ChunkDone | WorkerStarted | WorkerEnded | Failure | Note | Restored

MAX_UNFOLDED = 256
MAX_SPANS = 512
MAX_FAILURES = 100
MAX_NOTES = 20
RATE_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Activity:
    """What a worker does at this moment, as its board slot says.

    `n_done` counts the tasks of the chunk under way that have ended without having been reported.
    """

    index: int | None
    since_s: float
    n_done: int = 0
    track: tuple[int, int | None] | None = None


@dataclass(slots=True, eq=False)
class _Lane:
    worker_id: int
    pid: int = 0
    begin_s: float = 0.0
    ready_s: float = 0.0
    n_done: int = 0
    busy_s: float = 0.0
    spans: list[Span] = field(default_factory=list)
    alive: bool = True


class JobState:
    """Folds events into what a :class:`~nbpar.engine.snapshot.Snapshot` shows.

    Parameters
    ----------
    begin_s : float
        ``time.perf_counter()`` at the job's start; snapshots count from it.
    n_tasks : int or None
        None until the input has ended.
    """

    def __init__(self, *, job_id: int, name: str, n_tasks: int | None, n_workers: int, begin_s: float) -> None:
        self.job_id = job_id
        self.name = name
        self.n_tasks = n_tasks
        self.status: Status = "waiting"
        self.can_pause = True
        self._n_done = 0
        self._n_failed = 0
        self._unfolded: list[StateEvent] = []  # bounded by MAX_UNFOLDED: most jobs end before anyone looks at them
        self._n_workers = n_workers
        self._begin_s = begin_s
        self._end_s: float | None = None
        self._lanes: dict[int, _Lane] = {}
        self._failures: list[Failure] = []
        self._notes: list[str] = []
        self._aloud: list[str] = []
        self._n_restored = 0
        self._recent: deque[tuple[float, int]] = deque()  # (time, tasks done by then), over RATE_WINDOW_S

    @property
    def n_done(self) -> int:
        """Tasks that have ended, failed ones included."""
        self._fold_all()
        return self._n_done

    @property
    def n_failed(self) -> int:
        """Tasks that have failed."""
        self._fold_all()
        return self._n_failed

    def apply(self, event: StateEvent) -> None:
        """Take one event in."""
        self._unfolded.append(event)
        if len(self._unfolded) >= MAX_UNFOLDED:
            self._fold_all()

    def _fold_all(self) -> None:
        events, self._unfolded = self._unfolded, []
        for event in events:
            self._fold(event)

    def _fold(self, event: StateEvent) -> None:
        match event:
            case ChunkDone():
                self._chunk_done(event)
            case WorkerStarted():
                lane = self._lane(event.worker_id)
                lane.pid, lane.alive = event.pid, True
                lane.begin_s = max(0.0, event.begin_s - self._begin_s)
                lane.ready_s = max(0.0, event.ready_s - self._begin_s)
            case WorkerEnded():
                lane = self._lane(event.worker_id)
                lane.alive = False
                if not event.expected:
                    self._note(f"Worker {event.worker_id} (pid {event.pid}) {event.reason}; a new one takes its place.")
            case Failure():
                self._n_failed += 1
                if len(self._failures) < MAX_FAILURES:
                    self._failures.append(event)
            case Note():
                self._note(event.text)
                if event.aloud and event.text not in self._aloud:
                    self._aloud.append(event.text)
            case Restored():
                self._n_done += event.n_tasks
                self._n_restored += event.n_tasks

    def finish(self, status: Status, now_s: float) -> None:
        """End the job; what is left of the input was not run."""
        self.status = status
        self._end_s = now_s

    def snapshot(self, now_s: float, activities: Mapping[int, Activity]) -> Snapshot:
        """An immutable picture at `now_s`; `activities` says what each worker does for this job now."""
        end_s = self._end_s
        elapsed_s = (now_s if end_s is None else end_s) - self._begin_s
        n_done = self.n_done + sum(activity.n_done for activity in activities.values())
        if self.n_tasks is not None:
            n_done = min(n_done, self.n_tasks)
        n_run = n_done - self._n_restored
        rate = self._rate(now_s, n_run) if end_s is None else n_run / max(elapsed_s, 1e-9)
        eta_s = None
        if end_s is None and self.n_tasks is not None and rate > 0:
            eta_s = (self.n_tasks - n_done) / rate
        lanes = tuple(
            self._freeze(lane, activities.get(lane.worker_id), elapsed_s) for _, lane in sorted(self._lanes.items())
        )
        return Snapshot(
            job_id=self.job_id,
            name=self.name,
            status=self.status,
            n_tasks=self.n_tasks,
            n_done=n_done,
            n_failed=self.n_failed,
            elapsed_s=elapsed_s,
            rate=rate,
            eta_s=eta_s,
            n_workers=self._n_workers,
            lanes=lanes,
            failures=tuple(self._failures),
            notes=tuple(self._notes),
            can_pause=self.can_pause,
            n_restored=self._n_restored,
            aloud=tuple(self._aloud),
        )

    def _freeze(self, lane: _Lane, activity: Activity | None, elapsed_s: float) -> Lane:
        index = since_s = None
        if activity is not None and activity.index is not None and self._end_s is None:
            index, since_s = activity.index, max(0.0, activity.since_s - self._begin_s)
        present_s = max(elapsed_s - lane.ready_s, 1e-9)
        busy_s = lane.busy_s + (0.0 if since_s is None else max(0.0, elapsed_s - since_s))
        return Lane(
            worker_id=lane.worker_id,
            pid=lane.pid,
            n_done=lane.n_done + (activity.n_done if activity is not None else 0),
            busy=min(1.0, busy_s / present_s),
            spans=tuple(lane.spans),
            begin_s=lane.begin_s,
            ready_s=lane.ready_s,
            current_index=index,
            current_since_s=since_s or 0.0,
            track=activity.track if activity is not None else None,
            alive=lane.alive,
        )

    def _chunk_done(self, event: ChunkDone) -> None:
        n_tasks = event.stop - event.start
        self._n_done += n_tasks
        lane = self._lane(event.worker_id)
        lane.n_done += n_tasks
        lane.busy_s += event.end_s - event.begin_s
        begin_s = max(0.0, event.begin_s - self._begin_s)
        end_s = max(begin_s, event.end_s - self._begin_s)
        n_bytes = event.sent_bytes, event.received_bytes
        lane.spans.append(Span(begin_s, end_s, event.start, event.stop - 1, n_tasks, event.n_failed, *n_bytes))
        if len(lane.spans) > MAX_SPANS:
            lane.spans = _merge_pairs(lane.spans)

    def _lane(self, worker_id: int) -> _Lane:
        lane = self._lanes.get(worker_id)
        if lane is None:
            lane = self._lanes[worker_id] = _Lane(worker_id)
        return lane

    def _note(self, text: str) -> None:
        if text not in self._notes and len(self._notes) < MAX_NOTES:
            self._notes.append(text)

    def _rate(self, now_s: float, n_done: int) -> float:
        """Tasks per second over the last seconds, from the snapshots taken."""
        recent = self._recent
        if not recent:
            recent.append((self._begin_s, 0))
        recent.append((now_s, n_done))
        while len(recent) > 2 and recent[0][0] < now_s - RATE_WINDOW_S:
            recent.popleft()
        (first_s, first_done), (last_s, last_done) = recent[0], recent[-1]
        return max(0.0, (last_done - first_done) / (last_s - first_s)) if last_s > first_s else 0.0


def _merge_pairs(spans: list[Span]) -> list[Span]:
    """Halve the number of spans by merging neighbours, so that a lane stays bounded whatever the number of chunks."""
    merged = []
    for left, right in zip(spans[::2], spans[1::2], strict=False):
        first, last = min(left.first, right.first), max(left.last, right.last)
        n_tasks, n_failed = left.n_tasks + right.n_tasks, left.n_failed + right.n_failed
        n_bytes = left.sent_bytes + right.sent_bytes, left.received_bytes + right.received_bytes
        merged.append(Span(left.begin_s, right.end_s, first, last, n_tasks, n_failed, *n_bytes))
    return merged + spans[len(merged) * 2 :]
