"""Watches what workers hold and what the machine has left, while tasks run; tells who is to be stopped, and who was.

Reads what :mod:`nbpar.engine.memory` decides on. Owned by the controller (:mod:`nbpar.backends.controller`) of a pool
of processes, which calls it in its turns and by the clock: no thread of its own.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from nbpar.engine.memory import MemoryGuard, MemoryStop, Room
from nbpar.system import Group, KillCounter, group_of, numbers_in, private_bytes

__all__ = ["MemoryWatch", "rooms"]


class MemoryWatch:
    """See the module.

    Parameters
    ----------
    limit_bytes : int, optional
        The pool's `memory_limit`.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self._guard = MemoryGuard(limit_bytes)
        self._look_at_s: float | None = None
        self._started: dict[int, tuple[int, int]] = {}  # pid, and bytes that it was forked with, by worker
        self._stops: dict[int, MemoryStop] = {}  # verdicts that are being carried out
        self._counters: dict[int, tuple[KillCounter, int | None]] = {}  # with the count when the worker began
        self._told: dict[Path, set[int]] = {}  # which of the kills that a file counts explain a death already

    # --- workers come and go ------------------------------------------------------------------------------------------

    def began(self, worker_id: int, pid: int, inherited_bytes: int) -> None:
        """A worker is ready; `inherited_bytes` it was forked with."""
        self._started[worker_id] = pid, inherited_bytes
        counter = KillCounter(group_of(pid))
        self._counters[worker_id] = counter, counter.read()

    def ended(self, worker_id: int, *, killed: bool) -> tuple[MemoryStop | None, bool | None]:
        """A worker has ended.

        Returns
        -------
        stop : MemoryStop or None
            The verdict of :meth:`look` that ended it, if one did.
        out_of_memory : bool or None
            For one that was `killed`: whether the system did that for want of memory; None where it does not tell.
        """
        self._guard.gone(worker_id)
        self._started.pop(worker_id, None)
        stop = self._stops.pop(worker_id, None)
        counter, before = self._counters.pop(worker_id, (None, None))
        if stop is not None or not killed or counter is None:
            return stop, None
        count = counter.read()
        if count is None or before is None:
            return None, None
        told = self._told.setdefault(counter.file, set())
        kill = next((kill for kill in range(before + 1, count + 1) if kill not in told), None)
        if kill is None:
            return None, False
        told.add(kill)  # it explains no other death
        oldest = min((before for _, before in self._counters.values() if before is not None), default=count)
        self._told[counter.file] = {kill for kill in told if kill > oldest}
        return None, True

    # --- by the clock -------------------------------------------------------------------------------------------------

    def rest_in_s(self, now_s: float, *, is_busy: bool) -> float | None:
        """Seconds until :meth:`look` is to be called; None while no task runs."""
        if not is_busy:
            self._look_at_s = None
            return None
        if self._look_at_s is None:
            self._look_at_s = now_s + self._guard.pace_s
        return max(0.0, self._look_at_s - now_s)

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look."""
        return self._look_at_s is not None and now_s >= self._look_at_s

    def look(self, now_s: float, busy: Collection[int]) -> list[MemoryStop]:
        """Read, and say which workers are to be stopped; `busy` are those that have tasks.

        It takes 0.1 ms, and 11 us for each worker where that matters.
        """
        here = rooms()
        used: Mapping[int, int] = {}
        if self._guard.wants_readings(here):
            used = {worker_id: self._used(*started) for worker_id, started in self._started.items()}
        stops = self._guard.look(used, busy, here)
        self._stops.update((stop.worker_id, stop) for stop in stops)
        self._look_at_s = now_s + self._guard.pace_s
        return stops

    def spare(self, worker_id: int) -> None:
        """A verdict is not carried out: its task was over already."""
        self._guard.gone(worker_id)
        self._stops.pop(worker_id, None)

    @staticmethod
    def _used(pid: int, inherited_bytes: int) -> int:
        return max(0, (private_bytes(pid) or 0) - inherited_bytes)


# --- what is left -----------------------------------------------------------------------------------------------------

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 of control groups has no word for "no limit": it tells the largest number there is."""

_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
    2: ("memory.max", "memory.current", "memory.swap.max", "memory.swap.current"),
}


def rooms() -> list[Room]:
    """The machine's memory, and that of each container around this process that has a limit."""
    if sys.platform != "linux":
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return [Room("the machine", memory.total, memory.available, swap.free)]
    try:
        with open("/proc/meminfo", "rb") as file:
            told = file.read()
        names = (b"MemTotal:", b"MemAvailable:", b"SwapFree:")
        machine = Room("the machine", *(_kilobytes(told, name) for name in names))
    except (OSError, ValueError):  # a sandbox that hides it
        return []
    return [machine, *group_rooms(_own_groups(), machine)]


def _kilobytes(told: bytes, name: bytes) -> int:
    start = told.index(name) + len(name)
    return int(told[start : told.index(b"kB", start)]) * 1024


@functools.cache
def _own_groups() -> tuple[tuple[str, int], ...]:
    return groups_around(group_of("self"))


def groups_around(group: Group | None) -> tuple[tuple[str, int], ...]:
    """The folders of a group and of those around it, innermost first, with the version of their files."""
    if group is None:
        return ()
    folders = (group.folder, *group.folder.parents)
    return tuple((str(one), group.version) for one in folders if one == group.top or group.top in one.parents)


def group_rooms(groups: Iterable[tuple[str, int]], machine: Room) -> Iterator[Room]:
    """What is left in those groups that have a limit."""
    for folder, version in groups:
        names = _FILES[version]
        with contextlib.suppress(OSError, ValueError):  # no limit ("max"), or the outermost, which has no such file
            limit = _number(folder, names[0])
            if limit < min(machine.total_bytes, _NO_LIMIT_BYTES):
                left = max(0, limit - _number(folder, names[1]))
                stat = numbers_in(Path(folder, "memory.stat"))
                prefix = "total_" if version == 1 else ""
                cached = sum(stat.get(f"{prefix}{name}", 0) for name in ("inactive_file", "active_file"))
                swap = min(machine.swap_bytes, _swap_left(folder, version, left))
                yield Room("the container", limit, min(limit, left + cached), swap)


def _swap_left(folder: str, version: int, left_bytes: int) -> int:
    """Swap that a group may still have; in version 1 its limit is one for memory and swap together."""
    _, _, limit_file, used_file = _FILES[version]
    try:
        left = _number(folder, limit_file) - _number(folder, used_file)
    except (OSError, ValueError):  # no limit, or swap is not counted
        return _NO_LIMIT_BYTES
    return max(0, left - left_bytes if version == 1 else left)


def _number(folder: str, name: str) -> int:
    with open(f"{folder}/{name}", "rb") as file:
        return int(file.read())
