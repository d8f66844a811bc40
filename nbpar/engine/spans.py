"""A lane's stretches of work: merged, as they come, to what a screen can tell apart, and kept as plain numbers.

Pure. :mod:`nbpar.engine.lanes` adds what has ended; a :class:`~nbpar.engine.snapshot.Lane` has it frozen. The numbers
are those of the dashboard's messages, and dashboard.js merges by the same rule, so that only what is new has to be
sent, also when a step becomes wider.

::

    Steps (one for a job) ── wider: coarsen ──┐
    tasks that ended ── add ──> GrowingSpans: N_FIELDS numbers each ── freeze ──> Spans ── a sequence of Span ──> views
                                                                                      └─── since(known) ──> the card

Times are whole numbers of :data:`UNITS_PER_S`. Two neighbours are merged when both together are no wider than a step;
so any two that follow one another are wider, and a lane has at most twice as many spans as steps. Counts and bytes add
up; a failure stays in the span it is merged into.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import overload

from nbpar.engine.snapshot import Span

__all__ = ["MOST_STEPS", "N_FIELDS", "N_STEPS", "UNITS_PER_S", "GrowingSpans", "Spans", "Steps", "step_for", "units"]

UNITS_PER_S = 1_000_000
"""1 us: a job is drawn again whenever the user asks for it, however short it was."""

LATEST = 1 << 53
"""Three hundred years; the last whole number that JavaScript has."""

N_FIELDS = 10
"""Numbers of a span: begin, end, first, last, tasks, failed, work, tone, sent, received.

`work` is the time in tasks: less than the width where gaps were merged. `tone` is 0 or 1, in turn.
"""

N_STEPS = 512
LEAST_STEPS = 64
"""Steps of a lane at most, about as many as it has pixels, and at least."""

MOST_STEPS = 24_000
"""Of all lanes of a job together: with many of them a step is several pixels, and all spans at once are 1 MB or so."""

_pack = Struct(f"{N_FIELDS}q").pack


def units(seconds: float) -> int:
    """A time from the job's start as a whole number; what is not finite is 0, for JSON has no NaN."""
    return min(LATEST, int(seconds * UNITS_PER_S + 0.5)) if math.isfinite(seconds) else 0


def step_for(elapsed: int, n_steps: int, least: int = 1) -> int:
    """The smallest power of two, `least` or more, of which `n_steps` cover `elapsed`.

    Examples
    --------
    >>> step_for(1000, 600), step_for(1200, 600), step_for(1201, 600), step_for(5, 600, least=4)
    (2, 2, 4, 4)
    """
    step = least
    while step * n_steps < elapsed:
        step *= 2
    return step


class Spans(Sequence[Span]):
    """A lane's spans as they were at a moment: a look at numbers that only grow, and the last span as it was then.

    Attributes
    ----------
    step : int
        What neighbours were merged by.
    """

    __slots__ = ("_all", "_before", "_last", "_numbers", "step")

    def __init__(self, numbers: array[int], step: int) -> None:
        self._numbers = numbers
        self._before = max(0, len(numbers) - N_FIELDS)  # numbers before those of the last span
        self._last = numbers[self._before :]  # may still grow
        self._all: tuple[Span, ...] | None = None
        self.step = step

    @classmethod
    def of(cls, spans: Iterable[Span]) -> Spans:
        """Such as were not merged here."""
        growing = GrowingSpans(Steps())
        for span in spans:
            growing.add(*span)
        return growing.freeze()

    def since(self, known: Spans) -> tuple[int, array[int]]:
        """What is new to one that has those, merged by the step as it is now: how many to keep, and the others."""
        numbers, at = self._numbers, 0
        if known._last:
            if known._numbers is numbers:
                at = known._before
                if self._before > at and numbers[at : at + N_FIELDS] == known._last:
                    at += N_FIELDS
            elif self.step == 2 * known.step:
                # What the known last one is in may be another one by now, and with it the one before, which might have
                # taken it in. By more than one doubling at a time the two sides would not come to the same.
                at, begin = self._before, known._last[0]
                while at > 0 and numbers[at + 1] >= begin:
                    at -= N_FIELDS
        return at // N_FIELDS, numbers[at : self._before] + self._last

    def _made(self) -> tuple[Span, ...]:
        made = self._all
        if made is None:
            numbers = self._numbers[: self._before] + self._last
            made = self._all = tuple(_span(numbers, at) for at in range(0, len(numbers), N_FIELDS))
        return made

    def __len__(self) -> int:
        return (self._before + len(self._last)) // N_FIELDS

    def __iter__(self) -> Iterator[Span]:
        return iter(self._made())

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Span, ...]: ...
    def __getitem__(self, index: int | slice) -> Span | tuple[Span, ...]:
        if index == -1 and self._last:
            return _span(self._last, 0)  # asked for in each look for advice
        return self._made()[index]


def _span(numbers: array[int], at: int) -> Span:
    begin, end, first, last, n_tasks, n_failed, _, _, sent, received = numbers[at : at + N_FIELDS]
    return Span(begin / UNITS_PER_S, end / UNITS_PER_S, first, last, n_tasks, n_failed, sent, received)


class Steps:
    """How finely the lanes of one job tell spans apart: all by the same step, which grows with the job.

    Attributes
    ----------
    step : int
        As it is now, a power of two.
    covered : int
        The time that it is fine enough for.
    """

    __slots__ = ("_lanes", "_n_steps", "covered", "step")

    def __init__(self) -> None:
        self.step = 1
        self._n_steps = N_STEPS
        self.covered = N_STEPS
        self._lanes: list[GrowingSpans] = []

    def lane(self) -> GrowingSpans:
        """The spans of one more lane."""
        lane = GrowingSpans(self)
        self._lanes.append(lane)
        if N_STEPS * len(self._lanes) > MOST_STEPS:
            self._n_steps = max(LEAST_STEPS, MOST_STEPS // len(self._lanes))
            self.covered = self.step * self._n_steps
        return lane

    def cover(self, end: int) -> None:
        """Make them as wide as a job of this length needs."""
        step = step_for(end, self._n_steps, self.step)
        self.covered = step * self._n_steps
        if step != self.step:
            self.step = step
            for lane in self._lanes:
                lane.coarsen(step)


class GrowingSpans:
    """One lane's spans. Their list only grows, but for its last span, until a wider step makes another one."""

    __slots__ = ("_frozen", "_numbers", "_steps")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        # Not a list: what a tick reads lies in a row, a slice is a copy of bytes, and a full collection of garbage does
        # not look at it.
        self._numbers = array("q")
        self._frozen: Spans | None = None  # None when it has to be made anew

    def add(  # noqa: PLR0917  # a call with names takes longer
        self,
        begin_s: float,
        end_s: float,
        first: int,
        last: int,
        n_tasks: int,
        n_failed: int = 0,
        sent: int = 0,
        received: int = 0,
    ) -> None:
        """One more, of the fields of a :class:`~nbpar.engine.snapshot.Span`."""
        # There may be thousands a second: 1 us each.
        try:
            begin, end = int(begin_s * UNITS_PER_S + 0.5), int(end_s * UNITS_PER_S + 0.5)
        except (ValueError, OverflowError):  # not finite
            begin, end = units(begin_s), units(end_s)
        steps = self._steps
        if end > steps.covered:
            begin, end = min(begin, LATEST), min(end, LATEST)
            steps.cover(end)
        numbers = self._numbers
        self._frozen = None
        if not numbers:
            end = max(begin, end)
            numbers.frombytes(_pack(begin, end, first, last, n_tasks, n_failed, end - begin, 0, sent, received))
            return
        before_end = numbers[-9]
        if begin < before_end:  # noqa: PLR1730  # calls of max and min would take as long as a third of all this
            begin = before_end
        if end < begin:  # noqa: PLR1730
            end = begin
        if end - numbers[-10] > steps.step:
            tone = 1 - numbers[-3]
            numbers.frombytes(_pack(begin, end, first, last, n_tasks, n_failed, end - begin, tone, sent, received))
            return
        numbers[-9] = end
        if first < numbers[-8]:  # noqa: PLR1730
            numbers[-8] = first
        if last > numbers[-7]:  # noqa: PLR1730
            numbers[-7] = last
        numbers[-6] += n_tasks
        numbers[-4] += end - begin
        if n_failed:
            numbers[-5] += n_failed
        if sent or received:
            numbers[-2] += sent
            numbers[-1] += received

    def coarsen(self, step: int) -> None:
        """Merge what `step` no longer keeps apart."""
        numbers = self._numbers
        merged = numbers[:N_FIELDS]
        for at in range(N_FIELDS, len(numbers), N_FIELDS):
            end = numbers[at + 1]
            if end - merged[-N_FIELDS] > step:
                merged += numbers[at : at + N_FIELDS]
                continue
            _, _, first, last, n_tasks, n_failed, work, _, sent, received = numbers[at : at + N_FIELDS]
            merged[-9] = end
            merged[-8] = min(merged[-8], first)
            merged[-7] = max(merged[-7], last)
            merged[-6] += n_tasks
            merged[-5] += n_failed
            merged[-4] += work
            merged[-2] += sent
            merged[-1] += received
        self._numbers = merged
        self._frozen = None

    def freeze(self) -> Spans:
        """As they are now: the same object while nothing is added."""
        frozen = self._frozen
        if frozen is None:
            frozen = self._frozen = Spans(self._numbers, self._steps.step)
        return frozen
