"""The picture of a job that stays: static HTML with drawings in SVG, and the same as text.

Made from one snapshot, without JavaScript, a style sheet or anything to fetch, so that a saved notebook shows it in
Jupyter, in nbconvert and elsewhere. Text takes the page's own colour, so it reads on light and dark. The SVG stands in
images' data URLs: JupyterLab takes ``<svg>`` out of a notebook it does not trust, and leaves ``<img>`` in. What must
survive without drawings and styles stands in the HTML: the figures, a table of workers, the failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import quote

from nbpar.engine.events import Failure
from nbpar.engine.snapshot import Lane, Snapshot
from nbpar.views import wording
from nbpar.views.wording import escape

__all__ = ["to_html", "to_text"]

WIDTH = 560
"""Width of a lane in pixels; all coordinates are whole numbers of them."""

LANES_BYTES = 30_000
"""For the spans of all lanes; with more lanes, neighbouring spans are merged to coarser steps."""

FAILURES_BYTES, TRACEBACKS_BYTES, NOTES_BYTES = 8_000, 6_000, 4_000
MANY_LANES = 16  # from here on lanes are thin, in one drawing, and their figures in a table that is folded away

# Readable on white and on black; orange and blue differ for every kind of colour blindness.
TASK, ALTERNATE, FAILED, STARTING, LANE = "#3b7dd8", "#79aeea", "#d9691e", "#a08fd0", "#8b949e"
_FAINT = " stroke-opacity='.14'"
STATUS_COLOUR = {"done": "#2a9d74", "failed": FAILED, "cancelled": "#8b949e", "paused": "#b7861b"}

_FONT = "font-family:system-ui,-apple-system,sans-serif;font-size:13px;line-height:1.5"
_CELL = "border:0;background:none;padding:2px 10px 2px 0;text-align:left;vertical-align:middle;white-space:nowrap"
_CODE = "background:none;padding:0"
_LINE = "rgba(128,136,146,.35)"


def to_html(snapshot: Snapshot) -> str:
    """One card: title, status, bar, figures, the task stream, notes and failures.

    Parameters
    ----------
    snapshot : Snapshot
        Of a job that runs or has ended.

    Returns
    -------
    str
        A well-formed ``<div>`` of at most 60 KB, the same for the same snapshot.

    Examples
    --------
    >>> job = Snapshot(1, "map f", "done", 2, 2, 0, 1.0, 2.0, None, 0, ())
    >>> "2 of 2 tasks" in to_html(job)
    True
    """
    colour = STATUS_COLOUR.get(snapshot.status, TASK)
    figures = [f"<strong>{escape(wording.tasks(snapshot))}</strong>", *map(_figure, wording.figures(snapshot))]
    parts = [
        f'<div style="border:1px solid {_LINE};border-radius:8px;padding:12px 16px;max-width:940px;{_FONT}">',
        f'<div><strong style="float:right;color:{colour}">{snapshot.status}</strong>',
        f"<strong>{escape(snapshot.name)}</strong></div>",
        _bar(snapshot, colour),
        f'<div style="margin-bottom:6px">{" &#160; ".join(figures)}</div>',
    ]
    if snapshot.lanes:
        few = len(snapshot.lanes) <= MANY_LANES
        parts += _few_lanes(snapshot) if few else _many_lanes(snapshot)
    parts += _within(
        NOTES_BYTES,
        (
            f'<div style="margin-top:6px;border-left:3px solid #c9971c;padding:1px 10px">{escape(note, 400)}</div>'
            for note in snapshot.notes
        ),
    )
    if snapshot.n_failed:
        parts += _failures(snapshot)
    parts.append("</div>")
    return "\n".join(parts)


def to_text(snapshot: Snapshot) -> str:
    """The same in a few lines: title, figures, a line per worker (of the first 16), notes, failures.

    Examples
    --------
    >>> print(to_text(Snapshot(1, "map f", "done", 2, 2, 0, 1.0, 2.0, None, 0, ())))
    map f: done, 2 of 2 tasks, 2.0 /s, took 1.0 s
    """
    head = ", ".join([snapshot.status, wording.tasks(snapshot), *wording.figures(snapshot)])
    lines = [f"{wording.clean(snapshot.name)}: {head}"]
    lines += [
        f"  worker {lane.worker_id}: {lane.n_done:,} tasks, busy {wording.percent(lane.busy)}"
        for lane in snapshot.lanes[:MANY_LANES]
    ]
    if len(snapshot.lanes) > MANY_LANES:
        lines.append(f"  and {len(snapshot.lanes) - MANY_LANES} more workers")
    lines += [f"  note: {wording.clean(note, 400)}" for note in snapshot.notes]
    shown = snapshot.failures[:10]
    lines += [f"  #{f.index} {wording.clean(f.item_repr, 80)}: {wording.failure_text(f)}" for f in shown]
    if snapshot.n_failed > len(shown) > 0:
        lines.append(f"  and {snapshot.n_failed - len(shown):,} more failed")
    return "\n".join(lines)


# --- parts of the card ------------------------------------------------------------------------------------------------


def _figure(text: str) -> str:
    if text.endswith(" failed"):
        return f'<strong style="color:{FAILED}">{escape(text)}</strong>'
    return f"<span>{escape(text)}</span>"


def _bar(snapshot: Snapshot, colour: str) -> str:
    """The bar of progress, with the share of failures at its end, at least 4 of its 1000 parts wide."""
    total = snapshot.n_tasks if snapshot.n_tasks is not None else (snapshot.n_done if snapshot.ended else 0)
    done = 0 if total <= 0 else round(1000 * min(1.0, snapshot.n_done / total))
    if total == 0 and snapshot.status == "done":
        done = 1000
    failed = min(done, max(4, round(1000 * snapshot.n_failed / total))) if snapshot.n_failed and total > 0 else 0
    drawing = (
        "<rect width='1000' height='6' fill='#8b949e' fill-opacity='.2'/>"
        f"<rect width='{done - failed}' height='6' fill='{colour}'/>"
        f"<rect x='{done - failed}' width='{failed}' height='6' fill='{FAILED}'/>"
    )
    source = _data_url(drawing, 1000, 6, " preserveAspectRatio='none'")
    return (
        f'<img alt="" width="100%" height="6" src="{source}" '
        'style="display:block;width:100%;height:6px;margin:7px 0;border-radius:3px"/>'
    )


def _few_lanes(snapshot: Snapshot) -> list[str]:
    """A table with a row per worker, its lane in the middle: without the SVG it is still a table of workers."""
    step = _step(snapshot)
    rows = ['<table style="border:0;border-collapse:collapse;margin:0">']
    for lane in snapshot.lanes:
        drawing = _Drawing(16, step)
        drawing.add(lane, snapshot, 0)
        rows.append(
            f'<tr style="background:none"><td style="{_CELL}">{lane.worker_id}</td>'
            f'<td style="{_CELL}">{drawing.image(16, "")}</td>'
            f'<td style="{_CELL};text-align:right">{lane.n_done:,}</td>'
            f'<td style="{_CELL};opacity:.75">busy {wording.percent(lane.busy)}</td></tr>'
        )
    rows.append(
        f'<tr style="background:none"><td style="{_CELL}"></td>'
        f'<td style="{_CELL}">{_axis(snapshot)}</td><td style="{_CELL}"></td><td style="{_CELL}"></td></tr></table>'
    )
    return rows


def _many_lanes(snapshot: Snapshot) -> list[str]:
    """One drawing of thin lanes, and a table that is folded away."""
    drawing = _Drawing(6 if len(snapshot.lanes) <= 48 else 4, _step(snapshot))
    pitch = drawing.lane_height + 1
    for i, lane in enumerate(snapshot.lanes):
        drawing.add(lane, snapshot, i * pitch)
    label = f"task stream of {len(snapshot.lanes)} workers"
    rows = "".join(
        f"<tr><td>{lane.worker_id}</td><td>{lane.n_done:,}</td><td>{wording.percent(lane.busy)}</td></tr>"
        for lane in snapshot.lanes[:128]
    )
    return [
        drawing.image(len(snapshot.lanes) * pitch, label),
        _axis(snapshot),
        f'<details style="margin-top:4px"><summary>{len(snapshot.lanes)} workers</summary>',
        f"<table><tr><th>worker</th><th>tasks</th><th>busy</th></tr>{rows}</table></details>",
    ]


def _failures(snapshot: Snapshot) -> list[str]:
    """A table of failed items, with the first tracebacks folded under them, as many as fit."""
    rows = list(
        _within(
            FAILURES_BYTES,
            (
                f'<tr style="background:none"><td style="{_CELL}">#{failure.index}</td>'
                f'<td style="{_CELL}"><code style="{_CODE}">{escape(failure.item_repr, 120)}</code></td>'
                f'<td style="{_CELL};white-space:normal">{escape(wording.failure_text(failure), 280)}</td></tr>'
                for failure in snapshot.failures
            ),
        )
    )
    tracebacks = _within(TRACEBACKS_BYTES, _tracebacks(snapshot.failures[:3]))
    more = snapshot.n_failed - len(rows)
    return [
        f'<details open="open" style="margin-top:8px"><summary><strong>{snapshot.n_failed:,} failed</strong></summary>',
        f'<table style="border:0;border-collapse:collapse;margin:2px 0 0 12px">{"".join(rows)}</table>' if rows else "",
        f'<div style="margin-left:12px">and {more:,} more</div>' if more > 0 and rows else "",
        *tracebacks,
        "</details>",
    ]


def _tracebacks(failures: tuple[Failure, ...]) -> Iterator[str]:
    for failure in failures:
        if failure.traceback:
            text = escape(failure.traceback[-1500:], 1500, multiline=True)
            yield (
                f'<details style="margin-left:12px"><summary>traceback of #{failure.index}</summary>'
                f'<pre style="font-size:12px;overflow-x:auto;background:none">{text}</pre></details>'
            )


def _within(n_bytes: int, pieces: Iterable[str]) -> Iterator[str]:
    """As many pieces as fit; counted as they are stored, since escaping can make text six times as long."""
    for piece in pieces:
        n_bytes -= len(piece.encode())
        if n_bytes < 0:
            return
        yield piece


# --- the task stream --------------------------------------------------------------------------------------------------


def _axis(snapshot: Snapshot) -> str:
    """Times under the lanes, as text: the beginning, the middle and the end."""
    cell = "border:0;background:none;padding:0;width:33%;opacity:.75;font-size:11px"
    t_end = snapshot.elapsed_s
    return (
        f'<table width="{WIDTH}" style="border:0;border-collapse:collapse;margin:0;width:{WIDTH}px">'
        '<tr style="background:none">'
        f'<td align="left" style="{cell};text-align:left">0 s</td>'
        f'<td align="center" style="{cell};text-align:center">{wording.duration(t_end / 2)}</td>'
        f'<td align="right" style="{cell};text-align:right">{wording.duration(t_end)}</td></tr></table>'
    )


def _step(snapshot: Snapshot) -> int:
    """The narrowest span drawn, in pixels, such that all lanes fit into LANES_BYTES at some 8 bytes for a span."""
    return max(2, -(-WIDTH * 8 * len(snapshot.lanes) // LANES_BYTES))


class _Drawing:
    """Collects stretches of lanes by colour: one path each, for a path per lane would cost more than what it draws.

    A stretch is a piece of a thick line, ``h`` wide and ``m`` further, which is a third of the bytes of a rectangle.
    """

    def __init__(self, lane_height: int, step: int) -> None:
        self.lane_height = lane_height
        self._step = step
        self._paths: dict[str, list[str]] = {LANE: [], STARTING: [], ALTERNATE: [], TASK: [], FAILED: []}
        self._crosses: list[str] = []

    def add(self, lane: Lane, snapshot: Snapshot, top: int) -> None:
        """One worker's lane: start-up, then a stretch per span or per merged spans, failures on top."""
        middle = top + self.lane_height // 2
        scale = WIDTH / max(snapshot.elapsed_s, 1e-9)
        self._stroke(LANE, middle, [(0, WIDTH)])
        begin, ready = _pixel(lane.begin_s * scale), _pixel(lane.ready_s * scale)
        if ready > begin:
            self._stroke(STARTING, middle, [(begin, ready)])
        merged = _merge([(_pixel(s.begin_s * scale), _pixel(s.end_s * scale)) for s in lane.spans], self._step)
        self._stroke(ALTERNATE, middle, merged[::2])
        self._stroke(TASK, middle, merged[1::2])
        failed = [(_pixel(s.begin_s * scale), _pixel(s.end_s * scale)) for s in lane.spans if s.n_failed]
        marks = _merge(failed, 3 if len(failed) < 20 else max(self._step, 3))
        self._stroke(FAILED, middle, marks)
        if self.lane_height > 8:  # a cross, so that it is not the colour alone that says it
            self._crosses += [f"M{(a + b) // 2 - 3},{middle - 3}l6,6m0-6l-6,6" for a, b in marks if b - a >= 8]

    def _stroke(self, colour: str, middle: int, stretches: list[tuple[int, int]]) -> None:
        if not stretches:
            return
        at = stretches[0][0]
        steps = [f"M{at},{middle}"]
        for left, right in stretches:
            if left != at:
                steps.append(f"m{left - at},0")
            steps.append(f"h{right - left}")
            at = right
        self._paths[colour] += steps

    def image(self, height: int, alt: str) -> str:
        """The drawing so far."""
        inner = self.lane_height - 2 if self.lane_height > 8 else self.lane_height
        body = ""
        for colour, steps in self._paths.items():
            if steps:
                size = f"'{self.lane_height}'{_FAINT}" if colour == LANE else f"'{inner}'"
                body += f"<path d='{''.join(steps)}' stroke='{colour}' stroke-width={size}/>"
        if self._crosses:
            body += f"<path d='{''.join(self._crosses)}' stroke='#fff' stroke-width='1.6'/>"
        source = _data_url(body, WIDTH, height, " fill='none'")
        return f'<img alt="{alt}" width="{WIDTH}" height="{height}" src="{source}" style="display:block;margin:0"/>'


def _data_url(body: str, width: int, height: int, attributes: str) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'{attributes}>"
    return "data:image/svg+xml," + quote(f"{head}{body}</svg>", safe="=:/,;-.'")


def _pixel(x: float) -> int:
    return min(WIDTH, max(0, round(x)))


def _merge(stretches: list[tuple[int, int]], step: int) -> list[tuple[int, int]]:
    """Make every stretch at least `step` wide, joining those that would touch, and leave a pixel between wide ones.

    Examples
    --------
    >>> _merge([(0, 1), (1, 2), (2, 3), (10, 20), (20, 30)], 3)
    [(0, 3), (10, 19), (20, 30)]
    """
    out: list[tuple[int, int]] = []
    for left, right in sorted(stretches):
        if out and (out[-1][1] - out[-1][0] < step or left < out[-1][1]) and left < max(out[-1][1], out[-1][0] + step):
            out[-1] = out[-1][0], max(out[-1][1], right)
        else:
            out.append((left, right))
    for i, (left, right) in enumerate(out):
        last = i + 1 == len(out)
        limit = WIDTH if last else out[i + 1][0]
        end = min(limit, max(right, left + step))
        out[i] = left, end - 1 if end == limit and not last and end - left > 3 else end
    return [(left, right) for left, right in out if right > left]
