"""`Pool` and `ThreadPool`: multiprocessing's arguments, states and errors over :class:`nbpar.WorkerPool`.

Keeps nothing but the state; calls go to the core. What they return is in :mod:`~nbpar.interop.multiprocessing.results`,
what workers run of it in :mod:`~nbpar.interop.multiprocessing.worker`.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.pool import CLOSE, RUN, TERMINATE
from typing import Any, Self, TypeVar, Unpack

from nbpar.eager import EagerStream
from nbpar.errors import SerializationError
from nbpar.inputs import is_sliceable, name_of
from nbpar.interop.multiprocessing.arguments import (
    JobKeywords,
    PoolKeywords,
    batches,
    check_callable,
    check_chunksize,
    make_workers,
    start_method_of,
)
from nbpar.interop.multiprocessing.calls import Calls
from nbpar.interop.multiprocessing.reading import Reading
from nbpar.interop.multiprocessing.results import ApplyResult, IMapIterator, MapResult, as_theirs
from nbpar.interop.multiprocessing.worker import Batch
from nbpar.options import JobOptions, default_start_method
from nbpar.worker.context import current_context
from nbpar.worker.execute import is_async

__all__ = ["Pool", "ThreadPool"]

R = TypeVar("R")


class Pool:
    """Workers for `apply`, `map` and their kin; as ``multiprocessing.Pool``.

    Parameters
    ----------
    processes : int, optional
        Workers; by default the CPUs this process may use. Inside a worker the default is none: tasks then run there.
    initializer : callable, optional
        Called with `initargs` in each worker when it starts.
    initargs : iterable
    maxtasksperchild : int, optional
        A worker is replaced after so many tasks; a chunk of a map counts as one.
    context : context or str, optional
        How workers start, as of ``multiprocessing.get_context``; `start_method` says the same. By default
        ``"forkserver"``, on Windows ``"spawn"``; but ``"fork"``, where there is that, when `initargs` have what only a
        fork can pass on: a lock of multiprocessing's own, a generator, an open file.
    **options
        `start_method`, `worker_exit`, `memory_limit`, `cpu_ids`, `threads_per_worker`, `serializer`, `env` and
        `idle_timeout` of :class:`nbpar.WorkerPool`.

    Raises
    ------
    ValueError, TypeError
        When an argument is not allowed.

    Examples
    --------
    >>> from nbpar.interop.multiprocessing import Pool
    >>> with Pool(2, start_method="threads") as pool:
    ...     pool.map(abs, [-1, -2])
    [1, 2]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        **options: Unpack[PoolKeywords],
    ) -> None:
        __tracebackhide__ = True  # a verbose traceback would show what is in `env`
        self._state = CLOSE  # until it is made: `__del__` asks
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        limit: Any = maxtasksperchild
        if limit is not None and (not isinstance(limit, int) or limit <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        start_method = options.get("start_method") or start_method_of(context)
        is_chosen = start_method is not None
        if start_method is None:
            is_inner = processes is None and current_context() is not None
            start_method = "serial" if is_inner else default_start_method()
        args = tuple(initargs)
        make = functools.partial(make_workers, processes, initializer, args, maxtasksperchild, options)
        try:
            self._workers = make(start_method)
        except SerializationError as error:
            # What multiprocessing shares by inheritance alone: locks above all. It forks where nothing else is said.
            if is_chosen or start_method == "serial" or not hasattr(os, "fork"):
                raise as_theirs(error, is_remote=False) from None
            self._workers = make("fork")
        self._is_remote = self._workers.start_method not in ("threads", "serial")
        self._maxtasksperchild = maxtasksperchild
        self._reading = Reading(self._workers)
        self._calls = None if self._workers.start_method == "serial" else Calls(self._workers)
        self._state = RUN

    # --- calls --------------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> R:
        """Call ``func(*args, **kwds)`` in a worker and return its value."""
        __tracebackhide__ = True
        self._check_running()
        check_callable(func)
        try:
            return self._workers.submit(func, *args, **(kwds or {})).result()
        except Exception as error:  # noqa: BLE001  # whatever the function raises
            raised = as_theirs(error, is_remote=self._is_remote)
        try:
            raise raised
        finally:
            del raised  # the traceback would keep what its frame refers to

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult[R]:
        """Begin a call in a worker.

        Parameters
        ----------
        callback, error_callback : callable, optional
            Called with the value, or with the exception, before the result is ready; they must not block.

        Returns
        -------
        ApplyResult
        """
        self._check_running()
        check_callable(func)
        result: ApplyResult[R] = ApplyResult(callback, error_callback, is_remote=self._is_remote)
        if self._calls is None or is_async(func):
            future = self._workers.submit(func, *args, **(kwds or {}))
            future.add_done_callback(result.settle_by)
        else:
            self._calls.add(func, tuple(args), kwds or {}, result)
        return result

    def map(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        **options: Unpack[JobKeywords],
    ) -> list[R]:
        """Call ``func(item)`` for each item and return the values in order.

        As with multiprocessing, an exception of a task is raised when all tasks have ended.

        Parameters
        ----------
        chunksize : int, optional
            Items that travel together; chosen while the job runs by default.
        **options
            `timeout`, `retries`, `seed`, `progress`, `name` and `profile` of :func:`nbpar.map`.
        """
        __tracebackhide__ = True
        return self._map(func, iterable, chunksize, None, None, options).finish()

    def map_async(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[JobKeywords],
    ) -> MapResult[R]:
        """Begin a `map` and return its result to wait for."""
        return self._map(func, iterable, chunksize, callback, error_callback, options)

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        **options: Unpack[JobKeywords],
    ) -> list[R]:
        """Call ``func(*item)`` for each item and return the values in order; as `map`."""
        __tracebackhide__ = True
        return self._map(func, iterable, chunksize, None, None, options, star=True).finish()

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[JobKeywords],
    ) -> MapResult[R]:
        """Begin a `starmap` and return its result to wait for."""
        return self._map(func, iterable, chunksize, callback, error_callback, options, star=True)

    def imap(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int = 1,
        **options: Unpack[JobKeywords],
    ) -> IMapIterator[R]:
        """Give values out one by one, in order.

        The tasks run whether or not the values are taken, as with multiprocessing; of an iterable without a length no
        more is read while 10,000 values, or 256 MB of large ones, wait to be taken.

        Parameters
        ----------
        chunksize : int
            Items that travel together; 1 leaves it to nbpar.
        **options
            As for `map`.
        """
        return self._stream(func, iterable, chunksize, options, ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], R],
        iterable: Iterable[Any],
        chunksize: int = 1,
        **options: Unpack[JobKeywords],
    ) -> IMapIterator[R]:
        """Give values out as they come; else as `imap`."""
        return self._stream(func, iterable, chunksize, options, ordered=False)

    # --- its end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls; the workers end when those that were made have ended."""
        if self._state == RUN:
            self._state = CLOSE
            if self._calls is not None:
                self._calls.close()
            self._reading.close()

    def terminate(self) -> None:
        """Stop at once: what has not ended is cancelled."""
        self._state = TERMINATE
        self._workers.shutdown(wait=True, cancel=True)

    def join(self) -> None:
        """Wait until the workers have ended; after `close` or `terminate`.

        Raises
        ------
        ValueError
            When neither was called.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state == CLOSE:
            self._reading.wait()
        self._workers.shutdown(wait=True)

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn, _run: str = RUN) -> None:
        if self._state == _run:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        cls = type(self)
        workers = getattr(self, "_workers", None)
        n_workers = 0 if workers is None else workers.n_workers
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={n_workers}>"

    # --- from a call to the core --------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Any,
        error_callback: Any,
        options: Any,
        *,
        star: bool = False,
    ) -> MapResult[Any]:
        __tracebackhide__ = True
        self._check_running()
        check_callable(func)
        items: Any = iterable if is_sliceable(iterable) else list(iterable)
        if chunksize is not None:
            check_chunksize(chunksize)
        elif self._maxtasksperchild is not None:  # multiprocessing's rule, since it says how long workers live
            chunksize = max(1, -(-len(items) // (4 * self._workers.n_workers)))
        is_batched = self._maxtasksperchild is not None and chunksize is not None and chunksize > 1
        result: MapResult[Any] = MapResult(callback, error_callback, is_remote=self._is_remote, is_flat=is_batched)
        function: Any = func
        if is_batched and chunksize is not None:
            function, star, options = Batch(func, star), False, {"name": f"map {name_of(func)}", **options}
            items = [items[start : start + chunksize] for start in range(0, len(items), chunksize)]
            chunksize = 1
        try:
            known = JobOptions(chunk_size=chunksize, on_error="return", **options)
            result.follow(self._workers._start(function, (items,), known, star=star, is_held=True))
        except SerializationError as error:
            result.refuse(error)
        return result

    def _stream(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, options: Any, *, ordered: bool
    ) -> IMapIterator[Any]:
        self._check_running()
        check_callable(func)
        check_chunksize(chunksize)
        function: Any = func
        items, group, size = iterable, chunksize, None if chunksize == 1 else chunksize
        is_batched = self._maxtasksperchild is not None and chunksize > 1
        if is_batched:
            function, options = Batch(func, star=False), {"name": f"map {name_of(func)}", **options}
            items, group, size = batches(iter(iterable), chunksize), 1, 1
        known = JobOptions(chunk_size=size, on_error="return", **options)
        try:
            stream: EagerStream[Any] = EagerStream(
                self._workers, function, items, known, ordered=ordered, group=group, when_read=self._reading.ended
            )
        except SerializationError as error:
            raise as_theirs(error, is_remote=False) from None
        self._reading.began(stream.reader)
        return IMapIterator(stream, is_remote=self._is_remote, is_flat=is_batched)


class ThreadPool(Pool):
    """A `Pool` whose workers are threads; as ``multiprocessing.pool.ThreadPool``.

    Examples
    --------
    >>> from nbpar.interop.multiprocessing import ThreadPool
    >>> with ThreadPool(2) as pool:
    ...     list(pool.imap(abs, [-1, -2]))
    [1, 2]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(processes, initializer, initargs, start_method="threads")
