"""The kinds of message between the kernel and a worker, and what their fields hold.

========== ===================================== ====================== ==============================================
kind       numbers                               times                  head / payload / buffers
========== ===================================== ====================== ==============================================
to the worker
----------------------------------------------------------------------------------------------------------------------
DEFINE     length of the key, id of buffers or 0 -                      head: key, pickled sources of a function;
                                                                        payload, buffers: a function or class by
                                                                        value, kept under its key; its buffers may
                                                                        have been shared under an id
FORGET     -                                     -                      head: key
SHARE      id, size in bytes                     -                      head: layout; one descriptor of the memory
           (id 0: the hooks have all of theirs)
UNSHARE    id                                    -                      -
FOLLOW     -                                     -                      head: pickled :class:`Surroundings`
JOB        job, flags, at once (0: all but       their timeout, or 0    head: key of its function; payload: its seed
           coroutines)
CHUNK      job, chunk, start, stop, flags        -                      payload, buffers: the list of arguments
END_JOB    job                                   -                      -
ARENA      size, 1 for results                   -                      one descriptor of the memory for arguments,
                                                                        or for results
TRIM       bytes to keep                         -                      -
STOP       -                                     -                      -
to the kernel
----------------------------------------------------------------------------------------------------------------------
READY      pid, bytes it was forked with         when it was ready,     -
                                                 time of `worker_init`
NOT_READY  -                                     -                      payload: exception of `worker_init`
RESULTS    job, chunk, first, n ended, final     begin, end of work,    head: failures; payload, buffers: values
           plus 2 * (longest - first + 1)        time of unpacking, of
                                                 packing, of the longest
NO_JOB     job                                   -                      payload: exception; the function of the job
                                                                        could not be rebuilt
MAPPED     -                                     -                      - (arguments may lie in the arena)
ROOM       -                                     -                      - (it wants an arena for results)
OUTPUT     index + 1 (0: none), 1 for stderr     -                      payload: UTF-8 text, whole lines
HEAVY      bytes                                 -                      - (it holds more than the pool's memory_limit
                                                                        now that a task has ended)
LEFT       -                                     time of `worker_exit`  - (it ends)
SAMPLED    job                                   -                      payload: what its profiler saw since the last
CHANGED    job                                   -                      payload: UTF-8 names, in lines, of what tasks
                                                                        have changed of what its function brought
========== ===================================== ====================== ==============================================

Buffers travel in the message or lie in an arena; descriptors go only to the worker.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

__all__ = ["CLASS_KEY", "ChunkFlag", "JobFlag", "Kind", "Surroundings"]

CLASS_KEY = b"class "
"""The head of a DEFINE message for a class begins with it; a function's is its key alone."""


class Kind(enum.IntEnum):
    """See the table in this module's docstring."""

    DEFINE = 1
    FORGET = 2
    SHARE = 3
    UNSHARE = 4
    JOB = 5
    CHUNK = 6
    END_JOB = 7
    STOP = 8
    FOLLOW = 9
    ARENA = 10
    TRIM = 11
    READY = 16
    NOT_READY = 17
    RESULTS = 18
    NO_JOB = 19
    OUTPUT = 20
    MAPPED = 21
    ROOM = 22
    HEAVY = 23
    SAMPLED = 24
    LEFT = 25
    CHANGED = 26


class ChunkFlag:
    """How a worker is to run a chunk. Plain numbers: an ``IntFlag`` takes 2 us for each ``&``."""

    QUICK = 1  # tasks are known to be short: one clock reading for the chunk, results in one message
    HAS_SHARED = 2  # some arguments may be Shared handles, to be unwrapped
    HAS_UNUSABLE = 4  # some arguments could not be pickled: an Unusable stands in their place
    RETURNABLE = 8  # what is not done after a while may be given back
    ATTEMPT = 1 << 8  # times the attempt's number


class JobFlag:
    """How the function of a job is called; plain numbers, too."""

    STAR = 1  # with each item unpacked into its arguments
    SEEDED = 2  # after seeding `random` and `numpy.random`
    PROFILED = 4  # under a profiler
    STRICT = 8  # and what it changes of what it brought is an error
    KEEPS_ITEMS = 16  # and so is what it changes of its item


class Surroundings(NamedTuple):
    """What a task is to find around it as it is in the kernel at the call.

    Attributes
    ----------
    logging, warnings
        The kernel's levels by logger name, its format, and its warning filters with their categories by name.
    """

    cwd: str
    sys_path: tuple[str, ...]
    logging: dict[str, Any]
    warnings: list[Any]
