"""Which view a job gets: decided once, when there is something to show, by :func:`nbpar.views.choose`."""

from __future__ import annotations

import os
import sys
from typing import Literal

from nbpar.engine.snapshot import View
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import PlainOutput
from nbpar.views.terminal import can_move, is_live

__all__ = ["choose"]


_WISHES = ("", "anywidget", "html", "text", "detail", "off")


def choose(progress: bool | Literal["detail"] | None, *, cell: Cell | None, controls: Controls | None) -> View:
    """Pick the view for a job when there is something to show.

    Parameters
    ----------
    progress : bool, "detail" or None
        False: no picture, only workers' lines. True: a picture even where stderr is no terminal. ``"detail"``: in a
        terminal, a row for each worker. None: what suits.
    cell : Cell or None
        The cell that started the job: :meth:`Cell.current` in the thread that did.
    controls : Controls or None
        What the view's buttons do; without, there are no buttons.

    Returns
    -------
    View
        In a Jupyter kernel the dashboard, in a terminal a bar, else only workers' lines; with ``progress=True``, in a
        file or in a CI log, a line now and then. ``NBPAR_UI`` set to ``anywidget``, ``html``, ``text``, ``detail`` or
        ``off`` overrides both `progress` and this choice.

    Examples
    --------
    >>> type(choose(False, cell=None, controls=None)).__name__
    'PlainOutput'
    """
    wish = os.environ.get("NBPAR_UI", "").strip().lower()
    if wish not in _WISHES:
        import logging

        allowed = f"{', '.join(_WISHES[1:-1])} or {_WISHES[-1]}"
        logging.getLogger("nbpar").warning("NBPAR_UI=%s is not known; it may be %s", wish, allowed)
        wish = ""
    if wish == "off" or (not wish and progress is False):
        return PlainOutput(cell)
    if cell is not None and wish not in ("text", "detail"):
        from nbpar.views.dashboard import Dashboard

        return Dashboard(cell, controls, live=wish != "html")
    if cell is None and not is_live(sys.stderr):
        if not (wish or progress):
            return PlainOutput(cell)
        from nbpar.views.milestones import Milestones

        return Milestones(cell)
    return _moving(cell, detail="detail" in (wish, progress) and cell is None and can_move())


def _moving(cell: Cell | None, *, detail: bool) -> View:
    """A view for a terminal, or for a kernel whose output is to look like one."""
    from importlib.util import find_spec

    if detail and find_spec("rich") is not None:
        from nbpar.views.richtext import RichView

        return RichView()
    if find_spec("tqdm") is None:
        return PlainOutput(cell)
    from nbpar.views.text import TextView

    return TextView(cell, detail=detail)
