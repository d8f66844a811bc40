"""Pictures of cells in JupyterLab while their jobs run and after, and of a saved notebook without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, expect

from tests.browser.harness import Notebook, Server
from tools.shots import cells
from tools.shots.terminal import take

__all__ = ["SHOTS", "Studio"]

SIZE = (960, 1100)
SCALE = 2.0

_MAGICS = "\n%load_ext nbpar\n"

_QUIET = """
.jp-cell-toolbar, .jp-Toolbar, .jp-Collapser, .jp-Notebook-footer { display: none !important; }
.jp-Notebook .jp-Cell { border-color: transparent !important; box-shadow: none !important; }
.jp-Cell.jp-mod-active .jp-InputArea-editor { border-color: var(--jp-cell-editor-border-color) !important;
  background: var(--jp-cell-editor-background) !important; box-shadow: none !important; }
.jp-cell-menu, .jp-OutputPrompt, .jp-OutputArea-promptOverlay { visibility: hidden; }
.cm-cursorLayer { display: none !important; }
"""


class Studio:
    """A server, a browser, and notebooks in which nothing but the cells is to be seen."""

    def __init__(self, server: Server, browser: Browser) -> None:
        self._server = server
        self.browser = browser

    @contextmanager
    def notebook(self, *sources: str) -> Iterator[Notebook]:
        """Open one with these cells; the first, which is never shown, has been run."""
        notebook = self._server.open(self.browser, sources, size=SIZE, scale=SCALE)
        try:
            notebook.command("application:toggle-left-area")
            notebook.page.add_style_tag(content=_QUIET)
            text = notebook.run(0)
            assert not text, text
            yield notebook
        finally:
            notebook.close()

    def without_scripts(self, path: Path) -> Any:
        """A page with a saved file, in which no JavaScript runs."""
        context = self.browser.new_context(
            java_script_enabled=False, device_scale_factor=SCALE, viewport={"width": SIZE[0], "height": SIZE[1]}
        )
        page = context.new_page()
        page.goto(path.as_uri())
        return page

    @property
    def folder(self) -> Path:
        """Where the notebooks are saved."""
        return self._server.notebook_dir


def cell(notebook: Notebook, index: int) -> Locator:
    """A cell with its output."""
    notebook.output_area(index)  # into view
    return notebook.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')


def wait_for_tasks(notebook: Notebook, index: int, n_done: int, timeout_s: float = 90.0) -> None:
    """Wait until the card of a cell counts so many tasks."""
    notebook.page.wait_for_function(
        """([index, wanted]) => {
            const {node} = window.jupyterapp.shell.currentWidget.content.widgets[index].outputArea;
            const found = /([\\d,]+) of [\\d,]+ tasks/.exec(node.innerText);
            return found && Number(found[1].replaceAll(",", "")) >= wanted;
        }""",
        arg=[index, n_done],
        timeout=1000 * timeout_s,
    )


def set_theme(notebook: Notebook, name: str) -> None:
    """JupyterLab's theme, ``Light`` or ``Dark``."""
    notebook.page.evaluate(
        "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", f"JupyterLab {name}"
    )
    light = "true" if name == "Light" else "false"
    notebook.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")


def picture(place: Locator) -> bytes:
    """A PNG of a place, once nothing moves the page any more."""
    place.page.mouse.move(2, 2)
    return place.screenshot(animations="disabled", caret="hide")


def running_and_done(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """One job, from the middle to the picture that stays; then the file without JavaScript."""
    with studio.notebook(cells.SETUP + _MAGICS, cells.DONE) as notebook:
        notebook.run_cell(1)
        wait_for_tasks(notebook, 1, int(0.5 * cells.N_STATIONS))
        yield "running", picture(cell(notebook, 1))
        set_theme(notebook, "Dark")
        yield "running-dark", picture(cell(notebook, 1))
        set_theme(notebook, "Light")
        notebook.wait_cell(1)
        expect(notebook.output_area(1).locator(".nbpar-card")).to_have_count(0)
        yield "done", picture(cell(notebook, 1))
        set_theme(notebook, "Dark")
        yield "done-dark", picture(cell(notebook, 1))
        set_theme(notebook, "Light")  # kept by the server for the notebooks to come
        notebook.save()
        page = studio.without_scripts(_as_html(studio.folder / notebook.name))
        saved = page.locator(".jp-Cell").nth(1)
        yield "saved", picture(saved)
        page.context.close()


def _as_html(path: Path) -> Path:
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(path))
    target = path.with_suffix(".html")
    target.write_text(html, encoding="utf-8")
    return target


def failing(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Some tasks have failed, the others go on."""
    with studio.notebook(cells.SETUP, cells.FAILING) as notebook:
        notebook.run_cell(1)
        wait_for_tasks(notebook, 1, int(0.65 * cells.N_STATIONS))
        notebook.output_area(1).locator(".nbpar-failure > summary").first.click()  # its traceback
        yield "failing", picture(cell(notebook, 1))
        notebook.interrupt()
        notebook.wait_cell(1)


def loops(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """A loop that is refused, and one that is looked at before it runs."""
    with studio.notebook(cells.SETUP + _MAGICS, cells.REFUSED, cells.DRY_RUN) as notebook:
        for index, name in ((1, "refused"), (2, "dry-run")):
            notebook.run(index)
            yield name, picture(cell(notebook, index))


def paused(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Pause is pressed."""
    with studio.notebook(cells.SETUP, cells.PAUSED, "job.cancel()") as notebook:
        notebook.run(1)
        wait_for_tasks(notebook, 1, 80)
        area = notebook.output_area(1)
        area.get_by_role("button", name="Pause").click()
        expect(area.get_by_role("button", name="Resume")).to_be_visible()
        expect(area.locator(".nbpar-status")).to_have_text(re.compile("paused"))
        yield "paused", picture(cell(notebook, 1))
        notebook.run(2)


def cancelled(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Cancel is pressed, and the cell ends."""
    with studio.notebook(cells.SETUP, cells.CANCELLED) as notebook:
        notebook.run_cell(1)
        wait_for_tasks(notebook, 1, 80)
        notebook.output_area(1).get_by_role("button", name="Cancel").click()
        notebook.wait_cell(1)
        expect(notebook.output_area(1)).to_contain_text("cancelled")
        expect(notebook.output_area(1).locator(".nbpar-card")).to_have_count(0)
        yield "cancelled", picture(cell(notebook, 1))


def many(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """128 workers."""
    with studio.notebook(cells.MANY_SETUP, cells.MANY) as notebook:
        notebook.run_cell(1)
        wait_for_tasks(notebook, 1, int(0.6 * cells.N_PAGES))
        yield "workers-128", picture(cell(notebook, 1))
        notebook.interrupt()
        notebook.wait_cell(1)


def terminal(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """A script outside of any notebook."""
    yield from take(studio.browser, SCALE)


def profile(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Where the time went, by lines."""
    with studio.notebook(cells.PROFILE_SETUP, cells.PROFILE) as notebook:
        notebook.run_cell(1)
        notebook.wait_cell(1, timeout_s=120)
        expect(notebook.output_area(1).locator(".nbpar-card")).to_have_count(0)
        yield "profile", picture(cell(notebook, 1))


SHOTS: dict[str, Callable[[Studio], Iterator[tuple[str, bytes]]]] = {
    "running": running_and_done,
    "failing": failing,
    "loops": loops,
    "paused": paused,
    "cancelled": cancelled,
    "many": many,
    "terminal": terminal,
    "profile": profile,
}
