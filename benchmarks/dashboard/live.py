"""64 workers, 100,000 tasks: how many messages, how much of a core, how long from an event to its paint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.dashboard.paints import latencies_s, observe, paints, percentile
from tests.browser.harness import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["Live", "measure", "sum_up"]

# Where each of the ways says how many tasks have ended.
_PLACES = {
    "nbpar": ".nbpar-figures > :first-child",
    "tqdm.notebook, one bar": ".widget-html:last-child .widget-html-content",
    "ipywidgets, 64 lanes": ".nbpar-bench-total",
}


class Live(NamedTuple):
    """What a display took, a second, and how late it was.

    Attributes
    ----------
    core_share : float
        Of a core, for the kernel's process: without the thread that feeds it, and without the folding of events.
    drawing_share : float
        Of that, the thread that draws.
    """

    messages_per_s: float
    core_share: float
    drawing_share: float
    p50_s: float
    p95_s: float
    n_paints: int


def measure(server: Server, browser: Browser, way: str, size: dict[str, Any]) -> Live:
    """Open a notebook in JupyterLab and show a replay in it."""
    path = Path(server.base_dir, f"live-{len(list(server.base_dir.glob('live-*')))}.json")
    call = f"show({way!r}, {str(path)!r}, **{size!r})"
    notebook = server.open(browser, ["from benchmarks.dashboard.replay import show", call], size=(1200, 1000))
    try:
        notebook.run(0)
        notebook.run_cell(1)
        place = notebook.output_area(1).locator(_PLACES[way]).first
        place.wait_for(state="attached")
        observe(place)
        notebook.wait_cell(1, timeout_s=4 * size["duration_s"] + 60)
        if not path.exists():
            raise RuntimeError(f"the replay failed: {notebook.text(1)[-500:]}")
        return sum_up(json.loads(path.read_text(encoding="utf-8")), paints(place))
    finally:
        notebook.close()


def sum_up(record: dict[str, Any], painted: list[tuple[float, int]]) -> Live:
    """The figures of one run, from what kernel and page have noted."""
    late_s = latencies_s(record["reached"], painted)
    cpu_s, spent_s = record["cpu_s"], record["spent_s"]
    folding_s = cpu_s.get("folding", 0.0)
    shown_s = cpu_s["process"] - cpu_s.get("feeder", 0.0) - folding_s
    drawing_s = cpu_s.get("nbpar-ticker", 0.0) + cpu_s.get("updater", 0.0) - folding_s
    return Live(
        messages_per_s=sum(record["n_messages"].values()) / spent_s,
        core_share=shown_s / spent_s,
        drawing_share=drawing_s / spent_s,
        p50_s=percentile(late_s, 0.5),
        p95_s=percentile(late_s, 0.95),
        n_paints=len(painted),
    )
