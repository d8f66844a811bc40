"""Runs chosen tests of CPython's suite and writes what became of them.

Started by :mod:`tests.interop.test_cpython_futures`, in an environment where they find nbpar's executor.

``python -m tests.interop.cpython.run RESULT.json NAME ...``: each name is ``Class.test`` of
``test.test_concurrent_futures``; without names all names there are, of tests of process pools, are written.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
import unittest
from pathlib import Path
from typing import Any

_MIXINS = ("ProcessPoolForkMixin", "ProcessPoolForkserverMixin", "ProcessPoolSpawnMixin")


class _Result(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, list[str]] = {}
        self.times: dict[str, float] = {}
        self._begin_s = 0.0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self._begin_s = time.monotonic()
        self._put(test, "ok", "")

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        self.times[_name(test)] = time.monotonic() - self._begin_s

    def _put(self, test: unittest.TestCase, outcome: str, text: str) -> None:
        self.outcomes[_name(test)] = [outcome, text]

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._put(test, "error", "".join(traceback.format_exception(*err)))

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._put(test, "failed", "".join(traceback.format_exception(*err)))

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._put(test, "skipped", reason)


def _name(test: Any) -> str:
    return f"{type(test).__name__}.{getattr(test, '_testMethodName', test)}"


def main() -> None:
    suite = importlib.import_module("test.test_concurrent_futures")
    script_helper: Any = importlib.import_module("test.support.script_helper")

    # Its subprocesses are to see this environment, where `concurrent.futures` has nbpar's executor.
    script_helper.interpreter_requires_environment = lambda: True
    target, *names = sys.argv[1:]
    mixins = tuple(getattr(suite, name) for name in _MIXINS)
    loader = unittest.TestLoader()
    classes = [one for one in vars(suite).values() if isinstance(one, type) and issubclass(one, mixins)]
    cases = [one for one in classes if issubclass(one, unittest.TestCase)]
    known = {f"{one.__name__}.{name}": (one, name) for one in cases for name in loader.getTestCaseNames(one)}
    if not names:
        Path(target).write_text(json.dumps(sorted(known)))
        return
    result = _Result()
    unittest.TestSuite([one(name) for one, name in (known[name] for name in names)]).run(result)
    Path(target).write_text(json.dumps({"outcomes": result.outcomes, "times": result.times}))


if __name__ == "__main__":
    main()
