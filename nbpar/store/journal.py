"""The checkpoint file: results by function and item, in SQLite.

One :class:`Journal` for each job that has one. Opening it says whether the file can be trusted and used, before any
work starts, and leaves a file that is refused as it is. What was written survives the kernel: a commit has reached the
operating system when :meth:`Journal.put` returns, and a ``kill -9`` takes nothing of it (a power cut may take the last
moments, never more). Several kernels may have the file open, each transaction is short.

Nothing here unpickles. The bytes of results are :mod:`nbpar.store.values`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nbpar.errors import CheckpointError
from nbpar.store.files import check, check_owners, create, open_for_reading

__all__ = ["FunctionRow", "Journal", "Version", "describe"]

BUSY_S = 20.0
"""How long to wait for another kernel's transaction: milliseconds mostly, seconds for results of a gigabyte."""

WAL_PAGES = 4000
"""Pages in the side file before SQLite moves them over and waits for the disk (16 MB)."""

N_KEYS = 500  # in one query; SQLite takes 999 everywhere

_NEW_RESULT = "INSERT OR REPLACE INTO results (function, key, value, crc, written_s) VALUES (?, ?, ?, ?, ?)"


class Version(NamedTuple):
    """A function in the file, in one of its versions: what `parts` it consists of, and how many results it has."""

    n_results: int
    parts: Mapping[str, str]


class FunctionRow(NamedTuple):
    """What a file has of one function in one version."""

    name: str
    fingerprint: str
    n_results: int
    size_bytes: int
    first_s: float | None
    last_s: float | None


class Journal:
    """An open checkpoint file, for the results of one function.

    Used by one thread at a time: by the caller's until its job begins, then by the one that does the pool's work.

    Parameters
    ----------
    path : Path
        Made if it does not exist, for its owner alone.

    Raises
    ------
    CheckpointError
        When the file cannot be used; it is as it was.
    """

    _function: int | None = None
    _connection: sqlite3.Connection | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        if not check(path):
            create(path)
        self._connect()

    def _connect(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA journal_mode=WAL")  # where the folder cannot have it SQLite keeps the old mode
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            check_owners(self.path)  # of what is open now; nothing has been loaded from it
        except (sqlite3.Error, CheckpointError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, CheckpointError):
                raise
            raise _refused(self.path, error) from error
        self._connection = connection
        _open_journals.add(self)

    def twin(self) -> Journal:
        """The same file and function once more, for another thread."""
        twin = Journal.__new__(Journal)
        twin.path, twin._function = self.path, self._function
        twin._connect()
        return twin

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the checkpoint was closed")
        return self._connection

    # --- before the job -----------------------------------------------------------------------------------------------

    def begin(self, name: str, fingerprint: bytes, parts: Mapping[str, str]) -> Version | None:
        """Say which function the results are of.

        Parameters
        ----------
        name : str
            What the user calls it.
        fingerprint : bytes
            Tells its versions apart.
        parts : mapping of str to str
            What it consists of, kept to say later what has changed.

        Returns
        -------
        Version or None
            The newest other version that has results, when this one is new to the file.
        """
        try:
            row = self._db.execute("SELECT id FROM functions WHERE fingerprint = ?", (fingerprint,)).fetchone()
            if row is not None:
                self._function = row[0]
                # Whether it can be written is to be known before the work, not after it.
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("COMMIT")
                return None
            before = self._newest(name)
            self._db.execute(
                "INSERT OR IGNORE INTO functions (name, fingerprint, parts) VALUES (?, ?, ?)",
                (name, fingerprint, json.dumps(dict(parts))),
            )
            row = self._db.execute("SELECT id FROM functions WHERE fingerprint = ?", (fingerprint,)).fetchone()
            self._function = row[0]
        except (sqlite3.Error, ValueError) as error:
            raise _refused(self.path, error) from error
        return before

    def _newest(self, name: str) -> Version | None:
        rows = self._db.execute("SELECT id, parts FROM functions WHERE name = ? ORDER BY id DESC", (name,))
        for number, parts in rows:
            (n_results,) = self._db.execute("SELECT count(*) FROM results WHERE function = ?", (number,)).fetchone()
            if n_results:
                return Version(n_results, json.loads(parts))
        return None

    @property
    def is_empty(self) -> bool:
        """Whether the file has no result of the function."""
        query = "SELECT 1 FROM results WHERE function = ? LIMIT 1"
        try:
            return self._db.execute(query, (self._function,)).fetchone() is None
        except sqlite3.Error as error:
            raise _refused(self.path, error) from error

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The results that the file has for these keys, at most `N_KEYS` of them; what is damaged it has not."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value, crc FROM results WHERE function = ? AND key IN ({marks})"
        try:
            rows = self._db.execute(query, (self._function, *keys)).fetchall()
        except sqlite3.Error as error:
            raise _refused(self.path, error) from error
        return {key: value for key, value, crc in rows if zlib.crc32(value) == crc}

    # --- while the job runs -------------------------------------------------------------------------------------------

    def put(self, results: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep results, pairs of key and value, in one transaction.

        Raises
        ------
        sqlite3.Error
            When they could not be kept; then none of them is.
        """
        now_s, function = time.time(), self._function
        rows = [(function, key, value, zlib.crc32(value), now_s) for key, value in results]
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_NEW_RESULT, rows)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has SQLite roll back by itself
                db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Let go of the file; the last one that does moves all that was written into the file itself."""
        connection, self._connection = self._connection, None
        _open_journals.discard(self)
        if connection is not None:
            with _closing:
                connection.close()

    def __del__(self) -> None:
        self.close()


def describe(path: Path) -> list[FunctionRow]:
    """What a file has, function by function, the oldest first; it is not changed and no result is read.

    Raises
    ------
    CheckpointError
        When it is no checkpoint.
    """
    try:
        with contextlib.closing(open_for_reading(path)) as connection:
            # By the table, not by its index, which would fetch the rows one by one.
            totals = connection.execute(
                "SELECT function, count(*), total(length(value)), min(written_s), max(written_s) "
                "FROM results NOT INDEXED GROUP BY function"
            )
            known = {number: figures for number, *figures in totals}
            functions = connection.execute("SELECT id, name, fingerprint FROM functions ORDER BY id").fetchall()
    except sqlite3.Error as error:
        raise _refused(path, error) from error
    rows = []
    for number, name, fingerprint in functions:
        n_results, size_bytes, first_s, last_s = known.get(number, (0, 0, None, None))
        rows.append(FunctionRow(str(name), bytes(fingerprint).hex(), n_results, int(size_bytes), first_s, last_s))
    return rows


def _refused(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(str(path), f"it cannot be used: {error}")


# --- forks ------------------------------------------------------------------------------------------------------------

_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_inherited: list[Journal] = []  # what a fork got with its parent's memory
# Held while a connection closes. Of two that close at once each takes the other for one that stays, and the log is left
# beside the file. Reentrant: the garbage collector may close a journal at any moment.
_closing = threading.RLock()


def _keep_after_fork() -> None:
    """Never close the parent's connections in a child: that would let go of what the parent relies on."""
    global _closing
    _inherited.extend(_open_journals)
    _closing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_after_fork)
