"""What the system says of a process: its own memory, its CPU time, the group that limits it, who was killed and why.

Numbers read, nothing decided. Used by :mod:`nbpar.backends.memory` and :mod:`nbpar.usage` in the kernel and by
:mod:`nbpar.worker.main`. On Linux it comes from ``/proc`` and the files of the control groups, version 1 and 2;
elsewhere psutil is asked, and there are no groups and no counts.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Group",
    "KillCounter",
    "Reading",
    "Runnable",
    "group_of",
    "is_exiting",
    "numbers_in",
    "private_bytes",
    "read_runnable",
    "read_usage",
]

_PROC = Path("/proc")


# --- a process --------------------------------------------------------------------------------------------------------


def private_bytes(pid: int) -> int | None:
    """Memory that is a process's own: without the pages of files, arenas and shared objects. 11 us on Linux.

    Pages that it shares with a process that it was forked from count, and what was swapped out of it does not.

    Parameters
    ----------
    pid : int
        A process of this user.

    Returns
    -------
    int or None
        None for a process that has ended.

    Examples
    --------
    >>> import os
    >>> before = private_bytes(os.getpid())
    >>> text = b"x" * 50_000_000
    >>> private_bytes(os.getpid()) - before > 40_000_000
    True
    """
    if sys.platform != "linux":
        return _asked_of_psutil(pid)
    try:
        _size, resident, shared, *_ = _read(f"/proc/{pid}/statm").split()
    except (OSError, ValueError):  # gone, or about to be
        return None
    return (int(resident) - int(shared)) * _page_bytes()


@functools.cache
def _page_bytes() -> int:
    import resource

    return resource.getpagesize()


def _asked_of_psutil(pid: int) -> int | None:
    import psutil

    try:
        told: Any = psutil.Process(pid).memory_info()
    except psutil.Error:
        return None
    return int(getattr(told, "private", told.rss))  # macOS tells of no process what is its own


class Reading(NamedTuple):
    """What a process holds, and the CPU time that it has used so far.

    `other_cpu_s` is the part of it that its threads beside the main one have used; 0 where the system does not tell.
    """

    memory_bytes: int
    cpu_s: float
    other_cpu_s: float


def read_usage(pid: int) -> Reading | None:
    """What a process of this user uses; None for one that has ended. 25 us on Linux.

    Examples
    --------
    >>> import os
    >>> reading = read_usage(os.getpid())
    >>> reading.memory_bytes > 1_000_000, reading.cpu_s > 0.01
    (True, True)
    """
    if sys.platform != "linux":
        return _usage_from_psutil(pid)
    try:
        after_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (OSError, ValueError):  # gone, or about to be
        return None
    memory_bytes = private_bytes(pid)
    if after_name[0] in (b"Z", b"X") or memory_bytes is None:
        return None
    cpu_s = (int(after_name[11]) + int(after_name[12])) / _ticks_per_s()
    try:
        main_s = int(_read(f"/proc/{pid}/schedstat").split()[0]) / 1e9
    except (OSError, ValueError, IndexError):  # a system that was built without it
        main_s = cpu_s
    return Reading(memory_bytes, cpu_s, max(0.0, cpu_s - main_s))


class Runnable(NamedTuple):
    """Seconds that a thread has run, and waited for a CPU that others had; how many times it stopped by itself.

    It stops to sleep, or to wait for a lock such as the GIL.
    """

    ran_s: float
    waited_s: float
    n_stops: int


def read_runnable(thread_id: int) -> Runnable | None:
    """Of a thread of this process; None for one that has ended, and where the system does not tell."""
    try:
        ran_ns, waited_ns, *_ = _read(f"/proc/self/task/{thread_id}/schedstat").split()
        status = _read(f"/proc/self/task/{thread_id}/status").rpartition(b"\nvoluntary_ctxt_switches:")[2]
        return Runnable(int(ran_ns) / 1e9, int(waited_ns) / 1e9, int(status.split()[0]))
    except (OSError, ValueError, IndexError):  # it has ended; not on this system
        return None


def _read(path: str) -> bytes:
    """A small file; half the time of `open`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


@functools.cache
def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _usage_from_psutil(pid: int) -> Reading | None:
    import psutil

    try:
        process = psutil.Process(pid)
        times, memory_bytes = process.cpu_times(), _asked_of_psutil(pid)
    except psutil.Error:
        return None
    return None if memory_bytes is None else Reading(memory_bytes, times.user + times.system, 0.0)


_PF_EXITING = 0x4  # include/linux/sched.h


def is_exiting(pid: int) -> bool:
    """Whether a process is ending, by itself or by a signal: it has not only closed a descriptor.

    Where the system does not tell, it counts as ending.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return after_name[0] in (b"Z", b"X") or bool(int(after_name[6]) & _PF_EXITING)


# --- its group --------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """A control group that counts the memory of its processes.

    Attributes
    ----------
    folder : Path
        Where its files are.
    top : Path
        The outermost folder that can be seen from here.
    version : int
        1 or 2, which name their files differently.
    """

    folder: Path
    top: Path
    version: int


def group_of(pid: int | str, *, root: Path = Path("/sys/fs/cgroup"), proc: Path = _PROC) -> Group | None:
    """The innermost group of a process; None where memory is not counted by groups, or they cannot be seen.

    Parameters
    ----------
    pid : int or "self"
    root, proc : Path
        Where the system shows its groups and processes.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in sorted(lines, reverse=True):  # version 2 is number 0, and comes last: it may be there without memory
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            top, version = root, 2
        elif "memory" in controllers.split(","):
            top, version = root / "memory", 1
        else:
            continue
        # A container sees its own group as the top, and may be told a path from outside.
        inner = top / path.lstrip("/")
        folder = inner if inner.is_dir() else top
        if (folder / _KILLS[version]).exists() or (folder / "memory.max").exists():
            return Group(folder, top, version)
    return None


# --- who was killed ---------------------------------------------------------------------------------------------------

_KILLS = {1: "memory.oom_control", 2: "memory.events"}


class KillCounter:
    """Counts the processes that the system has killed for want of memory, where a worker's death would be counted.

    That is the worker's group; where there is none, the whole machine.

    Parameters
    ----------
    group : Group, optional
        See :func:`group_of`.
    """

    def __init__(self, group: Group | None, *, proc: Path = _PROC) -> None:
        self.file = proc / "vmstat"
        if group is not None and "oom_kill" in numbers_in(group.folder / _KILLS[group.version]):
            self.file = group.folder / _KILLS[group.version]

    def read(self) -> int | None:
        """How many by now; None where the system does not tell."""
        return numbers_in(self.file).get("oom_kill")


def numbers_in(file: Path) -> dict[str, int]:
    """A file of names and numbers; empty when it cannot be read."""
    found: dict[str, int] = {}
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0].rstrip(b":").decode("ascii", "replace")] = int(words[1])
    return found
