"""``df.nbpar`` and ``series.nbpar``: the methods with pandas' signatures.

A call that has nothing to compute in parallel (a function's name, a dict, a ufunc, an empty frame) is pandas' own.
Registered by :mod:`nbpar.interop.pandas`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from nbpar.interop.pandas.base import Accessor, elements, is_plain, none
from nbpar.interop.pandas.pieces import Cut, Parts, label_of
from nbpar.interop.pandas.replay import Asked, first_asked
from nbpar.interop.pandas.rows import Numbers, RawRows, Rows

__all__ = ["FrameAccessor", "SeriesAccessor"]


class FrameAccessor(Accessor):
    """``df.nbpar``: the methods of a DataFrame that call a function again and again, on all cores.

    Results are those of pandas. Registered by ``import nbpar.interop.pandas``.

    Examples
    --------
    >>> import nbpar, pandas as pd
    >>> import nbpar.interop.pandas
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> df = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    >>> df.nbpar.apply(lambda row: row["a"] * row["b"], axis=1).tolist()
    [3, 8]
    """

    def apply(
        self,
        func: Any,
        axis: Any = 0,
        raw: bool = False,
        result_type: Any = None,
        args: tuple[Any, ...] = (),
        by_row: Any = "compat",
        engine: Any = None,
        engine_kwargs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """:meth:`pandas.DataFrame.apply`; with ``axis=1`` rows, else columns are the tasks.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.DataFrame({"a": [1, 2], "b": [3, 4]}).nbpar.apply(lambda column: column.max() - column.min()).tolist()
        [1, 1]
        """
        __tracebackhide__ = True
        frame = self._obj
        given = {"axis": axis, "raw": raw, "result_type": result_type, "args": args, "by_row": by_row, **kwargs}
        if engine is not None:
            given["engine"] = engine
        if engine_kwargs is not None:
            given["engine_kwargs"] = engine_kwargs
        if not is_plain(func) or engine not in (None, "python") or not all(frame.shape):
            return frame.apply(func, **given)
        is_by_row = axis in (1, "columns")
        if raw:
            return self._apply_raw(func, given, is_by_row=is_by_row)
        if is_by_row and result_type != "broadcast":
            return self._apply_rows(func, given)
        labels, word = (frame.index, "row") if is_by_row else (frame.columns, "column")

        def cut(asked: Asked) -> Cut:
            return Parts(asked.arguments, lambda index: f"{word} {label_of(labels[index])}")

        def blank(argument: Any) -> Any:
            return argument if result_type == "broadcast" else None

        return self._settle(lambda one: frame.apply(one, **given), func, cut, blank=blank)

    def _apply_rows(self, function: Any, given: dict[str, Any]) -> Any:
        """Rows are not asked for one by one: workers cut them out of slices of the frame."""
        __tracebackhide__ = True
        frame, asked = self._obj, first_asked(lambda one: self._obj.iloc[:1].apply(one, **given), function)
        if asked is None:
            return frame.apply(function, **given)
        values = self._settings.run(function, asked.args, asked.kwargs, Rows(frame))
        # Pandas makes each row once more to hand it to the stand-in: of this frame, which has the same labels, quickly.
        light = frame
        if type(frame) is pd.DataFrame:
            data = np.zeros(frame.shape, dtype=bool)
            light = pd.DataFrame(data, index=frame.index, columns=frame.columns, copy=False).__finalize__(frame)
        return self._settle(lambda one: light.apply(one, **given), function, elements, blank=none, answers=values)

    def _apply_raw(self, function: Any, given: dict[str, Any], *, is_by_row: bool) -> Any:
        __tracebackhide__ = True
        frame, asked = self._obj, first_asked(lambda one: self._obj.iloc[:1, :1].apply(one, **given), function)
        if asked is None:
            return frame.apply(function, **given)
        values = frame.to_numpy()
        items = RawRows(values, "row", frame.index) if is_by_row else RawRows(values.T, "column", frame.columns)
        answers = self._settings.run(function, asked.args, asked.kwargs, items)
        return self._settle(lambda one: frame.apply(one, **given), function, elements, blank=none, answers=answers)

    def map(self, func: Any, na_action: Any = None, **kwargs: Any) -> Any:
        """:meth:`pandas.DataFrame.map`; the values are the tasks.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.DataFrame({"a": [1, 2]}).nbpar.map(lambda x: x + 1)["a"].tolist()
        [2, 3]
        """
        __tracebackhide__ = True
        frame = self._obj
        if not is_plain(func):
            return frame.map(func, na_action=na_action, **kwargs)
        return self._settle(lambda one: frame.map(one, na_action=na_action, **kwargs), func, elements, blank=none)


class SeriesAccessor(Accessor):
    """``series.nbpar``: `map` and `apply` on all cores.

    Examples
    --------
    >>> import nbpar, pandas as pd
    >>> import nbpar.interop.pandas
    >>> nbpar.configure(n_workers=2, start_method="threads")
    >>> pd.Series(["a", "b"], index=[7, 8]).nbpar.map(str.upper).to_dict()
    {7: 'A', 8: 'B'}
    """

    def map(self, arg: Any = None, na_action: Any = None, **kwargs: Any) -> Any:
        """:meth:`pandas.Series.map`; with a function, the values are the tasks.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.Series([1.0, None]).nbpar.map(lambda x: -x, na_action="ignore").tolist()
        [-1.0, nan]
        """
        __tracebackhide__ = True
        series = self._obj
        if arg is None and "func" in kwargs:  # its name in pandas 3
            arg = kwargs.pop("func")
        if not is_plain(arg) or kwargs.get("engine") is not None:
            return series.map(arg, na_action=na_action, **kwargs)

        def method(one: Any, of: Any = series) -> Any:
            return of.map(one, na_action=na_action, **kwargs)

        return self._map(method, arg, series[series.notna()] if na_action == "ignore" else series)

    def apply(self, func: Any, args: tuple[Any, ...] = (), *, by_row: Any = "compat", **kwargs: Any) -> Any:
        """:meth:`pandas.Series.apply`; the values are the tasks. With ``by_row=False`` it is pandas' own.

        Examples
        --------
        >>> import nbpar, pandas as pd
        >>> import nbpar.interop.pandas
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> pd.Series([1, 2]).nbpar.apply(pow, args=(2,)).tolist()
        [1, 4]
        """
        __tracebackhide__ = True
        series = self._obj
        if not is_plain(func) or by_row is False:
            return series.apply(func, args=args, by_row=by_row, **kwargs)

        def method(one: Any, of: Any = series) -> Any:
            return of.apply(one, args=args, by_row=by_row, **kwargs)

        return self._map(method, func, series)

    def _map(self, method: Callable[..., Any], function: Any, present: Any) -> Any:
        __tracebackhide__ = True
        answers: list[Any] = []
        dtype = present.dtype
        # Numbers need not be asked for: pandas calls the function with each, as Python's own.
        is_number = isinstance(dtype, np.dtype) and dtype.kind in "biuf" and len(present)
        if is_number and (asked := first_asked(lambda one: method(one, present.iloc[:1]), function)) is not None:
            answers = self._settings.run(function, asked.args, asked.kwargs, Numbers(present.to_numpy()))
        return self._settle(method, function, elements, blank=none, answers=answers)
