"""What the accessors have in common: options, and the way from a method of pandas to a job and back.

Called by :mod:`nbpar.interop.pandas.frames` and :mod:`nbpar.interop.pandas.grouped`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from nbpar.errors import OptionsError
from nbpar.interop.pandas.replay import Asked, Settings, settle
from nbpar.options import Progress, job_options
from nbpar.pool import WorkerPool

__all__ = ["Accessor", "elements", "is_plain", "none"]

A = TypeVar("A", bound="Accessor")


class Accessor:
    """What the accessors have in common: the object, and the options of its jobs."""

    def __init__(self, obj: Any, settings: Settings | None = None) -> None:
        self._obj = obj
        self._settings = settings or Settings()

    def __call__(
        self: A,
        *,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        seed: int | None = None,
        progress: Progress = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        profile: bool = False,
    ) -> A:
        """The same with options for the jobs of its methods.

        Parameters
        ----------
        pool : WorkerPool, optional
            A pool of your own; by default the notebook's.
        chunk_size, timeout, retries, seed, progress, name, max_in_flight, profile
            As for :func:`nbpar.map`. A task is one call of the function: a row, a group, a window, a value.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.Series([1, 2]).nbpar(retries=1, name="double").map(lambda x: 2 * x).tolist()
        [2, 4]
        """
        if pool is not None and not isinstance(pool, WorkerPool):
            raise OptionsError("pool", pool, "a nbpar.WorkerPool, or None (the notebook's own)")
        job_options(chunk_size, timeout, retries, "raise", seed, progress, name, max_in_flight, None, profile)
        options = {
            "chunk_size": chunk_size,
            "timeout": timeout,
            "retries": retries,
            "seed": seed,
            "progress": progress,
            "max_in_flight": max_in_flight,
            "profile": profile,
        }
        return type(self)(self._obj, Settings(pool, name, options))

    def __repr__(self) -> str:
        return f"<nbpar for a {type(self._obj).__name__}>"

    def _settle(self, method: Callable[[Any], Any], function: Any, cut: Callable[[Asked], Any], **how: Any) -> Any:
        """See :func:`~nbpar.interop.pandas.replay.settle`; `cut` makes the job's items of what pandas asks."""
        __tracebackhide__ = True

        def run(asked: Asked, on_error: str) -> list[Any]:
            __tracebackhide__ = True
            return self._settings.run(function, asked.args, asked.kwargs, cut(asked), on_error=on_error)

        return settle(method, function, run, **how)


def none(_: object) -> None:
    """The blank of most methods; see :data:`~nbpar.interop.pandas.replay.Blank`."""


def elements(asked: Asked) -> list[Any]:
    """What was asked, as it is: values of a column or a frame."""
    return asked.arguments


def is_plain(function: Any) -> bool:
    """Whether pandas would call it again and again; else it is a name, a list, a dict, or works on all at once."""
    return callable(function) and not isinstance(function, np.ufunc) and not pd.api.types.is_list_like(function)
