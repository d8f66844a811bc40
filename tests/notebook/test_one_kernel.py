"""One kernel, from a lambda to an interrupt and on, without a restart: the life of a notebook session.

The tests of this module share a kernel and run in the order in which they stand: each finds what the ones before left.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.notebook.kernels import Kernel, ipykernels, start_kernel

pytestmark = pytest.mark.in_order

_VERSIONS = ipykernels()


@pytest.fixture(scope="module", params=list(_VERSIONS.values()), ids=list(_VERSIONS))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel that all tests of this module share."""
    directory = tmp_path_factory.mktemp("session")
    (directory / "edited.py").write_text("def answer(x):\n    return x + 1\n")
    with start_kernel(directory, pythonpath=request.param) as kernel:
        kernel.run("import nbpar")
        kernel.run("%load_ext nbpar")
        kernel.run("nbpar.configure(n_workers=2)")
        yield kernel


def test_a_lambda_runs_when_the_extension_is_loaded(session: Kernel) -> None:
    assert session.run("nbpar.map(lambda x: x * x, range(5))").value == "[0, 1, 4, 9, 16]"


def test_tasks_run_in_other_processes(session: Kernel) -> None:
    session.run("import os, time\ndef where(x):\n    time.sleep(0.05)\n    return os.getpid()")
    assert session.evaluate("os.getpid() not in nbpar.map(where, range(8))") is True
    assert session.evaluate("len(set(nbpar.map(where, range(8))))") == 2


def test_global_helper_and_import_of_other_cells_are_found(session: Kernel) -> None:
    session.run("import math\nfactor = 10")
    session.run("def helper(x):\n    return math.floor(x) * factor")
    session.run("def f(x):\n    return helper(x) + 1")
    assert session.run("nbpar.map(f, [1.5, 2.5])").value == "[11, 21]"


def test_notebook_classes_keep_their_identity_in_both_directions(session: Kernel) -> None:
    session.run(
        "import dataclasses, enum\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: int = 0\n"
        "class Colour(enum.Enum):\n    RED = 1\n    BLUE = 2\n"
    )
    session.run("moved = nbpar.map(lambda p: Point(p.x + 1, p.y), [Point(1), Point(2)])")
    assert session.evaluate("[isinstance(p, Point) for p in moved] + [moved == [Point(2), Point(3)]]") == [True] * 3
    session.run("other = nbpar.map(lambda c: Colour.BLUE if c is Colour.RED else Colour.RED, list(Colour))")
    assert session.evaluate("[other[0] is Colour.BLUE, other[1] is Colour.RED]") == [True, True]


def test_a_redefined_function_is_used(session: Kernel) -> None:
    session.run("def f(x):\n    return helper(x) + 2")
    assert session.run("nbpar.map(f, [1.5, 2.5])").value == "[12, 22]"


def test_a_redefined_helper_is_used(session: Kernel) -> None:
    session.run("def helper(x):\n    return -factor")
    assert session.run("nbpar.map(f, [1.5, 2.5])").value == "[-8, -8]"


def test_a_changed_global_is_seen(session: Kernel) -> None:
    session.run("factor = 100")
    assert session.run("nbpar.map(f, [1.5, 2.5])").value == "[-98, -98]"


def test_a_redefined_class_is_a_new_class(session: Kernel) -> None:
    session.run("old = Point(1)\n@dataclasses.dataclass\nclass Point:\n    x: int\n    z: int = 7")
    session.run("fresh = nbpar.map(lambda i: Point(i), [1])[0]\nagain = nbpar.map(lambda p: p, [old])[0]")
    assert session.evaluate("[type(fresh) is Point, fresh.z, type(again) is type(old), again == old]") == [
        True,
        7,
        True,
        True,
    ]


def test_an_edited_module_is_used_under_autoreload(session: Kernel) -> None:
    session.run("%load_ext autoreload\n%autoreload 2\nimport edited")
    assert session.run("nbpar.map(edited.answer, [1, 2])").value == "[2, 3]"
    file = Path(session.evaluate("os.getcwd()")) / "edited.py"
    before = file.stat()
    file.write_text("def answer(x):\n    return x + 1000\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 2_000_000_000))  # autoreload looks at whole seconds
    assert session.run("nbpar.map(edited.answer, [1, 2])").value == "[1001, 1002]"


def test_a_failing_item_is_named_with_its_own_exception_and_line(session: Kernel) -> None:
    session.run("def invert(x):\n    y = x - 3\n    return 1 / y")
    result = session.run("nbpar.map(invert, range(6))", raises=True)
    assert result.error is not None
    assert result.error.name == "ZeroDivisionError"
    assert "----> 3     return 1 / y" in result.error.traceback.replace("---->  3", "----> 3")
    assert "item 3 = 3" in result.error.traceback
    assert "nbpar/job.py" not in result.error.traceback
    assert session.evaluate("nbpar.jobs()[-1].errors[0].index") == 3


def test_an_object_that_cannot_travel_is_named_with_the_path_to_it(session: Kernel) -> None:
    session.run("gen = (i for i in range(3))")
    result = session.run("nbpar.map(lambda d: 1, [{'ok': 1}, {'inner': [gen]}])", raises=True)
    assert result.error is not None
    assert result.error.name == "SerializationError"
    assert "['inner'][0]" in result.error.value
    assert "item 1" in result.error.value


def test_output_arrives_under_its_cell_in_whole_labelled_lines(session: Kernel) -> None:
    result = session.run(
        "import sys, warnings, logging\n"
        "def noisy(x):\n"
        "    print('out', x, 'end')\n"
        "    print('err', x, file=sys.stderr)\n"
        "    warnings.warn(f'careful {x}')\n"
        "    logging.getLogger('mine').warning('logged %s', x)\n"
        "    os.system(f'echo shell {x}')\n"
        "    time.sleep(0.02)\n"
        "    return x\n"
        "_ = nbpar.map(noisy, range(4))"
    )
    for x in range(4):
        assert f"· item {x}] out {x} end\n" in result.stdout
        assert f"· item {x}] err {x}\n" in result.stderr
        assert f"careful {x}" in result.stderr
        assert f"logged {x}" in result.stderr
        assert f"shell {x}\n" in result.stdout
    assert all(line.startswith("[worker ") for line in result.stdout.splitlines())
    later = session.run("time.sleep(0.2)")
    assert later.stdout == "" == later.stderr
    assert "out 1" not in session.terminal and "shell 1" not in session.terminal


def test_bars_of_tqdm_in_tasks_print_nothing_and_tell_the_items_progress(session: Kernel) -> None:
    session.run("import tqdm, tqdm.auto, tqdm.notebook")  # in a kernel, the notebook's bars, which tasks cannot draw
    session.run(
        "def through(bar):\n"
        "    from nbpar.worker.context import current_context\n"
        "    return [current_context().slot.tracked for _ in bar(range(2))]"
    )
    done = session.run("nbpar.map(through, [tqdm.tqdm, tqdm.auto.tqdm, tqdm.notebook.tqdm], seed=1)")
    assert done.value == str([[(0, 2), (1, 2)]] * 3)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_killed_worker_costs_its_task_alone(session: Kernel) -> None:
    session.run(
        "import signal\n"
        "def die(x):\n"
        "    if x == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    time.sleep(0.02)\n"
        "    return x"
    )
    result = session.run("nbpar.map(die, range(6))", raises=True)
    assert result.error is not None
    assert result.error.name == "WorkerDiedError"
    assert "item 2 = 2" in result.error.value and "SIGKILL" in result.error.value
    session.run("kept = nbpar.map(die, range(6), on_error='skip')")
    assert session.evaluate("kept") == [0, 1, 3, 4, 5]


def test_an_idle_worker_that_is_killed_is_replaced(session: Kernel) -> None:
    session.run("nbpar.map(abs, range(4))")
    for pid in session.evaluate("list(nbpar.default_pool().pids().values())"):
        with contextlib.suppress(psutil.NoSuchProcess):  # when one is killed the pool ends the others that are idle
            psutil.Process(pid).send_signal(signal.SIGKILL)
    assert session.run("nbpar.map(lambda x: x + 1, range(3))").value == "[1, 2, 3]"


def test_a_profile_shows_the_lines_of_the_cell(session: Kernel) -> None:
    cell = session.run("%%parallel --profile -o sums each n in [300_000] * 4\nx = 0\nfor i in range(n):\n    x += i\nx")
    page = str(cell.displays[-1]["text/html"])
    assert f"cell {cell.execution_count}, line 4" in page, page
    assert "x += i" in page
    text = str(cell.displays[-1]["text/plain"])
    assert f"cell {cell.execution_count}, line 4:  x += i" in text
    assert session.evaluate("nbpar.jobs()[-1].profile.lines[0].source") == "x += i"


def test_an_interrupt_ends_the_map_with_one_line_and_keeps_results(session: Kernel) -> None:
    cell = session.start(
        "def slow(x):\n"
        "    if x >= 4:\n"
        "        print('begun')\n"
        "        time.sleep(60)\n"
        "    return x\n"
        "nbpar.map(slow, range(20), progress=False)"
    )
    cell.wait_for("begun")
    session.interrupt()
    result = cell.wait(10)
    assert result.error is not None
    assert result.error.name == "JobInterrupt"
    assert len(result.error.traceback.splitlines()) == 1
    assert "4 of 20 results" in result.error.traceback
    assert session.evaluate("nbpar.jobs()[-1].results") == [0, 1, 2, 3]
    assert session.evaluate("nbpar.jobs()[-1].status") == "cancelled"


def test_a_map_works_after_all_that(session: Kernel) -> None:
    assert session.run("nbpar.map(f, [1.5])").value == "[-98]"
    assert session.run("sum(nbpar.map(lambda x: x, range(10_000)))").value == "49995000"


def test_nothing_was_written_to_the_terminal(session: Kernel) -> None:
    assert "Traceback" not in session.terminal
    assert "KeyboardInterrupt" not in session.terminal


def test_workers_end_with_the_kernel(session: Kernel) -> None:
    session.run("nbpar.map(abs, range(4))")
    children = session.children()
    assert len(children) >= 2
    session.process.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
