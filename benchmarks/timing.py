"""Alternated calls: each round calls nbpar and its peers in turn, so that all meet the same noise.

`compare` measures one workload with the contenders of one stage: warm-up, choice of each library's best tuning, rounds.
A ratio belongs to two calls of the same round. Called by :mod:`benchmarks.run`.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.core import Contender, Timed, Workload, WrongResultError
from benchmarks.figures import Figures, Row
from benchmarks.limits import TookTooLong, limit
from benchmarks.peers import OURS
from benchmarks.team import Team

__all__ = ["Trial", "call_once", "compare"]

CALL_LIMIT_S = 60.0
LONG_S = 5.0
"""Of what takes longer, the first call is the only one, and counts."""
MAX_ROUNDS = 60
USUAL_CONTENDERS = 8
WARM_BELOW_S = 0.4
"""A first call shorter than this is followed by a second one before anything counts; so is a library's only one."""


class Trial(NamedTuple):
    """One call: its figures, what it took with preparation and check, and by the CPU clock if there was one."""

    samples: dict[str, float]
    spent_s: float
    cpu_s: float = 0.0


def call_once(workload: Workload, contender: Contender, *, cpu_clock: Callable[[], float] | None = None) -> Trial:
    """Prepare, call, check.

    Raises
    ------
    WrongResultError
        When the result is not the right one.
    TookTooLong
        After `CALL_LIMIT_S`.
    """
    spent_begin_s = time.perf_counter()
    argument = contender.prepare()
    gc.collect()
    cpu_begin_s = 0.0 if cpu_clock is None else cpu_clock()
    with limit(CALL_LIMIT_S):
        begin_s = time.perf_counter()
        result = contender.call(argument)
        wall_s = time.perf_counter() - begin_s
    cpu_s = 0.0 if cpu_clock is None else cpu_clock() - cpu_begin_s
    if isinstance(result, Timed):
        samples, value = dict(result.samples), result.value
    else:
        samples, value = workload.samples(wall_s / contender.n_units), result
    workload.check(argument, value)
    contender.dispose(result)
    return Trial(samples, time.perf_counter() - spent_begin_s, cpu_s)


def compare(workload: Workload, contenders: Sequence[Contender], team: Team, figures: Figures) -> None:
    """Measure `contenders` within the workload's budget and add to `figures`."""
    field = _Field(workload, contenders, team, figures)
    field.warm()
    if not workload.keeps_variants:
        field.choose_variants()
    field.race()


class _Field:
    """The contenders of one stage that are still in."""

    def __init__(self, workload: Workload, contenders: Sequence[Contender], team: Team, figures: Figures) -> None:
        self._workload = workload
        self._team = team
        self._figures = figures
        self._running = list(contenders)
        self._spent_s: dict[int, float] = {}  # by id of the contender: its quickest call so far
        self._first: dict[int, dict[str, float]] = {}
        # In a later stage heavier peers run beside nbpar: its own figures are those of the first.
        ours = figures.ours()
        self._ours_is_known = ours is not None and bool(ours.samples)
        if self._ours_is_known:
            first = next((contender for contender in contenders if contender.peer == OURS), None)
            self._running = [contender for contender in contenders if contender.peer != OURS or contender is first]

    def warm(self) -> None:
        n_variants = Counter(contender.peer for contender in self._running)
        for contender in list(self._running):
            trial = self._try(contender)
            if trial is None or trial.spent_s > LONG_S:
                continue
            if trial.spent_s < WARM_BELOW_S or n_variants[contender.peer] == 1:
                self._try(contender)

    def choose_variants(self) -> None:
        """Of each library the tuning whose warm call was the quickest goes on."""
        main = next(iter(self._workload.metrics))
        best: dict[str, Contender] = {}
        for contender in self._running:
            rival = best.get(contender.peer)
            if rival is None or self._first[id(contender)][main] < self._first[id(rival)][main]:
                best[contender.peer] = contender
        self._running = [contender for contender in self._running if best[contender.peer] is contender]

    def race(self) -> None:
        """Rounds of calls; slow contenders sit out some, evenly."""
        ours: dict[str, Contender] = {}
        for contender in self._running:
            if contender.peer == OURS:
                ours.setdefault(contender.group, contender)
        for contender in list(self._running):
            if self._spent_s[id(contender)] > LONG_S and contender.peer != OURS:
                reference = ours.get(contender.group)
                of_ours = self._first[id(reference)] if reference in self._running else {}
                note(self._row(contender), self._first[id(contender)], of_ours)
                self._running.remove(contender)
        counts = self._counts()
        n_rounds = max(counts.values(), default=0)
        for number in range(n_rounds):
            entered = [
                contender
                for contender in self._running
                if contender is ours.get(contender.group) or _takes_part(number, counts[id(contender)], n_rounds)
            ]
            turn = number % max(1, len(entered))
            samples: dict[int, dict[str, float]] = {}
            for contender in entered[turn:] + entered[:turn]:
                trial = self._try(contender)
                if trial is not None:
                    samples[id(contender)] = trial.samples
            for contender in entered:
                if id(contender) in samples and not (contender.peer == OURS and self._ours_is_known):
                    reference = ours.get(contender.group)
                    of_ours = {} if reference in (None, contender) else samples.get(id(reference), {})
                    note(self._row(contender), samples[id(contender)], of_ours)

    def _counts(self) -> dict[int, int]:
        """Calls of each, from an equal share of the budget, and a few at least.

        A stage with two libraries takes no more than their share of a stage with all.
        """
        budget_s = self._workload.budget_s / (10 if self._workload.is_quick else 1)
        share_s = budget_s / max(USUAL_CONTENDERS, len(self._running))
        counts = {}
        for contender in self._running:
            spent_s = self._spent_s[id(contender)]
            least = self._workload.n_least if spent_s < 2.0 else 2
            most = 3 if self._workload.is_quick else MAX_ROUNDS
            counts[id(contender)] = max(least, min(most, int(share_s / max(spent_s, 1e-6))))
        return counts

    def _try(self, contender: Contender) -> Trial | None:
        row = self._row(contender)
        try:
            trial = call_once(self._workload, contender)
        except WrongResultError as error:
            row.problem = f"wrong result: {error}"
        except TookTooLong:
            row.problem = f"did not end within {CALL_LIMIT_S:.0f} s"
            self._team.discard(contender.peer, f"hung in `{self._workload.name}`")
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is what the table says of it
            row.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            key = id(contender)
            self._spent_s[key] = min(trial.spent_s, self._spent_s.get(key, trial.spent_s))
            self._first[key] = trial.samples
            return trial
        # Of a library that hung, no other tuning can go on either.
        is_gone = row.peer != OURS and not self._team.has(row.peer) and row.peer in self._team.absent
        self._running = [c for c in self._running if c is not contender and not (is_gone and c.peer == row.peer)]
        return None

    def _row(self, contender: Contender) -> Row:
        return self._figures.row(contender.peer, contender.variant, contender.group)


def note(row: Row, samples: dict[str, float], ours: dict[str, float]) -> None:
    """Add one call's figures to its row, and their ratios to nbpar's of the same round."""
    for metric, value in samples.items():
        row.samples.setdefault(metric, []).append(value)
        if ours.get(metric):
            row.ratios.setdefault(metric, []).append(value / ours[metric])


def _takes_part(number: int, count: int, n_rounds: int) -> bool:
    return (number + 1) * count // n_rounds > number * count // n_rounds
