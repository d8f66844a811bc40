"""Snapshots made by hand, for tests of what is drawn of them."""

from __future__ import annotations

from typing import Any

from nbpar.engine.events import Failure, SlowTask
from nbpar.engine.snapshot import Bin, HotLine, Lane, Profile, Snapshot, Span, Times, Usage

__all__ = ["HOSTILE", "everything", "failures", "job", "lane"]

HOSTILE = "</details><script>alert('x')</script>&\"\x1b[31m\x00\ud800<img src=x onerror=alert(1)>"


def lane(worker_id: int = 0, n_spans: int = 3, *, n_failed: int = 0, step_s: float = 0.5, **changes: Any) -> Lane:
    """A worker that began at 0.1 s and ran tasks one after the other, the first of them with errors."""
    spans = tuple(
        Span(0.1 + i * step_s, 0.1 + (i + 0.9) * step_s, i, i, 1, 1 if i < n_failed else 0) for i in range(n_spans)
    )
    work_s = 0.9 * step_s * n_spans
    times = Times(start_s=0.1, wait_s=0.2, work_s=work_s)
    made = Lane(worker_id, 100 + worker_id, n_spans, 0.9, spans, ready_s=0.1, times=times)
    return made._replace(**changes)


def job(**changes: Any) -> Snapshot:
    """A job that has run for 2 s on two workers."""
    start = Snapshot(
        job_id=7,
        name="map simulate",
        status="running",
        n_tasks=2000,
        n_done=1284,
        n_failed=0,
        elapsed_s=2.0,
        rate=312.0,
        eta_s=2.3,
        n_workers=2,
        lanes=(lane(0), lane(1)),
    )
    return start._replace(**changes)


def failures(n: int, text: str = "boom") -> tuple[Failure, ...]:
    """Failures of the first items, each with a traceback of its own."""
    return tuple(Failure(i, f"item {text}", "ValueError", text, 0, f"Traceback {i}\n  {text}") for i in range(n))


def everything(n_workers: int = 2, *, n_spans: int = 40, text: str = "boom", n_failed: int = 2) -> Snapshot:
    """An ended job of which all is known that can be: what a view has to draw at most."""
    usage = tuple(Usage(i / 2, (200 + i) * 1_000_000, 0.1 * (i % 10)) for i in range(60))
    lanes = tuple(
        lane(
            i,
            n_spans,
            n_failed=min(n_failed, n_spans),
            step_s=30 / n_spans,
            usage=usage,
            sent_bytes=10**9 + i,
            received_bytes=3 * 10**5,
            times=Times(0.1, 0.05, 1.5, 0.25, 27.0, 0.01),
        )
        for i in range(n_workers)
    )
    return job(
        name=text,
        status="done",
        n_done=2000,
        n_failed=n_failed,
        elapsed_s=30.2,
        lanes=lanes,
        n_workers=n_workers,
        failures=failures(min(n_failed, 100), text),
        notes=tuple(f"note {i}: {text}" for i in range(20)),
        advice=tuple(f"advice {i}: {text}" for i in range(3)),
        durations=tuple(Bin(0.01 * 1.778**i, 0.01 * 1.778 ** (i + 1), 5 + 7 * i % 11) for i in range(12)),
        slowest=tuple(SlowTask(i, 5.0 - i, i % n_workers, f"item {text}") for i in range(5)),
        kernel_s=0.4,
        profile=Profile(
            27.0,
            26_000,
            tuple(HotLine(text, i, f"line {i}: {text}", 0.9 / (i + 1)) for i in range(20)),
            "\n".join([f"27.0 s  100 %  {text[:100]}"] * 150),
        ),
    )
