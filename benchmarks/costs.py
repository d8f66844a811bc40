"""CPU seconds and peak PSS of each library, apart from the timing, in a process in which no other library is up.

`collect` starts ``python -m benchmarks.costs`` for each library; that process runs `main`, which goes through
the workloads and writes a line of JSON for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import Contender, Workload
from benchmarks.figures import Figures, Row
from benchmarks.peers import CLUSTERS
from benchmarks.team import Team
from benchmarks.timing import call_once
from benchmarks.tree import PeakMemory, cpu_s
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.shared import SharedTable

__all__ = ["collect", "main"]

MEASURED_S = 0.2
"""CPU times come in steps of 10 ms, so short calls are repeated for at least this long."""
MOST_CALLS = 100
LONG_S = 2.0
LONGEST_S = 12.0
"""Of what takes longer, the wall time says enough."""
PROCESS_LIMIT_S = 100.0
"""Twice what the slowest takes that does not hang at its end."""


def collect(figures: Mapping[str, Figures], peers: Sequence[str], *, n_workers: int, is_quick: bool) -> dict[str, str]:
    """Fill in CPU and memory of every row that has times; returns what went wrong, by library."""
    problems = {}
    for peer in peers:
        entries: dict[str, list[str]] = {}
        for name, found in figures.items():
            for row in found.rows.values():
                if row.peer == peer and row.n_calls and not row.problem and _is_short(row):
                    entries.setdefault(name, []).append(row.variant)
        if not entries:
            continue
        begin_s = time.perf_counter()
        order = {"peer": peer, "n_workers": n_workers, "is_quick": is_quick, "entries": entries}
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder, "costs.jsonl")
            order["answers"] = str(answers)
            command = [sys.executable, "-m", "benchmarks.costs", json.dumps(order)]
            try:
                done = subprocess.run(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PROCESS_LIMIT_S, check=False
                )
            except subprocess.TimeoutExpired:
                problems[peer] = f"CPU and memory: not all measured within {PROCESS_LIMIT_S:.0f} s"
            else:
                if done.returncode:
                    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
                    problems[peer] = f"CPU and memory: exit code {done.returncode}: {lines[-1][:160]}"
            _read(answers, peer, figures)
        print(f"    {peer:20} {time.perf_counter() - begin_s:.1f} s", flush=True)
    return problems


def _is_short(row: Row) -> bool:
    return not row.samples.get("wall") or row.median("wall") < LONGEST_S


def _read(answers: Path, peer: str, figures: Mapping[str, Figures]) -> None:
    if not answers.exists():
        return
    for line in answers.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        row = figures[answer["workload"]].row(peer, answer["variant"])
        row.cpu_s, row.base_bytes, row.peak_bytes = answer["cpu_s"], answer["base_bytes"], answer["peak_bytes"]


def measure(workload: Workload, contender: Contender) -> dict[str, Any]:
    """CPU seconds of one unit, and the tree's memory before and at its peak.

    A first call warms up, unless it is long enough to count.
    """
    memory = PeakMemory()
    base_bytes = memory.peak_bytes
    memory.start()
    try:
        trial = call_once(workload, contender, cpu_clock=lambda: cpu_s() - memory.own_cpu_s())
        cpu_spent_s, spent_s, n_calls = trial.cpu_s, trial.spent_s, 1
        if spent_s < LONG_S:
            cpu_spent_s, spent_s, n_calls = 0.0, 0.0, 0
        enough_s = 0.0 if workload.is_quick else MEASURED_S
        while n_calls == 0 or (spent_s < enough_s and n_calls < MOST_CALLS):
            trial = call_once(workload, contender, cpu_clock=lambda: cpu_s() - memory.own_cpu_s())
            cpu_spent_s += trial.cpu_s
            spent_s += trial.spent_s
            n_calls += 1
    finally:
        memory.stop()
    return {
        "cpu_s": cpu_spent_s / n_calls / contender.n_units,
        "base_bytes": base_bytes,
        "peak_bytes": memory.peak_bytes,
    }


def main() -> None:
    """What the process of one library does; the order is its argument."""
    order = json.loads(sys.argv[1])
    peer, n_workers = order["peer"], order["n_workers"]
    known = {workload.name: workload for workload in WORKLOADS}
    # The largest input comes last, so that nothing that is left of it counts elsewhere.
    names = sorted(order["entries"], key=lambda name: name == SharedTable.name)
    # The workers of clusters take seconds to start; all others are new for each workload, so that they hold nothing.
    groups = [names] if peer in CLUSTERS else [[name] for name in names]
    with open(order["answers"], "a", encoding="utf-8") as out:
        for group in groups:
            with Team([peer], n_workers=n_workers) as team:
                if team.absent:
                    sys.exit(team.absent[peer])
                for name in group:
                    workload = known[name](n_workers=n_workers, is_quick=order["is_quick"])
                    for answer in _answers(workload, team, order["entries"][name]):
                        out.write(json.dumps(answer) + "\n")
                        out.flush()


def _answers(workload: Workload, team: Team, variants: Sequence[str]) -> Iterator[dict[str, Any]]:
    with workload.contenders(team) as contenders:
        for contender in contenders:
            if contender.variant in variants:
                yield {"workload": workload.name, "variant": contender.variant, **measure(workload, contender)}


if __name__ == "__main__":
    main()
