"""``results.svg``: each peer's time divided by nbpar's, a line for each workload, on a logarithmic axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core import Workload
from benchmarks.figures import Figures, Row
from benchmarks.peers import EVERYBODY, OURS
from benchmarks.report import Results
from benchmarks.targets import AtLeast

__all__ = ["write"]

_MARKS = dict(zip(EVERYBODY, "|osD^v<>PX", strict=True))


def write(results: Results, path: Path) -> bool:
    """Draw; False without matplotlib, or when there is nothing to draw."""
    lines = _lines(results)
    if not lines:
        return False
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "nbpar"  # the same figures give the same file
    figure, axes = plt.subplots(figsize=(12, 1.5 + 0.4 * len(lines)), layout="constrained")
    seen: dict[str, Any] = {}
    for height, line in enumerate(lines):
        for row in line.rows:
            ratio = row.ratio(line.metric)
            if ratio is None or row.problem or row.peer == OURS:
                continue
            colour = f"C{EVERYBODY.index(row.peer)}"
            drawn = axes.plot(ratio.median, height, _MARKS[row.peer], color=colour, label=row.peer, markersize=7)
            axes.plot([ratio.low, ratio.high], [height, height], color=colour, linewidth=1)
            seen.setdefault(row.peer, drawn[0])
        for target in line.workload.targets:
            is_asked_here = isinstance(target, AtLeast) and (target.metric, target.group) == (line.metric, line.group)
            if is_asked_here and isinstance(target, AtLeast) and not target.peers:
                axes.plot(target.ratio, height, marker=3, color="0.5", markersize=8)  # a tick below the line
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(lines)), [line.title.replace("`", "") for line in lines], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("peer's time / nbpar's time; grey ticks: asked against the best peer")
    axes.set_title("to the right of the line nbpar is faster", fontsize=9, loc="right")
    figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    return True


class _Line(NamedTuple):
    """One line of the plot."""

    title: str
    workload: Workload
    metric: str
    group: str
    rows: list[Row]


def _lines(results: Results) -> list[_Line]:
    lines = []
    for workload in results.workloads:
        rows = list(results.figures.get(workload.name, Figures()).rows.values())
        for metric, how in workload.metrics.items():
            if not how.has_ratio:
                continue
            for group in dict.fromkeys(row.group for row in rows):
                of_group = [row for row in rows if row.group == group]
                if any(row.ratio(metric) for row in of_group):
                    remarks = [text for text in ("" if metric == "wall" else metric, group) if text]
                    title = ": ".join([workload.title, ", ".join(remarks)] if remarks else [workload.title])
                    lines.append(_Line(title, workload, metric, group, of_group))
    return lines
