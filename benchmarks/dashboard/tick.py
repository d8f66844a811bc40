"""``python -m benchmarks.dashboard.tick``: what one tick of a busy dashboard costs the kernel, step by step.

No kernel and no browser: the replay of :mod:`benchmarks.dashboard.replay` at full speed with a clock of its own. For
whoever changes state, spans or scene; what counts in the end is the table of ``make bench-dashboard``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.dashboard.paints import percentile
from benchmarks.dashboard.replay import PERIOD_S, Replay
from nbpar.views.scene import Scene, packed

__all__ = ["Tick", "main", "ticks"]


class Tick(NamedTuple):
    """Seconds of one tick, and the bytes of its message."""

    snapshot_s: float
    scene_s: float
    json_s: float
    n_bytes: int


class _Clock:
    """Time that passes when it is told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def ticks(*, n_workers: int, n_tasks: int, duration_s: float) -> list[Tick]:
    """One entry per tick of a whole job."""
    clock = _Clock()
    replay = Replay(n_workers=n_workers, n_tasks=n_tasks, duration_s=duration_s, clock=clock)
    replay.begin()
    scene = Scene()
    found = []
    more = True
    while more:
        clock.now_s += PERIOD_S
        more = replay.step()
        snapshot, snapshot_s = _timed(replay.snapshot)
        message, scene_s = _timed(partial(scene.change, snapshot, cell_is_running=True))
        (text, buffers), json_s = _timed(partial(_serialized, message))
        found.append(Tick(snapshot_s, scene_s, json_s, len(text) + sum(map(len, buffers))))
    return found


def _serialized(message: dict[str, Any]) -> tuple[str, list[bytes]]:
    content, buffers = packed(message)
    return json.dumps(content), buffers


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begin_s = time.thread_time()
    result = call()
    return result, time.thread_time() - begin_s


def main() -> int:
    """Print means, medians and 95th percentiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--duration", type=float, default=20.0, metavar="S")
    args = parser.parse_args()
    found = ticks(n_workers=args.workers, n_tasks=args.tasks, duration_s=args.duration)
    print(f"{len(found):4} ticks      mean   median      p95")
    for name, scale, unit in (
        ("snapshot_s", 1e3, "ms"),
        ("scene_s", 1e3, "ms"),
        ("json_s", 1e3, "ms"),
        ("n_bytes", 1e-3, "kB"),
    ):
        values = [scale * getattr(tick, name) for tick in found]
        figures = statistics.mean(values), statistics.median(values), percentile(values, 0.95)
        print(f"{name:11}", *(f"{figure:8.2f}" for figure in figures), unit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
