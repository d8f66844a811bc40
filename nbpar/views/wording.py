"""How numbers, states and foreign text read: shared by every view, so that a terminal and a notebook say the same."""

from __future__ import annotations

import html
import math
import re

from nbpar.engine import insights
from nbpar.engine.events import Failure
from nbpar.engine.snapshot import Snapshot

__all__ = [
    "clean",
    "duration",
    "escape",
    "failure_text",
    "figures",
    "fine_duration",
    "percent",
    "rate",
    "scale",
    "speedup",
    "tasks",
]

# What XML forbids and what does not encode to UTF-8 (lone surrogates); a traceback's colour codes begin with \x1b. And
# what turns the direction of the text that follows: an item could make the error beside it read as another.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_COLOUR_CODE = re.compile("\x1b\\[[0-9;]*m")


def clean(text: str, limit: int = 200, *, multiline: bool = False) -> str:
    r"""Text that every view can show: printable, at most `limit` characters, on one line unless `multiline`.

    Examples
    --------
    >>> clean("a<b>\n c" + chr(0)).isprintable()
    True
    >>> clean("abcdef", 4)
    'abc…'
    """
    text = text[: limit * 8]  # a repr may be megabytes; what is cut later is not worth scanning
    text = _UNPRINTABLE.sub("\ufffd", _COLOUR_CODE.sub("", text))
    if not multiline:
        text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(text: str, limit: int = 200, *, multiline: bool = False) -> str:
    """:func:`clean` text with the characters of markup escaped, fit for an element or a quoted attribute."""
    return html.escape(clean(text, limit, multiline=multiline), quote=True)


def tasks(snapshot: Snapshot) -> str:
    """How far the job is: ``1,284 of 2,000 tasks``."""
    if snapshot.n_tasks is None:
        return f"{snapshot.n_done:,} tasks"
    return f"{snapshot.n_done:,} of {snapshot.n_tasks:,} tasks"


def duration(seconds: float) -> str:
    """A duration as one says it.

    Examples
    --------
    >>> [duration(t) for t in (0.000_012, 0.0421, 2.34, 75, 7500, 200_000)]
    ['12 µs', '42 ms', '2.3 s', '1 min 15 s', '2 h 5 min', '2 d 8 h']
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if 0 < seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def fine_duration(seconds: float) -> str:
    """A duration with a figure more, for comparing tasks.

    Examples
    --------
    >>> [fine_duration(t) for t in (0.0021, 0.1042, 1.278, 75)]
    ['2.1 ms', '104 ms', '1.28 s', '1 min 15 s']
    """
    if 0 < seconds < 0.995:
        ms = seconds * 1000
        return f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"
    return f"{seconds:.2f} s" if 0 < seconds < 9.995 else duration(seconds)


def rate(per_s: float) -> str:
    """Tasks per second, minute or hour, whichever has figures in front of the point.

    Examples
    --------
    >>> [rate(r) for r in (9870.2, 31.24, 2.5, 0.2, 0.001)]
    ['9,870 /s', '31 /s', '2.5 /s', '12 /min', '3.6 /h']
    """
    if not math.isfinite(per_s) or per_s <= 0:
        return ""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_s * factor
        if value >= 1 or unit == "h":
            return f"{value:,.0f} /{unit}" if value >= 9.95 else f"{value:.1f} /{unit}"
    raise AssertionError("unreachable")


def percent(share: float) -> str:
    """A share of 1 as ``96%``."""
    return f"{100 * share:.0f}%" if math.isfinite(share) else "?"


def speedup(snapshot: Snapshot) -> float | None:
    """How much faster than without workers; None where that says nothing (one worker, or hardly any time yet)."""
    if len(snapshot.lanes) < 2 or snapshot.elapsed_s < 0.2 or not snapshot.n_done:
        return None
    return insights.speedup(snapshot)


def figures(snapshot: Snapshot) -> list[str]:
    """The line under the bar without the count of tasks: rate, time, gain, failures, each as one phrase."""
    is_held = snapshot.status == "paused"  # no task begins: how fast and how long would be guesses about the user
    parts = ["" if is_held else rate(snapshot.rate)]
    if snapshot.ended:
        parts.append(f"took {duration(snapshot.elapsed_s)}")
    elif not is_held and snapshot.eta_s is not None and math.isfinite(snapshot.eta_s):
        parts.append(f"{duration(max(0.1, snapshot.eta_s))} left")
    gain = speedup(snapshot)
    if gain is not None:
        figure = f"{gain:.1f}" if gain < 9.95 else f"{gain:.0f}"
        parts.append(figure + "\N{MULTIPLICATION SIGN} serial")
    if snapshot.n_failed:
        parts.append(f"{snapshot.n_failed:,} failed")
    return [part for part in parts if part]


def failure_text(failure: Failure) -> str:
    """What went wrong, on one line: ``ZeroDivisionError: division by zero``."""
    message = clean(failure.message)
    return f"{clean(failure.error_type, 80)}: {message}" if message else clean(failure.error_type, 80)


def scale(t_end: float, n: int = 6) -> list[float]:
    """Round times from 0 to at most `t_end` for an axis, about `n` steps.

    Examples
    --------
    >>> scale(12.0), scale(2.4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    if not math.isfinite(t_end) or t_end <= 0:
        return [0.0]
    rough = t_end / n
    units = [1, 2, 5, 10] if rough < 1 else [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600]
    power = 10.0 ** math.floor(math.log10(rough)) if rough < 1 else 1.0
    step = min((unit * power for unit in units), key=lambda s: abs(math.log(s / rough)))
    if rough > 3600:
        step = 3600.0 * math.ceil(rough / 3600)
    return [round(i * step, 9) for i in range(int(t_end / step + 1e-9) + 1)]
