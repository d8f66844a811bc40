"""What ``%%parallel`` above a loop costs beside `nbpar.map` of the same function over the same items.

Pairs of calls on one warm pool, in turns; the text is read anew for each, as for a cell that is run again. Run it by
itself with ``make bench BENCH_ARGS="--only loops"``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import nbpar
from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict
from nbpar.notebook.loop_run import run_loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Source

__all__ = ["LoopCells"]

LIMIT_S = 0.010

_CELLS = {
    "`out.append(f(x))`": "out = []\nfor x in xs:\n    out.append(f(x))",
    "`y = f(x)`, `out.append(y)`": "out = []\nfor x in xs:\n    y = f(x)\n    out.append(y)",
    "`n += f(x)`": "n = 0\nfor x in xs:\n    n += f(x)",
    "`d[x] = f(x)`": "d = {}\nfor x in xs:\n    d[x] = f(x)",
    "two effects, one of them conditional": (
        "out, n = [], 0\nfor x in xs:\n    y = f(x)\n    if y % 2:\n        out.append(y)\n    n += y"
    ),
}


class LoopCells(Study):
    """Loops and maps of the same function."""

    name: ClassVar[str] = "loops"
    title: ClassVar[str] = "What %%parallel above a loop costs beside the same nbpar.map"

    def run(self, peers: Sequence[str]) -> Section:
        """Of the peers none takes part."""
        section = Section()
        sizes = [(2, 30), (1000, 30), (100_000, 5)]
        with nbpar.WorkerPool(n_workers=self.n_workers) as pool:
            pool.map(abs, range(100), progress=False)
            rows = []
            for n_items, n_rounds in sizes[:1] if self.is_quick else sizes:
                for written, cell in _CELLS.items():
                    _pair(pool, cell, 2)  # what is loaded at the first use
                    pairs = [_pair(pool, cell, n_items) for _ in range(2 if self.is_quick else n_rounds)]
                    map_s = statistics.median(one for one, _ in pairs)
                    more_s = statistics.median(two - one for one, two in pairs)
                    rows.append([f"{n_items:,}", written, f"{map_s * 1e3:.1f}", f"{more_s * 1e3:.1f}"])
                    if n_items == 2 and len(rows) == 1:
                        asked = f"%%parallel over a loop costs at most {LIMIT_S * 1e3:g} ms more than the same map"
                        section.verdicts.append(Verdict(asked, f"{more_s * 1e3:.1f} ms", more_s <= LIMIT_S))
        section.lines += markdown_table(["items", "the loop's body", "map, ms", "the loop, ms more"], rows, n_texts=2)
        return section


def _pair(pool: nbpar.WorkerPool, cell: str, n_items: int) -> tuple[float, float]:
    """Seconds that a map takes, and the loop."""
    names: dict[str, Any] = {"__name__": "__main__", "xs": list(range(n_items))}
    exec("def f(x):\n    return x * x", names)
    begin_s = time.perf_counter()
    pool.map(names["f"], names["xs"], progress=False)
    between_s = time.perf_counter()
    source = Source(cell)
    loop = read_loop(source.parse(cell), source, namespace=names)
    run_loop(loop, source, names, pool=pool, call={"progress": False})
    return between_s - begin_s, time.perf_counter() - between_s
