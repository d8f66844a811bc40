"""What `import nbpar` costs and promises, seen in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import nbpar

HEAVY = {
    "IPython",
    "anywidget",
    "asyncio",
    "cloudpickle",
    "dask",
    "dill",
    "ipykernel",
    "ipywidgets",
    "multiprocess",
    "numpy",
    "psutil",
    "tblib",
    "threadpoolctl",
    "tqdm",
}


def in_fresh_interpreter(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_loaded_when_nbpar_is_imported() -> None:
    # Compared with what the interpreter loads by itself: an editable install may load things of its own.
    code = "import sys; before = set(sys.modules); import nbpar, json; print(json.dumps([*set(sys.modules) - before]))"
    loaded = {name.partition(".")[0] for name in json.loads(in_fresh_interpreter(code))}
    assert loaded & HEAVY == set()


def test_every_public_name_is_there_when_asked_for() -> None:
    code = """
import nbpar
for name in nbpar.__all__:
    value = getattr(nbpar, name)
    assert value is getattr(nbpar, name), name
    assert (value.__doc__ or "").strip(), f"{name} has no docstring"
    assert name in dir(nbpar), name
from nbpar import *
assert WorkerPool is nbpar.WorkerPool
"""
    in_fresh_interpreter(code)


def test_public_names_are_listed_in_order_and_once() -> None:
    assert sorted(set(nbpar.__all__)) == nbpar.__all__


def test_private_names_are_no_attributes_when_asked_for() -> None:
    for name in ("nonsense", "_Thing"):
        with pytest.raises(AttributeError, match=name):
            getattr(nbpar, name)


def test_no_thread_and_no_process_is_started_when_nbpar_is_imported() -> None:
    code = """
import threading, psutil
import nbpar
nbpar.WorkerPool, nbpar.map
assert threading.active_count() == 1, threading.enumerate()
assert not psutil.Process().children()
"""
    in_fresh_interpreter(code)


def test_nothing_of_checkpoints_is_loaded_without_one() -> None:
    code = """
import sys, nbpar
with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
    pool.map(abs, [-1])
    list(pool.imap(abs, [-1]))
assert not [name for name in sys.modules if name.startswith(("nbpar.store", "nbpar.resume", "nbpar.checkpoint"))]
"""
    in_fresh_interpreter(code)
