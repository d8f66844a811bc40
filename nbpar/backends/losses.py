"""A worker's end in words, and the error of the task that was lost with it.

Used by :mod:`nbpar.backends.controller`.
"""

from __future__ import annotations

import os
import signal
import time

from nbpar.backends.base import Gone, JobSpec
from nbpar.engine.instructions import Loss
from nbpar.engine.memory import MemoryStop
from nbpar.engine.quarantine import MAX_DEATHS
from nbpar.errors import TaskError, TaskMemoryError, TaskTimeoutError, WorkerDiedError
from nbpar.sizes import in_words

__all__ = ["describe_end", "describe_exit", "loss_error", "lost_time"]


def lost_time(event: Gone) -> tuple[float, float]:
    """When the lost task began and ended, as far as the board says."""
    now_s = time.perf_counter()
    return (event.running.since_s if event.running is not None else now_s), now_s


def loss_error(
    loss: Loss, event: Gone, job: JobSpec, how: str, stop: MemoryStop | None, *, n_deaths: int = 0
) -> TaskError:
    """The outcome of a task whose worker was lost while it ran.

    Parameters
    ----------
    how : str
        What :func:`describe_end` says of that worker.
    stop : MemoryStop or None
        Why nbpar has stopped it, if it was for its memory.
    n_deaths : int
        Workers that have died of it, this one included.
    """
    if loss == "timeout":
        return _timeout_error(event, job)
    words = f"; it wrote: {event.last_words}" if event.last_words else ""
    how += _told_before(n_deaths)
    error: WorkerDiedError
    if loss == "memory" and stop is not None:
        error = TaskMemoryError(how)
        error.used_bytes = stop.used_bytes
    elif loss == "function":
        error = WorkerDiedError(f"no worker survives loading the function; the last one (pid {event.pid}) {how}{words}")
    else:
        error = WorkerDiedError(f"the worker that ran it (pid {event.pid}) {how}{words}")
    error.exit_code, error.pid, error.n_deaths = event.exit_code, event.pid, max(n_deaths, 1)
    return error


def _timeout_error(event: Gone, job: JobSpec) -> TaskTimeoutError:
    running, limit = event.running, f"ran longer than timeout={job.options.timeout:g} s"
    if running is not None and running.part:
        limit = f"its {running.part} ran longer than {running.limit_s:g} s"
    if event.pid == os.getpid():
        error = TaskTimeoutError(f"{limit}; a thread cannot be stopped while it is in C code, so it may still run")
    else:
        error = TaskTimeoutError(f"{limit} and was stopped")
    error.part = "" if running is None else running.part
    return error


def _told_before(n_deaths: int) -> str:
    """What a task has done to other workers before, in words that follow how its last one ended."""
    if n_deaths < 2:
        return ""
    if n_deaths < MAX_DEATHS:
        return f"; it killed {n_deaths} workers"
    return f"; it ran alone (quarantined), but killed {n_deaths} workers; not tried again"


def describe_end(
    event: Gone, stop: MemoryStop | None, limit_bytes: int | None, *, by_nbpar: bool, out_of_memory: bool | None
) -> str:
    """How a worker ended and who did it, in words that follow "the worker".

    Parameters
    ----------
    stop : MemoryStop or None
        Why nbpar has stopped it, if it was for its memory.
    limit_bytes : int or None
        The pool's `memory_limit`.
    by_nbpar : bool
        Whether nbpar has sent it a signal for another reason.
    out_of_memory : bool or None
        Whether the system killed it for want of memory; None when it does not tell.
    """
    if stop is not None:
        return f"was stopped by nbpar at {in_words(stop.used_bytes)}: {_why(stop, limit_bytes)}"
    if event.is_cut_off:
        return "closed its connection to nbpar and was stopped"
    if by_nbpar and event.exit_code is not None and event.exit_code < 0:
        return "was stopped by nbpar"
    return describe_exit(event.exit_code, out_of_memory=out_of_memory)


def _why(stop: MemoryStop, limit_bytes: int | None) -> str:
    room = stop.room
    if room is None:
        return f"memory_limit is {in_words(limit_bytes or 0)}"
    left = f"{in_words(room.available_bytes)} of {in_words(room.total_bytes)} left"
    return f"{room.name} had {left}, and this was the largest worker"


def describe_exit(exit_code: int | None, *, out_of_memory: bool | None = None) -> str:
    """How a process ended, in words that follow "the worker".

    Examples
    --------
    >>> describe_exit(-9), describe_exit(-9, out_of_memory=False)
    ('was killed by SIGKILL (out of memory, or killed by hand)', 'was killed from outside (SIGKILL)')
    """
    if exit_code is None:
        return "ended in an unknown way"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL" and out_of_memory is None:
        return "was killed by SIGKILL (out of memory, or killed by hand)"
    hint = {
        "SIGKILL": f"was killed {'by the system: out of memory' if out_of_memory else 'from outside'} (SIGKILL)",
        "SIGSEGV": "crashed with a segmentation fault (SIGSEGV)",
        "SIGABRT": "aborted (SIGABRT)",
    }
    return hint.get(name, f"was ended by {name}")
