"""What the dashboard adds to a job of five seconds and a million trivial tasks."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.browser.harness import Server
from tests.notebook.kernels import start_kernel

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["Overhead", "in_jupyterlab", "in_kernel", "sum_up"]

_IMPORT = "from benchmarks.dashboard.pairs import run"


class Overhead(NamedTuple):
    """Of pairs of jobs, with the card and without: the median without, and the quartiles of what the card adds."""

    without_s: float
    low: float
    median: float
    high: float


def in_kernel(size: dict[str, Any]) -> Overhead:
    """A client reads all that the kernel sends, and draws nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.json")
        directory = Path(folder, "kernel")
        directory.mkdir()
        with start_kernel(directory) as kernel:
            kernel.run(_IMPORT)
            kernel.run(_call(path, size), timeout_s=_limit_s(size))
        return sum_up(json.loads(path.read_text(encoding="utf-8")))


def in_jupyterlab(server: Server, browser: Browser, size: dict[str, Any]) -> Overhead:
    """Chromium draws the cards, on the cores that the workers need."""
    path = Path(server.base_dir, "pairs.json")
    path.unlink(missing_ok=True)
    notebook = server.open(browser, [_IMPORT, _call(path, size)])
    try:
        notebook.run(0)
        text = notebook.run(1, timeout_s=_limit_s(size))
        if not path.exists():
            raise RuntimeError(f"the pairs failed: {text[-500:]}")
        return sum_up(json.loads(path.read_text(encoding="utf-8")))
    finally:
        notebook.close()


def _call(path: Path, size: dict[str, Any]) -> str:
    return f"run({str(path)!r}, **{size!r})"


def _limit_s(size: dict[str, Any]) -> float:
    return 60.0 + 8 * float(size["duration_s"]) * int(size["n_pairs"])


def sum_up(pairs: list[tuple[float, float]]) -> Overhead:
    """The figures of (with, without) pairs.

    Examples
    --------
    >>> sum_up([(5.1, 5.0), (5.0, 5.0), (5.2, 5.0)]).median
    0.02
    """
    added = [round(with_s / without_s - 1.0, 6) for with_s, without_s in pairs]
    low, _, high = statistics.quantiles(added, n=4, method="inclusive") if len(added) > 1 else added * 3
    without_s = statistics.median(without_s for _, without_s in pairs)
    return Overhead(without_s, low, statistics.median(added), high)
