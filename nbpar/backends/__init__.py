"""How workers exist: processes, threads, or not at all (serial), behind one Protocol in :mod:`nbpar.backends.base`."""
