"""What terminals and logs show of jobs made by hand, on pseudo terminals: wide, narrow, without colour, in ASCII."""

from __future__ import annotations

import doctest
import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Lane, Snapshot, Usage, View
from nbpar.views import choose, richtext, rows, terminal
from nbpar.views.dashboard import Dashboard
from nbpar.views.milestones import Milestones
from nbpar.views.plain import PlainOutput
from nbpar.views.richtext import RichView
from nbpar.views.text import TextView
from tests.unit.snapshots import failures, job, lane
from tests.unit.terminals import Terminal

TIMES = "\N{MULTIPLICATION SIGN}"


def line(text: str, *, stream: Any = "stdout", index: int | None = 17) -> OutputLine:
    return OutputLine(1, index, stream, text)


def at_work(worker_id: int, **changes: Any) -> Lane:
    usage = (Usage(1.0, 310_000_000, 0.98),)
    return lane(worker_id, current_index=1285 + worker_id, current_since_s=0.8, usage=usage, **changes)


@pytest.fixture(autouse=True)
def usual_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NBPAR_UI", "NO_COLOR", "LC_ALL", "LC_CTYPE", "COLUMNS", "LINES", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    monkeypatch.setattr(terminal.Pace, "is_due", lambda _: True)
    monkeypatch.setattr(richtext, "_screen", richtext._Screen())


MakeTerminal = Callable[..., Terminal]


@pytest.fixture
def make_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTerminal]:
    """Makes a terminal and puts this process's streams there."""
    made: list[Terminal] = []

    def make(*size: int, encoding: str = "utf-8") -> Terminal:
        made.append(Terminal(*size, encoding=encoding))
        monkeypatch.setattr(sys, "stdout", made[-1].file)
        monkeypatch.setattr(sys, "stderr", made[-1].file)
        return made[-1]

    yield make
    monkeypatch.undo()
    for one in made:
        one.close()


@pytest.mark.parametrize("name", ["rows", "terminal"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"nbpar.views.{name}"))
    assert results.attempted > 0
    assert results.failed == 0


# --- the bar ----------------------------------------------------------------------------------------------------------


def test_bar_shows_the_snapshots_own_figures_failures_and_advice(make_terminal: MakeTerminal) -> None:
    screen, view = make_terminal(), TextView()
    view.open(job(n_done=500))
    view.update(job(n_done=1000, n_failed=2, failures=failures(2)))
    (shown,) = screen.shown()
    assert shown.startswith("map simulate  50%|")
    assert "| 1,000 of 2,000 tasks · 2 failed · 312 /s · 2.3 s left · " in shown
    assert shown.endswith(f"{TIMES} serial")
    view.close(job(n_done=2000, n_failed=2, failures=failures(1), status="done", advice=("share it",)))
    end = screen.shown()
    assert end[0].startswith("map simulate 100%|")
    assert "took 2.0 s" in end[0]
    assert end[1:] == ["  #0  item boom  ValueError: boom", "  and 1 more", "  advice: share it"]


def test_lines_stand_above_the_bar_and_never_in_it(make_terminal: MakeTerminal) -> None:
    screen, view = make_terminal(), TextView()
    view.open(job(n_tasks=None))
    view.write([line("one"), line("two", stream="stderr")])
    view.close(job(n_tasks=None, status="cancelled"))
    shown = screen.shown()
    assert shown[:2] == ["[worker 1 · item 17] one", "[worker 1 · item 17] two"]
    assert shown[2].startswith("map simulate cancelled 1,284 tasks")


def test_lines_of_a_job_without_a_bar_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    TextView().write([line("early")])
    assert capsys.readouterr().out == "[worker 1 · item 17] early\n"


def test_the_bar_of_a_narrow_terminal_is_one_line(make_terminal: MakeTerminal) -> None:
    screen, view = make_terminal(40, 10), TextView()
    view.open(job())
    for n_done in (1300, 1400):
        view.update(job(n_done=n_done))
    assert screen.shown() == ["map simulate 1,400 of 2,000 tasks · 312"]


# --- in detail --------------------------------------------------------------------------------------------------------

VIEWS = {"with rich": RichView, "without": lambda: TextView(detail=True)}
in_detail = pytest.mark.parametrize("make", VIEWS.values(), ids=list(VIEWS))
MakeView = Callable[[], View]


@in_detail
def test_detail_has_a_row_for_each_worker_and_leaves_one_line(make_terminal: MakeTerminal, make: MakeView) -> None:
    screen, view = make_terminal(), make()
    running = job(lanes=(at_work(0, track=(3, 10)), at_work(1, track=(77, None)), lane(2, pid=0), lane(3, alive=False)))
    view.open(running)
    view.write([line("one"), line("two", stream="stderr")])
    view.update(running._replace(n_done=1300))
    shown = screen.shown()
    assert shown[:2] == ["[worker 1 · item 17] one", "[worker 1 · item 17] two"]
    assert "map simulate" in shown[2]
    assert "1,300 of 2,000 tasks" in " ".join(shown[2:4])
    table = [row.split() for row in shown if re.match(r"\s+\d+ ", row)]
    assert [row[0] for row in table] == ["0", "1", "2"]
    assert " ".join(table[0][1:]).endswith("30% item 1,285 1.2 s 3 tasks busy 90% 310 MB cpu 98%")
    assert " ".join(table[1][1:]).startswith("77 item 1,286")
    assert "starts" in table[2]
    view.close(job(status="done", n_done=2000, n_failed=3, failures=failures(1), advice=("share it", "once")))
    end = screen.shown()
    assert end[:2] == shown[:2]
    assert all(part in end[2] for part in ("map simulate", "2,000 of 2,000 tasks", "took 2.0 s", "3 failed"))
    assert end[3:] == ["  #0  item boom  ValueError: boom", "  and 2 more", "  advice: share it", "  advice: once"]


@in_detail
def test_of_many_workers_as_many_are_shown_as_fit(make_terminal: MakeTerminal, make: MakeView) -> None:
    screen, view = make_terminal(80, 12), make()
    many = job(lanes=tuple(at_work(i) for i in range(64)), n_workers=64)
    screen.file.write("what was there\n")
    view.open(many)
    for i in range(5):
        view.update(many._replace(n_done=1300 + i))
    shown = screen.shown()
    assert shown[0] == "what was there"
    assert re.fullmatch(r"  and 5\d more workers, busy 90%", shown[-1])
    view.close(many._replace(status="done"))
    assert len(screen.shown()) == 2


@in_detail
def test_a_terminal_may_be_resized(make_terminal: MakeTerminal, make: MakeView) -> None:
    screen, view = make_terminal(100, 24), make()
    running = job(lanes=tuple(at_work(i) for i in range(6)))
    view.open(running)
    screen.shown()
    for columns, n_rows in ((110, 8), (120, 30)):
        screen.resize(columns, n_rows)
        view.update(running)
        shown = screen.shown()
        assert len(shown) <= n_rows
        assert any("cpu" in row for row in shown)
    view.close(running._replace(status="done"))


@in_detail
@pytest.mark.parametrize("why", ["encoding", "locale"])
def test_where_only_ascii_can_be_shown_nothing_else_is_written(
    make_terminal: MakeTerminal, make: MakeView, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, view = make_terminal(90, 20, encoding="ascii" if why == "encoding" else "utf-8"), make()
    if why == "locale":
        monkeypatch.setenv("LC_ALL", "C")
    running = job(lanes=(at_work(0, track=(5, 10)),), name="caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    view.open(running)
    view.write([line("out")])
    view.close(running._replace(status="done", n_failed=1, failures=failures(1), advice=("x \N{SNOWMAN}",)))
    shown = screen.shown()
    assert bytes(screen.raw).isascii()
    assert shown[0] == "[worker 1, item 17] out"
    assert "caf\\xe9" in shown[1]
    assert shown[-1] == "  advice: x \\u2603"


def test_without_colour_none_is_written(make_terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38)(?:;\d+)*m")
    for name, expected in ((None, True), ("NO_COLOR", False)):
        if name:
            monkeypatch.setenv(name, "1")
        screen, view = make_terminal(), RichView()
        view.open(job())
        view.close(job(status="done"))
        screen.shown()
        assert bool(colour.search(screen.raw)) is expected


def test_the_cursor_is_never_hidden(make_terminal: MakeTerminal) -> None:
    screen, view = make_terminal(), RichView()
    view.open(job())
    view.close(job(status="done"))
    screen.shown()
    assert b"\x1b[?25l" not in screen.raw


def test_jobs_are_drawn_together_ten_times_a_second_at_most(
    make_terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_drawn, is_due = 0, iter([True, False, False, False, True, False])
    draw = richtext._Screen._draw

    def count(screen: Any, live: Any) -> None:
        nonlocal n_drawn
        n_drawn += 1
        draw(screen, live)

    monkeypatch.setattr(richtext._Screen, "_draw", count)
    monkeypatch.setattr(terminal.Pace, "is_due", lambda _: next(is_due))
    screen, views = make_terminal(), [RichView() for _ in range(3)]
    for n_done in (1500, 1600):
        for i, view in enumerate(views):
            view.update(job(name=f"job {i}", n_done=n_done))
    assert n_drawn == 2
    shown = " ".join(screen.shown())
    assert all(part in shown for part in ("job 0", "job 1", "job 2", "1,500 of", "1,600 of"))


def test_drawing_takes_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.undo()
    monkeypatch.setattr(terminal, "perf_counter", lambda: now_s)
    pace = terminal.Pace()
    for took_s, wait_s in ((0.001, 0.09), (0.01, 0.2), (0.05, 1.0)):
        assert pace.is_due()
        with pace.drawing():
            now_s += took_s
        now_s += wait_s - took_s - 0.001
        assert not pace.is_due()
        now_s += 0.002


def test_many_lines_at_once_draw_the_table_once(make_terminal: MakeTerminal) -> None:
    screen, view = make_terminal(), RichView()
    view.open(job())
    view.write([line(str(i)) for i in range(2000)])
    assert screen.shown()[-4].startswith("map simulate ")
    assert screen.raw.count(b"tasks") < 20
    view.close(job(status="done"))


def test_two_jobs_share_a_terminal(make_terminal: MakeTerminal) -> None:
    screen, first, second = make_terminal(), RichView(), RichView()
    first.open(job(name="first"))
    second.open(job(name="second"))
    first.update(job(name="first", n_done=1500))
    second.write([line("out")])
    shown = screen.shown()
    assert shown[0].endswith("out")
    assert [row.split()[0] for row in shown if re.match(r"first|second", row)] == ["first", "second"]
    first.close(job(name="first", status="done"))
    second.update(job(name="second"))
    shown = screen.shown()
    assert shown[1].startswith("first: ")
    assert shown[2].startswith("second ")
    second.close(job(name="second", status="done"))
    assert [row.split()[0] for row in screen.shown()[1:]] == ["first:", "second:"]


@in_detail
def test_nothing_moves_below_a_prompt(make: MakeView, monkeypatch: pytest.MonkeyPatch) -> None:
    class AbovePrompt(io.StringIO):
        """As IPython's stderr while it waits for input."""

        __module__ = "prompt_toolkit.patch_stdout"

        def isatty(self) -> bool:
            return True

    stream = AbovePrompt()
    monkeypatch.setattr(sys, "stderr", stream)
    view = make()
    view.open(job())
    view.update(job())
    view.close(job(status="done", n_failed=1, failures=failures(1)))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("map simulate: 1,284 of 2,000 tasks")
    assert second == "  #0  item boom  ValueError: boom"


@pytest.mark.parametrize("detail", [False, True])
def test_a_bar_that_was_there_before_the_prompt_leaves_it_alone(
    make_terminal: MakeTerminal, detail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, view = make_terminal(), TextView(detail=detail)
    view.open(job(lanes=(at_work(0),)))
    screen.shown()
    n_bytes = len(screen.raw)
    monkeypatch.setattr(terminal, "is_prompting", lambda: True)
    view.update(job(n_done=1999))
    screen.shown()
    assert b"1,999" not in screen.raw[n_bytes:]
    view.close(job(status="done"))
    screen.shown()
    assert b"map simulate: 1,284 of 2,000 tasks" in screen.raw[n_bytes:]


lanes = st.builds(
    lambda i, index, track, tasks: lane(i, current_index=index, track=track)._replace(n_done=tasks),
    st.integers(0, 200),
    st.none() | st.integers(0, 10**9),
    st.none() | st.tuples(st.integers(0, 10**12), st.none() | st.integers(0, 10**12)),
    st.integers(0, 10**9),
)


@settings(max_examples=100)
@given(st.lists(lanes, max_size=30), st.integers(1, 140), st.integers(0, 12), st.booleans(), st.none() | st.just(2000))
def test_rows_always_fit(found: list[Lane], width: int, n_rows: int, with_track: bool, n_tasks: int | None) -> None:
    snapshot = job(lanes=tuple(found), n_tasks=n_tasks)
    table = rows.workers(snapshot, width, n_rows, with_track=with_track)
    assert len(table) == min(n_rows, len(found))
    for row in (*table, *rows.head(snapshot, width)):
        assert len(rows.plain(row)) <= width


def test_columns_go_one_by_one_where_there_is_no_room() -> None:
    snapshot = job(lanes=(at_work(0, track=(3, 10)),))
    found: dict[str, int] = {}
    for width in range(100, 10, -1):
        (row,) = rows.workers(snapshot, width, 1)
        found.setdefault(" ".join(rows.plain(row).split()), width)
    assert [re.sub("[^ -~]+", "BAR", text) for text in found][:6] == [
        "0 BAR 30% item 1,285 1.2 s 3 tasks busy 90% 310 MB cpu 98%",
        "0 BAR 30% item 1,285 1.2 s 3 tasks busy 90% 310 MB",
        "0 BAR 30% item 1,285 1.2 s 3 tasks busy 90%",
        "0 BAR 30% item 1,285 1.2 s 3 tasks",
        "0 30% item 1,285 1.2 s 3 tasks",
        "0 30% item 1,285 1.2 s",
    ]


# --- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_has_a_line_for_each_tenth_or_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    view = Milestones()
    view.open(job(n_done=0, elapsed_s=0.3))
    for n_done in range(0, 2000, 50):
        view.update(job(n_done=n_done, elapsed_s=1.0))
    for elapsed_s in (20.0, 32.0, 40.0, 63.0):
        view.update(job(n_done=1990, elapsed_s=elapsed_s))
    view.write([line("out")])
    view.close(job(n_done=2000, status="done", n_failed=1, failures=failures(1), advice=("share it",)))
    out, err = capsys.readouterr()
    assert out == "[worker 1 · item 17] out\n"
    assert "\r" not in err
    assert "\x1b" not in err
    lines = err.splitlines()
    tenths = [f"map simulate: {10 * i}%, {200 * i:,} of 2,000 tasks · 312 /s · 2.3 s left" for i in range(1, 10)]
    assert [one.rpartition(" · ")[0] for one in lines[:9]] == tenths
    assert len(lines) == 9 + 2 + 3
    assert lines[11].startswith("map simulate: 2,000 of 2,000 tasks · 312 /s · took 2.0 s · ")
    assert lines[11].endswith(f"{TIMES} serial · 1 failed")
    assert lines[12:] == ["  #0  item boom  ValueError: boom", "  advice: share it"]


def test_a_log_of_a_job_of_unknown_length_has_a_line_each_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    view = Milestones()
    view.open(job(n_tasks=None))
    for elapsed_s in range(0, 110, 10):
        view.update(job(n_tasks=None, elapsed_s=float(elapsed_s)))
    assert len(capsys.readouterr().err.splitlines()) == 3


# --- which view -------------------------------------------------------------------------------------------------------


class SomeCell:
    is_running = True


@pytest.mark.parametrize(
    ("ui", "in_kernel", "tty", "progress", "expected"),
    [
        ("", False, False, None, PlainOutput),
        ("", False, True, None, TextView),
        ("", False, False, True, Milestones),
        ("", False, True, False, PlainOutput),
        ("", False, True, "detail", RichView),
        ("", False, False, "detail", Milestones),
        ("", True, False, None, Dashboard),
        ("", True, False, "detail", Dashboard),
        ("", True, False, False, PlainOutput),
        ("off", True, True, True, PlainOutput),
        ("text", True, False, None, TextView),
        ("text", False, True, "detail", RichView),
        ("detail", False, True, None, RichView),
        ("detail", True, False, None, TextView),
        ("html", True, False, None, Dashboard),
        ("anywidget", True, False, False, Dashboard),
        ("text", False, False, False, Milestones),
        ("nonsense", False, False, None, PlainOutput),
    ],
)
def test_the_view_suits_the_place(
    monkeypatch: pytest.MonkeyPatch, *, ui: str, in_kernel: bool, tty: bool, progress: Any, expected: type
) -> None:
    monkeypatch.setenv("NBPAR_UI", ui)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    cell: Any = SomeCell() if in_kernel else None
    view = choose(progress, cell=cell, controls=None)
    assert type(view) is expected
    if isinstance(view, Dashboard):
        assert view._live is (ui != "html")


@pytest.mark.parametrize(
    ("name", "value", "progress", "expected"),
    [
        ("CI", "true", None, PlainOutput),
        ("CI", "1", True, Milestones),
        ("CI", "false", None, TextView),
        ("TERM", "dumb", "detail", TextView),
    ],
)
def test_logs_of_ci_runs_are_quiet_and_dumb_terminals_have_a_bar(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, progress: Any, expected: type
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv(name, value)
    view: Any = choose(progress, cell=None, controls=None)
    assert type(view) is expected
    assert not getattr(view, "_detail", False)


def test_detail_needs_no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rich" else object())
    view = choose("detail", cell=None, controls=None)
    assert isinstance(view, TextView)
    assert view._detail


def test_the_locale_says_nothing_of_notebooks_and_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    PlainOutput().write([line("out")])
    assert capsys.readouterr().out == "[worker 1 · item 17] out\n"


def test_a_stream_that_is_closed_or_none_is_no_terminal() -> None:
    closed = io.StringIO()
    closed.close()
    assert [terminal.is_live(one) for one in (closed, None)] == [False, False]
    assert terminal.size(closed) == terminal.size(None) == (100, 24)


def test_an_ended_snapshot_has_the_same_words_everywhere() -> None:
    ended: Snapshot = job(status="failed", n_failed=1)
    assert rows.plain(rows.end(ended)).startswith("map simulate failed: 1,284 of 2,000 tasks")
