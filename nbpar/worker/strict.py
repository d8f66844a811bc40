"""The detector of lost updates for loops, where a change that is not seen would be a wrong answer.

:class:`Strict` wraps the function of a job that must do what the same loop does serially. All that the function brought
is written down before the first task and compared when tasks have ended, and each item around its task; so are the
states of the global generators of random numbers. Owned by :mod:`nbpar.worker.main`, and by the threads and serial
backends for a copy of the function (:mod:`nbpar.backends.isolation`).

Budget: a look is taken after the first report, while looking takes less than `SHARE` of the time in tasks, and always
before the worker reports the last task that it has of the job. Items are compared for `FREE_S`, and from then on for
`SHARE` of the time in tasks.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

from nbpar.worker.brought import brought_by
from nbpar.worker.changes import MISSING, Fetch
from nbpar.worker.contents import MAX_BYTES, Written, are_equal, is_plain, written

__all__ = ["ITEM", "NUMPY_RANDOM", "RANDOM", "States", "Strict", "random_states"]

States = tuple[Any, Any]
"""Of the generators of `random` and of `numpy.random`; None for one that is not loaded."""

ITEM = "the item"
RANDOM = "the state of random"
NUMPY_RANDOM = "the state of numpy.random"

SHARE = 0.05
"""Of the time in tasks, for looking again and for comparing items."""

FREE_S = 0.25
"""What comparing items may take in any case."""

_FRESH_MT = 624
"""Where the Mersenne Twister of numpy stands that nobody has used since it was seeded."""


class Strict:
    """What one job's function brought to this worker, and its item while a task runs.

    Parameters
    ----------
    function : callable
        Of one argument.
    keeps_items : bool
        Whether a task that changes its item has lost an update.
    seeded : bool
        Whether tasks seed the global generators, and may use them.
    states : tuple, optional
        What :func:`random_states` gave before the first task of the job; by default as it is now, which is too late
        where another thread may have begun.

    Attributes
    ----------
    function : callable
        To be called in its place.
    """

    def __init__(
        self, function: Callable[[Any], Any], *, keeps_items: bool, seeded: bool, states: States | None = None
    ) -> None:
        begin_s = thread_time()
        self._found: set[str] = set()
        self._told: set[str] = set()
        self._random = None if seeded else states or random_states()
        self._entries = list(brought_by(function))
        self._n_arrays = max(1, sum(1 for _, fetch in self._entries if hasattr(fetch(), "nbytes")))
        self._before = [self._write(fetch) for _, fetch in self._entries]
        self._cost_s = thread_time() - begin_s
        self._work_s = 0.0
        self._is_first = True
        self._is_due = False  # whether a task has run since the last look
        self._items_s = -FREE_S  # what comparing items has taken, beyond what it may
        self.function = self._guarded(function) if keeps_items else function

    def look(self, work_s: float, *, is_last: bool = False) -> tuple[str, ...]:
        """Names of what has changed, each once.

        Parameters
        ----------
        work_s : float
            How long the tasks took that have ended since the last call.
        is_last : bool
            Whether no further task of the job is known of here.
        """
        self._work_s += work_s
        self._items_s -= work_s * SHARE
        self._is_due = self._is_due or work_s > 0.0
        if self._is_due and (self._is_first or is_last or self._work_s * SHARE >= self._cost_s):
            begin_s = thread_time()
            self._is_first = self._is_due = False
            self._work_s = 0.0
            for (name, fetch), before in zip(self._entries, self._before, strict=True):
                if name not in self._found and not are_equal(before, self._write(fetch)):
                    self._found.add(name)
            self._found.update(self._drawn())
            self._cost_s = thread_time() - begin_s
        new = self._found - self._told
        self._told |= new
        return tuple(sorted(new))

    def _write(self, fetch: Fetch) -> Written:
        value = fetch()
        return b"" if value is MISSING else written(value, MAX_BYTES // self._n_arrays)

    # --- items --------------------------------------------------------------------------------------------------------

    def _guarded(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def task(item: Any) -> Any:
            if is_plain(item) or self._items_s > 0.0:
                return function(item)
            begin_s = thread_time()
            before = written(item)
            self._items_s += thread_time() - begin_s
            try:
                return function(item)
            finally:
                begin_s = thread_time()
                if ITEM not in self._found and not are_equal(before, written(item)):
                    self._found.add(ITEM)
                self._items_s += thread_time() - begin_s

        return task

    # --- global generators of random numbers --------------------------------------------------------------------------

    def _drawn(self) -> Iterator[str]:
        if self._random is None:
            return
        before, (plain, numpy) = self._random, random_states()
        if plain != before[0]:
            yield RANDOM
        if numpy is not None and (numpy != before[1] if before[1] is not None else numpy[2:4] != (_FRESH_MT, 0)):
            yield NUMPY_RANDOM

    def undo(self) -> None:
        """Set the global generators back; where tasks run in the kernel, which is to be as it was."""
        if self._random is None:
            return
        plain, numpy = self._random
        random.setstate(plain)
        if numpy is not None:
            import numpy as np

            keys = np.frombuffer(numpy[1], dtype=np.uint32)
            np.random.set_state((numpy[0], keys, *numpy[2:]))  # noqa: NPY002  # what the user's code draws from


def random_states() -> States:
    """The states of the global generators."""
    numpy: Any = sys.modules.get("numpy.random")
    if not hasattr(numpy, "get_state"):  # not there, or on its way in
        return random.getstate(), None
    name, keys, *rest = numpy.get_state()
    return random.getstate(), (name, keys.tobytes(), *rest) if name == "MT19937" else None
