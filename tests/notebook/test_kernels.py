"""The kernels that the other tests use: what they show is what a front end would show."""

from __future__ import annotations

import os

import pytest

from tests.notebook.kernels import Kernel, ipykernels


def test_kernel_runs_the_version_asked_for(kernel: Kernel, request: pytest.FixtureRequest) -> None:
    version = str(kernel.evaluate("__import__('ipykernel').__version__"))
    name = request.node.callspec.id
    assert name in ipykernels()
    if name != "ipykernel-installed" and "NBPAR_KERNEL_PYTHONPATH" not in os.environ:
        assert version.startswith(name.removeprefix("ipykernel-") + ".")


def test_result_holds_streams_value_and_displays(kernel: Kernel) -> None:
    result = kernel.run(
        "import sys\nfrom IPython.display import HTML\nprint('out')\nprint('err', file=sys.stderr)\n"
        "display(HTML('<b>bold</b>'))\n6 * 7"
    )
    assert result.stdout == "out\n"
    assert result.stderr == "err\n"
    assert [display.get("text/html") for display in result.displays] == ["<b>bold</b>", None]
    assert result.value == "42"
    assert result.error is None
    assert result.execution_count == 1


def test_error_is_reported_with_its_traceback(kernel: Kernel) -> None:
    error = kernel.run("def f():\n    return 1 / 0\n\nf()", raises=True).error
    assert error is not None
    assert error.name == "ZeroDivisionError"
    assert "return 1 / 0" in error.traceback
    assert "\x1b" not in error.traceback


def test_display_is_updated_when_its_cell_has_ended(kernel: Kernel) -> None:
    shown = kernel.start("handle = display('before', display_id=True)")
    shown.wait()
    kernel.run("handle.update('after')")
    assert [display["text/plain"] for display in shown.result.displays] == ["'after'"]


def test_interrupt_ends_a_blocking_cell(kernel: Kernel) -> None:
    cell = kernel.start("import time\nprint('started', flush=True)\ntime.sleep(600)")
    cell.wait_for("started")
    kernel.interrupt()
    error = cell.wait(10).error
    assert error is not None
    assert error.name == "KeyboardInterrupt"
    assert kernel.run("1 + 1").value == "2"


def test_prompts_are_answered(kernel: Kernel) -> None:
    assert kernel.run("print(input('name? '))", answers=["ada"]).stdout == "ada\n"


def test_terminal_holds_what_bypasses_the_kernel(kernel: Kernel) -> None:
    kernel.run("print('to the cell')")
    assert kernel.terminal == ""
    kernel.run("import sys\nprint('to the terminal', file=sys.__stderr__, flush=True)")
    assert kernel.terminal == "to the terminal\n"


def test_children_are_seen(kernel: Kernel) -> None:
    assert kernel.children() == []
    kernel.run("import subprocess\nchild = subprocess.Popen(['sleep', '600'])")
    assert [child.name() for child in kernel.children()] == ["sleep"]
