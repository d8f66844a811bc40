"""Rules of advice about how tasks are cut and what travels for them: transfer, small, few, and uneven tasks.

Each takes a snapshot and gives what it has found, or None. Its thresholds stand above it, with their reasons. Asked by
:mod:`nbpar.engine.advice`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from nbpar.engine.events import SentAgain, SlowTask
from nbpar.engine.figures import Found, count, percent, seconds, times
from nbpar.engine.insights import quantile_s
from nbpar.engine.snapshot import Facts, Lane, Snapshot
from nbpar.sizes import in_words

__all__ = ["few_tasks", "small_tasks", "straggler", "transfer"]


# --- what several rules go by -----------------------------------------------------------------------------------------


class _Shares(NamedTuple):
    """The time of all ready workers, summed: in all, in tasks, and for what tasks get and give.

    `handling_s` is what workers spend on arguments and results, and what they wait for the kernel to do its part.
    """

    ready_s: float
    work_s: float
    handling_s: float
    sent_bytes: int
    received_bytes: int

    @property
    def handling(self) -> float:
        return min(1.0, self.handling_s / self.ready_s) if self.ready_s > 0 else 0.0

    @property
    def work(self) -> float:
        return min(1.0, self.work_s / self.ready_s) if self.ready_s > 0 else 0.0


def _shares(snapshot: Snapshot) -> _Shares:
    ready_s = work_s = handling_s = 0.0
    for lane in snapshot.lanes:
        times = lane.times
        # At the end there may be nothing left to wait for but other workers.
        wait_s = max(0.0, times.wait_s - _idle_at_end_s(snapshot, lane))
        ready_s += wait_s + times.transfer_s + times.work_s
        work_s += times.work_s
        # The kernel serves one worker at a time, and a worker that is not working waits for it.
        handling_s += times.transfer_s + min(wait_s, snapshot.kernel_s)
    sent_bytes = sum(lane.sent_bytes for lane in snapshot.lanes)
    return _Shares(ready_s, work_s, handling_s, sent_bytes, sum(lane.received_bytes for lane in snapshot.lanes))


def _idle_at_end_s(snapshot: Snapshot, lane: Lane) -> float:
    """How long a worker has had nothing to do by now."""
    if lane.current_index is not None:
        return 0.0
    return max(0.0, snapshot.elapsed_s - max(lane.ready_s, lane.spans[-1].end_s if lane.spans else 0.0))


def _idle_share(snapshot: Snapshot) -> float:
    """Share of the workers' time that went by at the end while others still ran."""
    n_workers = max(snapshot.n_workers, len(snapshot.lanes))
    idle_s = sum(_idle_at_end_s(snapshot, lane) for lane in snapshot.lanes)
    return idle_s / (n_workers * snapshot.elapsed_s) if n_workers else 0.0


def _n_run(snapshot: Snapshot) -> int:
    """Tasks that have ended here, without those whose results were there before."""
    return snapshot.n_done - snapshot.n_restored


def _parallel(snapshot: Snapshot, facts: Facts) -> int:
    """Tasks that can really run at once. Workers beyond the CPUs may be there to wait: nothing is said of those."""
    return min(snapshot.n_workers, max(1, facts.n_cpus))


def _median_s(snapshot: Snapshot) -> float:
    """Of the tasks' durations; 0 while it is not known."""
    return quantile_s(snapshot.durations, 0.5) if any(one.n_tasks for one in snapshot.durations) else 0.0


# --- transfer ---------------------------------------------------------------------------------------------------------

TRANSFER_SHARE = 0.2
"""Below, sharing or sending less gains a fifth at most."""

LARGE_TASK_BYTES = 20_000
"""Arguments and result of a task. Below, it is not their size that takes the time, but that tasks are many."""


def transfer(snapshot: Snapshot) -> Found | None:
    """Large arguments or results take much of the workers' time."""
    shares = _shares(snapshot)
    n_bytes = shares.sent_bytes + shares.received_bytes
    if shares.handling < TRANSFER_SHARE or n_bytes < LARGE_TASK_BYTES * max(1, _n_run(snapshot)):
        return None
    start = f"{percent(shares.handling)} of the workers' time went into"
    again = snapshot.repeated[0] if snapshot.repeated else None
    if again is not None and _is_sent_again(again, snapshot, shares):
        what = again.what
        if what.isidentifier():
            change = f"receiving {what} ({in_words(again.n_bytes)}): share it once with nbpar.share({what})"
        else:
            change = f"receiving {what} again and again ({again.n_times:,} times): share it once with nbpar.share"
        return Found(shares.handling, f"{start} {change}")
    if shares.received_bytes > shares.sent_bytes:
        what = f"sending results ({in_words(shares.received_bytes)})"
        return Found(shares.handling, f"{start} {what}: return less, or save in the task and return the file's name")
    what = f"receiving arguments ({in_words(shares.sent_bytes)})"
    return Found(shares.handling, f"{start} {what}: send only what is needed of them, or load them in the task")


def _is_sent_again(one: SentAgain, snapshot: Snapshot, shares: _Shares) -> bool:
    """Whether it is most of what was sent, and was sent more often than each worker needs it."""
    return one.n_times > max(2, snapshot.n_workers) and 2 * one.n_bytes * one.n_times >= shares.sent_bytes


# --- small tasks ------------------------------------------------------------------------------------------------------

IDLE_SHARE = 0.5
"""Workers that are in tasks for half of their time or more lose little by how tasks are cut."""

HANDLING_SHARE = 0.3
"""A worker may also wait for a slow reader of `imap`: then it is not the size of the tasks."""

MIN_SMALL_TASKS = 200

SMALL_TASK_S = 20e-6
"""An item takes about 1 us to travel and a result as long, so that the gain is small above."""

SMALL_CHUNK_S = 0.001
"""A chunk of its own takes some 0.1 ms besides."""

BLOCK_S = 0.01
"""What a block of items should take: as much as nbpar puts into a chunk."""


def small_tasks(snapshot: Snapshot) -> Found | None:
    """Handing tasks out takes longer than doing them."""
    n_run, shares = _n_run(snapshot), _shares(snapshot)
    if n_run < MIN_SMALL_TASKS or shares.work >= IDLE_SHARE or shares.handling < HANDLING_SHARE:
        return None
    if shares.sent_bytes + shares.received_bytes >= LARGE_TASK_BYTES * n_run:
        return None
    mean_s, chunk_size = shares.work_s / n_run, snapshot.facts.chunk_size if snapshot.facts else None
    start = f"tasks take {seconds(mean_s)} each"
    if chunk_size is not None and mean_s * chunk_size < SMALL_CHUNK_S:
        text = f"{start}, and the workers were busy {percent(shares.work)} of the time: leave out chunk_size="
        return Found(1 - shares.work, f"{text}{chunk_size:,}, which sends too few of them at once")
    if not mean_s < SMALL_TASK_S:  # also when it is no number
        return None
    n_block = BLOCK_S / max(mean_s, 1e-7)
    n_block = round(n_block, -int(math.log10(n_block)))  # one figure
    text = f"{start}, and {percent(1 - shares.work)} of the workers' time went into handing them out"
    return Found(1 - shares.work, f"{text}: let a task do a block of items, {n_block:,.0f} or more")


# --- few tasks --------------------------------------------------------------------------------------------------------

WAITING_SHARE = 0.25
"""Of the workers' time, for want of tasks: below, cutting finer gains less than a quarter."""

EVEN_FACTOR = 2.0
"""Where the longest task takes at most so many times the median, it is the number of tasks that leaves a rest."""


def few_tasks(snapshot: Snapshot) -> Found | None:
    """There are not enough tasks, or chunks, to keep all workers busy until the end."""
    facts, n_tasks = snapshot.facts, snapshot.n_tasks
    if facts is None or n_tasks is None:
        return None
    n_tasks -= snapshot.n_restored
    n_workers = _parallel(snapshot, facts)
    n_chunks = n_tasks if facts.chunk_size is None else -(-n_tasks // facts.chunk_size)
    if n_tasks < 1 or n_workers < 2 or n_chunks >= 3 * n_workers or _was_broken_off(snapshot):
        return None
    had = "had" if snapshot.ended else "have"
    if n_chunks < n_workers:
        n_idle = snapshot.n_workers - n_chunks
        idle = f"{n_idle:,} of them {had} nothing to do" if n_idle > 1 else f"one of them {had} nothing to do"
        if n_chunks < n_tasks:
            text = (
                f"chunk_size={facts.chunk_size:,} makes {count(n_chunks, 'chunk')} for {snapshot.n_workers:,} workers"
            )
            return Found(1 - n_chunks / n_workers, f"{text}: {idle}; leave it out")
        text = f"{count(n_tasks, 'task')} for {snapshot.n_workers:,} workers: {idle}"
        return Found(1 - n_tasks / n_workers, f"{text}; cut the work into at least {n_workers:,} tasks")
    share = _idle_share(snapshot)
    median_s = _median_s(snapshot)
    longest_s = snapshot.slowest[0].duration_s if snapshot.slowest else 0.0
    if (
        not snapshot.ended
        or n_chunks <= snapshot.n_workers
        or share < WAITING_SHARE
        or not 0 < longest_s <= EVEN_FACTOR * median_s
    ):
        return None
    waited = f"{snapshot.n_workers:,} workers, and {percent(share)} of their time went into waiting for the last ones"
    if n_chunks < n_tasks:
        return Found(share, f"chunk_size={facts.chunk_size:,} makes {n_chunks:,} chunks for {waited}: leave it out")
    return Found(share, f"{n_tasks:,} tasks for {waited}: cut the work into more, smaller tasks")


def _was_broken_off(snapshot: Snapshot) -> bool:
    return snapshot.status in ("failed", "cancelled")


# --- a straggler ------------------------------------------------------------------------------------------------------

MIN_STRAGGLER_TASKS = 4
"""Of fewer there is no usual duration."""

STRAGGLER_FACTOR = 5.0
"""Times the median, for a task that has held the end: of tasks that differ by less, one is always the last."""

LIVE_FACTOR = 10.0
"""The same while it runs, when it is not known yet how long it will take."""

LIVE_STRAGGLER_S = 1.0
"""Below, it is over before it is read."""

HELD_SHARE = 0.2
"""Of the workers' time, that went into waiting for it."""

HELD_MOSTLY = 0.8
"""Of the others' wait, that the task must have taken to be what they waited for."""

EARLY_SHARE = 0.15
"""A task that was begun in the first part of the job could hardly have been begun earlier."""


def straggler(snapshot: Snapshot) -> Found | None:
    """One task takes so much longer than the others that all wait for it at the end."""
    median_s = _median_s(snapshot)
    if len(snapshot.lanes) < 2 or _n_run(snapshot) < MIN_STRAGGLER_TASKS or not median_s > 0:
        return None
    if snapshot.status == "running":
        return _will_hold(snapshot, median_s)
    return _has_held(snapshot, median_s) if snapshot.status == "done" else None


def _will_hold(snapshot: Snapshot, median_s: float) -> Found | None:
    running = [lane for lane in snapshot.lanes if lane.current_index is not None]
    if not running or snapshot.eta_s is None:
        return None
    lane = min(running, key=lambda lane: lane.current_since_s)
    run_s = snapshot.elapsed_s - lane.current_since_s
    # What has run for so long may well run for as long again: by then the others will be done.
    if run_s < LIVE_STRAGGLER_S or run_s < LIVE_FACTOR * median_s or run_s < snapshot.eta_s:
        return None
    text = f"worker {lane.worker_id} has run item {lane.current_index:,} for {seconds(run_s)}, {times(run_s, median_s)}"
    return Found(0.5, f"{text}: it will hold the end")


def _has_held(snapshot: Snapshot, median_s: float) -> Found | None:
    share = _idle_share(snapshot)
    lanes = [lane for lane in snapshot.lanes if lane.spans]
    if share < HELD_SHARE or not lanes:
        return None
    lane = max(lanes, key=lambda lane: lane.spans[-1].end_s)
    last = lane.spans[-1]
    others = [one for one in snapshot.lanes if one is not lane]
    held_s = sum(_idle_at_end_s(snapshot, one) for one in others) / len(others)
    for slow in snapshot.slowest:
        is_last = slow.worker_id == lane.worker_id and last.first <= slow.task_index <= last.last
        if is_last and slow.duration_s >= max(HELD_MOSTLY * held_s, STRAGGLER_FACTOR * median_s):
            return Found(share, _held(snapshot, slow, last.end_s, held_s, median_s))
    return None


def _held(snapshot: Snapshot, slow: SlowTask, end_s: float, held_s: float, median_s: float) -> str:
    took = f"item {slow.task_index:,} took {seconds(slow.duration_s)}, {times(slow.duration_s, median_s)}"
    others = "the other worker waited" if len(snapshot.lanes) == 2 else "the other workers waited"
    was_early = end_s - slow.duration_s <= EARLY_SHARE * snapshot.elapsed_s
    change = "split it" if was_early else "put such items first, or split them"
    return f"{took}, and {others} {seconds(held_s)} for it at the end: {change}"
