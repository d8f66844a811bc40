"""The accessors of `nbpar.interop.pandas`: results as of pandas, options, errors, and what travels to workers."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbpar
import nbpar.interop.pandas
from nbpar.interop.pandas.groups import Groups, cut_groups
from nbpar.interop.pandas.pieces import Joined, Parts
from nbpar.interop.pandas.registry import register
from nbpar.interop.pandas.rows import Rows
from nbpar.interop.pandas.windows import Windows, cut_windows
from tests.helpers import jobs_since
from tests.interop.pandas_differential import same

PANDAS_2 = pd.__version__.startswith("2.")


@pytest.fixture(scope="module")
def processes() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=2) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """What does not name a pool runs in threads."""
    nbpar.configure(n_workers=2, start_method="threads")
    yield
    nbpar.configure()


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": [*"abcabca"],
            "x": np.arange(7.0),
            "text": [*"uvwxyzz"],
            "n": pd.array([1, 2, None, 4, 5, 6, 7], dtype="Int64"),
        },
        index=[*"hijklmn"],
    )


def both(make: Callable[[], Any], call: Callable[[Any], Any], **options: Any) -> Any:
    """The result of pandas, once nbpar's has been found to be the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, for what the next version does
        expected = call(make())
        same(call(make().nbpar(**options)), expected)
    return expected


# --- every method, in worker processes --------------------------------------------------------------------------------

METHODS: dict[str, tuple[Callable[[pd.DataFrame], Any], Callable[[Any], Any]]] = {
    "rows": (lambda df: df, lambda on: on.apply(lambda row: f"{row['text']}{row['n']}{row.name}", axis=1)),
    "rows to rows": (lambda df: df, lambda on: on.apply(lambda row: row[["x", "n"]], axis="columns")),
    "rows expanded": (lambda df: df, lambda on: on.apply(lambda row: [1, "b"], axis=1, result_type="expand")),
    "rows broadcast": (lambda df: df, lambda on: on.apply(lambda row: 0, axis=1, result_type="broadcast")),
    "raw rows": (lambda df: df[["x"]].assign(y=1), lambda on: on.apply(lambda row: row * 2, axis=1, raw=True)),
    "raw columns": (lambda df: df[["x"]].assign(y=1), lambda on: on.apply(np.ptp, raw=True)),
    "columns": (lambda df: df, lambda on: on.apply(lambda column: column.nunique())),
    "values of a frame": (lambda df: df, lambda on: on.map(repr)),
    "values": (lambda df: df["n"], lambda on: on.map(lambda n: n * 2, na_action="ignore")),
    "numbers": (lambda df: df["x"], lambda on: on.map(lambda x: type(x).__name__)),
    "arguments": (lambda df: df["x"], lambda on: on.apply(lambda x, y, *, z: x * y + z, args=(2,), z=1)),
    "groups": (lambda df: df.groupby("key"), lambda on: on.apply(lambda group: group.head(1))),
    "group names": (lambda df: df.groupby("key"), lambda on: on.apply(lambda group: group.name * len(group))),
    "aggregated": (lambda df: df.groupby("key"), lambda on: on.agg(lambda column: column.iloc[-1])),
    "one column": (lambda df: df.groupby("key")["x"], lambda on: on.aggregate(lambda x: x.max() - x.min())),
    "transformed": (lambda df: df.groupby("key")[["x", "n"]], lambda on: on.transform(lambda x: x - x.min())),
    "windows": (lambda df: df[["x", "n"]].rolling(3), lambda on: on.apply(lambda x: x.sum(), raw=True)),
    "labelled windows": (lambda df: df["x"].rolling(2), lambda on: on.apply(lambda x: ord(x.index[0]))),
    "growing windows": (lambda df: df["x"].expanding(), lambda on: on.apply(lambda x: x.iloc[0] - len(x))),
    "windows of groups": (lambda df: df.groupby("key")["x"].rolling(2), lambda on: on.apply(lambda x: x.iloc[0])),
}


@pytest.mark.parametrize("what", list(METHODS))
def test_in_worker_processes_results_are_those_of_pandas(what: str, processes: nbpar.WorkerPool) -> None:
    make, call = METHODS[what]
    both(lambda: make(frame()), call, pool=processes)


def test_many_rows_are_cut_in_the_workers(processes: nbpar.WorkerPool) -> None:
    rows = pd.DataFrame({"a": np.arange(20_000), "b": [f"t{i % 7}" for i in range(20_000)]})
    expected = rows.apply(lambda row: f"{row['b']} {row['a']} {row.name}", axis=1)
    same(rows.nbpar(pool=processes).apply(lambda row: f"{row['b']} {row['a']} {row.name}", axis=1), expected)


def test_a_series_for_each_row_comes_back_with_its_own_labels(processes: nbpar.WorkerPool) -> None:
    def labelled(row: Any) -> Any:
        return pd.Series([row["a"], 1.5], index=["n", "m"] if row["a"] % 3 else ["m", "o"], name=row.name)

    both(lambda: pd.DataFrame({"a": range(200)}), lambda on: on.apply(labelled, axis=1), pool=processes)
    attrs = both(lambda: pd.DataFrame({"a": [1, 2]}), lambda on: on.apply(_with_attrs, axis=1), pool=processes)
    assert attrs["a"].tolist() == [1, 2]


def _with_attrs(row: Any) -> Any:
    row = row.copy()
    row.attrs["unit"] = "m"
    return row


def test_a_row_that_is_given_back_keeps_its_values() -> None:
    both(lambda: pd.DataFrame({"a": range(50), "b": 0.5}), lambda on: on.apply(lambda row: row, axis=1))


def test_slow_rows_are_the_same_as_quick_ones(processes: nbpar.WorkerPool) -> None:
    mixed = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "t": pd.to_datetime(["2020", "2021", None])})
    on = mixed.nbpar(pool=processes, chunk_size=1)
    same(on.apply(list, axis=1), mixed.apply(list, axis=1))


# --- what pandas does itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda on: on.apply("sum"),
        lambda on: on.apply(["min", "max"]),
        lambda on: on.apply({"a": "sum"}),
        lambda on: on.apply(np.sqrt),
    ],
)
def test_what_is_no_function_to_be_called_again_and_again_starts_no_job(call: Callable[[Any], Any]) -> None:
    known = nbpar.jobs()
    numbers = pd.DataFrame({"a": [1, 4], "b": [9, 16]})
    same(call(numbers.nbpar), call(numbers))
    same(numbers["a"].nbpar.map({1: "one"}), numbers["a"].map({1: "one"}))
    same(numbers.groupby("a").nbpar.agg("sum"), numbers.groupby("a").agg("sum"))
    assert jobs_since(known) == []


@pytest.mark.parametrize("axis", [0, 1])
def test_an_empty_frame_is_pandas_own(axis: int) -> None:
    both(lambda: pd.DataFrame({"a": [], "b": []}), lambda on: on.apply(lambda x: x.sum(), axis=axis))
    both(pd.DataFrame, lambda on: on.apply(len, axis=axis))


def test_arguments_that_pandas_refuses_are_refused_by_pandas() -> None:
    numbers = pd.DataFrame({"a": [1, 4]})
    for wrong in ({"axis": 5}, {"result_type": "none", "axis": 1}, {"by_row": 7, "axis": 1}):
        with pytest.raises(ValueError) as expected:  # noqa: PT011  # the message is compared
            numbers.apply(len, **wrong)
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            numbers.nbpar.apply(len, **wrong)
        assert str(caught.value) == str(expected.value)
    with pytest.raises(TypeError):
        numbers.nbpar.map(5)
    with pytest.raises(ValueError, match="raw"):
        numbers.rolling(2).nbpar.apply(len, raw="yes")


# --- how pandas asks --------------------------------------------------------------------------------------------------


def test_the_function_is_called_once_for_each_group() -> None:
    calls: list[str] = []

    def note(group: pd.DataFrame) -> int:
        calls.append(group.name)
        return len(group)

    frame().groupby("key")[["x"]].nbpar.apply(note)
    assert sorted(calls) == ["a", "b", "c"]


def test_transform_calls_the_function_as_pandas_does_on_the_first_group_in_two_ways() -> None:
    calls: list[str] = []

    def note(data: Any) -> Any:
        calls.append(type(data).__name__)
        return data - data.min()

    numbers = pd.DataFrame({"k": [1, 1, 2, 3], "a": range(4), "b": range(4)})
    numbers.groupby("k").transform(note)
    expected, calls[:] = sorted(calls), []
    numbers.groupby("k").nbpar.transform(note)
    assert sorted(calls) == expected == ["DataFrame"] * 3 + ["Series"] * 2


def test_a_function_that_refuses_frames_transforms_column_by_column() -> None:
    def columns_only(data: Any) -> Any:
        if isinstance(data, pd.DataFrame):
            raise TypeError("no frames")
        return data.rank()

    both(lambda: frame()[["key", "x", "n"]].groupby("key"), lambda on: on.transform(columns_only))


@pytest.mark.skipif(not PANDAS_2, reason="pandas 3 does not go on after a KeyError")
def test_an_exception_that_pandas_goes_on_after_is_not_raised() -> None:
    table = {"a": 1.5, "b": 2.5, "c": 3.5}
    # pandas gives the groups their names once the function has raised a KeyError for want of them.
    both(lambda: frame().groupby("key")["x"], lambda on: on.agg(lambda group: table[group.name]))


@pytest.mark.skipif(not PANDAS_2, reason="pandas 3 leaves the keys out of the groups at once")
def test_keys_are_left_out_of_the_groups_where_a_type_error_comes_of_them() -> None:
    both(lambda: frame()[["key", "x"]].groupby("key"), lambda on: on.apply(lambda group: (group / 2).sum()))


@pytest.mark.skipif(not PANDAS_2, reason="what pandas 2 warns of is done in pandas 3")
def test_a_warning_of_pandas_is_given_once_and_names_the_line_of_the_call() -> None:
    grouped = frame().groupby("key")
    with pytest.warns(DeprecationWarning, match="grouping columns") as caught:
        grouped.nbpar.apply(len)
    assert [one.filename for one in caught] == [__file__]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda df: df.nbpar.apply(lambda row: 1 // (row["x"] != 3), axis=1), "row 'k'"),
        (lambda df: df.nbpar.apply(lambda column: 1 // (column.name != "n")), "column 'n'"),
        (lambda df: df.reset_index()[["x"]].nbpar.apply(lambda row: 1 // int(row[0] != 3), axis=1, raw=True), "row 3"),
        (lambda df: df["text"].nbpar.map(lambda text: 1 // (text != "w")), "'w'"),
        (lambda df: df["x"].nbpar.map(lambda x: 1 // (x != 3)), "item 3 = 3.0"),
        (lambda df: df.groupby("key")[["x"]].nbpar.apply(lambda group: 1 // (group.name != "b")), "group 'b'"),
        (lambda df: df.groupby("key").nbpar.agg(lambda group: 1 // (group.name != "text")), "group 'a' of 'text'"),
        (lambda df: df["x"].rolling(2).nbpar.apply(lambda x: 1 // int(x.iloc[0] != 3)), "the window of rows 3 to 4"),
    ],
)
def test_an_error_has_its_type_and_names_the_row_or_the_group(call: Callable[[Any], Any], named: str) -> None:
    nbpar.configure(start_method="serial")
    with pytest.raises(ZeroDivisionError) as caught:
        call(frame())
    assert any(named in note for note in caught.value.__notes__), caught.value.__notes__


def test_what_pandas_makes_of_an_exception_is_raised() -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("mine")

    grouped = frame()[["key", "x", "n"]].groupby("key")
    with pytest.raises(ValueError, match="transform must return a scalar value for each group") as caught:
        grouped.nbpar.transform(refuse)
    assert str(caught.value.__cause__) == "mine"


def test_a_worker_that_dies_is_told_with_the_row(processes: nbpar.WorkerPool) -> None:
    def die(row: Any) -> int:
        import os

        if row.name == "j":
            os._exit(3)
        return 1

    with pytest.raises(nbpar.WorkerDiedError, match="row 'j'"):
        frame().nbpar(pool=processes).apply(die, axis=1)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_go_to_the_job() -> None:
    failed: list[int] = []

    def fails_once(x: float) -> float:
        if not failed:
            failed.append(1)
            raise OSError
        return x

    same(frame()["x"].nbpar(retries=1, name="again").map(fails_once), frame()["x"])
    assert nbpar.jobs()[-1].name == "again"


def test_a_job_is_called_as_its_function_is() -> None:
    frame()["text"].nbpar.map(str.upper)
    assert nbpar.jobs()[-1].name == "upper"


def test_wrong_options_are_refused_before_anything_runs() -> None:
    with pytest.raises(nbpar.OptionsError, match="retries"):
        frame().nbpar(retries=-1)
    with pytest.raises(nbpar.OptionsError, match="pool"):
        frame().nbpar(pool=4)


def test_in_a_task_the_accessors_run_serially(processes: nbpar.WorkerPool) -> None:
    def inner(group: pd.DataFrame) -> float:
        return float(group.nbpar.apply(lambda row: row["x"], axis=1).sum())

    both(lambda: frame().groupby("key")[["x"]], lambda on: on.apply(inner), pool=processes)


# --- what travels -----------------------------------------------------------------------------------------------------


def asked_by(method: Callable[[Callable[[Any], Any]], Any], answer: Any = 0.0) -> list[Any]:
    found: list[Any] = []

    def note(argument: Any) -> Any:
        found.append(argument)
        return answer

    method(note)
    return found


def test_groups_travel_as_slices_of_all_rows() -> None:
    df = pd.DataFrame({"k": np.arange(1000) % 90, "x": 1.0, "t": "t"})
    grouped = df.groupby("k")[["x", "t"]]
    assert type(cut_groups(grouped, asked_by(grouped.apply))) is Groups
    column = df.groupby("k")["x"]
    assert type(cut_groups(column, asked_by(column.agg))) is Groups
    by_column = cut_groups(grouped, asked_by(grouped.agg))
    assert type(by_column) is Joined and len(by_column) == 180
    assert [by_column[i].take().name for i in (0, 89, 90, 179)] == ["x", "x", "t", "t"]
    some = by_column[80:100]
    assert [len(some[i].take()) for i in (0, 19)] == [len(by_column[i].take()) for i in (80, 99)]


@pytest.mark.parametrize("dropna", [True, False])
@pytest.mark.parametrize("sort", [True, False])
def test_groups_are_cut_where_pandas_cuts_them(sort: bool, dropna: bool) -> None:
    df = pd.DataFrame({"k": [2, np.nan, 1, 2, np.nan, 0], "x": range(6)}, index=[*"abcdef"])
    grouped = df.groupby("k", sort=sort, dropna=dropna)[["x"]]
    asked = asked_by(grouped.apply)
    cut = cut_groups(grouped, asked)
    assert type(cut) is Groups
    for item, expected in zip(cut, asked, strict=True):
        group = item.take()
        same(group, expected)
        assert repr(group.name) == repr(expected.name)


def test_columns_of_one_name_are_told_apart() -> None:
    df = pd.DataFrame([[0, 1, 5, 2], [0, 3, 5, 4]], columns=["k", "x", "l", "x"])
    both(lambda: df.groupby(["k", "l"]), lambda on: on.agg(lambda column: column.sum()))


@pytest.mark.parametrize("columns", ["ghi", "ggg", "gg", "g"])
def test_groups_of_equal_labels_are_told_apart(columns: str) -> None:
    n = len(columns)
    df = pd.DataFrame([list(range(n)), list(range(n, 2 * n))], index=[0, 0], columns=[*columns])
    functions: list[Callable[[Any], Any]] = [lambda x: x, lambda x: x.to_numpy() * 2, lambda x: x if x.ndim == 1 else 5]
    for function in functions:
        both(lambda: df.groupby([5, 6]), methodcaller("transform", function))
    both(lambda: df.groupby([5, 6]), lambda on: on.agg(lambda x: x.iloc[0]))


def test_a_first_group_without_rows_is_transformed_as_by_pandas() -> None:
    # Pandas calls the function for it once more when it gives no Series.
    keys = pd.Categorical(["a", "b"], categories=["c", "b", "a"])
    grouped = pd.DataFrame({"x": [0, 0]}).groupby(keys, observed=False)
    for function in (lambda x: x.iloc[::-1].to_numpy(), lambda x: x, lambda x: 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected: Any = grouped.transform(function)
            except ValueError as error:
                expected = error
        try:
            same(grouped.nbpar.transform(function), expected)
        except ValueError as error:
            same(error, expected)


def test_groups_that_are_not_all_the_groups_travel_one_by_one() -> None:
    grouped = frame().groupby("key")[["x"]]
    asked = asked_by(grouped.apply)
    cut = cut_groups(grouped, [asked[2], asked[0]])
    assert type(cut) is Parts
    assert [item.take().name for item in cut] == ["c", "a"]


def test_windows_travel_as_a_column_and_bounds() -> None:
    df = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100.0) ** 2})
    rolling = df.rolling(10, min_periods=4)
    cut = cut_windows(asked_by(lambda one: rolling.apply(one, raw=True)), df.index, df)
    assert type(cut) is Joined and len(cut) == 2 * 97
    same(cut[50].take(), df["x"].iloc[44:54].rename(None))
    part = cut[90:110]
    same(part[19].take(), df["y"].iloc[6:16].rename(None))
    assert type(cut[:10]) is Windows


@pytest.mark.parametrize("order", ["C", "F"])
def test_windows_of_a_part_of_a_frame_have_its_own_labels(order: Any) -> None:
    numbers = pd.DataFrame(np.array(np.arange(400.0).reshape(100, 4), order=order)).assign(i=range(100))
    numbers["masked"] = pd.array(np.arange(100.0), dtype="Float64")
    for part in (numbers[25:75], numbers[3:50], numbers[50:][1], numbers[::2]):
        both(partial(part.rolling, 3), lambda on: on.apply(lambda x: x.index[0] * 1000 + x.iloc[0]))


def test_rows_are_the_same_in_any_order() -> None:
    rows = Rows(frame())
    names = [rows.take(i).name for i in (3, 4, 0, 6, 6, 1, 2)]
    assert names == [*"klhnnij"]
    assert [repr(one) for one in rows[5:]] == ["row 'm'", "row 'n'"]
    with pytest.raises(IndexError):
        rows[7]


def test_a_frame_is_let_go_after_the_call() -> None:
    df = frame()
    gone = weakref.ref(df)
    df.nbpar.apply(lambda row: row["x"], axis=1)
    nbpar.map(abs, [1])  # the job before the last keeps no input
    del df
    gc.collect()
    assert gone() is None


# --- the door itself --------------------------------------------------------------------------------------------------


def test_registering_twice_warns_of_nothing() -> None:
    register()
    assert type(frame().nbpar).__name__ == "FrameAccessor"


def test_importing_nbpar_imports_no_door_and_no_pandas() -> None:
    code = "import nbpar, sys; print([m for m in sys.modules if m == 'pandas' or m.startswith('nbpar.interop')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_pandas_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['pandas'] = None\nimport nbpar.interop.pandas"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("ImportError: nbpar.interop.pandas needs pandas: pip install 'nbpar[pandas]'")
