"""A job's state: events are folded in, snapshots come out.

Owned by a :class:`nbpar.job.Job`, which locks it: the dispatcher's thread applies events, the ticker's takes snapshots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from nbpar.engine.adviser import Adviser
from nbpar.engine.durations import N_SLOWEST, Histogram
from nbpar.engine.events import (
    ChunkDone,
    Failure,
    LostUpdate,
    Note,
    Restored,
    Sampled,
    SentAgain,
    SlowTask,
    WorkerEnded,
    WorkerStarted,
    WorkLost,
)
from nbpar.engine.lanes import Activity, GrowingLane
from nbpar.engine.snapshot import Snapshot, Status, Usage
from nbpar.engine.spans import Steps

if TYPE_CHECKING:
    from nbpar.engine.profile import Merged

__all__ = ["Activity", "JobState", "StateEvent"]

StateEvent = (
    ChunkDone
    | WorkerStarted
    | WorkerEnded
    | Failure
    | Note
    | Restored
    | WorkLost
    | SlowTask
    | Sampled
    | SentAgain
    | LostUpdate
)

MAX_UNFOLDED = 256
MAX_FAILURES = 100
MAX_NOTES = 20
RATE_WINDOW_S = 5.0

_NO_USAGE: Mapping[int, tuple[Usage, ...]] = MappingProxyType({})


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
        self._lanes: dict[int, GrowingLane] = {}
        self._steps = Steps()
        self._failures: list[Failure] = []
        self._notes: list[str] = []
        self.adviser = Adviser()
        self.merged: Merged | None = None  # set for a job that is profiled
        self._aloud: list[str] = []
        self._n_restored = 0
        self._kernel_s = 0.0
        self._durations: Histogram | None = None
        self._slowest: dict[int, SlowTask] = {}  # by index, at most N_SLOWEST
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
            case WorkerStarted() | WorkerEnded() | WorkLost():
                self._worker_news(event)
            case Failure():
                self._n_failed += 1
                if len(self._failures) < MAX_FAILURES:
                    self._failures.append(event)
            case Note():
                self._note(event.text, aloud=event.aloud)
            case Sampled():
                if self.merged is not None and (why := self.merged.add(event.worker_id, event.data)):
                    self._note(f"There is no profile of worker {event.worker_id}: {why}.")
            case Restored():
                self._n_done += event.n_tasks
                self._n_restored += event.n_tasks
            case SlowTask():
                self._slow_task(event)
            case SentAgain() | LostUpdate():
                if (text := self.adviser.heed(event)) is not None:
                    self._aloud.append(text)

    def _worker_news(self, event: WorkerStarted | WorkerEnded | WorkLost) -> None:
        lane = self._lane(event.worker_id)
        if isinstance(event, WorkLost):
            lane.work_lost(self._from_begin(event.begin_s), self._from_begin(event.end_s))
        elif isinstance(event, WorkerStarted):
            begin_s, ready_s = self._from_begin(event.begin_s), self._from_begin(event.ready_s)
            lane.started(event.pid, begin_s, ready_s, event.init_s)
        else:
            lane.ended(self._from_begin(event.at_s), event.exit_s)
            if self.merged is not None:
                self.merged.worker_ended(event.worker_id)
            if not event.expected:
                self._note(f"Worker {event.worker_id} (pid {event.pid}) {event.reason}; a new one takes its place.")

    def _from_begin(self, at_s: float) -> float:
        return max(0.0, at_s - self._begin_s)

    def finish(self, status: Status, now_s: float) -> None:
        """End the job; what is left of the input was not run."""
        self.status = status
        self._end_s = now_s

    def snapshot(
        self,
        now_s: float,
        activities: Mapping[int, Activity],
        usage: Mapping[int, tuple[Usage, ...]] = _NO_USAGE,
    ) -> Snapshot:
        """An immutable picture at `now_s`.

        Parameters
        ----------
        activities : mapping of worker_id to Activity
            What each worker does for this job now.
        usage : mapping of worker_id to tuple of Usage
            What is known of its memory and CPU.
        """
        end_s = self._end_s
        elapsed_s = (now_s if end_s is None else end_s) - self._begin_s
        self._fold_all()
        if end_s is None:
            activities = dict(activities)
            for worker_id, lane in self._lanes.items():
                activity = lane.doing(activities.get(worker_id), elapsed_s, self._begin_s)
                if activity is not None:
                    activities[worker_id] = activity
        n_done = self._n_done + sum(activity.n_done for activity in activities.values())
        if self.n_tasks is not None:
            n_done = min(n_done, self.n_tasks)
        n_run = n_done - self._n_restored
        rate = self._rate(now_s, n_run) if end_s is None else n_run / max(elapsed_s, 1e-9)
        eta_s = None
        if end_s is None and self.n_tasks is not None and rate > 0:
            eta_s = (self.n_tasks - n_done) / rate
        lanes = []
        for worker_id, lane in sorted(self._lanes.items()):
            activity, since_s = activities.get(worker_id), None
            if end_s is None and activity is not None and activity.index is not None:
                since_s = max(0.0, activity.since_s - self._begin_s)
            lanes.append(lane.freeze(elapsed_s, activity, since_s, usage.get(worker_id, ())))
        snapshot = Snapshot(
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
            lanes=tuple(lanes),
            failures=tuple(self._failures),
            notes=tuple(self._notes),
            can_pause=self.can_pause,
            n_restored=self._n_restored,
            aloud=tuple(self._aloud),
            durations=() if self._durations is None else self._durations.bins(),
            slowest=tuple(sorted(self._slowest.values(), key=lambda one: -one.duration_s)),
            kernel_s=self._kernel_s,
            profile=self.merged.profile() if self.merged is not None and end_s is not None else None,
            step=self._steps.step,
        )
        return self.adviser.add_to(snapshot)

    def _chunk_done(self, event: ChunkDone) -> None:
        # The only event of which there may be thousands a second: 2 us each.
        start, stop, begin_s, end_s = event.start, event.stop, event.begin_s, event.end_s
        n_tasks, rest_s = stop - start, end_s - begin_s
        self._n_done += n_tasks
        self._kernel_s += event.kernel_s
        begin_s, end_s = begin_s - self._begin_s, end_s - self._begin_s
        if begin_s < 0.0 or end_s < begin_s:
            begin_s = max(0.0, begin_s)
            end_s = max(begin_s, end_s)
        (self._lanes.get(event.worker_id) or self._lane(event.worker_id)).done(begin_s, end_s, event)
        durations = self._durations = self._durations or Histogram()
        n_rest = n_tasks + event.n_again
        if start <= event.longest_index < stop:
            durations.add(event.longest_s, 1)
            rest_s, n_tasks, n_rest = rest_s - event.longest_s, n_tasks - 1, n_rest - 1
            if event.together:
                rest_s = event.longest_s * n_rest
        if n_tasks > 0:
            durations.add(rest_s / n_rest, n_tasks)

    def _slow_task(self, event: SlowTask) -> None:
        known = self._slowest.get(event.task_index)  # of a task that was tried again
        if known is None or known.duration_s < event.duration_s:
            self._slowest[event.task_index] = event
        if len(self._slowest) > N_SLOWEST:
            del self._slowest[min(self._slowest.values(), key=lambda one: one.duration_s).task_index]

    def _lane(self, worker_id: int) -> GrowingLane:
        lane = self._lanes.get(worker_id)
        if lane is None:
            lane = self._lanes[worker_id] = GrowingLane(worker_id, self._steps.lane())
        return lane

    def _note(self, text: str, *, aloud: bool = False) -> None:
        if text not in self._notes and len(self._notes) < MAX_NOTES:
            self._notes.append(text)
        if aloud and text not in self._aloud:
            self._aloud.append(text)

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
