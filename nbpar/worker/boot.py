"""A worker's first steps in its process: who ends it, which CPUs and threads it may use, what environment it sees.

Called once by :mod:`nbpar.worker.main` before anything of the user's runs there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "THREAD_VARIABLES",
    "WorkerSetup",
    "end_with_parent",
    "keep_freed_memory",
    "use_cpus",
    "use_environment",
    "use_threads",
]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What BLAS and OpenMP libraries read when they are loaded."""

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ALLOCATOR_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker is told when its process starts.

    Attributes
    ----------
    parent_pid : int
        The kernel, or the fork server: whose end must end the worker.
    close_fds : tuple of int
        Descriptors of the kernel that a forked worker must not keep open.
    worker_init, worker_exit : tuple or None
        Functions by value: payload and buffers.
    awaits_shared : bool
        Shared objects that these refer to come before everything else; a SHARE of none ends them.
    memory_limit_bytes : int or None
        A worker that holds more after a task says so.
    keep_globals : bool
        See :mod:`nbpar.wire.homes`.
    """

    worker_id: int
    start_method: str
    kernel_pid: int
    serializer: str
    threads: int
    environ: Mapping[str, str] = field(repr=False)
    cwd: str = ""
    sys_path: tuple[str, ...] = ()
    cpus: Sequence[int] = ()
    close_fds: tuple[int, ...] = ()
    worker_init: tuple[bytes, list[bytes]] | None = None
    worker_exit: tuple[bytes, list[bytes]] | None = None
    awaits_shared: bool = False
    memory_limit_bytes: int | None = None
    keep_globals: bool = False


def end_with_parent(setup: WorkerSetup) -> None:
    """See to it that this process ends when the kernel does, even inside a C call that holds the GIL.

    On Linux the kernel's death signal does it. It follows the *parent*: under forkserver that is the server, which ends
    with the kernel. Elsewhere, and where the kernel was gone before this ran, the closed socket ends the worker as soon
    as it returns to its loop.
    """
    parent_pid = os.getppid() if setup.start_method == "forkserver" else setup.kernel_pid
    if setup.start_method == "spawn" and sys.platform != "win32":
        from multiprocess.resource_tracker import _resource_tracker

        if _resource_tracker._fd is not None:  # a stand-in (see nbpar.backends.start); the user's own needs a real one
            os.close(_resource_tracker._fd)
        _resource_tracker._fd = _resource_tracker._pid = None
        # All that a new interpreter has open came from the kernel, for it and not for programs that tasks start.
        for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names are all that is needed
            with contextlib.suppress(OSError):  # the one that lists the folder is closed by now
                os.set_inheritable(int(name), int(name) <= 2)
    for fd in setup.close_fds:
        if fd >= 0:  # that of a worker which is being buried was closed before the fork
            os.close(fd)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)
    elif sys.platform != "win32":
        threading.Thread(target=_watch_parent, args=(os.getppid(),), name="nbpar-parent", daemon=True).start()


def _watch_parent(parent_pid: int) -> None:
    """End the process once it has another parent; macOS has no death signal."""
    wake = threading.Event()
    while os.getppid() == parent_pid:
        wake.wait(0.5)
    os._exit(1)


def use_environment(setup: WorkerSetup) -> None:
    """Take over the kernel's environment, folder and import path as of now, and fresh random state."""
    os.environ.update(setup.environ)
    for name in set(os.environ) - set(setup.environ):
        del os.environ[name]
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(setup.threads))
    if setup.start_method != "fork":
        sys.path[:] = setup.sys_path
    random.seed()
    if "numpy" in sys.modules:  # its global generator was copied by the fork: every worker would draw the same
        import numpy as np

        np.random.seed()  # noqa: NPY002  # the global generator is the one that was copied


def use_threads(n_threads: int) -> None:
    """Limit BLAS and OpenMP libraries that are loaded already."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=n_threads)


def use_cpus(cpus: Sequence[int]) -> None:
    """Pin this process."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def keep_freed_memory() -> None:
    """Have the C allocator keep what tasks free, for the next task: fresh pages cost more than most work on arrays.

    glibc maps an array anew each time and adapts as it sees large ones freed, up to these two values. A task that makes
    a new array of 2 MB takes a third of the time (113 to 35 ms for 100 of them on 2 workers, without processes 98).
    A user's own settings stand.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt") and not any(name in os.environ for name in _ALLOCATOR_VARIABLES):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
