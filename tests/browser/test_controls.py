"""The card's buttons while cells block, wait and end, and a job that is shown in several cells, in real front ends."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.cards import Card, Gates, expect_picture, mimes
from tests.browser.conftest import OpenNotebook
from tests.browser.harness import App, Notebook, Server

pytestmark = pytest.mark.timeout(240)

STATIC = {"text/html", "text/plain"}
EIGHT = "results = nbpar.map(gated, range(8), chunk_size=1, name='eight')"
FOUR = "job = nbpar.map_async(gated, range(4), chunk_size=1, name='four')"
LAST_JOB = "print(nbpar.jobs()[-1].status, nbpar.jobs()[-1].results)"

IN_EACH = pytest.mark.parametrize("app", ["lab", "notebook"])
ON_EACH = pytest.mark.parametrize("kernel", ["ipykernel-installed", "ipykernel-6.31", "ipykernel-7.3"])

_CLICK_CANCEL = """([index]) => new Promise((resolve) => {
    const {model, outputArea} = window.jupyterapp.shell.currentWidget.content.widgets[index];
    const buttons = [...outputArea.node.querySelectorAll("button:enabled")];
    const begin = performance.now();
    buttons.find((button) => /Cancel/.test(button.textContent)).click();
    const look = () => {
        if (model.executionState === "idle") resolve((performance.now() - begin) / 1000);
        else setTimeout(look, 5);
    };
    look();
})"""


def need(server: Server, kernel: str) -> None:
    if kernel not in server.kernels:
        pytest.skip(f"{kernel} is not here: make test installs it")


@IN_EACH
@ON_EACH
def test_buttons_work_while_a_cell_blocks(
    server: Server, open_notebook: OpenNotebook, gates: Gates, app: App, kernel: str
) -> None:
    need(server, kernel)
    notebook = open_notebook(
        [gates.setup, EIGHT, LAST_JOB, "print(nbpar.map(gated, range(2)))"], app=app, kernel=kernel
    )
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    card = Card(notebook, 1)
    card.wait_working()
    gates.open(0, 1)
    expect(card.tasks).to_contain_text("2 of 8 tasks")
    if kernel == "ipykernel-7.3":  # it alone hears a message while a cell blocks
        card.pause.click()
        expect(card.status).to_have_text("paused")
        gates.open(2, 3)
        expect(card.tasks).to_contain_text("4 of 8 tasks")
        card.resume.click()
        expect(card.status).to_have_text("running")
        card.wait_working()
    else:
        expect(card.cancel).to_be_visible()
        expect(card.pause).to_have_count(0)
        gates.open(2, 3)
        expect(card.tasks).to_contain_text("4 of 8 tasks")
        expect(card.pause).to_have_count(0)
    took_s = float(notebook.page.evaluate(_CLICK_CANCEL, [1]))
    print(f"{app}, {kernel}: {took_s:.2f} s from the click to the cell's end")
    assert took_s < 3.0  # below 1 s on a machine with nothing else to do; benchmarks/dashboard measures it
    expect_picture(notebook, 1, "cancelled", "4 of 8 tasks")
    picture, error = notebook.outputs(1)
    assert set(picture["data"]) == STATIC
    assert "eight was cancelled" in error["evalue"]
    assert "\n" not in "\n".join(error["traceback"])
    assert notebook.run(2) == "cancelled [0, 10, 20, 30]\n"
    assert notebook.run(3) == "[0, 10]\n"


@pytest.mark.parametrize(
    ("app", "kernel"),
    [("lab", "ipykernel-installed"), ("notebook", "ipykernel-6.31"), ("lab", "ipykernel-7.3")],
)
def test_background_job_is_paused_shown_again_and_cancelled_by_clicks(
    server: Server, open_notebook: OpenNotebook, gates: Gates, app: App, kernel: str
) -> None:
    need(server, kernel)
    notebook = open_notebook([gates.setup, FOUR, "job.show()", "job.result()", LAST_JOB], app=app, kernel=kernel)
    assert notebook.run(0) == ""
    notebook.run(1)
    first = Card(notebook, 1)
    first.wait_working()
    notebook.run(2)
    second = Card(notebook, 2)
    expect(second.name).to_have_text("four")
    first.pause.click()
    for card in (first, second):
        expect(card.status).to_have_text("paused")
    gates.open(0, 1)
    for card in (first, second):
        expect(card.tasks).to_contain_text("2 of 4 tasks")
    second.resume.click()
    for card in (first, second):
        expect(card.status).to_have_text("running")
    first.wait_working()
    # A cell that waits for the job is interrupted where the kernel does not hear the click.
    notebook.run_cell(3)
    notebook.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.widgets[3].model.executionState === 'running'"
    )
    second.cancel.click()
    notebook.wait_cell(3, timeout_s=10)
    for index in (1, 2):
        expect_picture(notebook, index, "four", "cancelled", "2 of 4 tasks")
        assert mimes(notebook.outputs(index)) == [STATIC]
    assert notebook.outputs(3)[-1]["ename"] in ("JobCancelledError", "JobInterrupt")
    assert notebook.run(4) == "cancelled [0, 10]\n"


def test_job_goes_on_and_is_shown_when_its_cell_was_run_again_or_deleted(
    open_notebook: OpenNotebook, gates: Gates
) -> None:
    begin = "jobs = [*globals().get('jobs', []), nbpar.map_async(wait_for, ['a' if 'jobs' not in globals() else 'b'])]"
    notebook = open_notebook(
        [gates.setup, begin, "jobs[0].show()", "jobs[1].show()", "print([job.result() for job in jobs])"]
    )
    assert notebook.run(0) == ""
    notebook.run(1)
    expect(Card(notebook, 1).tasks).to_contain_text("0 of 1 tasks")
    notebook.run(1)  # again: the first job's card is gone
    expect(Card(notebook, 1).tasks).to_contain_text("0 of 1 tasks")
    for index in (2, 3):
        notebook.run(index)
        expect(Card(notebook, index).status).to_have_text("running")
    gates.open("a")
    expect_end(notebook, 2)
    expect(Card(notebook, 1).status).to_have_text("running")  # the end of the first job is not drawn here
    notebook.page.evaluate(
        "() => { const {content} = window.jupyterapp.shell.currentWidget;"
        " content.deselectAll(); content.activeCellIndex = 1; content.mode = 'command';"
        " return window.jupyterapp.commands.execute('notebook:delete-cell'); }"
    )
    expect(Card(notebook, 2).status).to_have_text("running")  # it has moved up
    gates.open("b")
    expect_end(notebook, 2)
    assert notebook.run(3) == "[[None], [None]]\n"


def expect_end(notebook: Notebook, index: int) -> None:
    area = notebook.output_area(index)
    expect(area.locator(".nbpar-card")).to_have_count(0)
    expect(area).to_contain_text(re.compile("1 of 1 tasks?"))
    expect(area).to_contain_text("done")
    assert mimes(notebook.outputs(index)) == [STATIC]
