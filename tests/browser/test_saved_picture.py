"""Pictures of ended jobs in a saved notebook: opened again, trusted or not, in both front ends, and as a page of HTML.

One notebook is run without a front end, as nbclient does; all tests open what that leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat.sign
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import OpenNotebook
from tests.browser.harness import App, Server
from tests.unit.test_report import styles

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]

SETUP = """\
import time, nbpar
nbpar.configure(n_workers=2)

def mixed(x):
    time.sleep(0.1)
    return 12 / (x - 7)

def hot(n):
    return sum(i * i for i in range(n))
"""
MANY = """\
with nbpar.WorkerPool(n_workers=64, start_method="threads") as pool:
    pool.map(time.sleep, [0.05] * 640, chunk_size=1, name="many")
"""
CANCELLED = """\
job = nbpar.map_async(time.sleep, [0.1] * 8 + [60] * 2, chunk_size=1, name="cancelled")
while job.n_done < 8:
    time.sleep(0.01)
job.cancel()
_ = job.wait()
"""
PROFILED = "nbpar.map(hot, [1_000_000] * 12, chunk_size=1, profile=True, name='profiled'); None"
CELLS = [
    SETUP,
    "nbpar.map(mixed, range(12), chunk_size=1, on_error='return', name='mixed'); None",
    "nbpar.map(mixed, range(12), chunk_size=1, name='failed')",
    MANY,
    CANCELLED,
    "nbpar.jobs()[0].insights",
    PROFILED,
]
PICTURES = {1: "mixed", 2: "failed", 3: "many", 4: "cancelled", 5: "mixed", 6: "profiled"}


class Saved(NamedTuple):
    """What was left of the notebook: the file, and the page that nbconvert made of it."""

    notebook: Path
    page: Path

    def html(self, index: int) -> str:
        """The picture of a cell as it is in the file."""
        outputs = json.loads(self.notebook.read_text())["cells"][index]["outputs"]
        (html,) = ["".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
        return html


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The notebook, run once."""
    directory = tmp_path_factory.mktemp("saved")
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"cell-{index}",
            "metadata": {"tags": ["raises-exception"]} if index == 2 else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for index, source in enumerate(CELLS)
    ]
    path = directory / "saved.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    command = [sys.executable, str(ROOT / "tools" / "run_notebook.py"), str(path), str(directory / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return Saved(directory / "run" / "saved.ipynb", directory / "run" / "saved.html")


_IMAGES_SHOWN = """(card) => [...card.querySelectorAll("img")].every((image) =>
    image.complete && image.naturalWidth > 0 && image.getBoundingClientRect().width > 40)"""

_STYLES = """(card) => [card, ...card.querySelectorAll("[style]")].flatMap((node) =>
    node.getAttribute("style").split(";").map((one) => one.trim()).filter(Boolean))"""

# Of each piece of text, the contrast to what is behind it, with all that shines through.
_LEAST_CONTRAST = """(card) => {
    const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
    const over = (top, alpha, below) => below.map((value, i) => top[i] * alpha + value * (1 - alpha));
    const luminance = (colour) => colour.map((value) => value / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let least = { ratio: 99, text: "" };
    const walk = document.createTreeWalker(card, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        if (!walk.currentNode.textContent.replace(/[\\s\u2588-\u258f]/g, "")) continue; // bars of blocks are drawings
        const path = [];
        for (let node = walk.currentNode.parentElement; node; node = node.parentElement) path.unshift(node);
        let ground = [255, 255, 255], opacity = 1;
        for (const node of path) {
            const style = getComputedStyle(node), colour = rgba(style.backgroundColor);
            ground = over(colour, colour[3], ground);
            opacity *= Number(style.opacity);
        }
        const ink = rgba(getComputedStyle(path[path.length - 1]).color);
        const [dark, light] = [luminance(over(ink, ink[3] * opacity, ground)), luminance(ground)].sort((a, b) => a - b);
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < least.ratio) least = { ratio, text: walk.currentNode.textContent };
    }
    return least;
}"""


def check(card: Locator, name: str, html: str) -> None:
    """All of a picture is there: its title, its drawings, its styles."""
    expect(card).to_contain_text(name)
    card.page.wait_for_function(_IMAGES_SHOWN, arg=card.element_handle())
    there = {tuple(one.replace(": ", ":").split(":", 1)) for one in card.evaluate(_STYLES)}
    assert {name for name, _ in styles(html)} == {name for name, *_ in there}
    # A front end may write a value in another way: how many there are of a property is what it lets through.
    assert len(there) == len(styles(html))


def check_contrast(card: Locator) -> None:
    least: dict[str, Any] = card.evaluate(_LEAST_CONTRAST)
    assert least["ratio"] >= 4.5, least


def check_width(card: Locator) -> None:
    """Nothing stands out of the card, once the page has taken its new size: JupyterLab lays out in steps."""
    card.page.wait_for_function(
        "(card) => card.scrollWidth <= card.clientWidth + 1"
        " && card.getBoundingClientRect().right <= document.documentElement.clientWidth",
        arg=card.element_handle(),
    )


def use_theme(page: Page, theme: str) -> None:
    page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    is_light = str(theme.endswith("Light")).lower()
    page.wait_for_function(
        "([is_light]) => document.body.dataset.jpThemeLight === is_light"
        " && getComputedStyle(document.body).getPropertyValue('--jp-layout-color0') !== ''",
        arg=[is_light],
    )


@pytest.mark.parametrize(
    ("app", "trusted"), [("lab", False), ("notebook", True)], ids=["lab-untrusted", "notebook-trusted"]
)
def test_pictures_are_whole_when_a_notebook_is_opened_again(
    server: Server, saved: Saved, reopen_notebook: OpenNotebook, app: App, trusted: bool
) -> None:
    path = server.notebook_dir / f"saved-{app}.ipynb"
    content = nbformat.read(saved.notebook, as_version=4)
    content.metadata.kernelspec = {"name": server.kernels[0], "display_name": "nbpar tests", "language": "python"}
    content.metadata.title = app  # so that a signature is for one of them
    nbformat.write(content, path)
    if trusted:
        nbformat.sign.NotebookNotary(data_dir=str(server.base_dir / "data")).sign(content)
    notebook = reopen_notebook(path.name, app=app)
    script = "(index) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.trusted"
    assert notebook.page.evaluate(script, 1) == trusted
    # The server keeps the theme for the pages of other tests, which expect the light one.
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        use_theme(notebook.page, theme)
        for index, name in PICTURES.items():
            area = notebook.output_area(index)
            card = area.locator(".jp-RenderedHTMLCommon > div").first
            check(card, name, saved.html(index))
            check_contrast(card)
            expect(area).not_to_contain_text("model not found")
    if app == "lab":
        notebook.command("application:toggle-left-area")  # at 500 pixels it would leave nothing to the notebook
        expect(notebook.page.locator("#jp-left-stack")).to_be_hidden()
    for width in (900, 500):
        notebook.page.set_viewport_size({"width": width, "height": 900})
        for index in PICTURES:
            check_width(notebook.output_area(index).locator(".jp-RenderedHTMLCommon > div").first)


def test_pictures_are_whole_on_the_page_that_nbconvert_makes(saved: Saved, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 900}, java_script_enabled=True)
    try:
        page.goto(saved.page.as_uri(), wait_until="load")
        cards = page.locator(".jp-RenderedHTMLCommon > div")
        expect(cards.filter(has=page.locator("img, summary"))).to_have_count(len(PICTURES))
        for index, name in PICTURES.items():
            card = page.locator(".jp-Cell").nth(index).locator(".jp-RenderedHTMLCommon > div").first
            check(card, name, saved.html(index))
            check_contrast(card)
            check_width(card)
            folded = card.locator("details", has=page.get_by_text("Insights"))
            if index != 5:
                expect(folded.locator("table")).to_be_hidden()
                folded.locator("summary").click()
            expect(folded.locator("table")).to_be_visible()
        page.set_viewport_size({"width": 500, "height": 900})
        for index in PICTURES:
            check_width(page.locator(".jp-Cell").nth(index).locator(".jp-RenderedHTMLCommon > div").first)
    finally:
        page.close()
