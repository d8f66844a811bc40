"""What the dashboard's tests share: tasks that end when the test says so, and the card that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.harness import Notebook

__all__ = ["Card", "Gates", "expect_picture", "mimes"]

_SETUP = """\
import time
from pathlib import Path

import nbpar

nbpar.configure(n_workers=2)

def wait_for(name):
    while not (Path({directory!r}) / str(name)).exists():
        time.sleep(0.01)

def gated(x):
    wait_for(x)
    return 10 * x
"""


class Gates:
    """Files that tasks wait for.

    Parameters
    ----------
    directory : Path
        Where they are made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.setup = _SETUP.format(directory=str(directory))
        """A first cell: two workers, ``wait_for(name)`` and the task ``gated(x)``, which gives ``10 * x``."""

    def open(self, *names: object) -> None:
        """Let go who waits for these names, now and later."""
        for name in names:
            (self._directory / str(name)).touch()


class Card:
    """The live card under a cell."""

    def __init__(self, notebook: Notebook, index: int) -> None:
        self.page = notebook.page
        self.root = notebook.output_area(index).locator(".nbpar-card")
        self.name = self.root.locator(".nbpar-name")
        self.status = self.root.locator(".nbpar-status")
        self.bar = self.root.locator(".nbpar-bar")
        self.tasks = self.root.locator(".nbpar-figures > :first-child")
        self.lanes = self.root.locator(".nbpar-side").first.locator("span")
        self.counts = self.root.locator(".nbpar-count")
        self.now = self.root.locator(".nbpar-now")
        self.canvas = self.root.locator(".nbpar-canvas")
        self.failures = self.root.locator(".nbpar-failure > summary")
        self.cancel = self.root.get_by_role("button", name="Cancel")
        self.pause = self.root.get_by_role("button", name="Pause")
        self.resume = self.root.get_by_role("button", name="Resume")

    def wait_working(self) -> None:
        """Wait until both workers run a task: before that, one alone might do all."""
        expect(self.now).to_have_text([re.compile(r"^item \d")] * 2)

    def wait_drawn(self, colour: str) -> None:
        """Wait until at least 50 dots of the drawing have this colour, ``#rrggbb``."""
        self.page.wait_for_function(
            """([canvas, colour]) => {
                if (!canvas.width) return false;
                const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                const wanted = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
                let found = 0;
                for (let i = 0; i < data.length; i += 4) {
                    if (data[i + 3] === 255 && wanted.every((value, k) => data[i + k] === value)) found += 1;
                }
                return found >= 50;
            }""",
            arg=[self.canvas.element_handle(), colour],
        )


def expect_picture(notebook: Notebook, index: int, *texts: str) -> Locator:
    """Wait until a cell shows the picture that stays, with these texts and nothing live; its place in the page."""
    area = notebook.output_area(index)
    expect(area.locator(".nbpar-card")).to_have_count(0)
    for text in texts:
        expect(area).to_contain_text(text)
    expect(area).not_to_contain_text("model not found")
    drawings = area.locator('img[src^="data:image/"]')
    expect(drawings.nth(2)).to_be_attached()  # the bar and two lanes, at least
    notebook.page.wait_for_function(
        "(images) => images.every((image) => image.complete && image.naturalWidth > 0)", arg=drawings.element_handles()
    )
    return area


def mimes(outputs: list[dict[str, Any]]) -> list[set[str]]:
    """What each output can be shown as; of streams and errors, their kind."""
    return [set(output["data"]) if "data" in output else {output["output_type"]} for output in outputs]
