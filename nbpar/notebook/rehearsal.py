"""``--check K``: the first K items once more, serially in the kernel, compared with what came from the workers.

Owns the copies that this runs on (the function and its items by a pickle round trip, made before the job begins: no
task has changed them, and nothing of the notebook is changed), the run, and what is said. Called by
:mod:`nbpar.notebook.magics` and :mod:`nbpar.notebook.loop_run`; needs no IPython.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from nbpar.backends.base import JobSpec, Listed, safe_str, short_repr
from nbpar.backends.isolation import Isolated, pack
from nbpar.errors import CheckError, SerializationError, TaskError
from nbpar.inputs import is_sliceable
from nbpar.notebook.sameness import difference
from nbpar.notebook.source import Refused
from nbpar.options import JobOptions
from nbpar.wire.board import Slot
from nbpar.wire.exceptions import strip_own_frames
from nbpar.worker.context import Context, current_context, set_context
from nbpar.worker.eventloop import close_loop
from nbpar.worker.execute import Report, run_chunk

__all__ = ["Rehearsal", "imap_and_check", "map_and_check"]

CAUSES = (
    "Likely causes: random numbers (give --seed), the time, the order of a set, and what tasks leave to one another "
    "(globals, caches, files)."
)


class Rehearsal:
    """The first items of a job, to be run serially as well.

    Parameters
    ----------
    function : callable
        Of one item.
    items : sequence
        Of the job; `n` of them are copied here and now.
    n : int
        How many to run.
    seed : int, optional
        The job's option. The copies' random numbers are then those of the job.
    tell : callable
        Gets the one line that says that all is well.

    Raises
    ------
    Refused
        When the function cannot be copied.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        n: int,
        *,
        seed: int | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        __tracebackhide__ = True
        first = list(islice(iter(items), n))
        options = JobOptions(seed=seed)
        sink: Any = None  # nothing is told of this job
        job = JobSpec(0, function, False, Listed(first), len(first), True, options, seed or 0, sink)
        try:
            self._isolated = Isolated(job, pack(job))
        except SerializationError as error:
            raise Refused(f"--check runs a copy of the task, and there can be none: {error.message}") from None
        self._work = self._isolated.work._replace(at_once=job.at_once)
        self._items = self._isolated.take(first)
        self._reprs = [short_repr(item) for item in first]
        self._tell = tell

    def compare(self, outcomes: Sequence[Any], *, position: Callable[[int], str] | None = None) -> None:
        """Run the copies, and compare with what came from the workers.

        Parameters
        ----------
        outcomes : sequence
            Of the job, in order: values, and :class:`~nbpar.errors.TaskError` for items that failed. Where it has fewer
            than were to be compared, those are.
        position : callable, optional
            Names an item by its index; ``item 1 = 5`` by default.

        Raises
        ------
        CheckError
            When one differs; it names the first that does.
        """
        __tracebackhide__ = True
        n = min(len(self._items), len(outcomes))
        for index, serial in enumerate(self._serially(n)):
            worker = outcomes[index]
            failed = isinstance(worker, TaskError), isinstance(serial, _Failed)
            where = position(index) if position is not None else f"item {index} = {self._reprs[index]}"
            if failed == (True, True):
                cause = worker.__cause__ or worker
                if type(cause) is type(serial.error) and safe_str(cause) == safe_str(serial.error):
                    continue
            elif failed == (False, False):
                if (found := difference(worker, serial)) is None:
                    continue
                raise _differs(where, index, found)
            raise _differs(where, index, ("", _shown(worker), _shown(serial)))
        if n:
            self._tell(f"first {n} items: the same serially" if n > 1 else "first item: the same serially")

    def _serially(self, n: int) -> list[Any]:
        """What the first `n` copies give: values, and :class:`_Failed`."""
        reports: list[Report] = []
        context = Context(0, Slot.alone(), seed=self._work.seed)
        outer, states = current_context(), _random_states()
        set_context(context, whole_process=False)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                run_chunk(
                    self._work,
                    self._items[:n],
                    chunk_id=1,
                    start=0,
                    context=context,
                    quick=False,
                    report=reports.append,
                )
        finally:
            set_context(outer, whole_process=False)
            close_loop(context)
            _set_random_states(states)
        found: dict[int, Any] = {}
        for report in reports:
            self._isolated.give(report.values, report.failures, report.first)
            failures, values = dict(report.failures), iter(report.values)
            for index in range(report.first, report.first + report.n_ended):
                found[index] = _Failed(failures[index]) if index in failures else next(values)
        self._isolated.close()
        for outcome in found.values():
            if isinstance(outcome, _Failed) and isinstance(outcome.error, KeyboardInterrupt):
                raise outcome.error  # the user's: tasks run in the main thread
        return [found[index] for index in range(n)]


def map_and_check(
    verb: Callable[..., list[Any]], function: Callable[[Any], Any], items: Any, n: int | None, call: Mapping[str, Any]
) -> list[Any]:
    """``verb(function, items, **call)``, its first `n` results compared with those of a serial run.

    Parameters
    ----------
    verb : callable
        ``pool.map``.
    n : int or None
        Nothing is compared without a number.
    """
    __tracebackhide__ = True
    if n is None:
        return verb(function, items, **call)
    items = items if is_sliceable(items) else list(items)
    rehearsal = Rehearsal(function, items, n, seed=call.get("seed"))
    skips = call.get("on_error") == "skip"  # what is left out would shift the others
    outcomes = verb(function, items, **{**call, **({"on_error": "return"} if skips else {})})
    rehearsal.compare(outcomes)
    return [one for one in outcomes if not isinstance(one, TaskError)] if skips else outcomes


def imap_and_check(
    verb: Callable[..., Iterator[Any]], function: Callable[[Any], Any], items: Any, n: int, call: Mapping[str, Any]
) -> Iterator[Any]:
    """The same for results that come one by one, of which perhaps not all are needed.

    Parameters
    ----------
    verb : callable
        ``pool.imap``.
    """
    __tracebackhide__ = True
    rest = iter(items)
    first = list(islice(rest, n))
    rehearsal = Rehearsal(function, first, n, seed=call.get("seed"))
    skips = call.get("on_error") == "skip"
    outcomes: Any = verb(function, chain(first, rest), **{**call, **({"on_error": "return"} if skips else {})})
    came: list[Any] = []
    try:
        for outcome in outcomes:
            if len(came) < len(first):
                came.append(outcome)
                if len(came) == len(first):
                    rehearsal.compare(came)
            if not (skips and isinstance(outcome, TaskError)):
                yield outcome
    except GeneratorExit:
        if len(came) < len(first):
            rehearsal.compare(came)
        raise
    finally:
        outcomes.close()


class _Failed:
    """A task that has raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = strip_own_frames(error)


class _Text:
    """Shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown(outcome: Any) -> Any:
    error = outcome.error if isinstance(outcome, _Failed) else outcome
    if isinstance(error, TaskError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(outcome, _Failed | TaskError):
        return _Text(f"raised {type(error).__name__}: {safe_str(error)}")
    return outcome


def _differs(where: str, index: int, found: tuple[str, Any, Any]) -> CheckError:
    path, worker, serial = found
    at = f", at {path}" if path else ""
    error = CheckError(
        f"--check: {where} does not give the same serially{at}\n"
        f"  in a worker: {_value(worker)}\n"
        f"  serially:    {_value(serial)}\n"
        f"{CAUSES} Nothing was stored."
    )
    error.index = index
    return error


def _value(value: Any) -> str:
    text = repr(value) if isinstance(value, _Text) else short_repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _random_states() -> tuple[Any, Any]:
    numpy = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else numpy.random.get_state()


def _set_random_states(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    if states[1] is not None:
        sys.modules["numpy"].random.set_state(states[1])
