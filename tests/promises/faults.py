"""Ways in which code fails, and objects that fail at one place of their journey. Used by the crash matrix.

Everything here is found by workers under its name, so that nothing but the fault itself travels by value.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nbpar.wire.channel import Message, WorkerChannel
from nbpar.wire.messages import Kind

__all__ = [
    "DEATHS",
    "FAULTS",
    "LARGE",
    "PickleFault",
    "PickleFaultError",
    "UnpickleFault",
    "UnpickleFaultError",
    "Way",
    "act_when_idle",
    "fails_once",
    "sum_of",
    "tear_next_arguments",
    "tear_next_results",
]

LARGE = 3 << 20

_SPARE_BYTES = 24 << 20

_limits_lock = threading.Lock()


# --- ways to fail -----------------------------------------------------------------------------------------------------


def kill() -> None:
    """As the system does when memory is short, or somebody by hand."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    """As a batch system does first."""
    os.kill(os.getpid(), signal.SIGTERM)


def segfault() -> None:
    """As broken C code does."""
    ctypes.string_at(0)


def abort() -> None:
    """As C++ does with an exception that nobody catches."""
    os.abort()


def exit_0() -> None:
    """As a process that thinks all is well."""
    os._exit(0)


def exit_3() -> None:
    """As a process that knows it is not."""
    os._exit(3)


def exhaust_memory() -> None:
    """Take memory up to a limit, to the last page, and still hold it when the error is raised.

    The limit stays: a worker has to tell of its error, and to go on, with no more memory than this.
    """
    import resource

    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + _SPARE_BYTES, most))
    hoard: list[Any] = []
    with contextlib.suppress(MemoryError):
        while True:
            hoard.append(bytearray(1 << 20))
    while True:
        hoard.append(bytearray(1 << 14))


def exit_by_error() -> None:
    """``sys.exit`` somewhere deep in a library."""
    sys.exit(5)


def interrupt() -> None:
    """Not Ctrl-C: code that raises what Ctrl-C does."""
    raise KeyboardInterrupt("raised by code")


def raise_base() -> None:
    """Not an ``Exception``."""
    raise BaseException("at the very base")


def stop() -> None:
    """What loops take for their end."""
    raise StopIteration("out of a generator")


def recurse() -> None:
    """Without an end."""
    recurse()


@dataclass(frozen=True)
class Way:
    """A way to fail.

    Attributes
    ----------
    act : callable
        Fails in that way; to be called by :meth:`fail`.
    exit_code : int or None
        How the process ends; None for a way that raises `error`.
    words : str
        What an error has to say of it, as a pattern.
    """

    name: str
    act: Callable[[], None]
    words: str
    exit_code: int | None = None
    error: type[BaseException] | None = None
    kernel_pid: int = field(default_factory=os.getpid)

    @property
    def is_in_kernel(self) -> bool:
        """Whether this process is the one that runs the tests."""
        return os.getpid() == self.kernel_pid

    def fail(self) -> None:
        """Fail; where that is in the kernel, it gets its limits back."""
        if self.error is not MemoryError or not self.is_in_kernel:
            self.act()
            return
        import resource

        with _limits_lock:  # two workers may be threads of it
            before = resource.getrlimit(resource.RLIMIT_AS)
            try:
                self.act()
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)

    def __repr__(self) -> str:
        return f"<{self.name}>"


DEATHS = (
    Way("kill", kill, "SIGKILL", exit_code=-signal.SIGKILL),
    Way("terminate", terminate, "SIGTERM", exit_code=-signal.SIGTERM),
    Way("segfault", segfault, "SIGSEGV", exit_code=-signal.SIGSEGV),
    Way("abort", abort, "SIGABRT", exit_code=-signal.SIGABRT),
    Way("exit-0", exit_0, "exit code 0", exit_code=0),
    Way("exit-3", exit_3, "exit code 3", exit_code=3),
)
"""The process ends."""

FAULTS = (
    Way("memory", exhaust_memory, "MemoryError", error=MemoryError),
    Way("sys.exit", exit_by_error, "SystemExit", error=SystemExit),
    Way("KeyboardInterrupt", interrupt, "KeyboardInterrupt", error=KeyboardInterrupt),
    Way("BaseException", raise_base, "BaseException", error=BaseException),
    Way("StopIteration", stop, "StopIteration", error=StopIteration),
    Way("RecursionError", recurse, "RecursionError|nested too deeply", error=RecursionError),
)
"""An exception is raised, of the less usual kinds."""


# --- objects that fail on their way -----------------------------------------------------------------------------------


class PickleFault:
    """Fails when it is pickled."""

    def __init__(self, way: Way) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        self.way.fail()
        raise AssertionError("it did not fail")

    def __repr__(self) -> str:
        return f"PickleFault({self.way.name})"


class UnpickleFault:
    """Fails when it is unpickled, in the kernel or in workers."""

    def __init__(self, way: Way, *, in_kernel: bool) -> None:
        self.way = way
        self.in_kernel = in_kernel

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self.way, self.in_kernel)

    def __repr__(self) -> str:
        return f"UnpickleFault({self.way.name})"


def _unpickle(kind: Any, way: Way, in_kernel: bool) -> Any:
    if in_kernel == way.is_in_kernel:
        way.fail()
    return kind(way, in_kernel=in_kernel)


class PickleFaultError(Exception):
    """Fails when it is pickled."""

    def __init__(self, way: Way) -> None:
        super().__init__(f"raised, to fail by {way.name}")
        self.way = way

    def __reduce__(self) -> Any:
        self.way.fail()
        raise AssertionError("it did not fail")


class UnpickleFaultError(Exception):
    """Fails when it is unpickled, in the kernel or in workers, which try that out before they send it."""

    def __init__(self, way: Way, *, in_kernel: bool) -> None:
        super().__init__(f"raised, to fail by {way.name}")
        self.way = way
        self.in_kernel = in_kernel

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self.way, self.in_kernel)


def fails_once(way: Way, is_mended: Path, log: Path) -> Callable[[], None]:
    """A hook that fails until a file is there; it leaves a line for each call."""

    def hook() -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if not is_mended.exists():
            way.fail()

    return hook


# --- faults between tasks ---------------------------------------------------------------------------------------------


def act_when_idle(way: Way, go: Path, over: Path) -> int:
    """A task that leaves a thread behind, which fails when it is told to; returns the worker's pid."""

    def wait() -> None:
        while not go.exists():
            time.sleep(0.002)
        thread = threading.Thread(target=way.fail, daemon=True)
        thread.start()
        thread.join()
        over.touch()

    threading.Thread(target=wait, daemon=True).start()
    return os.getpid()


def tear_next_results(way: Way, n_missing: int | None = None) -> None:
    """Have this worker fail when a part of its next results is sent: half, or all but some bytes."""
    send = WorkerChannel.send

    def send_a_part(self: WorkerChannel, message: Message) -> None:
        if message.kind != Kind.RESULTS:
            send(self, message)
            return
        data = b"".join(message.parts())
        self._socket.sendall(data[: len(data) // 2 if n_missing is None else -n_missing])
        WorkerChannel.send = send  # type: ignore[method-assign]  # what comes after it is nbpar's own doing
        way.fail()

    WorkerChannel.send = send_a_part  # type: ignore[method-assign]


def tear_next_arguments(way: Way, n_bytes: int) -> int:
    """Have this worker fail when it has received so many bytes of what comes next; returns its pid."""

    def receive_a_part(self: WorkerChannel) -> Message:
        left = n_bytes
        while left:
            left -= len(self._socket.recv(left))
        way.fail()
        raise AssertionError("it did not fail")

    WorkerChannel.receive = receive_a_part  # type: ignore[method-assign]
    return os.getpid()


def sum_of(item: bytes | np.ndarray[Any, Any]) -> int:
    """A small result of a large argument."""
    return int(item[0]) + int(item[-1])
