"""MPIRE's pool in a real kernel: functions of other cells, and the card."""

from __future__ import annotations

from pathlib import Path

from tests.notebook.kernels import ipykernels, start_kernel


def test_cells_of_a_notebook_use_functions_of_other_cells(tmp_path: Path) -> None:
    with start_kernel(tmp_path, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run("from nbpar.interop.mpire import WorkerPool\nimport time")
        kernel.run("factor = 2\ndef helper(x):\n    return x * factor")
        kernel.run("pool = WorkerPool(n_jobs=2, keep_alive=True, use_worker_state=True)")
        kernel.run("def init(state):\n    state['began'] = time.time()")
        kernel.run("def task(state, x):\n    return helper(x) + (state['began'] > 0)")
        assert kernel.run("pool.map(task, range(4), worker_init=init)").value == "[1, 3, 5, 7]"
        kernel.run("factor = 10")
        assert kernel.run("pool.map(task, range(4), worker_init=init)").value == "[1, 11, 21, 31]"
        kernel.run("def task(state, x):\n    return -helper(x)")
        assert kernel.run("pool.map(task, range(4), worker_init=init)").value == "[0, -10, -20, -30]"
        shown = kernel.run("pool.map(lambda state, x: time.sleep(0.3), range(4), progress_bar=True, chunk_size=1)")
        assert shown.value == "[None, None, None, None]"
        assert any("text/html" in bundle for bundle in shown.displays)
        kernel.run("del pool")
