"""What stands between a click, or a further view, and the job; with fakes in place of kernels and front ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nbpar.display import Display, Lines
from nbpar.engine.events import Failure, OutputLine
from nbpar.engine.snapshot import Snapshot, Status
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.dashboard import _Link
from nbpar.views.scene import Scene
from nbpar.views.ticker import Ticker


def snapshot(status: Status = "running", elapsed_s: float = 1.0) -> Snapshot:
    failures = (Failure(1, "0", "ZeroDivisionError", "division by zero"),) if status == "failed" else ()
    return Snapshot(7, "map f", status, 2, 1, len(failures), elapsed_s, 1.0, None, 1, (), failures)


class Recorder:
    """A view, a widget and the controls of a job, which write down what is asked of them."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        add = self.calls.append
        self.controls = Controls(lambda: add("cancel"), lambda: add("pause"), lambda: add("resume"))

    def send(self, content: object) -> None:
        self.calls.append(content)

    def open(self, snapshot: Snapshot) -> None:
        self.calls.append(f"open {snapshot.status}")

    def update(self, snapshot: Snapshot) -> None:
        self.calls.append("update")

    def write(self, lines: list[OutputLine]) -> None:
        self.calls.append([line.text for line in lines])

    def close(self, snapshot: Snapshot) -> None:
        self.calls.append(f"close {snapshot.status}")


@pytest.fixture
def link() -> tuple[_Link, Recorder]:
    scene, recorder = Scene(), Recorder()
    scene.change(snapshot(), cell_is_running=False)
    return _Link(scene, recorder.controls), recorder


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_button_does_what_it_says_before_it_is_answered(link: tuple[_Link, Recorder], verb: str) -> None:
    handler, recorder = link
    handler.handle(recorder, {verb: 7})
    assert recorder.calls == [verb, {"ack": 7, "of": verb}]


def test_a_ping_is_answered_and_does_nothing(link: tuple[_Link, Recorder]) -> None:
    handler, recorder = link
    handler.handle(recorder, {"ping": 7})
    assert recorder.calls == [{"pong": 7}]


@pytest.mark.parametrize(
    "content", [{"cancel": 6}, {"pause": None}, {"ping": "7"}, {"resume": [7]}, {}, None, "cancel"]
)
def test_what_is_not_for_this_job_is_left_alone(link: tuple[_Link, Recorder], content: object) -> None:
    handler, recorder = link
    handler.handle(recorder, content)
    assert recorder.calls == []


def test_nothing_is_done_before_there_is_a_job() -> None:
    recorder = Recorder()
    _Link(Scene(), recorder.controls).handle(recorder, {"cancel": None, "ping": None})
    assert recorder.calls == []


# --- several views ----------------------------------------------------------------------------------------------------


def test_all_views_of_a_job_end_with_it_and_one_that_comes_late_at_once() -> None:
    ticker, state = Ticker(tick_s=60.0), [snapshot()]
    views = [Recorder() for _ in range(3)]
    watches = [ticker.watch(view, lambda: state[-1], list) for view in views]
    display = Display(lambda: watches[0])
    display.begin()
    display.begin()
    display.add(watches[1])
    for watch in watches:
        watch.open()
    state.append(snapshot("done"))
    display.finish(wait=True)
    display.add(watches[2])
    for view in views:
        assert view.calls == ["open running", "close done"]


def test_a_view_that_begins_after_the_end_is_ended() -> None:
    ticker, view = Ticker(tick_s=60.0), Recorder()
    display = Display(lambda: ticker.watch(view, lambda: snapshot("failed", 0.1), list, tells_failure=True))
    display.finish(wait=False)
    display.begin()
    display.finish(wait=True)
    assert view.calls == ["open failed", "close failed"]


def test_a_further_view_gets_the_last_lines_and_those_from_then_on() -> None:
    def line(text: str) -> OutputLine:
        return OutputLine(0, None, "stdout", text)

    lines = Lines()
    lines.put(line("before"))
    further = lines.follow()
    lines.put(line("after"))
    assert [one.text for one in lines.take()] == ["before", "after"]
    assert [one.text for one in further.take()] == ["before", "after"]
    for i in range(1000):
        lines.put(line(str(i)))
    lines.put(line("long" * 1000))
    assert [one.text for one in lines.follow().take()] == [str(i) for i in range(800, 1000)]


@pytest.mark.parametrize(
    ("status", "tells_failure", "calls"),
    [
        ("failed", True, ["open failed", "close failed"]),
        ("failed", False, []),
        ("done", True, []),
        ("cancelled", True, []),
    ],
)
def test_of_short_jobs_only_one_that_fails_in_the_background_is_drawn(
    status: Status, tells_failure: bool, calls: list[str]
) -> None:
    view = Recorder()
    Ticker(tick_s=60.0).watch(view, lambda: snapshot(status, 0.1), list, tells_failure=tells_failure).finish()
    assert view.calls == calls


# --- who waits --------------------------------------------------------------------------------------------------------


class Shell:
    execution_count = 3


def test_the_kernel_waits_for_a_job_only_in_its_main_thread_and_only_that_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    monkeypatch.setattr(Cell, "current", lambda: Cell(shell, {}))
    display = Display(lambda: pytest.fail("nothing is to be drawn"))

    def wait() -> None:
        seen.append(display.is_waited_for)
        with display.waited_for("f"):
            seen.append(display.is_waited_for)
        seen.append(display.is_waited_for)

    seen: list[bool] = []
    wait()
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert seen == [False, True, False, False, False, False]


def test_a_wait_that_was_broken_off_says_nothing_of_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    monkeypatch.setattr(Cell, "current", lambda: Cell(shell, {}))
    display = Display(lambda: pytest.fail("nothing is to be drawn"))
    left_set = display.waited_for("f")
    left_set.__enter__()  # an interrupt came between two lines
    assert display.is_waited_for
    shell.execution_count += 1
    assert not display.is_waited_for
