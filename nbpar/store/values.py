"""Results to bytes and back, for a file that outlives its kernel.

Not the wire's pickler: what it writes is read by the same version of nbpar, at once. Here functions and classes made in
a function go by value, as cloudpickle does; classes of the notebook by name, for a later kernel has them made anew; all
else as it pickles itself. Called by :mod:`nbpar.resume`.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import cloudpickle

from nbpar.wire.codec import Codec

__all__ = ["from_bytes", "notebook_class", "to_bytes"]

_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None)))


def to_bytes(value: object) -> bytes:
    """A result as a pickle.

    Raises
    ------
    BaseException
        Whatever pickling raised, code of the user's included.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, 5)
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getvalue()


def from_bytes(data: bytes) -> Any:
    """The result again. Runs what the pickle says: only for files that the user trusts.

    Raises
    ------
    BaseException
        Whatever unpickling raised; LookupError for a class that this notebook does not have.
    """
    return pickle.loads(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for everything but exact builtins."""
        if isinstance(obj, type) and obj.__module__ == "__main__":
            if isinstance(_find(obj.__module__, obj.__qualname__), type):
                return notebook_class, (obj.__module__, obj.__qualname__)
        elif Codec.shared_type is not None and isinstance(obj, Codec.shared_type):
            raise pickle.PicklingError("it holds on to shared memory, which ends with the notebook")
        return super().reducer_override(obj)


def _find(module: str, qualname: str) -> object:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def notebook_class(module: str, qualname: str) -> type:
    """The notebook's class of that name; named inside pickles.

    Raises
    ------
    LookupError
        There is none.
    """
    found = _find(module, qualname)
    if not isinstance(found, type):
        raise LookupError(f"this notebook has no class {qualname!r}")
    return found
