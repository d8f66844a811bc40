"""The dashboard: what it costs, how late it is, how soon a click ends a cell.

Needs JupyterLab, Notebook 7 and Chromium; without them it says so. By itself: ``make bench-dashboard``.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from benchmarks.studies.base import Section, Study, markdown_table
from benchmarks.targets import Verdict

if TYPE_CHECKING:
    from benchmarks.dashboard.live import Live
    from benchmarks.dashboard.overhead import Overhead

__all__ = ["Dashboard"]

MOST_MESSAGES = 15.0
MOST_OF_A_CORE = 0.02
LATEST_S = 0.150
MOST_ADDED = 0.03
CANCELLED_S = 1.0

_VERSIONS = ("ipykernel", "jupyterlab", "notebook", "ipywidgets", "anywidget", "tqdm")

R = TypeVar("R")


class Dashboard(Study):
    """The live card of 64 workers, beside tqdm.notebook and the same lanes as ipywidgets; its cost; its Cancel."""

    name: ClassVar[str] = "dashboard"
    title: ClassVar[str] = "The dashboard: 64 workers in JupyterLab, its cost, a click on Cancel"

    def run(self, peers: Sequence[str]) -> Section:
        """Of the peers none takes part: tqdm and ipywidgets are there anyway."""
        try:
            from benchmarks.dashboard.cancel import times_s
            from benchmarks.dashboard.live import measure
            from benchmarks.dashboard.overhead import in_jupyterlab, in_kernel
            from benchmarks.dashboard.replay import WAYS
            from tests.browser.harness import Server, find_chromium, open_browser
        except ImportError as error:
            return Section([f"Not measured: {error}. `make bench-dashboard` installs what it needs."])
        if find_chromium() is None:
            return Section(["Not measured: no Chromium. `make chromium` installs it, NBPAR_CHROMIUM names one."])
        seconds, n_pairs, n_times = (2.0, 1, 1) if self.is_quick else (20.0, 7, 5)
        size = {"n_workers": 64, "n_tasks": round(5_000 * seconds), "duration_s": seconds}
        jobs = {"n_pairs": n_pairs, "n_tasks": 20_000 if self.is_quick else 1_000_000, "duration_s": 0.25 * seconds}
        section = Section(_setting())
        with contextlib.ExitStack() as stack:
            stack.enter_context(_pictures_on())
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            browser = stack.enter_context(open_browser())
            server = stack.enter_context(Server(Path(folder, "jupyter")))
            lives = {way: _tried(partial(measure, server, browser, way, size)) for way in WAYS}
            calm = size | {"duration_s": 5 * seconds}
            lives[f"nbpar, in {5 * seconds:g} s"] = _tried(partial(measure, server, browser, "nbpar", calm))
            section.lines += ["", *live_lines(lives, size)]
            section.verdicts += live_verdicts(lives["nbpar"])
            added = {
                "a client that reads all messages": _tried(partial(in_kernel, jobs)),
                "JupyterLab in Chromium, on the same cores": _tried(partial(in_jupyterlab, server, browser, jobs)),
            }
            section.lines += ["", *added_lines(added, jobs)]
            section.verdicts += added_verdicts(added)
            apps: Sequence[Any] = ("lab", "notebook")
            clicks = {
                (app, kernel): _tried(partial(times_s, server, browser, app, kernel, n_times))
                for kernel in server.kernels
                for app in apps
            }
            section.lines += ["", *click_lines(clicks)]
            section.verdicts += click_verdicts(clicks)
        return section


@contextlib.contextmanager
def _pictures_on() -> Iterator[None]:
    """The other benchmarks switch nbpar's pictures off."""
    wish = os.environ.pop("NBPAR_UI", None)
    try:
        yield
    finally:
        if wish is not None:
            os.environ["NBPAR_UI"] = wish


def _tried(call: Callable[[], R]) -> R | str:
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # whatever went wrong is the entry in the table
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _setting() -> list[str]:
    versions = []
    for name in _VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    load = f", load {os.getloadavg()[0]:.1f} at the beginning" if hasattr(os, "getloadavg") else ""
    return [f"{', '.join(versions)}; Chromium, headless, without a GPU, on the same {os.cpu_count()} CPUs{load}."]


# --- tables and verdicts ----------------------------------------------------------------------------------------------


def live_lines(lives: dict[str, Live | str], size: dict[str, Any]) -> list[str]:
    """The table of the live displays, and nbpar's beside the others'."""
    head = [
        "",
        "messages/s",
        "share of a core, %",
        "of it the drawing thread, %",
        "p50, ms",
        "p95, ms",
        "p95 / nbpar's",
    ]
    ours = lives["nbpar"]
    rows = []
    for way, live in lives.items():
        if isinstance(live, str):
            rows.append([way, live, *[""] * (len(head) - 2)])
            continue
        ratio = "" if isinstance(ours, str) else f"{live.p95_s / ours.p95_s:.2f}"
        shares = [f"{100 * live.core_share:.2f}", f"{100 * live.drawing_share:.2f}"]
        times = [f"{1e3 * live.p50_s:.0f}", f"{1e3 * live.p95_s:.0f}", ratio]
        rows.append([way, f"{live.messages_per_s:.1f}", *shares, *times])
    about = (
        f"{size['n_workers']} workers, {size['n_tasks']:,} tasks in {size['duration_s']:g} s, shown ten times a second "
        "in JupyterLab while the cell blocks. Times are from a task's end to a paint that counts it; up to 100 ms are "
        "the wait for the tick. The share of a core is that of the whole kernel but for the thread that feeds the "
        "events and for folding them, which is done where nothing is shown too. What is drawn with was imported "
        "before. In the last row the same tasks take five times as long."
    )
    return [about, "", *markdown_table(head, rows)]


def live_verdicts(live: Live | str) -> list[Verdict]:
    """What was asked of the live card."""
    asked = [
        f"at most {MOST_MESSAGES:g} messages a second, 64 workers",
        f"under {100 * MOST_OF_A_CORE:g} % of a core in the kernel, 64 workers",
        f"event to paint under {1e3 * LATEST_S:.0f} ms, p95, 64 workers",
    ]
    if isinstance(live, str):
        return [Verdict(text, live, False) for text in asked]
    return [
        Verdict(asked[0], f"{live.messages_per_s:.1f}", live.messages_per_s <= MOST_MESSAGES),
        Verdict(asked[1], f"{100 * live.core_share:.2f} %", live.core_share < MOST_OF_A_CORE),
        Verdict(asked[2], f"{1e3 * live.p95_s:.0f} ms", live.p95_s < LATEST_S),
    ]


def added_lines(added: dict[str, Overhead | str], jobs: dict[str, Any]) -> list[str]:
    """The table of what the card adds to a job."""
    about = (
        f"A job of {jobs['n_tasks']:,} trivial tasks on two workers, with its card and with `progress=False` in turns "
        f"in one kernel, {jobs['n_pairs']} pairs."
    )
    rows = []
    for front_end, found in added.items():
        if isinstance(found, str):
            rows.append([front_end, found, ""])
        else:
            percents = f"{100 * found.median:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
            rows.append([front_end, f"{found.without_s:.2f}", percents])
    return [about, "", *markdown_table(["front end", "s without", "the card adds, %: median (quartiles)"], rows)]


def added_verdicts(added: dict[str, Overhead | str]) -> list[Verdict]:
    """What was asked of its cost: of the kernel's, for where the browser runs is the user's choice."""
    asked = f"the card adds under {100 * MOST_ADDED:g} % to a job of 5 s and 1M tasks"
    found = next(iter(added.values()))
    if isinstance(found, str):
        return [Verdict(asked, found, False)]
    return [Verdict(asked, f"{100 * found.median:+.1f} %", found.median < MOST_ADDED)]


def click_lines(clicks: dict[tuple[Any, str], list[float] | str]) -> list[str]:
    """The table of clicks."""
    rows = []
    for (app, kernel), times_s in clicks.items():
        name = f"{_version(kernel)}, {'JupyterLab' if app == 'lab' else 'Notebook 7'}"
        if isinstance(times_s, str):
            rows.append([name, times_s, ""])
        else:
            rows.append([name, f"{statistics.median(times_s):.2f}", f"{max(times_s):.2f}"])
    about = "From a click on Cancel, while a cell blocks in a map of tasks that sleep, to the cell's end."
    return [about, "", *markdown_table(["", "median, s", "longest, s"], rows)]


def _version(kernel: str) -> str:
    """The installed one, which is the newest, is not named by its version."""
    return f"ipykernel {metadata.version('ipykernel')}" if kernel == "ipykernel-installed" else kernel.replace("-", " ")


def click_verdicts(clicks: dict[tuple[Any, str], list[float] | str]) -> list[Verdict]:
    """What was asked of Cancel: everywhere, by the medians."""
    asked = f"Cancel by a click ends a blocking cell in under {CANCELLED_S:g} s everywhere"
    problems = [f"{kernel}, {app}: {found}" for (app, kernel), found in clicks.items() if isinstance(found, str)]
    if problems:
        return [Verdict(asked, "; ".join(problems), False)]
    slowest_s = max(statistics.median(found) for found in clicks.values() if not isinstance(found, str))
    return [Verdict(asked, f"{slowest_s:.2f} s at most, {len(clicks)} of {len(clicks)}", slowest_s < CANCELLED_S)]
