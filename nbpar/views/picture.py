"""Drawings of a job as images that hold themselves: lanes, heat strip, sparklines, histogram, bar.

Called by :mod:`nbpar.views.sections`. Each function gives an ``<img>`` whose data URL is the drawing, an SVG, or a PNG
where that is smaller: JupyterLab takes ``<svg>`` out of a notebook it does not trust, and leaves ``<img>`` in. Nobody
knows whether the page is light or dark, so the colours are seen on both, and there is no text inside a drawing. Each
image has a text alternative that says what it shows.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from urllib.parse import quote

from nbpar.engine.snapshot import Bin, Lane, Snapshot, Usage
from nbpar.sizes import in_words
from nbpar.views import wording

__all__ = ["bar", "histogram", "lane_image", "lane_step", "merge", "sparkline", "strip", "thin_lanes"]

WIDTH = 600
"""Width of a lane in its drawing; all coordinates are whole numbers. The page stretches it to the room there is."""

LANES_BYTES = 12_000
"""For the drawn spans of all lanes; of so many that they do not fit, heat is drawn, which takes half of that."""

STEPS = (1, 2, 3)  # the least width of a drawn span: what is narrower is merged with its neighbours
MAX_CELLS = 18_000  # of a heat strip: as noisy as can be, that is 15 KB
COLUMNS = (600, 300, 200, 150, 120, 100)
MAX_BINS = 40  # of a histogram: ten decades
MAX_ROWS = 128  # beyond, neighbouring workers share one
STUD, CROSS = 6, 7  # size of the mark of a failure in a heat strip, and of the cross in a lane that shows heat

# Seen on white and on black; orange and blue differ for every kind of colour blindness.
TASK, ALTERNATE, FAILED, LANE = "#3b7dd8", "#79aeea", "#d9691e", "#8b949e"
STARTING, INIT, RUNNING, MEMORY = "#b3a4da", "#8a76c4", "#9cc3f0", "#6e7781"
STATUS = {"done": "#2a9d74", "failed": FAILED, "cancelled": LANE, "paused": "#b7861b"}

_LEVELS = 8
_EMPTY, _STARTING, _FAILED, _GAP, _CROSS = 0, _LEVELS + 1, _LEVELS + 2, _LEVELS + 3, _LEVELS + 4
_PALETTE = [  # red, green, blue, opacity; from 1 to _LEVELS the busier the stronger
    (139, 148, 158, 36),
    *((59, 125, 216, 55 + 200 * level // _LEVELS) for level in range(1, _LEVELS + 1)),
    (160, 143, 208, 255),
    (217, 105, 30, 255),
    (0, 0, 0, 0),
    (255, 255, 255, 255),
]


def bar(snapshot: Snapshot) -> str:
    """The bar of progress, with the share of failures at its end, at least 4 of its 1000 parts wide."""
    total = snapshot.n_tasks if snapshot.n_tasks is not None else (snapshot.n_done if snapshot.ended else 0)
    done = 0 if total <= 0 else round(1000 * min(1.0, snapshot.n_done / total))
    if total == 0 and snapshot.status == "done":
        done = 1000
    failed = min(done, max(4, round(1000 * snapshot.n_failed / total))) if snapshot.n_failed and total > 0 else 0
    body = (
        f"<rect width='1000' height='6' fill='{LANE}' fill-opacity='.2'/>"
        f"<rect width='{done - failed}' height='6' fill='{STATUS.get(snapshot.status, TASK)}'/>"
        f"<rect x='{done - failed}' width='{failed}' height='6' fill='{FAILED}'/>"
    )
    style = "display:block;width:100%;height:6px;margin:8px 0;border-radius:3px"
    return _image(_svg(body, 1000, 6), f"{done / 10:.0f}% done", "100%", 6, style)


# --- lanes ------------------------------------------------------------------------------------------------------------


def lane_step(lanes: Sequence[Lane]) -> int | None:
    """The narrowest span to draw, such that the spans of all lanes fit into LANES_BYTES; None where they do not."""
    n_spans = [len(lane.spans) for lane in lanes]
    n_failed = [sum(span.n_failed > 0 for span in lane.spans) for lane in lanes]
    for step in STEPS:
        most = WIDTH // step
        n_bytes = 8 * sum(min(n, most) for n in n_spans)
        n_bytes += 24 * sum(min(n, most, WIDTH // 3) for n in n_failed)  # some with a cross
        if n_bytes <= LANES_BYTES:
            return step
    return None


def lane_image(lane: Lane, snapshot: Snapshot, step: int | None) -> str:
    """One worker's lane: start-up and init, a stretch per span or per merged spans, failures with a cross; or heat."""
    n_failed = sum(span.n_failed for span in lane.spans)
    failed = f", {n_failed:,} failed" if n_failed else ""
    alt = f"worker {lane.worker_id}: {lane.n_done:,} tasks{failed}, busy {wording.percent(lane.busy)}"
    if step is None:
        source = _png(_with_crosses(_heat([lane], snapshot.elapsed_s, WIDTH), 16))
    else:
        source = _Drawing(16, step).add(lane, snapshot, 0).svg(16)
    return _image(source, alt, "100%", 16, _stretched(16))


def thin_lanes(snapshot: Snapshot, step: int) -> str:
    """All lanes in one drawing."""
    drawing = _Drawing(8, step)
    for row, one in enumerate(snapshot.lanes):
        drawing.add(one, snapshot, row * 10)
    height = 10 * len(snapshot.lanes)
    alt = f"the tasks of {len(snapshot.lanes)} workers over {wording.duration(snapshot.elapsed_s)}, a line each"
    return _image(drawing.svg(height), alt, "100%", height, _stretched(height))


class _Drawing:
    """Collects stretches of lanes by colour: one path each, for a path per lane would cost more than what it draws.

    A stretch is a piece of a thick line, ``h`` wide and ``m`` further, which is a third of the bytes of a rectangle.
    """

    def __init__(self, lane_height: int, step: int) -> None:
        self._lane_height = lane_height
        self._step = step
        self._paths: dict[str, list[str]] = {
            colour: [] for colour in (LANE, STARTING, INIT, RUNNING, ALTERNATE, TASK, FAILED)
        }
        self._crosses: list[str] = []

    def add(self, lane: Lane, snapshot: Snapshot, top: int) -> _Drawing:
        """Draw one worker's lane."""
        middle = top + self._lane_height // 2
        scale = WIDTH / max(snapshot.elapsed_s, 1e-9)
        self._stroke(LANE, middle, [(0, WIDTH)])
        ready_s = lane.ready_s if lane.pid or snapshot.ended else snapshot.elapsed_s
        begin, ready = _pixel(lane.begin_s * scale), _pixel(ready_s * scale)
        init = max(begin, _pixel((ready_s - lane.times.init_s) * scale))
        self._stroke(STARTING, middle, [(begin, init)] if init > begin else [])
        self._stroke(INIT, middle, [(init, ready)] if ready > init else [])
        if lane.current_index is not None:
            since = min(_pixel(lane.current_since_s * scale), WIDTH - 1)
            self._stroke(RUNNING, middle, [(since, WIDTH)])
        spans = merge([(_pixel(s.begin_s * scale), _pixel(s.end_s * scale)) for s in lane.spans], self._step)
        self._stroke(ALTERNATE, middle, spans[::2])
        self._stroke(TASK, middle, spans[1::2])
        failed = [(_pixel(s.begin_s * scale), _pixel(s.end_s * scale)) for s in lane.spans if s.n_failed]
        marks = merge(failed, max(self._step, 3))
        self._stroke(FAILED, middle, marks)
        if self._lane_height > 8:  # a cross, so that it is not the colour alone that says it
            self._crosses += [f"M{(a + b) // 2 - 3},{middle - 3}l6,6m0-6l-6,6" for a, b in marks if b - a >= 8]
        return self

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

    def svg(self, height: int) -> str:
        """The drawing so far, as a data URL."""
        inner = self._lane_height - 2 if self._lane_height > 8 else self._lane_height
        body = ""
        for colour, steps in self._paths.items():
            if steps:
                size = f"'{self._lane_height}' stroke-opacity='.14'" if colour == LANE else f"'{inner}'"
                body += f"<path d='{''.join(steps)}' stroke='{colour}' stroke-width={size}/>"
        if self._crosses:
            body += f"<path d='{''.join(self._crosses)}' stroke='#fff' stroke-width='1.6'/>"
        return _svg(body, WIDTH, height, " fill='none'")


def merge(stretches: list[tuple[int, int]], step: int) -> list[tuple[int, int]]:
    """Make every stretch at least `step` wide, joining those that would touch, and leave a pixel between wide ones.

    Examples
    --------
    >>> merge([(0, 1), (1, 2), (2, 3), (10, 20), (20, 30)], 3)
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


# --- many workers -----------------------------------------------------------------------------------------------------


def strip(snapshot: Snapshot) -> str:
    """A heat strip: a line for each worker (or for a few of them), the busier the stronger."""
    n_lanes = len(snapshot.lanes)
    together = -(-n_lanes // MAX_ROWS)
    groups = [snapshot.lanes[first : first + together] for first in range(0, n_lanes, together)]
    n_columns = next((n for n in COLUMNS if n * len(groups) <= MAX_CELLS), COLUMNS[-1])
    pitch = max(3, min(10 if n_lanes < 48 else 6, 384 // len(groups)))
    gap = [bytes([_GAP]) * n_columns] if pitch > 3 else []
    heats = [_heat(group, snapshot.elapsed_s, n_columns) for group in groups]
    lines = [bytearray(line) for heat in heats for line in [heat] * (pitch - len(gap)) + gap]
    for i, heat in enumerate(heats):  # as in the live card larger than what is around it: not the colour alone says it
        for left, right in _failed_runs(heat, STUD * n_columns // WIDTH):
            for line in lines[max(0, i * pitch - 1) : (i + 1) * pitch + 1 - len(gap)]:
                line[left:right] = bytes([_FAILED]) * (right - left)
    each = "a line each" if together == 1 else f"a line for every {together}"
    alt = f"how busy {n_lanes} workers were over {wording.duration(snapshot.elapsed_s)}, {each}"
    return _image(_png(lines), alt, "100%", len(lines), _stretched(len(lines)))


def _heat(lanes: Sequence[Lane], elapsed_s: float, n_columns: int) -> bytes:
    """How busy some workers were together in each stretch of time, as indices of the palette."""
    busy, marks = [0.0] * n_columns, bytearray(n_columns)
    scale = n_columns / max(1e-9, elapsed_s)
    end = n_columns - 1e-6
    for lane in lanes:
        begin, ready = max(0.0, lane.begin_s * scale), min(end, max(0.0, lane.ready_s * scale))  # of NaN, 0
        for i in range(int(min(end, begin)), int(ready)):
            marks[i] = _STARTING
        for span in lane.spans:
            left, right = min(end, max(0.0, span.begin_s * scale)), min(end, max(0.0, span.end_s * scale))
            first, last = int(left), int(right)
            if last <= first:
                busy[first] += right - left
            else:
                busy[first] += first + 1 - left
                for i in range(first + 1, last):
                    busy[i] += 1
                busy[last] += right - last
            if span.n_failed:
                marks[first : last + 1] = bytes([_FAILED]) * (last + 1 - first)
    line = bytearray(n_columns)
    full = _LEVELS / len(lanes)
    for i, share in enumerate(busy):
        if marks[i] == _FAILED or (marks[i] and share * full < 1):
            line[i] = marks[i]
        elif share > 0:
            line[i] = min(_LEVELS, max(1, round(share * full)))
    return bytes(line)


def _failed_runs(heat: bytes, least: int) -> list[tuple[int, int]]:
    """The stretches of a line in which tasks failed, each at least so many columns wide."""
    runs: list[tuple[int, int]] = []
    for at, index in enumerate(heat):
        if index != _FAILED:
            continue
        left = max(0, min(at - (least - 1) // 2, len(heat) - least))
        right = max(left + least, at + 1)
        if runs and left <= runs[-1][1]:
            runs[-1] = runs[-1][0], right
        else:
            runs.append((left, right))
    return runs


def _with_crosses(heat: bytes, height: int) -> Sequence[bytes | bytearray]:
    """A line as high as a lane, with a cross where tasks failed; as it is where none did."""
    runs = _failed_runs(heat, CROSS + 4)
    if not runs:
        return [heat]
    lines = [bytearray(heat) for _ in range(height)]
    top = (height - CROSS) // 2
    for left, right in runs:
        for line in lines:
            line[left:right] = bytes([_FAILED]) * (right - left)
        begin = (left + right - CROSS) // 2
        for i in range(CROSS):
            for at in {begin + i, begin + CROSS - 1 - i}:
                lines[top + i][at] = _CROSS
    return lines


def _png(lines: Sequence[bytes | bytearray]) -> str:
    """An image of palette indices, as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(b"".join(b"\0" + bytes(line) for line in lines))
    image = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", len(lines[0]), len(lines), 8, 3, 0, 0, 0))
        + chunk(b"PLTE", b"".join(bytes(colour[:3]) for colour in _PALETTE))
        + chunk(b"tRNS", bytes(colour[3] for colour in _PALETTE))
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + b64encode(image).decode()


# --- small drawings ---------------------------------------------------------------------------------------------------


def sparkline(usage: tuple[Usage, ...], most_bytes: int, most_cpu: float, n_points: int) -> str:
    """A worker's memory as a line over its CPU as an area, each from 0 to the most that any worker used."""
    width, height = 56, 16
    chosen = _thinned(usage, n_points)
    across = max(1, len(chosen) - 1)
    xs = [round(i * width / across) for i in range(len(chosen))]

    def y(value: float, most: float) -> int:
        return round(height - 1 - (height - 2) * min(1.0, max(0.0, value / most))) if most > 0 else height - 1

    memory = [f"{x},{y(sample.memory_bytes, most_bytes)}" for x, sample in zip(xs, chosen, strict=True)]
    cpu = [f"{x},{y(sample.cpu, most_cpu)}" for x, sample in zip(xs, chosen, strict=True)]
    if len(chosen) == 1:
        memory.append(memory[0].replace("0,", f"{width},", 1))
        cpu.append(cpu[0].replace("0,", f"{width},", 1))
    body = (
        f"<path d='M0,{height}L{' '.join(cpu)}L{width},{height}' fill='{TASK}' fill-opacity='.3'/>"
        f"<path d='M{' '.join(memory)}' fill='none' stroke='{MEMORY}' stroke-width='1.5'/>"
    )
    mean = sum(sample.cpu for sample in usage) / len(usage)
    peak = max(sample.memory_bytes for sample in usage)
    alt = f"memory up to {in_words(peak)}, {mean:.1f} cores on average"
    return _image(_svg(body, width, height), alt, str(width), height, f"display:block;margin:0;min-width:{width}px")


def _thinned(usage: tuple[Usage, ...], n_points: int) -> list[Usage]:
    """At most `n_points` samples, each the largest of its stretch, so that no peak is lost."""
    if len(usage) <= n_points:
        return list(usage)
    edges = [i * len(usage) // n_points for i in range(n_points + 1)]
    stretches = [usage[a:b] for a, b in pairwise(edges)]
    return [
        Usage(part[-1].at_s, max(s.memory_bytes for s in part), sum(s.cpu for s in part) / len(part))
        for part in stretches
    ]


def histogram(bins: tuple[Bin, ...]) -> str:
    """How long tasks took: a column for each step of the logarithmic scale, as high as there were tasks."""
    width, height = 280, 44
    most = max(1, *(one.n_tasks for one in bins))
    wide = width / len(bins)
    body = ""
    for i, one in enumerate(bins):
        if one.n_tasks:
            tall = max(2, round(height * one.n_tasks / most))
            left, right = round(i * wide), round((i + 1) * wide)
            body += f"<path d='M{left},{height}v-{tall}h{max(1, right - left - 1)}v{tall}'/>"
    body += f"<path d='M0,{height}h{width}' stroke='{LANE}'/>"
    ends = f"{wording.fine_duration(bins[0].from_s)} to {wording.fine_duration(bins[-1].to_s)}"
    counts = ", ".join(f"{one.n_tasks:,}" for one in bins[:MAX_BINS])
    alt = f"how long tasks took, {ends}, the number of tasks in each step of the scale: {counts}"
    return _image(_svg(body, width, height, f" fill='{TASK}'"), alt, "100%", height, _stretched(height))


# --- images -----------------------------------------------------------------------------------------------------------


def _svg(body: str, width: int, height: int, attributes: str = "") -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' preserveAspectRatio='none'"
    return "data:image/svg+xml," + quote(f"{head}{attributes}>{body}</svg>", safe=" =:/,;-.'")


def _image(source: str, alt: str, width: str, height: int, style: str) -> str:
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" style="{style}" src="{source}"/>'


def _stretched(height: int) -> str:
    return f"display:block;width:100%;height:{height}px;margin:0"


def _pixel(x: float) -> int:
    return 0 if not x > 0 else WIDTH if x >= WIDTH else round(x)  # NaN is 0
