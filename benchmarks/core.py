"""What a comparison is made of: a `Workload` has contenders, whose calls `timing` alternates.

Subclassed by :mod:`benchmarks.workloads`; read by `timing`, `costs`, `report` and `plot`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from benchmarks.peers import EVERYBODY
from benchmarks.peers.base import Peer
from benchmarks.targets import Target
from benchmarks.team import Team

__all__ = ["Contender", "MapWorkload", "Metric", "Timed", "Workload", "WrongResultError"]


class WrongResultError(Exception):
    """A contender returned something else than what was asked for; its times count for nothing."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How a figure is printed.

    Attributes
    ----------
    heading : str
        Of its column, unit included.
    scale : float
        From the sample's unit (seconds, bytes, items) to the column's.
    has_ratio : bool
        Whether a ratio to nbpar's says something.
    """

    heading: str
    scale: float = 1.0
    has_ratio: bool = True


@dataclass(frozen=True, slots=True)
class Timed:
    """A result whose call took its own figures, by name of the metric; they replace the wall time of the call."""

    value: Any
    samples: Mapping[str, float]


def _nothing() -> None:
    """Nothing to prepare."""


def _forget(_result: object) -> None:
    """The result may go."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One library with one tuning, ready to be called.

    Attributes
    ----------
    call : callable
        What is timed; gets what `prepare` returned.
    prepare, dispose : callable
        Before and after each call, not timed; `dispose` gets the result.
    n_units : int
        The time of a call is divided by this: the maps of a loop, say.
    group : str
        Its ratio is to nbpar's time in the same group: what starts workers is compared with what does so as well.
    """

    peer: str
    call: Callable[[Any], Any]
    variant: str = ""
    prepare: Callable[[], Any] = _nothing
    dispose: Callable[[Any], None] = _forget
    n_units: int = 1
    group: str = ""


class Workload(ABC):
    """Something people do, in the words of each library.

    Attributes
    ----------
    name, title : str
        For the command line; for the report.
    about : str
        What the reader must know to judge the figures.
    targets : tuple of Target
        What was asked of nbpar.
    peers : tuple of str
        Who takes part.
    budget_s : float
        What the timed calls of one stage may take in all; the numbers of repeats follow from it.
    n_least : int
        Rounds, at least, unless a call takes seconds.
    keeps_variants : bool
        Every tuning of a library is a row of its own, instead of its best one alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str] = ""
    targets: ClassVar[tuple[Target, ...]] = ()
    peers: ClassVar[tuple[str, ...]] = EVERYBODY
    metrics: ClassVar[Mapping[str, Metric]] = {"wall": Metric("wall, ms", 1e3)}
    budget_s: ClassVar[float] = 8.0
    n_least: ClassVar[int] = 3
    keeps_variants: ClassVar[bool] = False

    def __init__(self, *, n_workers: int, is_quick: bool) -> None:
        self.n_workers = n_workers
        self.is_quick = is_quick

    def size(self, usual: int, quick: int) -> int:
        """A size in a real run, and in a smoke test."""
        return quick if self.is_quick else usual

    @abstractmethod
    def contenders(self, team: Team) -> AbstractContextManager[list[Contender]]:
        """Those of the team that take part, for as long as the context lasts."""

    @abstractmethod
    def check(self, argument: Any, result: Any) -> None:
        """Raise `WrongResultError` unless `result` is right for what `prepare` had returned."""

    def samples(self, wall_s: float) -> dict[str, float]:
        """Figures of one call, by metric."""
        return {"wall": wall_s}


class MapWorkload(Workload):
    """A function over items, by each library's own map and with its own ways of tuning it.

    Attributes
    ----------
    is_fresh : bool
        Each call gets new items, as a notebook's loop does, so that nobody profits from having seen them.
    """

    is_fresh: ClassVar[bool] = False

    @abstractmethod
    def function(self) -> Callable[[Any], Any]:
        """The task; one that can be imported by name, since most peers can send no other."""

    @abstractmethod
    def items(self) -> Sequence[Any]:
        """The items of one call."""

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Each library with each of its tunings."""
        first = self.items()
        prepare: Callable[[], Any] = self.items if self.is_fresh else lambda: first
        yield [
            Contender(
                peer.name,
                partial(_map, peer, self.function(), chunk_size),
                "" if chunk_size is None else f"chunks of {chunk_size:,}",
                prepare,
                self.dispose,
            )
            for peer in team.present(self.peers)
            for chunk_size in peer.tunings(len(first))
        ]

    def dispose(self, result: Any) -> None:
        """What becomes of a result after its check."""


def _map(peer: Peer, function: Callable[[Any], Any], chunk_size: int | None, items: Sequence[Any]) -> list[Any]:
    return peer.map(function, items, chunk_size)
