"""Looking into checkpoint files: :func:`info`.

The files are made by the option ``checkpoint`` of `nbpar.map` and its kin; :mod:`nbpar.store` reads and writes them.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from nbpar.sizes import in_words
from nbpar.store.journal import describe

__all__ = ["CheckpointInfo", "FunctionInfo", "info"]


class FunctionInfo(NamedTuple):
    """What a checkpoint has of one function, in one version of its code.

    Attributes
    ----------
    name : str
        The function's.
    fingerprint : str
        Tells versions of the function apart; the beginning of it.
    n_results, size_bytes : int
        How many results, and how large they are together.
    first_written, last_written : datetime or None
        When the oldest and the newest of them were kept, in local time; None where there are none.
    """

    name: str
    fingerprint: str
    n_results: int
    size_bytes: int
    first_written: datetime | None
    last_written: datetime | None

    def __repr__(self) -> str:
        times = ""
        if self.first_written is not None and self.last_written is not None:
            times = f", {self.first_written:%Y-%m-%d %H:%M} to {self.last_written:%Y-%m-%d %H:%M}"
        return f"{self.name} ({self.fingerprint}): {self.n_results:,} results, {in_words(self.size_bytes)}{times}"


class CheckpointInfo(NamedTuple):
    """What a checkpoint has.

    Attributes
    ----------
    path : str
        The file.
    size_bytes : int
        Its size, with what a running or killed kernel has left beside it.
    functions : tuple of FunctionInfo
        In the order in which they came.
    """

    path: str
    size_bytes: int
    functions: tuple[FunctionInfo, ...]

    @property
    def n_results(self) -> int:
        """Results in all."""
        return sum(function.n_results for function in self.functions)

    def __repr__(self) -> str:
        head = f"{self.path}: {self.n_results:,} results, {in_words(self.size_bytes)}"
        return "\n".join([head, *(f"  {function!r}" for function in self.functions)])


def info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Say what a checkpoint file has, without loading any of its results: nothing that stands in it is run.

    Parameters
    ----------
    path : str or path
        The file; it is not changed.

    Returns
    -------
    CheckpointInfo
        Prints as a short table.

    Raises
    ------
    CheckpointError
        When there is no such file, or it is no checkpoint.

    Examples
    --------
    >>> import nbpar, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "sweep.db")
    >>> with nbpar.WorkerPool(start_method="serial") as pool:
    ...     _ = pool.map(abs, [-1, -2], checkpoint=path)
    >>> nbpar.checkpoint.info(path).functions[0].n_results
    2
    """
    file = Path(path).expanduser()
    rows = describe(file)
    functions = tuple(
        FunctionInfo(
            "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in row.name[:200]),
            row.fingerprint[:8],
            row.n_results,
            row.size_bytes,
            _time(row.first_s),
            _time(row.last_s),
        )
        for row in rows
    )
    sizes = (one.stat().st_size for one in (file, file.with_name(f"{file.name}-wal")) if one.exists())
    return CheckpointInfo(str(file), sum(sizes), functions)


def _time(at_s: float | None) -> datetime | None:
    return None if at_s is None else datetime.fromtimestamp(at_s).astimezone()
