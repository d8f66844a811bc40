"""The command line, and the order of things: stages, costs, studies, report.

A stage has the libraries that are up at the same time: first those that are but a few processes, then ray and
dask, each alone with nbpar, since their daemons would slow everybody down.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import nbpar
from benchmarks import plot, report
from benchmarks.core import Workload
from benchmarks.costs import collect
from benchmarks.figures import Figures
from benchmarks.install import missing
from benchmarks.merge import merged
from benchmarks.peers import CLUSTERS, EVERYBODY, LOCAL, OURS, SERIAL
from benchmarks.studies import STUDIES
from benchmarks.team import Team
from benchmarks.timing import compare
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 0 unless the arguments are wrong."""
    chosen = _arguments(argv)
    if chosen.list:
        known = [*((w.name, w.title) for w in WORKLOADS), *((s.name, s.title) for s in STUDIES)]
        print("\n".join(f"{name:16} {title}" for name, title in known))
        return 0
    # The same everywhere: in a terminal nbpar draws a bar by default, which no peer does here.
    os.environ["NBPAR_UI"] = "off"
    # From Python 3.12 on a fork beside threads warns; forking is what is measured.
    warnings.filterwarnings("ignore", message=".*use of fork\\(\\)", category=DeprecationWarning)
    with nbpar.WorkerPool(start_method="threads") as pool:
        n_workers = pool.n_workers
    begin_s = time.perf_counter()
    results = report.Results(is_quick=chosen.quick, n_workers=n_workers)
    results.workloads = [w(n_workers=n_workers, is_quick=chosen.quick) for w in WORKLOADS if w.name in chosen.only]
    for names in _stages(chosen.peers):
        _run_stage(names, results)
    if results.workloads and not chosen.no_costs:
        print("=== CPU and memory, each library in a process of its own", flush=True)
        problems = collect(results.figures, chosen.peers, n_workers=n_workers, is_quick=chosen.quick)
        results.remarks.update(problems)
    for study in STUDIES:
        if study.name in chosen.only:
            study_begin_s = time.perf_counter()
            section = study(n_workers=n_workers, is_quick=chosen.quick).run(chosen.peers)
            print(f"{_clock(study_begin_s)} {study.name}: {study.title}", flush=True)
            print("\n".join(section.lines), flush=True)
            results.sections.append((study, section))
    results.absent.update({name: reason for name, reason in missing().items() if name in results.absent})
    results.spent_s = time.perf_counter() - begin_s
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "RESULTS.md"
    if chosen.update:
        page = path.read_text(encoding="utf-8")
        rows = report.verdict_lines(results)[2:]
        path.write_text(merged(page, results.sections, rows), encoding="utf-8")
        print("\n".join(rows))
        return 0
    has_plot = plot.write(results, chosen.out / "results.svg")
    path.write_text(report.render(results, has_plot=has_plot), encoding="utf-8")
    print("\n".join(report.verdict_lines(results)))
    print(f"{path}, after {results.spent_s / 60:.1f} minutes")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [*(thing.name for thing in WORKLOADS), *(thing.name for thing in STUDIES)]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run nbpar and its peers side by side and write the tables."
    )
    parser.add_argument("--list", action="store_true", help="print what there is to run, and end")
    parser.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(names)}")
    parser.add_argument("--peers", metavar="NAME,...", help=f"beside nbpar and serial, of: {', '.join(EVERYBODY)}")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small sizes, figures that mean nothing")
    parser.add_argument(
        "--update", action="store_true", help="replace the sections of the studies in --only, leave the page otherwise"
    )
    parser.add_argument("--no-costs", action="store_true", help="leave out CPU seconds and memory")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for RESULTS.md and results.svg")
    chosen = parser.parse_args(argv)
    chosen.only = _named(parser, "--only", chosen.only, names)
    if chosen.update and not set(chosen.only) <= {study.name for study in STUDIES}:
        parser.error(f"--update needs --only with studies: {', '.join(study.name for study in STUDIES)}")
    named = _named(parser, "--peers", chosen.peers, EVERYBODY)
    chosen.peers = [name for name in EVERYBODY if name in named or name in (OURS, SERIAL)]
    return chosen


def _named(parser: argparse.ArgumentParser, option: str, value: str | None, known: Sequence[str]) -> list[str]:
    if value is None:
        return list(known)
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"{option}: {', '.join(unknown)} is not known; it may be {', '.join(known)}")
    return names


def _stages(peers: Sequence[str]) -> list[list[str]]:
    local = [name for name in LOCAL if name in peers]
    return [local, *([OURS, name] for name in CLUSTERS if name in peers)]


def _run_stage(names: Sequence[str], results: report.Results) -> None:
    others = set(names) - {OURS}
    workloads = [w for w in results.workloads if others & set(w.peers) and w.name not in results.skipped]
    if not workloads:
        return
    print(f"=== {', '.join(names)}", flush=True)
    with Team(names, n_workers=results.n_workers) as team:
        if not any(team.has(name) for name in others):
            results.absent.update(team.absent)
            return
        for workload in workloads:
            begin_s = time.perf_counter()
            figures = results.figures.setdefault(workload.name, Figures())
            try:
                with workload.contenders(team) as contenders:
                    compare(workload, contenders, team, figures)
            except Exception as error:  # noqa: BLE001  # what it needs is not here; the others go on
                results.skipped[workload.name] = f"{type(error).__name__}: {error}"
            print(f"{_clock(begin_s)} {workload.name}: {workload.title}", flush=True)
            print("\n".join(_progress(workload, figures, others)), flush=True)
        results.absent.update(team.absent)


def _progress(workload: Workload, figures: Figures, names: set[str]) -> list[str]:
    lines = []
    for row in figures.rows.values():
        if row.peer not in names | {OURS} or not (row.n_calls or row.problem):
            continue
        texts = [row.problem] if row.problem else []
        for metric, how in workload.metrics.items():
            if not row.samples.get(metric):
                continue
            ratio = row.ratio(metric) if how.has_ratio else None
            text = f"{how.heading} {row.median(metric) * how.scale:.4g}"
            texts.append(text if ratio is None else f"{text} (x {ratio.median:.2f})")
        name = ", ".join(text for text in (row.variant, row.group) if text)
        lines.append(f"    {row.peer:20} {name:34} {', '.join(texts)}, {row.n_calls} calls")
    return lines


def _clock(begin_s: float) -> str:
    return f"[{time.perf_counter() - begin_s:5.1f} s]"
