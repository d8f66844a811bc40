"""What MPIRE's parameters mean: their checks, defaults, and which one counts where several speak of the same thing.

Owns :class:`WorkerPoolParams` (one pool) and :class:`MapParameters` (one map call). Called by
:mod:`nbpar.interop.mpire.pool` before any work starts.

Values are checked by :mod:`nbpar.interop.mpire.checks`, which names what is raised.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbpar.errors import OptionsError
from nbpar.interop.mpire.checks import LEAST_TIMEOUT_S, OptionsTypeError, check_number
from nbpar.interop.mpire.chunks import apply_numpy_chunking, is_array
from nbpar.interop.mpire.progress import ProgressPlan, check_progress_bar_options, plan_progress
from nbpar.options import usable_cpus

__all__ = [
    "START_METHODS",
    "CPUList",
    "MapParameters",
    "WorkerPoolParams",
    "check_map_parameters",
    "check_number",
    "check_progress_bar_options",
    "cpu_count",
    "get_number_of_tasks",
]

CPUList = Sequence[int | Sequence[int]]

START_METHODS = {"fork": "fork", "forkserver": "forkserver", "spawn": "spawn", "threading": "threads"}
"""MPIRE's start methods, and nbpar's names of them."""

CHUNKS_PER_WORKER = 64
UNKNOWN_CHUNK_SIZE = 4


def cpu_count() -> int:
    """CPUs that this process may really use, by affinity and container; ``multiprocessing.cpu_count`` counts all.

    Examples
    --------
    >>> cpu_count() >= 1
    True
    """
    return usable_cpus()


@dataclass(slots=True)
class WorkerPoolParams:
    """What the constructor of the pool takes, checked; the pool's setters change it.

    Attributes
    ----------
    n_jobs : int
        Never None or 0: those mean :func:`cpu_count`.
    cpu_ids : list of list of int
        One list for each worker; empty for no pinning.
    others
        As given.

    Examples
    --------
    >>> WorkerPoolParams(2, [0]).cpu_ids
    [[0], [0]]
    """

    n_jobs: Any = None
    cpu_ids: Any = None
    daemon: bool = True
    shared_objects: Any = field(default=None, repr=False)
    pass_worker_id: bool = False
    use_worker_state: bool = False
    start_method: str | None = None
    keep_alive: bool = False
    use_dill: bool = False
    enable_insights: bool = False
    order_tasks: bool = False

    def __post_init__(self) -> None:
        check_number(self.n_jobs, "n_jobs", allowed_types=(int,), none_allowed=True, min_=0)
        self.n_jobs = operator.index(self.n_jobs or cpu_count())
        if self.start_method is not None and self.start_method not in START_METHODS:
            allowed = ", ".join(repr(name) for name in START_METHODS)
            raise OptionsError("start_method", self.start_method, f"{allowed}, or None (nbpar's default)")
        self.cpu_ids = _cpu_masks(self.cpu_ids, self.n_jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapParameters:
    """One map call, checked, with every default resolved.

    It can be unpacked into MPIRE's five: ``n_tasks, max_tasks_active, chunk_size, progress_bar, progress_bar_options``.

    Attributes
    ----------
    items : iterable
        What the tasks are made of, before unpacking. Cut off at `iterable_len`; a numpy array has become its slices,
        each in a tuple of its own. May be the caller's own list: never changed, read once.
    n_tasks : int or None
        As announced by `iterable_len` or the input's length, slices for an array; None when neither tells. Fewer may
        come.
    chunk_size : int or float
        Tasks of a chunk in the mean by MPIRE's rules; lengths by :func:`~nbpar.interop.mpire.chunks.chunk_lengths`.
    is_chunk_size_given : bool
        Whether the caller asked for it, by `chunk_size` or `n_splits`, or the input is an array. Else nbpar may choose.
    max_tasks_active : int
        Tasks that may be under way or waiting to be taken.
    is_max_tasks_active_given : bool
        Whether the caller asked for it.
    worker_lifespan : int or None
        Tasks after which a worker is replaced.
    progress_bar : bool
        As given.
    progress_bar_options : dict
        As given, with MPIRE's defaults.
    progress : ProgressPlan
        What that means for nbpar's own display: `progress` and `name` of :meth:`nbpar.WorkerPool.map`.
    task_timeout, worker_init_timeout, worker_exit_timeout : float or None
        In seconds.
    is_numpy : bool
        Whether the input was an array.
    """

    items: Iterable[Any]
    n_tasks: int | None
    chunk_size: float
    is_chunk_size_given: bool
    max_tasks_active: int
    is_max_tasks_active_given: bool
    worker_lifespan: int | None
    progress_bar: bool
    progress_bar_options: dict[str, Any]
    progress: ProgressPlan
    task_timeout: float | None
    worker_init_timeout: float | None
    worker_exit_timeout: float | None
    is_numpy: bool

    def __iter__(self) -> Iterator[Any]:
        return iter(
            (self.n_tasks, self.max_tasks_active, self.chunk_size, self.progress_bar, self.progress_bar_options)
        )


def check_map_parameters(
    pool_params: WorkerPoolParams,
    iterable_of_args: Any,
    iterable_len: int | None,
    max_tasks_active: int | None,
    chunk_size: float | None,
    n_splits: int | None,
    worker_lifespan: int | None,
    progress_bar: bool,
    progress_bar_options: dict[str, Any] | None = None,
    progress_bar_style: str | None = None,
    task_timeout: float | None = None,
    worker_init_timeout: float | None = None,
    worker_exit_timeout: float | None = None,
) -> MapParameters:
    """Check what a map call got and resolve its defaults; the input is not read.

    * Length: `iterable_len`, else ``len()`` of the input, else not known. More than `iterable_len` is never taken.
    * Chunks: `chunk_size`, which may be a fraction, else ``n_tasks / n_splits``, else ``n_tasks / (n_jobs * 64)``, or
      4 with a RuntimeWarning where the length is not known.
    * A numpy array becomes slices along its first axis: of `chunk_size` rows, else `n_splits` of them, else 4 for each
      worker. Each slice is a task, and a chunk of its own.
    * `max_tasks_active`: by default two chunks for each worker.

    Returns
    -------
    MapParameters

    Raises
    ------
    OptionsError
        When a value is not allowed, and as :class:`~nbpar.interop.mpire.checks.OptionsTypeError` when its type is not.
    NotImplementedError
        For a `position` with the style "rich", as in MPIRE.

    Warns
    -----
    RuntimeWarning
        When the chunk size was chosen without knowing the length, and for options of the progress bar that are
        overwritten.

    Examples
    --------
    >>> told = check_map_parameters(WorkerPoolParams(2), range(256), None, None, None, None, None, False)
    >>> told.n_tasks, told.chunk_size, told.max_tasks_active, told.is_chunk_size_given
    (256, 2.0, 8, False)
    """
    check_number(iterable_len, "iterable_len", allowed_types=(int,), none_allowed=True, min_=0)
    check_number(chunk_size, "chunk_size", allowed_types=(int, float), none_allowed=True, min_=1)
    check_number(n_splits, "n_splits", allowed_types=(int,), none_allowed=True, min_=1)
    check_number(max_tasks_active, "max_tasks_active", allowed_types=(int,), none_allowed=True, min_=1)
    check_number(worker_lifespan, "worker_lifespan", allowed_types=(int,), none_allowed=True, min_=1)
    for name, value in (
        ("task_timeout", task_timeout),
        ("worker_init_timeout", worker_init_timeout),
        ("worker_exit_timeout", worker_exit_timeout),
    ):
        check_number(value, name, allowed_types=(int, float), none_allowed=True, min_=LEAST_TIMEOUT_S)
    n_jobs = pool_params.n_jobs
    is_given = chunk_size is not None
    items: Iterable[Any]
    if is_numpy := is_array(iterable_of_args):
        items, iterable_len, chunk_size, n_splits = apply_numpy_chunking(
            iterable_of_args, iterable_len, chunk_size, n_splits, n_jobs
        )
        n_tasks: int | None = iterable_len
        is_given = True
    else:
        n_tasks = get_number_of_tasks(iterable_of_args, iterable_len)
        items = _cut_off(iterable_of_args, iterable_len)
    if chunk_size is None:
        if n_tasks is None:
            warnings.warn(
                f"The length of the input is not known: a chunk counts as {UNKNOWN_CHUNK_SIZE} tasks; give chunk_size, "
                f"iterable_len, or an iterable that has a length",
                RuntimeWarning,
                stacklevel=3,
            )
            chunk_size = UNKNOWN_CHUNK_SIZE
        else:
            is_given = n_splits is not None
            chunk_size = n_tasks / (n_splits or n_jobs * CHUNKS_PER_WORKER)
    default_active = n_jobs * max(1, math.ceil(chunk_size)) * 2
    return MapParameters(
        items=items,
        n_tasks=n_tasks,
        chunk_size=chunk_size,
        is_chunk_size_given=is_given,
        max_tasks_active=default_active if max_tasks_active is None else max_tasks_active,
        is_max_tasks_active_given=max_tasks_active is not None,
        worker_lifespan=worker_lifespan,
        progress_bar=progress_bar,
        progress_bar_options=check_progress_bar_options(progress_bar_options, n_tasks, progress_bar_style),
        progress=plan_progress(progress_bar, progress_bar_options, progress_bar_style),
        task_timeout=task_timeout,
        worker_init_timeout=worker_init_timeout,
        worker_exit_timeout=worker_exit_timeout,
        is_numpy=is_numpy,
    )


def get_number_of_tasks(iterable_of_args: Any, iterable_len: int | None) -> int | None:
    """`iterable_len`, else the input's own length, else None.

    Examples
    --------
    >>> get_number_of_tasks("abc", None), get_number_of_tasks("abc", 2), get_number_of_tasks(iter("abc"), None)
    (3, 2, None)
    """
    if iterable_len is not None:
        return iterable_len
    return len(iterable_of_args) if hasattr(iterable_of_args, "__len__") else None


def _cut_off(items: Any, iterable_len: int | None) -> Iterable[Any]:
    if iterable_len is None or (hasattr(items, "__len__") and len(items) <= iterable_len):
        return items  # type: ignore[no-any-return]
    return itertools.islice(items, iterable_len)


def _cpu_masks(cpu_ids: Any, n_jobs: int) -> list[list[int]]:
    """For each worker its CPUs."""
    if cpu_ids is None:
        return []
    allowed = f"a CPU, or a list of CPUs, for each of the {n_jobs} workers, or one for all of them"
    if isinstance(cpu_ids, str) or not isinstance(cpu_ids, Sequence):
        raise OptionsTypeError("cpu_ids", cpu_ids, allowed)
    if not cpu_ids:
        return []
    if len(cpu_ids) not in (1, n_jobs):
        raise OptionsError("cpu_ids", cpu_ids, allowed)
    n_cpus = os.cpu_count() or 1
    masks = []
    for one in cpu_ids:
        mask = list(one) if isinstance(one, Sequence) and not isinstance(one, str) else [one]
        if not mask or not all(hasattr(cpu, "__index__") and not isinstance(cpu, bool) for cpu in mask):
            raise OptionsTypeError("cpu_ids", cpu_ids, allowed)
        if min(mask) < 0 or max(mask) >= n_cpus:
            raise OptionsError("cpu_ids", cpu_ids, f"{allowed}, each from 0 to {n_cpus - 1}")
        masks.append([operator.index(cpu) for cpu in mask])
    return [list(mask) for mask in masks * n_jobs] if len(masks) == 1 else masks
