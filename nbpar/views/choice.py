"""Which view a job gets: decided once, when there is something to show, by :func:`nbpar.views.choose`."""

from __future__ import annotations

import os
import sys

from nbpar.engine.snapshot import View
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import PlainOutput

__all__ = ["choose"]


def choose(progress: bool | None, *, cell: Cell | None, controls: Controls | None) -> View:
    """Pick the view for a job when there is something to show.

    Parameters
    ----------
    progress : bool or None
        False: no picture, only workers' lines. True: a picture even where stderr is no terminal. None: what suits.
    cell : Cell or None
        The cell that started the job: :meth:`Cell.current` in the thread that did.
    controls : Controls or None
        What the view's buttons do; without, there are no buttons.

    Returns
    -------
    View
        In a Jupyter kernel the dashboard, in a terminal a bar, else only workers' lines. ``NBPAR_UI`` set to
        ``anywidget``, ``html``, ``text`` or ``off`` overrides both `progress` and this choice.

    Examples
    --------
    >>> type(choose(False, cell=None, controls=None)).__name__
    'PlainOutput'
    """
    wish = os.environ.get("NBPAR_UI", "").strip().lower()
    if wish not in ("", "anywidget", "html", "text", "off"):
        import logging

        logging.getLogger("nbpar").warning("NBPAR_UI=%s is not known; it may be anywidget, html, text or off", wish)
        wish = ""
    if wish == "off" or (not wish and progress is False):
        return PlainOutput(cell)
    if cell is not None and wish != "text":
        from nbpar.views.dashboard import Dashboard

        return Dashboard(cell, controls, live=wish != "html")
    tty = sys.stderr is not None and sys.stderr.isatty()
    if wish or progress or tty:
        from importlib.util import find_spec

        from nbpar.views.text import TextView

        if find_spec("tqdm") is not None:
            return TextView(cell)
    return PlainOutput(cell)
