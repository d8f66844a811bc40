"""What can be set, with every check of an argument and its message.

Owns :class:`JobOptions` (one map call) and :class:`PoolOptions` (one pool): frozen, checked when made, so that no work
starts with a bad argument. Called by :mod:`nbpar.api` and :mod:`nbpar.pool`; every layer may read them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nbpar.errors import OptionsError
from nbpar.sizes import parse_size

__all__ = [
    "JobOptions",
    "OnError",
    "PoolOptions",
    "Progress",
    "Serializer",
    "StartMethod",
    "Strict",
    "default_start_method",
    "environment",
    "job_options",
    "usable_cpus",
]

OnError = Literal["raise", "return", "skip"]
Progress = bool | Literal["detail"] | None
Strict = Literal["all", "captured"]
StartMethod = Literal["forkserver", "spawn", "fork", "threads", "serial"]
Serializer = Literal["auto", "dill"]

LEAST_MEMORY_BYTES = 64_000_000
"""A worker that has loaded numpy and pandas has about as much of its own: below, it would be replaced all the time."""


def default_start_method() -> StartMethod:
    """``forkserver`` where the system has it, else ``spawn`` (Windows)."""
    return "spawn" if sys.platform == "win32" else "forkserver"


def usable_cpus() -> int:
    """CPUs that this process may really use: its affinity and the cgroup's quota, not the machine's count.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> usable_cpus() >= 1
    True
    """
    try:
        n_cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        n_cpus = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, n_cpus if quota is None else min(n_cpus, math.ceil(quota)))


def _cgroup_quota() -> float | None:
    """CPUs by the container's quota (cgroup v2, then v1); None without a limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", encoding="ascii") as file:
            quota_us = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us", encoding="ascii") as file:
            period_us = int(file.read())
        return quota_us / period_us if quota_us > 0 and period_us > 0 else None
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of one map call; :func:`nbpar.map` describes them.

    Examples
    --------
    >>> JobOptions(retries=-1)
    Traceback (most recent call last):
    ...
    nbpar.errors.OptionsError: retries=-1 is not allowed; allowed: a whole number, 0 or more
    """

    chunk_size: int | None = None
    timeout: float | None = None
    retries: int = 0
    on_error: OnError = "raise"
    seed: int | None = None
    progress: Progress = None
    name: str | None = None
    max_in_flight: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    profile: bool = False
    strict: Strict | None = None  # no option of a user's: see WorkerPool.map_strictly
    pin: float | None = None  # no option of a user's, either: see nbpar.engine.plans.JobPlan

    def __post_init__(self) -> None:
        _whole("chunk_size", self.chunk_size, least=1, none="chosen while the job runs")
        _seconds("timeout", self.timeout, none="no limit")
        _whole("retries", self.retries, least=0)
        _one_of("on_error", self.on_error, get_args(OnError))
        _whole("seed", self.seed, least=0, none="a fresh seed")
        progress: Any = self.progress  # what came may be anything, also what compares in ways of its own
        if not (progress is None or isinstance(progress, bool) or (isinstance(progress, str) and progress == "detail")):
            allowed = "True, False, 'detail' (in a terminal, a row for each worker), or None (by where the code runs)"
            raise OptionsError("progress", progress, allowed)
        if self.name is not None and not isinstance(self.name, str):
            raise OptionsError("name", self.name, "a string, or None for the function's name")
        _whole("max_in_flight", self.max_in_flight, least=1, none="bounded by chunks and workers")
        _as_plain_ints(self, "chunk_size", "retries", "seed", "max_in_flight")
        if self.checkpoint is not None:
            path: Any = os.fspath(self.checkpoint) if hasattr(type(self.checkpoint), "__fspath__") else self.checkpoint
            if not isinstance(path, str) or not path or "\0" in path:
                raise OptionsError("checkpoint", self.checkpoint, "the path of a file, or None (nothing is kept)")
            object.__setattr__(self, "checkpoint", path)
        if not isinstance(self.profile, bool):
            raise OptionsError("profile", self.profile, "True or False")
        if self.profile and importlib.util.find_spec("pyinstrument") is None:
            raise OptionsError("profile", True, "False until pyinstrument is there: pip install 'nbpar[profile]'")


@functools.lru_cache(maxsize=64, typed=True)
def _checked(*values: Any) -> JobOptions:
    return JobOptions(**dict(zip(JobOptions.__slots__, values, strict=True)))


def job_options(  # noqa: PLR0917  # the cache takes them by position
    chunk_size: int | None,
    timeout: float | None,
    retries: int,
    on_error: OnError,
    seed: int | None,
    progress: Progress,
    name: str | None,
    max_in_flight: int | None,
    checkpoint: str | os.PathLike[str] | None,
    profile: bool,
) -> JobOptions:
    """:class:`JobOptions`, checked once for equal values: a map in a loop would spend a tenth of its time on that."""
    values: Any = chunk_size, timeout, retries, on_error, seed, progress, name, max_in_flight, checkpoint, profile
    values += None, None
    try:
        return _checked(*values)
    except TypeError:  # an array or a list: not allowed, and not hashable
        return JobOptions(**dict(zip(JobOptions.__slots__, values, strict=True)))


class _Environment(dict[str, str]):
    """Variables for the workers. They may be secrets, so no repr and no verbose traceback shows them."""

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


def environment(env: Any) -> _Environment | None:
    """`env` checked, as a mapping that does not show its values.

    Raises
    ------
    OptionsError
        When it is none, or the system has no such variables; it does not show them either.

    Examples
    --------
    >>> environment({"TOKEN": "secret"})
    <1 variables>
    """
    __tracebackhide__ = True  # IPython's verbose tracebacks show the values of all names
    if env is None or type(env) is _Environment:
        return env
    named = "a mapping of strings to strings"
    if not isinstance(env, Mapping):
        raise OptionsError("env", f"<{type(env).__name__}>", named)
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise OptionsError("env", f"<entry {name!r}>", named)
        if not name or "=" in name or "\0" in name or not _is_encodable(name):
            raise OptionsError("env", f"<entry {name!r}>", "names that are not empty, without '=' and null characters")
        if "\0" in value or not _is_encodable(value):
            raise OptionsError("env", f"<entry {name!r}>", "values without null characters and lone surrogates")
    return _Environment(env)


def _is_encodable(text: str) -> bool:
    __tracebackhide__ = True
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Options of a pool; :class:`nbpar.WorkerPool` describes them. ``None`` for `n_workers` is resolved here."""

    n_workers: int | None = None
    start_method: StartMethod = field(default_factory=default_start_method)
    worker_init: Callable[[], Any] | None = None
    worker_exit: Callable[[], Any] | None = None
    tasks_per_worker: int | None = None
    memory_limit: int | str | None = None
    cpu_ids: Sequence[int | Sequence[int]] | None = None
    threads_per_worker: int | Literal["auto"] = "auto"
    serializer: Serializer = "auto"
    env: Mapping[str, str] | None = field(default=None, repr=False)
    idle_timeout: float | None = None
    keep_globals: bool = False

    def __post_init__(self) -> None:
        _whole("n_workers", self.n_workers, least=1, none="the CPUs this process may use")
        _one_of("start_method", self.start_method, get_args(StartMethod))
        if sys.platform == "win32" and self.start_method in ("fork", "forkserver"):
            raise OptionsError("start_method", self.start_method, "'spawn', 'threads' or 'serial' on Windows")
        for option in ("worker_init", "worker_exit"):
            value = getattr(self, option)
            if value is not None and not callable(value):
                raise OptionsError(option, value, "a function without arguments, or None")
        _whole("tasks_per_worker", self.tasks_per_worker, least=1, none="no limit")
        if self.threads_per_worker != "auto":
            _whole("threads_per_worker", self.threads_per_worker, least=1, none=None)
        _one_of("serializer", self.serializer, get_args(Serializer))
        _seconds("idle_timeout", self.idle_timeout, none="workers stay")
        if not isinstance(self.keep_globals, bool):
            raise OptionsError("keep_globals", self.keep_globals, "True or False")
        _as_plain_ints(self, "n_workers", "tasks_per_worker", "threads_per_worker")
        if self.n_workers is None:
            object.__setattr__(self, "n_workers", 1 if self.start_method == "serial" else usable_cpus())
        if self.start_method == "serial" and self.n_workers != 1:
            raise OptionsError("n_workers", self.n_workers, "1 or None with start_method='serial'")
        self._check_memory_limit()
        self._check_env()
        self._check_cpu_ids()

    def _check_memory_limit(self) -> None:
        value: Any = self.memory_limit
        if value is None:
            return
        if self.start_method in ("threads", "serial"):
            reason = f"None with start_method={self.start_method!r}: workers have no memory of their own there"
            raise OptionsError("memory_limit", value, reason)
        n_bytes = None
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                n_bytes = parse_size(value)
        elif isinstance(value, float) and value.is_integer():  # 2e9
            n_bytes = int(value)
        elif hasattr(value, "__index__") and not isinstance(value, bool):
            n_bytes = operator.index(value)
        if n_bytes is None or n_bytes < LEAST_MEMORY_BYTES:
            raise OptionsError(
                "memory_limit",
                value,
                "bytes as a whole number or a size such as '2GB' or '1.5 GiB', 64 MB or more for each worker, or None "
                "(no limit)",
            )
        object.__setattr__(self, "memory_limit", n_bytes)

    def _check_env(self) -> None:
        env: Any = self.env  # what came may be anything, whatever the annotation says
        if env is None:
            return
        if self.start_method in ("threads", "serial"):
            raise OptionsError("env", "...", f"None with start_method={self.start_method!r}: there is one process only")
        object.__setattr__(self, "env", environment(env))

    def _check_cpu_ids(self) -> None:
        cpu_ids: Any = self.cpu_ids
        if cpu_ids is None:
            return
        if self.start_method in ("threads", "serial") or not hasattr(os, "sched_setaffinity"):
            raise OptionsError("cpu_ids", cpu_ids, "None unless workers are processes on Linux")
        allowed = os.sched_getaffinity(0)
        named = f"one CPU, or a list of CPUs, for each of the {self.n_workers} workers, out of {sorted(allowed)}"
        if isinstance(cpu_ids, str) or not isinstance(cpu_ids, Sequence):
            raise OptionsError("cpu_ids", cpu_ids, named)
        if len(cpu_ids) != self.n_workers:
            raise OptionsError("cpu_ids", cpu_ids, named)
        for one in cpu_ids:
            if isinstance(one, str) or not isinstance(one, int | Sequence):
                raise OptionsError("cpu_ids", cpu_ids, named)
            cpus = [one] if isinstance(one, int) else list(one)
            if not cpus or not allowed.issuperset(cpus):
                raise OptionsError("cpu_ids", cpu_ids, named)

    @property
    def count(self) -> int:
        """`n_workers` as the number it was resolved to."""
        assert self.n_workers is not None
        return self.n_workers

    @property
    def memory_limit_bytes(self) -> int | None:
        """`memory_limit` as the number it was resolved to."""
        assert not isinstance(self.memory_limit, str)
        return self.memory_limit

    @property
    def threads(self) -> int:
        """BLAS/OpenMP threads of one worker: the cores shared out, at least one."""
        if self.threads_per_worker == "auto":
            return max(1, usable_cpus() // self.count)
        return self.threads_per_worker


def _whole(option: str, value: object, *, least: int, none: str | None = None) -> None:
    """Check for an ``int`` (numpy integers pass) of at least `least`; None passes when `none` says what it means."""
    if value is None and none is not None:
        return
    allowed = f"a whole number, {least} or more" + (f", or None ({none})" if none else "")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise OptionsError(option, value, allowed)
    if value.__index__() < least:
        raise OptionsError(option, value, allowed)


def _as_plain_ints(options: object, *names: str) -> None:
    """Turn numpy's integers into Python's, which do not overflow."""
    for name in names:
        value = getattr(options, name)
        if hasattr(value, "__index__"):
            object.__setattr__(options, name, operator.index(value))


def _seconds(option: str, value: object, *, none: str) -> None:
    if value is None:
        return
    allowed = f"seconds as a number above 0, or None ({none})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionsError(option, value, allowed)
    if not (value > 0 and math.isfinite(value)):
        raise OptionsError(option, value, allowed)


def _one_of(option: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise OptionsError(option, value, ", ".join(repr(choice) for choice in choices))
