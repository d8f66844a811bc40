"""What the machine gives, whatever the library: the floors below which none of the other figures can be.

Two bare processes and a socket between them, the same with a receiver that spins instead of sleeping, and copies of
2 MB into memory that is new, used before, or reached by a system call. Run it by itself with ``make bench
BENCH_ARGS="--only machine"``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from benchmarks.studies.base import Section, Study, markdown_table

__all__ = ["Machine"]

SPIN_S = 300e-6
"""Longer than any answer takes from a process that runs beside this one."""

COPY_BYTES = 2_000_000
MESSAGE_BYTES = 200


class Machine(Study):
    """Round trips and copies without any library."""

    name: ClassVar[str] = "machine"
    title: ClassVar[str] = "The machine: a round trip between two processes, a copy of 2 MB"

    def run(self, peers: Sequence[str]) -> Section:
        """Of the peers none takes part."""
        section = Section()
        if sys.platform != "linux":
            section.lines.append("Linux only.")
            return section
        n_trips, n_copies = (50, 10) if self.is_quick else (2000, 200)
        rows = []
        for name, spin_s in (("both sleep until there is something to read", 0.0), ("both spin", SPIN_S)):
            trips_s = _round_trips(n_trips, spin_s)
            p99_s = statistics.quantiles(trips_s, n=100, method="inclusive")[98]
            rows.append([name, f"{1e6 * statistics.median(trips_s):.0f}", f"{1e6 * p99_s:.0f}"])
        section.lines += markdown_table(
            ["a message of 200 bytes to another process and back", "p50, us", "p99, us"], rows
        )
        section.lines.append("")
        speeds = [[name, f"{speed / 1e9:.1f}"] for name, speed in _copy_speeds(n_copies).items()]
        section.lines += markdown_table(["2 MB of an array that was just made, copied into", "GB/s"], speeds)
        return section


def _round_trips(n_trips: int, spin_s: float) -> list[float]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                with contextlib.suppress(BaseException):
                    _echo(theirs, spin_s)
                os._exit(0)
        trips_s = []
        waiter = select.epoll()
        waiter.register(ours, select.EPOLLIN)
        for _ in range(n_trips):
            begin_s = time.perf_counter()
            ours.send(bytes(MESSAGE_BYTES))
            while time.perf_counter() - begin_s < spin_s and not waiter.poll(0):
                pass
            waiter.poll()
            ours.recv(MESSAGE_BYTES)
            trips_s.append(time.perf_counter() - begin_s)
        waiter.close()
    os.waitpid(pid, 0)
    return trips_s


def _echo(sock: socket.socket, spin_s: float) -> None:
    """Send back what comes, until the other end is closed."""
    while True:
        sock.setblocking(False)
        data = None
        end_s = time.perf_counter() + spin_s
        while data is None and time.perf_counter() < end_s:
            with contextlib.suppress(BlockingIOError):
                data = sock.recv(MESSAGE_BYTES)
        sock.setblocking(True)
        data = sock.recv(MESSAGE_BYTES) if data is None else data
        if not data:
            return
        sock.send(data)


def _copy_speeds(n_copies: int) -> dict[str, float]:
    """Bytes a second, by the kind of memory that is written to."""
    n_slots = 8
    size_bytes = n_slots * COPY_BYTES
    used_fd = os.memfd_create("benchmark")
    try:
        os.ftruncate(used_fd, size_bytes)
        with mmap.mmap(used_fd, size_bytes) as used, mmap.mmap(-1, n_copies * COPY_BYTES) as new:
            used[:] = b"\1" * size_bytes
            used_view, new_view = memoryview(used), memoryview(new)

            def into_used(index: int, data: memoryview) -> None:
                start = index % n_slots * COPY_BYTES
                used_view[start : start + COPY_BYTES] = data

            def into_new(index: int, data: memoryview) -> None:
                new_view[index * COPY_BYTES : (index + 1) * COPY_BYTES] = data

            def by_write(index: int, data: memoryview) -> None:
                os.pwrite(used_fd, data, index % n_slots * COPY_BYTES)

            speeds = {
                "mapped memory that was used before": _speed(into_used, n_copies),
                "the same memory, by pwrite": _speed(by_write, n_copies),
                "mapped memory that is new": _speed(into_new, n_copies),
            }
            used_view.release()
            new_view.release()
    finally:
        os.close(used_fd)
    return speeds


def _speed(copy: Callable[[int, memoryview], None], n_copies: int) -> float:
    spent_s = 0.0
    for index in range(n_copies):
        data = np.full(COPY_BYTES, index % 251, np.uint8).data
        begin_s = time.perf_counter()
        copy(index, data)
        spent_s += time.perf_counter() - begin_s
    return n_copies * COPY_BYTES / spent_s
