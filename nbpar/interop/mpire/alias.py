"""One module, not two, where a program has this package under MPIRE's name.

After ``sys.modules["mpire"] = nbpar.interop.mpire`` a statement such as ``import mpire.utils`` would load the file of
that module once more, under the second name: two of each class, and two of what a program sets in it. The finder here
answers such names with the modules that are there. :mod:`nbpar.interop.mpire` installs it when it is imported.

Modules of such a program are imported in workers as well: :mod:`nbpar.interop.mpire.shift` has them take on the name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["for_workers", "install"]

PACKAGE = __name__.rpartition(".")[0]


# Neither derives from its class in importlib.abc: to load that takes longer than all else a worker loads for a pool.


class _Finder:
    """Finds what lies below another name of this package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        root, _, rest = fullname.partition(".")
        if not rest or sys.modules.get(root) is not sys.modules.get(PACKAGE):
            return None
        import importlib.util  # as above

        name = f"{PACKAGE}.{rest}"
        if importlib.util.find_spec(name) is None:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(name))  # type: ignore[arg-type]  # see above


class _Loader:
    """Loads a module by its own name and has the other name stand for the same object."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have an empty one made."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module that was made for the other name, which imports allow while it is loaded."""
        sys.modules[module.__name__] = importlib.import_module(self._name)


def install() -> None:
    """Answer such imports from now on; once is enough, and more do no harm."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def for_workers() -> Callable[[], None] | None:
    """What a worker process is to call when it starts, so that it knows this package by the names it has here.

    None where it has no other name.

    Examples
    --------
    >>> import nbpar.interop.mpire
    >>> for_workers() is None
    True
    >>> sys.modules["another_name"] = nbpar.interop.mpire
    >>> for_workers()()
    >>> del sys.modules["another_name"]
    """
    package = sys.modules[PACKAGE]
    names = tuple(name for name, module in list(sys.modules.items()) if module is package and name != PACKAGE)
    return partial(_take_on, names) if names else None


def _take_on(names: tuple[str, ...]) -> None:
    for name in names:
        sys.modules[name] = sys.modules[PACKAGE]
