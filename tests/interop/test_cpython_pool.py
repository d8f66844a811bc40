"""CPython's own tests of ``multiprocessing.Pool`` hold for nbpar's, but for cases that are listed with a reason."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.helpers import start_script


def _is_there() -> bool:
    try:
        return importlib.util.find_spec("test._test_multiprocessing") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(not _is_there(), reason="this Python comes without its own tests, as a distribution's may")
def test_the_suite_of_multiprocessings_pool_passes() -> None:
    with start_script("from tests.interop.cpython_pool import main; main()") as script:
        out, err = script.communicate(timeout=55)
    assert script.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    assert not found["failed"], err
    assert found["n_run"] - found["skipped"] >= 38, err  # 3.12 has 40, 3.11 and 3.13 have 48
