"""The notebook's view: a live card under the cell that started the job, replaced by a picture that stays.

The card is an anywidget (``dashboard.js``); where anywidget is missing it is the static picture of
:mod:`nbpar.views.report`, refreshed twice a second. Only the ticker's thread draws; clicks arrive on whatever thread
the kernel chooses and do nothing but call :class:`~nbpar.views.controls.Controls`.
"""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views import report
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import write_lines
from nbpar.views.scene import Scene, packed

__all__ = ["Dashboard"]

HTML_PERIOD_S = 0.5
FULL_PERIOD_S = 20.0  # all of it, at most 1 MB: a front end that missed something may ask a kernel too busy to answer


class Dashboard:
    """Draws a job under the cell that started it.

    Parameters
    ----------
    cell : Cell
        That cell.
    controls : Controls or None
        Behind the Cancel button; without, there is no button.
    live : bool
        False: static HTML, refreshed, even where anywidget is installed.
    """

    shows_notes = True  # so they need not be written out
    is_copy = False  # whether another view writes the job's lines into its cell

    def __init__(self, cell: Cell, controls: Controls | None, *, live: bool = True) -> None:
        self._cell = cell
        self._live = live
        self._display_id = f"nbpar-{uuid.uuid4().hex}"
        self._scene = Scene()
        self._link = _Link(self._scene, controls)
        self._widget: Any = None
        self._is_shown = False
        self._next_html_s = 0.0
        self._next_full_s = 0.0

    def open(self, snapshot: Snapshot) -> None:
        """Show the card."""
        now_s = monotonic()
        self._next_html_s, self._next_full_s = now_s + HTML_PERIOD_S, now_s + FULL_PERIOD_S
        bundle = _static(snapshot)
        self._is_shown = True
        if self._live and not snapshot.ended:
            try:
                widget_class = _widget_class()
            except ImportError:
                self._live = False
            else:
                self._scene.change(snapshot, cell_is_running=self._is_waited_for())
                with self._cell.enter():
                    self._widget = widget_class(self._link)
                    bundle |= self._widget.view_bundle()
        self._cell.publish(bundle, self._display_id)

    def update(self, snapshot: Snapshot) -> None:
        """Send what changed."""
        now_s = monotonic()
        if self._widget is None:
            if now_s >= self._next_html_s:
                self._next_html_s = now_s + HTML_PERIOD_S
                self._cell.publish(_static(snapshot), self._display_id, update=True)
            return
        message = self._scene.change(snapshot, cell_is_running=self._is_waited_for())
        if self._link.wants_all or now_s >= self._next_full_s:
            self._next_full_s = now_s + FULL_PERIOD_S
            self._link.wants_all = False
            self._widget.send({"scene": self._scene.full()})
        else:
            _send(self._widget, message)

    def _is_waited_for(self) -> bool:
        controls = self._link.controls
        return controls is not None and controls.is_waited_for()

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines into the cell, and keep the last ones for the card."""
        if self._live:
            self._scene.write(lines)
        if not self.is_copy:
            write_lines(lines, self._cell)

    def close(self, snapshot: Snapshot) -> None:
        """Replace the card by the picture that stays, and give the widget's comm back."""
        widget, self._widget = self._widget, None
        if widget is not None:  # first: a click under way must see that there is nothing left to cancel
            self._link.has_ended = True
            message = self._scene.change(snapshot, cell_is_running=self._is_waited_for())
            if self._link.wants_all or self._link.was_restored:  # no update comes after this one
                widget.send({"scene": self._scene.full()})
            else:
                _send(widget, message)
        # Nothing of a widget may stay in the saved output: a trusted reopen would show "model not found" instead.
        self._cell.publish(_static(snapshot), self._display_id, update=self._is_shown)
        # On a page that was reloaded JupyterLab has forgotten the display id, so the picture did not get there; closing
        # the widget would leave nothing. There the card stays, showing the end.
        if widget is not None and not self._link.was_restored:
            layout = widget.layout  # ipywidgets gives every widget one, with a comm of its own
            widget.close()
            layout.close()


def _send(widget: Any, message: dict[str, Any]) -> None:
    content, buffers = packed(message)
    widget.send({"scene": content}, buffers)


def _static(snapshot: Snapshot) -> dict[str, Any]:
    return {"text/html": report.to_html(snapshot), "text/plain": report.to_text(snapshot)}


class _Link:
    """What a widget asks of its dashboard; without the widget's base class, which is only there once it is needed."""

    def __init__(self, scene: Scene, controls: Controls | None) -> None:
        self.scene = scene
        self.controls = controls
        self.wants_all = False  # a front end has missed a message
        self.has_ended = False  # no update will answer it
        self.was_restored = False  # a front end has asked for the state of all widgets

    def handle(self, widget: Any, content: object, _buffers: object = None) -> None:
        """Take a message of the front end; called on the main thread, or on a subshell's while a cell runs."""
        if not isinstance(content, dict):
            return
        if content.get("want") == "all":
            self.wants_all = True
            if self.has_ended:
                widget.send({"scene": self.scene.full()})
        job_id = self.scene.job_id
        if job_id is None or self.controls is None:
            return
        for verb in ("cancel", "pause", "resume"):
            if content.get(verb) == job_id:
                getattr(self.controls, verb)()  # first: whoever sees the answer may count on it
                widget.send({"ack": job_id, "of": verb})
        if content.get("ping") == job_id:
            widget.send({"pong": job_id})


@cache
def _widget_class() -> Any:
    """The widget's class; made on first use because its base takes 0.3 s to import.

    Raises
    ------
    ImportError
        anywidget or ipywidgets is not there.
    """
    import anywidget
    import traitlets

    class JobCard(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("dashboard.js").read_text(encoding="utf-8")
        scene = traitlets.Dict().tag(sync=True)
        can_cancel = traitlets.Bool(False).tag(sync=True)

        def __init__(self, link: _Link) -> None:
            self._link = link
            super().__init__(can_cancel=link.controls is not None)
            self.on_msg(link.handle)

        def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
            """The traits, with the scene as it is now: a model made late or again starts from everything."""
            if key is None and self.comm is not None:
                self._link.was_restored = True
            state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
            if "scene" in state:
                state["scene"] = self._link.scene.full()
            return state

        def view_bundle(self) -> dict[str, Any]:
            """What shows the widget, without a text of its own."""
            bundle: Any = self._repr_mimebundle_()
            data = bundle[0] if isinstance(bundle, tuple) else bundle
            return {mime: content for mime, content in data.items() if not mime.startswith("text/")}

    return JobCard
