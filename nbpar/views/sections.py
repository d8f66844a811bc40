"""The parts of the page that stays: lanes with their figures, durations, advice, tables, failures.

Called by :mod:`nbpar.views.report`. GitHub takes styles and images out, JupyterLab takes out what it does not know of
a notebook that it does not trust. So each part is plain HTML that reads well without styles, in its order; a drawing
has its figures beside it; and styles are of those that JupyterLab lets through (a number below one needs its zero).
Text has the page's own colour, or a background of its own: nobody knows whether the page is light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nbpar.engine.events import Failure, SlowTask
from nbpar.engine.insights import Insights, WorkerRow
from nbpar.engine.snapshot import Snapshot
from nbpar.views import picture, wording
from nbpar.views.table import NOTHING, size, worker_cells
from nbpar.views.wording import escape

__all__ = [
    "and_more",
    "axis",
    "boxes",
    "chip",
    "durations",
    "failures",
    "few_lanes",
    "insights",
    "many_lanes",
    "slowest",
    "within",
]

FAINT = "opacity:0.75"
_TABLE = "table-layout:auto;border:0;border-collapse:collapse;margin:0"
_CELL = "padding:2px 10px 3px 0"  # a row is as high as a lane of the live card
_LAST = "padding:2px 0 3px 0"
_LEFT = _CELL + ";text-align:left"
_PLAIN = _LEFT + ";font-weight:normal"
_SMALL = "font-size:11px;" + FAINT
_HEADING = f"{_PLAIN};{_SMALL}"
_ROW = '<tr style="background:none">'
_SPACE = "\N{NO-BREAK SPACE}"  # instead of a style for each cell that may not be broken

# White on these, and these on white, is at least 4.5 to 1.
CHIPS = {"done": "#1a7f5a", "failed": "#b3470a", "cancelled": "#5b6570", "paused": "#8a5a00"}
RUNNING_CHIP = "#2b63b0"

DROPPABLE = ("pid", "received", "sent", "cores", "exit")
"""Columns of the workers' table, the first to go first where there is not enough room."""


def chip(text: str, status: str) -> str:
    """A word on a coloured ground."""
    colour = CHIPS.get(status, RUNNING_CHIP)
    style = f"background:{colour};color:#fff;border-radius:9px;padding:1px 9px;white-space:nowrap"
    return f'<strong style="{style}">{escape(text)}</strong>'


def within(n_bytes: int, pieces: Iterable[str]) -> Iterator[str]:
    """As many pieces as fit; counted as they are stored, since escaping can make text six times as long."""
    for piece in pieces:
        n_bytes -= len(piece.encode()) + 1  # and the end of its line
        if n_bytes < 0:
            return
        yield piece


# --- lanes ------------------------------------------------------------------------------------------------------------


def few_lanes(snapshot: Snapshot) -> str:
    """A table with a row per worker, its lane in the middle: without drawings it is still a table of workers."""
    step = picture.lane_step(snapshot.lanes)
    has_usage = any(lane.usage for lane in snapshot.lanes)
    rows = [f'<table style="{_TABLE};width:100%">', _ROW, f'<th scope="col" style="{_HEADING}">worker</th>']
    if has_usage:
        rows.append(f'<th scope="colgroup" colspan="2" style="{_HEADING}">memory, CPU</th>')
    rows.append(f'<th scope="col" style="{_HEADING}">tasks over time</th>')
    rows.append(f'<th scope="col" style="{_SMALL};{_CELL};font-weight:normal;text-align:right">tasks</th>')
    rows.append(f'<th scope="col" style="{_SMALL};{_LAST};font-weight:normal;text-align:right">busy</th>')
    rows.append("</tr>")
    most_bytes = max((one.memory_bytes for lane in snapshot.lanes for one in lane.usage), default=0)
    most_cpu = max([1.0, *(one.cpu for lane in snapshot.lanes for one in lane.usage)])
    n_points = max(10, min(30, 160 // len(snapshot.lanes)))
    for lane in snapshot.lanes:
        rows.append(f'{_ROW}<th scope="row" style="{_PLAIN}">{lane.worker_id}</th>')
        if has_usage:
            drawing, peak = "", ""
            if lane.usage:
                drawing = picture.sparkline(lane.usage, most_bytes, most_cpu, n_points)
                peak = size(max(one.memory_bytes for one in lane.usage)).replace(" ", _SPACE)
            rows.append(f'<td style="{_LEFT}">{drawing}</td><td style="{_CELL}">{peak}</td>')
        rows.append(
            f'<td style="{_LEFT};width:100%">{picture.lane_image(lane, snapshot, step)}</td>'
            f'<td style="{_CELL}">{lane.n_done:,}</td>'
            f'<td style="{_LAST}">{wording.percent(lane.busy)}</td></tr>'
        )
    n_before = 3 if has_usage else 1
    rows.append(
        f'{_ROW}<td colspan="{n_before}" style="{_CELL}"></td><td style="{_LEFT}">{axis(snapshot)}</td>'
        f'<td colspan="2" style="{_CELL}"></td></tr></table>'
    )
    return "\n".join(rows)


def many_lanes(snapshot: Snapshot, *, folded: bool) -> str:
    """All lanes in one drawing, from top to bottom: their tasks, or, `folded`, how busy they were."""
    step = None if folded else picture.lane_step(snapshot.lanes)
    ids = [lane.worker_id for lane in snapshot.lanes]
    together = -(-len(ids) // picture.MAX_ROWS)
    each = "a line each" if together == 1 else f"a line for every {together}"
    legend = ": the stronger the colour, the busier" if step is None else ""
    if legend and snapshot.n_failed:
        legend += "; a bar stands out of its line where a task failed"
    drawing = picture.strip(snapshot) if step is None else picture.thin_lanes(snapshot, step)
    return (
        f'<div style="{_SMALL};margin-bottom:3px">'
        f"workers {min(ids)} to {max(ids)}, {each}, the first at the top{legend}</div>\n{drawing}\n{axis(snapshot)}"
    )


def axis(snapshot: Snapshot) -> str:
    """Times under the lanes, as text: each begins where its moment is."""
    t_end = snapshot.elapsed_s
    moments = wording.scale(t_end, 4)
    if len(moments) < 2:
        return f'<div style="{_SMALL}">0 to {wording.duration(t_end)}</div>'
    width = 100 * moments[1] / t_end
    cells = []
    for moment in moments:
        left = 100 * (1 - moment / t_end)
        if left < 9:  # no room for its text
            break
        style = f"float:left;width:{min(width, left) - 0.005:.2f}%;border-left:1px solid #8b949e;padding:0 0 0 3px"
        cells.append(
            f'<span style="{style};box-sizing:border-box;overflow:hidden;white-space:nowrap">{_moment(moment)}</span>'
        )
    return f'<div style="font-size:11px;line-height:1.3;{FAINT};overflow:hidden">{" ".join(cells)}</div>'


def _moment(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g}{_SPACE}s"
    if seconds < 3600:
        return f"{round(seconds / 60, 1):g}{_SPACE}min"
    return f"{round(seconds / 3600, 1):g}{_SPACE}h"


# --- what to know of the tasks ----------------------------------------------------------------------------------------


def boxes(texts: Iterable[str], n_bytes: int, *, advice: bool) -> list[str]:
    """A box for each sentence: amber for what would make the job faster, plain for what happened."""
    style = "margin:6px 0;padding:3px 12px;border-left:3px solid "
    style += "#c9971c;background:rgba(201,151,28,0.15)" if advice else "#8b949e"
    shown: list[str] = []
    for text in texts:
        for limit in (400, 100):  # rather a sentence that is cut than none
            box = list(within(n_bytes, [f'<p style="{style}">{escape(text, limit)}</p>']))
            if box:
                break
        else:
            break
        n_bytes -= len(box[0].encode()) + 1
        shown += box
    return shown


def durations(snapshot: Snapshot, told: Insights) -> str:
    """The histogram, and in words what it shows."""
    bins, known = snapshot.durations, told.durations
    if not bins or known is None:
        return ""
    ends = (wording.fine_duration(bins[0].from_s), wording.fine_duration(bins[-1].to_s))
    left, right = (
        f'<span style="float:{side}">{end}</span>' for side, end in zip(("left", "right"), ends, strict=True)
    )
    scale = f'<div style="overflow:hidden;{_SMALL}">{left} {right}</div>'
    width = max(120, min(280, 36 * len(bins)))
    shown = (
        f'<div style="width:{width}px;max-width:100%">{picture.histogram(bins)}{scale}</div>' if len(bins) > 1 else ""
    )
    return (
        '<div style="display:inline-block;vertical-align:top;width:310px;max-width:100%;margin:12px 20px 0 0">'
        f'<strong>Durations</strong>\n<div style="{_SMALL}">{duration_words(told)}</div>\n{shown}</div>'
    )


def duration_words(told: Insights) -> str:
    """The tasks' durations in a sentence; nothing where they are not known."""
    if told.durations is None:
        return ""
    median, p95, longest = (wording.fine_duration(one).replace(" ", _SPACE) for one in told.durations)
    return f"median {median}, 95% within {p95}, longest {longest}"


def slowest(tasks: tuple[SlowTask, ...], n_bytes: int) -> str:
    """The slowest tasks with their items."""
    rows = list(
        within(
            n_bytes,
            (
                f'{_ROW}<td style="{_CELL}">{wording.fine_duration(one.duration_s).replace(" ", _SPACE)}</td>'
                f'<th scope="row" style="{_PLAIN}">#{one.task_index}</th>'
                f'<td style="{_LEFT}">{_code(one.item_repr, 50)}</td><td style="{_CELL}">{one.worker_id}</td></tr>'
                for one in tasks
            ),
        )
    )
    if not rows:
        return ""
    headings = _headings("took", "index", "item", "worker")
    return (
        '<div style="display:inline-block;vertical-align:top;max-width:100%;margin:12px 0 0">'
        f'<strong>Slowest tasks</strong>\n<table style="{_TABLE}">{_ROW}{headings}</tr>{"".join(rows)}</table></div>'
    )


def insights(told: Insights, n_bytes: int, *, is_open: bool = False) -> str:
    """Where the workers' time went, folded: a row for each, as many as fit."""
    if not told.workers:
        return ""
    summary = f"<strong>Insights</strong> {escape(where_time_went(told))}"
    opened = ' open="open"' if is_open else ""
    head = f'<details{opened} style="margin-top:14px"><summary>{summary}</summary>'
    titles, lines = "", [""]
    for n_dropped in range(len(DROPPABLE) + 1):
        heading, *rows = worker_cells(told.workers, without=DROPPABLE[:n_dropped])
        titles = "".join(f'<th scope="col">{cell}</th>' for cell in heading)
        lines = [
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for name, *cells in ([cell.replace(" ", _SPACE) for cell in row] for row in rows)
        ]
        if len(head) + len(titles) + sum(len(line.encode()) + 1 for line in lines) + 200 <= n_bytes:
            break
    shown = list(within(n_bytes - len(head) - len(titles) - 200, lines))
    more = len(lines) - len(shown)
    if not shown:
        return f"{head}</details>"
    after = f"<div>{and_more(more)}</div>" if more else ""
    table = f'<table style="margin:4px 0"><tr>{titles}</tr>{"".join(shown)}</table>'
    return f'{head}\n<div style="overflow-x:auto">{table}</div>{after}</details>'


def and_more(n_workers: int) -> str:
    """What is said of workers whose rows are not shown."""
    return f"and {n_workers:,} more worker{'' if n_workers == 1 else 's'}: job.insights.workers has them all"


def where_time_went(told: Insights) -> str:
    """Where the workers' time went, in one sentence."""
    times = {
        "in tasks": _sum(told.workers, "work_s"),
        "waiting": _sum(told.workers, "wait_s"),
        "transferring": _sum(told.workers, "transfer_s"),
        "starting": _sum(told.workers, "start_s"),
        "in worker_init": _sum(told.workers, "init_s"),
    }
    whole = sum(times.values())
    shares = [(wording.percent(t / whole), what) for what, t in times.items() if whole > 0 and t >= 0.005 * whole]
    parts = []
    if shares:
        (share, what), *others = shares
        parts.append(", ".join([f"{share} of the workers' time {what}", *map(" ".join, others)]))
    if told.sent_bytes or told.received_bytes:
        parts.append(f"sent {_some(told.sent_bytes)}, received {_some(told.received_bytes)}")
    return "; ".join(parts)


def _sum(rows: tuple[WorkerRow, ...], field: str) -> float:
    return float(sum(max(0.0, getattr(row, field)) for row in rows))


def _some(n_bytes: int) -> str:
    text = size(n_bytes)
    return "nothing" if text == NOTHING else text


# --- failures ---------------------------------------------------------------------------------------------------------


def failures(snapshot: Snapshot, n_bytes: int, traceback_bytes: int) -> str:
    """A table of failed items, with tracebacks folded under it, each once, as many as fit."""
    rows = list(
        within(
            n_bytes,
            (
                f'{_ROW}<th scope="row" style="{_PLAIN}">#{one.index}</th>'
                f'<td style="{_LEFT}">{_code(one.item_repr, 120)}</td>'
                f'<td style="{_LEFT}">{escape(wording.failure_text(one), 280)}</td></tr>'
                for one in snapshot.failures
            ),
        )
    )
    more = snapshot.n_failed - len(rows)
    parts = [
        f'<details open="open" style="margin-top:8px"><summary><strong>{snapshot.n_failed:,} failed</strong></summary>'
    ]
    if rows:
        headings = _headings("index", "item", "error")
        parts.append(f'<table style="{_TABLE};margin-left:12px">{_ROW}{headings}</tr>{"".join(rows)}</table>')
        if more > 0:
            parts.append(f'<div style="margin-left:12px">and {more:,} more</div>')
    parts += within(traceback_bytes, _tracebacks(snapshot.failures))
    return "\n".join([*parts, "</details>"])


def _tracebacks(failed: tuple[Failure, ...]) -> Iterator[str]:
    known: dict[str, int] = {}
    for one in failed:
        known[one.traceback] = known.get(one.traceback, 0) + 1
    for one in failed:
        n_alike = known.pop(one.traceback, 0)
        if n_alike and one.traceback:
            alike = f" and {n_alike - 1:,} alike" if n_alike > 1 else ""
            text = escape(one.traceback[-1500:], 1500, multiline=True)
            yield (
                f'<details style="margin-left:12px"><summary>traceback of #{one.index}{alike}</summary>\n'
                f'<pre style="font-size:12px;overflow-x:auto;background:none">{text}</pre></details>'
            )


def _headings(*texts: str) -> str:
    return "".join(f'<th scope="col" style="{_HEADING}">{text}</th>' for text in texts)


def _code(text: str, limit: int) -> str:
    return f'<code style="background:none;padding:0;font-size:12px;word-break:break-all">{escape(text, limit)}</code>'
