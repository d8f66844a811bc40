"""The libraries that are compared, by the names that the report gives them.

``load`` imports an adapter when it is asked for: a library that is not installed is absent, and no error.
"""

from __future__ import annotations

import importlib
from typing import cast

from benchmarks.peers.base import Peer

__all__ = ["CLUSTERS", "EVERYBODY", "LOCAL", "OURS", "SERIAL", "load"]

OURS = "nbpar"
SERIAL = "serial"

# Those that fork come first: they fork before others have begun threads.
_HOMES = {
    SERIAL: ("benchmarks.peers.ours", "Serial"),
    "Pool": ("benchmarks.peers.stdlib", "Pool"),
    "ProcessPoolExecutor": ("benchmarks.peers.stdlib", "Executor"),
    "mpire": ("benchmarks.peers.mpire_pool", "Mpire"),
    "process_map": ("benchmarks.peers.progress", "ProcessMap"),
    "loky": ("benchmarks.peers.lokys", "Loky"),
    "joblib": ("benchmarks.peers.lokys", "Joblib"),
    OURS: ("benchmarks.peers.ours", "Nbpar"),
    "ray": ("benchmarks.peers.clusters", "Ray"),
    "dask": ("benchmarks.peers.clusters", "Dask"),
}

EVERYBODY = tuple(_HOMES)
CLUSTERS = ("ray", "dask")
"""They keep daemons busy beside the calls, so each has a stage of its own, alone with nbpar."""
LOCAL = tuple(name for name in EVERYBODY if name not in CLUSTERS)


def load(name: str) -> type[Peer]:
    """The adapter of a library.

    Raises
    ------
    ImportError
        When the library is not installed.
    """
    module, attribute = _HOMES[name]
    return cast("type[Peer]", getattr(importlib.import_module(module), attribute))
