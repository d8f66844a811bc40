"""The executor in a real kernel: functions and globals of other cells, the card, and where output goes."""

from __future__ import annotations

from pathlib import Path

from tests.notebook.kernels import ipykernels, start_kernel


def test_executor_lives_across_cells_of_a_notebook(tmp_path: Path) -> None:
    with start_kernel(tmp_path, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run("import time, nbpar\nfrom nbpar.interop.futures import ProcessPoolExecutor, as_completed")
        kernel.run("model = None\ndef load(name):\n    global model\n    model = name")
        kernel.run("executor = ProcessPoolExecutor(2, initializer=load, initargs=('big',))")
        kernel.run("factor = 2\nclass Point:\n    def __init__(self, x):\n        self.x = x\n")
        kernel.run("def move(point):\n    return Point(point.x * factor), model")
        kernel.run("moved, seen = executor.submit(move, Point(3)).result()")
        assert kernel.evaluate("[isinstance(moved, Point), moved.x, seen]") == [True, 6, "big"]
        kernel.run("factor = 10")
        assert kernel.evaluate("executor.submit(move, Point(3)).result()[0].x") == 30
        kernel.run("def move(point):\n    return Point(-point.x), model")
        assert kernel.evaluate("[one.x for one, _ in executor.map(move, [Point(1), Point(2)])]") == [-1, -2]
        alone = kernel.start("executor.submit(print, 'from a worker').result()")
        alone.wait()
        alone.wait_for("from a worker")
        assert not alone.result.displays  # one call needs no card
        several = kernel.run(
            "futures = [executor.submit(time.sleep, 0.3) for _ in range(4)]\nlen(list(as_completed(futures)))"
        )
        assert several.value == "4"
        assert any("text/html" in bundle for bundle in several.displays)
        waiting = kernel.start(
            "future = executor.submit(time.sleep, 60)\nprint('it waits', flush=True)\nfuture.result()"
        )
        waiting.wait_for("it waits")
        kernel.interrupt()
        error = waiting.wait(20).error
        assert error is not None and error.name == "KeyboardInterrupt"
        assert kernel.evaluate("future.running()") is True  # as in the standard library
        kernel.run("executor.kill_workers()")
        assert kernel.evaluate("type(future.exception(20)).__name__") == "BrokenProcessPool"
        kernel.run("executor = ProcessPoolExecutor(1)")
        assert kernel.evaluate("executor.submit(lambda x: x + factor, 1).result()") == 11
