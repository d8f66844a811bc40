"""Spans of a lane merged to what a screen can show, so that ten million tasks weigh what ten thousand do.

Pure; :mod:`~nbpar.views.scene` keeps one :class:`Marks` per lane, and dashboard.js keeps its twin: both merge by the
same rule on the same whole numbers, so that only what is new has to be sent, also when a pixel becomes wider.

::

    Lane.spans ── take: only the new ones ──> marks ── coarsen, when a pixel has come to mean more time
                                                 └──── (kept, numbers) ──> the front end: marks[:kept] + numbers

Times are whole numbers of :data:`UNITS_PER_S`. Two neighbours are merged when both together are no wider than `step`;
so any two that follow one another are wider, and a lane has at most twice as many marks as steps. Counts add up; a
failure stays in the mark it is merged into.
"""

from __future__ import annotations

import math

from nbpar.engine.snapshot import Span

__all__ = ["N_FIELDS", "UNITS_PER_S", "Marks", "step_for", "units"]

UNITS_PER_S = 100_000
"""10 us: finer than a pixel of any job that is drawn, and few digits."""

N_FIELDS = 10
"""Numbers in a mark: begin, end, first, last, tasks, failed, work, tone, sent, received.

`work` is the time in tasks: less than the width where gaps were merged. `tone` is 0 or 1, in turn.
"""

Mark = list[int]


def units(seconds: float) -> int:
    """A time from the job's start as a whole number; what is not finite is 0, for JSON has no NaN."""
    return int(seconds * UNITS_PER_S + 0.5) if math.isfinite(seconds) else 0


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


class Marks:
    """One lane's spans, merged."""

    __slots__ = ("_kept", "_known", "_marks")

    def __init__(self) -> None:
        self._marks: list[Mark] = []
        self._known: tuple[Span, ...] = ()  # the spans that the marks stand for
        self._kept = 0  # marks that the front end has

    def __len__(self) -> int:
        return len(self._marks)

    def coarsen(self, step: int) -> None:
        """Merge what `step` no longer keeps apart; the front end does the same when it hears of it."""
        merged: list[Mark] = []
        for mark in self._marks:
            if merged and mark[1] - merged[-1][0] <= step:
                last = merged[-1]
                last[1] = mark[1]
                last[2] = min(last[2], mark[2])
                last[3] = max(last[3], mark[3])
                for field in (4, 5, 6, 8, 9):
                    last[field] += mark[field]
            else:
                merged.append(mark)
        self._marks = merged
        self._kept = len(merged)

    def take(self, spans: tuple[Span, ...], step: int) -> None:
        """Add what is new in `spans`: a lane's own, longer than before or with neighbours merged."""
        known = self._known
        if spans is known:
            return
        n_known = len(known)
        if not n_known:
            self._rebuild(spans, step)
        elif len(spans) >= n_known and (spans[n_known - 1] is known[-1] or spans[n_known - 1] == known[-1]):
            self._add(spans[n_known:], step)
        else:
            self._catch_up(spans, step)
        self._known = spans

    def news(self) -> tuple[int, list[int]]:
        """How many marks the front end may keep, and the numbers of those that follow; then it knows all."""
        kept, self._kept = self._kept, len(self._marks)
        return kept, [number for mark in self._marks[kept:] for number in mark]

    def all(self) -> list[int]:
        """The numbers of all marks."""
        return [number for mark in self._marks for number in mark]

    def _rebuild(self, spans: tuple[Span, ...], step: int) -> None:
        self._marks = []
        self._kept = 0
        self._add(spans, step)

    def _add(self, spans: tuple[Span, ...], step: int) -> None:
        # 400 spans a tick come through here when 64 workers run short tasks: 1 us each is what there is.
        marks, kept = self._marks, self._kept
        for begin_s, end_s, first, last, n_tasks, n_failed, sent, received in spans:
            try:
                begin, end = int(begin_s * UNITS_PER_S + 0.5), int(end_s * UNITS_PER_S + 0.5)
            except (ValueError, OverflowError):  # not finite
                begin, end = units(begin_s), units(end_s)
            before = marks[-1] if marks else None
            if before is not None and begin < before[1]:
                begin = before[1]  # a span that was merged with one known already
            if end < begin:  # noqa: PLR1730  # a call of max would take as long as half of this loop
                end = begin
            if before is not None and end - before[0] <= step:
                before[1] = end
                if first < before[2]:  # noqa: PLR1730
                    before[2] = first
                if last > before[3]:  # noqa: PLR1730
                    before[3] = last
                before[4] += n_tasks
                before[5] += n_failed
                before[6] += end - begin
                before[8] += sent
                before[9] += received
                if kept == len(marks):
                    kept -= 1
            else:
                tone = 0 if before is None else 1 - before[7]
                marks.append([begin, end, first, last, n_tasks, n_failed, end - begin, tone, sent, received])
        self._kept = kept

    def _catch_up(self, spans: tuple[Span, ...], step: int) -> None:
        """Neighbours were merged, perhaps a known one with a new one. A merged span keeps its first's begin."""
        known = self._known
        end_s, at = known[-1].end_s, len(spans)
        while at and spans[at - 1].end_s > end_s:
            at -= 1
        if at and spans[at - 1].end_s == end_s:
            self._add(spans[at:], step)
            return
        if at < len(spans):
            both, i = spans[at], len(known)
            while i and known[i - 1].begin_s >= both.begin_s:
                i -= 1
            inside = known[i:]
            if inside and inside[0].begin_s == both.begin_s:
                new = both._replace(
                    n_tasks=both.n_tasks - sum(span.n_tasks for span in inside),
                    n_failed=both.n_failed - sum(span.n_failed for span in inside),
                    sent_bytes=both.sent_bytes - sum(span.sent_bytes for span in inside),
                    received_bytes=both.received_bytes - sum(span.received_bytes for span in inside),
                )
                if min(new.n_tasks, new.n_failed, new.sent_bytes, new.received_bytes) >= 0:
                    self._add((new, *spans[at + 1 :]), step)
                    return
        self._rebuild(spans, step)  # not the lane that it was
