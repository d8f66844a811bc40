"""Which files are checkpoints, and may be trusted; and how a new one comes to be.

Results are pickles, and loading a pickle runs what stands in it. So a file is used only if it belongs to this user and
nobody else may write to it; that is seen before it is opened, and once more when SQLite has opened it and what lies
beside it, so that an exchange in between is noticed. All checks read by way of SQLite alone: to open and close a file
beside it would drop the locks that other connections of this process have (https://www.sqlite.org/howtocorrupt.html).
A file that is refused is not changed. Called by :mod:`nbpar.store.journal`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbpar.errors import CheckpointError

__all__ = ["APPLICATION_ID", "FORMAT", "SCHEMA", "check", "check_owners", "create", "open_for_reading"]

APPLICATION_ID = int.from_bytes(b"nbpr", "big")
"""In the header of the file; `file` and other programs show it."""

FORMAT = 1
"""Goes up when a file of an older nbpar would be misread."""

SCHEMA = (
    """CREATE TABLE functions (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, fingerprint BLOB NOT NULL UNIQUE, parts TEXT NOT NULL
    )""",
    """CREATE TABLE results (
        function INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
        written_s REAL NOT NULL, PRIMARY KEY (function, key)
    )""",
)

MIN_BYTES = 512  # SQLite's smallest page

MAX_CHECKED_BYTES = 64 << 20
"""Larger files are not read through for damage before they are used (0.1 s here); damage is met when it is read."""

_LOGS = ("-wal", "-journal")
_SIDES = ("-wal", "-journal", "-shm")


def check(path: Path) -> bool:
    """See whether the file is a checkpoint of this user's, whole and writable.

    Returns
    -------
    bool
        False when there is no such file.

    Raises
    ------
    CheckpointError
        When there is one that is not to be used.
    """
    if not _is_there(path):
        return False
    check_owners(path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise CheckpointError(str(path), "it may not be read and written by this user")
    _check_content(path)
    return True


def check_owners(path: Path) -> None:
    """See whether a file, and what lies beside it, are this user's alone to write.

    Raises
    ------
    CheckpointError
        When they are not.
    """
    for one in (path, *(_beside(path, side) for side in _SIDES)):
        _check_owner(path, one)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, and leaves nothing beside the file.

    Raises
    ------
    CheckpointError
        When it is no checkpoint.
    sqlite3.Error
        When it cannot be opened.
    """
    if not _is_there(path):
        raise CheckpointError(str(path), "there is no such file", was_there=False)
    _check_content(path)
    return _connect(path, "mode=ro" if _has_log(path) else "mode=ro&immutable=1")


def _is_there(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise CheckpointError(str(path), f"it cannot be looked at: {error}") from error
    if stat.S_ISDIR(mode):
        raise CheckpointError(str(path), "it is a folder")
    if not stat.S_ISREG(mode):
        raise CheckpointError(str(path), "it is not a regular file")
    return True


def _check_owner(path: Path, one: Path) -> None:
    try:
        status = one.stat()
    except OSError:
        return
    what = "it" if one == path else f"{one.name} beside it"
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        why = f"{what} belongs to another user, and loading results runs what stands in the file"
        raise CheckpointError(str(path), f"{why} (if you trust it: copy it, and name the copy)")
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"{what} may be written by others, and loading results runs what stands in the file"
        raise CheckpointError(str(path), f"{why} (if you trust it: chmod go-w {one.name})")


def _check_content(path: Path) -> None:
    """See by its header, its tables and its size whether it is a checkpoint."""
    if (size_bytes := path.stat().st_size) < MIN_BYTES:
        raise CheckpointError(str(path), "it is too short to be one" if size_bytes else "it is empty")
    for _ in range(3):
        before = _mark(path)
        try:
            return _look_into(path)
        except CheckpointError:
            if _mark(path) == before:  # else another kernel has changed it meanwhile, and it was read half and half
                raise
    return _look_into(path)


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _look_into(path: Path) -> None:
    try:
        # As it lies there, without the log of transactions beside it, which reading may otherwise touch.
        with contextlib.closing(_connect(path, "mode=ro&immutable=1")) as connection:
            application, number = _pragma(connection, "application_id"), _pragma(connection, "user_version")
            if application != APPLICATION_ID:
                raise CheckpointError(str(path), "it is a database of another program")
            if number > FORMAT:
                raise CheckpointError(str(path), "it was made by a newer version of nbpar")
            if not _has_log(path):
                _check_whole(connection, path, path.stat().st_size)
        if _beside(path, "-wal").exists():
            with contextlib.closing(_connect(path, "mode=ro")) as connection:
                _check_whole(connection, path, size_bytes=None)
    except sqlite3.DatabaseError as error:
        raise CheckpointError(str(path), f"it is no checkpoint, or it is damaged ({error})") from error


def _check_whole(connection: sqlite3.Connection, path: Path, size_bytes: int | None) -> None:
    n_bytes = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    if size_bytes is not None and size_bytes < n_bytes:
        raise CheckpointError(str(path), "its end is missing")
    query = "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    if [sql for (sql,) in connection.execute(query)] != sorted(SCHEMA):
        raise CheckpointError(str(path), "it does not have the tables of a checkpoint")
    if n_bytes <= MAX_CHECKED_BYTES:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise CheckpointError(str(path), f"it is damaged ({' '.join(str(said).split())})")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _beside(path: Path, side: str) -> Path:
    return Path(os.path.realpath(path) + side)  # SQLite follows links, too


def _has_log(path: Path) -> bool:
    """Whether transactions stand beside the file that are not in it: a kernel uses it, or was killed."""
    return any(_beside(path, side).exists() for side in _LOGS)


# --- a new file -------------------------------------------------------------------------------------------------------


def create(path: Path) -> None:
    """Make an empty checkpoint, for this user alone; no other process ever sees half of it.

    Does nothing when another process has made one meanwhile.

    Raises
    ------
    CheckpointError
        When it cannot be made there.
    """
    named, path = path, Path(os.path.realpath(path))
    made = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=OFF")  # there is nothing in it to be lost yet
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={FORMAT}")
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute("PRAGMA journal_mode=WAL")
            with _one_at_a_time(path.parent):
                _put_in_place(made, path)
        finally:
            made.unlink(missing_ok=True)
    except (OSError, sqlite3.Error, ValueError) as error:
        raise CheckpointError(str(named), f"it cannot be made: {error}", was_there=False) from error


def _put_in_place(made: Path, path: Path) -> None:
    if path.exists():
        return
    for side in _SIDES:
        # Of a file that was removed without them: SQLite would take them for this one's. Nobody else can be at work
        # with this file, for it is not there yet.
        _beside(path, side).unlink(missing_ok=True)
    try:
        os.link(made, path)  # fails, unlike a rename, where there is a file
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            made.rename(path)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other processes from putting a file into place meanwhile, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks for folders
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
