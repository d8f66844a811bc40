"""What a pool and its calls take: nbpar's keywords, checks of multiprocessing's own, and the workers made of them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from nbpar.errors import OptionsError
from nbpar.interop.multiprocessing.worker import Begin, End, Inherited
from nbpar.options import Progress, Serializer, StartMethod
from nbpar.pool import WorkerPool

__all__ = [
    "JobKeywords",
    "PoolKeywords",
    "batches",
    "check_callable",
    "check_chunksize",
    "make_workers",
    "start_method_of",
]

_START_METHODS: dict[str, StartMethod] = {"fork": "fork", "spawn": "spawn", "forkserver": "forkserver"}


class PoolKeywords(TypedDict, total=False):
    """What a pool takes beside multiprocessing's arguments; :class:`nbpar.WorkerPool` describes it."""

    start_method: StartMethod
    worker_exit: Callable[[], Any] | None
    memory_limit: int | str | None
    cpu_ids: Sequence[int | Sequence[int]] | None
    threads_per_worker: int | Literal["auto"]
    serializer: Serializer
    env: Mapping[str, str] | None
    idle_timeout: float | None


class JobKeywords(TypedDict, total=False):
    """What the map family takes beside multiprocessing's arguments; :func:`nbpar.map` describes it."""

    timeout: float | None
    retries: int
    seed: int | None
    progress: Progress
    name: str | None
    profile: bool


def start_method_of(context: Any) -> StartMethod | None:
    """What a context of multiprocessing, or the name of one, asks for."""
    if context is None:
        return None
    name = context if isinstance(context, str) else context.get_start_method()
    if name not in _START_METHODS:
        raise OptionsError("context", context, f"a context of multiprocessing, or one of {sorted(_START_METHODS)}")
    return _START_METHODS[name]


def check_callable(func: object) -> None:
    """Refuse what cannot be called, as its call would."""
    if not callable(func):
        raise TypeError(f"{type(func).__name__!r} object is not callable")


def check_chunksize(chunksize: int) -> None:
    """Refuse chunks without items."""
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def batches(items: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """The items, so many at a time; of a batch in which the input raises, none."""
    while batch := tuple(itertools.islice(items, size)):
        yield batch


def make_workers(
    processes: int | None,
    initializer: Callable[..., Any] | None,
    initargs: tuple[Any, ...],
    maxtasksperchild: int | None,
    options: PoolKeywords,
    start_method: StartMethod,
) -> WorkerPool:
    """The workers of a pool; raises SerializationError when they cannot be told what to begin with."""
    __tracebackhide__ = True
    rest: dict[str, Any] = dict(options)
    hook = rest.pop("worker_exit", None)
    is_remote = start_method not in ("threads", "serial")
    inherited = Inherited.of(initargs) if start_method == "fork" else None
    begin = Begin(initializer, initargs if inherited is None else inherited, is_remote)
    try:
        workers = WorkerPool(
            n_workers=processes,
            worker_init=begin if is_remote or initializer is not None else None,
            worker_exit=End(hook) if is_remote else hook,
            tasks_per_worker=maxtasksperchild,
            keep_globals=is_remote,
            **(rest | {"start_method": start_method}),
        )
    except BaseException:
        if inherited is not None:
            inherited.forget()
        raise
    if inherited is not None:
        weakref.finalize(workers, inherited.forget).atexit = False
    return workers
