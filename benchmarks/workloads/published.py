"""What MPIRE's three published workloads have in common: two ways of timing, and who takes part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from benchmarks.core import Contender, Workload
from benchmarks.targets import AtLeast, Target
from benchmarks.team import Team

__all__ = ["KEPT", "Published", "Way"]

KEPT = "workers kept"

Way = Callable[[Any], Any]
"""Gets what `Published.argument` returned."""


class Published(Workload):
    """Ways to do the whole, workers started and ended, and ways with workers that are up already."""

    about = (
        "As published, the time is that of starting the workers, of the work, and of ending them, for nbpar as well; "
        f"the rows with `{KEPT}` are those of a notebook, whose pool is warm, and are compared with each other. ray "
        "and dask take longer to start than to do this."
    )
    targets: ClassVar[tuple[Target, ...]] = (AtLeast(1.3, ("mpire",)), AtLeast(1.3, ("mpire",), group=KEPT))
    peers = ("serial", "Pool", "ProcessPoolExecutor", "mpire", "process_map", "joblib", "nbpar")
    keeps_variants = True

    @abstractmethod
    def argument(self) -> Any:
        """The input, the same for all calls; also prepares what `check` compares with."""

    @abstractmethod
    def whole_ways(self) -> dict[str, list[tuple[str, Way]]]:
        """By library: name of the way, and the way."""

    @abstractmethod
    def kept_ways(self, argument: Any, team: Team, stack: ExitStack) -> dict[str, tuple[str, Way]]:
        """The same with workers that `stack` ends."""

    @contextmanager
    def contenders(self, team: Team) -> Iterator[list[Contender]]:
        """Both kinds."""
        argument = self.argument()
        with ExitStack() as stack:
            whole = self.whole_ways()
            kept = self.kept_ways(argument, team, stack)
            yield [
                *(
                    Contender(peer.name, way, variant, lambda: argument)
                    for peer in team.present(self.peers)
                    for variant, way in whole.get(peer.name, [])
                ),
                *(
                    Contender(peer.name, way, variant, lambda: argument, group=KEPT)
                    for peer in team.present(self.peers)
                    if peer.name in kept
                    for variant, way in [kept[peer.name]]
                ),
            ]
