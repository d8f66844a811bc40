"""How long a failed task waits before it is tried again: longer each time, and not all of them at the same moment.

Called by :mod:`nbpar.engine.plans` and by the serial backend, which has no scheduler.
"""

from __future__ import annotations

__all__ = ["FIRST_S", "MAX_S", "delay_s"]

FIRST_S = 0.1
"""Before the first retry; twice as long before each further one."""

MAX_S = 5.0
"""The longest wait."""

SPREAD = 0.1
"""A wait is longer by up to this share of it: what failed together, at a server that was gone, does not come back
together."""

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: multiples of it are spread evenly over 64 bits
_MASK_64 = (1 << 64) - 1


def delay_s(index: int, n_runs: int) -> float:
    """Seconds from a task's failure to its next run.

    Parameters
    ----------
    index : int
        The task; the same wait for it each time that a job is run, another one for its neighbours.
    n_runs : int
        How often it has run, 1 or more.

    Examples
    --------
    >>> [round(delay_s(0, n), 2) for n in (1, 2, 3, 4, 99)]
    [0.1, 0.21, 0.42, 0.85, 4.88]
    >>> delay_s(3, 1) == delay_s(3, 1) != delay_s(4, 1)
    True
    """
    share = ((index + 31 * n_runs) * _GOLDEN & _MASK_64) / 2**64
    wait_s = min(FIRST_S * 2.0 ** min(n_runs - 1, 64), MAX_S / (1 + SPREAD))
    return wait_s * (1 + SPREAD * share)
