"""Where the tasks' time went, drawn: the hot lines and the call tree of a profiled job, as HTML and as text.

Called by :mod:`nbpar.views.report` and :mod:`nbpar.views.text`. Plain HTML that needs no style to be read: the bars are
text.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbpar.engine.snapshot import HotLine, Profile
from nbpar.views.wording import clean, duration, escape

__all__ = ["NOTHING_SEEN", "to_html", "to_lines"]

HTML_BYTES = 12_000
BAR_LENGTH = 14
MAX_TEXT_LINES, MAX_TEXT_TREE = 8, 16
_EIGHTHS = " \N{LEFT ONE EIGHTH BLOCK}\N{LEFT ONE QUARTER BLOCK}\N{LEFT THREE EIGHTHS BLOCK}\N{LEFT HALF BLOCK}"
_EIGHTHS += "\N{LEFT FIVE EIGHTHS BLOCK}\N{LEFT THREE QUARTERS BLOCK}\N{LEFT SEVEN EIGHTHS BLOCK}"

NOTHING_SEEN = "the tasks were too short: it looks once in a millisecond"

_CELL = "border:0;padding:0 10px 0 0;text-align:left;vertical-align:middle;white-space:nowrap"
_ROW = '<tr style="background:none">'
_CODE = "background:none;padding:0;white-space:pre;font-size:12px"


def to_html(profile: Profile, n_bytes: int = HTML_BYTES) -> str:
    """A part of the page: the lines in a table, hottest first, the tree folded under it.

    Parameters
    ----------
    profile : Profile
        Of a job that has ended.
    n_bytes : int
        What there is room for; of less than 1 KB, the sum alone is said.

    Returns
    -------
    str
        A well-formed ``<div>`` of at most that.

    Examples
    --------
    >>> line = HotLine("cell 3", 2, "y = step(x)", 0.75)
    >>> "cell 3, line 2" in to_html(Profile(1.0, 900, (line,), ""))
    True
    """
    parts = [f'<div style="margin-top:8px"><div><strong>Profile</strong>: {escape(_head(profile))}</div>']
    half = (n_bytes - 800) // 2
    rows = list(_within(half, (_row(line) for line in profile.lines)))
    if rows:
        style = "table-layout:auto;border:0;border-collapse:collapse;margin:2px 0"
        table = f'<table style="{style}">{"".join(rows)}</table>'
        parts.append(f'<div style="overflow-x:auto">{table}</div>')
    tree = "\n".join(_within(half, (escape(row, 200, multiline=True) for row in profile.tree.split("\n"))))
    if tree:
        parts.append(
            "<details><summary>call tree</summary>"
            f'<pre style="background:none;font-size:12px;overflow-x:auto;margin:0">{tree}</pre></details>'
        )
    parts.append("</div>")
    return "\n".join(parts)


def to_lines(profile: Profile) -> Iterator[str]:
    r"""The same as text, a row at a time: the hottest lines, and the upper part of the tree.

    Examples
    --------
    >>> line = HotLine("cell 3", 2, "y = step(x)", 0.75)
    >>> print(*to_lines(Profile(1.0, 900, (line,), "1.00 s  100%  f  cell 3:1")), sep="\n")
    profile: 1.0 s in tasks, 900 samples
       75%  cell 3, line 2:  y = step(x)
      1.00 s  100%  f  cell 3:1
    """
    yield f"profile: {_head(profile)}"
    for line in profile.lines[:MAX_TEXT_LINES]:
        yield f"  {100 * line.share:3.0f}%  {_place(line)}:  {clean(line.source, 60)}"
    rows = profile.tree.split("\n") if profile.tree else []
    for row in rows[:MAX_TEXT_TREE]:
        yield "  " + clean(row, 98, multiline=True)
    if len(rows) > MAX_TEXT_TREE:
        yield f"  and {len(rows) - MAX_TEXT_TREE} more rows in the job's profile"


def _head(profile: Profile) -> str:
    if not profile.n_samples:
        return NOTHING_SEEN
    return f"{duration(profile.duration_s)} in tasks, {profile.n_samples:,} samples"


def _place(line: HotLine) -> str:
    return f"{clean(line.place, 60)}, line {line.line}"


def _row(line: HotLine) -> str:
    return (
        f'{_ROW}<td style="{_CELL};text-align:right">{100 * line.share:.0f}%</td>'
        f'<td style="{_CELL}"><code style="{_CODE};color:#d9691e">{_bar(line.share)}</code></td>'
        f'<td style="{_CELL}">{escape(_place(line))}</td>'
        f'<td style="{_CELL}"><code style="{_CODE}">{escape(line.source, 100)}</code></td></tr>'
    )


def _bar(share: float) -> str:
    whole, part = divmod(round(min(1.0, max(0.0, share)) * BAR_LENGTH * 8), 8)
    return "\N{FULL BLOCK}" * whole + (_EIGHTHS[part] if part else "")


def _within(n_bytes: int, pieces: Iterator[str]) -> Iterator[str]:
    for piece in pieces:
        n_bytes -= len(piece.encode()) + 1
        if n_bytes < 0:
            return
        yield piece
