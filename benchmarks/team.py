"""The libraries that are up at the same time: started once, kept alive, closed together.

A stage of :mod:`benchmarks.run` has one team; so has each process of :mod:`benchmarks.costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from benchmarks.limits import TookTooLong, limit
from benchmarks.peers import load
from benchmarks.peers.base import Peer

__all__ = ["Team"]

START_LIMIT_S = 90.0


class Team:
    """Peers that are up, and why others are not.

    Parameters
    ----------
    names : sequence of str
        Whom to start.
    n_workers : int
        Workers of each.

    Attributes
    ----------
    absent : dict
        Reasons, by name.
    """

    def __init__(self, names: Sequence[str], *, n_workers: int) -> None:
        self.n_workers = n_workers
        self.absent: dict[str, str] = {}
        self._names = names
        self._peers: dict[str, Peer] = {}

    def __enter__(self) -> Team:
        for name in self._names:
            try:
                with limit(START_LIMIT_S):
                    peer = load(name)(self.n_workers)
                    peer.start()
            except TookTooLong:
                self.absent[name] = f"did not start within {START_LIMIT_S:.0f} s"
            except Exception as error:  # noqa: BLE001  # whatever a peer raises is the reason the table gives
                self.absent[name] = _reason(error)
            else:
                self._peers[name] = peer
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for name in list(self._peers):
            self.discard(name)

    def present(self, names: Sequence[str]) -> list[Peer]:
        """Those of `names` that are up, in the team's order."""
        return [peer for name, peer in self._peers.items() if name in names]

    def has(self, name: str) -> bool:
        """Whether it is up."""
        return name in self._peers

    def discard(self, name: str, reason: str = "") -> None:
        """End one; with a reason when it went wrong."""
        if reason:
            self.absent[name] = reason
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        try:
            with limit(START_LIMIT_S):
                peer.close()
        except TookTooLong:
            self.absent.setdefault(name, f"did not close within {START_LIMIT_S:.0f} s")
        except Exception as error:  # noqa: BLE001  # as above
            self.absent.setdefault(name, f"close: {_reason(error)}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
