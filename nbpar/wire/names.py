"""Which functions, classes and modules a worker can import by name.

Owns that one rule, which :mod:`nbpar.wire.byvalue` and :mod:`nbpar.wire.special` go by: what a worker cannot import
travels by value; and which global names a function that does so brings along. cloudpickle's rule, and two more: workers
have an almost empty ``__main__``, and no module that was made by hand.
"""

from __future__ import annotations

import dis
import inspect
import pickle
import sys
import weakref
from collections.abc import Mapping
from types import CodeType
from typing import Any

from cloudpickle import cloudpickle as cp

__all__ = ["MAIN_MODULES", "check_name", "globals_of", "goes_by_name", "importable"]

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


def globals_of(code: CodeType) -> Mapping[str, None]:
    r"""Global names that code uses, and code inside it, in an order that is always the same.

    As cloudpickle has it, which forgets the bodies of classes; it learns the rest from here.

    Examples
    --------
    >>> list(globals_of(compile("class A:\n    x = y\n    def f(self):\n        return z", "", "exec")))
    ['y', 'z']
    """
    found: dict[str, None] | None = _globals_of.get(code)
    if found is None:
        found = dict.fromkeys(cp._walk_global_ops(code))
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                if not inner.co_flags & inspect.CO_OPTIMIZED:  # of a class: its names are looked up there and outside
                    looked_up = (one.argval for one in dis.get_instructions(inner) if one.opname in _LOOKED_UP)
                    found.update(dict.fromkeys(name for name in looked_up if not name.startswith("__")))
                found.update(globals_of(inner))
        _globals_of[code] = cp._extract_code_globals_cache[code] = found
    return found


_LOOKED_UP = frozenset({"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_globals_of: weakref.WeakKeyDictionary[CodeType, dict[str, None]] = weakref.WeakKeyDictionary()
