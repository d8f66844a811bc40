"""A look-up in a database that each worker opens once."""

from __future__ import annotations

import sqlite3
from typing import Any

__all__ = ["begin_state", "connect", "look_up", "look_up_here", "look_up_in_state", "open_here"]

_connection: sqlite3.Connection | None = None


def connect() -> sqlite3.Connection:
    """Open a small database in memory."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.execute("create table squares (number integer primary key, square integer)")
    connection.executemany("insert into squares values (?, ?)", ((number, number**2) for number in range(1000)))
    return connection


def look_up(connection: sqlite3.Connection, number: int) -> int:
    """The square of a number below 1000."""
    (square,) = connection.execute("select square from squares where number = ?", (number,)).fetchone()
    return int(square)


def open_here() -> None:
    """Initializer of pools."""
    global _connection
    _connection = connect()


def look_up_here(number: int) -> int:
    """`look_up` with the worker's global connection, opened when it is not there yet."""
    if _connection is None:
        open_here()
    assert _connection is not None
    return look_up(_connection, number)


def begin_state(state: dict[str, Any]) -> None:
    """MPIRE's worker_init."""
    state["connection"] = connect()


def look_up_in_state(state: dict[str, Any], number: int) -> int:
    """MPIRE's task."""
    return look_up(state["connection"], number)
