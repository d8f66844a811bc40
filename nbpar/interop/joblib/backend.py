"""What joblib calls: :class:`NbparBackend` turns each call of `Parallel` into one job of nbpar.

::

    the thread that calls Parallel           "nbpar-joblib", one for each call        the pool
    ------------------------------           ---------------------------------        --------
    start_call: name, number of tasks
    submit(batch) -------------------------------------------------------- put -----> Feed: tasks ... workers
         (joblib's) Parallel waits <--- callback(batch) <-- Batch <-- outcomes -------
                                        joblib hands out the next batch -- put ----->
    stop_call: close, wait for the picture

The thread between is there because joblib goes on with the user's iterable wherever it is called back: that must not be
nbpar's dispatcher. It ends with its job. Made by joblib, through :func:`nbpar.interop.joblib.register`.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from joblib.parallel import FallbackToBackend, ParallelBackendBase, SequentialBackend

from nbpar.default import default_pool
from nbpar.errors import OptionsError
from nbpar.interop.joblib.calls import Batch
from nbpar.interop.joblib.naming import caller_of, name_for, tasks_of
from nbpar.interop.joblib.pools import IDLE_S, POOL_OPTIONS, pool_for, start_method_of
from nbpar.interop.joblib.workers import Retrieval, Workers
from nbpar.options import JobOptions
from nbpar.worker.context import current_context

__all__ = ["NbparBackend"]

JOB_OPTIONS = frozenset({"name", "profile", "progress", "retries", "seed"})

_UNUSED = frozenset({"context", "temp_folder", "verbose"})
"""What joblib passes on to each backend and this one has no use for."""

_ALLOWED = POOL_OPTIONS | JOB_OPTIONS | _UNUSED | {"idle_worker_timeout", "initargs", "initializer"}

DEFAULT_LEAST_BYTES = 1 << 20
"""joblib's ``max_nbytes="1M"``."""


class NbparBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """joblib's view of nbpar.

    Parameters
    ----------
    nesting_level, inner_max_num_threads
        joblib's own.
    **options
        Of :class:`nbpar.WorkerPool`; `name`, `profile`, `progress`, `retries` and `seed` of :func:`nbpar.map`; and
        joblib's `initializer`, `initargs` and `idle_worker_timeout`. `Parallel` takes them too, from joblib 1.5 on.

    Raises
    ------
    OptionsError
        When there is no option of a name.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_sharedmem = False
    uses_threads = False

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        _check_names(options)
        # parallel_config(backend="nbpar") asks for it, and gives no level: then all workers. As the default of all
        # calls, or in Parallel(backend="nbpar"), as with joblib's own: one job where nobody says how many.
        self.default_n_jobs = -1 if nesting_level is None else 1
        self._options = options
        self._workers: Workers | None = None
        self._configured: dict[str, Any] = {}  # what `configure` was called with last
        self.parallel: Any = None

    # --- before a call ------------------------------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers a call gets; of what is below 0, -1 stands for all that the notebook's own pool has."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        n_jobs = self.default_n_jobs if n_jobs is None else n_jobs
        if current_context() is not None:  # in a task: its worker is one of those that share the cores
            return 1
        if n_jobs != 1 and self.nesting_level and not self.in_main_thread():
            warnings.warn("nbpar-backed parallel loops cannot be nested below threads, setting n_jobs=1", stacklevel=3)
            return 1
        if n_jobs == 1 or start_method_of(self._options) == "serial":
            return 1
        return n_jobs if n_jobs > 0 else max(default_pool().n_workers + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        *,
        max_nbytes: int | None = DEFAULT_LEAST_BYTES,
        mmap_mode: str | None = "r",
        **options: Any,
    ) -> int:
        """Find the pool for the calls of a `Parallel`."""
        _check_names(options)
        merged = {**self._options, **options}
        n_workers = self.effective_n_jobs(n_jobs)
        if n_workers == 1 or start_method_of(merged) == "serial":
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if prefer == "threads":
            merged.setdefault("start_method", "threads")
        pool_options = _pool_options(merged, self.inner_max_num_threads)
        job_options = {name: merged[name] for name in JOB_OPTIONS & merged.keys()}
        JobOptions(**job_options)  # checked before anything starts
        pool = pool_for(n_workers, pool_options)
        self.parallel = parallel
        asked = {"prefer": prefer, "require": require, "max_nbytes": max_nbytes, "mmap_mode": mmap_mode}
        self._configured = {"n_jobs": n_jobs, "parallel": parallel, **asked, **options}
        self._workers = Workers(pool, job_options, None if mmap_mode is None else max_nbytes)
        return n_workers

    # --- a call -------------------------------------------------------------------------------------------------------

    def start_call(self) -> None:
        """A call of `Parallel` begins: joblib is the caller."""
        workers = self._ready()
        frame = sys._getframe(1)
        caller = caller_of(frame)
        workers.name = workers.n_expected = None
        # A result that is asked for as it comes must not wait for a call behind it, which may wait for the consumer.
        workers.chunk_size = 1 if getattr(self.parallel, "return_generator", False) else None
        with contextlib.suppress(Exception):  # names and numbers for the eye must not stop a call
            workers.name = name_for(caller)
        with contextlib.suppress(Exception):
            workers.n_expected = tasks_of(caller, frame.f_locals.get("iterable"))

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Batch:
        """Take a batch; `callback` gets what this returns when all its calls have ended."""
        return self._ready().submit(func, callback)

    apply_async = submit  # what joblib 1.4 calls

    def compute_batch_size(self) -> int:
        """Calls to hand out together; nbpar chooses by itself what travels together."""
        return 1 if self._workers is None else self._workers.batch_size

    def retrieve_result_callback(self, out: Batch) -> Any:
        """The results of a batch whose callback was called."""
        return out.result()

    def retrieval_context(self) -> Any:
        """Around joblib's waiting for results."""
        return Retrieval(self._workers)

    def stop_call(self) -> None:
        """A call has ended, in whatever way."""
        if self._workers is not None:
            self._workers.stop()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs; with `ensure_ready` another call may follow."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.abort()
        if ensure_ready:
            self.configure(**self._configured)

    def terminate(self) -> None:
        """Let the pool go: it stays warm for the next call, whoever ends it (:mod:`nbpar.interop.joblib.pools`)."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.stop()

    def _ready(self) -> Workers:
        if self._workers is None:
            raise RuntimeError("this backend has ended: call Parallel again")
        return self._workers

    def __reduce__(self) -> tuple[Any, ...]:  # it goes to workers with what refers to it: a Parallel, an estimator
        return _rebuilt, (self.nesting_level, self.inner_max_num_threads, self.default_n_jobs, self._options)


def _rebuilt(
    nesting_level: int | None, inner_max_num_threads: int | None, default_n_jobs: int, options: dict[str, Any]
) -> NbparBackend:
    backend = NbparBackend(nesting_level, inner_max_num_threads, **options)
    backend.default_n_jobs = default_n_jobs
    return backend


# --- options ----------------------------------------------------------------------------------------------------------


def _check_names(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in _ALLOWED:
            named = ", ".join(sorted(_ALLOWED - _UNUSED))
            raise OptionsError(name, value, f"of joblib's own options those that it documents, and {named}")


def _pool_options(options: Mapping[str, Any], inner_max_num_threads: int | None) -> dict[str, Any]:
    """What :class:`nbpar.WorkerPool` is told, of nbpar's options and joblib's."""
    found = {name: options[name] for name in POOL_OPTIONS & options.keys()}
    if (idle_s := options.get("idle_worker_timeout")) is not None and idle_s != IDLE_S:
        found.setdefault("idle_timeout", idle_s)
    if (initializer := options.get("initializer")) is not None:
        arguments = options.get("initargs") or ()
        found.setdefault("worker_init", _Initializer(initializer, *arguments) if arguments else initializer)
    if inner_max_num_threads is not None:
        found.setdefault("threads_per_worker", inner_max_num_threads)
        if found.get("start_method") not in ("threads", "serial"):  # goes before what the kernel's environment says
            variables = {name: str(inner_max_num_threads) for name in ParallelBackendBase.MAX_NUM_THREADS_VARS}
            found["env"] = {**variables, **(found.get("env") or {})}
    return found


class _Initializer(partial[Any]):
    """An initializer with its arguments; the same for the same ones, so that its pool is found again."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is _Initializer and (self.func, self.args) == (other.func, other.args)

    __hash__ = None  # type: ignore[assignment]  # its arguments may have none
