"""Views without a browser: what is written, what is sent to the front end, what stays, and when any of it is drawn."""

from __future__ import annotations

import doctest
import importlib
import io
import logging
import subprocess
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import pytest

import nbpar.views
from nbpar.engine.events import Failure, OutputLine
from nbpar.engine.snapshot import Lane, Snapshot, Span, Times
from nbpar.engine.spans import N_FIELDS
from nbpar.views import Controls, dashboard, plain, ticker, wording
from nbpar.views.cell import Cell
from nbpar.views.dashboard import Dashboard
from nbpar.views.plain import PlainOutput
from tests.unit import snapshots

WAIT_S = 10.0


T = TypeVar("T", Snapshot, Lane, Span)


def replace(record: T, **changes: Any) -> T:
    """A copy with other fields; for dataclasses and for named tuples."""
    return type(record)(**{name: getattr(record, name) for name in type(record).__match_args__} | changes)


def lane(worker_id: int = 0, n_spans: int = 3, *, n_failed: int = 0, step_s: float = 0.5) -> Lane:
    times = Times(start_s=0.1, wait_s=0.19, work_s=1.71)
    return snapshots.lane(worker_id, n_spans, n_failed=n_failed, step_s=step_s, times=times)


def job(**changes: Any) -> Snapshot:
    return snapshots.job(**{"lanes": (lane(0), lane(1))} | changes)


def failures(n: int, text: str = "boom") -> tuple[Failure, ...]:
    return tuple(Failure(i, f"item {text}", "ValueError", text, 0, f"Traceback\n  {text}") for i in range(n))


def line(text: str, *, stream: Any = "stdout", index: int | None = 17) -> OutputLine:
    return OutputLine(1, index, stream, text)


# --- wording ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wording", "plain", "cell", "choice"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(f"nbpar.views.{name}")
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_figures_leave_out_what_is_not_known() -> None:
    odd = job(rate=float("nan"), eta_s=float("inf"), lanes=())
    assert wording.figures(odd) == []
    assert wording.tasks(replace(odd, n_tasks=None)) == "1,284 tasks"


def test_figures_of_a_paused_job_guess_neither_its_speed_nor_its_end() -> None:
    figures = wording.figures(job(status="paused", eta_s=11.0))
    assert not [text for text in figures if "/s" in text or "left" in text]


def test_figures_of_an_ended_job_say_how_long_it_took_and_what_was_gained() -> None:
    figures = wording.figures(job(status="done", n_failed=2))
    assert figures == ["312 /s", "took 2.0 s", "1.7\N{MULTIPLICATION SIGN} serial", "2 failed"]


# --- lines of workers -------------------------------------------------------------------------------------------------


class Recorder(io.StringIO):
    """Keeps each write call apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return len(text)


def test_lines_are_labelled_and_go_to_their_stream_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Recorder(), Recorder()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    PlainOutput().write([line("a"), line("b", index=None), line("c", stream="stderr"), line("d")])
    assert "".join(out.calls) == "[worker 1 · item 17] a\n[worker 1] b\n[worker 1 · item 17] d\n"
    assert err.calls == ["[worker 1 · item 17] c\n"]
    assert all(call.endswith("\n") for call in out.calls)


def test_a_line_that_the_stream_cannot_encode_is_written_with_escapes() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    plain.put(file, "· \N{SNOWMAN} ok\n")
    assert raw.getvalue() == b"\\xb7 \\u2603 ok\n"


# --- the notebook's view ----------------------------------------------------------------------------------------------


class FakeCell:
    """Records what is published."""

    is_running = True

    def __init__(self) -> None:
        self.published: list[tuple[dict[str, Any], str, bool]] = []
        self.n_inside = 0

    @contextmanager
    def enter(self) -> Any:
        self.n_inside += 1
        yield

    def publish(self, data: dict[str, Any], display_id: str, *, update: bool = False) -> None:
        self.published.append((data, display_id, update))


class Clicks:
    """Controls that count."""

    def __init__(self) -> None:
        self.n_cancelled = 0
        self.controls = Controls(self._cancel, lambda: None, lambda: None)

    def _cancel(self) -> None:
        self.n_cancelled += 1


def test_without_anywidget_the_picture_is_refreshed_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("nbpar.views.dashboard.monotonic", lambda: now_s)
    monkeypatch.setattr(dashboard, "_widget_class", lambda: exec("raise ImportError"))
    cell: Any = FakeCell()
    view = Dashboard(cell, None)
    view.open(job())
    for _ in range(16):  # two seconds of ticks
        now_s += 0.125  # exact, so that no rounding shifts a refresh to the next tick
        view.update(job())
    view.close(job(status="done"))
    assert [update for _, _, update in cell.published] == [False] + [True] * 4 + [True]
    assert len({display_id for _, display_id, _ in cell.published}) == 1
    assert all(list(data) == ["text/html", "text/plain"] for data, _, _ in cell.published)
    assert "done" in cell.published[-1][0]["text/plain"]


@pytest.fixture
def live() -> Any:
    """A dashboard that is open, on a widget whose messages are kept instead of sent."""
    pytest.importorskip("anywidget")
    cell: Any = FakeCell()
    clicks = Clicks()
    view = Dashboard(cell, clicks.controls)
    view.open(job())
    widget = view._widget
    sent: list[dict[str, Any]] = []
    widget.send = lambda content, buffers=None: sent.append(content)
    yield view, widget, sent, cell, clicks
    widget.close()


def test_live_card_is_shown_with_text_and_html_beside_it(live: Any) -> None:
    _, widget, _, cell, _ = live
    data, _, update = cell.published[0]
    assert list(data) == ["text/html", "text/plain", "application/vnd.jupyter.widget-view+json"]
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert "map simulate" in data["text/plain"]
    assert not update


def test_each_tick_is_one_message(live: Any) -> None:
    view, _, sent, cell, _ = live
    view.update(job(n_done=1300))
    view.update(job(n_done=1301))
    assert [message["scene"]["n_done"] for message in sent] == [1300, 1301]
    assert [message["scene"]["full"] for message in sent] == [False, False]
    assert len(cell.published) == 1


def test_a_front_end_that_missed_something_gets_everything(live: Any) -> None:
    view, widget, sent, _, _ = live
    widget._handle_custom_msg({"want": "all"}, [])
    view.update(job(n_done=1300))
    view.update(job(n_done=1301))
    assert [message["scene"]["full"] for message in sent] == [True, False]


def test_a_model_made_late_starts_from_everything(live: Any) -> None:
    view, widget, _, _, _ = live
    view.update(job(n_done=1300, lanes=(lane(0, 9),)))
    state = widget.get_state()
    assert state["scene"]["full"]
    assert state["scene"]["n_done"] == 1300
    (marks,) = state["scene"]["marks"]
    assert len(marks) == 2 + 9 * N_FIELDS
    assert "scene" not in widget.get_state("can_cancel")


def test_cancel_is_acknowledged_and_only_for_this_job(live: Any) -> None:
    _, widget, sent, _, clicks = live
    widget._handle_custom_msg({"cancel": 6}, [])
    assert clicks.n_cancelled == 0
    assert sent == []
    widget._handle_custom_msg({"cancel": 7}, [])
    assert clicks.n_cancelled == 1
    assert sent == [{"ack": 7, "of": "cancel"}]


def test_at_the_end_only_the_static_picture_stays(live: Any) -> None:
    view, widget, sent, cell, _ = live
    view.close(job(status="done"))
    assert sent[-1]["scene"]["status"] == "done"
    data, display_id, update = cell.published[-1]
    assert list(data) == ["text/html", "text/plain"]
    assert (display_id, update) == (cell.published[0][1], True)
    assert widget.comm is None


def test_on_a_page_that_was_reloaded_the_card_stays(live: Any) -> None:
    view, widget, sent, _, _ = live
    widget.get_state()  # what a new page asks for
    view.close(job(status="done"))
    assert sent[-1]["scene"]["status"] == "done"
    assert widget.comm is not None


# --- the cell ---------------------------------------------------------------------------------------------------------


class FakeTarget:
    def __init__(self) -> None:
        self._parent_header: ContextVar[Any] = ContextVar("parent_header")


class FakeStream(FakeTarget, Recorder):
    """A stream that notes which parent each write has."""

    def __init__(self) -> None:
        Recorder.__init__(self)
        FakeTarget.__init__(self)
        self.parents: list[Any] = []

    def write(self, text: str) -> int:
        self.parents.append(self._parent_header.get("no cell"))
        return super().write(text)


class FakeShell:
    """The parts of ipykernel's shell before 7.4 that matter."""

    def __init__(self) -> None:
        self.execution_count = 3
        self._parent_header: ContextVar[Any] = ContextVar("parent_header")
        self.displayhook = FakeTarget()
        self.display_pub: Any = FakeTarget()

    def get_parent(self) -> dict[str, Any]:
        return {"header": {"msg_id": "cell 3"}}


def test_lines_of_another_thread_go_to_the_cell_and_the_threads_own_setting_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = FakeStream()
    monkeypatch.setattr(sys, "stdout", stream)
    shell = FakeShell()
    cell = Cell(shell, shell.get_parent())

    def later() -> None:
        stream._parent_header.set({"msg_id": "cell 9"})
        PlainOutput(cell).write([line("late")])
        stream.write("mine")

    thread = threading.Thread(target=later)
    thread.start()
    thread.join(WAIT_S)
    assert stream.parents == [{"msg_id": "cell 3"}, {"msg_id": "cell 9"}]
    assert stream._parent_header.get("no cell") == "no cell"  # this thread was never touched


def test_a_cell_runs_until_the_shell_counts_on() -> None:
    shell = FakeShell()
    cell = Cell(shell, {})
    assert cell.is_running
    shell.execution_count += 1
    assert not cell.is_running


def test_ipykernel_74_is_asked_to_set_the_thread_alone() -> None:
    calls: list[Any] = []

    class NewShell(FakeShell):
        def set_thread_parent(self, parent: Any) -> str:
            calls.append(parent)
            return "token"

        def reset_thread_parent(self, token: str) -> None:
            calls.append(token)

    shell = NewShell()
    with pytest.raises(ZeroDivisionError), Cell(shell, shell.get_parent()).enter():
        raise ZeroDivisionError
    assert calls == [{"header": {"msg_id": "cell 3"}}, "token"]


def test_ipykernel_6_gets_the_parent_in_the_message() -> None:
    sent: list[Any] = []

    class Session:
        def send(self, socket: str, kind: str, content: Any, *, parent: Any, ident: Any) -> None:
            sent.append((socket, kind, content, parent, ident))

    class Publisher:
        session, pub_socket, topic = Session(), "socket", b"display_data"

    shell = FakeShell()
    shell.display_pub = Publisher()
    Cell(shell, shell.get_parent()).publish({"text/plain": "x"}, "id 1", update=True)
    content = {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "id 1"}}
    assert sent == [("socket", "update_display_data", content, {"header": {"msg_id": "cell 3"}}, b"display_data")]


# --- what is loaded -------------------------------------------------------------------------------------------------


def test_importing_the_views_is_cheap() -> None:
    heavy = ["IPython", "anywidget", "ipywidgets", "traitlets", "tqdm", "xml", "numpy"]
    code = f"import sys, nbpar.views; print([m for m in {heavy} if m in sys.modules])"
    root = str(Path(nbpar.views.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


# --- when it is drawn -------------------------------------------------------------------------------------------------


class FakeView:
    """Writes down what it was asked to draw."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.drawn = threading.Event()
        self.broken = False

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.drawn.set()
        if self.broken:
            raise RuntimeError("broken view")

    def open(self, snapshot: Snapshot) -> None:
        self._note("open")

    def update(self, snapshot: Snapshot) -> None:
        self._note("update")

    def write(self, lines: list[OutputLine]) -> None:
        self._note("write " + " ".join(line.text for line in lines))

    def close(self, snapshot: Snapshot) -> None:
        self._note(f"close {snapshot.status}")


class FakeJob:
    """A job at a time that the test sets."""

    def __init__(self) -> None:
        self.now = job(elapsed_s=0.0)
        self.pending: list[OutputLine] = []

    def snapshot(self) -> Snapshot:
        return self.now

    def lines(self) -> list[OutputLine]:
        lines, self.pending = self.pending, []
        return lines


def gone(own: ticker.Ticker, thread: threading.Thread | None) -> bool:
    """Whether the ticker's thread has ended."""
    assert thread is not None
    thread.join(WAIT_S)
    return not thread.is_alive() and own.thread is None


def slow_ticker() -> ticker.Ticker:
    """Its thread waits; the test ticks."""
    return ticker.Ticker(tick_s=3600)


def test_a_view_opens_after_300_ms_is_updated_and_closed_once() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    thread = own.thread
    for elapsed_s in (0.1, 0.29, 0.3, 0.4):
        fake.now = job(elapsed_s=elapsed_s)
        watch.tick()
    fake.now = job(status="done")
    watch.tick()
    watch.finish()
    watch.finish()
    watch.tick()
    assert view.calls == ["open", "update", "close done"]
    assert gone(own, thread)


def test_a_short_job_is_never_drawn_but_its_lines_are_written() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.pending = [line("a"), line("b")]
    fake.now = job(status="done", elapsed_s=0.2)
    watch.finish()
    assert view.calls == ["write a b"]


def test_notes_that_must_be_read_are_written_once_where_the_view_does_not_show_them() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.now = job(elapsed_s=0.1, notes=("one", "other"), aloud=("one",))
    watch.tick()  # whether there is a picture is not known yet
    fake.now = fake.now._replace(elapsed_s=0.3)
    watch.tick()
    watch.tick()
    fake.now = job(status="done", aloud=("one", "two"))
    watch.finish()
    assert view.calls == ["open", "write one", "update", "write two", "close done"]


@pytest.mark.parametrize(("elapsed_s", "calls"), [(0.2, ["write one"]), (0.4, ["open", "close done"])])
def test_notes_that_must_be_read_are_on_the_card_or_written(elapsed_s: float, calls: list[str]) -> None:
    class Card(FakeView):
        shows_notes = True

    own, view, fake = slow_ticker(), Card(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.now = job(elapsed_s=elapsed_s, aloud=("one",))
    watch.tick()
    fake.now = fake.now._replace(status="done")
    watch.finish()
    assert view.calls == calls


def test_the_last_lines_come_before_the_end() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.now = job()
    watch.tick()
    fake.pending = [line("last")]
    fake.now = job(status="failed")
    watch.finish()
    assert view.calls == ["open", "write last", "close failed"]


def test_many_threads_may_finish_and_one_end_is_drawn() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.now = job()
    watch.tick()
    fake.now = job(status="done")
    together = threading.Barrier(6)

    def finish(wait: bool) -> None:
        together.wait(WAIT_S)
        watch.finish(wait=wait)

    threads = [threading.Thread(target=finish, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert view.calls == ["open", "close done"]


def test_a_dispatcher_leaves_the_drawing_to_the_thread() -> None:
    own, view, fake = slow_ticker(), FakeView(), FakeJob()
    watch = own.watch(view, fake.snapshot, fake.lines)
    fake.now = job()
    watch.tick()
    thread, view.drawn = own.thread, threading.Event()
    fake.now = job(status="cancelled")
    watch.finish(wait=False)
    assert view.drawn.wait(WAIT_S)
    assert gone(own, thread)
    assert view.calls == ["open", "close cancelled"]


def test_a_broken_view_is_logged_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    own, broken, sound, fake = ticker.Ticker(tick_s=0.001), FakeView(), FakeView(), FakeJob()
    broken.broken = True
    fake.now = job()
    with caplog.at_level(logging.ERROR, logger="nbpar"):
        first = own.watch(broken, fake.snapshot, fake.lines)
        assert broken.drawn.wait(WAIT_S)
        second = own.watch(sound, fake.snapshot, fake.lines)
        assert sound.drawn.wait(WAIT_S)
        thread = own.thread
        first.finish()
        second.finish()
    assert broken.calls == ["open"]
    assert [record.name for record in caplog.records] == ["nbpar"]
    assert "broken view" in caplog.text
    assert gone(own, thread)


def test_a_view_is_drawn_again_when_there_is_memory_again() -> None:
    own, view, fake = ticker.Ticker(tick_s=0.001), FakeView(), FakeJob()
    n_asked, fake.now = 0, job()

    def snapshot() -> Snapshot:
        nonlocal n_asked
        n_asked += 1
        if n_asked <= 5:
            raise MemoryError  # a task of a pool of threads has it all
        return fake.now

    watch = own.watch(view, snapshot, fake.lines)
    assert view.drawn.wait(WAIT_S)
    assert n_asked >= 6
    thread = own.thread
    watch.finish()
    assert gone(own, thread)


def test_the_thread_lives_while_something_is_watched_and_starts_again() -> None:
    own, fake = ticker.Ticker(tick_s=0.001), FakeJob()
    fake.now = job()
    for _ in range(3):
        views = [FakeView(), FakeView()]
        watches = [own.watch(view, fake.snapshot, fake.lines) for view in views]
        thread = own.thread
        assert thread is not None
        assert thread.daemon
        assert all(view.drawn.wait(WAIT_S) for view in views)
        watches[0].finish()
        views[1].drawn.clear()
        assert views[1].drawn.wait(WAIT_S)
        watches[1].finish()
        assert gone(own, thread)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_the_child_of_a_fork_has_no_watches_and_can_start_its_own() -> None:
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from nbpar.engine.snapshot import Snapshot
from nbpar.views import ticker
class View:
    seen = threading.Event()
    def write(self, lines): self.seen.set()
    def open(self, snapshot): pass
    update = close = open
now = Snapshot(1, "f", "running", 1, 0, 0, 1.0, 0.0, None, 0, ())
old = ticker.watch(View(), lambda: now, lambda: [])
old._lock.acquire()  # as if a view were drawing at the moment of the fork
pid = os.fork()
if pid == 0:
    assert ticker._ticker.thread is None
    closer = threading.Thread(target=old.finish); closer.start(); closer.join(5); assert not closer.is_alive()
    new = ticker.watch(View(), lambda: now, lambda: ["a line"])
    ok = View.seen.wait(5)
    new.finish()
    os._exit(0 if ok else 3)
old._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert ticker._ticker.thread.is_alive()
old.finish()
"""
    root = str(Path(nbpar.views.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
