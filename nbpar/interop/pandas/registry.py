"""Makes ``nbpar`` an attribute of pandas' objects; called once, by :mod:`nbpar.interop.pandas`."""

from __future__ import annotations

import pandas as pd

from nbpar.interop.pandas.frames import FrameAccessor, SeriesAccessor
from nbpar.interop.pandas.grouped import GroupByAccessor, WindowAccessor

__all__ = ["register"]


def register() -> None:
    """Make ``nbpar`` an attribute of frames, Series, groupby objects and windows; once is enough."""
    for cls, accessor, registrar in (
        (pd.DataFrame, FrameAccessor, pd.api.extensions.register_dataframe_accessor),
        (pd.Series, SeriesAccessor, pd.api.extensions.register_series_accessor),
    ):
        if getattr(getattr(cls, "nbpar", None), "__module__", None) == accessor.__module__:
            delattr(cls, "nbpar")  # this module was loaded anew
        registrar("nbpar")(accessor)
    # Pandas has no such registry for these.
    for name in ("DataFrameGroupBy", "SeriesGroupBy"):
        getattr(pd.api.typing, name).nbpar = property(GroupByAccessor)
    for name in ("Rolling", "Expanding"):
        getattr(pd.api.typing, name).nbpar = property(WindowAccessor)
