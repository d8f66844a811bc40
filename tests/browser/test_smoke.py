"""The harness itself, in both applications."""

from __future__ import annotations

import pytest

from tests.browser.conftest import OpenNotebook
from tests.browser.harness import App


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_cells_run_and_show_their_outputs(open_notebook: OpenNotebook, app: App) -> None:
    notebook = open_notebook(["print(1)", "1 / 0", "from IPython.display import HTML\nHTML('<i>slanted</i>')"], app=app)
    assert notebook.run(0) == "1\n"
    assert notebook.run(1) == "ZeroDivisionError: division by zero"
    notebook.run(2)
    assert notebook.output_area(2).locator("i").inner_text() == "slanted"
    assert notebook.save()["cells"][0]["outputs"][0]["text"] == ["1\n"]


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_interrupt_ends_a_blocking_cell(open_notebook: OpenNotebook, app: App) -> None:
    notebook = open_notebook(["import time\nprint('started', flush=True)\ntime.sleep(600)"], app=app)
    notebook.run_cell(0)
    notebook.wait_text(0, "started")
    notebook.interrupt()
    notebook.wait_cell(0)
    assert "KeyboardInterrupt" in notebook.text(0)
