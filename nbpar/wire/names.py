"""Which functions, classes and modules a worker can import by name.

Owns that one rule, which :mod:`nbpar.wire.byvalue` and :mod:`nbpar.wire.special` go by: what a worker cannot import
travels by value. cloudpickle's rule, and two more: workers have an almost empty ``__main__``, and no module that was
made by hand.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from cloudpickle import cloudpickle as cp

__all__ = ["MAIN_MODULES", "check_name", "goes_by_name", "importable"]

MAIN_MODULES = frozenset({"__main__", "__mp_main__"})


def importable(name: str) -> bool:
    """Whether a worker can import the module.

    Workers have an almost empty ``__main__``. A module without a spec was made by hand in this process, unless it is
    part of a package that was imported, which then makes it there as well.
    """
    module = sys.modules.get(name)
    if module is None or name in MAIN_MODULES:
        return False
    if getattr(module, "__spec__", None) is not None:
        return True
    root = sys.modules.get(name.partition(".")[0])
    return getattr(root, "__spec__", None) is not None


def goes_by_name(obj: Any) -> bool:
    """Whether a class or function is found by its module and name in a worker."""
    found = cp._lookup_module_and_qualname(obj)
    if found is None:
        return False
    module = found[0]
    return importable(module.__name__) and not cp._is_registered_pickle_by_value(module)


def check_name(obj: Any, name: str) -> str:
    """The name that an object pickles by, if a worker finds it there.

    Raises
    ------
    pickle.PicklingError
        The name is known in this process only.
    """
    module = pickle.whichmodule(obj, name)  # type: ignore[attr-defined]  # absent from typeshed
    if importable(module):
        return name
    raise pickle.PicklingError(
        f"it is pickled by its name {name!r}, which is known in the notebook only; make it inside the function"
    )
