"""What would make a job faster: sentences worked out from a snapshot, and silence unless its figures say so.

:func:`advise` is pure; :mod:`nbpar.engine.adviser` asks it. The rules are in :mod:`nbpar.engine.rules_tasks` and
:mod:`nbpar.engine.rules_pool`. A sentence that is not true of the job, or would not gain much, costs more trust than
one that is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from nbpar.engine.adviser import MIN_ELAPSED_S
from nbpar.engine.figures import Found
from nbpar.engine.rules_pool import gil, lost, lost_update, memory, oversubscribed, pools
from nbpar.engine.rules_tasks import few_tasks, small_tasks, straggler, transfer
from nbpar.engine.snapshot import Snapshot

__all__ = ["MAX_ADVICE", "advise"]

MAX_ADVICE = 3
"""More would not be read."""


def advise(snapshot: Snapshot) -> tuple[str, ...]:
    """What to change, one sentence each, the weightiest first.

    Parameters
    ----------
    snapshot : Snapshot
        Of a job that runs or has ended. Of one under 0.5 s only a lost update is told.

    Returns
    -------
    tuple of str
        At most three.

    Examples
    --------
    >>> from nbpar.engine.snapshot import Facts, Lane, Times
    >>> lane = Lane(0, 4711, 1, 1.0, (), times=Times(work_s=9.0))
    >>> facts = Facts("forkserver", n_cpus=4)
    >>> advise(Snapshot(1, "map f", "done", 1, 1, 0, 9.0, 0.1, None, 4, (lane,), facts=facts))
    ('1 task for 4 workers: 3 of them had nothing to do; cut the work into at least 4 tasks',)
    """
    if not snapshot.elapsed_s >= MIN_ELAPSED_S:  # also when it is no number
        return (lost_update(snapshot.lost),) if snapshot.lost else ()
    found = [one for rule in _RULES if (one := rule(snapshot)) is not None]
    found.sort(key=lambda one: -one.weight)
    return tuple(one.text for one in found[:MAX_ADVICE])


_RULES: tuple[Callable[[Snapshot], Found | None], ...] = (
    lost,
    memory,
    transfer,
    small_tasks,
    few_tasks,
    straggler,
    oversubscribed,
    pools,
    gil,
)
