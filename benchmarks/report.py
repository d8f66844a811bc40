"""``RESULTS.md``: what was asked and measured, and a table for each workload and study."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

from benchmarks.core import Workload
from benchmarks.figures import Figures, Row
from benchmarks.peers import OURS
from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict

__all__ = ["Results", "render", "verdict_lines"]

_DISTRIBUTIONS = (
    "nbpar",
    "numpy",
    "mpire",
    "joblib",
    "ray",
    "distributed",
    "tqdm",
)


@dataclass(slots=True)
class Results:
    """All of one run.

    Attributes
    ----------
    figures : dict
        By name of the workload.
    absent : dict
        Libraries that did not take part, with the reason.
    skipped : dict
        Workloads that could not run, with the reason.
    remarks : dict
        What else went wrong, by library.
    """

    is_quick: bool
    n_workers: int
    workloads: list[Workload] = field(default_factory=list)
    figures: dict[str, Figures] = field(default_factory=dict)
    sections: list[tuple[type[Study], Section]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    spent_s: float = 0.0

    def verdicts(self) -> list[tuple[str, Verdict]]:
        """Every target's, with the title it belongs to."""
        found = [
            (workload.title, target.judge(self.figures.get(workload.name, Figures())))
            for workload in self.workloads
            for target in workload.targets
        ]
        found += [(study.title, verdict) for study, section in self.sections for verdict in section.verdicts]
        return found


def verdict_lines(results: Results) -> list[str]:
    """The table "asked and measured"."""
    rows = [[title, verdict.asked, verdict.measured, _word(verdict)] for title, verdict in results.verdicts()]
    return markdown_table(["workload", "asked", "measured", ""], rows, n_texts=4)


def _word(verdict: Verdict) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[verdict.is_met]


def render(results: Results, *, has_plot: bool) -> str:
    """The whole page."""
    lines = ["# Benchmarks: nbpar and its peers", ""]
    if results.is_quick:
        lines += ["**A smoke test with small sizes: the figures mean nothing.**", ""]
    lines += [*_setting(results), "", "## Asked and measured", ""]
    lines += [
        "Ratios are a peer's time divided by nbpar's, median (quartiles): above 1, nbpar was faster.",
        "",
        *verdict_lines(results),
        "",
    ]
    if has_plot:
        lines += ["![Each peer's time divided by nbpar's, for each workload](results.svg)", ""]
    lines += ["## Workloads", ""]
    for workload in results.workloads:
        lines += [f"### {workload.title}", ""]
        if workload.about:
            lines += [workload.about, ""]
        if workload.name in results.skipped:
            lines += [f"Not run: {results.skipped[workload.name]}", ""]
        lines += [*_table(workload, results.figures.get(workload.name, Figures())), ""]
    for study, section in results.sections:
        lines += [f"## {study.title}", "", *section.lines, ""]
    lines += _not_run(results)
    lines += _METHOD
    return "\n".join(lines).rstrip() + "\n"


def _setting(results: Results) -> list[str]:
    versions = []
    for name in _DISTRIBUTIONS:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    memory_gb = psutil.virtual_memory().total / 1e9
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return [
        (
            f"`make bench` on {today}, {results.spent_s / 60:.0f} minutes: {results.n_workers} workers each, on "
            f"{_processor()} ({os.cpu_count()} CPUs), {memory_gb:.0f} GB, {system}, "
            f"Python {platform.python_version()}; {', '.join(versions)}."
        )
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _table(workload: Workload, figures: Figures) -> list[str]:
    head = ["library"]
    for how in workload.metrics.values():
        head += [how.heading, "/ nbpar's"] if how.has_ratio else [how.heading]
    head += ["CPU, ms", "peak PSS, MB", "calls"]
    rows = [
        _cells(workload, row, is_ours=row is figures.ours(row.group), width=len(head))
        for row in sorted(figures.rows.values(), key=lambda row: _rank(workload, row, figures))
        if row.n_calls or row.problem
    ]
    return markdown_table(head, rows)


def _rank(workload: Workload, row: Row, figures: Figures) -> tuple[str, bool, float]:
    """By group; in it nbpar, then the quickest first."""
    return row.group, row is not figures.ours(row.group), row.median(next(iter(workload.metrics)))


def _cells(workload: Workload, row: Row, *, is_ours: bool, width: int) -> list[str]:
    name = f"**{row.peer}**" if row.peer == OURS else row.peer
    cells = [", ".join(text for text in (name, row.variant, row.group) if text)]
    if row.problem:
        return [*cells, row.problem, *[""] * (width - 2)]
    for metric, how in workload.metrics.items():
        cells.append(_figure(row.median(metric) * how.scale))
        if how.has_ratio:
            ratio = row.ratio(metric)
            if ratio is None:
                cells.append("1" if is_ours else "")
            else:
                cells.append(f"{_figure(ratio.median)} ({_figure(ratio.low)} to {_figure(ratio.high)})")
    cells.append("" if row.cpu_s is None else _figure(1e3 * row.cpu_s))
    cells.append("" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}")
    return [*cells, str(row.n_calls)]


def _figure(value: float) -> str:
    """Three digits, and no exponent.

    Examples
    --------
    >>> _figure(0.012345), _figure(1234.5), _figure(2.0)
    ('0.0123', '1,234', '2.00')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    n_decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{n_decimals}f}"


def _not_run(results: Results) -> list[str]:
    reasons = [*results.absent.items(), *results.remarks.items()]
    if not reasons:
        return []
    return ["## Not run, or not to the end", "", *(f"* {name}: {reason}" for name, reason in reasons), ""]


_METHOD: Sequence[str] = (
    "## How it was measured",
    "",
    "* All pools are alive in one process, warmed, and called in turns, so that all meet the same noise; a ratio is",
    "  that of two calls of one round. ray and dask keep daemons busy, so each has its own rounds, alone with nbpar.",
    "* nbpar runs with its defaults throughout, but that its progress bar is off, as the peers' are. Peers are tried",
    "  with their default chunks and with 16 chunks, and the better goes on, unless the table has a row for each.",
    "* Every result of every call is checked. Before each call garbage is collected; neither that nor making the input",
    "  nor the check is timed.",
    "* CPU seconds are those of the process tree for one call. Peak PSS is the tree's, interpreter, input and results",
    "  included. Both come from separate runs, each library alone in its own process.",
    "* Slow libraries have fewer calls: each gets the same share of a workload's time.",
    "",
)
