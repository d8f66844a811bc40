"""The public API with its types: not run, but checked by mypy, here as `tests` and by `test_typing.py`."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np

import nbpar
import nbpar.interop.futures as futures_door
import nbpar.interop.joblib as joblib_door
import nbpar.interop.mpire as mpire_door
import nbpar.interop.mpire.dashboard as mpire_dashboard
import nbpar.interop.mpire.utils as mpire_utils
import nbpar.interop.multiprocessing as pool_door
import nbpar.interop.pandas as pandas_door
import nbpar.interop.tqdm as tqdm_door


def square(x: int) -> float:
    return float(x * x)


def verbs() -> None:
    assert_type(nbpar.map(square, [1, 2]), list[float])
    assert_type(nbpar.map(square, range(3), chunk_size=2, timeout=1.0, retries=1, seed=5), list[float])
    assert_type(nbpar.map(str.upper, "ab", checkpoint="sweep.db"), list[str])
    assert_type(nbpar.map(square, [1], profile=True), list[float])
    assert_type(nbpar.map(square, [1], progress="detail"), list[float])
    assert_type(nbpar.starmap(square, [(1,), (2,)]), list[float])
    assert_type(nbpar.imap(square, iter([1]), ordered=False), Iterator[float])
    assert_type(nbpar.submit(square, 3), nbpar.TaskFuture[float])
    assert_type(nbpar.submit(square, 3).result(), float)
    assert_type(nbpar.jobs()[-1].name, str)


def jobs() -> None:
    job = nbpar.map_async(square, [1])
    assert_type(job, nbpar.Job[float])
    assert_type(job.result(timeout=1), list[float])
    assert_type(job.results, list[float])
    assert_type(job.results_by_index, dict[int, float])
    assert_type(job.errors, list[nbpar.TaskError])
    assert_type(job.retry_failed(), nbpar.Job[float])
    assert_type(job.cancel(), bool)
    assert_type(job.insights, nbpar.JobInsights)
    assert_type(job.insights.speedup, float)
    assert_type(job.insights.slowest[0].item_repr, str)
    assert_type(job.insights.workers[0].peak_memory_bytes, int | None)
    for value in job:
        assert_type(value, float)


async def awaited() -> None:
    assert_type(await nbpar.map_async(square, [1]), list[float])
    assert_type(await nbpar.submit(square, 3), float)


def checkpoints() -> None:
    assert_type(nbpar.map(square, [1], checkpoint=Path("sweep.db")), list[float])
    assert_type(nbpar.checkpoint.info("sweep.db").functions[0].n_results, int)


def in_tasks() -> None:
    assert_type(nbpar.current_task().index, int)
    assert_type(nbpar.current_task().rng, np.random.Generator)
    for item in nbpar.track(["a"]):
        assert_type(item, str)
    assert_type(nbpar.per_worker(dict[str, int])(), dict[str, int])
    model = nbpar.per_worker(float)
    assert_type(model.replace(lambda: 2.5), None)
    assert_type(model.version, int)
    assert_type(nbpar.share([1, 2]), nbpar.Shared[list[int]])
    assert_type(nbpar.share([1, 2]).value, list[int])


def pools() -> None:
    with nbpar.WorkerPool(n_workers=2, start_method="spawn", cpu_ids=[0, [0, 1]], env={"A": "b"}) as pool:
        assert_type(pool, nbpar.WorkerPool)
        assert_type(pool.map(square, [1]), list[float])
        assert_type(pool.imap(square, [1]), Iterator[float])
        assert_type(pool.map_async(square, [1]), nbpar.Job[float])
        assert_type(pool.submit(square, 1), nbpar.TaskFuture[float])
        assert_type(pool.pids(), dict[int, int])


def joblibs() -> None:
    assert_type(joblib_door.register(make_default=True), None)
    assert_type(joblib_door.shutdown(wait=False), None)


def accessors(df: Any) -> None:
    assert_type(pandas_door.FrameAccessor(df)(retries=1, name="scores"), pandas_door.FrameAccessor)
    assert_type(pandas_door.SeriesAccessor(df)(timeout=2.0), pandas_door.SeriesAccessor)
    assert_type(pandas_door.GroupByAccessor(df)(pool=nbpar.WorkerPool()), pandas_door.GroupByAccessor)
    assert_type(pandas_door.WindowAccessor(df)(seed=1), pandas_door.WindowAccessor)


def executors() -> None:
    with futures_door.ProcessPoolExecutor(
        2, "spawn", print, ("init",), max_tasks_per_child=5, progress=False
    ) as executor:
        assert_type(executor, futures_door.Executor)
        assert_type(executor.submit(square, 3), futures_door.Future[float])
        assert_type(executor.map(square, [1], timeout=1.0, chunksize=2, buffersize=3), Iterator[float])
        assert_type(next(futures_door.as_completed([executor.submit(square, 3)])).result(), float)


def pools_of_mpire() -> None:
    with mpire_door.WorkerPool(2, True, [0], start_method="spawn", keep_alive=True) as pool:
        assert_type(pool, mpire_door.WorkerPool)
        assert_type(pool.map_unordered(square, [1], chunk_size=2.5, worker_lifespan=3), list[float])
        assert_type(pool.imap(square, iter([1]), 1, progress_bar=True), Generator[float, None, None])
        assert_type(next(pool.imap_unordered(square, [1], task_timeout=1)), float)
        assert_type(pool.apply(square, (3,), callback=print), float)
        assert_type(pool.apply_async(square, 3).get(timeout=1), float)
        pool.map(square, [1], worker_init=print, worker_exit=print)
    assert_type(mpire_door.cpu_count(), int)


def helpers_of_mpire() -> None:
    assert_type(list(mpire_utils.chunk_tasks([1], chunk_size=1.5)), list[Collection[Any]])
    assert_type(list(mpire_utils.make_single_arguments("ab", generator=False)), list[tuple[Any]])
    assert_type(mpire_utils.get_n_chunks([1], n_jobs=2), int)
    assert_type(mpire_utils.format_seconds(1.5, with_milliseconds=True), str)
    with mpire_utils.TimeIt([0.0], 0):
        assert_type(mpire_dashboard.start_dashboard()["manager_host"], int | str | None)
    assert_type(mpire_dashboard.get_stacklevel(), int)


def mistakes() -> None:
    """Each ignore is needed: mypy says when one is not."""
    nbpar.map(square)
    nbpar.map(5, [1])  # type: ignore[arg-type]
    nbpar.map(square, [1], on_error="ignore")  # type: ignore[arg-type]
    nbpar.map(square, [1], chunksize=3)  # type: ignore[call-arg]
    nbpar.WorkerPool(start_method="ray")  # type: ignore[arg-type]
    nbpar.WorkerPool(4)  # type: ignore[call-arg]


def pools_of_multiprocessing() -> None:
    with pool_door.Pool(2, initargs=(1,), memory_limit="1GB") as pool:
        assert_type(pool, pool_door.Pool)
        assert_type(pool.apply(square, (3,)), float)
        assert_type(pool.apply_async(square, [3]).get(1), float)
        assert_type(pool.map(square, [1], 2, retries=1, profile=True), list[float])
        assert_type(pool.starmap(pow, [(2, 3)]), list[int])
        assert_type(pool.map_async(square, [1], callback=print).get(), list[float])
        assert_type(next(pool.imap(square, [1])), float)
        assert_type(pool.imap_unordered(square, [1], 4).next(timeout=1), float)
    assert_type(pool_door.ThreadPool(3).map(square, [1]), list[float])
    assert_type(pool_door.cpu_count(), int)


def maps_of_tqdm() -> None:
    assert_type(tqdm_door.process_map(square, [1], max_workers=2, desc="squares"), list[float])
    assert_type(tqdm_door.thread_map(square, [1], leave=False), list[float])
