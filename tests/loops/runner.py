"""nbpar as a runner of the oracle's: a cell of text on a namespace, without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType
from typing import Any

import nbpar
from nbpar.errors import InternalError, NbparError
from nbpar.notebook.loop_run import run_loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Refused, Source
from tests.loops.oracle import FILENAME, Refusal

__all__ = ["Parallel"]


class Parallel:
    """Runs cells as ``%%parallel`` does, on a pool that it keeps.

    Parameters
    ----------
    start_method : str
        Of the pool's workers.
    """

    def __init__(self, start_method: Any = "serial") -> None:
        self._pool = nbpar.WorkerPool(n_workers=1 if start_method == "serial" else 2, start_method=start_method)

    def __enter__(self) -> Parallel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown()

    def __call__(self, cell: str, names: dict[str, Any], tell_unset: Callable[[str], None]) -> None:
        source = Source(f"%%parallel\n{cell}", filename=FILENAME)

        def tell(note: str) -> None:
            for name in re.findall(r"^`(\w+)` is not set", note):
                tell_unset(name)

        try:
            loop = read_loop(source.parse(cell, line=2), source)
            run_loop(loop, source, names, pool=self._pool, call={"progress": False}, tell=tell)
        except Refused as refused:
            raise Refusal(source.describe(refused)) from None
        except InternalError:
            raise
        except NbparError as error:  # of a value that cannot travel, or a lost update
            raise Refusal(f"{type(error).__name__}: {error}") from error
