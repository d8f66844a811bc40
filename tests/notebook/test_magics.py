"""The magics in a real kernel: each form, tracebacks that point at the cell's own lines, refusals, `%nbpar`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Kernel, Result, ipykernels, start_kernel

_SETUP = "%load_ext nbpar\nxs = list(range(5))\nk = 10\ndef f(v):\n    return v + k"


@pytest.fixture
def each_nb(kernel: Kernel) -> Kernel:
    """In each version of ipykernel: for what is shown and how cells are named."""
    kernel.run(_SETUP)
    return kernel


@pytest.fixture
def nb(tmp_path: Path) -> Iterator[Kernel]:
    """In one version: for what has nothing to do with it."""
    with start_kernel(tmp_path, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run(_SETUP)
        yield kernel


def refused(kernel: Kernel, code: str) -> str:
    """What the kernel says to a cell that it refuses: one message, no traceback, the namespace untouched."""
    before = kernel.evaluate("sorted(n for n in get_ipython().user_ns if not n.startswith('_'))")
    result = kernel.start(code).wait()
    assert result.error is None, result
    assert result.stderr.startswith("UsageError: "), result
    assert kernel.evaluate("sorted(n for n in get_ipython().user_ns if not n.startswith('_'))") == before
    return result.stderr


def marked_lines(result: Result) -> list[str]:
    """The lines of a traceback with an arrow."""
    assert result.error is not None
    return re.findall(r"^-+> (\d+ .*)$", result.error.traceback, re.MULTILINE)


def test_each_form(nb: Kernel) -> None:
    assert nb.run("%%parallel each x in xs\ny = f(x)\ny * 2").value == "[20, 22, 24, 26, 28]"
    stored = nb.run("%%parallel -o ys each i, (a, b) in enumerate(zip(xs, xs))\nimport math\nmath.sqrt(a * b) + i")
    assert stored.value is None
    assert nb.evaluate("ys") == [0, 2, 4, 6, 8]
    assert nb.evaluate("[n for n in ('y', 'x', 'i', 'a', 'b', 'math') if n in globals()]") == []


def test_each_form_with_await_its_check_and_its_debugging(nb: Kernel) -> None:
    nb.run("import asyncio, random\nasync def fetch(v):\n    await asyncio.sleep(0.01)\n    return 1 / v")
    cell = "await asyncio.sleep(0)\nyv = [await fetch(v + 1) for v in range(x)]\nlen(yv)"
    checked = nb.run(f"%%parallel -o ys --check 3 each x in xs\n{cell}")
    assert checked.stdout == "first 3 items: the same serially\n"
    assert nb.evaluate("ys") == [0, 1, 2, 3, 4]
    assert nb.run("%parallel --check 2 sum(f(x) for x in xs)").stdout == "first 2 items: the same serially\n"

    differs = nb.start("%%parallel -o zs --check 2 each x in xs\nawait asyncio.sleep(0)\nx + random.random()").wait()
    assert differs.error is not None
    assert differs.error.traceback.startswith("CheckError: --check: item 0 = 0 does not give the same serially")
    assert nb.evaluate("'zs' in globals()") is False
    assert "--background" in refused(nb, "%%parallel --background --check 2 each x in xs\nx")

    failed = nb.start("%%parallel each x in xs\ny = await fetch(x)\ny").wait()
    assert marked_lines(failed)[-2:] == ["2 y = await fetch(x)", "4     return 1 / v"]
    debugged = nb.start("%nbpar debug").wait()
    assert debugged.error is not None
    assert marked_lines(debugged)[-1] == "4     return 1 / v"


def test_a_dry_run_of_each_form_is_drawn_and_nothing_has_run(nb: Kernel) -> None:
    nb.run("ran = []\ndef tell(v):\n    ran.append(v)\n    print('ran')\n    return [v]\nys = 'as it was'")
    names = "sorted(n for n in get_ipython().user_ns if not n.startswith('_'))"
    before = nb.evaluate(names)
    for cell, words in [
        ("%%parallel --dry-run\nfor x in tell(1):\n    ran.append(f(x))", "ran.append(f(x))"),
        ("%%parallel --dry-run each x in tell(1)\ntell(x)", "The result of an item: tell(x)"),
        ("%parallel --dry-run sum(f(x) for x in tell(1))", "f(x)"),
        ("%%parallel --dry-run\nn = 0\nfor x in xs:\n    n = n + x", "would be refused: `n` is carried"),
        ("%%parallel --dry-run -o ys\nfor x in xs:\n    ran.append(x)", "would be refused: -o names the results"),
    ]:
        result = nb.run(cell)
        [shown] = result.displays
        assert words in shown["text/plain"] and shown["text/html"].startswith("<div") and result.stdout == ""
    stopped = nb.start("ys = %parallel --dry-run [f(x) for x in xs]\nys = 'assigned'").wait()
    assert "5 items" in stopped.displays[0]["text/plain"] and "nothing was assigned" in stopped.stderr
    assert nb.evaluate(f"[ys, ran, {names}]") == ["as it was", [], before]


def test_what_is_shown(each_nb: Kernel) -> None:
    assert each_nb.run("%%parallel each x in xs\nx;").value is None
    assert each_nb.run("%%parallel each x in xs\ny = x").value is None
    printed = each_nb.run("%%parallel each x in xs\nprint('item', x)")
    assert printed.value is None
    assert "item 4" in printed.stdout
    assert each_nb.run("%parallel [x for x in xs];").value is None
    assert each_nb.run("ys = %parallel [x for x in xs];\nys").value == "[0, 1, 2, 3, 4]"


def test_background(nb: Kernel) -> None:
    nb.run("%%parallel -o job --background each x in xs\nf(x)")
    assert nb.run("await job").value == "[10, 11, 12, 13, 14]"
    shown = nb.run("%%parallel --background --name mine each x in xs\nx").value
    assert shown is not None
    assert shown.startswith("<Job ")
    assert "'mine'" in shown


def test_shell_commands_and_lines(nb: Kernel) -> None:
    cell = "%%parallel each x in xs[:2]\n\n!echo said {x} \\\n   $k\nr = !echo {x + 1}\n1 / x\nr"
    result = nb.run(cell, raises=True)
    assert "said 0 10" in result.stdout
    assert marked_lines(result)[-1] == "6 1 / x"
    assert nb.run("%%parallel each x in xs[:2]\nr = !echo {x + 1}\nr[0]").value == "['1', '2']"


def test_traceback_of_a_cell(each_nb: Kernel) -> None:
    each_nb.run("def other():\n    pass")
    result = each_nb.run("%%parallel -o bad each x in xs\nz = x - 3\n\nw = 1 / z\nw", raises=True)
    assert result.error is not None
    assert result.error.name == "ZeroDivisionError"
    assert marked_lines(result)[-1] == "4 w = 1 / z"
    number = result.execution_count
    assert re.findall(r"^Cell In\[(\d+)\], line (\d+)", result.error.traceback, re.MULTILINE)[-1] == (str(number), "4")
    assert "run_cell_magic" not in result.error.traceback
    assert "nbpar/" not in result.error.traceback
    assert each_nb.evaluate("'bad' in globals()") is False


def test_traceback_of_the_iterable(nb: Kernel) -> None:
    result = nb.run("%%parallel each x in missing\nx", raises=True)
    assert marked_lines(result)[-1] == "1 %%parallel each x in missing"
    assert "NameError: name 'missing' is not defined" in str(result.error)


def test_traceback_of_a_line(each_nb: Kernel) -> None:
    result = each_nb.run("a = 1\nb = 2\nys = %parallel [1 // (x - 2) for x in xs]\nc = 3", raises=True)
    assert marked_lines(result)[-1].startswith("3 ys = ")
    assert "nbpar/" not in str(result.error)


def test_comprehensions(nb: Kernel) -> None:
    assert nb.run("ys = %parallel [f(x) for x in xs if x % 2]\nys").value == "[11, 13]"
    assert nb.run("%parallel {x % 2 for x in xs}").value == "{0, 1}"
    assert nb.run("%parallel {x % 2: x for x in xs}").value == "{0: 4, 1: 3}"
    assert nb.run("%parallel (y for x in xs for y in range(x) if y > 1)").value == "[2, 2, 3]"
    assert nb.run("%parallel sum(f(x) for x in xs)").value == "60"
    assert nb.run("import itertools\n%parallel any(x > 7 for x in itertools.count())").value == "True"
    assert nb.run("def g(zs, k):\n    q = %parallel [z * k for z in zs]\n    return q\ng([1, 2], 3)").value == "[3, 6]"
    assert nb.run("%parallel --on-error skip [1 // x for x in xs]").value == "[1, 0, 0, 0]"


def test_names_are_those_of_the_call(nb: Kernel) -> None:
    nb.run("k = 1\n%parallel [f(x) for x in xs]")
    assert nb.run("k = 100\n%parallel [f(x) for x in xs]").value == "[100, 101, 102, 103, 104]"
    nb.run("def f(v):\n    return -v")
    assert nb.run("%%parallel each x in xs\nf(x)").value == "[0, -1, -2, -3, -4]"


def test_another_number_of_workers(nb: Kernel) -> None:
    other = nb.evaluate("__import__('nbpar').default_pool().n_workers + 1")
    cell = f"%%parallel -j {other} -o pids each x in range(40)\nimport os, time\ntime.sleep(0.01)\nos.getpid()"
    nb.run(cell)
    first = set(nb.evaluate("pids"))
    nb.run(cell)
    assert len(set(nb.evaluate("pids")) | first) <= other  # the same workers again
    assert f"{other} workers" in nb.run("%nbpar").stdout


REFUSED = [
    (
        "%%parallel each x in xs\nif x:\n    return x\nx",
        "`return` cannot",
        "    3 |     return x\n      |     ^^^^^^^^",
    ),
    ("%%parallel each x in xs\n%time x", "%time cannot", "    2 | %time x\n      | ^^^^^^^"),
    ("%%parallel each x in xs\nx = (", "not Python", "    2 | x = (\n      |     ^"),
    (
        "%%parallel -o r each x in xs -j 2\nx",
        "options stand before `each`",
        "    1 | %%parallel -o r each x in xs -j 2",
    ),
    ("%%parallel -j none each x in xs\nx", "'none' is not allowed; allowed: a whole number, 1 or more", ""),
    ("%%parallel each x in 5\nx", "the iterable 5 is not allowed", ""),
    ("%%parallel\nf(xs[0])", "the cell has no `for` loop", "    2 | f(xs[0])\n      | ^^^^^^^^"),
    ("%%parallel 4\nfor x in xs: f(x)", "`4` is no form", "    1 | %%parallel 4\n      |            ^"),
    ("r = %parallel [y := x for x in xs]", "`y := ...`", "    1 | [y := x for x in xs]\n      |  ^^^^^^"),
    ("r = %parallel --background [x for x in xs]", "--background is for", ""),
    ("r = %parallel --on-error return {x: x for x in xs}", "no place for an error", ""),
    ("%nbpar what", "allowed: status, restart, shutdown, debug", ""),
    ("%nbpar debug", "no job has failures", ""),
    ("%nbpar debug first", "a whole number", ""),
]


def test_refused(nb: Kernel) -> None:
    for cell, message, underlined in REFUSED:  # one kernel for all: none of them leaves anything behind
        said = refused(nb, cell)
        assert message in said
        assert underlined in said


def test_what_cannot_travel_is_one_line(nb: Kernel) -> None:
    result = nb.run("gen = (x for x in xs)\nys = %parallel [gen for x in xs]", raises=True)
    assert result.error is not None
    assert result.error.name == "SerializationError"
    assert "global 'gen'" in result.error.traceback
    assert len(result.error.traceback.splitlines()) == 1


def test_interrupt_is_one_line_and_stores_nothing(each_nb: Kernel) -> None:
    each_nb.run("xs2 = range(100)")
    cell = each_nb.start("%%parallel -o slow each x in xs2\nimport time\nprint('began', flush=True)\ntime.sleep(0.3)")
    cell.wait_for("began")
    each_nb.interrupt()
    result = cell.wait()
    assert result.error is not None
    assert result.error.traceback.count("\n") == 0
    assert "was cancelled" in result.error.traceback
    assert each_nb.evaluate("'slow' in globals()") is False
    assert each_nb.run("%parallel [x for x in xs]").value == "[0, 1, 2, 3, 4]"


def test_status_restart_shutdown(nb: Kernel) -> None:
    assert "No jobs yet." in nb.run("%nbpar").stdout
    nb.run("%%parallel -o p1 --chunk-size 1 each x in range(20)\nimport os\nos.getpid()")
    status = nb.run("%nbpar status").stdout
    assert re.search(r"^ *1  each x in range\(20\)  done  +20/20 +0 +\d+\.\d\d$", status, re.MULTILINE)
    for pid in set(nb.evaluate("p1")):
        assert str(pid) in status
    nb.run("%nbpar restart")
    nb.run("%%parallel -o p2 each x in range(20)\nimport os\nos.getpid()")
    assert not set(nb.evaluate("p1")) & set(nb.evaluate("p2"))
    nb.run("%nbpar shutdown")
    nb.run("%%parallel -o p3 each x in range(20)\nimport os\nos.getpid()")
    assert not set(nb.evaluate("p2")) & set(nb.evaluate("p3"))


def test_debug(each_nb: Kernel) -> None:
    each_nb.run("%%parallel each x in xs\nlimit = k\nassert x != 3 or k == 11, 'three'\nx", raises=True)
    result = each_nb.run("%nbpar debug", raises=True)
    assert result.stdout == "Running item 3 = 3 of job 1 (each x in xs) again in the kernel.\n"
    assert marked_lines(result)[-1] == "3 assert x != 3 or k == 11, 'three'"
    post_mortem = each_nb.run("%debug", answers=["p x, limit", "q"])
    assert "(3, 10)" in post_mortem.stdout
    each_nb.run("k = 11")
    again = each_nb.run("%nbpar debug 1 3")
    assert "succeeded" in again.stdout
    assert again.value == "3"
    assert "item 0 of job 1" in refused(each_nb, "%nbpar debug 1 0")


def test_what_ended_its_worker_is_not_run_in_the_kernel(nb: Kernel) -> None:
    nb.run("%%parallel each x in xs\nimport os\nif x == 2: os._exit(3)", raises=True)
    assert "--force 1 2" in refused(nb, "%nbpar debug")


def test_help_and_unload(nb: Kernel) -> None:
    assert nb.evaluate("'--on-error WHAT' in get_ipython().magics_manager.magics['cell']['parallel'].__doc__")
    nb.run("%parallel [x for x in xs]")
    completed = nb.client.complete("%%parallel --ti", 15, reply=True, timeout=20)
    assert completed["content"]["matches"] == ["--timeout"]
    pids = set(nb.evaluate("list(__import__('nbpar').default_pool().pids().values())"))
    assert pids <= {child.pid for child in nb.children()}
    nb.run("%unload_ext nbpar")
    nb.wait_until(lambda: not pids & {child.pid for child in nb.children()}, what="the end of the workers")
    result = nb.start("%%parallel each x in xs\nx").wait()
    assert "not found" in result.stderr
