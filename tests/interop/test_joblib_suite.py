"""joblib's own tests of `Parallel`, run with nbpar as one of its backends and as the default."""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

N_PASSED = 200
"""At least so many of joblib's tests are about nbpar, once it is listed (joblib 1.4 to 1.6)."""

# For scripts and workers that joblib's tests start: there, too, somebody has to say that there is this backend.
REGISTERED = "import nbpar.interop.joblib\n\nnbpar.interop.joblib.register()\n"


@pytest.mark.timeout(300)
def test_joblibs_own_tests_pass(tmp_path: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's, which is set for a limit of 60 seconds
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    thread_unsafe: joblib's\n    no_cover: joblib's\n")
    (tmp_path / "sitecustomize.py").write_text(REGISTERED)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--rootdir", ".", "--timeout=60"),
            *("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-p", "tests.interop.joblib_suite"),
            *("--pyargs", "joblib.test.test_parallel"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "NBPAR_UI": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None and int(found[1]) >= N_PASSED, done.stdout[-2000:]
