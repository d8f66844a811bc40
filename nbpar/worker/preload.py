"""Imported by the fork server only, before it loads anything else; workers start as copies of it.

numpy's BLAS makes its threads when it is loaded, and a process that forks must have none: so they are limited to one
here, in the server's environment. Each worker gets its real number in :func:`nbpar.worker.boot.use_threads`.
"""

from __future__ import annotations

import os

from nbpar.worker.boot import THREAD_VARIABLES

for _name in THREAD_VARIABLES:
    os.environ[_name] = "1"

import nbpar.worker.main  # noqa: E402, F401  # after the variables are set: it loads what workers need
