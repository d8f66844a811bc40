"""What ``df.nbpar`` is, and its kin of Series, of groupby objects and of windows.

Owns the methods with pandas' signatures, and :func:`register`, which :mod:`nbpar.interop.pandas` calls when it is
imported. A call that has nothing to compute in parallel (a function's name, a dict, a ufunc, an empty frame) is pandas'
own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from nbpar.errors import OptionsError
from nbpar.interop.pandas.groups import cut_groups
from nbpar.interop.pandas.pieces import Cut, Numbers, Parts, RawRows, Rows, label_of
from nbpar.interop.pandas.replay import Asked, Settings, first_asked, settle
from nbpar.interop.pandas.windows import cut_windows
from nbpar.options import Progress, job_options
from nbpar.pool import WorkerPool

__all__ = ["FrameAccessor", "GroupByAccessor", "SeriesAccessor", "WindowAccessor", "register"]

A = TypeVar("A", bound="_Accessor")


class _Accessor:
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

    def _settle(self, method: Callable[[Any], Any], function: Any, cut: Callable[[list[Any]], Any], **how: Any) -> Any:
        """See :func:`~nbpar.interop.pandas.replay.settle`; `cut` makes the job's items of what pandas asks."""
        __tracebackhide__ = True

        def run(asked: Asked, on_error: str) -> list[Any]:
            __tracebackhide__ = True
            return self._settings.run(function, asked.args, asked.kwargs, cut(asked.arguments), on_error=on_error)

        return settle(method, function, run, **how)


def _none(_: object) -> None:
    return None


def _is_plain(function: Any) -> bool:
    """Whether pandas would call it again and again; else it is a name, a list, a dict, or works on all at once."""
    return callable(function) and not isinstance(function, np.ufunc) and not pd.api.types.is_list_like(function)


def _is_known(function: Any) -> bool:
    """Whether groups may have something of their own for it (``sum``, ``numpy.mean``): pandas 2 has, by its identity."""
    from pandas.core import common

    for name in ("_cython_table", "_builtin_table"):
        try:
            if function in getattr(common, name, ()):
                return True
        except TypeError:  # not hashable
            return False
    return False


class FrameAccessor(_Accessor):
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
        if not _is_plain(func) or engine not in (None, "python") or not all(frame.shape):
            return frame.apply(func, **given)
        is_by_row = axis in (1, "columns")
        if raw:
            return self._apply_raw(func, given, is_by_row=is_by_row)
        if is_by_row and result_type != "broadcast":
            return self._apply_rows(func, given)
        labels, word = (frame.index, "row") if is_by_row else (frame.columns, "column")

        def cut(arguments: list[Any]) -> Cut:
            return Parts(arguments, lambda index: f"{word} {label_of(labels[index])}")

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
        return self._settle(lambda one: light.apply(one, **given), function, list, blank=_none, answers=values)

    def _apply_raw(self, function: Any, given: dict[str, Any], *, is_by_row: bool) -> Any:
        __tracebackhide__ = True
        frame, asked = self._obj, first_asked(lambda one: self._obj.iloc[:1, :1].apply(one, **given), function)
        if asked is None:
            return frame.apply(function, **given)
        values = frame.to_numpy()
        items = RawRows(values, "row", frame.index) if is_by_row else RawRows(values.T, "column", frame.columns)
        answers = self._settings.run(function, asked.args, asked.kwargs, items)
        return self._settle(lambda one: frame.apply(one, **given), function, list, blank=_none, answers=answers)

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
        if not _is_plain(func):
            return frame.map(func, na_action=na_action, **kwargs)
        return self._settle(lambda one: frame.map(one, na_action=na_action, **kwargs), func, list, blank=_none)


class SeriesAccessor(_Accessor):
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
        if not _is_plain(arg) or kwargs.get("engine") is not None:
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
        if not _is_plain(func) or by_row is False:
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
        return self._settle(method, function, list, blank=_none, answers=answers)


class GroupByAccessor(_Accessor):
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
        return self._by_group("apply", func, args, kwargs, blank=_none)

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
        if not _is_plain(function) or _is_known(function) or kwargs.get("engine") not in (None, "cython"):
            return method(function, *args, **kwargs)
        return self._settle(
            lambda one: method(one, *args, **kwargs), function, lambda asked: cut_groups(grouped, asked), **how
        )


class WindowAccessor(_Accessor):
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

        def cut(arguments: list[Any]) -> Cut:
            return cut_windows(arguments, index)

        return self._settle(lambda one: window.apply(one, **given), func, cut, blank=lambda _: 0.0)


_GROUPED_WINDOWS = {"RollingGroupby", "RollingGroupBy", "ExpandingGroupby", "ExpandingGroupBy"}
"""By name: each version of pandas has two of them, and warns of the others."""


def register() -> None:
    """Make ``nbpar`` an attribute of frames, Series, groupby objects and windows; once is enough."""
    for cls, accessor, registrar in (
        (pd.DataFrame, FrameAccessor, pd.api.extensions.register_dataframe_accessor),
        (pd.Series, SeriesAccessor, pd.api.extensions.register_series_accessor),
    ):
        if getattr(getattr(cls, "nbpar", None), "__module__", None) == __name__:
            delattr(cls, "nbpar")  # this module was loaded anew
        registrar("nbpar")(accessor)
    # Pandas has no such registry for these.
    for name in ("DataFrameGroupBy", "SeriesGroupBy"):
        getattr(pd.api.typing, name).nbpar = property(GroupByAccessor)
    for name in ("Rolling", "Expanding"):
        getattr(pd.api.typing, name).nbpar = property(WindowAccessor)
