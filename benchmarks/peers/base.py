"""What every library must be able to do here: `Peer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

__all__ = ["Peer", "in_one_call", "slices"]


class Peer(ABC):
    """One library with its workers kept alive.

    Parameters
    ----------
    n_workers : int
        How many.
    """

    name: ClassVar[str]

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers

    @abstractmethod
    def start(self) -> None:
        """Have the workers up; what the library starts late is started by a first call."""

    @abstractmethod
    def close(self) -> None:
        """End the workers."""

    @abstractmethod
    def map(self, function: Callable[[Any], Any], items: Sequence[Any], chunk_size: int | None = None) -> list[Any]:
        """All results, in order."""

    @abstractmethod
    def round_trip(self, function: Callable[[Any], Any], item: Any) -> Any:
        """The result of a single task, by the library's quickest way to ask for one."""

    def tunings(self, n_items: int) -> list[int | None]:
        """Chunk sizes worth trying: the default (None), and 16 chunks, which was the best for tiny tasks."""
        return [None, max(1, n_items // 16)]


def in_one_call(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A chunk as one task, for libraries that have no chunks."""
    return [function(item) for item in items]


def slices(items: Sequence[Any], chunk_size: int) -> list[Sequence[Any]]:
    """`items` in pieces.

    Examples
    --------
    >>> slices(range(5), 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [items[begin : begin + chunk_size] for begin in range(0, len(items), chunk_size)]
