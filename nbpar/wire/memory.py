"""Anonymous memory: shared by descriptor, without a name, gone with the last process that holds it.

Owns how such memory is made on each system, written, mapped and given back. :mod:`nbpar.wire.arena` recycles blocks of
it for large buffers, :mod:`nbpar.wire.shared` keeps whole objects in it.

A file is sparse: it costs what has been written into it. It never shrinks, so a mapping of it is always backed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "Memory",
    "address_of",
    "address_space_bytes",
    "anonymous_file",
    "can_pass_memory",
    "return_freed_memory",
    "same_bytes",
    "usable_memory_bytes",
    "write_at",
]

_PIECE_BYTES = 4 << 20
"""Memory is copied in pieces of this size: between two, another thread may have the GIL."""

_PUNCH_BYTES = 64 << 20  # the same for giving back, which takes 0.14 ms a MB

# Up to Python 3.12 a mapping holds a descriptor of its own.
_MAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG)

_MAP_FIXED = 0x10  # on Linux and macOS; Python does not tell

_ZEROS = bytes(1 << 16)


def can_pass_memory() -> bool:
    """Whether descriptors can be sent to another process."""
    return sys.platform != "win32"


def anonymous_file(label: str, size_bytes: int) -> int:
    """Memory without a name, as a descriptor: nothing is left behind however the process ends.

    Parameters
    ----------
    label : str
        What ``/proc`` shows of it; not a name.
    size_bytes : int
        Its size, all zeros.

    Raises
    ------
    OSError
        When the system gives no descriptor or no room.
    """
    fd = _make_file(label)
    try:
        os.ftruncate(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_file(label: str) -> int:
    if hasattr(os, "memfd_create"):  # Linux: not limited by the size of /dev/shm, which is 64 MB in a container
        with contextlib.suppress(OSError):  # a sandbox without this call; no more descriptors is told below
            return os.memfd_create(label, os.MFD_CLOEXEC)
    with contextlib.suppress(ImportError, FileNotFoundError, PermissionError):  # not Windows; /dev/shm is there
        return _shared_memory()
    with tempfile.TemporaryFile(prefix="nbpar-") as file:
        return os.dup(file.fileno())


def _shared_memory() -> int:
    """POSIX shared memory whose name is gone before anybody else learns of it."""
    posix: Any = importlib.import_module("_posixshmem")  # untyped; what multiprocessing.shared_memory is made of

    name = f"/nbpar-{secrets.token_hex(8)}"  # macOS allows 31 characters
    fd: int = posix.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    posix.shm_unlink(name)
    return fd


def write_at(fd: int, offset: int, data: Any) -> None:
    """Write all of `data` to anonymous memory.

    By a call of the system: a new page costs a fifth of what its first touch through a mapping does, which zeroes it.

    Raises
    ------
    OSError
        No room left.
    """
    try:
        _write(fd, offset, data)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        data = memoryview(data).cast("B")
        with mmap.mmap(fd, offset + len(data)) as memory:  # macOS: shared memory can only be mapped
            memory[offset:] = data


def _write(fd: int, offset: int, data: Any, n_padding: int = 0) -> None:
    rest = memoryview(data).cast("B")
    while rest:  # a call writes at most 2 GB
        n_written = os.pwrite(fd, rest, offset)
        offset += n_written
        rest = rest[n_written:]
    while n_padding > 0:
        n_written = os.pwrite(fd, _ZEROS[:n_padding], offset)
        offset += n_written
        n_padding -= n_written


class Memory:
    """Anonymous memory, mapped whole.

    Parameters
    ----------
    fd : int
        Owned from now on.
    size_bytes : int
        Its size.

    Attributes
    ----------
    map : mmap.mmap
        Ends with the last view of it, not with :meth:`close`.

    Raises
    ------
    OSError
        When it cannot be mapped: no address space, no descriptors.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        try:
            self.map = mmap.mmap(fd, size_bytes, **_MAP_OPTIONS)
        except BaseException:
            os.close(fd)
            raise
        self._view = memoryview(self.map)
        self._can_write = True

    @classmethod
    def create(cls, label: str, size_bytes: int) -> Memory:
        """New memory.

        Raises
        ------
        OSError
            When there is none to be had.
        """
        try:
            return cls(anonymous_file(label, size_bytes), size_bytes)
        except (ValueError, OverflowError, MemoryError) as error:  # what mmap raises besides OSError
            raise OSError(str(error)) from error

    def copy_in(self, offset: int, data: memoryview) -> None:
        """Copy to pages that were mapped before: 12 GB/s, against 5 of a call of the system."""
        view = self._view
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            view[offset + start : offset + start + len(piece)] = piece

    def fill_in(self, offset: int, data: memoryview, n_padding: int) -> None:
        """Copy to pages that may be new; zeros up to the end of the last.

        Raises
        ------
        OSError
            No room left.
        """
        if self._can_write:
            try:
                _write(self.fd, offset, data, n_padding)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                self._can_write = False  # macOS: shared memory can only be mapped
            else:
                return
        self.copy_in(offset, data)

    def give_back(self, start: int, stop: int) -> bool:
        """Return pages to the system; they read as zeros afterwards. False where that is not possible."""
        advice = getattr(mmap, "MADV_REMOVE", None)
        if advice is None:
            return False
        try:
            for at in range(start, stop, _PUNCH_BYTES):
                self.map.madvise(advice, at, min(_PUNCH_BYTES, stop - at))
        except OSError:  # a file system without holes
            return False
        return True

    def make_private(self, start: int, stop: int) -> None:
        """Map pages anew, so that what this process, or one that it forks, writes there is its own.

        They must not be written through other mappings any more. Where the system has no room for another mapping they
        stay as they are.
        """
        libc = _libc()
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self.map, start))
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        libc.mmap(address, stop - start, protection, mmap.MAP_PRIVATE | _MAP_FIXED, self.fd, start)

    def close(self) -> None:
        """Let go of the descriptor; the mapping lives as long as views of it."""
        self._view = memoryview(b"")
        os.close(self.fd)


def return_freed_memory() -> None:
    """Return to the system what the C allocator holds and nobody uses."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def same_bytes(a: memoryview, b: memoryview) -> bool:
    """Whether two buffers of one length hold the same. Without the GIL, and ten times as fast as ``a == b``."""
    with _address(a) as address_a, _address(b) as address_b:
        return not _libc().memcmp(address_a, address_b, len(a))


def address_of(buffer: memoryview) -> int:
    """Where a buffer is at this moment."""
    with _address(buffer) as address:
        return address


@contextlib.contextmanager
def _address(buffer: memoryview) -> Iterator[int]:
    """Where a buffer is: ctypes tells it of writable ones only."""
    view = (ctypes.c_void_p * 16)()  # a Py_buffer, whose first word it is
    api = ctypes.pythonapi
    if api.PyObject_GetBuffer(ctypes.py_object(buffer), view, 0):  # it raises by itself
        raise BufferError
    try:
        yield view[0] or 0
    finally:
        api.PyBuffer_Release(view)


@functools.cache
def _libc() -> Any:
    libc: Any = ctypes.CDLL(None)
    libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
    return libc


def usable_memory_bytes() -> int:
    """Memory that this process may use at most: the machine's, or the limit of its container."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files():
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)


def address_space_bytes() -> int | None:
    """The limit of this process's address space (``ulimit -v``); None without one."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _limit_files() -> Iterator[Path]:
    """Files with the memory limits of this process's cgroups, outermost last."""
    root = Path("/sys/fs/cgroup")
    yield root / "memory" / "memory.limit_in_bytes"
    own = ""
    with contextlib.suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("0::/", 1)[1].splitlines()[0]
    folder = root / own
    for one in (folder, *folder.parents):
        yield one / "memory.max"
        if one == root:
            return
