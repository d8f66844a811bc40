"""What ``--dry-run`` shows: a cell as tasks, before anything of it has run; as text and as plain HTML.

Owns :class:`Plan` and its two pictures, in the style of those of a job (:mod:`nbpar.views.report`). Made by
:mod:`nbpar.notebook.dry_run`, shown by :mod:`nbpar.notebook.magics`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from nbpar.notebook.baggage import Baggage, Piece
from nbpar.views.report import CARD_STYLE
from nbpar.views.sections import FAINT, chip
from nbpar.views.table import size
from nbpar.views.wording import clean, escape

__all__ = ["Effect", "Line", "Plan"]

COLUMNS, MAX_LINES, MAX_PIECES = 100, 200, 40

_TABLE = "table-layout:auto;border:0;border-collapse:collapse;margin:2px 0"
_ROW = '<tr style="background:none">'
_LEFT = "padding:1px 14px 1px 0;text-align:left;font-weight:normal;vertical-align:top"
_RIGHT = "padding:1px 14px 1px 0;text-align:right;font-weight:normal;white-space:nowrap"
_MARK = "border-left:3px solid #3b76c4;background:rgba(59,118,196,0.13);padding:0 0 0 8px"
_NO_MARK = "border-left:3px solid rgba(0,0,0,0);padding:0 0 0 8px"
_CODE = "background:none;padding:0;font-size:12px"
_HEADING = "margin:8px 0 2px 0"
_REFUSED = "margin:6px 0;padding:3px 12px;border-left:3px solid #c0392b;background:rgba(192,57,43,0.12)"

_NONE = Baggage()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the task as the user wrote it; `is_effect` when the notebook does part of it."""

    number: int
    text: str
    is_effect: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """A statement that is recorded in the worker and done in the notebook."""

    line: int
    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would run, and what stands in the way.

    Attributes
    ----------
    header : str
        ``for x in xs``, ``each x in xs``, or the comprehension.
    n_items : int or None
        None when it is not known without running something.
    n_workers : int
    lines : tuple of Line
        The task.
    result : str
        A sentence on what the cell gives; of a loop nothing.
    effects : tuple of Effect
        In the order of the text.
    kept : tuple of str
        Names that have their last values afterwards.
    serial : tuple of tuple of int
        First and last line of each stretch that runs in the notebook.
    baggage : Baggage
    made : tuple of str
        Names that code before the loop makes: what they will be is not known yet.
    refusals : tuple of str
        Why it would be refused, as it would be said.
    """

    header: str
    n_items: int | None
    n_workers: int
    lines: tuple[Line, ...] = ()
    result: str = ""
    effects: tuple[Effect, ...] = ()
    kept: tuple[str, ...] = ()
    serial: tuple[tuple[int, int], ...] = ()
    baggage: Baggage = _NONE
    made: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join(_text(self))

    def _repr_html_(self) -> str:
        return _html(self)


# --- words of both ----------------------------------------------------------------------------------------------------

_EFFECTS = "recorded in the worker, done in the notebook in the loop's order"
_BRINGS = "what a task brings to its worker"


def _figures(plan: Plan) -> str:
    n = plan.n_items
    items = "as many items as the iterable gives" if n is None else f"{n:,} item{'' if n == 1 else 's'}"
    return f"{items}, {plan.n_workers} worker{'' if plan.n_workers == 1 else 's'}"


def _notes(plan: Plan) -> list[str]:
    """Sentences below the task."""
    notes = [plan.result] if plan.result else []
    if plan.serial:
        spans = [f"line {first}" if first == last else f"lines {first} to {last}" for first, last in plan.serial]
        notes.append(f"In the notebook, as ever: {' and '.join(spans)}.")
    if plan.kept:
        one = len(plan.kept) == 1
        notes.append(
            f"Set afterwards, as by the serial loop: {', '.join(plan.kept)} (the last value{'s' * (not one)})."
        )
    if plan.made:
        notes.append(f"Made by the code before the loop, so not looked at: {', '.join(plan.made)}.")
    if plan.baggage.missing:
        notes.append(f"Not defined now: {', '.join(plan.baggage.missing)}.")
    return notes


def _total(pieces: Sequence[Piece]) -> str:
    whole = sum(piece.size_bytes or 0 for piece in pieces)
    shared = sum(piece.shared_bytes for piece in pieces)
    is_least = any(piece.is_least or piece.size_bytes is None for piece in pieces)
    text = f"{'at least ' if is_least else ''}{size(whole)}"
    if shared:
        text += ", in shared memory" if shared > 0.995 * whole else f", of which {size(shared)} in shared memory"
    return text


def _size(piece: Piece) -> str:
    if piece.problem or piece.size_bytes is None:
        return "?"
    return f"{'over ' if piece.is_least else ''}{size(piece.size_bytes)}"


def _remark(piece: Piece) -> str:
    if piece.problem:
        return piece.problem
    parts = ["shared memory"] if piece.shared_bytes else []
    if piece.used_by:
        parts.append(f"used by {piece.used_by}")
    return ", ".join(parts)


# --- as text ----------------------------------------------------------------------------------------------------------


def _text(plan: Plan) -> list[str]:
    lines = [f"dry run, nothing has run: {clean(plan.header, 200)}", f"  {_figures(plan)}"]
    for refusal in plan.refusals:
        first, *more = refusal.split("\n")
        lines += ["", *_wrapped(f"would be refused: {first}", "  "), *(f"  {line}" for line in more)]
    if plan.lines:
        lines += ["", "the task, once for each item"]
        width = len(str(plan.lines[-1].number))
        for line in plan.lines[:MAX_LINES]:
            lines.append(f"  {line.number:>{width}} {'*' if line.is_effect else ' '} {line.text}".rstrip())
        if len(plan.lines) > MAX_LINES:
            lines.append(f"  and {len(plan.lines) - MAX_LINES:,} more lines")
    if plan.effects:
        lines += ["", f"effects (*), {_EFFECTS}"]
        width = len(str(max(effect.line for effect in plan.effects)))
        for effect in plan.effects:
            kind = f"   ({effect.kind})" if effect.kind else ""
            lines.append(f"  line {effect.line:>{width}}   {clean(effect.text, 120)}{kind}")
    if notes := _notes(plan):
        lines += ["", *(line for note in notes for line in _wrapped(note, "  "))]
    lines += _text_of_baggage(plan.baggage)
    return lines


def _text_of_baggage(baggage: Baggage) -> list[str]:
    lines: list[str] = []
    pieces = baggage.pieces
    if pieces:
        lines += ["", f"{_BRINGS}: {_total(pieces)}"]
        shown = [(clean(one.name, 40), _size(one), clean(one.kind, 50), _remark(one)) for one in pieces[:MAX_PIECES]]
        widths = [max(len(row[column]) for row in shown) for column in range(3)]
        for name, size_, kind, remark in shown:
            row = f"  {name.ljust(widths[0])}  {size_.rjust(widths[1])}  {kind.ljust(widths[2])}"
            lines.append(f"{row}  {clean(remark, 300)}".rstrip())
        if len(pieces) > MAX_PIECES:
            lines.append(f"  and {len(pieces) - MAX_PIECES} smaller ones")
    if baggage.imported:
        lines += ["", *_wrapped(f"imported there: {', '.join(baggage.imported)}", "  ")]
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent=indent, break_long_words=False) or [""]


# --- as HTML ----------------------------------------------------------------------------------------------------------


def _html(plan: Plan) -> str:
    status = chip("would be refused", "failed") if plan.refusals else chip("dry run", "cancelled")
    parts = [
        f'<div style="{CARD_STYLE}">',
        f'<div><strong>{escape(plan.header, 200)}</strong><span style="float:right">{status}</span></div>',
        f'<div style="{FAINT}">{_figures(plan)}; nothing has run</div>',
    ]
    for refusal in plan.refusals:
        first, _, more = refusal.partition("\n")
        below = f'<pre style="background:none;margin:2px 0;font-size:12px">{_code(more)}</pre>' if more else ""
        parts.append(f'<div style="{_REFUSED}">{_sentence(first)}{below}</div>')
    parts += _html_of_lines(plan)
    if plan.effects:
        rows = "".join(
            f'{_ROW}<td style="{_RIGHT};{FAINT}">{effect.line}</td>'
            f'<td style="{_LEFT}">{_span(effect.text)}</td><td style="{_LEFT};{FAINT}">{escape(effect.kind)}</td></tr>'
            for effect in plan.effects
        )
        parts.append(f'<div style="{_HEADING}"><strong>Effects</strong> {_EFFECTS}</div>')
        parts.append(f'<table style="{_TABLE}">{rows}</table>')
    parts += [f'<div style="margin:4px 0">{_sentence(note)}</div>' for note in _notes(plan)]
    parts += _html_of_baggage(plan.baggage)
    return "\n".join([*parts, "</div>"])


def _html_of_lines(plan: Plan) -> list[str]:
    if not plan.lines:
        return []
    width = len(str(plan.lines[-1].number))
    rows = [
        f'<div style="{_MARK if line.is_effect else _NO_MARK}">'
        f'<span style="{FAINT}">{line.number:>{width}}</span>  {_code(line.text) or " "}</div>'
        for line in plan.lines[:MAX_LINES]
    ]
    if len(plan.lines) > MAX_LINES:
        rows.append(f"<div>and {len(plan.lines) - MAX_LINES:,} more lines</div>")
    return [
        f'<div style="{_HEADING}"><strong>The task</strong> once for each item</div>',
        f'<pre style="background:none;margin:0;font-size:12px;line-height:1.5;overflow-x:auto">{"".join(rows)}</pre>',
    ]


def _html_of_baggage(baggage: Baggage) -> list[str]:
    parts: list[str] = []
    pieces = baggage.pieces
    if pieces:
        rows = "".join(
            f'{_ROW}<th scope="row" style="{_LEFT}">{_span(piece.name)}</th>'
            f'<td style="{_RIGHT}">{_size(piece)}</td><td style="{_LEFT}">{escape(piece.kind, 60)}</td>'
            f'<td style="{_LEFT};{FAINT}">{escape(_remark(piece), 400)}</td></tr>'
            for piece in pieces[:MAX_PIECES]
        )
        title = f"{_BRINGS[0].upper()}{_BRINGS[1:]}"
        parts.append(f'<div style="{_HEADING}"><strong>{title}</strong> {_total(pieces)}</div>')
        parts.append(f'<table style="{_TABLE}">{rows}</table>')
        if len(pieces) > MAX_PIECES:
            parts.append(f"<div>and {len(pieces) - MAX_PIECES} smaller ones</div>")
    if baggage.imported:
        parts.append(f'<div style="{FAINT}">imported there: {escape(", ".join(baggage.imported), 1000)}</div>')
    return parts


def _sentence(text: str) -> str:
    """Text with what stands in backquotes set as code."""
    return re.sub("`([^`]+)`", rf"<code style=\"{_CODE}\">\1</code>", escape(text, 2000))


def _code(text: str) -> str:
    return escape(text, 4000, multiline=True)


def _span(text: str) -> str:
    return f'<code style="{_CODE}">{escape(text, 120)}</code>'
