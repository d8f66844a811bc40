"""A worker's end in words, and the error of the task that was lost with it.

Used by :mod:`nbpar.backends.dispatcher`.
"""

from __future__ import annotations

import os
import signal
import time

from nbpar.backends.base import Gone, JobSpec
from nbpar.engine.instructions import Loss
from nbpar.engine.quarantine import MAX_DEATHS
from nbpar.errors import TaskError, TaskTimeoutError, WorkerDiedError

__all__ = ["describe_exit", "loss_error", "lost_time"]


def lost_time(event: Gone) -> tuple[float, float]:
    """When the lost task began and ended, as far as the board says."""
    now_s = time.perf_counter()
    return (event.running.since_s if event.running is not None else now_s), now_s


def loss_error(loss: Loss, event: Gone, job: JobSpec, *, n_deaths: int = 0) -> TaskError:
    """The outcome of a task whose worker was lost while it ran.

    Parameters
    ----------
    n_deaths : int
        Workers that have died of it, this one included.
    """
    if loss == "timeout":
        return _timeout_error(event, job)
    words = f"; it wrote: {event.last_words}" if event.last_words else ""
    if loss == "function":
        how = describe_exit(event.exit_code)
        died = WorkerDiedError(f"no worker survives loading the function; the last one (pid {event.pid}) {how}{words}")
        died.exit_code, died.pid = event.exit_code, event.pid
        return died
    how = f"{describe_exit(event.exit_code)}{_told_before(n_deaths)}"
    error = WorkerDiedError(f"the worker that ran it (pid {event.pid}) {how}{words}")
    error.exit_code, error.pid, error.n_deaths = event.exit_code, event.pid, max(n_deaths, 1)
    return error


def _timeout_error(event: Gone, job: JobSpec) -> TaskTimeoutError:
    limit = f"ran longer than timeout={job.options.timeout:g} s"
    if event.pid == os.getpid():
        return TaskTimeoutError(f"{limit}; a thread cannot be stopped while it is in C code, so it may still run")
    return TaskTimeoutError(f"{limit} and was stopped")


def _told_before(n_deaths: int) -> str:
    """What a task has done to other workers before, in words that follow how its last one ended."""
    if n_deaths < 2:
        return ""
    if n_deaths < MAX_DEATHS:
        return f"; it killed {n_deaths} workers"
    return f"; it ran alone (quarantined), but killed {n_deaths} workers; not tried again"


def describe_exit(exit_code: int | None) -> str:
    """How a process ended, in words that follow "the worker"."""
    if exit_code is None:
        return "ended in an unknown way"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = {
        "SIGKILL": "killed by SIGKILL (out of memory, or killed by hand)",
        "SIGSEGV": "crashed with a segmentation fault (SIGSEGV)",
        "SIGABRT": "aborted (SIGABRT)",
    }
    return "was " + hint[name] if name == "SIGKILL" else hint.get(name, f"was ended by {name}")
