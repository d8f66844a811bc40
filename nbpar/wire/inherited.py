"""What processes have in common by multiprocessing's means: managers' proxies, locks, queues, pipes, shared values.

They refuse to be pickled but for a process that is just being started, and a pool's workers run already. Here they are
pickled as for such a process, and what that process would inherit is looked up instead: a semaphore by its name, a
descriptor (a pipe's, or that of shared memory) in the ``/proc`` of the process that has it. So they may come as
arguments, in a closure or in `worker_init`, as long as the kernel holds them.

What cannot travel is refused with what to use instead: locks that were made to be forked have no name, and a pipe with
two directions is a socket. Used by :mod:`nbpar.wire.special`, for multiprocessing and for multiprocess alike; the
functions `make_proxy` and the class `PassedDescriptor` are named inside pickles.
"""

from __future__ import annotations

import os
import pickle
import stat
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["PassedDescriptor", "make_proxy", "reducer_of_inherited"]

Reducer = Callable[[Any, Any], Any]

_PACKAGES = ("multiprocessing", "multiprocess")

_BY_STATE = frozenset({"queues.Queue", "queues.SimpleQueue", "sharedctypes.SynchronizedBase", "synchronize.Condition"})
"""Classes whose own `__reduce__` or `__getstate__` serves."""

_BY_TABLE = frozenset({"connection", "heap", "sharedctypes"})
"""Modules whose reducers are in multiprocessing's table."""

_FORKED = (
    "multiprocessing made it for processes that are forked, and others cannot open it; make it by "
    "multiprocessing.get_context('spawn'), by nbpar.interop.multiprocessing, or by a Manager()"
)
_TWO_WAY = (
    "it is one end of a two-way Pipe(), which is a socket; use Pipe(duplex=False), a Queue() or a Manager().Queue()"
)
_NO_PROC = "a pipe or shared memory of multiprocessing can be opened by workers on Linux only; use a Manager()"


def reducer_of_inherited(kind: type) -> Reducer | None:
    """The reducer for objects of a type, or None where it is none of multiprocessing's."""
    for package in _PACKAGES:
        reduction = sys.modules.get(f"{package}.reduction")
        if reduction is None or sys.platform == "win32":  # there handles are passed in ways of their own
            continue
        own = reduction.ForkingPickler._extra_reducers.get(kind)
        if own is not None:
            if own.__module__.removeprefix(f"{package}.") in _BY_TABLE:
                return lambda _pickler, obj: _reduce_by(package, own, obj)
            continue
        for base in kind.__mro__:
            match base.__module__.removeprefix(f"{package}.") + "." + base.__name__:
                case "managers.BaseProxy":
                    return lambda pickler, obj: _reduce_proxy(package, pickler, obj)
                case "synchronize.SemLock":
                    return lambda _pickler, obj: _reduce_lock(package, obj)
                case name if name in _BY_STATE:
                    return lambda _pickler, obj: _reduce_by(package, _own_way, obj)
    return None


def _own_way(obj: Any) -> Any:
    return obj.__reduce_ex__(5)


def _reduce_by(package: str, reduce: Callable[[Any], Any], obj: Any) -> Any:
    """Have an object believe that a process is being started."""
    if reduce is not _own_way and reduce.__name__ == "reduce_ctype" and not hasattr(obj, "_wrapper"):
        return NotImplemented  # an ordinary ctypes object: its type is known from one in shared memory
    context = sys.modules[f"{package}.context"]
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Starting)
    try:
        return reduce(obj)
    finally:
        context.set_spawning_popen(before)


def _reduce_lock(package: str, lock: Any) -> Any:
    if lock._semlock.name is None:
        raise pickle.PicklingError(_FORKED)
    return _reduce_by(package, _own_way, lock)


def _reduce_proxy(package: str, pickler: Any, proxy: Any) -> Any:
    rebuild, (*args, options) = _reduce_by(package, _own_way, proxy)
    if "authkey" in options:  # as its class it refuses to be pickled, but for a process that is being started
        options["authkey"] = bytes(options["authkey"])
    # What a worker is given by the manager itself, as an element of a list, comes without a key.
    own = None if pickler.in_worker else bytes(sys.modules[f"{package}.process"].current_process().authkey)
    return make_proxy, (package, own, rebuild, (*args, options))


def make_proxy(package: str, authkey: bytes | None, rebuild: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A manager's proxy, in a process that then has the key of the one that sent it, as a child would."""
    if authkey is not None:
        __import__(f"{package}.process")
        sys.modules[f"{package}.process"].current_process().authkey = authkey
    return rebuild(*args)


class PassedDescriptor:
    """A descriptor that another process of this machine opens anew; it must be open here until then.

    Parameters
    ----------
    fd : int

    Raises
    ------
    pickle.PicklingError
        For a socket, and where there is no ``/proc``.
    """

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISSOCK(status.st_mode):
            raise pickle.PicklingError(_TWO_WAY)
        if sys.platform != "linux":
            raise pickle.PicklingError(_NO_PROC)
        import fcntl  # not on every system

        self._path = f"/proc/{os.getpid()}/fd/{fd}"
        self._mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        self._identity = status.st_dev, status.st_ino

    def detach(self) -> int:
        """A descriptor of this process's own.

        Raises
        ------
        OSError
            When it was closed there meanwhile.
        """
        fd = os.open(self._path, self._mode | os.O_CLOEXEC)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(fd)
            raise OSError("a pipe or shared memory of the notebook's was closed before a task could open it")
        return fd


class _Starting:
    """Stands for the process that is being started."""

    DupFd = PassedDescriptor

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        """What the process would have it by."""
        return fd
