"""What a task finds in its worker as it is in the kernel at the call: folder, paths, logging, warnings.

`surroundings` collects it for each job (:mod:`nbpar.backends.shipping`, in the user's thread); :class:`ModuleWatch`
notices edited modules of the user's own (:mod:`nbpar.default`).
"""

from __future__ import annotations

import linecache
import logging
import os
import pickle
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbpar.wire.messages import Surroundings

__all__ = ["ModuleWatch", "cell_sources", "surroundings"]

_PLAIN_FORMAT = "%(levelname)s:%(name)s:%(message)s"


_last: tuple[tuple[Any, ...], bytes] | None = None


def surroundings() -> bytes:
    """A pickled :class:`~nbpar.wire.messages.Surroundings`; the same object as long as nothing has changed."""
    global _last
    try:
        cwd = os.getcwd()  # noqa: PTH109  # a fifth of pathlib's time: asked for each job
    except FileNotFoundError:  # the folder was deleted; workers stay where they are
        cwd = ""
    root = logging.getLogger()
    loggers = list(root.manager.loggerDict.values())
    levels = [getattr(one, "level", 0) for one in loggers]
    # What all the rest is made of, compared in C: 5 us where making it takes 30.
    formatters = [handler.formatter for handler in root.handlers]
    now = cwd, sys.path, warnings.filters, loggers, levels, root.level, formatters
    if _last is None or _last[0] != now:
        made = Surroundings(cwd, tuple(sys.path), _logging_settings(), _warning_filters())
        _last = (cwd, list(sys.path), list(warnings.filters), *now[3:]), pickle.dumps(made)
    return _last[1]


def _logging_settings() -> dict[str, Any]:
    root = logging.getLogger()
    loggers = list(root.manager.loggerDict.items())
    levels = {name: one.level for name, one in loggers if not isinstance(one, logging.PlaceHolder) and one.level}
    levels[""] = root.level
    if not root.handlers:
        return {"levels": levels, "format": None, "datefmt": None}
    formatter = root.handlers[0].formatter
    return {
        "levels": levels,
        "format": getattr(formatter, "_fmt", None) or _PLAIN_FORMAT,
        "datefmt": getattr(formatter, "datefmt", None),
    }


def _warning_filters() -> list[tuple[Any, ...]]:
    """The filters in force, each with the module and name of its category: nothing is imported in a worker for them."""
    filters = []
    for action, message, category, module, line in warnings.filters:
        name = (getattr(category, "__module__", ""), getattr(category, "__qualname__", ""))
        patterns = [getattr(pattern, "pattern", pattern) for pattern in (message, module)]
        if all(pattern is None or isinstance(pattern, str) for pattern in patterns):
            filters.append((action, patterns[0], name, patterns[1], line))
    return filters


def cell_sources(function: Callable[..., Any]) -> dict[str, str]:
    """Source of the cell that defines `function`, so that tracebacks and warnings in a worker can show lines of it."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return {}
    known: Any = linecache.cache.get(code.co_filename)
    # IPython puts its cells there without a time of change: they are no files, and are not looked for.
    is_cell = known is not None and len(known) == 4 and known[1] is None
    if not is_cell and Path(code.co_filename).exists():
        return {}
    lines = linecache.getlines(code.co_filename)
    return {code.co_filename: "".join(lines)} if lines else {}


class ModuleWatch:
    """Notices when a module of the user's own (not of the standard library or site-packages) was edited or reloaded.

    A module counts from the first time it is seen loaded. With autoreload the kernel has the new code at the call;
    workers imported the old one and must be replaced.
    """

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        own = str(Path(__file__).parents[1])
        known = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], own}
        self._foreign = tuple(path + os.sep for path in known)
        self._modules: dict[str, str] = {}  # name: file, of the user's modules
        self._n_loaded = -1
        self._examined: set[str] = set()
        self._seen: dict[str, tuple[object, int, int]] = {}

    def changed(self) -> list[str]:
        """Names of modules that changed since the last call."""
        if len(sys.modules) != self._n_loaded:
            self._n_loaded = len(sys.modules)
            self._find()
        changed = []
        for name, file in self._modules.items():
            try:
                status = os.stat(file)  # noqa: PTH116  # a third of pathlib's time: done for each call
            except OSError:
                continue
            mark = (getattr(sys.modules.get(name), "__spec__", None), status.st_mtime_ns, status.st_size)
            before = self._seen.get(name)
            if before is not None and (before[0] is not mark[0] or before[1:] != mark[1:]):
                changed.append(name)
            self._seen[name] = mark
        return changed

    def _find(self) -> None:
        for name, module in list(sys.modules.items()):
            if name in self._examined or name in ("__main__", "__mp_main__"):
                continue
            self._examined.add(name)
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file.endswith(".py") and not self._is_foreign(file):
                self._modules[name] = file

    def _is_foreign(self, file: str) -> bool:
        path = str(Path(file).absolute())
        return path.startswith(self._foreign) or f"{os.sep}site-packages{os.sep}" in path
