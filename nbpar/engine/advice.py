"""What would make a job faster: sentences worked out from a snapshot, and silence unless its figures say so.

:func:`advise` is pure. :class:`Adviser`, which :mod:`nbpar.engine.state` owns, gathers what it goes by and asks it. The
rules are in :mod:`nbpar.engine.rules_tasks` and :mod:`nbpar.engine.rules_pool`. A sentence that is not true of the job,
or would not gain much, costs more trust than one that is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from nbpar.engine.events import LostUpdate, SentAgain
from nbpar.engine.figures import Found
from nbpar.engine.rules_pool import gil, lost, lost_update, memory, oversubscribed, pools
from nbpar.engine.rules_tasks import few_tasks, small_tasks, straggler, transfer
from nbpar.engine.snapshot import Facts, Repeated, Snapshot, ThreadsCpu

__all__ = ["Adviser", "advise"]

MAX_ADVICE = 3
"""More would not be read."""

MIN_ELAPSED_S = 0.5
"""A shorter job is not worth making faster, and what the machine did besides shows in its figures."""

PERIOD_S = 1.0
"""How often a running job is looked at: sentences that change faster cannot be read."""


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


class Adviser:
    """What advice on one job goes by beside its figures, and the advice; the owner locks it.

    Attributes
    ----------
    make_facts : callable or None
        Says what is known of the pool; called when somebody first looks at the job.
    threads_cpu : ThreadsCpu or None
        See :class:`~nbpar.engine.snapshot.Snapshot`.
    """

    def __init__(self) -> None:
        self.make_facts: Callable[[], Facts] | None = None
        self.threads_cpu: ThreadsCpu | None = None
        self._facts: Facts | None = None
        self._lost: tuple[str, ...] = ()
        self._repeated: dict[tuple[str, int], Repeated] = {}  # bounded by what the backend remembers of a job
        self._next_s = 0.0
        self._advice: tuple[str, ...] = ()

    def heed(self, event: LostUpdate | SentAgain) -> str | None:
        """Take an event in; what is to be said aloud of it, if anything."""
        if isinstance(event, SentAgain):
            self._repeated[event.what, event.n_bytes] = Repeated(*event)
            return None
        new = tuple(name for name in event.names if name not in self._lost)
        self._lost += new
        return lost_update(new) if new else None

    def add_to(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with all that; advice is worked out once a second while the job runs, and at its end."""
        if self._facts is None and self.make_facts is not None:
            self._facts, self.make_facts = self.make_facts(), None
        snapshot = snapshot._replace(
            repeated=tuple(sorted(self._repeated.values(), key=lambda one: -one.n_bytes * one.n_times)),
            lost=self._lost,
            facts=self._facts,
            threads_cpu=self.threads_cpu,
        )
        if snapshot.ended or snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + PERIOD_S
            self._advice = advise(snapshot)
        return snapshot._replace(advice=self._advice)


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
