"""A fresh kernel for each test, in every ipykernel version that is here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernels import Kernel, ipykernels, start_kernel

_VERSIONS = ipykernels()


@pytest.fixture(params=list(_VERSIONS.values()), ids=list(_VERSIONS))
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    """A running kernel."""
    with start_kernel(tmp_path, pythonpath=request.param) as kernel:
        yield kernel
