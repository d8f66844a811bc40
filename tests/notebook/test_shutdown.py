"""A kernel that has workers ends as quickly as one that has none."""

from __future__ import annotations

import psutil
import pytest

from tests.notebook.kernels import Kernel


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_kernel_ends_at_once_when_it_is_shut_down(kernel: Kernel, state: str) -> None:
    kernel.run("import nbpar, time\nnbpar.configure(n_workers=2)\nnbpar.map(abs, range(4))")
    if state == "busy":
        kernel.run("job = nbpar.map_async(lambda x: time.sleep(60), range(4), progress=False)")
    process, children = kernel.process, kernel.children()
    assert len(children) >= 2
    kernel.manager.request_shutdown()
    # Left alone it would wait 14 s for a child that ignores SIGTERM, or that nobody has waited for.
    _, alive = psutil.wait_procs([process, *children], timeout=8)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
