"""What nbpar adds to IPython: ``%%parallel``, ``%parallel`` and ``%nbpar``.

General layout: ``magics`` is the commands, ``options`` what can be written behind them, ``source`` the cell's text and
what is refused in it, ``cells`` and ``comprehensions`` the way from a text to a task, ``shell`` what ``!`` does inside
one, ``pools`` the workers, ``status`` and ``debug`` the parts of ``%nbpar``, ``completer`` the Tab key. Of the loop
form ``loops`` reads the text into a ``loop_model``, ``captures`` looks at the objects, ``loop_run`` runs it, ``replay``
does its effects. ``dry_run`` is ``--dry-run``, ``rehearsal`` is ``--check``. ``%load_ext nbpar`` calls the two
functions here; IPython is imported then.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(ip: InteractiveShell) -> None:
    """Register the magics and start the workers, so that the first map finds them running.

    Parameters
    ----------
    ip : InteractiveShell
        The shell that loads nbpar.

    Examples
    --------
    In a notebook: ``%load_ext nbpar``.
    """
    from nbpar.api import default_pool
    from nbpar.notebook.completer import add_completer
    from nbpar.notebook.magics import NbparMagics

    ip.register_magics(NbparMagics)
    add_completer(ip)
    default_pool().warm()
    # The first dashboard would load them, in the middle of its job, and hold the dispatcher up. The thread ends alone.
    threading.Thread(target=_load_widgets, name="nbpar-imports", daemon=True).start()


def _load_widgets() -> None:
    with contextlib.suppress(ImportError):  # without them the dashboard is plain HTML
        importlib.import_module("anywidget")


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """Take the magics back and end the workers; jobs under way are cancelled.

    Parameters
    ----------
    ip : InteractiveShell
        The shell that loaded nbpar.

    Examples
    --------
    In a notebook: ``%unload_ext nbpar``.
    """
    from nbpar.notebook.completer import remove_completer
    from nbpar.notebook.pools import shutdown_pools

    for kind, name in (("line", "nbpar"), ("line", "parallel"), ("cell", "parallel")):
        ip.magics_manager.magics[kind].pop(name, None)
    remove_completer(ip)
    shutdown_pools(cancel=True)
