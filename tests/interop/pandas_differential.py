"""``python -m tests.interop.pandas_differential --examples 10000``: pandas' answer beside that of its accessors.

Hypothesis makes frames and calls, :func:`compare` runs each with pandas and with nbpar: results must be the same to the
last dtype and label, errors of the same type. :mod:`tests.interop.test_pandas_differential` runs a few in each test
session; a wrong answer that this finds becomes a named example there.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import nbpar
import nbpar.interop.pandas  # it registers the accessors

Function = Callable[..., Any]


class Call(NamedTuple):
    """One call: what gives the object to call on, a method of it, a function by its name, and options."""

    frame: Any
    on: Callable[[Any], Any]
    verb: str
    function: str
    options: dict[str, Any]

    def run(self, *, accessor: Callable[[Any], Any]) -> Any:
        """The result, or the exception."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return getattr(accessor(self.on(self.frame)), self.verb)(FUNCTIONS[self.function], **self.options)
            except Exception as error:  # noqa: BLE001  # it is what is compared
                return error


# --- functions, by what they are given --------------------------------------------------------------------------------


def _fails_at_two(value: Any) -> Any:
    if isinstance(value, int | float) and value == 2:
        raise LookupError("two")
    return value


def _mixed(row: Any) -> Any:
    return row if len(row) and row.name in (0, "a", 1.5) else len(row)


def _of_first(row: Any) -> Any:
    return row.iloc[0] if len(row) else None


def _refuses_frames(group: Any) -> Any:
    if isinstance(group, pd.DataFrame):
        raise TypeError("no frames")
    return group.iloc[::-1].to_numpy()


def _looks_up_name(group: Any) -> Any:
    return {"g": 1, 0: 2, "a": 3}[group.name]


def _writes(group: Any) -> Any:
    group = group.copy()
    group["new"] = range(len(group))
    return group


FUNCTIONS: dict[str, Function] = {
    # of anything that has a length
    "len": len,
    "same": lambda x: x,
    "none": lambda x: None,
    "type": lambda x: type(x).__name__,
    "one": lambda x: 1,
    "half": lambda x: 0.5,
    "text": lambda x: "t",
    "list": lambda x: [1, "b"],
    "tuple": lambda x: (1, 2.5),
    "dict": lambda x: {"p": 1, "q": "r"},
    "name": lambda x: x.name,
    "zero-dim": lambda x: np.array(3),
    "fails": lambda x: 1 // 0,
    # of rows, columns, and groups of one column
    "first": _of_first,
    "mixed": _mixed,
    "dtype": lambda x: str(x.dtype),
    "count": lambda x: x.count(),
    "head": lambda x: x.head(2),
    "reversed": lambda x: x.iloc[::-1],
    "reset": lambda x: x.reset_index(drop=True),
    "named": lambda x: pd.Series([1, 2.0], index=["u", "v"], name="w"),
    "by name": lambda x: pd.Series({"n": x.name, "l": len(x)}),
    "as list": lambda x: x.tolist(),
    "as array": lambda x: x.to_numpy(),
    "nunique": lambda x: x.nunique(),
    "index": lambda x: list(x.index),
    "is missing": lambda x: x.isna(),
    "max": lambda x: x.max(),
    "sum": lambda x: x.sum(),
    "spread": lambda x: x.max() - x.min(),
    "filled": lambda x: x.ffill(),
    # of groups that are frames
    "frame": lambda x: pd.DataFrame({"m": [len(x)], "n": ["o"]}),
    "short frame": lambda x: x.head(1),
    "sorted": lambda x: x.sort_values(x.columns[0]),
    "none or all": lambda x: None if len(x) == 1 else x,
    "refuses frames": _refuses_frames,
    "looks up": _looks_up_name,
    "writes": _writes,
    "shape": lambda x: x.shape,
    "columns": lambda x: list(x.columns),
    "numbers": lambda x: x.select_dtypes("number").sum(),
    # of values
    "str": str,
    "repr": repr,
    "double": lambda x: x + x,
    "is two": lambda x: x == 2,
    "fails at two": _fails_at_two,
    "missing": lambda x: np.nan if x == 1 else x,
    "time": lambda x: pd.Timestamp("2020-01-01"),
    "series": lambda x: pd.Series([x, 1], index=["s", "t"]),
    # of windows
    "total": lambda x: float(np.sum(x)),
    "last": lambda x: x[-1] if isinstance(x, np.ndarray) else x.iloc[-1],
    "size": lambda x: x.size,
    "label": lambda x: float(len(str(x.index[0]))),
    "no number": lambda x: "x",
    # with arguments
    "weighed": lambda x, weight=1, *, offset=0: len(x) * weight + offset,
}

OF_ANY = ["len", "same", "none", "type", "one", "half", "text", "list", "tuple", "dict", "zero-dim", "fails"]
OF_SERIES = [
    *OF_ANY,
    *[
        "name",
        "first",
        "mixed",
        "dtype",
        "count",
        "head",
        "reversed",
        "reset",
        "named",
        "by name",
        "as list",
        "as array",
    ],
    *["nunique", "index", "is missing", "max", "sum", "spread", "filled"],
]
OF_FRAMES = [
    *OF_ANY,
    *["name", "frame", "short frame", "sorted", "none or all", "refuses frames", "looks up", "writes", "shape", "head"],
    *["columns", "numbers", "count", "reversed", "reset", "named", "by name", "is missing", "max", "sum", "filled"],
]
OF_ARRAYS = ["len", "same", "one", "half", "text", "list", "tuple", "type", "fails", "dtype", "none"]
OF_VALUES = [
    *["str", "repr", "type", "double", "is two", "fails at two", "missing", "time", "series", "none", "one", "half"],
    *["text", "list", "tuple", "dict", "zero-dim", "fails", "same"],
]
OF_WINDOWS = ["total", "last", "size", "one", "half", "none", "no number", "fails", "label", "type"]


# --- frames and calls -------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[list[int]], Any]] = {
    "int": lambda n: np.array(n, dtype="int64"),
    "small": lambda n: np.array(n, dtype="uint8"),
    "float": lambda n: np.array([1.5, np.nan, 2.0, -0.0, np.inf])[n],
    "float32": lambda n: np.array([1.5, np.nan, 2.0, 0.1, 3.0], dtype="float32")[n],
    "bool": lambda n: np.array(n) % 2 == 0,
    "complex": lambda n: np.array(n) * 1j,
    "text": lambda n: [["a", "b", "", "ä", "b"][i] for i in n],
    "text or none": lambda n: pd.Series([["a", None, "c", "b", np.nan][i] for i in n], dtype="object"),
    "object": lambda n: pd.Series([[1, "a", None, 2.5, (1, 2)][i] for i in n], dtype="object"),
    "Int64": lambda n: pd.array([[1, None, 2, 0, 5][i] for i in n], dtype="Int64"),
    "Float64": lambda n: pd.array([[1.5, None, 2, 0, 5][i] for i in n], dtype="Float64"),
    "boolean": lambda n: pd.array([[True, None, False, True, True][i] for i in n], dtype="boolean"),
    "string": lambda n: pd.array([["a", None, "c", "d", ""][i] for i in n], dtype="string"),
    "category": lambda n: pd.Categorical([["a", "b", None, "c", "b"][i] for i in n], categories=["c", "b", "a", "d"]),
    "ordered": lambda n: pd.Categorical([i % 3 for i in n], categories=[0, 2, 1, 7], ordered=True),
    "time": lambda n: pd.to_datetime([["2020-01-01", None, "2021-05-05", "1999-12-31", "2020-01-01"][i] for i in n]),
    "zoned": lambda n: pd.to_datetime(pd.Series(n, dtype="int64"), unit="D", utc=True).dt.tz_convert("Europe/Zurich"),
    "delta": lambda n: pd.to_timedelta(n, unit="h"),
    "period": lambda n: pd.PeriodIndex([f"2020-0{i + 1}" for i in n], freq="M"),
    "interval": lambda n: pd.IntervalIndex.from_tuples([(i, i + 1) for i in n]) if n else pd.interval_range(0, 0),
}

INDEXES: dict[str, Callable[[int], Any]] = {
    "range": pd.RangeIndex,
    "steps": lambda n: pd.RangeIndex(10, 10 + 3 * n, 3),
    "text": lambda n: pd.Index([*"abcdefgh"][:n], dtype="object", name="label"),
    "twice": lambda n: pd.Index([i // 2 for i in range(n)]),
    "float": lambda n: pd.Index([i * 1.5 for i in range(n)]),
    "dates": lambda n: pd.date_range("2020-01-01", periods=n, freq="D", name="day"),
    "multi": lambda n: pd.MultiIndex.from_arrays([[i % 2 for i in range(n)], [*"abcdefgh"][:n]], names=["g", None]),
    "backwards": lambda n: pd.Index(range(n, 0, -1)),
}

COLUMN_INDEXES: dict[str, Callable[[int], Any]] = {
    "text": lambda n: pd.Index([*"ghijkl"][:n]),
    "numbers": pd.RangeIndex,
    "named": lambda n: pd.Index([*"ghijkl"][:n], name="cols"),
    "twice": lambda n: pd.Index([*"gghhii"][:n]),
    "multi": lambda n: pd.MultiIndex.from_arrays([[*"xxyyzz"][:n], list(range(n))]),
    "name": lambda n: pd.Index(["name", "index", *"abcd"][:n]),
}


def rarely(draw: st.DrawFn, n: int) -> bool:
    """True about once in n times; integers would be 0 far more often."""
    return draw(st.sampled_from([False] * (n - 1) + [True]))


@st.composite
def frames(draw: st.DrawFn, *, of: list[str] | None = None, columns: list[str] | None = None) -> Any:
    """A frame of up to 7 rows and 4 columns."""
    n = draw(st.sampled_from([5, 4, 7, 3, 6, 2, 1, 5, 4, 0]))
    n_columns = draw(st.sampled_from([2, 1, 3, 2, 4, 1, 3, 0 if of is None else 2]))
    kinds = [draw(st.sampled_from(of or list(COLUMNS))) for _ in range(n_columns)]
    index = INDEXES[draw(st.sampled_from(list(INDEXES)))](n)
    parts = []
    for kind in kinds:
        numbers = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        parts.append(pd.Series(COLUMNS[kind](numbers)).set_axis(index))
    frame = pd.concat(parts, axis=1) if parts else pd.DataFrame(index=index)
    frame.columns = COLUMN_INDEXES[draw(st.sampled_from(columns or list(COLUMN_INDEXES)))](len(kinds))
    if draw(st.booleans()):
        frame.attrs["from"] = "here"
    return frame.iloc[2:] if rarely(draw, 4) else frame  # a part of a larger one


_alike = ["int", "float", "Int64", "text", "category", "zoned", "string", "time"]


@st.composite
def calls_of_frame(draw: st.DrawFn) -> Call:
    frame = draw(st.one_of(frames(), st.sampled_from(_alike).flatmap(lambda kind: frames(of=[kind]))))
    options: dict[str, Any] = {"axis": draw(st.sampled_from([1, 1, 0]))}
    functions = OF_SERIES
    if rarely(draw, 4):
        options["raw"], functions = True, OF_ARRAYS
    elif rarely(draw, 3):
        options["result_type"] = draw(st.sampled_from(["expand", "reduce", "broadcast"]))
    if rarely(draw, 5):
        options |= draw(st.sampled_from([{"args": (2,)}, {"offset": 5}, {"args": (2,), "offset": 5}, {"wrong": 1}]))
        functions = ["weighed"]
    return Call(frame, _itself, "apply", draw(st.sampled_from(functions)), options)


@st.composite
def calls_of_values(draw: st.DrawFn) -> Call:
    options = {"na_action": draw(st.sampled_from([None, "ignore"]))}
    return Call(draw(frames()), _itself, "map", draw(st.sampled_from(OF_VALUES)), options)


@st.composite
def calls_of_series(draw: st.DrawFn) -> Call:
    frame = draw(st.sampled_from(list(COLUMNS)).flatmap(lambda kind: frames(of=[kind])))
    if draw(st.booleans()):
        options: dict[str, Any] = {"na_action": draw(st.sampled_from([None, "ignore"]))}
        return Call(frame, _first_column, "map", draw(st.sampled_from(OF_VALUES)), options)
    options = {"by_row": False} if rarely(draw, 5) else {}
    functions = OF_SERIES if options else OF_VALUES
    return Call(frame, _first_column, "apply", draw(st.sampled_from(functions)), options)


_keys = ["int", "float", "text or none", "category", "ordered", "Int64", "time", "bool", "string", "object"]


@st.composite
def calls_of_groups(draw: st.DrawFn) -> Call:
    frame = draw(frames(columns=["text", "named", "name", "twice"])).copy()
    n = len(frame)
    keys = []
    for kind in draw(st.lists(st.sampled_from(_keys[:-1]), min_size=1, max_size=2)):
        numbers = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        keys.append(pd.Series(COLUMNS[kind](numbers), name=kind).set_axis(frame.index))
    how = {name: draw(st.booleans()) for name in ("sort", "dropna", "observed", "group_keys")}
    by = draw(st.sampled_from(["outside", "inside", "level"]))
    if by == "inside":  # columns of the frame itself
        for key in keys:
            frame.insert(draw(st.integers(0, frame.shape[1])), f"key {len(frame.columns)}", key, allow_duplicates=True)
        labels: Any = [name for name in frame.columns if str(name).startswith("key")]
        how["as_index"] = draw(st.booleans())
        by_what: Any = {"by": labels if len(labels) > 1 or draw(st.booleans()) else labels[0]}
    else:
        by_what = {"level": 0} if by == "level" else {"by": keys if len(keys) > 1 else keys[0]}
    is_column = draw(st.booleans()) and frame.shape[1] > 0 and frame.columns.is_unique
    chosen = draw(st.sampled_from(list(frame.columns))) if is_column else None

    def on(frame: Any) -> Any:
        grouped = frame.groupby(**by_what, **how)
        return grouped[chosen] if is_column else grouped

    verb = draw(st.sampled_from(["apply", "agg", "aggregate", "transform"]))
    functions = OF_SERIES if is_column else OF_FRAMES if verb == "apply" else [*OF_FRAMES, *OF_SERIES]
    options = {}
    if rarely(draw, 6):
        options, functions = draw(st.sampled_from([{"weight": 2}, {"offset": 1}, {"wrong": 0}])), ["weighed"]
    return Call(frame, on, verb, draw(st.sampled_from(functions)), options)


@st.composite
def calls_of_windows(draw: st.DrawFn) -> Call:
    kinds = ["int", "float", "small", "bool", "Int64", "Float64", "float32"]
    frame = draw(frames(of=[*kinds, "text"] if rarely(draw, 10) else kinds))
    if rarely(draw, 4):
        frame = frame.iloc[:, :1].squeeze(axis=1)
    least = draw(st.sampled_from([None, 0, 1, 2]))
    how: dict[str, Any] = {"min_periods": least}
    if is_rolling := draw(st.booleans()):
        how["window"] = draw(st.integers(0, 4))
        how["center"] = draw(st.booleans())
        how["closed"] = draw(st.sampled_from([None, "left", "both", "neither", "right"]))
        how["step"] = draw(st.sampled_from([None, None, 2]))
    elif least is None:
        how["min_periods"] = 1
    n = len(frame)
    groups = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) if rarely(draw, 4) else None

    def on(frame: Any) -> Any:
        if groups is not None:
            frame = frame.groupby(np.array(groups, dtype="int64"))
        return frame.rolling(**how) if is_rolling else frame.expanding(**how)

    options: dict[str, Any] = {"raw": draw(st.booleans())}
    functions = OF_WINDOWS
    if rarely(draw, 6):
        options, functions = options | {"args": (2,), "kwargs": {"offset": 1}}, ["weighed"]
    return Call(frame, on, "apply", draw(st.sampled_from(functions)), options)


def _itself(frame: Any) -> Any:
    return frame


def _first_column(frame: Any) -> Any:
    return frame.iloc[:, 0]


CALLS: dict[str, st.SearchStrategy[Call]] = {
    "frames": calls_of_frame(),
    "values": calls_of_values(),
    "series": calls_of_series(),
    "groups": calls_of_groups(),
    "windows": calls_of_windows(),
}


# --- comparing --------------------------------------------------------------------------------------------------------


def compare(call: Call) -> str:
    """What kind of result there was; raises AssertionError where nbpar's is another one."""
    try:
        call.on(call.frame)
    except Exception:  # noqa: BLE001  # pandas refuses the object itself
        return "refused"
    before = call.frame.copy(deep=True)
    serial = call.run(accessor=_itself)
    parallel = call.run(accessor=lambda obj: obj.nbpar)
    same(parallel, serial)
    same(call.frame, before)
    return "raised" if isinstance(serial, Exception) else type(serial).__name__


def same(one: Any, other: Any) -> None:
    """Assert that two results are the same to the last label, and to the type of each value."""
    assert type(one) is type(other), f"{one!r}\n{other!r}"
    if isinstance(other, pd.DataFrame | pd.Series):
        pd.testing.assert_index_equal(one.index, other.index, exact=True)
        assert one.attrs == other.attrs
        if isinstance(other, pd.DataFrame):
            pd.testing.assert_index_equal(one.columns, other.columns, exact=True)
            assert list(one.dtypes) == list(other.dtypes)
        else:
            assert one.dtype == other.dtype
            assert repr(one.name) == repr(other.name)
        same(one.to_numpy(object), other.to_numpy(object))
    elif isinstance(other, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        same(one.tolist(), other.tolist())
    elif isinstance(other, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    elif isinstance(other, dict):
        same(list(one.items()), list(other.items()))
    elif isinstance(other, Exception):
        assert str(one) == str(other)
    else:
        assert repr(one) == repr(other), f"{one!r} and {other!r}"


BATCH = 250
"""Examples of one run of Hypothesis, which tries variations of what it has tried."""


def search(what: str, n_examples: int, first_seed: int) -> Counter[str]:
    """Compare so many generated calls of one kind; the kinds of results. Raises for a wrong one, made small."""
    kinds: Counter[str] = Counter()
    for number in range(-(-n_examples // BATCH)):

        @seed(first_seed + number)
        @settings(
            max_examples=min(BATCH, n_examples - number * BATCH),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(CALLS[what])
        def run(call: Call) -> None:
            kinds[compare(call)] += 1

        run()
    return kinds


def main() -> int:
    """Run generated calls; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.pandas_differential", description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="how many in all (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (1)")
    parser.add_argument("--only", choices=[*CALLS], help="one kind of call alone")
    parser.add_argument("--start-method", default="serial", help="of the workers (serial)")
    options = parser.parse_args()
    nbpar.configure(start_method=options.start_method)
    n_wrong = 0
    chosen = [options.only] if options.only else [*CALLS]
    for what in chosen:
        try:
            kinds = search(what, options.examples // len(chosen), options.seed)
            print(f"pandas {pd.__version__}, {what}: {dict(kinds)}", flush=True)
        except Exception:  # noqa: BLE001  # shown; the other kinds are of interest all the same
            n_wrong += 1
            traceback.print_exc()
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
