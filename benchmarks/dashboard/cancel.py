"""From a click on Cancel, while the cell blocks, to the cell's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.harness import App, Notebook, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["times_s"]

_SETUP = "import time\nimport nbpar\nnbpar.configure(n_workers=2)\nnbpar.map(time.sleep, [0.1, 0.1], chunk_size=1)"
_BLOCKS = "nbpar.map(time.sleep, [60] * 8, chunk_size=1)"

# Both workers are there already, so that they work when the card comes.
_WORKING = """(index) => {
    const {node} = window.jupyterapp.shell.currentWidget.content.widgets[index].outputArea;
    const buttons = [...node.querySelectorAll("button:enabled")];
    return buttons.some((button) => /Cancel/.test(button.textContent));
}"""

_CLICK = """(index) => new Promise((resolve) => {
    const {model, outputArea} = window.jupyterapp.shell.currentWidget.content.widgets[index];
    const buttons = [...outputArea.node.querySelectorAll("button:enabled")];
    const button = buttons.find((button) => /Cancel/.test(button.textContent));
    const begin = performance.now();
    button.click();
    const look = () => {
        if (model.executionState === "idle") resolve((performance.now() - begin) / 1000);
        else setTimeout(look, 5);
    };
    look();
})"""


def times_s(server: Server, browser: Browser, app: App, kernel: str, n_times: int) -> list[float]:
    """Click so many times, in one notebook; both workers are in the middle of a task each time."""
    notebook = server.open(browser, [_SETUP, _BLOCKS], app=app, kernel=kernel)
    try:
        notebook.run(0)
        return [_once(notebook) for _ in range(n_times)]
    finally:
        notebook.close()


def _once(notebook: Notebook) -> float:
    notebook.run_cell(1)
    notebook.page.wait_for_function(_WORKING, arg=1, timeout=20_000)
    spent_s = float(notebook.page.evaluate(_CLICK, 1))
    if "cancelled" not in notebook.text(1):
        raise RuntimeError(f"the cell ended otherwise: {notebook.text(1)[-500:]}")
    return spent_s
