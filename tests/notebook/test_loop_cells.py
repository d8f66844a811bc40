"""`%%parallel` above loops in one real kernel: what is shown, tracebacks, interrupts, options, the card.

The tests go on from each other in one session, as a notebook's cells do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Kernel, Result, ipykernels, start_kernel

pytestmark = pytest.mark.in_order


@pytest.fixture(scope="module")
def nb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel that all tests of this module share."""
    directory = tmp_path_factory.mktemp("loops")
    with start_kernel(directory, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run("%load_ext nbpar\nimport os, random, time\nimport nbpar\nnbpar.configure(n_workers=2)")
        kernel.run("xs = list(range(5))\ndef f(v):\n    return v * 10")
        yield kernel


def names(kernel: Kernel) -> dict[str, str]:
    """The user's names with the reprs of what they are bound to."""
    found: dict[str, str] = kernel.evaluate(
        "{n: repr(v) for n, v in get_ipython().user_ns.items() if not n.startswith('_') and n not in ('In', 'Out')}"
    )
    return found


def refused(kernel: Kernel, code: str) -> str:
    before = names(kernel)
    result = kernel.start(code).wait()
    assert result.error is None, result
    assert result.stderr.startswith("UsageError: "), result
    assert names(kernel) == before
    return result.stderr


def marked_lines(result: Result) -> list[str]:
    """The lines of a traceback with an arrow."""
    assert result.error is not None
    return re.findall(r"^-+> (\d+ .*)$", result.error.traceback, re.MULTILINE)


def test_a_loop_runs_in_workers_and_leaves_what_it_leaves_serially(nb: Kernel) -> None:
    cell = (
        "pids = set()\nout = []\nfor i, x in enumerate(xs):\n    y = f(x)\n    pids.add(os.getpid())\n    out.append(y)"
    )
    assert nb.run("%%parallel\n" + cell).value is None
    assert nb.evaluate("[out, i, x, y, os.getpid() in pids]") == [[0, 10, 20, 30, 40], 4, 4, 40, False]
    nb.run(cell)  # without the first line
    assert nb.evaluate("[out, i, x, y]") == [[0, 10, 20, 30, 40], 4, 4, 40]


def test_the_last_expression_is_shown_as_that_of_a_cell(nb: Kernel) -> None:
    assert nb.run("%%parallel\nn = 0\nfor x in xs:\n    n += x\nn").value == "10"
    assert nb.evaluate("_") == 10
    assert nb.run("%%parallel\nn = 0\nfor x in xs:\n    n += x\nn;").value is None
    assert nb.run("%%parallel\nn\nfor x in xs:\n    n += x").value is None
    nb.run("get_ipython().ast_node_interactivity = 'all'")
    shown = nb.run("%%parallel\n'before'\nfor x in xs:\n    n += x\n'after'\nn")
    nb.run("get_ipython().ast_node_interactivity = 'last_expr_or_assign'")
    assert [each["text/plain"] for each in shown.displays] == ["'before'", "'after'", "30"]
    assert nb.run("%%parallel\nfor x in xs:\n    n += x\nm = n + 1").value == "41"
    nb.run("get_ipython().ast_node_interactivity = 'last_expr'")


def test_magics_and_commands_run_around_the_loop_and_commands_in_it(nb: Kernel) -> None:
    cell = (
        "%%parallel\n!echo before\nsaid = []\nfor x in xs[:2]:\n    got = !echo {x} $n\n    said.append(got[0])\n%pwd\n"
    )
    result = nb.run(cell)
    assert result.stdout.startswith("before")
    assert result.value is not None  # of %pwd
    assert nb.evaluate("said") == ["0 40", "1 40"]
    assert "magics work on the kernel" in refused(nb, "%%parallel\nfor x in xs:\n    %pwd")


def test_what_tasks_print_is_shown_under_the_cell(nb: Kernel) -> None:
    result = nb.run("%%parallel\nprint('now')\nfor x in xs:\n    print('item is', x)\nprint('then')")
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("now", "then")
    assert sorted(line.partition("] ")[2] for line in lines[1:-1]) == [f"item is {x}" for x in range(5)]


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("a1 = 1\nfor x in xs:\n    b1 = 1\n    c1 = 1 / (x - 3)", "5     c1 = 1 / (x - 3)"),
        ("a1 = 1\nfor x in 7:\n    b1 = 1", "3 for x in 7:"),
        ("a1 = 1\nfor x in xs:\n    b1 = 1\n    n += 'text'", "5     n += 'text'"),
    ],
    ids=["body", "iterable", "effect"],
)
def test_an_error_of_the_loop_points_at_its_line_and_leaves_nothing(nb: Kernel, cell: str, line: str) -> None:
    before = names(nb)
    result = nb.run("%%parallel\n" + cell, raises=True)
    assert result.error is not None
    assert marked_lines(result)[-1] == line
    assert "nbpar/" not in result.error.traceback
    assert names(nb) == before
    if "c1" in cell:
        assert "item 3 = 3" in result.error.traceback
        assert "nothing of the loop was kept" in result.error.traceback


def test_an_error_around_the_loop_points_at_its_line(nb: Kernel) -> None:
    result = nb.run("%%parallel\na1 = 1\nfor x in xs:\n    b1 = x\n\n1 / 0", raises=True)
    assert marked_lines(result)[-1] == "6 1 / 0"
    assert nb.evaluate("[a1, b1]") == [1, 4]
    result = nb.run("%%parallel\na2 = 1\n1 / 0\nfor x in xs:\n    b2 = x", raises=True)
    assert marked_lines(result)[-1] == "3 1 / 0"
    assert nb.evaluate("[a2, 'b2' in globals()]") == [1, False]


def test_an_interrupt_leaves_the_names_as_they_were(nb: Kernel) -> None:
    nb.run("done = []\nkept = 'kept'")
    before = names(nb)
    cell = nb.start(
        "%%parallel\nkept = 'new'\nfor x in range(1000):\n    print('begun')\n    time.sleep(60)\n    done.append(x)"
    )
    cell.wait_for("begun")
    nb.interrupt()
    result = cell.wait(10)
    assert result.error is not None
    assert result.error.name == "JobInterrupt"
    assert len(result.error.traceback.splitlines()) == 1
    assert "nothing of the loop was kept" in result.error.traceback
    assert names(nb) == before
    assert nb.run("%%parallel\nfor x in xs:\n    done.append(f(x))\nsum(done)").value == "100"


def test_refusals_name_the_line_and_leave_everything(nb: Kernel) -> None:
    said = refused(nb, "%%parallel\nk = 1\nfor x in xs:\n    k = k + x")
    assert "`k`" in said
    assert re.search(r"Cell In\[\d+\], line 4\n +4 \|     k = k \+ x", said)
    nb.run("cache = {}\ndef look(v):\n    cache[v] = v\n    return v")
    said = refused(nb, "%%parallel\nfound = []\nfor x in xs:\n    found.append(look(x))")
    assert "`cache` is changed" in said


@pytest.mark.parametrize(
    ("option", "reason"),
    [("-o res", "results.append"), ("--background", "beneath the cells"), ("--on-error return", "--on-error skip")],
)
def test_options_of_other_forms_are_refused_with_what_to_do(nb: Kernel, option: str, reason: str) -> None:
    assert reason in refused(nb, f"%%parallel {option}\nfor x in xs:\n    n += 1")


def test_seeds(nb: Kernel) -> None:
    cell = "%%parallel --seed 3\ndrawn = []\nfor x in xs:\n    drawn.append(random.random())\ndrawn"
    first = nb.run(cell).value
    assert first is not None
    assert nb.run(cell).value == first
    assert nb.evaluate("len(set(drawn))") == 5


def test_on_error_skip(nb: Kernel) -> None:
    nb.run(
        "%%parallel --on-error skip\nparts, last = [], None\nfor x in [2, 1, 0]:\n    parts.append(x)\n    last = 1 / x"
    )
    assert nb.evaluate("[parts, last, x]") == [[2, 1], 1.0, 1]


def test_a_checkpoint_saves_what_was_done(nb: Kernel) -> None:
    cell = "%%parallel --checkpoint loop.ckpt\nrows = {}\nfor x in ys:\n    print('computed', x)\n    rows[x] = f(x)"
    assert nb.run("ys = [1, 2, 3]\n" + "None").error is None
    assert nb.run(cell).stdout.count("computed") == 3
    nb.run("ys = [0, 1, 2, 3, 4]")
    again = nb.run(cell)
    assert sorted(re.findall(r"computed (\d)", again.stdout)) == ["0", "4"]
    assert nb.evaluate("[list(rows.items()), x]") == [[[0, 0], [1, 10], [2, 20], [3, 30], [4, 40]], 4]


def test_the_card_is_there_and_a_profile_names_the_lines_of_the_body(nb: Kernel) -> None:
    loop = "for n_steps in [400_000] * 4:\n    s = 0\n    for i in range(n_steps):\n        s += i\n    sums.append(s)"
    cell = f"%%parallel --profile\nsums = []\n{loop}"
    result = nb.run(cell)
    page, text = str(result.displays[-1]["text/html"]), str(result.displays[-1]["text/plain"])
    assert "for n_steps in [400000] * 4" in page
    assert f"cell {result.execution_count}, line 6:  s += i" in text
    assert nb.evaluate("nbpar.jobs()[-1].profile.lines[0].source") == "s += i"
    assert nb.evaluate("sums == [sum(range(400_000))] * 4") is True
