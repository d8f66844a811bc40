"""What the text views say, as pieces of text with a style: the job's bar, a row for each worker, and what stays.

Pure: a snapshot and a width in, lines out. Painted by :mod:`~nbpar.views.richtext` in colour, and by
:mod:`~nbpar.views.text` without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nbpar.engine.snapshot import Lane, Snapshot
from nbpar.views import profile, wording
from nbpar.views.table import size

__all__ = ["Piece", "afterword", "bar", "end", "head", "plain", "workers"]

N_FAILURES = 5
N_ADVICE = 3
BAR = 10  # of a worker; that of the job takes the room there is
LEAST_BAR = 8
MOST_BAR = 40


class Piece(NamedTuple):
    """Text in one style: ``name``, ``bar``, ``rest``, ``done``, ``failed``, ``quiet``, ``advice``, or none."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


def plain(line: Line) -> str:
    """A line without its styles."""
    return "".join(piece.text for piece in line)


def head(snapshot: Snapshot, width: int, *, ascii_only: bool = False) -> list[Line]:
    """The job's bar and its figures, in two lines of at most `width` characters."""
    name = _fit(wording.clean(snapshot.name, max(12, width // 3)), width)
    status = "" if snapshot.status == "running" else f" {snapshot.status}"
    first: list[Piece] = [Piece(name, "name"), Piece(status, "failed" if snapshot.n_failed else "quiet")]
    if snapshot.n_tasks:
        share = snapshot.n_done / snapshot.n_tasks
        room = min(MOST_BAR, width - len(name) - len(status) - 6)
        if room >= LEAST_BAR:
            style = "done" if share >= 1 else "bar"
            bad = snapshot.n_failed / snapshot.n_tasks
            first += [Piece(" "), *bar(share, room, style, failed=bad, ascii_only=ascii_only)]
        if room >= 0:
            first.append(Piece(f" {wording.percent(share):>4}"))
    figures = wording.figures(snapshot)
    failed = [figures.pop()] if snapshot.n_failed else []
    # Failures first: what does not fit into the line is cut at its end.
    parts = [Piece(wording.tasks(snapshot)), *(Piece(part, "failed") for part in failed), *map(Piece, figures)]
    second = [piece for part in parts for piece in (Piece(" \N{MIDDLE DOT} ", "quiet"), part)][1:]
    return [_cut(first, width), _cut(second, width)]


def bar(share: float, width: int, style: str = "bar", *, failed: float = 0.0, ascii_only: bool = False) -> Line:
    """A bar of `width` characters that is full at 1, with what has failed at the end of what is done.

    Examples
    --------
    >>> plain(bar(0.5, 8, ascii_only=True))
    '####----'
    """
    full, rest = "\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    if ascii_only:
        full, rest = "#", "-"
    n_full = int(min(1.0, max(0.0, share)) * width)
    n_failed = min(n_full, max(1, round(failed * width))) if failed else 0
    return (
        Piece(full * (n_full - n_failed), style),
        Piece(full * n_failed, "failed"),
        Piece(rest * (width - n_full), "rest"),
    )


def workers(
    snapshot: Snapshot, width: int, n_rows: int, *, with_track: bool = True, ascii_only: bool = False
) -> list[Line]:
    """A row for each living worker, at most `n_rows` of at most `width` characters; what does not fit is counted.

    Parameters
    ----------
    with_track : bool
        Keep a column for the progress within tasks.
    """
    lanes = [lane for lane in snapshot.lanes if lane.alive]
    n_shown = len(lanes) if len(lanes) <= n_rows else max(0, n_rows - 1)
    shown, others = lanes[:n_shown], lanes[n_shown:]
    rows = [_cells(lane, snapshot, with_track=with_track, ascii_only=ascii_only) for lane in shown]
    lines = _aligned(rows, width)
    if others and n_rows > 0:
        busy = sum(lane.busy for lane in others) / len(others)
        lines.append(_cut([Piece(f"  and {len(others):,} more workers, busy {wording.percent(busy)}", "quiet")], width))
    return lines


_Cell = tuple[Piece, ...]
# The columns in their order, and how early each goes when there is no room: the highest first.
_ID, _TRACK, _SHARE, _ITEM, _SINCE, _COUNT, _BUSY, _MEMORY, _CPU = range(9)
_SPARED = (_CPU, _MEMORY, _BUSY, _TRACK, _COUNT, _SHARE, _SINCE, _ITEM)
_TO_THE_RIGHT = (_ID, _SHARE, _SINCE, _COUNT, _BUSY, _MEMORY, _CPU)


def _cells(lane: Lane, snapshot: Snapshot, *, with_track: bool, ascii_only: bool) -> list[_Cell]:
    track: _Cell = ()
    share, since, item = "", "", "waits"
    if lane.current_index is not None:
        item = f"item {lane.current_index:,}"
        since = wording.duration(max(0.0, snapshot.elapsed_s - lane.current_since_s))
        if lane.track is not None:
            n_done, n_total = lane.track
            if n_total:
                track = bar(n_done / n_total, BAR, ascii_only=ascii_only)
            share = wording.percent(min(1.0, n_done / n_total)) if n_total else f"{n_done:,}"
    elif not lane.pid:
        item = "starts"
    elif snapshot.status == "paused":
        item = "pauses"
    if with_track and not track:
        track = (Piece(" " * BAR),)
    usage = lane.usage[-1] if lane.usage else None
    return [
        (Piece(str(lane.worker_id), "name"),),
        track,
        (Piece(f"{share:>4}"),) if with_track else (),
        (Piece(item, "" if since else "quiet"),),
        (Piece(since),),
        (Piece(f"{lane.n_done:,} task" + ("s" if lane.n_done != 1 else " ")),),
        (Piece(f"busy {wording.percent(lane.busy):>4}", "quiet"),),
        (Piece(size(usage.memory_bytes), "quiet"),) if usage else (),
        (Piece(f"cpu {wording.percent(usage.cpu):>4}", "quiet"),) if usage else (),
    ]


def _aligned(rows: Sequence[list[_Cell]], width: int) -> list[Line]:
    if not rows:
        return []
    columns = list(range(len(rows[0])))
    widths = [max(len(plain(row[column])) for row in rows) for column in columns]
    columns = [column for column in columns if widths[column]]
    for spared in _SPARED:
        if sum(widths[column] + 2 for column in columns) <= width:
            break
        columns = [column for column in columns if column != spared]
    lines = []
    for row in rows:
        pieces: list[Piece] = []
        for column in columns:
            gap = Piece(" " * (widths[column] - len(plain(row[column]))))
            to_the_right = column in _TO_THE_RIGHT
            pieces += [Piece("  "), *((gap, *row[column]) if to_the_right else (*row[column], gap))]
        lines.append(_cut(pieces, width))
    return lines


def end(snapshot: Snapshot) -> Line:
    """The one line that stays of a job: tasks, time, gain, failures."""
    figures = wording.figures(snapshot)
    failed = [Piece(" \N{MIDDLE DOT} "), Piece(figures.pop(), "failed")] if snapshot.n_failed else []
    status = "" if snapshot.status == "done" else f" {snapshot.status}"
    text = " \N{MIDDLE DOT} ".join([wording.tasks(snapshot), *figures])
    name = wording.clean(snapshot.name, 60)
    return (Piece(name, "name"), Piece(status, "failed"), Piece(f": {text}"), *failed)


def afterword(snapshot: Snapshot) -> list[Line]:
    """The lines below it: the first failures, and what would have made the job faster."""
    shown = snapshot.failures[:N_FAILURES]
    lines = [
        f"  #{failure.index}  {wording.clean(failure.item_repr, 80)}  {wording.failure_text(failure)}"
        for failure in shown
    ]
    if snapshot.n_failed > len(shown) > 0:
        lines.append(f"  and {snapshot.n_failed - len(shown):,} more")
    if snapshot.profile is not None:
        lines += [f"  {line}" for line in profile.to_lines(snapshot.profile)]
    advice: list[Line] = [
        (Piece(f"  advice: {wording.clean(text, 400)}", "advice"),)
        for text in snapshot.advice[:N_ADVICE]
        if text not in snapshot.aloud  # it stands above already
    ]
    return [*((Piece(line),) for line in lines), *advice]


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "\N{HORIZONTAL ELLIPSIS}"


def _cut(pieces: Sequence[Piece], width: int) -> Line:
    line: list[Piece] = []
    for piece in pieces:
        text = piece.text[: max(0, width)]
        width -= len(text)
        if text:
            line.append(Piece(text, piece.style))
    return tuple(line)
