"""`Executor`: the signature, the rules and the words of ``concurrent.futures.ProcessPoolExecutor``.

Checks arguments; the work is done by :mod:`nbpar.interop.futures.crew`.
"""

from __future__ import annotations

import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args

from nbpar.errors import OptionsError
from nbpar.interop.futures.crew import Crew
from nbpar.interop.futures.runs import items_of
from nbpar.interop.futures.workers import make_pool
from nbpar.options import Progress, Serializer, StartMethod, environment

__all__ = ["Executor"]

R = TypeVar("R")

_START_METHODS: tuple[StartMethod, ...] = tuple(one for one in get_args(StartMethod) if one != "serial")


class Executor(futures.Executor):
    """A ``ProcessPoolExecutor`` whose calls run on nbpar's workers.

    Parameters
    ----------
    max_workers : int, optional
        By default the CPUs this process may really use (affinity and cgroup quota); in a worker one.
    mp_context : context or str, optional
        A context of `multiprocessing`, or the name of its start method: ``"forkserver"`` (the default, on Windows
        ``"spawn"``), ``"spawn"``, ``"fork"``; or ``"threads"``. By default ``"fork"`` where `initargs` have what only
        a fork passes on: a lock of multiprocessing's own, an open file.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` in each worker when it starts.
    initargs : tuple
        Its arguments.
    max_tasks_per_child : int, optional
        A worker is replaced after so many calls. Not with ``"fork"``.
    progress
        As of :func:`nbpar.map`; by default a card in a notebook, and nothing in a terminal.
    worker_exit, memory_limit, cpu_ids, threads_per_worker, serializer, env, idle_timeout
        As of :class:`nbpar.WorkerPool`.

    Raises
    ------
    ValueError
        When an argument is not allowed; as :class:`~nbpar.errors.OptionsError` where the standard library has no such
        error.

    Examples
    --------
    >>> from nbpar.interop.futures import Executor
    >>> with Executor(max_workers=2) as executor:
    ...     future = executor.submit(lambda x, y: x + y, 1, y=2)
    ...     future.result(), list(executor.map(abs, [-1, -2]))
    (3, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        progress: Progress = None,
        worker_exit: Callable[[], Any] | None = None,
        memory_limit: int | str | None = None,
        cpu_ids: Sequence[int | Sequence[int]] | None = None,
        threads_per_worker: int | Literal["auto"] = "auto",
        serializer: Serializer = "auto",
        env: Mapping[str, str] | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        __tracebackhide__ = True  # a verbose traceback would show what is in `env`
        if max_workers is not None:
            if isinstance(max_workers, bool) or not hasattr(max_workers, "__index__"):
                raise OptionsError("max_workers", max_workers, "a whole number, 1 or more, or None")
            if max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
        start_method = _start_method(mp_context)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if isinstance(max_tasks_per_child, bool) or not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if start_method == "fork":
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; supply a "
                    "different mp_context."
                )
        options: dict[str, Any] = {
            "worker_exit": worker_exit,
            "tasks_per_worker": max_tasks_per_child,
            "memory_limit": memory_limit,
            "cpu_ids": cpu_ids,
            "threads_per_worker": threads_per_worker,
            "serializer": serializer,
            "env": environment(env),
            "idle_timeout": idle_timeout,
        }
        pool = make_pool(max_workers, start_method, initializer, initargs, options)
        self._max_workers = pool.n_workers  # dask reads it
        self._crew = Crew(pool, progress)
        weakref.finalize(self, self._crew.shutdown, wait=False, cancel=False).atexit = False

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> futures.Future[R]:
        """Have ``fn(*args, **kwargs)`` called in a worker.

        Returns
        -------
        Future
            It can be awaited as well. Pending until its call is sent to a worker, at most two of them ahead of time.

        Raises
        ------
        BrokenProcessPool
            A worker has died, or could not be initialized.
        RuntimeError
            After `shutdown`.

        Examples
        --------
        >>> from nbpar.interop.futures import Executor
        >>> with Executor(2) as executor:
        ...     executor.submit(divmod, 7, 2).result()
        (3, 1)
        """
        return self._crew.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call ``fn(*items)`` for the items of all iterables side by side.

        Parameters
        ----------
        fn : callable
            Takes one item of each iterable.
        *iterables
            Read at once, unless there is a `buffersize`.
        timeout : float, optional
            Seconds from this call on, within which each result has to be there when it is asked for.
        chunksize : int
            Calls that travel together; with 1 nbpar chooses, by what they take.
        buffersize : int, optional
            Calls whose results were not given out yet, at most, counted in chunks; the iterables are read as results
            are taken. As of Python 3.14.

        Returns
        -------
        iterator
            Results in order. A call that failed raises at its turn; then, and when the iterator is closed, what has not
            begun is not begun any more.

        Raises
        ------
        BrokenProcessPool, RuntimeError
            As of `submit`.
        ValueError
            `chunksize` or `buffersize` is below 1.

        Examples
        --------
        >>> from nbpar.interop.futures import Executor
        >>> with Executor(2) as executor:
        ...     list(executor.map(pow, range(4), [2, 2, 2, 2]))
        [0, 1, 4, 9]
        """
        end_s = None if timeout is None else timeout + time.monotonic()
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if isinstance(buffersize, bool) or not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        if not iterables:
            return iter(())
        run = self._crew.map(
            fn,
            items_of(iterables),
            star=len(iterables) > 1,
            chunk_size=None if chunksize == 1 else chunksize,
            n_ahead=None if buffersize is None else buffersize * chunksize,
        )
        return run.results(end_s, is_buffered=buffersize is not None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; those that were submitted are made.

        Parameters
        ----------
        wait : bool
            Return when they have ended and nothing is left of the workers.
        cancel_futures : bool
            Cancel those that are pending.
        """
        self._crew.shutdown(wait=wait, cancel=cancel_futures)

    def terminate_workers(self) -> None:
        """End the workers now, by SIGTERM: what was submitted fails with `BrokenProcessPool`. As of Python 3.14."""
        self._crew.stop_workers(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End the workers now, by SIGKILL: what was submitted fails with `BrokenProcessPool`. As of Python 3.14."""
        self._crew.stop_workers(getattr(signal, "SIGKILL", signal.SIGTERM))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        is_interrupted = exc_type is not None and issubclass(exc_type, KeyboardInterrupt)
        self._crew.shutdown(wait=True, cancel=is_interrupted, interrupt=is_interrupted)

    def __repr__(self) -> str:
        state = "broken" if self._crew.reason else "shut down" if self._crew.is_shut else "open"
        return f"<Executor of {self._max_workers} workers ({self._crew.pool.start_method}): {state}>"


def _start_method(mp_context: Any) -> StartMethod | None:
    """The name that nbpar has for what a context of `multiprocessing` stands for."""
    if mp_context is None:
        return None
    get = getattr(mp_context, "get_start_method", None)
    name = mp_context if get is None else get()
    for known in _START_METHODS:
        if isinstance(name, str) and name == known:
            return known
    allowed = ", ".join(repr(one) for one in _START_METHODS)
    raise OptionsError("mp_context", mp_context, f"a context of multiprocessing, one of {allowed}, or None")
