"""``groupby(...).nbpar`` and ``rolling(...).nbpar``: the methods with pandas' signatures.

A call that has nothing to compute in parallel (a function's name, a dict) is pandas' own. Registered by
:mod:`nbpar.interop.pandas`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nbpar.interop.pandas.base import Accessor, is_plain, none
from nbpar.interop.pandas.groups import cut_groups
from nbpar.interop.pandas.pieces import Cut
from nbpar.interop.pandas.replay import Asked
from nbpar.interop.pandas.windows import cut_windows

__all__ = ["GroupByAccessor", "WindowAccessor"]


_GROUPED_WINDOWS = {"RollingGroupby", "RollingGroupBy", "ExpandingGroupby", "ExpandingGroupBy"}
"""By name: each version of pandas has two of them, and warns of the others."""


def _is_known(function: Any) -> bool:
    """Whether groups may have something of their own for it: pandas 2 has, for ``sum``, ``numpy.mean`` and the like."""
    from pandas.core import common

    for name in ("_cython_table", "_builtin_table"):
        try:
            if function in getattr(common, name, ()):
                return True
        except TypeError:  # not hashable
            return False
    return False


class GroupByAccessor(Accessor):
    """``df.groupby(...).nbpar``, of a frame or of a column: the groups are the tasks.

    Examples
    --------
    >>> import nbpar, pandas as pd
    >>> import nbpar.interop.pandas
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> df = pd.DataFrame({"key": ["a", "b", "a"], "x": [1, 2, 3]})
    >>> df.groupby("key")["x"].nbpar.agg(lambda group: group.max() - group.min()).to_dict()
    {'a': 2, 'b': 0}
    """

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """``apply`` of :class:`pandas.api.typing.DataFrameGroupBy` or ``SeriesGroupBy``.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> df = pd.DataFrame({"key": ["a", "b", "a"], "x": [1, 2, 3]})
        >>> df.groupby("key")[["x"]].nbpar.apply(lambda group: group["x"].sum()).to_dict()
        {'a': 4, 'b': 2}
        """
        __tracebackhide__ = True
        return self._by_group("apply", func, args, kwargs, blank=none)

    def agg(self, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``agg``; with a function, each group of each column is a task. With names, lists and dicts it is pandas' own.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> df = pd.DataFrame({"key": ["a", "b", "a"], "x": [1, 2, 3]})
        >>> df.groupby("key").nbpar.agg(lambda column: column.iloc[-1])["x"].to_dict()
        {'a': 3, 'b': 2}
        """
        __tracebackhide__ = True
        return self._by_group("agg", func, args, kwargs, blank=lambda _: np.nan)

    aggregate = agg

    def transform(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """``transform``; of a frame, the first group is computed before the others, since pandas tries it in two ways.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> df = pd.DataFrame({"key": ["a", "b", "a"], "x": [1, 2, 3]})
        >>> df.groupby("key")["x"].nbpar.transform(lambda group: group - group.min()).tolist()
        [0, 0, 2]
        """
        __tracebackhide__ = True
        decides = pd.DataFrame if isinstance(self._obj, pd.api.typing.DataFrameGroupBy) else None
        return self._by_group("transform", func, args, kwargs, blank=lambda argument: argument, decides=decides)

    def _by_group(self, verb: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], **how: Any) -> Any:
        __tracebackhide__ = True
        grouped = self._obj
        method = getattr(grouped, verb)
        if not is_plain(function) or _is_known(function) or kwargs.get("engine") not in (None, "cython"):
            return method(function, *args, **kwargs)

        def cut(asked: Asked) -> Cut:
            return cut_groups(grouped, asked.arguments, is_first=asked.is_first, by_column=verb != "transform")

        return self._settle(lambda one: method(one, *args, **kwargs), function, cut, **how)


class WindowAccessor(Accessor):
    """``df.rolling(...).nbpar`` and ``df.expanding(...).nbpar``, of a column or after a groupby too.

    Examples
    --------
    >>> import nbpar, pandas as pd
    >>> import nbpar.interop.pandas
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> pd.Series([1.0, 2.0, 4.0]).rolling(2).nbpar.apply(lambda window: window.max(), raw=True).tolist()
    [nan, 2.0, 4.0]
    """

    def apply(
        self,
        func: Any,
        raw: bool = False,
        engine: Any = None,
        engine_kwargs: Any = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """``apply`` of :class:`pandas.api.typing.Rolling` or ``Expanding``; the windows are the tasks.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.Series([1.0, 2.0, 4.0]).expanding().nbpar.apply(lambda window: window.iloc[-1]).tolist()
        [1.0, 2.0, 4.0]
        """
        __tracebackhide__ = True
        window = self._obj
        is_sound = callable(func) and engine in (None, "cython") and isinstance(raw, bool | np.bool_)
        if not is_sound:
            return window.apply(func, raw, engine, engine_kwargs, args, kwargs)
        # Arrays are noted in a tenth of the time, and a Series can be made of one where its index is known.
        index = None if raw or type(window).__name__ in _GROUPED_WINDOWS else getattr(window, "_on", None)
        is_noted_raw = raw or index is not None
        given = {"raw": is_noted_raw, "engine": engine, "engine_kwargs": engine_kwargs, "args": args, "kwargs": kwargs}

        def cut(asked: Asked) -> Cut:
            return cut_windows(asked.arguments, index, None if index is None else window._selected_obj)

        return self._settle(lambda one: window.apply(one, **given), func, cut, blank=lambda _: 0.0)
