"""The notebook cell a job belongs to, and how to write into it later from another thread.

A kernel sends output to the cell named by the *parent header* of the message it is handling. A thread has none of its
own, so what it prints goes to whichever cell ran last. :class:`Cell` remembers the header of the cell that started a
job; :meth:`Cell.enter` sets it for the calling thread alone. Used by the dashboard and by everything that prints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Cell", "name_cell"]

_in_fork = False


def _after_fork() -> None:
    global _in_fork
    _in_fork = True  # the kernel's sockets belong to the parent process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def kernel_shell() -> Any | None:
    """The shell of the kernel that this process is, None outside a kernel (and in a fork of one)."""
    ipython = sys.modules.get("IPython")  # not imported: then this is no kernel either
    if ipython is None or _in_fork:
        return None
    shell = ipython.get_ipython()
    if any(cls.__name__ == "ZMQInteractiveShell" for cls in type(shell).__mro__):
        return shell
    return None


def name_cell(file: str) -> str | None:
    """What people call the cell that Python knows by a file name: ``cell 12``; None for a file that is no cell.

    Examples
    --------
    >>> name_cell("model.py") is None
    True
    """
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    try:
        kind, name = shell.compile.format_code_name(file)
    except Exception:  # noqa: BLE001  # no shell, one of another kind, a name that it does not know
        return None
    number = "".join(filter(str.isdecimal, name))
    return f"{kind.lower()} {number}" if number else None


class Cell:
    """The cell that was running when this was made; :meth:`current` makes it.

    Parameters
    ----------
    shell : ZMQInteractiveShell
        The kernel's shell.
    parent : dict
        The execute request, header included, that started the cell.
    """

    def __init__(self, shell: Any, parent: dict[str, Any]) -> None:
        self._shell = shell
        self._parent = parent
        self._execution_count = shell.execution_count

    @classmethod
    def current(cls) -> Cell | None:
        """The cell that runs now in the calling thread, None outside a kernel.

        Examples
        --------
        >>> Cell.current() is None  # not in a notebook
        True
        """
        shell = kernel_shell()
        return None if shell is None else cls(shell, shell.get_parent())

    @property
    def is_running(self) -> bool:
        """Whether this cell still runs, so that an interrupt of the kernel would reach it and no other."""
        return bool(self._shell.execution_count == self._execution_count)

    @property
    def is_current(self) -> bool:
        """Whether what the calling thread displays goes to this cell."""
        return bool(self._shell.get_parent() == self._parent)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Let what the calling thread prints and displays go to this cell; the thread's own setting comes back after.

        Thread-safe: other threads and the kernel's globals are left alone.
        """
        shell = self._shell
        if hasattr(shell, "set_thread_parent"):  # ipykernel >= 7.4
            tokens = shell.set_thread_parent(self._parent)
            try:
                yield
            finally:
                shell.reset_thread_parent(tokens)
            return
        # Before 7.4 set_parent sets the thread's variable *and* the global one, which could misplace what other threads
        # print meanwhile; so the variables are set one by one, as set_thread_parent does. Streams have them since
        # ipykernel 6.29, the display publisher since 7.0 (6.x: see `publish`).
        header = self._parent.get("header", self._parent)
        entered: list[tuple[ContextVar[Any], Any]] = []
        for target in (shell, shell.displayhook, shell.display_pub, sys.stdout, sys.stderr):
            variable = getattr(target, "_parent_header", None)
            if isinstance(variable, ContextVar):
                entered.append((variable, variable.set(self._parent if target is shell else header)))
        try:
            yield
        finally:
            for variable, token in reversed(entered):
                variable.reset(token)

    def publish(self, data: dict[str, Any], display_id: str, *, update: bool = False) -> None:
        """Show a mime bundle in this cell, or replace the one shown under `display_id`.

        Parameters
        ----------
        data : dict
            Mime type to content.
        display_id : str
            Names the output for later updates.
        update : bool
            Replace what is shown under `display_id`, wherever that is.
        """
        publisher = self._shell.display_pub
        transient = {"display_id": display_id}
        one_header_for_all = not isinstance(getattr(publisher, "_parent_header", None), ContextVar)
        if one_header_for_all and hasattr(publisher, "session"):  # ipykernel 6: say the parent in the message itself
            publisher.session.send(
                publisher.pub_socket,
                "update_display_data" if update else "display_data",
                {"data": data, "metadata": {}, "transient": transient},
                parent=self._parent,
                ident=publisher.topic,
            )
            return
        with self.enter():
            publisher.publish(data, metadata={}, transient=transient, update=update)
