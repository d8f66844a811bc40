"""MPIRE's interface: change ``from mpire import WorkerPool`` to ``from nbpar.interop.mpire import WorkerPool``."""

from nbpar.interop.mpire.alias import install

install()
