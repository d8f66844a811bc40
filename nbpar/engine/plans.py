"""What the scheduler knows of a job, of a chunk on its way and of a worker; changed by the scheduler alone."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nbpar.engine.backoff import delay_s
from nbpar.engine.chunking import ChunkSizer
from nbpar.engine.instructions import Chunk, EndJob, Loss
from nbpar.engine.quarantine import ALONE_AFTER

__all__ = ["Held", "JobPlan", "JobRecord", "Running", "WorkerRecord"]

LATE_S = 1.0
"""A worker with coroutines whose time is over has so long, and their time once more, to end them itself."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the board says a worker runs: a task of a chunk, since when; `index` None between tasks.

    Short tasks run in blocks: then it is one of the `n_block` tasks from `index` on. In a part of a task that is timed
    apart, `since_s` is when that began, and `limit_s` its own limit.
    """

    chunk_id: int
    index: int | None
    since_s: float
    n_block: int = 1
    limit_s: float | None = None
    part: str = ""


@dataclass(slots=True, eq=False)
class JobPlan:
    """A job as the scheduler sees it.

    Parameters
    ----------
    n_available : int
        Tasks whose items are there; grows by :meth:`Scheduler.feed` until `closed`.
    todo : sequence of (start, stop), optional
        The only ones of these that are to be done, in order; all by default.
    pin : float, optional
        Tasks in a row that belong to one worker: task ``i`` to worker ``(i // pin) % n_workers``, and to no other.
    """

    job_id: int
    n_available: int
    closed: bool = True
    chunk_size: int | None = None
    timeout_s: float | None = None
    retries: int = 0
    max_in_flight: int | None = None
    mean_s: float | None = None  # what tasks of the same function took before
    todo: Sequence[tuple[int, int]] | None = None
    together: bool = False  # the tasks of a chunk run at once
    pin: float | None = None

    def limit_s(self, seen: Running) -> float:
        """How long the board may say the same before a task's time is over."""
        if self.timeout_s is None:
            return math.inf
        if seen.limit_s is not None:
            return seen.limit_s
        # A worker cancels coroutines itself: not in time only where something holds all of them up.
        return 2 * self.timeout_s + LATE_S if self.together and seen.n_block > 1 else self.timeout_s


@dataclass(slots=True, eq=False)
class JobRecord:
    """A job under way: what of its input waits, runs, and was tried before."""

    plan: JobPlan
    sizer: ChunkSizer
    n_available: int
    closed: bool
    lanes: list[deque[tuple[int, int, int]]] = field(
        default_factory=list
    )  # what `waiting` is to other jobs, for each worker: of a job whose tasks are pinned
    next_index: int = 0
    waiting: deque[tuple[int, int, int]] = field(
        default_factory=deque
    )  # (start, stop, attempt): sent before, to do again; or chosen by `todo`
    n_again: int = 0  # tasks in `waiting`
    n_unbegun: int = 0  # workers lost in a row before they began the chunk they had: loading the function kills them
    attempts: dict[int, int] = field(default_factory=dict)  # runs so far, of tasks that failed at least once
    deaths: dict[int, int] = field(default_factory=dict)  # workers that died of a task
    delayed: list[tuple[float, int, int]] = field(
        default_factory=list
    )  # a heap of (due_s, index, attempt): failed tasks before their next run
    alone: deque[tuple[int, int]] = field(
        default_factory=deque
    )  # (index, attempt): due, and to be run while nothing else runs
    n_in_flight: int = 0
    spent_s: float = 0.0  # that workers have worked for it; what it has been given for a late start included
    sent_to: int = 0  # tasks from here on have never been sent
    is_full: bool = False  # none of those is to be
    paused: bool = False
    stopping: EndJob | None = None
    stop_at_s: float | None = None

    def offer(self, n_available: int, todo: Sequence[tuple[int, int]] | None) -> None:
        """Items up to `n_available` are there; where `todo` is given, only its tasks are to be done of the new ones."""
        n_available = self.n_available = max(self.n_available, n_available)
        if todo is None and self.lanes:
            todo = [(self.next_index, n_available)]
        if todo is not None:
            self.next_index = n_available
            for start, stop in todo:
                for lane, first, end in self._by_lane(start, stop):
                    lane.append((first, end, 1))
            self.n_again += sum(stop - start for start, stop in todo)

    def _by_lane(self, start: int, stop: int) -> Iterator[tuple[deque[tuple[int, int, int]], int, int]]:
        """Where these tasks wait, as (queue, start, stop)."""
        pin = self.plan.pin
        if pin is None:
            yield self.waiting, start, stop
            return
        while start < stop:
            turn = int(start // pin)
            end = min(max(math.ceil((turn + 1) * pin), start + 1), stop)
            yield self.lanes[turn % len(self.lanes)], start, end
            start = end

    @property
    def n_waiting(self) -> int:
        """Tasks that may be sent beside others."""
        return self.n_available - self.next_index + self.n_again

    @property
    def may_send(self) -> bool:
        """Whether a task of it may be sent now."""
        limit = self.plan.max_in_flight
        return self.n_waiting > 0 and (limit is None or self.n_in_flight < limit)

    @property
    def is_active(self) -> bool:
        """Whether workers have, or would have, something of it to do."""
        is_held = self.paused or self.is_full or self.stopping is not None
        return self.n_in_flight > 0 or (self.n_waiting > 0 and not is_held)

    @property
    def exhausted(self) -> bool:
        """Whether all has been done that there is to do."""
        return self.closed and self.n_in_flight == 0 and self.n_waiting <= 0 and not self.delayed and not self.alone

    def drop_all(self) -> None:
        """Nothing more of it is to be done, nor to be waited for."""
        for queue in (self.waiting, *self.lanes):
            queue.clear()
        self.delayed.clear()
        self.alone.clear()
        self.n_again = 0
        self.next_index, self.closed = self.n_available, True

    def take(self, allowance: int | None, worker_id: int) -> tuple[int, int, int] | None:
        """The next tasks to send as (start, stop, attempt), at most `allowance` of them; None when none may be sent."""
        n_waiting = self.n_waiting
        waiting = self.lanes[worker_id] if self.lanes else self.waiting
        if n_waiting < 1 or (self.lanes and not waiting):
            return None
        # What was sent before goes on: the consumer may wait for just that, and take nothing until it has come.
        if self.is_full and (waiting[0][0] if waiting else self.next_index) >= self.sent_to:
            return None
        if self.plan.max_in_flight is not None:
            room = self.plan.max_in_flight - self.n_in_flight
            allowance = room if allowance is None else min(allowance, room)
        size = self.sizer.next_size(n_waiting)
        if allowance is not None:
            if allowance < 1:
                return None
            size = min(size, allowance)
        if waiting:
            start, stop, attempt = waiting.popleft()
            self.n_again -= stop - start
            if stop - start > size:
                self.put_back(start + size, stop, attempt)
                stop = start + size
            self.sent_to = max(self.sent_to, stop)
            return start, stop, attempt
        start = self.next_index
        self.next_index = self.sent_to = stop = min(start + size, self.n_available)
        return start, stop, 1

    def put_back(self, start: int, stop: int, attempt: int) -> None:
        """These tasks are to be done again, before all others."""
        if self.deaths.get(start, 0) >= ALONE_AFTER:  # one task: those that failed are sent singly
            self.alone.appendleft((start, attempt))
            return
        self.n_again += stop - start
        for queue, first, end in reversed(list(self._by_lane(start, stop))):
            queue.appendleft((first, end, attempt))

    def retry(self, index: int, now_s: float) -> bool:
        """A task failed; whether it will be tried again, after its time."""
        n_runs = self.attempts.get(index, 0) + 1
        if n_runs > self.plan.retries:
            self.give_up(index)
            return False
        self.attempts[index] = n_runs
        heapq.heappush(self.delayed, (now_s + delay_s(index, n_runs), index, n_runs + 1))
        return True

    def give_up(self, index: int) -> None:
        """A task has failed for good."""
        self.attempts.pop(index, None)
        self.deaths.pop(index, None)

    def release(self, now_s: float) -> None:
        """Failed tasks whose time has come are to be done again."""
        due = []
        while self.delayed and self.delayed[0][0] <= now_s:
            due.append(heapq.heappop(self.delayed))
        for _, index, attempt in reversed(due):
            self.put_back(index, index + 1, attempt)

    def put_back_lost(self, held: Held, running: Running | None) -> int | None:
        """Put back what a lost worker had not ended of a chunk; the index of the task that is to blame, if any."""
        chunk = held.chunk
        if running is None or running.chunk_id != chunk.chunk_id:  # not begun
            self.put_back(held.done_to, chunk.stop, chunk.attempt)
            return None
        # It died in one of these tasks; between two tasks, while it unpickled or pickled for any of them.
        first, stop = held.done_to, chunk.stop
        if running.index is not None and held.done_to <= running.index < chunk.stop:
            first, stop = running.index, min(running.index + max(1, running.n_block), chunk.stop)
        self.put_back_parts(held, stop, chunk.stop)
        suspects = [index for index in range(first, stop) if index not in held.apart]
        if len(suspects) > 1:  # one of several, not known which: each alone, so that the next death names it
            for index in reversed(suspects):
                self.put_back(index, index + 1, chunk.attempt)
        self.put_back_parts(held, held.done_to, first)
        return suspects[0] if len(suspects) == 1 else None

    def put_back_parts(self, held: Held, start: int, stop: int) -> None:
        """Put back what has not ended of a part of a chunk."""
        if not held.apart:
            if start < stop:
                self.put_back(start, stop, held.chunk.attempt)
            return
        for end in sorted({*held.apart, stop}, reverse=True):  # from behind: the first is to stand first
            if start < end <= stop and end - 1 not in held.apart:
                begin = max((index + 1 for index in held.apart if index < end), default=start)
                self.put_back(max(begin, start), end, held.chunk.attempt)


@dataclass(slots=True, eq=False)
class Held:
    """A chunk on its way through a worker; tasks before `done_to` have ended, and those `apart`.

    Coroutines end in any order.
    """

    chunk: Chunk
    done_to: int
    sent_bytes: int = 0
    interrupted: bool = False
    sent_at_s: float = 0.0
    work_s: float = 0.0  # of the tasks that have ended
    recalled_at_s: float | None = None
    apart: set[int] = field(default_factory=set)

    def ended(self, first: int, stop: int) -> int:
        """Tasks `first` to ``stop - 1`` have ended; how many these are."""
        if self.done_to < first < stop:
            self.apart.update(range(first, stop))
            return stop - first
        n_new, self.done_to = stop - self.done_to, stop
        if self.apart:
            n_new -= sum(index < stop for index in self.apart)
            while self.done_to in self.apart:
                self.done_to += 1
            self.apart = {index for index in self.apart if index > self.done_to}
        return n_new

    @property
    def n_left(self) -> int:
        """Tasks that have not ended."""
        return self.chunk.stop - self.done_to - len(self.apart)


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """A worker: what it holds, and what is asked of it."""

    state: str = "absent"  # absent, starting, ready, stopping
    held: deque[Held] = field(default_factory=deque)
    n_tasks: int = 0
    stale: bool = False
    asked_at_s: float | None = None  # since when it has been due to drop the chunk it runs, or to end
    slow: bool = False  # what it runs held up another chunk: nothing is to wait behind it
    n_signals: int = 0  # 1 once SIGTERM was sent, 2 once SIGKILL was
    condemned: tuple[int, int | None] | None = None  # chunk and task it is being killed for; None: whichever it was
    loss: Loss = "died"  # why it is

    @property
    def must_yield(self) -> bool:
        """Whether what it does now is not wanted any more."""
        return self.state == "stopping" or (bool(self.held) and self.held[0].interrupted)
