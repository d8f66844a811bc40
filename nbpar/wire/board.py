"""The board: one shared-memory page with a slot per worker, written with plain stores.

A worker writes what it runs, since when and how far into its own slot; the kernel reads it for progress, task timeouts
and the blame for a death, and writes which chunks to drop. No message per task. Each word has one writer; an aligned
8-byte store is atomic on the platforms Python runs on, and no two words need to be seen together.

The memory has no name, is freed with the last process that maps it, and needs no room in ``/dev/shm`` or on a disk.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import time
from collections.abc import Callable
from typing import Any, Literal

from nbpar.wire.memory import anonymous_file, can_pass_memory, write_at

__all__ = ["BOARD_WORDS", "PARTS", "PartName", "Slot", "make_board"]

BOARD_WORDS = 16
"""64-bit words in a slot: two cache lines, so that workers do not write into each other's."""

# Words of a slot; the first group is the worker's, the last the kernel's.
CHUNK, TASK, SINCE_NS, TRACK_DONE, TRACK_TOTAL, BLOCK, LIMIT_NS, PART = range(8)
DROP = 8  # and DROP + 1: a worker holds at most two chunks

_UNKNOWN_TOTAL = (1 << 64) - 1
_NO_LIMIT = (1 << 64) - 1

PartName = Literal["worker_init", "worker_exit"]
PARTS: tuple[PartName, ...] = ("worker_init", "worker_exit")
"""What of a task may be timed apart from the rest of it."""


class _Board(mmap.mmap):
    """Mapped memory that travels to a process that is being started, as its descriptor."""

    fd: int

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocess import reduction  # loaded already, where a process is being started

        return _map_board, (reduction.DupFd(self.fd), len(self))

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:  # bound here: at exit modules are gone first
        _close(self.fd)


def _map_board(passed: Any, n_bytes: int) -> mmap.mmap:
    fd = passed.detach()
    try:
        return mmap.mmap(fd, n_bytes)
    finally:
        os.close(fd)


def make_board(context: Any, n_workers: int) -> Any:
    """A board for `n_workers`, to be passed to :class:`Slot` here and, through a process's arguments, in workers.

    Raises
    ------
    OSError
        When the system gives no memory or no descriptor.
    """
    n_words = BOARD_WORDS * n_workers
    if not can_pass_memory():
        return context.RawArray(ctypes.c_uint64, n_words)
    n_bytes = 8 * n_words
    fd = anonymous_file("nbpar-board", n_bytes)
    try:
        # Where there is no room this is an error. The first store into the mapping would be the end of the process.
        write_at(fd, 0, bytes(n_bytes))
        board = _Board(fd, n_bytes)
    except BaseException:
        os.close(fd)
        raise
    board.fd = fd
    return board


class Slot:
    """One worker's words.

    Attributes
    ----------
    words : memoryview
        The raw words; the worker's hot loop stores into ``words[TASK]`` and ``words[BLOCK]`` itself.
    """

    __slots__ = ("words",)

    def __init__(self, board: Any, worker_id: int) -> None:
        start = worker_id * BOARD_WORDS
        self.words = memoryview(board).cast("B").cast("Q")[start : start + BOARD_WORDS]

    @classmethod
    def alone(cls) -> Slot:
        """A slot on a board of its own, in this process's memory: for workers that are no processes."""
        return cls((ctypes.c_uint64 * BOARD_WORDS)(), 0)

    def clear(self) -> None:
        """Forget everything; the kernel calls it before it starts a worker in this slot."""
        for word in range(BOARD_WORDS):
            self.words[word] = 0

    # --- the worker's side --------------------------------------------------------------------------------------------

    def begin_chunk(self, chunk_id: int) -> None:
        """The worker has taken up a chunk; no task of it runs yet."""
        words = self.words
        words[TASK] = words[TRACK_TOTAL] = words[LIMIT_NS] = words[PART] = 0
        words[BLOCK] = 1
        words[SINCE_NS] = time.perf_counter_ns()
        words[CHUNK] = chunk_id

    def begin_task(self, index: int) -> None:
        """The task `index` runs from now on."""
        words = self.words
        words[TRACK_DONE] = words[TRACK_TOTAL] = 0
        words[SINCE_NS] = time.perf_counter_ns()
        words[TASK] = index + 1

    def begin_part(self, name: PartName, limit_s: float | None) -> None:
        """What the task does from now on is timed apart, with a limit of its own or without one."""
        words = self.words
        words[PART] = PARTS.index(name) + 1
        words[SINCE_NS] = time.perf_counter_ns()  # before the limit, which is looked at first (`part`)
        words[LIMIT_NS] = _NO_LIMIT if limit_s is None else max(1, min(int(limit_s * 1e9), _NO_LIMIT - 1))

    def end_part(self) -> None:
        """The task's own time begins, or begins anew."""
        words = self.words
        words[SINCE_NS] = time.perf_counter_ns()
        words[LIMIT_NS] = words[PART] = 0

    def end_chunk(self) -> None:
        """The results of the chunk have been sent."""
        self.words[TASK] = 0
        self.words[CHUNK] = 0

    def track(self, n_done: int, n_total: int | None) -> None:
        """Progress within the running task."""
        self.words[TRACK_TOTAL] = _UNKNOWN_TOTAL if n_total is None else min(n_total + 1, _UNKNOWN_TOTAL - 1)
        self.words[TRACK_DONE] = n_done

    def drops(self, chunk_id: int) -> bool:
        """Whether the kernel wants this chunk dropped or interrupted."""
        return self.words[DROP] == chunk_id or self.words[DROP + 1] == chunk_id

    # --- the kernel's side --------------------------------------------------------------------------------------------

    def drop(self, chunk_id: int) -> None:
        """Ask for a chunk to be dropped; the last two requests stand."""
        words = self.words
        if not self.drops(chunk_id):
            words[DROP + 1] = words[DROP]
            words[DROP] = chunk_id

    @property
    def chunk_id(self) -> int | None:
        """The chunk that the worker has taken up, None between chunks."""
        return self.words[CHUNK] or None

    @property
    def index(self) -> int | None:
        """The task that runs now, or the first of the block of which one runs; None between tasks."""
        task = self.words[TASK]
        return task - 1 if task else None

    @property
    def n_block(self) -> int:
        """How many tasks from :attr:`index` on may be the one that runs."""
        return self.words[BLOCK]

    @property
    def part(self) -> tuple[float | None, str]:
        """The limit in seconds and the name of the part that runs; (None, "") for the task itself.

        To be asked for before `since_s`.
        """
        limit_ns, number = self.words[LIMIT_NS], self.words[PART]
        if not limit_ns or not number:
            return None, ""
        return (math.inf if limit_ns == _NO_LIMIT else limit_ns / 1e9), PARTS[number - 1]

    @property
    def since_s(self) -> float:
        """When the running task, or its part that is timed apart, began, as ``time.perf_counter()``."""
        return self.words[SINCE_NS] / 1e9

    @property
    def tracked(self) -> tuple[int, int | None] | None:
        """Progress within the running task as (done, total or None); None when it reports none."""
        total = self.words[TRACK_TOTAL]
        if not total:
            return None
        return self.words[TRACK_DONE], (None if total == _UNKNOWN_TOTAL else total - 1)
