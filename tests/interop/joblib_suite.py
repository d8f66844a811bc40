"""A plugin for pytest: joblib's own test of `Parallel`, with nbpar among its backends and as the default.

Used by `test_joblib_suite.py`, in a process of its own, with the tests that joblib brings along. Wherever these list
backends, nbpar's is one of them; what names other backends alone says nothing of nbpar and is left out.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from joblib.parallel import BACKENDS

import nbpar
import nbpar.interop.joblib

DIFFERENT = {
    "test_backend_batch_statistics_reset": "it reads the counters of joblib's own batching, and nbpar has its own",
    "test_auto_memmap_on_arrays_from_generator": "arrays arrive writable, not as memory maps, and are never stale",
    "test_memmapping_leaks": "it looks for the files of memory maps, and there are none",
}
"""What cannot be as it is with joblib's own workers, and why; each of them fails."""

_BACKENDS = ("backend", "parent_backend", "child_backend", "outer_backend", "inner_backend")


def pytest_configure() -> None:
    """Before joblib's tests are loaded, which list the backends that there are."""
    nbpar.configure(n_workers=2)
    nbpar.interop.joblib.register(make_default=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have nbpar wherever joblib's process-based backends are listed."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names, values = mark.args[:2]
        if names in _BACKENDS and isinstance(values, list) and "loky" in values and "nbpar" not in values:
            values.append("nbpar")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs on other backends alone; expect what is known to differ."""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (kept if _is_of_nbpar(item) else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)
    for item in items:
        if reason := DIFFERENT.get(item.name.partition("[")[0]):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def _is_of_nbpar(item: pytest.Item) -> bool:
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    backends = [params[name] for name in _BACKENDS if name in params]
    if backends:
        return any(one is None or one == "nbpar" or type(one) is BACKENDS["nbpar"] for one in backends)
    text = inspect.getsource(getattr(item, "function", pytest_configure))
    return not any(f'"{name}"' in text for name in ("loky", "multiprocessing", "threading"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where a test ends loky's workers, for they would have an older environment, nbpar's end as well."""
    if "get_reusable_executor" in inspect.getsource(getattr(item, "function", pytest_configure)):
        nbpar.shutdown()
