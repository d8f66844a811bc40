"""CPython's own tests of ``multiprocessing.Pool``, over nbpar's pools; :mod:`tests.interop.test_cpython_pool` runs it.

The cases are taken from the Python that runs this, at run time. A module of its own, so that workers can import the
classes it makes.
"""

from __future__ import annotations

import json
import multiprocessing.dummy
import multiprocessing.pool
import sys
import unittest
from typing import Any

import test._test_multiprocessing as suite  # type: ignore[import-not-found]  # the standard library's, without stubs

from nbpar.interop.multiprocessing.pool import Pool, ThreadPool

__all__ = ["CLASSES", "EXCEPTIONS", "main"]

_PRIVATE = "it looks into the pool's private list of processes"
_KEPT = "nbpar.jobs()[-1] keeps the results of the newest job until another one begins"

EXCEPTIONS = {
    "test_make_pool": _PRIVATE,
    "test_pool_worker_lifetime": _PRIVATE,
    "test_release_task_refs": _KEPT,
    "test_map_unplicklable": "it asks for what __reduce__ has raised; here a PicklingError names the item",
    "test_unpickleable_result": "its result, a lambda, can travel",
}
"""Cases that cannot hold, with the reason of each."""

_NAMES = ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime")

theirs: Any = multiprocessing
theirs.Pool, theirs.dummy.Pool, theirs.pool.Pool = Pool, ThreadPool, Pool
suite.ProcessesMixin.Pool = staticmethod(Pool)
suite.ThreadsMixin.Pool = staticmethod(ThreadPool)


def _classes() -> list[type[unittest.TestCase]]:
    made = []
    for name in _NAMES:
        base = getattr(suite, name)
        for kind in base.ALLOWED_TYPES:
            if kind == "manager":  # a pool inside of a manager's process, by a proxy
                continue
            mixin = getattr(suite, f"{kind.capitalize()}Mixin")
            named = f"With{kind.capitalize()}{name[1:]}"
            made.append(type(named, (base, mixin, unittest.TestCase), {"__module__": __name__}))
    return made


CLASSES = _classes()
globals().update({one.__name__: one for one in CLASSES})


def main() -> None:
    """Run the cases; the last line of stdout says what became of them."""
    for one in CLASSES:
        for name, reason in EXCEPTIONS.items():
            if hasattr(one, name):
                setattr(one, name, unittest.skip(reason)(getattr(one, name)))
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(unittest.TestSuite(map(load, CLASSES)))
    failed = [str(case) for case, _ in (*result.failures, *result.errors)]
    print(json.dumps({"n_run": result.testsRun, "failed": failed, "skipped": len(result.skipped)}))
