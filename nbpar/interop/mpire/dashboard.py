"""MPIRE's ``mpire.dashboard``, for programs that start one: nbpar shows each job where it runs, and has no server.

MPIRE's dashboard listens on all network interfaces, beside a manager that unpickles what it is sent. nbpar opens no
port at all: in a notebook each job has its live card below its cell, in a terminal its bar. So these functions keep
MPIRE's rules, say once what is shown where, and return without an address. Called by users only.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

from nbpar.interop.mpire.checks import check_number

__all__ = ["connect_to_dashboard", "get_stacklevel", "set_stacklevel", "shutdown_dashboard", "start_dashboard"]

_INSTEAD = (
    "nbpar opens no port: each job is shown where it runs, in a notebook as a card below its cell, in a terminal as a "
    "bar; nbpar.jobs() has all of them"
)


class _State:
    """What a program has asked for."""

    def __init__(self) -> None:
        self.is_started = False
        self.stacklevel = 1
        self.lock = threading.Lock()  # guards the two above

    def start(self, refusal: str) -> None:
        with self.lock:
            if self.is_started:
                raise RuntimeError(refusal)
            self.is_started = True


_state = _State()


def start_dashboard(
    port_range: Sequence[int] = range(8080, 8100),  # noqa: ARG001
) -> dict[str, int | str | None]:
    """Nothing is started: jobs are shown where they run.

    Parameters
    ----------
    port_range : sequence of int
        Is not used: no port is opened.

    Returns
    -------
    dict
        MPIRE's keys, ``dashboard_port_nr``, ``manager_host`` and ``manager_port_nr``; there is none, so all are None.

    Raises
    ------
    RuntimeError
        When it was called before, as in MPIRE.

    Warns
    -----
    UserWarning
        Says where to look instead.
    """
    _state.start("a dashboard is running already")
    warnings.warn(f"start_dashboard() starts no server: {_INSTEAD}", UserWarning, stacklevel=2)
    return dict.fromkeys(("dashboard_port_nr", "manager_host", "manager_port_nr"))


def connect_to_dashboard(
    manager_port_nr: int,
    manager_host: bytes | str | None = None,  # noqa: ARG001
) -> None:
    """No connection is made: jobs are shown where they run.

    Parameters
    ----------
    manager_port_nr : int
        Is checked, and not used.
    manager_host : str or bytes, optional
        Is not used.

    Raises
    ------
    RuntimeError
        When a dashboard was started or connected to before, as in MPIRE.

    Warns
    -----
    UserWarning
        Says where to look instead.
    """
    check_number(manager_port_nr, "manager_port_nr", (int,), none_allowed=False, min_=0)
    _state.start("there is a connection to a dashboard already")
    warnings.warn(f"connect_to_dashboard() connects to no server: {_INSTEAD}", UserWarning, stacklevel=2)


def shutdown_dashboard() -> None:
    """Undo `start_dashboard` and `connect_to_dashboard`; does nothing where neither was called.

    Examples
    --------
    >>> shutdown_dashboard()
    """
    with _state.lock:
        _state.is_started = False


def get_stacklevel() -> int:
    """What `set_stacklevel` has set; 1 before."""
    return _state.stacklevel


def set_stacklevel(stacklevel: int) -> None:
    """Keep a number for `get_stacklevel`.

    MPIRE looks by it for the line of the caller; nbpar names a job by its function, and shows it below its cell.

    Parameters
    ----------
    stacklevel : int
        1 or more.

    Examples
    --------
    >>> set_stacklevel(2)
    >>> get_stacklevel()
    2
    >>> set_stacklevel(1)
    """
    check_number(stacklevel, "stacklevel", (int,), none_allowed=False, min_=1)
    with _state.lock:
        _state.stacklevel = int(stacklevel)
