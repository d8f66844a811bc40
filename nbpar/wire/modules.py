"""Which modules are the user's own: files beside the notebook, neither Python's nor an installed package's.

Owns that one rule. Asked by :mod:`nbpar.store.fingerprint`, by :mod:`nbpar.worker.contents` and by
:mod:`nbpar.notebook.captures`; loaded by none of them until there is something to be looked at.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
from pathlib import Path

from nbpar.wire.names import MAIN_MODULES

__all__ = ["file_of", "is_library"]


def is_library(name: str) -> bool:
    """Whether a module belongs to Python or to an installed package; not if it is the user's own, or the notebook.

    Examples
    --------
    >>> is_library("json"), is_library("__main__")
    (True, False)
    """
    if name in MAIN_MODULES:
        return False
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return _is_installed(file)
    spec = getattr(module, "__spec__", None)
    top = name.partition(".")[0]
    if module is not None and spec is None:  # made by hand in this process; Cython makes one for its types
        return top.startswith("_cython_") or top in sys.stdlib_module_names
    if top in sys.stdlib_module_names or getattr(spec, "origin", None) in ("built-in", "frozen"):
        return True
    found = file_of(name)
    return found is not None and _is_installed(str(found))


def file_of(name: str) -> Path | None:
    """The file of a module that may not be loaded; nothing is imported for it."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if isinstance(file, str):
        return Path(file)
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module made by hand, without a spec
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for found in (path / "__init__.py", path.with_suffix(".py")):
            if found.is_file():
                return found
    return None


@functools.cache
def _foreign_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {
        str(Path(__file__).parents[1])
    }
    return tuple(f"{folder}/" for folder in {Path(one).resolve().as_posix() for one in folders})


@functools.lru_cache(maxsize=4096)
def _is_installed(file: str) -> bool:
    path = Path(file)
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    return path.resolve().as_posix().startswith(_foreign_folders())
