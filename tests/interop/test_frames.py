"""What `docs/how-to/frames.md` shows of pandas, polars and dask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbpar
from nbpar.interop.futures import Executor


@pytest.fixture(scope="module")
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=2) as pool:
        yield pool


def test_slices_of_a_frame_are_mapped_and_put_together(pool: nbpar.WorkerPool) -> None:
    df = pd.DataFrame({"price": np.arange(1000.0), "shop": [*"abcd"] * 250})
    parts = pool.map(
        lambda part: part.assign(double=part["price"] * 2), [df.iloc[i : i + 300] for i in (0, 300, 600, 900)]
    )
    pd.testing.assert_frame_equal(pd.concat(parts), df.assign(double=df["price"] * 2))


def test_a_shared_frame_serves_many_tasks(pool: nbpar.WorkerPool) -> None:
    df = pd.DataFrame({"price": np.arange(1000.0), "shop": [*"abcd"] * 250})
    table = nbpar.share(df)

    def total(shop: str) -> float:
        frame = table.value
        return float(frame.loc[frame["shop"] == shop, "price"].sum())

    assert pool.map(total, "ab") == df.groupby("shop")["price"].sum()[["a", "b"]].tolist()


def test_groups_and_slices_of_polars_are_mapped(pool: nbpar.WorkerPool) -> None:
    pl: Any = pytest.importorskip("polars")
    df = pl.DataFrame({"shop": [*"abac"] * 250, "price": [float(n) for n in range(1000)]})

    def fit(part: Any) -> dict[str, Any]:
        return {"shop": part["shop"][0], "mean": part["price"].mean()}

    models = pl.DataFrame(pool.map(fit, df.partition_by("shop", maintain_order=True)))
    assert models.equals(df.group_by("shop", maintain_order=True).agg(pl.col("price").mean().alias("mean")))
    parts = pool.map(lambda part: part.with_columns(double=part["price"] * 2), df.iter_slices(300))
    assert pl.concat(parts).equals(df.with_columns(double=pl.col("price") * 2))


def test_dask_runs_its_graphs_on_an_executor() -> None:
    dask: Any = pytest.importorskip("dask")
    factor = 3
    with Executor(max_workers=2) as executor, dask.config.set(scheduler=executor):
        parts = [dask.delayed(lambda x: (x * factor, os.getpid()))(x) for x in range(6)]
        values = dask.delayed(list)(parts).compute()
    assert [value for value, _ in values] == [0, 3, 6, 9, 12, 15]
    assert os.getpid() not in {pid for _, pid in values}


def test_dask_computes_a_frame_on_an_executor() -> None:
    dask: Any = pytest.importorskip("dask")
    dd: Any = pytest.importorskip("dask.dataframe")
    df = pd.DataFrame({"shop": [1, 2, 1, 2], "price": [1.0, 2.0, 3.0, 4.0]})
    with Executor(max_workers=2) as executor, dask.config.set(scheduler=executor):
        means = dd.from_pandas(df, npartitions=2).groupby("shop")["price"].mean().compute()
    assert means.to_dict() == {1: 2.0, 2: 3.0}
