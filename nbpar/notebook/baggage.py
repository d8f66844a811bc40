"""What a task brings along to a worker: the notebook's objects that it names, and how large they are on the way.

Owns the walk from names to objects (through functions of the notebook, which name others) and the measuring, which
pickles into a counter: nothing is copied and nothing is kept, and it ends after a budget of time. Called by
:mod:`nbpar.notebook.dry_run`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from nbpar.wire.arrays import LARGE_BYTES
from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.codec import CannotPickle, Codec
from nbpar.wire.names import MAIN_MODULES, globals_of, goes_by_name, importable

__all__ = ["Baggage", "Piece", "kind_of", "pack"]

BUDGET_S = 1.0
"""For measuring all that one task brings; what comes after it has no size."""

_CONTAINERS = (list, tuple, dict, set, frozenset, str, bytes, bytearray)


@dataclass(frozen=True, slots=True)
class Piece:
    """An object of the notebook that travels.

    Attributes
    ----------
    name : str
    kind : str
        Its type, and where that says something its extent: ``ndarray float64 (100, 3)``, ``list of 12``.
    size_bytes : int or None
        Its share of the whole: what was met before it, inside another object, is not counted again. None when the
        budget was used up.
    shared_bytes : int
        How much of it travels in shared memory instead of in the message.
    is_least : bool
        Whether `size_bytes` is what had been counted when the budget was used up.
    used_by : str
        The function of the notebook that names it; nothing when the task itself does.
    problem : str
        Why it cannot travel.
    """

    name: str
    kind: str
    size_bytes: int | None = None
    shared_bytes: int = 0
    is_least: bool = False
    used_by: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Baggage:
    """All that a task names, outside of itself.

    Attributes
    ----------
    pieces : tuple of Piece
        What travels, the largest first.
    imported : tuple of str
        Modules, and functions and classes of modules: a worker imports them.
    missing : tuple of str
        Names that neither the notebook nor Python has.
    """

    pieces: tuple[Piece, ...] = ()
    imported: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def pack(names: Iterable[str], known: Mapping[str, Any], builtin: Collection[str] = ()) -> Baggage:
    """Look at what a task names.

    Parameters
    ----------
    names : iterable of str
        Outer names that its code looks up.
    known : mapping
        The notebook's names, and those of a function around the task.
    builtin : collection of str
        Names that Python has by itself.

    Examples
    --------
    >>> import math
    >>> baggage = pack(["math", "rows", "len", "oops"], {"math": math, "rows": [1, 2, 3]}, {"len"})
    >>> [(piece.name, piece.kind) for piece in baggage.pieces], baggage.imported, baggage.missing
    ([('rows', 'list of 3')], ('math',), ('oops',))
    """
    found: dict[str, tuple[Any, str]] = {}
    imported: dict[str, None] = {}
    missing: dict[str, None] = {}
    waiting = [(name, known, "") for name in names]
    while waiting:
        name, around, used_by = waiting.pop(0)
        if name in found or name in imported or name in missing:
            continue
        if name not in around:
            if name not in builtin:
                missing[name] = None
            continue
        value = around[name]
        if _is_imported(value):
            imported[name] = None
            continue
        found[name] = value, used_by
        waiting.extend((inner, globals_, name) for inner, globals_ in _names_of(value))
    measured = _measure(found)
    pieces = sorted(measured, key=lambda piece: (not piece.problem, -(piece.size_bytes or 0)))
    return Baggage(tuple(pieces), tuple(imported), tuple(missing))


def _is_imported(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__ not in MAIN_MODULES and importable(value.__name__)
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, ModuleType)
    return isinstance(value, type | FunctionType) and goes_by_name(value)


def _names_of(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What functions of the notebook look up, and where: of a function, of the methods of a class."""
    for one in vars(value).values() if isinstance(value, type) else (value,):
        function = getattr(one, "__wrapped__", getattr(one, "__func__", one))
        if type(function) is FunctionType and not goes_by_name(function):
            for name in globals_of(function.__code__):
                if not name.startswith("__"):
                    yield name, function.__globals__


# --- sizes ------------------------------------------------------------------------------------------------------------


class _EnoughError(Exception):
    """The budget is used up."""


class _Counter:
    """A file that counts instead of keeping."""

    def __init__(self, end_s: float) -> None:
        self._end_s = end_s
        self.n_bytes = 0
        self.shared_bytes = 0

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.n_bytes += n_bytes
        if time.perf_counter() > self._end_s:
            raise _EnoughError
        return n_bytes

    def beside(self, buffer: Any) -> bool:
        """Whether a buffer goes into the pickle, as the codec decides it."""
        n_bytes = buffer.raw().nbytes
        if n_bytes < LARGE_BYTES:
            return True
        self.n_bytes += n_bytes
        self.shared_bytes += n_bytes
        return False


def _measure(found: Mapping[str, tuple[Any, str]]) -> Iterator[Piece]:
    """Sizes, by one pickler, so that what several objects share counts once: data first, then what refers to it."""
    counter = _Counter(time.perf_counter() + BUDGET_S)
    pickler = _pickler(counter)
    is_over = False
    for name in sorted(found, key=lambda name: isinstance(found[name][0], type | FunctionType)):
        value, used_by = found[name]
        kind = kind_of(value)
        if is_over:
            yield Piece(name, kind, None, used_by=used_by)
            continue
        counter.n_bytes = counter.shared_bytes = 0
        problem = ""
        try:
            pickler.dump(value)
        except _EnoughError:
            is_over = True
        except Exception:  # noqa: BLE001  # code of the user's may raise anything; the codec knows more ways, and says why
            counter.shared_bytes = 0
            counter.n_bytes, problem = _by_codec(name, value)
            pickler = _pickler(counter)  # of the other one nobody knows how far it came
        yield Piece(name, kind, counter.n_bytes, counter.shared_bytes, is_over, used_by, problem)


def _pickler(counter: _Counter) -> ByValuePickler:
    shared = Codec.shared_type
    types = shared if isinstance(shared, tuple) else () if shared is None else (shared,)
    file: Any = counter
    return ByValuePickler(file, counter.beside, whole_classes=True, shared_types=types)


def _by_codec(name: str, value: Any) -> tuple[int, str]:
    try:
        return Codec().encode(value, name=name).n_bytes, ""
    except CannotPickle as error:
        return 0, str(error)


def kind_of(value: Any) -> str:
    """The type of an object in a few words, without calling anything of the user's.

    Examples
    --------
    >>> kind_of([1, 2]), kind_of("abc"), kind_of(1.5), kind_of(lambda: 0)
    ('list of 2', 'str of 3', 'float', 'function')
    """
    kind = type(value)
    if kind in _CONTAINERS:
        return f"{kind.__name__} of {len(value):,}"
    if isinstance(value, type):
        return "class"
    home = kind.__module__.partition(".")[0]
    if home == "numpy" and hasattr(kind, "dtype") and hasattr(kind, "shape") and kind.__name__.endswith("array"):
        return f"{kind.__name__} {value.dtype} {_extent(value.shape)}"
    if home == "pandas" and hasattr(kind, "shape"):
        return f"{kind.__name__} {_extent(value.shape)}"
    return kind.__name__


def _extent(shape: tuple[int, ...]) -> str:
    return f"({shape[0]:,},)" if len(shape) == 1 else f"({', '.join(f'{n:,}' for n in shape)})"
