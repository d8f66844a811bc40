"""The fingerprint of a function: the same after a restart for unchanged code, another one when what it does may differ.

What counts: the function's code, defaults and closure; each global that it reads, and so the functions and classes that
it calls, in other cells and in modules of the user's own; of what is installed, the version. What does not: where the
function stands, file names and line numbers, comments. It is kept in parts with names, so that a user can be told what
has changed. Called by :mod:`nbpar.resume` in the thread of the user's call.

What cannot be seen: names that the code makes up as it runs (``globals()[name]``, ``eval``), files and the environment.
"""

from __future__ import annotations

import builtins
import dis
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import resolve_name
from typing import Any, NamedTuple

from nbpar.store.canonical import Canonical, cell_contents, digest, joined
from nbpar.store.sources import module_digest, statements_digest, version_of
from nbpar.wire.modules import is_library
from nbpar.wire.names import MAIN_MODULES

__all__ = ["Fingerprint", "fingerprint"]

_MISSING = object()

# Made by Python for every class, or another in each process.
_NOT_OF_CLASS = frozenset(
    {"__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__slotnames__", "__firstlineno__"}
    | {"__annotate__", "__annotate_func__", "__annotations_cache__", "__static_attributes__", "__classdictcell__"}
    | {"__abstractmethods__", "_abc_impl"}
)


_NOTHING: Mapping[str, object] = types.MappingProxyType({})


class Fingerprint(NamedTuple):
    """What a function is known by.

    Attributes
    ----------
    digest : bytes
        16 bytes; of `parts`.
    parts : dict of str to str
        A digest for each function, class, module and value that counts, by a name that tells a user which it is.
    """

    digest: bytes
    parts: dict[str, str]


def fingerprint(function: object, more: Mapping[str, object] = _NOTHING) -> Fingerprint:
    """The fingerprint of a function, and of further objects that its results depend on.

    Parameters
    ----------
    function : callable
        What is mapped: a function, a class, a partial, an object that can be called.
    more : mapping of str to object
        Further objects that count, by names that no variable can have.

    Examples
    --------
    >>> before, after = [fingerprint(len, {"the rate": rate}) for rate in (2, 3)]
    >>> [name for name in after.parts if after.parts[name] != before.parts[name]]
    ['the rate']
    """
    walk = _Walk()
    python = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    walk.parts["Python's version"] = digest(python.encode())
    # What it is comes behind a name of its own: a partial and an object with a `__call__` have no part elsewhere.
    walk.parts[""] = walk.canonical.encode(function)
    for name, value in sorted(more.items()):
        walk.parts[name] = walk.canonical.encode(value)
    walk.finish()
    parts = dict(sorted(walk.parts.items()))
    whole = digest(joined(b"f", [piece for name, part in parts.items() for piece in (name.encode(), part)]))
    return Fingerprint(whole, {name: digest(part).hex()[:16] for name, part in parts.items()})


class _Walk:
    """Goes from a function to all that it depends on."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.canonical = Canonical(self._reference)
        self._names: dict[int, str] = {}
        self._waiting: deque[tuple[str, Callable[[], bytes]]] = deque()
        self._kept: list[Any] = []  # so that no id is given twice

    def finish(self) -> None:
        """Look at all that was met."""
        while self._waiting:
            name, look = self._waiting.popleft()
            self.parts[name] = look()

    # --- what functions, classes and modules are known by -------------------------------------------------------------

    def _reference(self, obj: Any) -> bytes:
        if isinstance(obj, types.ModuleType):
            return self._module(obj.__name__)
        module, qualname = _home_of(obj), str(getattr(obj, "__qualname__", ""))
        if is_library(module):
            self._library(module)
            if _lookup(module, qualname) is obj or not _is_of_python(obj):
                return f"{module}:{qualname}".encode()
        written = f"{qualname}()" if isinstance(obj, types.FunctionType) else f"class {qualname}"
        look = self._look_at_function if isinstance(obj, types.FunctionType) else self._look_at_class
        name = written if module in MAIN_MODULES else f"{module}.{written}"
        return self._part(obj, name, lambda: look(obj, module))

    def _part(self, obj: Any, name: str, look: Callable[[], bytes]) -> bytes:
        known = self._names.get(id(obj))
        if known is None:
            known, n_same = name, 1
            while known in self.parts:
                n_same += 1
                known = f"{name} ({n_same})"
            self._names[id(obj)] = known
            self._kept.append(obj)
            self.parts[known] = b""  # taken
            self._waiting.append((known, look))
        return known.encode()

    def _library(self, module: str) -> None:
        package = module.partition(".")[0]
        if version := version_of(package):
            self.parts[f"{package}'s version"] = digest(version.encode())

    def _module(self, name: str) -> bytes:
        """A module as a whole: what is taken from it cannot be told."""
        if is_library(name):
            self._library(name)
        elif name not in MAIN_MODULES:
            self.parts[f"module {name}"] = module_digest(name)
        return f"module {name}".encode()

    # --- functions and classes ----------------------------------------------------------------------------------------

    def _look_at_function(self, function: types.FunctionType, module: str) -> bytes:
        encode, code = self.canonical.encode, function.__code__
        cells = function.__closure__ or ()
        closure = [encode(cell_contents(cell)) for cell in cells]
        own = [self._code(code), encode(function.__defaults__), encode(function.__kwdefaults__), *closure]
        own.append(encode({name: value for name, value in vars(function).items() if name != "__wrapped__"}))
        if not is_library(module):  # of a library's code the version says all
            own.append(self._file_part(module, function.__qualname__))
            own.extend(self._uses(code, function.__globals__))
        return joined(b"f", own)

    def _look_at_class(self, cls: Any, module: str) -> bytes:
        encode = self.canonical.encode
        own = [encode(type(cls)), *map(encode, cls.__bases__), self._file_part(module, cls.__qualname__)]
        for name, value in sorted(vars(cls).items()):
            if name not in _NOT_OF_CLASS and not name.startswith("__pydantic_"):
                own.append(name.encode())
                if isinstance(value, types.FunctionType):  # most methods: one part with their class
                    own.append(self._look_at_function(value, _home_of(value)))
                else:
                    own.append(_slot_name(value) or encode(value))
        return joined(b"c", own)

    def _file_part(self, module: str, qualname: str) -> bytes:
        if module in MAIN_MODULES or is_library(module):
            return b""
        return statements_digest(module, qualname.partition(".")[0])

    def _code(self, code: types.CodeType) -> bytes:
        encode = self.canonical.encode
        constants = [self._code(one) if isinstance(one, types.CodeType) else encode(one) for one in _constants_of(code)]
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        return joined(b"o", [code.co_name.encode(), code.co_code, table, encode(shape), encode(names), *constants])

    # --- globals and imports ------------------------------------------------------------------------------------------

    def _uses(self, code: types.CodeType, namespace: dict[str, Any]) -> Iterator[bytes]:
        """What the code finds outside of itself: name by name, with what it is bound to."""
        for path in _global_paths(code):
            name, *attributes = path
            home, value = namespace, namespace.get(name, _MISSING)
            if value is _MISSING:
                if not hasattr(builtins, name):
                    yield f"no {name}".encode()
                continue
            while isinstance(value, types.ModuleType) and attributes:
                if is_library(value.__name__):
                    break
                name = attributes.pop(0)
                inner = vars(value).get(name, sys.modules.get(f"{value.__name__}.{name}", _MISSING))
                if inner is _MISSING:
                    break
                home, value = vars(value), inner
            yield joined(b"g", [".".join(path).encode(), self._global(name, value, home)])
        for module, level in _imports(code):
            package = namespace.get("__package__") or str(namespace.get("__name__", "")).rpartition(".")[0]
            try:
                yield self._module(resolve_name("." * level + module, package) if level else module)
            except ImportError:  # a relative import outside of a package: it fails in the task as well
                yield b"no module"

    def _global(self, name: str, value: Any, namespace: dict[str, Any]) -> bytes:
        if isinstance(value, type | types.FunctionType | types.ModuleType):
            return self._reference(value)
        module = str(namespace.get("__name__", "__main__"))
        label = name if module in MAIN_MODULES else f"{module}.{name}"

        def look() -> bytes:
            return joined(b"v", [self.canonical.encode(value), self._file_part(module, name)])

        # By its place: two names of one object are two parts, and may come to differ.
        if label not in self.parts:
            self.parts[label] = b""
            self._kept.append(value)
            self._waiting.append((label, look))
        return f"value {label}".encode()


def _home_of(obj: Any) -> str:
    """The module that an object's code belongs to: a library's wrapper has the name of what it wraps."""
    home = obj.__globals__.get("__name__") if isinstance(obj, types.FunctionType) else getattr(obj, "__module__", None)
    return home if isinstance(home, str) else "builtins"


def _is_of_python(obj: Any) -> bool:
    """Whether it is a function or a class made by Python code; some types of C code have no name to be found by."""
    return isinstance(obj, types.FunctionType) or any(isinstance(one, types.FunctionType) for one in vars(obj).values())


def _lookup(module: str, qualname: str) -> object:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _slot_name(value: object) -> bytes:
    """For what Python makes of ``__slots__`` and the like: it has no content of its own."""
    if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
        return value.__name__.encode()
    return b""


_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


# --- code -------------------------------------------------------------------------------------------------------------


def _constants_of(code: types.CodeType) -> Iterable[Any]:
    """The constants, without the line number that the body of a class stores (Python 3.13)."""
    if "__firstlineno__" not in code.co_names:
        return code.co_consts
    return [None if type(one) is int and one == code.co_firstlineno else one for one in code.co_consts]


@lru_cache(maxsize=1024)
def _read(code: types.CodeType) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, int], ...]]:
    """The globals that code reads, each with the attributes that follow; and its imports with their levels."""
    paths: dict[tuple[str, ...], None] = {}
    imports: dict[tuple[str, int], None] = {}
    path: list[str] = []
    levels: deque[Any] = deque([0, None], maxlen=2)
    for instruction in dis.get_instructions(code):
        operation, argument = instruction.opname, instruction.argval
        if operation in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path.append(argument)
            continue
        if path:
            paths[tuple(path)] = None
        path = [argument] if operation in _LOADS_GLOBAL else []
        if operation == "IMPORT_NAME":
            imports[argument, levels[0] if type(levels[0]) is int else 0] = None
        elif operation.startswith("LOAD_"):
            levels.append(argument)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            inner_paths, inner_imports = _read(one)
            paths.update(dict.fromkeys(inner_paths))
            imports.update(dict.fromkeys(inner_imports))
    return tuple(paths), tuple(imports)


def _global_paths(code: types.CodeType) -> Iterable[tuple[str, ...]]:
    return _read(code)[0]


def _imports(code: types.CodeType) -> Iterable[tuple[str, int]]:
    return _read(code)[1]
