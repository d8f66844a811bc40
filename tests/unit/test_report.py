"""The picture of a job that stays: what it says, draws and weighs, with and without styles."""

from __future__ import annotations

import doctest
import importlib
import random
import re
import struct
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine.events import SlowTask
from nbpar.engine.insights import Insights
from nbpar.engine.snapshot import Bin, HotLine, Profile, Snapshot, Span, Times, Usage
from nbpar.insights import JobInsights
from nbpar.views import picture, report, sections, wording
from tests.unit.snapshots import HOSTILE, everything, failures, job, lane

SVG, PNG = "data:image/svg+xml,", "data:image/png;base64,"
TAGS = {
    *("div", "p", "span", "strong", "img", "details", "summary"),
    *("table", "tr", "th", "td", "code", "pre"),
}
ATTRIBUTES = {"style", "src", "alt", "width", "height", "open", "scope", "colspan"}


class Page(HTMLParser):
    """A page as a browser reads it; fails where an element is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """What there is to read, in order, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def images(html: str) -> list[dict[str, str]]:
    return Page(html).all("img")


def drawings(html: str) -> list[ET.Element]:
    """The SVG in the images, each well-formed."""
    sources = [image["src"] for image in images(html)]
    assert all(source.startswith((SVG, PNG)) for source in sources)
    return [ET.fromstring(unquote(source.removeprefix(SVG))) for source in sources if source.startswith(SVG)]


def lanes_of(html: str) -> list[ET.Element]:
    return [drawing for drawing in drawings(html) if drawing.get("viewBox") == f"0 0 {picture.WIDTH} 16"]


def colours(drawing: ET.Element) -> set[str | None]:
    return {path.get("stroke") for path in drawing}


def in_order(text: str, *parts: str) -> bool:
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def as_on_github(html: str) -> str:
    """The page without what GitHub takes out: styles, classes, images that hold themselves."""
    html = re.sub(r' (?:style|class)="[^"]*"', "", html)
    return re.sub(r"<img [^>]*>", "", html)


@pytest.mark.parametrize("name", ["picture", "report", "table"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"nbpar.views.{name}"))
    assert results.attempted > 0
    assert results.failed == 0


# --- what it says -----------------------------------------------------------------------------------------------------


def test_everything_can_be_read_in_order_without_styles_and_images() -> None:
    shown = everything(3, text="boom", n_failed=2)
    text = Page(as_on_github(report.to_html(shown))).text
    assert in_order(
        text,
        "boom done",
        "2,000 of 2,000 tasks · 312 /s · took 30 s",
        "serial · 2 failed",
        "worker memory, CPU tasks over time tasks busy",
        *("0 259 MB 40 90%", "1 259 MB 40 90%", "2 259 MB 40 90%"),
        "0 s 10 s 20 s",
        *("advice 0: boom", "advice 2: boom"),
        "2 failed index item error",
        *("#0 item boom ValueError: boom", "#1 item boom ValueError: boom"),
        *("traceback of #0", "Traceback 0"),
        *("Profile : 27 s in tasks", "line 0: boom", "call tree", "27.0 s 100 % boom"),
        *("note 0: boom", "note 19: boom"),
        "Durations median",
        "Slowest tasks took index item worker",
        *("5.00 s #0 item boom 0", "1.00 s #4 item boom 1"),
        "Insights 93% of the workers' time in tasks, 5% waiting",
        "sent 3.0 GB, received 900 kB",
        "worker pid tasks start init wait transfer work exit busy memory cores sent received",
        *("0 100 40 0.1 s 50 ms 1.5 s 0.2 s 27 s 10 ms 90% 259 MB", "2 102 40 0.1 s"),
    )


def test_nothing_is_said_of_what_is_not_known() -> None:
    page = Page(report.to_html(job(status="done", lanes=(lane(0),))))
    for word in ("memory", "CPU", "Durations", "Slowest", "sent", "failed", "advice"):
        assert word not in page.text
    assert "Insights" not in Page(report.to_html(job(lanes=()))).text


def test_every_image_says_what_it_shows() -> None:
    for n_workers in (1, 3, 20, 60):
        alts = [image["alt"] for image in images(report.to_html(everything(n_workers)))]
        assert all(len(alt) > 8 for alt in alts)
    alts = [image["alt"] for image in images(report.to_html(everything(1)))]
    assert alts[0] == "100% done"
    assert alts[1] == "memory up to 259 MB, 0.5 cores on average"
    assert alts[2] == "worker 0: 40 tasks, 2 failed, busy 90%"
    assert alts[3].startswith(
        "how long tasks took, 10 ms to 9.98 s, the number of tasks in each step of the scale: 5, 12, "
    )


def test_tables_have_headers_that_say_what_they_head() -> None:
    page = Page(report.to_html(everything(3)))
    headers = page.all("th")
    assert {header["scope"] for header in headers} == {"row", "col", "colgroup"}
    assert len(page.all("table")) == 5  # lanes, failures, profile, slowest, insights
    assert sum(header["scope"] == "row" for header in headers) == 3 + 2 + 5 + 3


def test_a_traceback_that_many_share_is_shown_once() -> None:
    one = failures(1)[0]
    alike = tuple(
        type(one)(i, "x", "ValueError", "boom", 0, "Traceback of all" if i < 4 else "Traceback of the last")
        for i in range(5)
    )
    text = Page(report.to_html(job(n_failed=5, failures=alike))).text
    assert text.count("Traceback of") == 2
    assert "traceback of #0 and 3 alike" in text
    assert in_order(text, "traceback of #4", "Traceback of the last")


def test_a_running_job_says_what_is_left_and_draws_what_runs() -> None:
    now = job(lanes=(lane(0, current_index=9, current_since_s=1.6), lane(1, pid=0, spans=(), ready_s=0.0)))
    html = report.to_html(now)
    assert in_order(Page(html).text, "map simulate running", "2.3 s left")
    first, second = lanes_of(html)
    assert picture.RUNNING in colours(first)
    assert colours(second) == {picture.LANE, picture.STARTING}  # all of it: it is starting still


def test_insights_alone_are_a_card_with_an_open_table() -> None:
    told = Insights.of(everything(2))
    page = Page(report.insights_to_html(told))
    assert in_order(
        page.text, "boom done", "serial: 54 s in tasks in 30 s", "Slowest tasks", "worker pid tasks", "1 101"
    )
    assert page.all("details") == [{"open": "open", "style": "margin-top:14px"}]


def test_insights_as_a_last_expression_are_html_and_text() -> None:
    told = JobInsights.of(everything(2))
    shown = told._repr_mimebundle_()
    assert shown == {"text/html": report.insights_to_html(told), "text/plain": str(told)}
    check_markup(shown["text/html"])


@given(st.sampled_from([HOSTILE, '"' * 4000, "\N{PILE OF POO}" * 4000]), st.sampled_from([0, 1, 128, 500]))
@settings(max_examples=12, deadline=None)
def test_insights_alone_are_small_and_escaped(text: str, n_workers: int) -> None:
    shown = everything(max(1, n_workers), n_spans=1, text=text)
    html = report.insights_to_html(Insights.of(shown._replace(lanes=shown.lanes[:n_workers])))
    check_markup(html)
    assert len(html.encode()) < 50_000


# --- what it draws ----------------------------------------------------------------------------------------------------


def test_start_up_init_tasks_and_failures_have_different_colours() -> None:
    (first,) = lanes_of(report.to_html(job(lanes=(lane(0, n_failed=1, times=Times(0.05, 0.05)),), n_failed=1)))
    blue = {picture.TASK, picture.ALTERNATE}
    assert colours(first) == {picture.LANE, picture.STARTING, picture.INIT, picture.FAILED, "#fff"} | blue
    (second,) = lanes_of(report.to_html(job(lanes=(lane(0),))))
    assert picture.FAILED not in colours(second)


@pytest.mark.parametrize(("n_workers", "n_lanes"), [(1, 1), (16, 16), (17, 0), (47, 0), (48, 0), (300, 0)])
def test_few_workers_have_a_row_each_more_one_drawing_many_a_heat_strip(n_workers: int, n_lanes: int) -> None:
    html = report.to_html(job(lanes=tuple(lane(i) for i in range(n_workers))))
    assert len(lanes_of(html)) == n_lanes
    is_strip = any(image["src"].startswith(PNG) for image in images(html))
    assert is_strip == (n_workers >= 48)
    if not n_lanes:
        assert f"workers 0 to {n_workers - 1}" in Page(html).text
    if n_workers == 47:
        (thin,) = [drawing for drawing in drawings(html) if drawing.get("viewBox") == f"0 0 {picture.WIDTH} 470"]
        ys = {int(step) for path in thin for step in re.findall(r"M\d+,(\d+)", path.attrib["d"])}
        assert ys == {4 + 10 * row for row in range(47)}


@pytest.mark.parametrize(("n_workers", "n_heat"), [(2, 0), (16, 16), (30, 1)])
def test_lanes_of_more_spans_than_there_is_room_for_show_heat(n_workers: int, n_heat: int) -> None:
    html = report.to_html(job(elapsed_s=52.0, lanes=tuple(lane(i, 512, step_s=0.1) for i in range(n_workers))))
    assert sum(image["src"].startswith(PNG) for image in images(html)) == n_heat


def pixels(html: str) -> list[list[int]]:
    """The heat strip's indices into its palette, line by line."""
    (source,) = [image["src"] for image in images(html) if image["src"].startswith(PNG)]
    data = b64decode(source.removeprefix(PNG))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        parts[kind] = body
        at += length + 12
    width, height = struct.unpack_from(">II", parts[b"IHDR"])
    assert len(parts[b"PLTE"]) == 3 * len(parts[b"tRNS"])
    raw = zlib.decompress(parts[b"IDAT"])
    lines = [list(raw[i * (width + 1) + 1 : (i + 1) * (width + 1)]) for i in range(height)]
    assert max(map(max, lines)) < len(parts[b"tRNS"])
    return lines


def test_heat_strip_shows_how_busy_each_worker_was_and_where_tasks_failed() -> None:
    half = tuple(Span(0.1 * i, 0.1 * i + 0.05, i, i, 1) for i in range(50))  # half of the first 5 s of 10
    failing = (Span(2.0, 2.001, 0, 0, 1, 1),)
    lanes = [lane(i, 0, ready_s=1.0 if i == 2 else 0.0) for i in range(60)]
    lanes[0], lanes[1] = lanes[0]._replace(spans=half), lanes[1]._replace(spans=failing)
    lines = pixels(report.to_html(job(elapsed_s=10.0, lanes=tuple(lanes))))
    assert len(lines) == 60 * 6
    first, second, third, fourth = (lines[6 * row] for row in range(4))
    width = len(first)
    assert lines[23] == [picture._GAP] * width
    assert set(first[width // 2 + 1 :]) == {0}
    assert sum(first[: width // 2]) / (width // 2) == pytest.approx(4, abs=0.5)  # of eight levels
    stud = [i for i, level in enumerate(second) if level]
    assert len(stud) == picture.STUD * width // picture.WIDTH and width // 5 in stud
    # It stands out of its line, above and below: not the colour alone says it.
    shown = [[row for row in range(14) if lines[row][i] == picture._FAILED] for i in stud]
    assert shown == [list(range(5, 12))] * len(stud)
    assert set(third[: width // 10]) == {picture._STARTING}
    assert set(third[width // 10 :]) | set(fourth) == {0}


def test_lanes_that_show_heat_have_a_cross_where_tasks_failed_and_stay_small() -> None:
    spans = tuple(Span(0.1 * i, 0.1 * i + 0.08, i, i, 1, int(i in (0, 255, 511))) for i in range(512))
    failing = job(
        elapsed_s=51.2, n_failed=3, lanes=(lane(0, spans=spans), *(lane(i, 512, step_s=0.1) for i in range(1, 9)))
    )
    first, *others = [image["src"] for image in images(report.to_html(failing)) if image["src"].startswith(PNG)]
    assert len(others) == 8 and len(first) < 1000
    lines = pixels(f'<img src="{first}"/>')
    assert len(lines) == 16 and {len(line) for line in lines} == {picture.WIDTH}
    white = [(row, i) for row, line in enumerate(lines) for i, index in enumerate(line) if index == picture._CROSS]
    assert len(white) == 3 * (2 * picture.CROSS - 1)
    left, top = min(i for _, i in white), min(row for row, _ in white)
    assert {(row - top, i - left) for row, i in white if i < 100} == {
        (i, at) for i in range(picture.CROSS) for at in (i, picture.CROSS - 1 - i)
    }
    assert all(lines[row][i] in (picture._CROSS, picture._FAILED) for row in range(16) for i in range(11))


def test_beyond_128_workers_share_the_lines_of_a_heat_strip() -> None:
    busy = lane(299, 0, spans=(Span(0.0, 2.0, 0, 0, 1),))
    html = report.to_html(job(lanes=(*(lane(i, 0, ready_s=0.0) for i in range(299)), busy)))
    lines = pixels(html)
    assert len(lines) == 100 * 3
    assert set(lines[-1]) == {3}  # a third of eight levels
    assert set(lines[0]) == {0}
    assert "a line for every 3" in Page(html).text


def test_sparklines_show_the_peak_of_memory_however_few_points_there_are() -> None:
    usage = tuple(Usage(i, 900_000_000 if i == 31 else 100_000_000, 0.5) for i in range(60))
    low = tuple(Usage(i, 450_000_000, 2.0) for i in range(3))
    html = report.to_html(job(lanes=(lane(0, usage=usage), lane(1, usage=low), lane(2, usage=low[:1]), lane(3))))
    small = [drawing for drawing in drawings(html) if drawing.get("viewBox") == "0 0 56 16"]
    tops = [min(int(y) for y in re.findall(r"\d+,(\d+)", drawing[1].attrib["d"])) for drawing in small]
    assert tops == [1, 8, 8]  # the most that any worker had is the top of all
    assert in_order(Page(html).text, "900 MB", "450 MB", "450 MB")


def test_histogram_has_a_column_for_each_bin_as_high_as_its_share() -> None:
    bins = (Bin(0.01, 0.02, 1), Bin(0.02, 0.04, 0), Bin(0.04, 0.08, 4))
    html = report.to_html(job(status="done", durations=bins))
    (drawing,) = [drawing for drawing in drawings(html) if drawing.get("viewBox") == "0 0 280 44"]
    *columns, _ = drawing
    assert [re.findall(r"v-(\d+)", column.attrib["d"]) for column in columns] == [["11"], ["44"]]
    text = Page(html).text
    assert in_order(text, "Durations", "median", "10 ms 80 ms")


def test_the_axis_has_its_moments_where_they_are() -> None:
    html = report.to_html(job(elapsed_s=2.4))
    cells = re.findall(r"width:([\d.]+)%;border-left[^>]*>([^<]*)</span>", html)
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for _, text in cells] == ["0 s", "0.5 s", "1 s", "1.5 s", "2 s"]
    widths = [float(width) for width, _ in cells]
    assert all(width == pytest.approx(100 * 0.5 / 2.4, abs=0.02) for width in widths[:-1])
    assert sum(widths) <= 100


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 40)), max_size=60), st.integers(1, 12))
def test_merged_stretches_stay_apart_and_inside(pairs: list[tuple[int, int]], step: int) -> None:
    merged = picture.merge([(a, min(600, a + width)) for a, width in pairs], step)
    assert all(0 <= left < right <= 600 for left, right in merged)
    assert all(a[1] <= b[0] for a, b in pairwise(merged))
    assert len(merged) <= 600 // step + 1
    for a, _ in pairs:  # nothing that was there is nowhere
        assert a >= 600 or any(left - step <= a <= right + step for left, right in merged)


# --- what reaches the reader ------------------------------------------------------------------------------------------

STYLES = {
    *("background", "border", "border-collapse", "border-left", "border-radius", "box-sizing", "color", "display"),
    *("float", "font-family", "font-size", "font-weight", "height", "line-height", "margin", "margin-bottom"),
    *(
        "margin-left",
        "margin-top",
        "max-width",
        "min-width",
        "opacity",
        "overflow",
        "overflow-x",
        "padding",
        "table-layout",
    ),
    *("text-align", "vertical-align", "white-space", "width", "word-break"),
}


def styles(html: str) -> set[tuple[str, str]]:
    found = set()
    for _, attributes in Page(html).elements:
        for declaration in filter(None, attributes.get("style", "").split(";")):
            name, _, value = declaration.partition(":")
            found.add((name, value))
    return found


def test_styles_are_those_that_jupyterlab_leaves_in_a_notebook_that_it_does_not_trust() -> None:
    for n_workers in (1, 20, 60):
        for name, value in styles(report.to_html(everything(n_workers))):
            assert name in STYLES
            assert not re.search(r"(^|[ ,(])\.\d", value)  # its rules know no number without a digit before the point
            assert "var(" not in value


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_has_the_pages_colour_or_stands_on_a_ground_of_its_own() -> None:
    for status in ("running", "paused", "done", "failed", "cancelled"):
        html = report.to_html(everything(2)._replace(status=status))
        page = Page(html)
        coloured = [a["style"] for tag, a in page.elements if re.search(r"(^|;)color:", a.get("style", ""))]
        coloured = [style for style in coloured if picture.FAILED not in style]  # the profile's bars
        assert len(coloured) == 2  # the status and how many failed
        for style in coloured:
            (ground,) = re.findall(r"background:(#\w{6});color:#fff;", style)
            assert contrast(ground, "#ffffff") >= 4.5
    for name, value in styles(report.to_html(everything(2))):
        if name == "background" and value.startswith("rgba"):  # a tint that the page shines through
            assert float(value.rstrip(")").split(",")[-1]) <= 0.2
        if name == "opacity":
            assert float(value) >= 0.75


def test_what_is_drawn_is_seen_on_light_and_dark_pages() -> None:
    for colour in (picture.TASK, picture.FAILED, picture.INIT, picture.MEMORY):
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#111111") >= 3


def check_markup(html: str) -> Page:
    """Well-formed, of the known elements and attributes, and nothing that acts or fetches."""
    ET.fromstring(html)
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES
        assert attributes.get("src", SVG).startswith((SVG, PNG))
    for drawing in drawings(html):
        assert {element.tag.rpartition("}")[2] for element in drawing.iter()} <= {"svg", "path", "rect"}
    return page


texts = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [HOSTILE, HOSTILE * 40, '"' * 4000, "\N{PILE OF POO}" * 3000, "a\nb\tc\r\x0b", "\ud83d", "x" * 10**6]
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from([0, 1, 2, 16, 20, 70]), st.data())
def test_whatever_the_texts_the_page_is_well_formed_small_and_escaped(
    found: list[str], n_workers: int, data: st.DataObject
) -> None:
    def text(i: int) -> str:
        return found[i % len(found)]

    shown = everything(max(1, n_workers), n_spans=data.draw(st.integers(1, 30)), text=text(0), n_failed=7)
    shown = shown._replace(
        lanes=shown.lanes[:n_workers],
        notes=tuple(text(i) for i in range(20)),
        advice=tuple(text(i) for i in range(3)),
        failures=tuple(
            type(one)(one.index, text(i), text(i + 1), text(i + 2), 0, text(i + 3))
            for i, one in enumerate(shown.failures)
        ),
        slowest=tuple(SlowTask(i, 1.0, 0, text(i)) for i in range(5)),
    )
    html, plain = report.to_html(shown), report.to_text(shown)
    page = check_markup(html)
    assert len(html.encode()) + len(plain.encode()) < 60_000
    assert wording.clean(text(0), 20).rstrip("…").strip() in page.text
    assert all(len(line) <= 100 and not re.search(r"[\x00-\x1f\x7f-\x9f]", line) for line in plain.split("\n"))


@pytest.mark.parametrize(
    ("n_workers", "n_spans"), [(1, 512), (16, 30), (16, 512), (47, 10), (47, 512), (128, 512), (300, 9)]
)
@pytest.mark.parametrize("text", ["boom", '"' * 4000, "\N{PILE OF POO}" * 4000], ids=["plain", "quotes", "wide"])
def test_everything_at_once_is_under_60_kb(n_workers: int, n_spans: int, text: str) -> None:
    worst = everything(n_workers, n_spans=n_spans, text=text, n_failed=256)._replace(n_failed=30_000)
    html, plain = report.to_html(worst), report.to_text(worst)
    assert len(html.encode()) < 50_000
    assert len(plain.encode()) <= 10_000
    page = check_markup(html)
    assert in_order(page.text, "30,000 failed", "more", "Durations", "Slowest tasks", "Insights", "worker")
    assert in_order(plain, "more failed", "worker")


def noise(worker_id: int) -> tuple[Span, ...]:
    """Spans that no picture can make shorter."""
    draw = random.Random(worker_id)
    return tuple(Span(k / 10, k / 10 + draw.random() / 10, k, k, 1, int(draw.random() < 0.02)) for k in range(512))


@pytest.mark.parametrize("n_workers", [16, 47, 60, 128])
@pytest.mark.parametrize("text", ["boom", HOSTILE * 9, "\N{PILE OF POO}" * 400], ids=["plain", "hostile", "wide"])
def test_everything_with_noise_in_the_lanes_is_under_60_kb(n_workers: int, text: str) -> None:
    worst = everything(n_workers, text=text, n_failed=100)
    usage = tuple(Usage(i, 10**8 + 37 * 10**6 * (i * i % 11), i * i % 7 / 7) for i in range(60))
    lanes = tuple(one._replace(spans=noise(one.worker_id), usage=usage) for one in worst.lanes)
    worst = worst._replace(elapsed_s=51.2, lanes=lanes, slowest=worst.slowest, n_failed=30_000)
    html, plain = report.to_html(worst), report.to_text(worst)
    assert len(html.encode()) < 49_500
    assert len(plain.encode()) <= 10_000
    assert in_order(
        check_markup(html).text,
        "advice 0",
        *("30,000 failed", "#0 ", "more", "traceback of #0" if text == "boom" else ""),
        *("Profile", "note 0", "Durations", "Slowest tasks", "Insights", "worker"),
    )


def test_128_workers_of_noise_have_their_rows() -> None:
    lanes = tuple(lane(i, 0, spans=noise(i), n_done=512) for i in range(128))
    html = report.to_html(job(status="done", elapsed_s=51.2, lanes=lanes, n_failed=600, failures=failures(100)))
    assert len(html.encode()) < 49_500
    assert "127 227 512" in Page(html).text


def test_each_of_128_workers_has_its_row_in_html_and_text() -> None:
    quiet = everything(128, text="f", n_failed=0)._replace(notes=(), advice=(), profile=None)
    text = Page(report.to_html(quiet)).text
    lines = report.to_text(quiet).splitlines()
    for worker_id in range(128):
        assert re.search(rf" {worker_id} (\d+ )?40 0\.1 s 50 ms 1\.5 s", text)
        assert any(line.split()[:1] == [str(worker_id)] for line in lines)


def test_report_is_the_same_for_the_same_snapshot() -> None:
    assert report.to_html(everything(60)) == report.to_html(everything(60))


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    "odd",
    [
        job(n_tasks=None),
        job(n_tasks=0, n_done=0, lanes=(), status="done", rate=0.0, eta_s=None, elapsed_s=0.0),
        job(elapsed_s=0.0),
        job(elapsed_s=nan, rate=nan, eta_s=inf),
        job(elapsed_s=1e9),
        job(elapsed_s=nan, lanes=tuple(lane(i, begin_s=nan, ready_s=inf) for i in range(50))),
        job(lanes=(lane(0, 0, spans=(Span(nan, inf, 0, 0, 1), Span(5.0, 1.0, 0, 0, 1, 1))), lane(1, busy=nan))),
        job(lanes=(lane(0, usage=(Usage(0.0, 0, nan), Usage(nan, 0, inf))),)),
        job(n_done=0, n_failed=0, lanes=(lane(pid=0, spans=()),), status="cancelled"),
        job(n_failed=5, failures=()),
        job(status="done", durations=(Bin(0.0, 0.001, 5),)),
        job(status="done", durations=(Bin(0.0, 0.001, 0), Bin(0.001, 0.002, 0))),
        job(status="waiting", lanes=(), n_done=0, elapsed_s=-1.0),
    ],
)
def test_report_of_odd_jobs_is_well_formed(odd: Snapshot) -> None:
    html = report.to_html(odd)
    assert odd.status in check_markup(html).text
    assert report.to_text(odd).startswith(f"map simulate: {odd.status}, ")


# --- as text ----------------------------------------------------------------------------------------------------------


def test_text_says_all_in_aligned_lines_of_at_most_100_columns() -> None:
    tree = "9.0 s  100 %  f"
    profile = Profile(9.0, 8_000, (HotLine("cell 3", 2, "y = step(x)", 0.75),), tree)
    shown = everything(2)._replace(advice=("share " * 40,), notes=("it went on",), name="map simulate", profile=profile)
    assert report.to_text(shown).replace("75 %", "75%").splitlines() == [
        "map simulate: done, 2,000 of 2,000 tasks, 312 /s, took 30 s, 1.8\N{MULTIPLICATION SIGN} serial, 2 failed",
        "  advice: " + " ".join(["share"] * 15),
        "    " + " ".join(["share"] * 16),
        "    " + " ".join(["share"] * 9),
        "  #0 item boom: ValueError: boom",
        "  #1 item boom: ValueError: boom",
        "  profile: 9.0 s in tasks, 8,000 samples",
        "     75%  cell 3, line 2:  y = step(x)",
        "    9.0 s  100 %  f",
        "  note: it went on",
        *[f"  {line}" for line in _durations_lines(shown)],
        *[f"  slowest: {5 - i}.00 s, #{i} item boom, worker {i % 2}" for i in range(5)],
        "  insights: 93% of the workers' time in tasks, 5% waiting, 1% transferring; sent 2.0 GB, received",
        "    600 kB",
        "  worker  tasks  start   init   wait  transfer  work   exit  busy  memory  cores    sent  received",
        "       0     40  0.1 s  50 ms  1.5 s     0.2 s  27 s  10 ms   90%  259 MB    0.5  1.0 GB    300 kB",
        "       1     40  0.1 s  50 ms  1.5 s     0.2 s  27 s  10 ms   90%  259 MB    0.5  1.0 GB    300 kB",
    ]


def _durations_lines(shown: Snapshot) -> list[str]:
    return [f"durations: {sections.duration_words(Insights.of(shown))}"]


def test_text_of_a_small_job_is_short() -> None:
    lines = report.to_text(job(n_failed=3, failures=failures(2), notes=("share it",))).splitlines()
    assert lines[1:4] == ["  #0 item boom: ValueError: boom", "  #1 item boom: ValueError: boom", "  and 1 more failed"]
    assert lines[4] == "  note: share it"
    assert lines[-1].split() == ["1", "101", "3", "0.1", "s", "0.2", "s", "1.4", "s", "90%"]
