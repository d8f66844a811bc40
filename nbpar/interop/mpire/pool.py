"""MPIRE's `WorkerPool`: its parameters, rules and exceptions over nbpar's workers.

::

    map, imap ... --MapCall--> a job --+
                                       +--> Shift (nbpar.WorkerPool, one life of its workers) --> MapTask, ApplyTask
    apply, apply_async --AsyncResult --+      |
                                              +-- made by the first call, ended after each map without keep_alive

What a call means is worked out in :mod:`nbpar.interop.mpire.params`, what runs in a worker is in
:mod:`nbpar.interop.mpire.hooks`, what keeps the workers from call to call in :mod:`nbpar.interop.mpire.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from nbpar.interop.mpire.apply import Applying
from nbpar.interop.mpire.base import Function
from nbpar.interop.mpire.maps import concatenated
from nbpar.interop.mpire.params import check_map_parameters

__all__ = ["WorkerPool"]

R = TypeVar("R")

Options = dict[str, Any] | None


class WorkerPool(Applying):
    """MPIRE's pool of workers; each parameter and method is in ``docs/reference/mpire.md``.

    Parameters
    ----------
    n_jobs : int, optional
        Workers; None and 0 mean the CPUs that this process may really use.
    daemon : bool
        Whether tasks may not make pools with processes of their own.
    cpu_ids : sequence, optional
        CPUs for each worker, or for all.
    shared_objects : object, optional
        Passed to all functions unless None. Large buffers in it are mapped by the workers, not copied.
    pass_worker_id, use_worker_state : bool
        Whether functions get the worker's number, and a dict of the worker's own. The order of arguments is
        `worker_id`, `shared_objects`, `worker_state`, and those of the task.
    start_method : {"fork", "forkserver", "spawn", "threading"}, optional
        By default nbpar's own ("forkserver"; on Windows "spawn"), and "fork" for what cannot be sent to its workers.
    keep_alive : bool
        Whether workers, with their state, outlive a map.
    use_dill : bool
        Accepted; nbpar sends by dill what needs it, in any case.
    enable_insights : bool
        Whether :meth:`get_insights` and :meth:`print_insights` have something to tell.
    order_tasks : bool
        Whether chunk ``i`` goes to worker ``i % n_jobs``.

    Raises
    ------
    OptionsError
        When one is not allowed; it is the ValueError or TypeError that MPIRE raises.

    Examples
    --------
    >>> from nbpar.interop.mpire import WorkerPool
    >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
    ...     pool.map(lambda x, y: x * y, [(1, 2), (3, 4)])
    [2, 12]
    """

    def map(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        concatenate_numpy_output: bool = True,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: Options = None,
        progress_bar_style: str | None = None,
    ) -> Any:
        """Call `func` with the arguments of each item and return the results in order.

        An item that is a dict has keyword arguments, and one that is any other iterable arguments by position, but
        strings, bytes, arrays and frames, which are one argument. A numpy array as the iterable is cut into slices,
        and what comes back is put together, unless `concatenate_numpy_output` is False.

        Parameters
        ----------
        func : callable
        iterable_of_args : iterable
        iterable_len : int, optional
            Takes no more than so many items.
        max_tasks_active : int, optional
            Tasks that may be under way at once.
        chunk_size, n_splits : float, int, optional
            Tasks that travel together, or the number of chunks; by default nbpar adapts to how long they take.
        worker_lifespan : int, optional
            Tasks after which a worker is replaced.
        progress_bar : bool
            Whether to show progress outside a notebook, too.
        concatenate_numpy_output : bool
        worker_init, worker_exit : callable, optional
            Called in each worker that gets a task, before its first and after its last.
        task_timeout, worker_init_timeout, worker_exit_timeout : float, optional
            Seconds that a call of each may take.
        progress_bar_options, progress_bar_style : optional
            See :mod:`nbpar.interop.mpire.progress`.

        Returns
        -------
        list or numpy.ndarray

        Raises
        ------
        BaseException
            What the first task raised that failed; its cause is the traceback in the worker as text.
        TimeoutError
            When one took too long.
        RuntimeError
            When a worker died, or another map is under way.

        Examples
        --------
        >>> import numpy as np
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.map(np.square, np.arange(6)).tolist()
        [0, 1, 4, 9, 16, 25]
        """
        __tracebackhide__ = True
        told = check_map_parameters(
            self.pool_params,
            iterable_of_args,
            iterable_len,
            max_tasks_active,
            chunk_size,
            n_splits,
            worker_lifespan,
            progress_bar,
            progress_bar_options,
            progress_bar_style,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
        )
        call = self._call(func, told, worker_init, worker_exit)
        results = self._run(call) if call.is_listed else list(self._stream(call, ordered=True))
        return concatenated(results) if concatenate_numpy_output else results

    def map_unordered(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: Options = None,
        progress_bar_style: str | None = None,
    ) -> list[R]:
        """As :meth:`map`, with the results as they came; arrays stay as they are.

        Examples
        --------
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     sorted(pool.map_unordered(abs, [-1, -2]))
        [1, 2]
        """
        __tracebackhide__ = True
        told = check_map_parameters(
            self.pool_params,
            iterable_of_args,
            iterable_len,
            max_tasks_active,
            chunk_size,
            n_splits,
            worker_lifespan,
            progress_bar,
            progress_bar_options,
            progress_bar_style,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
        )
        return list(self._stream(self._call(func, told, worker_init, worker_exit), ordered=False))

    def imap(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: Options = None,
        progress_bar_style: str | None = None,
    ) -> Generator[R, None, None]:
        """As :meth:`map`, but results are given out one by one; nothing begins before the first is asked for.

        Items are read as results are taken: `max_tasks_active` of them at most are on their way or wait to be taken.

        Examples
        --------
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     next(pool.imap(abs, [-1, -2]))
        1
        """
        told = check_map_parameters(
            self.pool_params,
            iterable_of_args,
            iterable_len,
            max_tasks_active,
            chunk_size,
            n_splits,
            worker_lifespan,
            progress_bar,
            progress_bar_options,
            progress_bar_style,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
        )
        return self._stream(self._call(func, told, worker_init, worker_exit), ordered=True)

    def imap_unordered(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Function | None = None,
        worker_exit: Function | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: Options = None,
        progress_bar_style: str | None = None,
    ) -> Generator[R, None, None]:
        """As :meth:`imap`, each result as soon as it is there.

        Examples
        --------
        >>> from nbpar.interop.mpire import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     sorted(pool.imap_unordered(abs, iter([-1, -2]), iterable_len=2))
        [1, 2]
        """
        told = check_map_parameters(
            self.pool_params,
            iterable_of_args,
            iterable_len,
            max_tasks_active,
            chunk_size,
            n_splits,
            worker_lifespan,
            progress_bar,
            progress_bar_options,
            progress_bar_style,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
        )
        return self._stream(self._call(func, told, worker_init, worker_exit), ordered=False)
