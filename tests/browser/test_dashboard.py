"""The live card of a blocking map, its end and its picture, in real front ends."""

from __future__ import annotations

import pytest
from playwright.sync_api import Dialog, expect

from tests.browser.cards import Card, Gates, expect_picture, mimes
from tests.browser.conftest import OpenNotebook
from tests.browser.harness import App, Notebook, Server

pytestmark = pytest.mark.timeout(240)

STATIC = {"text/html", "text/plain"}
EIGHT = "results = nbpar.map(gated, range(8), chunk_size=1, name='eight')"
_PITCH = "([first, second]) => second.getBoundingClientRect().top - first.getBoundingClientRect().top"
LAST_JOB = "print(nbpar.jobs()[-1].status, nbpar.jobs()[-1].results)"


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_card_shows_workers_and_moves_when_a_map_blocks(open_notebook: OpenNotebook, gates: Gates, app: App) -> None:
    notebook = open_notebook([gates.setup, EIGHT, "print(results)"], app=app)
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    card = Card(notebook, 1)
    expect(card.tasks).to_have_text("0 of 8 tasks")
    expect(card.bar).to_have_attribute("aria-valuenow", "0")
    expect(card.name).to_have_text("eight")
    expect(card.status).to_have_text("running")
    expect(card.lanes).to_have_text(["0", "1"])
    card.wait_working()
    card.wait_drawn("#d3e5fa")  # tasks that run
    gates.open(0, 1, 2, 3)
    expect(card.tasks).to_have_text("4 of 8 tasks")
    expect(card.bar).to_have_attribute("aria-valuenow", "50")
    assert sum(int(text) for text in card.counts.all_inner_texts()) == 4
    card.wait_drawn("#79aeea")  # each worker's first task, which has ended
    width, pitch = card.root.evaluate("(card) => card.offsetWidth"), card.lanes.evaluate_all(_PITCH)
    gates.open(4, 5, 6, 7)
    notebook.wait_cell(1)
    area = expect_picture(notebook, 1, "eight", "done", "8 of 8 tasks")
    # As wide as the card was, and a worker as high: the page does not move when a job ends.
    rows = area.locator("table").first.locator("th[scope=row]")
    notebook.page.wait_for_function(
        "([still, width]) => still.offsetWidth === width",
        arg=[area.locator(".jp-RenderedHTMLCommon > div").first.element_handle(), width],
    )
    assert rows.evaluate_all(_PITCH) == pytest.approx(pitch, abs=0.6)
    assert mimes(notebook.outputs(1)) == [STATIC]
    assert notebook.run(2) == "[0, 10, 20, 30, 40, 50, 60, 70]\n"


def test_picture_is_kept_when_the_notebook_is_saved_and_reopened(
    server: Server, open_notebook: OpenNotebook, reopen_notebook: OpenNotebook, gates: Gates
) -> None:
    notebook = open_notebook([gates.setup, EIGHT])
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    Card(notebook, 1).wait_working()
    gates.open(*range(8))
    notebook.wait_cell(1)
    saved = notebook.save()
    assert mimes(saved["cells"][1]["outputs"]) == [STATIC]
    assert "eight: done, 8 of 8 tasks" in "".join(saved["cells"][1]["outputs"][0]["data"]["text/plain"])
    assert "widgets" not in saved["metadata"]
    notebook.close()
    # The author's own file is signed and trusted; with another text it is anybody's.
    path = server.notebook_dir / notebook.name
    stranger = path.with_stem(f"{path.stem}-sent")
    stranger.write_text(path.read_text().replace("name='eight'", "name='nine'"))
    for name, app, trusted in [(path.name, "lab", True), (stranger.name, "notebook", False)]:
        reopened = reopen_notebook(name, app=app)
        assert _is_trusted(reopened, 1) == trusted
        expect_picture(reopened, 1, "eight", "done", "8 of 8 tasks")


def test_cell_ends_in_one_line_when_the_stop_button_is_pressed(open_notebook: OpenNotebook, gates: Gates) -> None:
    notebook = open_notebook([gates.setup, EIGHT, LAST_JOB, "print(nbpar.map(gated, range(2)))"])
    _begin_eight(notebook, gates)
    notebook.interrupt()
    _expect_cancelled_in_one_line(notebook)


HOSTILE = "<img src=x onerror=alert({})></script><script>alert(2)</script><b class=hostile>"
FAILING = f"""
class Item:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return {HOSTILE!r}.format(self.x)

def fail(item):
    if item.x == 1:
        raise ValueError(repr(item))
    return gated(item.x)
"""


def test_failures_stay_text_when_reprs_are_hostile(open_notebook: OpenNotebook, gates: Gates) -> None:
    call = f"nbpar.map(fail, [Item(x) for x in range(3)], chunk_size=1, on_error='skip', name={HOSTILE!r})"
    notebook = open_notebook([gates.setup + FAILING, f"results = {call}"])
    dialogs: list[str] = []

    def refuse(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    notebook.page.on("dialog", refuse)
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    card = Card(notebook, 1)
    item = HOSTILE.format(1)
    expect(card.failures.locator("span")).to_have_text(["#1", item, f"ValueError: {item}"])
    expect(card.name).to_have_text(HOSTILE)
    hostile = "[onerror], script, b.hostile"
    assert card.root.locator(hostile).count() == 0
    gates.open(0, 2)
    notebook.wait_cell(1)
    picture = expect_picture(notebook, 1, "1 failed", "#1", item, f"ValueError: {item}", HOSTILE)
    assert picture.locator(hostile).count() == 0
    assert dialogs == []
    assert [text for kind, text in notebook.console if kind == "pageerror"] == []


def test_nothing_is_drawn_when_a_map_is_short(open_notebook: OpenNotebook) -> None:
    warm = "import nbpar\nnbpar.configure(n_workers=2)\nresults = nbpar.map(abs, range(9), progress=False)"
    notebook = open_notebook([warm, "results = nbpar.map(abs, range(9))\nprint(nbpar.jobs()[-1].snapshot().elapsed_s)"])
    assert notebook.run(0) == ""
    for _ in range(20):  # on a busy machine the shortest map may take long
        elapsed_s = float(notebook.run(1).split()[-1])
        if elapsed_s < 0.2:
            break
    else:
        pytest.fail("no map of nine small tasks was over in 0.2 s")
    assert mimes(notebook.outputs(1)) == [{"stream"}]


def test_card_is_under_its_own_cell_when_the_cell_is_parallel(open_notebook: OpenNotebook, gates: Gates) -> None:
    parallel = "%%parallel -o res each x in xs\nwait_for(x)\n10 * x"
    notebook = open_notebook([f"{gates.setup}\n%load_ext nbpar\nxs = range(4)", parallel, "print(res)"])
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    card = Card(notebook, 1)
    expect(card.tasks).to_have_text("0 of 4 tasks")
    card.wait_working()
    assert notebook.page.locator(".nbpar-card").count() == 1
    gates.open(*range(4))
    notebook.wait_cell(1)
    expect_picture(notebook, 1, "done", "4 of 4 tasks")
    assert mimes(notebook.outputs(1)) == [STATIC]
    assert notebook.run(2) == "[0, 10, 20, 30]\n"


def _is_trusted(notebook: Notebook, index: int) -> bool:
    script = "(index) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.trusted"
    return bool(notebook.page.evaluate(script, index))


def _begin_eight(notebook: Notebook, gates: Gates) -> Card:
    """Run the first two cells until two of the eight tasks have ended and two more run."""
    assert notebook.run(0) == ""
    notebook.run_cell(1)
    card = Card(notebook, 1)
    card.wait_working()
    gates.open(0, 1)
    expect(card.tasks).to_have_text("2 of 8 tasks")
    return card


def _expect_cancelled_in_one_line(notebook: Notebook) -> None:
    """The cell ends; the next ones find what had ended, and run a map."""
    notebook.wait_cell(1)
    expect_picture(notebook, 1, "cancelled", "2 of 8 tasks")
    picture, error = notebook.outputs(1)
    assert set(picture["data"]) == STATIC
    assert notebook.run(2) == "cancelled [0, 10]\n"
    assert notebook.run(3) == "[0, 10]\n"
    assert "eight was cancelled" in error["evalue"]
    text = "\n".join(error["traceback"])
    assert "\n" not in text
