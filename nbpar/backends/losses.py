"""A worker's end in words, and the error of the task that was lost with it.

Used by :mod:`nbpar.backends.dispatcher`.
"""

from __future__ import annotations

import signal
import time

from nbpar.backends.base import Gone, JobSpec
from nbpar.engine.instructions import Loss
from nbpar.errors import TaskError, TaskTimeoutError, WorkerDiedError

__all__ = ["describe_exit", "loss_error", "lost_time"]


def lost_time(event: Gone) -> tuple[float, float]:
    """When the lost task began and ended, as far as the board says."""
    now_s = time.perf_counter()
    return (event.running.since_s if event.running is not None else now_s), now_s


def loss_error(loss: Loss, event: Gone, job: JobSpec) -> TaskError:
    """The outcome of a task whose worker was lost while it ran."""
    if loss == "timeout":
        return TaskTimeoutError(f"ran longer than timeout={job.options.timeout:g} s and was stopped")
    words = f"; it wrote: {event.last_words}" if event.last_words else ""
    if loss == "function":
        how = describe_exit(event.exit_code)
        died = WorkerDiedError(f"no worker survives loading the function; the last one (pid {event.pid}) {how}{words}")
        died.exit_code, died.pid = event.exit_code, event.pid
        return died
    error = WorkerDiedError(f"the worker that ran it (pid {event.pid}) {describe_exit(event.exit_code)}{words}")
    error.exit_code, error.pid = event.exit_code, event.pid
    return error


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
