"""Rules of advice about the pool and its workers: lost updates, memory, threads of libraries, pools in a loop, the GIL.

Each takes a snapshot and gives what it has found, or None. Its thresholds stand above it, with their reasons. Asked by
:mod:`nbpar.engine.advice`.
"""

from __future__ import annotations

from nbpar.engine.figures import Found, count, percent
from nbpar.engine.snapshot import Snapshot
from nbpar.sizes import in_words

__all__ = ["gil", "lost", "lost_update", "memory", "oversubscribed", "pools"]


# --- what is lost -----------------------------------------------------------------------------------------------------


def lost_update(names: tuple[str, ...]) -> str:
    """What is said of objects that tasks have changed in their workers.

    Examples
    --------
    >>> lost_update(("cache",))
    '`cache` was changed by tasks in their workers, where the change is lost: return it instead, or use \
nbpar.per_worker for what shall stay there'
    """
    named = [name if " " in name else f"`{name}`" for name in names]
    if len(named) > 1:
        named[-2:] = [f"{named[-2]} and {named[-1]}"]
    was, is_lost, it = ("was", "the change is", "it") if len(names) == 1 else ("were", "the changes are", "them")
    return (
        f"{', '.join(named)} {was} changed by tasks in their workers, where {is_lost} lost: return {it} instead, or "
        f"use nbpar.per_worker for what shall stay there"
    )


def lost(snapshot: Snapshot) -> Found | None:
    """Results are not what the same loop would have left: worse than slow."""
    return Found(3.0, lost_update(snapshot.lost)) if snapshot.lost else None


# --- memory -----------------------------------------------------------------------------------------------------------

MEMORY_SHARE = 0.85
"""Of a worker's limit: the next larger item, or a few more of a leak, and it is replaced or stopped."""

ALL_MEMORY_SHARE = 0.8
"""Of the machine, for all workers together: the kernel, and others, need some as well."""


def memory(snapshot: Snapshot) -> Found | None:
    """Workers are near the pool's limit, or that of the machine."""
    facts = snapshot.facts
    if facts is None:
        return None
    peaks = [(max(one.memory_bytes for one in lane.usage), lane.worker_id) for lane in snapshot.lanes if lane.usage]
    if not peaks:
        return None
    limit_bytes, usable_bytes = facts.memory_limit_bytes, facts.usable_memory_bytes
    peak_bytes, worker_id = max(peaks)
    if limit_bytes is not None and peak_bytes >= MEMORY_SHARE * limit_bytes:
        held = f"worker {worker_id} held {in_words(peak_bytes)}, and memory_limit is {in_words(limit_bytes)}"
        return Found(2.0, f"{held}: let a task hold less at a time, or raise the limit and use fewer workers")
    now_bytes = sum(lane.usage[-1].memory_bytes for lane in snapshot.lanes if lane.usage and lane.alive)
    if usable_bytes is not None and now_bytes >= ALL_MEMORY_SHARE * usable_bytes:
        held = f"the workers hold {in_words(now_bytes)} together, and {in_words(usable_bytes)} is all there is"
        return Found(2.0, f"{held}: use fewer workers, or let a task hold less at a time")
    return None


# --- threads beside the tasks' own ------------------------------------------------------------------------------------

OTHER_SHARE = 0.2
"""Of the workers' CPU time, in threads that tasks do not run in: libraries keep some that do next to nothing."""

MIN_CPU = 0.03
"""Cores; below there is no work to speak of, however busy the machine is."""


def oversubscribed(snapshot: Snapshot) -> Found | None:
    """Libraries compute in more threads than there are CPUs for."""
    facts = snapshot.facts
    if facts is None or facts.start_method in ("threads", "serial"):
        return None
    working = [lane for lane in snapshot.lanes if lane.usage and (lane.n_done or lane.current_index is not None)]
    cpu = sum(one.cpu for lane in working for one in lane.usage)
    other_cpu = sum(one.other_cpu for lane in working for one in lane.usage)
    n_samples = sum(len(lane.usage) for lane in working)
    if not n_samples or cpu < MIN_CPU * n_samples or other_cpu < OTHER_SHARE * cpu:
        return None
    n_threads, n_cpus, n_working = facts.blas_threads or 1, facts.n_cpus, len(working)
    share = min(1.0, other_cpu / cpu)
    if n_threads > 1 and n_threads * n_working > n_cpus:
        text = f"{n_working:,} workers with {n_threads:,} BLAS threads each share {count(n_cpus, 'CPU')}"
        return Found(0.4 * share, f"{text}, where they hold each other up: leave out threads_per_worker={n_threads}")
    if n_working >= n_cpus > 1:
        text = f"tasks start threads of their own ({percent(share)} of the CPU time), and {n_working:,} workers share"
        change = "have the library use one thread (n_jobs=1, torch.set_num_threads(1)), or use fewer workers"
        return Found(0.4 * share, f"{text} {n_cpus:,} CPUs: {change}")
    return None


# --- pools ------------------------------------------------------------------------------------------------------------

MIN_POOLS = 3
"""Within a minute. A cell that is run twice has made two."""

START_SHARE = 0.1
"""Of the job, for the start of its workers."""


def pools(snapshot: Snapshot) -> Found | None:
    """A loop makes a pool in each round."""
    facts, lanes = snapshot.facts, snapshot.lanes
    if facts is None or facts.n_short_pools < MIN_POOLS or not lanes:
        return None
    start_s = sum(lane.times.start_s + lane.times.init_s for lane in lanes) / len(lanes)
    share = min(1.0, start_s / snapshot.elapsed_s)
    if share < START_SHARE:
        return None
    made = f"{facts.n_short_pools:,} pools were made within a minute, and starting this one took {percent(share)}"
    return Found(share, f"{made} of its job: make one pool before the loop, or use nbpar.map, which keeps its own")


# --- the GIL ----------------------------------------------------------------------------------------------------------

MIN_BUSY_THREADS = 1.5
"""Threads that ran tasks at once, in the mean: of one alone nothing can be said."""

GIL_CORES = 1.2
"""Threads that Python lets run one at a time use one core together, and hardly more."""

MIN_WANTED, MIN_USED = 0.75, 0.08
"""Cores; threads that mostly sleep, or wait for a disk or a network, want less. Where others want the CPUs as well,
what was wanted may not be had."""

MIN_STOPPED = 0.2
"""Of the time of each busy thread but one, in which it neither ran nor waited for a CPU that others had. With the GIL
0.3 to 0.9, on a machine that has eight times the work it can do as well; computing outside Python 0.1 at most."""

MAX_STOP_S = 0.0065
"""In the mean. A thread that waits for its turn looks every 5 ms whether it has come; one that waits for a lock of the
tasks' own, or for a disk, does not."""

MIN_TURN_S = 0.0025
"""Of CPU time between two stops, times the threads that are busy. Python gives each a turn of 5 ms while others look
for theirs; threads that are woken by a disk or a network do less before they stop again."""


def gil(snapshot: Snapshot) -> Found | None:
    """Threads compute in Python, one at a time."""
    facts, cpu = snapshot.facts, snapshot.threads_cpu
    if facts is None or cpu is None or facts.start_method != "threads" or facts.n_cpus < 2:
        return None
    busy_s = sum(lane.busy * max(0.0, snapshot.elapsed_s - lane.ready_s) for lane in snapshot.lanes)
    n_busy = busy_s / snapshot.elapsed_s
    if n_busy < MIN_BUSY_THREADS or not MIN_USED <= cpu.used <= GIL_CORES:
        return None
    if not cpu.wanted >= MIN_WANTED or not cpu.watched_s > 0:
        return None
    # The threads were watched for a part of the job only: at worst, all of them were busy in the rest of it.
    watched_busy_s = busy_s - len(snapshot.lanes) * max(0.0, snapshot.elapsed_s - cpu.watched_s)
    stopped = watched_busy_s / cpu.watched_s - cpu.wanted
    takes_turns = stopped / MAX_STOP_S <= cpu.waits <= cpu.used * n_busy / MIN_TURN_S
    if not stopped >= MIN_STOPPED * (n_busy - 1) or not takes_turns:
        return None
    text = (
        f"{n_busy:.0f} threads were busy and used {cpu.used:.1f} cores together, for Python runs one of them at a time"
    )
    return Found(1 - 1 / n_busy, f'{text}: use processes for such tasks (leave out start_method="threads")')
