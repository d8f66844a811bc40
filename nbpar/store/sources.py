"""Modules of the user's own: what their files say at this moment.

Workers import a module of the user's own anew when its file has changed, while the kernel may still have the old one in
memory. So what a function of such a module does is told by both, and :mod:`nbpar.store.fingerprint` asks here for the
file's part: the statements that a name depends on, without their comments and places.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbpar.store.canonical import digest, joined
from nbpar.wire.modules import file_of, is_library
from nbpar.wire.names import MAIN_MODULES

__all__ = ["module_digest", "statements_digest", "version_of"]


@functools.lru_cache(maxsize=1024)
def version_of(package: str) -> str:
    """The version of an installed package, by its top-level name; empty when it has none of its own."""
    if package in sys.stdlib_module_names or package == "nbpar":
        return ""
    version = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # installed under another name
        return ""


def module_digest(name: str) -> bytes:
    """All that the file of a user's module says, and those of the user's modules that it imports."""
    return joined(b"m", [part for one in sorted(_with_imports(name)) for part in (one.encode(), _content_digest(one))])


def statements_digest(module: str, name: str) -> bytes:
    """The top-level statements of a module's file that a name depends on; empty without a Python file."""
    source = _source_of(module)
    return b"" if source is None else source.digest_of(name)


# --- files ------------------------------------------------------------------------------------------------------------


def _content_digest(name: str) -> bytes:
    source, file = _source_of(name), file_of(name)
    if source is not None:
        return source.digest
    try:
        return b"" if file is None else digest(file.read_bytes())  # an extension module of the user's own
    except OSError:
        return b""


def _with_imports(name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in found or is_library(one) or file_of(one) is None:
            continue
        found.add(one)
        source = _source_of(one)
        if source is not None:
            waiting.extend(source.imports(one))
    return found


def _source_of(module: str) -> _Source | None:
    file = file_of(module)
    if file is None or file.suffix != ".py" or module in MAIN_MODULES:
        return None
    try:
        status = file.stat()
        return _read(str(file), status.st_mtime_ns, status.st_size)
    except (OSError, SyntaxError, ValueError):  # gone, or half written: what is in memory has to do
        return None


@functools.lru_cache(maxsize=64)
def _read(file: str, _mtime_ns: int, _size_bytes: int) -> _Source:
    return _Source(ast.parse(Path(file).read_bytes(), file), is_package=Path(file).name == "__init__.py")


class _Source:
    """A module's file, parsed."""

    def __init__(self, tree: ast.Module, *, is_package: bool) -> None:
        self._is_package = is_package
        self._imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        self._statements = [(digest(ast.dump(node).encode()), _names_in(node)) for node in tree.body]
        self._binding: dict[str, list[int]] = {}
        for at, node in enumerate(tree.body):
            for name in _bound_by(node):
                self._binding.setdefault(name, []).append(at)
        self.digest = joined(b"s", [one for one, _ in self._statements])

    def digest_of(self, name: str) -> bytes:
        """The statements that bind the name, and those that bind the names in these."""
        found: set[int] = set()
        waiting, seen = [name], {name}
        while waiting:
            for at in self._binding.get(waiting.pop(), ()):
                if at not in found:
                    found.add(at)
                    new = self._statements[at][1] - seen
                    seen |= new
                    waiting.extend(new)
        return joined(b"n", [self._statements[at][0] for at in sorted(found)])

    def imports(self, module: str) -> Iterator[str]:
        """Names of modules that it imports, wherever in its file; some of them may be names in modules."""
        parts = module.split(".")
        package = parts if self._is_package else parts[:-1]
        for node in self._imports:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
                continue
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from filter(None, [start, *(f"{start}.{alias.name}" for alias in node.names)])


def _names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _bound_by(node: Any) -> Iterator[str]:
    """Names that a top-level statement binds or may change, in its branches too."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
            return
        case ast.Import() | ast.ImportFrom():
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        case ast.Assign() | ast.Delete():
            yield from (name for target in node.targets for name in _names_in(target))
        case ast.AugAssign() | ast.AnnAssign() | ast.For():
            yield from _names_in(node.target)
        case ast.With():
            yield from (name for item in node.items if item.optional_vars for name in _names_in(item.optional_vars))
        case ast.Expr():  # `RATES.update(...)`
            yield from _names_in(node)
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):  # not for those who import it
            return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _bound_by(child)
