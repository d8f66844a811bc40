"""Between a job and its checkpoint: what the file has already, and what is added as tasks end.

::

    user's thread       Checkpoint(...) -- look_up(items) --> results that are known, ranges that are to be done
                                                                   |                      |
    pool's work         backend --> Recorder.completed --> journal, then Job           JobSpec.todo

:mod:`nbpar.pool` makes a :class:`Checkpoint` for a call that has one, before any work, and puts its :class:`Recorder`
between the backend and the job. Without the option nothing of this is loaded.

Bounds: 16 bytes for each item of the input, and about 100 more while it is read; results are kept by the file alone.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from nbpar.backends.base import JobSink, StateEvent, safe_str
from nbpar.engine.events import Note, OutputLine, Restored
from nbpar.errors import CheckpointError, TaskError
from nbpar.store.fingerprint import Fingerprint, fingerprint
from nbpar.store.journal import N_KEYS, Journal, Version
from nbpar.store.keys import KEY_BYTES, NO_KEY, ItemKeys
from nbpar.store.values import from_bytes, to_bytes

__all__ = ["Checkpoint", "Recorder", "open_checkpoint"]

MAX_VALUE_BYTES = 900_000_000
"""SQLite takes no more than 1e9 bytes in one value."""

Range = tuple[int, int]

_log = logging.getLogger("nbpar")


class Showing(JobSink, Protocol):
    """A job, as far as it is needed here."""

    def show_now(self) -> None:
        """Have the job's notes seen although it may be over at once."""


def open_checkpoint(
    path: str,
    function: Callable[..., Any],
    name: str,
    *,
    star: bool,
    seed: int | None,
    worker_init: object,
    is_streamed: bool,
) -> Checkpoint:
    """Open a file, or make it, for the results of a function.

    Parameters
    ----------
    path : str
        ``~`` is the home folder.
    name : str
        What the user calls the function.
    star : bool
        Whether items are unpacked: then the same item means another call.
    seed : int, optional
        The job's, where the user gave one.
    worker_init : callable, optional
        The pool's: it may prepare what the function uses.
    is_streamed : bool
        Whether the input is looked up while the job runs: the recorder writes from another thread then.

    Raises
    ------
    CheckpointError
        When the file cannot be used; it is as it was.
    """
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # no home folder of that name
        raise CheckpointError(path, str(error), was_there=False) from error
    try:
        made_of = fingerprint(function, {"<call>": star, "the pool's worker_init": worker_init})
    except Exception as error:
        # Nested too deeply, or an object's own methods fail in ways of their own.
        why = f"what {name} uses cannot be compared ({type(error).__name__}: {safe_str(error)})"
        raise CheckpointError(path, why, was_there=False) from error
    journal = Journal(file)
    try:
        before = journal.begin(name, made_of.digest, made_of.parts)
        reader = journal.twin() if is_streamed else None
        return Checkpoint(journal, reader, name, ItemKeys(seed), _changed(before, made_of, name, file.name))
    except BaseException:
        journal.close()
        raise


def _changed(before: Version | None, now: Fingerprint, name: str, file: str) -> str:
    """The sentence on results that another version of the function left."""
    if before is None:
        return ""
    changed = {part for part in {*before.parts, *now.parts} if before.parts.get(part) != now.parts.get(part)}
    has = f"{file} has {_counted(before.n_results)} of another"
    if name in _NAMELESS and any(part.endswith(f"<{name}>()") for part in changed):
        return f"{has} {_NAMELESS[name]}{_ANEW}"
    names = sorted({part.rpartition("<locals>.")[2].removeprefix("class ") for part in changed} - {""})
    names = [one for one in names if "<" not in one]  # `<lambda>` says nothing to a user
    what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    because = f" ({what})" if what else ""
    whose = f"this {_NAMELESS[name]}" if name in _NAMELESS else name
    return f"{has} version of {whose}; the code has changed since{because}{_ANEW}"


_NAMELESS = {"lambda": "lambda", "cell": "cell"} | dict.fromkeys(
    ("listcomp", "setcomp", "dictcomp", "genexpr"), "comprehension"
)


def _counted(n_results: int) -> str:
    return f"{n_results:,} result" + "s" * (n_results != 1)


class Checkpoint:
    """One job's checkpoint; used by the thread of the user's call.

    Parameters
    ----------
    journal : Journal
        Open, and begun; owned from now on.
    reader : Journal, optional
        Its twin, for looking up while the journal is in use.
    changed : str
        What to tell of results that are there but do not count; may be empty.
    """

    def __init__(self, journal: Journal, reader: Journal | None, name: str, keys: ItemKeys, changed: str) -> None:
        self._journal = journal
        self._reader = reader
        self._name = name
        self._keys_of = keys
        self._changed = changed
        self._keys = bytearray()  # KEY_BYTES for each item that was read
        self._is_empty = journal.is_empty
        self._n_known = 0
        self._n_unreadable = 0
        self._why_unreadable = ""
        self._has_ended = False
        self._found: tuple[list[tuple[int, list[Any]]], list[Range] | None] = [], None

    def close(self) -> None:
        """Let go of the file; for a job that was not begun."""
        self.close_reader()
        self._journal.close()

    def close_reader(self) -> None:
        """Nothing more is looked up."""
        if self._reader is not None:
            self._reader.close()

    def attach(self, job: Showing) -> tuple[Recorder, list[Range] | None]:
        """Give the job what was found by :meth:`read`.

        Returns
        -------
        recorder : Recorder
            Stands between the backend and the job from now on.
        todo : list of (start, stop) or None
            The tasks that are left; None when the input was not read yet.
        """
        self._job = job
        if self._changed:
            self._tell(self._changed)
        (known, todo), self._found = self._found, ([], None)
        self.restore(known)
        if todo is not None:
            self.end_input()
        return Recorder(job, self._journal, self._keys, self._name), todo

    # --- the input ----------------------------------------------------------------------------------------------------

    def read(self, items: Iterable[Any]) -> None:
        """Look up the whole input, ahead of the job."""
        self._found = self.look_up(items)

    def go_on(self, before: Checkpoint) -> None:
        """Take the keys of a job's input from its checkpoint: what is left of it is to be done, and kept here."""
        self._keys = before._keys
        self._has_ended = True
        self._changed = self._changed.replace(_ANEW, ", so they count for that one alone")

    def look_up(self, items: Iterable[Any]) -> tuple[list[tuple[int, list[Any]]], list[Range]]:
        """Take the next items of the input.

        Returns
        -------
        known : list of (start, values)
            Results that the file has.
        todo : list of (start, stop)
            The others.
        """
        keys, of = self._keys, self._keys_of.of
        first = len(keys) // KEY_BYTES
        for index, item in enumerate(items, first):
            keys += of(index, item)
        stop = len(keys) // KEY_BYTES
        if self._is_empty:
            return [], [(first, stop)] if stop > first else []
        known: list[tuple[int, list[Any]]] = []
        todo: list[Range] = []
        for start in range(first, stop, N_KEYS):
            self._look_up(start, min(start + N_KEYS, stop), known, todo)
        return known, todo

    def _look_up(self, start: int, stop: int, known: list[tuple[int, list[Any]]], todo: list[Range]) -> None:
        keys = [bytes(self._keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]) for i in range(start, stop)]
        found = (self._reader or self._journal).find(keys)
        for index, key in enumerate(keys, start):
            data = found.pop(key, None) if key != NO_KEY else None
            value = self._load(data) if data is not None else _NONE
            if value is _NONE and todo and todo[-1][1] == index:
                todo[-1] = todo[-1][0], index + 1
            elif value is _NONE:
                todo.append((index, index + 1))
            elif known and known[-1][0] + len(known[-1][1]) == index:
                known[-1][1].append(value)
            else:
                known.append((index, [value]))

    def _load(self, data: bytes) -> Any:
        try:
            value = from_bytes(data)
        except Exception as error:  # noqa: BLE001  # whatever unpickling raises: a class or a module is not here
            self._n_unreadable += 1
            self._why_unreadable = self._why_unreadable or f"{type(error).__name__}: {safe_str(error)}"
            return _NONE
        self._n_known += 1
        return value

    def restore(self, known: Sequence[tuple[int, list[Any]]]) -> None:
        """Give the job results that the file had."""
        for start, values in known:
            self._job.completed(start, values)
        if n_tasks := sum(len(values) for _, values in known):
            self._job.apply(Restored(n_tasks))

    def end_input(self) -> None:
        """No more is read: tell, once, what came of it."""
        if self._has_ended:
            return
        self._has_ended = True
        self._keys_of.forget()
        n_tasks, file = len(self._keys) // KEY_BYTES, self._journal.path.name
        if self._n_known:
            n_left = n_tasks - self._n_known
            left = f"{n_left:,} {'was' if n_left == 1 else 'were'} left to compute" if n_left else "none was left"
            self._tell(f"{self._n_known:,} of {_counted(n_tasks)} came from {file}; {left}")
        if self._n_unreadable:
            self._tell(
                f"{_counted(self._n_unreadable)} in {file} could not be read and had to be computed again "
                f"({self._why_unreadable})"
            )

    def _tell(self, text: str) -> None:
        self._job.apply(Note(f"{text}.", aloud=True))
        self._job.show_now()


_NONE = object()

_ANEW = ", so this starts anew"


class Recorder:
    """A :class:`~nbpar.backends.base.JobSink` that keeps results before the job tells of them.

    Called by the one thread that does the pool's work. What a report of a worker holds is kept in one transaction: when
    the event that comes with it is told, results have been kept.

    Parameters
    ----------
    job : JobSink
        Is told all that this is told.
    keys : bytearray
        Of the items, by index.
    """

    def __init__(self, job: Showing, journal: Journal, keys: bytearray, name: str) -> None:
        self._job = job
        self._journal = journal
        self._keys = keys
        self._name = name
        self._waiting: list[tuple[int, Sequence[Any]]] = []
        self._is_kept = True
        self._told_lost = False

    def completed(self, start: int, values: Sequence[Any]) -> None:
        """Tasks ended with these values."""
        self._waiting.append((start, values))

    def apply(self, event: StateEvent) -> None:
        """Something happened that a snapshot shows."""
        if self._waiting:
            self._keep()
        self._job.apply(event)

    def write(self, line: OutputLine) -> None:
        """A task wrote a line."""
        self._job.write(line)

    def failed(self, error: TaskError) -> None:
        """A task failed: it is run again the next time."""
        self._keep()
        self._job.failed(error)

    def ended(self, status: Literal["done", "failed", "cancelled"], error: BaseException | None) -> None:
        """The job is over: the file is complete when whoever waits for it goes on."""
        self._keep()
        try:
            self._journal.close()
        except sqlite3.Error as problem:
            self._give_up(problem)
        self._job.ended(status, error)

    def _keep(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            if self._is_kept and waiting:
                self._journal.put([row for start, values in waiting for row in self._rows(start, values)])
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            self._give_up(error)
        finally:  # without workers a Ctrl-C may come here
            for start, values in waiting:
                self._job.completed(start, values)

    def _rows(self, start: int, values: Sequence[Any]) -> Iterable[tuple[bytes, bytes]]:
        for index, value in enumerate(values, start):
            key = bytes(self._keys[index * KEY_BYTES : (index + 1) * KEY_BYTES])
            if key == NO_KEY:
                self._tell_lost(index, "its item cannot be compared with others")
                continue
            try:
                data = to_bytes(value)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  # code of the user's; the result itself is fine
                self._tell_lost(index, f"{type(error).__name__}: {safe_str(error)}")
                continue
            if len(data) > MAX_VALUE_BYTES:
                self._tell_lost(index, f"it has {len(data):,} bytes, and the file takes {MAX_VALUE_BYTES:,}")
                continue
            yield key, data

    def _tell_lost(self, index: int, why: str) -> None:
        if not self._told_lost:
            self._told_lost = True
            file = self._journal.path.name
            self._tell(f"The result of item {index} cannot be kept in {file} ({why}): such tasks run again next time")

    def _give_up(self, error: BaseException) -> None:
        self._is_kept = False
        text = f"Results are no longer kept in {self._journal.path.name} ({error}); the job goes on without"
        _log.warning("nbpar: %s: %s", self._name, text)
        self._tell(text)

    def _tell(self, text: str) -> None:
        self._job.apply(Note(f"{text}.", aloud=True))
        self._job.show_now()
