"""`WorkerPool`: checks options, owns a backend, turns calls into jobs.

Called by users and by :mod:`nbpar.api`, whose functions are the same verbs on the notebook's own pool.
"""

from __future__ import annotations

import itertools
import os
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nbpar.backends.base import ItemSource, JobSpec, Listed, Streamed
from nbpar.backends.registry import end_backend, make_backend
from nbpar.backends.rerun import Recipe, retrier
from nbpar.display import watch_job, watch_lines
from nbpar.errors import NbparError, OptionsError, PoolClosedError
from nbpar.facts import PoolLife
from nbpar.future import TaskFuture
from nbpar.history import forget, let_old_results_go, remember
from nbpar.inputs import check_function, is_sliceable, name_of, zipped
from nbpar.job import Job
from nbpar.options import (
    JobOptions,
    OnError,
    PoolOptions,
    Progress,
    Serializer,
    StartMethod,
    Strict,
    default_start_method,
    environment,
    job_options,
)
from nbpar.streaming import stream
from nbpar.views.cell import Cell
from nbpar.worker.execute import call, call_async, is_async

if TYPE_CHECKING:
    from nbpar.resume import Checkpoint

__all__ = ["WorkerPool"]

R = TypeVar("R")

_job_ids = itertools.count(1)


class WorkerPool:
    """Workers with a life: started at the first job, warm between jobs, ended by the ``with`` block or `shutdown`.

    Parameters
    ----------
    n_workers : int, optional
        By default the CPUs this process may really use (affinity and cgroup quota).
    start_method : {"forkserver", "spawn", "fork", "threads", "serial"}, optional
        How workers exist. ``"forkserver"`` (on Windows ``"spawn"``) by default. ``"fork"`` copies the kernel as it is,
        threads and held locks included, and may hang: it warns of threads, and is refused once CUDA is initialised.
        ``"threads"`` share the kernel's memory and its GIL. ``"serial"`` runs tasks in the caller's thread, for
        debugging.
    worker_init, worker_exit : callable, optional
        Called without arguments in each worker, when it starts and when it ends.
    tasks_per_worker : int, optional
        A worker is replaced after so many tasks.
    memory_limit : int or str, optional
        What a worker may hold, in bytes or as ``"2GB"``. One that holds more when its task has ended is replaced; one
        that a task takes a fifth beyond is stopped, and the task fails with :class:`~nbpar.errors.TaskMemoryError`.
        Not with ``"threads"`` and ``"serial"``.
    cpu_ids : sequence, optional
        For each worker the CPU, or the list of CPUs, it may run on.
    threads_per_worker : int or "auto", optional
        BLAS and OpenMP threads of a worker; ``"auto"`` shares the CPUs out.
    serializer : {"auto", "dill"}, optional
        ``"dill"`` forces dill for functions and data.
    env : mapping of str to str, optional
        Environment variables to set in the workers.
    idle_timeout : float, optional
        Seconds without a job after which the workers end; they come back with the next job.
    keep_globals : bool
        What `worker_init` and tasks do to the notebook's names stays in their worker for later tasks, as in a process
        of ``multiprocessing``. By default it is gone with its job. Threads share the notebook's names in any case.

    Raises
    ------
    OptionsError
        When an option is not allowed; it names the option, the value and what is allowed.
    SerializationError
        When `worker_init` or `worker_exit` cannot be sent to workers.

    Examples
    --------
    >>> import nbpar
    >>> with nbpar.WorkerPool(n_workers=2, start_method="threads") as pool:
    ...     pool.map(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    """

    def __init__(
        self,
        *,
        n_workers: int | None = None,
        start_method: StartMethod | None = None,
        worker_init: Callable[[], Any] | None = None,
        worker_exit: Callable[[], Any] | None = None,
        tasks_per_worker: int | None = None,
        memory_limit: int | str | None = None,
        cpu_ids: Sequence[int | Sequence[int]] | None = None,
        threads_per_worker: int | Literal["auto"] = "auto",
        serializer: Serializer = "auto",
        env: Mapping[str, str] | None = None,
        idle_timeout: float | None = None,
        keep_globals: bool = False,
    ) -> None:
        __tracebackhide__ = True  # a verbose traceback would show what is in `env`
        self._options = PoolOptions(
            n_workers=n_workers,
            start_method=default_start_method() if start_method is None else start_method,
            worker_init=worker_init,
            worker_exit=worker_exit,
            tasks_per_worker=tasks_per_worker,
            memory_limit=memory_limit,
            cpu_ids=cpu_ids,
            threads_per_worker=threads_per_worker,
            serializer=serializer,
            env=environment(env),
            idle_timeout=idle_timeout,
            keep_globals=keep_globals,
        )
        self._backend = make_backend(self._options)
        self._owner_pid = os.getpid()
        self._life = PoolLife(self._options)
        self._closed = False
        self._unfinished: weakref.WeakSet[Job[Any] | TaskFuture[Any]] = weakref.WeakSet()
        # A pool that is dropped, and the end of the interpreter, end the workers and do not wait for tasks.
        self._finalizer = weakref.finalize(self, end_backend, self._backend, self._owner_pid)
        self._finalizer.atexit = False
        self.successor: Callable[[], WorkerPool] | None = None  # has another pool once this one is shut down

    @property
    def n_workers(self) -> int:
        """Workers the pool is meant to have."""
        return self._options.count

    @property
    def options(self) -> PoolOptions:
        """The options it was made with."""
        return self._options

    @property
    def start_method(self) -> StartMethod:
        """How its workers exist."""
        return self._options.start_method

    def map(
        self,
        function: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        chunk_size: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        on_error: OnError = "raise",
        seed: int | None = None,
        progress: Progress = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        profile: bool = False,
    ) -> list[R]:
        """Call ``function(item)`` for each item and return the results in order; see :func:`nbpar.map`."""
        __tracebackhide__ = True
        options = job_options(
            chunk_size, timeout, retries, on_error, seed, progress, name, max_in_flight, checkpoint, profile
        )
        return self._run(function, iterables, options)

    def map_strictly(self, function: Any, items: Any, /, strict: Strict = "all", **options: Any) -> list[Any]:
        """`map`, but raise `LostUpdateError` when tasks change what they brought, or with "all" their item."""
        __tracebackhide__ = True
        return self._run(function, (items,), JobOptions(**options, strict=strict))

    def starmap(
        self,
        function: Callable[..., R],
        /,
        iterable: Iterable[Iterable[Any]],
        *,
        chunk_size: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        on_error: OnError = "raise",
        seed: int | None = None,
        progress: Progress = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        profile: bool = False,
    ) -> list[R]:
        """Call ``function(*item)`` for each item and return the results in order; see :func:`nbpar.starmap`."""
        __tracebackhide__ = True
        options = job_options(
            chunk_size, timeout, retries, on_error, seed, progress, name, max_in_flight, checkpoint, profile
        )
        return self._run(function, (iterable,), options, star=True)

    def imap(
        self,
        function: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunk_size: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        on_error: OnError = "raise",
        seed: int | None = None,
        progress: Progress = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        profile: bool = False,
    ) -> Iterator[R]:
        """Give results out one by one while the input is read a bounded way ahead; see :func:`nbpar.imap`."""
        options = job_options(
            chunk_size, timeout, retries, on_error, seed, progress, name, max_in_flight, checkpoint, profile
        )
        __tracebackhide__ = True
        if not isinstance(ordered, bool):
            raise OptionsError("ordered", ordered, "True or False")
        items = iter(zipped(function, iterables))
        source, star = Streamed(), len(iterables) > 1
        opened = self._open_checkpoint(function, options, star=star, is_streamed=True)
        job: Job[R] = self._begin(function, source, None, options, star=star, is_held=False, checkpoint=opened)
        results: Iterator[R] = stream(
            job,
            self._backend,
            items,
            source,
            ordered=ordered,
            on_error=on_error,
            n_workers=self.n_workers,
            window=max_in_flight,
            checkpoint=opened,
        )
        next(results)  # see there
        return results

    def map_async(
        self,
        function: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        chunk_size: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        on_error: OnError = "raise",
        seed: int | None = None,
        progress: Progress = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        profile: bool = False,
    ) -> Job[R]:
        """Begin a map and return its :class:`~nbpar.job.Job` at once; see :func:`nbpar.map_async`."""
        options = job_options(
            chunk_size, timeout, retries, on_error, seed, progress, name, max_in_flight, checkpoint, profile
        )
        __tracebackhide__ = True
        job: Job[R] = self._start(function, iterables, options, is_held=True)
        if not job.done() or job.status == "failed":  # nobody may ever ask for its result
            job.show_now()
        return job

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> TaskFuture[R]:
        """Call ``function(*args, **kwargs)`` in a worker; see :func:`nbpar.submit`."""
        __tracebackhide__ = True
        check_function(function)
        # The function is an argument like the others, so that a new one costs no message of its own.
        return self._submit(call_async if is_async(function) else call, (function, args, kwargs), _SUBMIT)

    def _submit(self, function: Any, args: Any, options: JobOptions, worker_id: int | None = None) -> TaskFuture[Any]:
        """Begin a single task; with options that pin each task to a worker, on the one that is given."""
        __tracebackhide__ = True
        self._check_open()
        job_id, cell, index = next(_job_ids), Cell.current(), worker_id or 0
        future: TaskFuture[Any] = TaskFuture(self._backend, job_id, lambda future: watch_lines(future, cell))
        future._pool = self
        source, todo = Listed([args] * (index + 1)), None if worker_id is None else [(index, index + 1)]
        seed, n_items = secrets.randbits(64), index + 1
        self._backend.submit(JobSpec(job_id, function, True, source, n_items, True, options, seed, future, todo))
        return future

    def warm(self) -> None:
        """Start the workers ahead of the first job; returns at once."""
        self._check_open()
        self._backend.warm()

    def restart(self) -> None:
        """Replace every worker as soon as it is free; running tasks end first."""
        self.renew("The workers were restarted.")

    def renew(self, reason: str) -> None:
        """Replace every worker as soon as it is free, and tell the jobs under way why."""
        self._check_open()
        self._backend.recycle(reason)

    def pids(self) -> dict[int, int]:
        """Process id of each worker that is up, by worker_id."""
        return dict(self._backend.pids())

    def shutdown(self, wait: bool = True, *, cancel: bool = False) -> None:
        """End the pool; it takes no more jobs.

        Parameters
        ----------
        wait : bool
            Return when its jobs have ended and nothing is left of the workers.
        cancel : bool
            Cancel the jobs instead of letting them end.
        """
        self._closed = True
        self._life.over()
        if os.getpid() == self._owner_pid:
            self._backend.shutdown(wait=wait, cancel=cancel)
            self._finalizer.detach()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self.shutdown(wait=True, cancel=exc_type is not None)

    def __repr__(self) -> str:
        state = "shut down" if self._closed else f"{len(self._backend.pids())} up"
        return f"<WorkerPool of {self.n_workers} workers ({self.start_method}): {state}>"

    # --- from a call to a job -----------------------------------------------------------------------------------------

    def _run(
        self,
        function: Callable[..., R],
        iterables: Sequence[Iterable[Any]],
        options: JobOptions,
        *,
        star: bool = False,
    ) -> list[R]:
        __tracebackhide__ = True
        job: Job[R] | None = None
        try:
            job = self._start(function, iterables, options, star=star)
            return job.finish()
        except BaseException as error:
            if job is None:
                raise
            if isinstance(error, KeyboardInterrupt):
                job.interrupt(error)
            job.cancel()  # broken off by an alarm for one; else it is over
            raise

    def _start(
        self,
        function: Callable[..., R],
        iterables: Sequence[Iterable[Any]],
        options: JobOptions,
        *,
        star: bool = False,
        is_held: bool = False,
    ) -> Job[R]:
        __tracebackhide__ = True
        items = zipped(function, iterables)
        star = star or len(iterables) > 1
        checkpoint = self._open_checkpoint(function, options, star=star, is_streamed=False)
        try:
            listed: Any = items if is_sliceable(items) else list(items)
            if checkpoint is not None:
                checkpoint.read(listed)
        except BaseException:
            if checkpoint is not None:
                checkpoint.close()
            raise
        source = Listed(listed)
        return self._begin(function, source, len(listed), options, star=star, is_held=is_held, checkpoint=checkpoint)

    def _begin(
        self,
        function: Callable[..., R],
        source: ItemSource,
        n_tasks: int | None,
        options: JobOptions,
        *,
        star: bool,
        is_held: bool,
        checkpoint: Checkpoint | None,
        before: Job[R] | None = None,
        seed: int | None = None,
    ) -> Job[R]:
        """Begin a job, or what is left of the one `before`."""
        __tracebackhide__ = True
        check_function(function)
        self._check_open()
        job_id = next(_job_ids)
        name = options.name or f"map {name_of(function)}"
        cell = Cell.current()
        job: Job[R] = Job(
            job_id=job_id,
            name=name,
            n_tasks=n_tasks,
            n_workers=self.n_workers,
            backend=self._backend,
            on_error=options.on_error,
            make_watch=lambda job: watch_job(job, options.progress, cell),
        )
        if seed is None:
            seed = secrets.randbits(64) if options.seed is None else options.seed
        if options.profile:
            job.gather_profile()
        job._state.adviser.make_facts = self._life.began(options)
        sink, todo = (job, None) if checkpoint is None else checkpoint.attach(job)
        if before is not None:
            todo = job.take_over(before)
        spec = JobSpec(job_id, function, star, source, n_tasks or 0, n_tasks is not None, options, seed, sink, todo)
        job._recipe, job._pool, job._retry = Recipe(spec, checkpoint), self, retrier(self)
        job.begun_in = cell
        remember(job, is_held=is_held)
        try:
            is_waited_for = not is_held and n_tasks is not None
            if todo == []:  # the checkpoint has all of it: no worker is needed
                sink.ended("done", None)
            else:
                self._backend.submit(spec, job.until_shown(lambda: let_old_results_go(job)) if is_waited_for else None)
            let_old_results_go(job)
        except KeyboardInterrupt as interrupt:
            job.interrupt(interrupt)
        except BaseException as error:
            job.cancel()
            if isinstance(error, NbparError):  # it has not begun; else it was broken off, by an alarm for one
                forget(job)
                if checkpoint is not None:
                    checkpoint.close()
            raise
        return job

    def retry(self, job: Job[R]) -> Job[R]:
        """Run what is left of a job that has ended; called by :meth:`nbpar.job.Job.retry_failed`."""
        recipe, left = job.left()
        if recipe is None or not left:
            return job
        try:
            source = recipe.source_of(left)
        except LookupError:
            raise NbparError(
                f"the items of {job!r} were let go when other jobs began; call retry_failed() before, hold the job of "
                f"map_async(), or map the items again"
            ) from None
        checkpoint = self._open_checkpoint(recipe.function, recipe.options, star=recipe.star, is_streamed=False)
        if checkpoint is not None:
            checkpoint.go_on(recipe.checkpoint)
        again = self._begin(
            recipe.function,
            source,
            job.n_tasks,
            recipe.options,
            star=recipe.star,
            is_held=True,
            checkpoint=checkpoint,
            before=job,
            seed=recipe.seed,
        )
        again.show_now()
        return again

    def _open_checkpoint(
        self, function: Callable[..., Any], options: JobOptions, *, star: bool, is_streamed: bool
    ) -> Checkpoint | None:
        __tracebackhide__ = True
        if options.checkpoint is None:
            return None
        self._check_open()
        from nbpar.resume import open_checkpoint

        return open_checkpoint(
            os.fspath(options.checkpoint),
            function,
            name_of(function).strip("<>"),
            star=star,
            seed=options.seed,
            worker_init=self._options.worker_init,
            is_streamed=is_streamed,
        )

    def _check_open(self) -> None:
        if os.getpid() != self._owner_pid:
            raise PoolClosedError("this pool belongs to the process that made it; make one of your own after a fork")
        if self._closed:
            raise PoolClosedError("this pool was shut down; make another one")


_SUBMIT = JobOptions(on_error="return", progress=False)
