"""The live card on a bare page: what it shows, says and sends, whatever the job looks like."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Position, expect

from nbpar.engine.events import ChunkDone, Failure, OutputLine, SlowTask
from nbpar.engine.snapshot import Bin, Lane, Snapshot, Span, Times, Usage
from nbpar.engine.spans import Steps, units
from nbpar.engine.state import JobState
from nbpar.views.scene import Scene, packed, plain
from tests.browser.gallery import Gallery, LiveCard, Theme

HOSTILE = "<img src=x onerror=alert(1)></script><b class=hostile>&amp;\u202e"
ADVICE = "38 % of the workers' time went into receiving grid (160 MB): share it once with nbpar.share(grid)"

OpenGallery = Callable[..., Gallery]


@pytest.fixture
def open_gallery(browser: Browser) -> Iterator[OpenGallery]:
    """Open a page for cards; no script may have failed on it when the test ends."""
    opened: list[Gallery] = []

    def open_gallery(**options: Any) -> Gallery:
        opened.append(Gallery(browser, **options))
        return opened[-1]

    yield open_gallery
    for gallery in opened:
        gallery.close()
    assert [error for gallery in opened for error in gallery.errors] == []


def lane(worker_id: int = 0, n_spans: int = 6, *, failed: int = -1, **changes: Any) -> Lane:
    """Half a second of start, then tasks of one second with 0.2 s between them, of items 10, 11, ..."""
    spans = tuple(
        Span(
            0.5 + 1.2 * i, 1.5 + 1.2 * i, 10 * worker_id + i, 10 * worker_id + i, 1, int(i == failed), 1_200_000, 80_000
        )
        for i in range(n_spans)
    )
    usage = tuple(Usage(float(i), 300_000_000 + 1_000_000 * i, 0.9) for i in range(8))
    times = Times(start_s=0.3, init_s=0.2)
    made = Lane(worker_id, 100 + worker_id, n_spans, 0.9, spans, 0.0, 0.5, times=times, usage=usage)
    return made._replace(**changes)


def job(**changes: Any) -> Snapshot:
    made = Snapshot(
        job_id=7,
        name="map simulate(params)",
        status="running",
        n_tasks=40,
        n_done=12,
        n_failed=0,
        elapsed_s=8.0,
        rate=3.1,
        eta_s=9.0,
        n_workers=2,
        lanes=(lane(0, current_index=18, current_since_s=7.4, track=(3, 10)), lane(1)),
        durations=(Bin(0.1, 0.18, 3), Bin(0.18, 0.32, 9)),
        slowest=(SlowTask(3, 1.0, 0, "{'n': 3}"),),
    )
    return made._replace(**changes)


def failing(n: int = 1) -> Snapshot:
    failures = tuple(
        Failure(i, f"{{'n': {i}}}", "ValueError", f"bad {i}", 0, f"Traceback\n  line {i}") for i in range(2, 2 + n)
    )
    return job(n_failed=n, lanes=(lane(0, failed=2), lane(1)), failures=failures)


def lanes_of(card: LiveCard) -> Locator:
    return card.root.locator(".nbpar-lanes")


def said(card: LiveCard) -> Locator:
    return card.root.locator("[aria-live]")


def point(card: LiveCard, at_s: float, row: int = 0, *, elapsed_s: float = 8.0, pitch: float = 21) -> Position:
    """Where on the lanes a moment of a worker is."""
    box = card.root.locator(".nbpar-canvas").bounding_box()
    assert box is not None
    return {"x": box["width"] * at_s / elapsed_s, "y": row * pitch + 6}


def text_of(locator: Locator) -> list[str]:
    return [" ".join(text.split()) for text in locator.all_inner_texts()]


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "buttons"),
    [
        ("waiting", ["Pause", "Cancel"]),
        ("running", ["Pause", "Cancel"]),
        ("paused", ["Resume", "Cancel"]),
        ("done", []),
        ("failed", []),
        ("cancelled", []),
    ],
)
def test_each_state_has_its_word_and_its_buttons(open_gallery: OpenGallery, status: Any, buttons: list[str]) -> None:
    card = open_gallery().show(job(status=status), cell_is_running=False)
    expect(card.root.locator(".nbpar-status")).to_have_text(status)
    assert [b.inner_text() for b in card.root.locator(".nbpar-head button").all() if b.is_visible()] == buttons
    bar = card.root.get_by_role("progressbar", name="map simulate(params)")
    expect(bar).to_have_attribute("aria-valuenow", "30")
    assert (bar.get_attribute("aria-valuetext") or "").startswith("12 of 40 tasks, ")


def test_figures_and_workers_are_told_in_words(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(job())
    assert text_of(card.root.locator(".nbpar-figures > div"))[:3] == ["12 of 40 tasks", "3.1 /s", "9.0 s left"]
    assert text_of(card.root.locator(".nbpar-side").first.locator("span")) == ["0", "1"]
    assert text_of(card.root.locator(".nbpar-count")) == ["6", "6"]
    assert text_of(card.root.locator(".nbpar-busy")) == ["busy 90%", "busy 90%"]
    assert text_of(card.root.locator(".nbpar-now")) == ["item 18, 0.6 s, 30%", ""]
    assert text_of(card.root.locator(".nbpar-mem")) == ["307 MB", "307 MB"]
    assert text_of(card.root.locator(".nbpar-slow")) == ["1.0 s item 3 {'n': 3}"]
    bins = card.root.locator(".nbpar-bins").get_attribute("aria-label")
    assert bins == "how long tasks took: 100 ms to 180 ms, 3 tasks; 180 ms to 320 ms, 9 tasks"


def test_a_job_without_an_end_or_without_anything_yet_is_drawn(open_gallery: OpenGallery) -> None:
    empty = job(n_tasks=None, n_done=0, lanes=(), durations=(), slowest=(), eta_s=None, elapsed_s=0.0)
    card = open_gallery().show(empty)
    expect(card.root.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", re.compile(".*"))
    expect(card.root.locator(".nbpar-panel")).to_have_text("No task has ended yet.")
    lanes_of(card).focus()
    card.page.keyboard.press("ArrowDown")
    card.update(job(n_tasks=0, n_done=0, status="done", lanes=()))
    expect(card.root.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")


def test_the_card_keeps_its_height_while_the_job_runs(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    for width in (340, 420, 700, 1100):
        gallery.page.set_viewport_size({"width": width, "height": 900})
        bare = job(n_workers=3, lanes=(), durations=(), slowest=(), n_done=0, elapsed_s=0.3, rate=0.0, eta_s=None)
        card = gallery.show(bare)
        heights = [card.root.evaluate("(node) => node.offsetHeight")]
        third = lane(2, 0, pid=0)
        for later in (
            bare._replace(lanes=(third,), elapsed_s=0.5),
            job(n_workers=3, lanes=(lane(0), lane(1), third)),
            failing()._replace(n_workers=3),
            failing()._replace(n_workers=3, advice=(ADVICE, ADVICE), notes=("A worker died.",)),
            failing(40)._replace(n_workers=3, advice=(ADVICE,), elapsed_s=8000.0, rate=12345.6, eta_s=12345.6),
        ):
            card.scene.write([OutputLine(0, 1, "stdout", "x" * 300)] * 20)
            card.update(later)
            heights.append(card.root.evaluate("(node) => node.offsetHeight"))
        assert len(set(heights)) == 1, heights


@pytest.mark.parametrize("width", [320, 400, 700, 1200])
def test_nothing_sticks_out_or_overlaps(open_gallery: OpenGallery, width: int) -> None:
    gallery = open_gallery(width=width)
    long = failing(5)._replace(name="map " + "long_name" * 20, advice=(ADVICE * 3,), n_tasks=10**7, n_done=9_999_999)
    for snapshot in (
        job(),
        long,
        job(lanes=tuple(lane(i) for i in range(20))),
        job(lanes=tuple(lane(i) for i in range(64))),
    ):
        card = gallery.show(snapshot, cell_is_running=False)
        assert card.root.evaluate("(node) => node.scrollWidth <= node.clientWidth")
        boxes = [part.bounding_box() for part in card.root.locator(".nbpar-head > *").all() if part.is_visible()]
        edges = sorted((round(box["y"] / 16), box["x"], box["x"] + box["width"]) for box in boxes if box is not None)
        assert all(a[2] <= b[1] + 0.5 for a, b in pairwise(edges) if a[0] == b[0])
        name, legend = card.root.locator(".nbpar-name"), card.root.locator(".nbpar-legend")
        assert name.evaluate("(node) => node.clientWidth") >= 80
        assert legend.evaluate("(node) => node.scrollHeight <= node.clientHeight")
    assert gallery.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


# --- the task stream --------------------------------------------------------------------------------------------------


def test_hover_says_item_duration_and_bytes(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(failing())
    tip = card.root.locator(".nbpar-tip").first
    lanes_of(card).hover(position=point(card, 1.0))
    expect(tip).to_have_text("item 0worker 0 · 1.0 ssent 1.2 MB · received 80 kB")
    lanes_of(card).hover(position=point(card, 3.4))
    expect(tip.locator("div > div")).to_have_text(
        ["item 2", "worker 0 · 1.0 s", "sent 1.2 MB · received 80 kB", "failed", "ValueError: bad 2", "{'n': 2}"]
    )
    lanes_of(card).hover(position=point(card, 0.4, 1))
    expect(tip).to_have_text("worker 1 runs worker_init0.2 s")
    lanes_of(card).hover(position=point(card, 0.1, 1))
    expect(tip).to_have_text("worker 1 starts0.3 s")
    lanes_of(card).hover(position=point(card, 7.8, 1))
    expect(tip).to_have_text("worker 1, waiting6 tasks · busy 90% · 307 MB · CPU 90%")
    card.page.mouse.move(0, 0)
    expect(tip).to_be_hidden()


def test_a_click_pins_a_span_until_escape_and_it_outlives_merging(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(failing())
    pin = card.root.get_by_role("group", name="pinned")
    expect(pin).to_be_hidden()
    lanes_of(card).click(position=point(card, 3.4))
    expect(pin).to_contain_text("ValueError: bad 2")
    steps = Steps()
    growing = steps.lane()
    for span in failing().lanes[0].spans:
        growing.add(*span)
    for elapsed_s in (80.0, 160.0, 80_000.0):  # spans are less than a pixel by then
        steps.cover(units(elapsed_s))
        merged = lane(0)._replace(spans=growing.freeze())
        card.update(failing()._replace(elapsed_s=elapsed_s, step=steps.step, lanes=(merged, lane(1))))
        expect(pin).to_contain_text("item 2")
    card.page.keyboard.press("Escape")
    expect(pin).to_be_hidden()
    expect(lanes_of(card)).to_be_focused()
    lanes_of(card).click(position=point(card, 0.02))
    expect(pin).to_be_visible()
    pin.get_by_role("button", name="unpin").click()
    expect(pin).to_be_hidden()


def test_what_was_pinned_while_it_ran_is_followed_to_its_end(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(job())
    lanes_of(card).click(position=point(card, 7.9))
    pin = card.root.get_by_role("group", name="pinned")
    expect(pin).to_contain_text("item 18, runningworker 0 · for 0.6 s · 3 of 10")
    card.update(job(elapsed_s=9.0))
    expect(pin).to_contain_text("for 1.6 s")
    ended = lane(0)
    card.update(job(elapsed_s=10.0, lanes=(ended._replace(spans=(*ended.spans, Span(7.9, 9.5, 18, 18, 1))), lane(1))))
    expect(pin).to_contain_text("item 18worker 0 · 1.6 s")
    card.update(job(elapsed_s=11.0, lanes=(ended._replace(spans=(*ended.spans, Span(7.9, 9.5, 18, 18, 1))), lane(1))))
    expect(pin).to_contain_text("item 18worker 0 · 1.6 s")


def test_arrows_move_over_workers_and_spans_and_are_read(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(failing())
    press = card.page.keyboard.press
    lanes_of(card).focus()
    expect(said(card)).to_have_text(re.compile("^item 5, worker 0 · 1.0 s, sent"))  # the last one
    press("ArrowLeft")
    expect(said(card)).to_have_text(re.compile("^item 4, worker 0"))
    press("ArrowDown")
    expect(said(card)).to_have_text(re.compile("^item 14, worker 1"))
    press("ArrowDown")  # there is no third
    press("Home")
    expect(said(card)).to_have_text("worker 1 starts, 0.3 s")
    press("ArrowRight")
    expect(said(card)).to_have_text("worker 1 runs worker_init, 0.2 s")
    press("End")
    expect(said(card)).to_have_text(re.compile("^item 15, "))
    press("f")
    expect(said(card)).to_have_text(re.compile("^item 2, worker 0 .*failed, ValueError: bad 2"))
    press("Enter")
    expect(card.root.get_by_role("group", name="pinned")).to_contain_text("bad 2")
    card.update(failing()._replace(elapsed_s=9.0))
    expect(lanes_of(card)).to_be_focused()
    press("Escape")
    expect(card.root.get_by_role("group", name="pinned")).to_be_hidden()


def test_keys_that_the_card_takes_go_no_further(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    card = gallery.show(job())
    gallery.page.evaluate(
        "() => { window.keys = []; window.addEventListener('keydown', (e) => window.keys.push(e.key)); }"
    )
    lanes_of(card).focus()
    for key in ("ArrowDown", "Enter", "Escape", "Escape", "x"):
        gallery.page.keyboard.press(key)
    assert gallery.page.evaluate("() => window.keys") == ["Escape", "x"]  # nothing was pinned at the second one
    assert lanes_of(card).get_attribute("data-lm-suppress-shortcuts") == "true"


@pytest.mark.parametrize(
    ("n", "drawn", "text"),
    [
        (1, "full", True),
        (15, "full", True),
        (16, "thin", True),
        (24, "tiny", False),
        (48, "heat", False),
        (128, "heat", False),
    ],
)
def test_lanes_get_thinner_and_fold_into_a_heat_strip(
    open_gallery: OpenGallery, n: int, drawn: str, *, text: bool
) -> None:
    card = open_gallery(width=1000).show(
        job(n_workers=n, lanes=tuple(lane(i, failed=2 if i == n - 1 else -1) for i in range(n)))
    )
    expect(card.root.locator(".nbpar-stream")).to_have_attribute("data-rows", drawn)
    assert card.root.locator(".nbpar-count").first.is_visible() is text
    height = card.root.locator(".nbpar-canvas").evaluate("(node) => node.clientHeight")
    assert height <= 420
    box = card.root.locator(".nbpar-canvas").bounding_box()
    assert box is not None
    pitch = (height - 18) / n
    left, right = (0, 0) if text else (30, 58)
    x = left + (box["width"] - left - right) * 3.4 / 8.0
    lanes_of(card).hover(position={"x": x, "y": (n - 0.5) * pitch})
    expect(card.root.locator(".nbpar-tip").first).to_contain_text(f"worker {n - 1} · 1.0 s")
    expect(card.root.locator(".nbpar-tip").first).to_contain_text("failed")
    assert colours(card)["#d55e00"] >= 5  # the one failure


def colours(card: LiveCard) -> dict[str, int]:
    """How many dots of each colour the lanes have."""
    found: dict[str, int] = card.root.locator(".nbpar-canvas").evaluate(
        """(canvas) => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), found = {};
            for (let i = 0; i < data.length; i += 4) {
                const hex = "#" + [0, 1, 2].map((k) => data[i + k].toString(16).padStart(2, "0")).join("");
                found[hex] = (found[hex] || 0) + (data[i + 3] === 255 ? 1 : 0);
            }
            return found;
        }"""
    )
    return found


def test_each_outcome_has_its_colour_and_progress_within_a_task_fills_it(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(job(lanes=(lane(0, failed=2, current_index=18, current_since_s=7.7), lane(1))))
    found = colours(card)
    for colour in ("#3b7dd8", "#79aeea", "#d55e00", "#d3e5fa", "#b3a4da", "#8a76c4", "#f3f5f7"):
        assert found[colour] >= 50, colour
    before = found["#d3e5fa"]
    card.update(job(lanes=(lane(0, failed=2, current_index=18, current_since_s=7.7, track=(9, 10)), lane(1))))
    assert colours(card)["#d3e5fa"] < before / 2


def test_the_drawing_moves_in_steps_when_motion_is_to_be_reduced(open_gallery: OpenGallery) -> None:
    still = [lane(0), lane(1)]
    for reduced, same in ((True, True), (False, False)):
        card = open_gallery(reduced_motion=reduced).show(job(lanes=tuple(still), elapsed_s=8.0))
        canvas = card.root.locator(".nbpar-canvas")
        first = canvas.evaluate("(node) => node.toDataURL()")
        card.update(job(lanes=tuple(still), elapsed_s=8.1))
        assert (canvas.evaluate("(node) => node.toDataURL()") == first) is same
        moving = card.root.evaluate(
            "(root) => [root, ...root.querySelectorAll('*')].filter((node) => { const style = getComputedStyle(node);"
            " return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0; }).length"
        )
        assert moving == 0


# --- light and dark ---------------------------------------------------------------------------------------------------

# The contrast of each element that has text of its own, against the nearest background behind it.
_CONTRASTS = """(root) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of root.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.tagName === "STYLE" || !node.checkVisibility() || node.closest("[aria-hidden]")) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_a_contrast_of_four_and_a_half_at_least(open_gallery: OpenGallery, theme: Theme) -> None:
    gallery = open_gallery(theme=theme, width=1000)
    snapshots = [
        failing()._replace(status=status, advice=(ADVICE, ADVICE))
        for status in ("running", "paused", "done", "failed", "cancelled")
    ]
    lines = [OutputLine(0, 1, "stderr", "careful"), OutputLine(0, 1, "stdout", "fine")]
    for snapshot in snapshots:
        card = gallery.show(snapshot, lines=lines, cell_is_running=False)
        lanes_of(card).click(position=point(card, 3.4))
        for name in ("Output", "Durations"):
            card.root.get_by_role("button", name=name).click()
            card.drawn()
            contrasts = card.root.evaluate(_CONTRASTS)
            assert len(contrasts) > 15
            assert [entry for entry in contrasts if entry[0] < 4.5] == []
        for colour in ("task", "alt", "fail", "init"):  # what is drawn, against the lane
            assert card.root.evaluate(
                "(root, name) => getComputedStyle(root).getPropertyValue('--' + name).trim() !=="
                " getComputedStyle(root).getPropertyValue('--lane').trim()",
                colour,
            )


def test_the_theme_is_the_notebooks_and_follows_it(open_gallery: OpenGallery) -> None:
    gallery = open_gallery(theme="light")
    card = gallery.show(job())
    assert card.root.get_attribute("data-dark") is None
    light = colours(card)
    gallery.set_theme("dark")
    expect(card.root).to_have_attribute("data-dark", "")
    card.drawn()
    assert colours(card)["#1b2027"] > 0 and "#1b2027" not in light
    vscode = "(name) => { delete document.body.dataset.jpThemeLight; document.body.className = name; }"
    for name, dark in (
        ("vscode-light", False),
        ("vscode-dark", True),
        ("vscode-high-contrast-light vscode-high-contrast", False),
        ("vscode-high-contrast", True),
    ):
        gallery.page.evaluate(vscode, name)
        card.drawn()
        assert (card.root.get_attribute("data-dark") is not None) is dark, name


# --- panels -----------------------------------------------------------------------------------------------------------


def test_the_first_failure_opens_its_panel_and_a_choice_is_kept(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    card, other = gallery.show(job()), gallery.show(job())
    panels = {name: card.root.get_by_role("button", name=name) for name in ("Durations", "failed", "Output")}
    expect(panels["Durations"]).to_have_attribute("aria-expanded", "true")
    expect(panels["failed"]).to_be_hidden()
    card.update(failing())
    expect(panels["failed"]).to_have_attribute("aria-expanded", "true")
    expect(card.root.locator(".nbpar-failure summary span")).to_have_text(["#2", "{'n': 2}", "ValueError: bad 2"])
    other.root.get_by_role("button", name="Durations").click()  # closes it
    other.update(failing())
    expect(other.root.locator(".nbpar-panel")).to_be_hidden()


def test_failures_fold_their_tracebacks_and_keep_focus_when_more_come(open_gallery: OpenGallery) -> None:
    card = open_gallery().show(failing(2))
    summary = card.root.locator(".nbpar-failure summary").first
    summary.focus()
    card.page.keyboard.press("Enter")
    expect(card.root.locator(".nbpar-failure pre").first).to_have_text("Traceback\n  line 2")
    card.update(failing(30))
    expect(summary).to_be_focused()
    expect(card.root.locator(".nbpar-failure").first).to_have_attribute("open", "")
    assert card.root.locator(".nbpar-failure").count() == 30
    hundred = failing(100)
    card.update(hundred._replace(n_failed=1234))
    expect(card.root.locator(".nbpar-failures > :last-child")).to_have_text("and 1,134 more")


def test_output_is_grouped_by_task_and_the_last_lines_are_kept(open_gallery: OpenGallery) -> None:
    lines = [OutputLine(i % 2, 40 + i % 2, "stderr" if i == 3 else "stdout", f"  step {i}") for i in range(4)]
    card = open_gallery().show(job(), lines=[*lines, OutputLine(1, None, "stdout", "between")])
    card.root.get_by_role("button", name="Output 5").click()
    groups = card.root.locator(".nbpar-group")
    expect(groups.locator("> div")).to_have_text(["item 40 · worker 0", "item 41 · worker 1", "worker 1"])
    expect(groups.nth(1).locator("pre > div")).to_have_text(["  step 1", "  step 3"])
    expect(groups.locator(".nbpar-err")).to_have_text("  step 3")
    card.scene.write([OutputLine(0, 7, "stdout", str(i)) for i in range(500)])
    card.update(job(n_done=13))
    expect(card.root.locator(".nbpar-group pre > div")).to_have_count(201)
    expect(groups.first).to_have_text("the last 200 of 505 lines")
    expect(groups.last.locator("pre > div").last).to_be_in_viewport()


def test_advice_comes_before_notes_and_all_of_it_is_a_click_away(open_gallery: OpenGallery) -> None:
    card = open_gallery().show(job(advice=(ADVICE, "second"), notes=("a note",)))
    shown = card.root.locator(".nbpar-note")
    expect(shown).to_have_text([ADVICE, "second", "a note"])
    more = card.root.get_by_role("button", name="all advice")
    expect(more).to_have_text("+2")
    assert [node.is_visible() for node in shown.all()] == [True, False, False]
    more.click()
    expect(shown.last).to_be_visible()
    expect(card.root.locator(".nbpar-legend")).to_be_hidden()


def test_tab_reaches_everything_in_reading_order(open_gallery: OpenGallery) -> None:
    card = open_gallery().show(
        failing(2)._replace(advice=(ADVICE, "second")), lines=[OutputLine(0, 1, "stdout", "x")], cell_is_running=False
    )
    lanes_of(card).click(position=point(card, 3.4))
    card.page.evaluate(
        "() => { const first = document.createElement('button'); document.body.prepend(first); first.focus(); }"
    )
    reached = []
    for _ in range(12):
        card.page.keyboard.press("Tab")
        reached.append(
            card.page.evaluate(
                "() => { const node = document.activeElement;"
                " return node.getAttribute('aria-label') || node.innerText.split('\\n')[0]; }"
            )
        )
    assert [re.sub(":.*|#.*", "", text) for text in reached[:9]] == [
        *("Pause", "Cancel", "task stream", "unpin", "all advice", "Durations", "2 failed", "Output 1", "failed tasks")
    ]


# --- messages ---------------------------------------------------------------------------------------------------------


def test_hostile_text_stays_text(open_gallery: OpenGallery) -> None:
    hostile = job(
        name=HOSTILE,
        n_failed=1,
        lanes=(lane(0, failed=2), lane(1)),
        failures=(Failure(2, HOSTILE, HOSTILE, HOSTILE, 0, HOSTILE),),
        notes=(HOSTILE,),
        advice=(HOSTILE,),
        slowest=(SlowTask(3, 1.0, 0, HOSTILE),),
    )
    card = open_gallery(width=1000).show(hostile, lines=[OutputLine(0, 3, "stdout", HOSTILE)])
    lanes_of(card).click(position=point(card, 3.4))
    for name in ("Output", "Durations", "failed"):
        card.root.get_by_role("button", name=name).click()
        card.drawn()
        assert card.root.locator("img, script, b.hostile, [onerror]").count() == 0
    expect(card.root.locator(".nbpar-name")).to_contain_text("<img src=x onerror=alert(1)>")


def test_everything_is_asked_for_when_a_message_was_missed(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(job())
    card.scene.change(job(n_done=13), cell_is_running=True)  # nobody gets this one
    card.update(job(n_done=14))
    card.update(job(n_done=15))
    wants = [message for message in card.sent if "want" in message]
    assert wants == [{"want": "all"}]
    assert text_of(card.root.locator(".nbpar-figures > div"))[0] == "12 of 40 tasks"
    card.tell({"scene": card.scene.full()})
    assert text_of(card.root.locator(".nbpar-figures > div"))[0] == "15 of 40 tasks"
    card.update(job(n_done=16))
    assert text_of(card.root.locator(".nbpar-figures > div"))[0] == "16 of 40 tasks"


def test_the_front_end_keeps_what_the_kernel_keeps(open_gallery: OpenGallery) -> None:
    rnd = random.Random(5)
    truth = JobState(job_id=7, name="x", n_tasks=None, n_workers=3, begin_s=0.0)
    scene, messages, ends, index = Scene(), [], [0.1, 0.2, 0.3], 0
    for _ in range(60):
        for _ in range(rnd.randrange(60)):
            worker_id = rnd.randrange(3)
            begin_s = ends[worker_id] + rnd.choice([0, 0.0001, 0.02])
            ends[worker_id] = begin_s + rnd.choice([0.0002, 0.003, 0.4])
            truth.apply(
                ChunkDone(worker_id, index, index + 2, begin_s, ends[worker_id], int(rnd.random() < 0.02), sent_bytes=9)
            )
            index += 2
        scene.write([OutputLine(0, index, "stdout", f"line {index}")])
        messages.append(scene.change(truth.snapshot(max(ends), {}), cell_is_running=True))
    assert len({message["step"] for message in messages}) > 4
    n_told = sum(len(numbers) for message in messages for _, _, numbers in message["marks"])
    told = [[content, [list(one) for one in buffers]] for content, buffers in map(packed, messages[1:])]
    kept = open_gallery().page.evaluate("(messages) => window.replay(messages)", [plain(messages[0]), *told])
    full = scene.full()
    assert [[row, 0, *lane["marks"]] for row, lane in enumerate(kept["lanes"])] == full["marks"]
    for name, column in full["lanes"].items():
        assert [lane[name] for lane in kept["lanes"]] == list(column)
    assert n_told < 10 * sum(len(lane["marks"]) for lane in kept["lanes"])  # not all of it each time
    assert kept["lines"] == full["lines"]
    assert kept["failures"] == full["failures"]


def test_a_card_that_was_drawn_before_it_is_in_the_page_has_its_colours(open_gallery: OpenGallery) -> None:
    gallery = open_gallery(width=1000)
    card = gallery.show(job())
    gallery.page.evaluate("() => window.again(0)")
    card.root = gallery.page.locator(".nbpar-card").nth(1)
    expect(card.root).to_be_visible()
    card.update(job(elapsed_s=8.1))
    assert colours(card)["#3b7dd8"] >= 50
    assert "#000000" not in {colour for colour, n in colours(card).items() if n > 20}


def test_two_views_of_a_job_show_the_same_and_ask_once(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    card = gallery.show(job())
    gallery.page.evaluate("() => window.again(0)")
    card.update(job(n_done=20))
    expect(gallery.page.locator(".nbpar-figures > :first-child")).to_have_text(["20 of 40 tasks"] * 2)
    assert sum("ping" in message for message in card.sent) == 1


def test_a_card_that_was_drawn_before_it_came_into_the_page_has_its_colours(open_gallery: OpenGallery) -> None:
    gallery = open_gallery(width=1000)
    card = gallery.show(job())
    gallery.page.evaluate(
        """() => {
            const main = document.querySelector("main");
            let late = null;
            main.append = (el) => { late = el; };
            window.again(0);
            delete main.append;
            main.append(late);
        }"""
    )
    card.update(job(n_done=20))
    card.root = gallery.page.locator(".nbpar-card").nth(1)
    assert colours(card)["#3b7dd8"] >= 50


def test_a_message_whose_numbers_got_lost_is_asked_for_again(open_gallery: OpenGallery) -> None:
    card = open_gallery(width=1000).show(job())
    content, _ = packed(card.scene.change(job(n_done=13), cell_is_running=True))
    card.tell({"scene": content})
    assert [message for message in card.sent if "want" in message] == [{"want": "all"}]
    card.tell({"scene": card.scene.full()})
    assert text_of(card.root.locator(".nbpar-figures > div"))[0] == "13 of 40 tasks"


# --- buttons ----------------------------------------------------------------------------------------------------------


def test_pause_is_shown_once_the_kernel_answers_while_its_cell_runs(open_gallery: OpenGallery) -> None:
    card = open_gallery().show(job())
    pause = card.root.get_by_role("button", name="Pause")
    expect(card.root.get_by_role("button", name="Cancel")).to_be_visible()
    expect(pause).to_be_hidden()
    assert {"ping": 7} in card.sent
    card.tell({"pong": 6})
    expect(pause).to_be_hidden()
    card.tell({"pong": 7})
    expect(pause).to_be_visible()
    pause.focus()
    pause.click()
    pause.dispatch_event("click")  # not asked twice
    assert [message for message in card.sent if "pause" in message] == [{"pause": 7}]
    card.tell({"ack": 7, "of": "pause"})
    card.update(job(status="paused"))
    resume = card.root.get_by_role("button", name="Resume")
    expect(resume).to_be_focused()
    resume.click()
    assert card.sent[-1] == {"resume": 7}


def test_a_pause_that_nobody_hears_yet_says_so(open_gallery: OpenGallery) -> None:
    card = open_gallery().show(job(), cell_is_running=False)
    card.root.get_by_role("button", name="Pause").click()
    expect(card.root.locator(".nbpar-hint")).to_have_text("pauses when the running cell ends")
    card.tell({"ack": 7, "of": "pause"})
    expect(card.root.locator(".nbpar-hint")).to_have_text("")


def test_there_is_no_pause_where_the_backend_cannot_and_no_button_without_controls(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    card = gallery.show(job(can_pause=False), cell_is_running=False)
    expect(card.root.get_by_role("button", name="Pause")).to_be_hidden()
    bare = gallery.show(job(), can_cancel=False)
    assert bare.root.locator(".nbpar-button").count() == 0


def test_cancel_interrupts_only_the_jobs_own_cell_and_only_when_nothing_answers(open_gallery: OpenGallery) -> None:
    gallery = open_gallery()
    give_kernel = (
        "(i) => { window.cards[i].model.widget_manager = {kernel: {interrupt: () => { window.interrupts += 1; }}}; }"
    )
    gallery.page.evaluate("() => { window.interrupts = 0; }")
    answered, background, silent = gallery.show(job()), gallery.show(job(), cell_is_running=False), gallery.show(job())
    for i in range(3):
        gallery.page.evaluate(give_kernel, i)
    answered.root.get_by_role("button", name="Cancel").click()
    answered.tell({"ack": 7, "of": "cancel"})
    background.root.get_by_role("button", name="Cancel").click()
    expect(background.root.locator(".nbpar-hint")).to_have_text("cancels when the running cell ends")
    assert gallery.page.evaluate("() => window.interrupts") == 0
    cancel = silent.root.get_by_role("button", name="Cancel")
    cancel.click()
    expect(silent.root.locator(".nbpar-status")).to_have_text("cancelling")
    expect(cancel).to_be_focused()
    gallery.page.wait_for_function("() => window.interrupts === 1")
    silent.update(job(status="cancelled"))
    expect(cancel).to_be_hidden()
    expect(lanes_of(silent)).to_be_focused()
    assert [message for message in silent.sent if "cancel" in message] == [{"cancel": 7}]
