"""Pandas on all cores: ``df.nbpar.apply`` for ``df.apply``, and the same for Series, groups and windows.

``import nbpar.interop.pandas`` gives these an attribute ``nbpar``:

=====================================  ==========================================
``df.nbpar``                           ``apply``, ``map``
``series.nbpar``                       ``map``, ``apply``
``df.groupby(...).nbpar``              ``apply``, ``agg``, ``aggregate``, ``transform``
``df.rolling(...).nbpar``              ``apply``; ``df.expanding(...)`` too
=====================================  ==========================================

Signatures and results are those of pandas. Options are given in between: ``df.nbpar(retries=1).apply(f, axis=1)``. See
``docs/reference/pandas.md``.

Examples
--------
>>> import nbpar, pandas as pd
>>> import nbpar.interop.pandas
>>> nbpar.configure(n_workers=2, start_method="threads")
>>> df = pd.DataFrame({"name": ["Ada", "Alan"], "born": [1815, 1912]})
>>> df.nbpar.apply(lambda row: f"{row['name']}, {row['born']}", axis=1).tolist()
['Ada, 1815', 'Alan, 1912']
"""

from __future__ import annotations

try:
    import pandas as pd  # noqa: F401  # for the message; the modules of this package load it anyway
except ImportError as error:
    raise ImportError("nbpar.interop.pandas needs pandas: pip install 'nbpar[pandas]'") from error

from nbpar.interop.pandas.frames import FrameAccessor, SeriesAccessor
from nbpar.interop.pandas.grouped import GroupByAccessor, WindowAccessor
from nbpar.interop.pandas.registry import register

__all__ = ["FrameAccessor", "GroupByAccessor", "SeriesAccessor", "WindowAccessor"]

register()
