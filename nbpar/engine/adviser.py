"""Between a job's state and its advice: what that goes by beside the job's figures, and when it is worked out.

Owned by :mod:`nbpar.engine.state`. The rules themselves, in :mod:`nbpar.engine.advice`, are loaded for the first job
that lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbpar.engine.events import LostUpdate, SentAgain
from nbpar.engine.snapshot import Facts, Snapshot, ThreadsCpu

__all__ = ["MIN_ELAPSED_S", "Adviser"]

PERIOD_S = 1.0
"""How often a running job is looked at: sentences that change faster cannot be read."""

MIN_ELAPSED_S = 0.5
"""A shorter job is not worth making faster, and what the machine did besides shows in its figures."""


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
        self._repeated: dict[tuple[str, int], SentAgain] = {}  # bounded by what the backend remembers of a job
        self._next_s = 0.0
        self._advice: tuple[str, ...] = ()

    def heed(self, event: LostUpdate | SentAgain) -> str | None:
        """Take an event in; what is to be said aloud of it, if anything."""
        if isinstance(event, SentAgain):
            self._repeated[event.what, event.n_bytes] = event
            return None
        new = tuple(name for name in event.names if name not in self._lost)
        self._lost += new
        if not new:
            return None
        try:
            from nbpar.engine.rules_pool import lost_update
        except OSError:  # no descriptor is free to read the file: it is told with the advice
            return None
        return lost_update(new)

    def add_to(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with all that; advice is worked out once a second while the job runs, and at its end."""
        if self._facts is None and self.make_facts is not None:
            self._facts, self.make_facts = self.make_facts(), None
        known: dict[str, Any] = {
            "repeated": tuple(sorted(self._repeated.values(), key=lambda one: -one.n_bytes * one.n_times)),
            "lost": self._lost,
            "facts": self._facts,
            "threads_cpu": self.threads_cpu,
        }
        if (snapshot.ended or snapshot.elapsed_s >= self._next_s) and (
            snapshot.elapsed_s >= MIN_ELAPSED_S or self._lost
        ):
            self._next_s = snapshot.elapsed_s + PERIOD_S
            try:
                from nbpar.engine.advice import advise  # what most jobs end without
            except OSError:  # as above: perhaps the next time
                pass
            else:
                self._advice = advise(snapshot._replace(**known))
        return snapshot._replace(**known, advice=self._advice)
