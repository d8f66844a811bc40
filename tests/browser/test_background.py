"""The card of a job that goes on while its cell has ended, other cells run, or nobody looks."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.cards import Card, Gates, expect_picture, mimes
from tests.browser.conftest import OpenNotebook

pytestmark = pytest.mark.timeout(240)

STATIC = {"text/html", "text/plain"}
FOUR = "job = nbpar.map_async(gated, range(4), chunk_size=1, name='four')"
OTHER = "wait_for('other')\nprint('other cell')"
LAST_JOB = "print(nbpar.jobs()[-1].status, nbpar.jobs()[-1].results)"


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_card_and_prints_stay_under_their_cell_when_other_cells_run(
    open_notebook: OpenNotebook, gates: Gates, app: str
) -> None:
    talk = "def talk(x):\n    print(f'hello {x}')\n    return gated(x)"
    begin = "job = nbpar.map_async(talk, range(4), chunk_size=1, name='four')"
    notebook = open_notebook([f"{gates.setup}\n{talk}", begin, OTHER, "print(job.result())"], app=app)
    assert notebook.run(0) == ""
    notebook.run(1)  # it ends although no task can
    card = Card(notebook, 1)
    expect(card.tasks).to_have_text("0 of 4 tasks")
    notebook.run_cell(2)
    gates.open(0, 1)
    notebook.wait_text(1, "hello 2")
    notebook.wait_text(1, "hello 3")
    expect(card.tasks).to_have_text("2 of 4 tasks")
    gates.open("other")
    notebook.wait_cell(2)
    gates.open(2, 3)
    expect_picture(notebook, 1, "four", "done", "4 of 4 tasks")
    assert notebook.text(2) == "other cell\n"
    assert notebook.run(3) == "[0, 10, 20, 30]\n"
    outputs = notebook.outputs(1)
    assert [mime for mime in mimes(outputs) if mime != {"stream"}] == [STATIC]
    lines = "".join(output["text"] for output in outputs if "text" in output).splitlines()
    assert sorted(re.sub(r"\[worker [01] · item (\d)\] hello \1", r"\1", line) for line in lines) == list("0123")


def test_job_ends_when_cancel_is_clicked_while_the_kernel_is_idle(open_notebook: OpenNotebook, gates: Gates) -> None:
    notebook = open_notebook([gates.setup, FOUR, LAST_JOB, "print(nbpar.map(gated, range(2)))"])
    assert notebook.run(0) == ""
    notebook.run(1)
    card = Card(notebook, 1)
    card.wait_working()
    gates.open(0)
    expect(card.tasks).to_have_text("1 of 4 tasks")
    card.cancel.click()
    expect_picture(notebook, 1, "cancelled", "1 of 4 tasks")
    assert mimes(notebook.outputs(1)) == [STATIC]
    assert notebook.run(2) == "cancelled [0]\n"
    gates.open(1)
    assert notebook.run(3) == "[0, 10]\n"


def test_other_cell_is_not_interrupted_when_cancel_is_clicked_while_it_runs(
    open_notebook: OpenNotebook, gates: Gates
) -> None:
    notebook = open_notebook([gates.setup, FOUR, OTHER, LAST_JOB])
    assert notebook.run(0) == ""
    notebook.run(1)
    card = Card(notebook, 1)
    card.wait_working()
    notebook.run_cell(2)
    card.cancel.click()
    # Which of the two depends on whether the kernel hears the click while a cell runs.
    expect(notebook.output_area(1)).to_contain_text(re.compile("cancels when the running cell ends|cancelled"))
    gates.open("other")
    notebook.wait_cell(2)
    assert notebook.text(2) == "other cell\n"
    expect_picture(notebook, 1, "cancelled", "0 of 4 tasks")
    assert notebook.run(3) == "cancelled []\n"


def test_results_are_kept_when_the_page_is_closed_while_a_map_blocks(
    open_notebook: OpenNotebook, reopen_notebook: OpenNotebook, gates: Gates
) -> None:
    blocking = "results = nbpar.map(gated, range(4), chunk_size=1)"
    notebook = open_notebook([gates.setup, blocking, f"{LAST_JOB}\nprint(results)"], app="notebook")
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    gates.open(0)
    expect(Card(notebook, 1).tasks).to_have_text("1 of 4 tasks")
    notebook.save()
    notebook.page.close()
    gates.open(1, 2, 3)
    reopened = reopen_notebook(notebook.name, app="notebook")
    assert reopened.run(2) == "done [0, 10, 20, 30]\n[0, 10, 20, 30]\n"


def test_card_goes_on_when_the_page_is_closed_and_opened_again(
    open_notebook: OpenNotebook, reopen_notebook: OpenNotebook, gates: Gates
) -> None:
    notebook = open_notebook([gates.setup, FOUR, LAST_JOB])
    assert notebook.run(0) == ""
    notebook.run(1)
    gates.open(0)
    expect(Card(notebook, 1).tasks).to_have_text("1 of 4 tasks")
    notebook.save()
    notebook.page.close()
    gates.open(1)
    reopened = reopen_notebook(notebook.name)
    card = Card(reopened, 1)
    expect(card.tasks).to_have_text("2 of 4 tasks")
    gates.open(2, 3)
    expect(reopened.output_area(1)).to_contain_text("4 of 4 tasks")
    expect(reopened.output_area(1)).to_contain_text("done")
    assert reopened.run(2) == "done [0, 10, 20, 30]\n"
