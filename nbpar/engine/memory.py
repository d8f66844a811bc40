"""Which worker has to go because of its memory: readings in, verdicts out; nothing is read or killed here.

Owns the two bounds and the pace of looking. Called by :mod:`nbpar.backends.memory`, which reads what the system says,
some times a second while tasks run.

* A worker that a task has taken far beyond the pool's `memory_limit` is stopped. (One that stands above it when its
  task has ended says so itself, and is replaced: :mod:`nbpar.worker.memory`.)
* When the machine or the container has nearly nothing left, the largest worker is stopped, limit or not: else the
  system chooses, and what it chooses may be the kernel, with all that the notebook has computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

__all__ = ["MemoryGuard", "MemoryStop", "Room", "reserve_bytes", "stop_bytes"]

LOOK_S = 0.2
QUICK_LOOK_S = 0.05
"""How often to look while tasks run, and how often once a bound is near: a task fills a gigabyte in half a second."""

BEYOND = 1.2
BEYOND_BYTES = 64_000_000
"""A running task may take its worker beyond the limit by a fifth, or by so much where that is more."""

RESERVE_SHARE = 20
MOST_RESERVE_BYTES = 2_000_000_000
LEAST_RESERVE_BYTES = 128_000_000
"""Less than a 20th left is nearly nothing. Of a large machine a 20th would be wasted; of a small one it is gone between
two looks."""

RELIEF_SHARE = 4
"""A worker that holds less than this part of the reserve is not what fills the machine: to stop it helps nobody."""


class Room(NamedTuple):
    """A limit that processes share, and what is left below it.

    Attributes
    ----------
    name : str
        Whose memory it is, in words.
    available_bytes : int
        What can be had without swapping; files that are only cached count as available.
    swap_bytes : int
        Swap that is free.
    """

    name: str
    total_bytes: int
    available_bytes: int
    swap_bytes: int = 0


class MemoryStop(NamedTuple):
    """Stop this worker now.

    Attributes
    ----------
    room : Room or None
        What had nearly nothing left; None when the worker went beyond the pool's limit.
    """

    worker_id: int
    used_bytes: int
    room: Room | None = None


def stop_bytes(limit_bytes: int) -> int:
    """Beyond this a running task is stopped.

    Examples
    --------
    >>> stop_bytes(2_000_000_000)
    2400000000
    """
    return max(int(limit_bytes * BEYOND), limit_bytes + BEYOND_BYTES)


def reserve_bytes(total_bytes: int) -> int:
    """Less than this is nearly nothing.

    Examples
    --------
    >>> [reserve_bytes(total * 10**9) for total in (1, 2, 16, 1000)]
    [100000000, 128000000, 800000000, 2000000000]
    """
    least = min(LEAST_RESERVE_BYTES, total_bytes // 10)
    return max(least, min(total_bytes // RESERVE_SHARE, MOST_RESERVE_BYTES))


class MemoryGuard:
    """Decides for one pool.

    Parameters
    ----------
    limit_bytes : int, optional
        The pool's `memory_limit`. With one, a worker is stopped before the machine swaps; without, only once the swap
        is nearly full as well, for a task that swaps may still be what its user wants.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes
        self._stopped: set[int] = set()  # verdicts whose workers are not gone yet
        self._is_near = False

    @property
    def pace_s(self) -> float:
        """Seconds until the next look."""
        return QUICK_LOOK_S if self._is_near else LOOK_S

    def wants_readings(self, rooms: Iterable[Room]) -> bool:
        """Whether it matters how much each worker holds."""
        return self._limit_bytes is not None or any(self._is_short(room) for room in rooms)

    def look(self, used: Mapping[int, int], busy: Collection[int], rooms: Iterable[Room]) -> list[MemoryStop]:
        """Judge what was read.

        Parameters
        ----------
        used : mapping of worker_id to bytes
            What each worker holds; may be empty where :meth:`wants_readings` is false.
        busy : collection of worker_id
            Those that run a task.
        rooms : iterable of Room
            What is left of the machine and of containers.
        """
        rooms = list(rooms)
        self._is_near = any(self._left(room) < 4 * reserve_bytes(room.total_bytes) for room in rooms)
        stops: list[MemoryStop] = []
        if self._limit_bytes is not None:
            most_bytes = stop_bytes(self._limit_bytes)
            for worker_id in busy:
                used_bytes = used.get(worker_id, 0)
                self._is_near = self._is_near or 2 * used_bytes > self._limit_bytes
                if used_bytes > most_bytes and worker_id not in self._stopped:
                    stops.append(MemoryStop(worker_id, used_bytes))
        self._stopped.update(stop.worker_id for stop in stops)
        short = [room for room in rooms if self._is_short(room)]
        if short and not self._stopped and (stop := self._largest(used, busy, short[-1])) is not None:
            self._stopped.add(stop.worker_id)  # the next only when this one is gone: it may have been enough
            stops.append(stop)
        return stops

    def gone(self, worker_id: int) -> None:
        """A worker has ended: what it held is free."""
        self._stopped.discard(worker_id)

    def _left(self, room: Room) -> int:
        return room.available_bytes + (room.swap_bytes if self._limit_bytes is None else 0)

    def _is_short(self, room: Room) -> bool:
        return self._left(room) < reserve_bytes(room.total_bytes)

    @staticmethod
    def _largest(used: Mapping[int, int], busy: Collection[int], room: Room) -> MemoryStop | None:
        """The largest of the workers that hold enough to be worth it; first one that has nothing to do."""
        least = reserve_bytes(room.total_bytes) // RELIEF_SHARE
        worth = [(worker_id not in busy, n_bytes, worker_id) for worker_id, n_bytes in used.items() if n_bytes >= least]
        if not worth:
            return None
        _, n_bytes, worker_id = max(worth)
        return MemoryStop(worker_id, n_bytes, room)
