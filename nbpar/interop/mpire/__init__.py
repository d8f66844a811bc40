"""MPIRE's interface: change ``from mpire import WorkerPool`` to ``from nbpar.interop.mpire import WorkerPool``."""
