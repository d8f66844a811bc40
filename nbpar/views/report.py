"""The picture of a job that stays: static HTML with drawings, and the same as text.

Made from one snapshot, without JavaScript, a style sheet or anything to fetch, so that a saved notebook shows it in
Jupyter, in nbconvert and elsewhere. Called by :mod:`nbpar.views.dashboard` and by a job that is the last expression
of a cell. The parts are :mod:`nbpar.views.sections`, the drawings :mod:`nbpar.views.picture`. HTML and text together
stay under 60 KB, whatever the job: this module shares out the room.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from nbpar.engine.insights import Insights
from nbpar.engine.snapshot import Snapshot
from nbpar.views import picture, profile, sections, wording
from nbpar.views.table import aligned, worker_cells
from nbpar.views.wording import clean, escape

__all__ = ["CARD_STYLE", "insights_to_html", "to_html", "to_text"]

HTML_BYTES, TEXT_BYTES = 49_000, 10_000
"""For all of a picture; what a part leaves, the table of workers may have."""

TEXTS_BYTES = 25_000  # what the next five come to, with the markup about them and what is after them
ADVICE_BYTES, NOTES_BYTES, SLOWEST_BYTES = 2_000, 3_000, 2_500
FAILURES_BYTES, TRACEBACKS_BYTES, LEAST_INSIGHTS_BYTES = 6_500, 4_500, 1_200

FEW_LANES = 16  # so many have a row each, with their figures
FOLDED_LANES = 48  # from here on a line is a heat strip; between the two it shows its tasks

COLUMNS, MAX_FAILED_LINES = 100, 20

_LINE = "rgba(128,136,146,0.35)"
_FONT = "font-family:system-ui,-apple-system,sans-serif;font-size:13px;line-height:1.5"
CARD_STYLE = f"border:1px solid {_LINE};border-radius:8px;padding:12px 16px;margin:4px 0;max-width:1080px;{_FONT}"


def to_html(snapshot: Snapshot) -> str:
    """One card: title, status, bar, figures, lanes, advice, durations, the slowest tasks, insights, failures, notes.

    Parameters
    ----------
    snapshot : Snapshot
        Of a job that runs or has ended.

    Returns
    -------
    str
        A well-formed ``<div>`` of at most 49 KB, the same for the same snapshot.

    Examples
    --------
    >>> job = Snapshot(1, "map f", "done", 2, 2, 0, 1.0, 2.0, None, 0, ())
    >>> "2 of 2 tasks" in to_html(job)
    True
    """
    told = Insights.of(snapshot)
    parts = [
        f'<div style="{CARD_STYLE}">',
        f"<div><strong>{escape(snapshot.name)}</strong>",
        f'<span style="float:right">{sections.chip(snapshot.status, snapshot.status)}</span></div>',
        picture.bar(snapshot),
        f'<div style="margin-bottom:9px">{_figures(snapshot)}</div>',
        *_lanes(snapshot),
    ]
    share = min(1.0, _left(parts) / TEXTS_BYTES)  # less for each where the lanes take much

    def room(n_bytes: int) -> int:
        return int(n_bytes * share)

    parts += sections.boxes(snapshot.advice, room(ADVICE_BYTES), advice=True)
    if snapshot.n_failed:
        parts.append(sections.failures(snapshot, room(FAILURES_BYTES), room(TRACEBACKS_BYTES)))
    after = [
        *sections.boxes(snapshot.notes, room(NOTES_BYTES), advice=False),
        sections.durations(snapshot, told),
        sections.slowest(snapshot.slowest, room(SLOWEST_BYTES)),
    ]
    if snapshot.profile is not None:
        most = _left([*parts, *after]) - LEAST_INSIGHTS_BYTES
        parts.append(profile.to_html(snapshot.profile, min(profile.HTML_BYTES, most)))
    parts += [*after, sections.insights(told, _left([*parts, *after])), "</div>"]
    return "\n".join(part for part in parts if part)


def _left(parts: list[str]) -> int:
    """Bytes that there is room for beside these parts."""
    return HTML_BYTES - sum(len(part.encode()) + 1 for part in parts) - len("</div>")


def insights_to_html(told: Insights) -> str:
    """A job's insights alone: title, how much was gained, durations, the slowest tasks, the table of workers.

    Examples
    --------
    >>> job = Snapshot(1, "map f", "done", 2, 2, 0, 1.0, 2.0, None, 0, ())
    >>> "map f" in insights_to_html(Insights.of(job))
    True
    """
    gain = f"{told.speedup:.1f}\N{MULTIPLICATION SIGN} serial: {wording.duration(told.serial_s)} in tasks"
    words = sections.duration_words(told)
    parts = [
        f'<div style="{CARD_STYLE}">',
        f"<div><strong>{escape(told.name)}</strong>",
        f'<span style="float:right">{sections.chip(told.status, told.status)}</span></div>',
        f"<div>{gain} in {wording.duration(told.elapsed_s)}</div>",
        f"<div>a task took: {words}</div>" if words else "",
        sections.slowest(told.slowest, SLOWEST_BYTES),
        sections.insights(told, HTML_BYTES - 8_000, is_open=True),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _figures(snapshot: Snapshot) -> str:
    texts = [
        sections.chip(text, "failed") if text.endswith(" failed") else f"<span>{escape(text)}</span>"
        for text in wording.figures(snapshot)
    ]
    return " &#183; ".join([f"<strong>{escape(wording.tasks(snapshot))}</strong>", *texts])


def _lanes(snapshot: Snapshot) -> list[str]:
    n_lanes = len(snapshot.lanes)
    if not n_lanes:
        return []
    if n_lanes <= FEW_LANES:
        return [sections.few_lanes(snapshot)]
    return [sections.many_lanes(snapshot, folded=n_lanes >= FOLDED_LANES)]


# --- as text ----------------------------------------------------------------------------------------------------------


def to_text(snapshot: Snapshot) -> str:
    """The same in lines of at most 100 columns: title and figures, advice, notes, workers, durations, failures.

    Examples
    --------
    >>> print(to_text(Snapshot(1, "map f", "done", 2, 2, 0, 1.0, 2.0, None, 0, ())))
    map f: done, 2 of 2 tasks, 2.0 /s, took 1.0 s
    """
    told = Insights.of(snapshot)
    head = ", ".join([snapshot.status, wording.tasks(snapshot), *wording.figures(snapshot)])
    lines = textwrap.wrap(f"{clean(snapshot.name, 60)}: {head}", COLUMNS, subsequent_indent="  ")
    lines += sections.within(TEXT_BYTES // 5, _sentences("advice", snapshot.advice))
    lines += _failed_lines(snapshot)
    if snapshot.profile is not None:
        lines += sections.within(TEXT_BYTES // 5, map(_line, profile.to_lines(snapshot.profile)))
    lines += sections.within(TEXT_BYTES // 5, _sentences("note", snapshot.notes))
    if told.durations is not None:
        lines.append(_line(f"durations: {sections.duration_words(told)}"))
    lines += sections.within(TEXT_BYTES // 8, _slowest_lines(told))
    lines += _sentences("insights", filter(None, [sections.where_time_went(told)]))
    if told.workers:
        lines += _worker_lines(told, TEXT_BYTES - sum(len(line.encode()) + 1 for line in lines))
    return "\n".join(lines)


def _sentences(kind: str, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        line = f"{kind}: {clean(text, 400)}"
        yield "\n".join(textwrap.wrap(line, COLUMNS, initial_indent="  ", subsequent_indent="    "))


def _slowest_lines(told: Insights) -> Iterator[str]:
    for one in told.slowest:
        took = wording.fine_duration(one.duration_s)
        yield _line(f"slowest: {took}, #{one.task_index} {clean(one.item_repr, 60)}, worker {one.worker_id}")


def _failed_lines(snapshot: Snapshot) -> list[str]:
    texts = (
        _line(f"#{failure.index} {clean(failure.item_repr, 60)}: {wording.failure_text(failure)}")
        for failure in snapshot.failures[:MAX_FAILED_LINES]
    )
    lines = list(sections.within(TEXT_BYTES // 5, texts))
    if snapshot.n_failed > len(lines) > 0:
        lines.append(f"  and {snapshot.n_failed - len(lines):,} more failed")
    return lines


def _worker_lines(told: Insights, n_bytes: int) -> list[str]:
    """A line for each worker, as many as fit; columns that there is no room for are left out."""
    lines: list[str] = []
    for n_dropped in range(len(sections.DROPPABLE) + 1):
        lines = [f"  {line}" for line in aligned(worker_cells(told.workers, without=sections.DROPPABLE[:n_dropped]))]
        if len(lines[0]) <= COLUMNS and (len(lines[0]) + 1) * len(lines) <= n_bytes:
            return lines
    shown = list(sections.within(n_bytes - 80, (line[:COLUMNS] for line in lines)))
    more = len(lines) - len(shown)
    return [*shown, f"  {sections.and_more(more)}"] if more else shown


def _line(text: str) -> str:
    """An indented line, cut where it is too long."""
    text = text.replace("\t", " ").replace("\r", " ")
    return "  " + (text if len(text) <= COLUMNS - 2 else text[: COLUMNS - 3] + "\N{HORIZONTAL ELLIPSIS}")
