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

from nbpar.engine.events import OutputLine, Snapshot
from nbpar.views import report
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.plain import write_lines
from nbpar.views.scene import Scene

__all__ = ["Dashboard"]

HTML_PERIOD_S = 0.5
FULL_PERIOD_S = 5.0  # everything again: for a front end that came late and whose question the busy kernel cannot answer


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

    def __init__(self, cell: Cell, controls: Controls | None, *, live: bool = True) -> None:
        self._cell = cell
        self._controls = controls
        self._live = live
        self._display_id = f"nbpar-{uuid.uuid4().hex}"
        self._scene = Scene()
        self._widget: Any = None
        self._next_html_s = 0.0
        self._next_full_s = 0.0

    def open(self, snapshot: Snapshot) -> None:
        """Show the card."""
        now_s = monotonic()
        self._next_html_s, self._next_full_s = now_s + HTML_PERIOD_S, now_s + FULL_PERIOD_S
        bundle = _static(snapshot)
        if self._live:
            try:
                widget_class = _widget_class()
            except ImportError:
                self._live = False
            else:
                self._scene.change(snapshot, cell_is_running=self._cell.is_running)
                with self._cell.enter():
                    self._widget = widget_class(self._scene, self._controls)
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
        message = self._scene.change(snapshot, cell_is_running=self._cell.is_running)
        if self._widget.wants_all or now_s >= self._next_full_s:
            self._next_full_s = now_s + FULL_PERIOD_S
            self._widget.wants_all = False
            message = self._scene.full()
        self._widget.send({"scene": message})

    def write(self, lines: list[OutputLine]) -> None:
        """Write workers' lines into the cell."""
        write_lines(lines, self._cell)

    def close(self, snapshot: Snapshot) -> None:
        """Replace the card by the picture that stays, and give the widget's comm back."""
        widget, self._widget = self._widget, None
        if widget is not None:  # first: a click under way must see that there is nothing left to cancel
            widget.send({"scene": self._scene.change(snapshot, cell_is_running=self._cell.is_running)})
        # Nothing of a widget may stay in the saved output: a trusted reopen would show "model not found" instead.
        self._cell.publish(_static(snapshot), self._display_id, update=True)
        if widget is not None:
            widget.shut()


def _static(snapshot: Snapshot) -> dict[str, Any]:
    return {"text/html": report.to_html(snapshot), "text/plain": report.to_text(snapshot)}


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

        def __init__(self, scene: Scene, controls: Controls | None) -> None:
            self._scene = scene
            self._controls = controls
            self.wants_all = False
            self._restored = False
            super().__init__(can_cancel=controls is not None)
            self.on_msg(self._on_message)

        def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
            """The traits, with the scene as it is now: a model made late or again starts from everything."""
            if key is None and self.comm is not None:
                self._restored = True
            state: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
            if key is None or key == "scene" or (not isinstance(key, str) and "scene" in key):
                state["scene"] = self._scene.full()
            return state

        def _on_message(self, _widget: object, content: object, _buffers: object) -> None:
            """Answer the front end; called on the main thread, or on a subshell's while a cell runs."""
            if not isinstance(content, dict):
                return
            if content.get("want") == "all":
                self.wants_all = True
            job = content.get("cancel")
            if job is not None and self._controls is not None and job == self._scene.job_id:
                self._controls.cancel()
                self.send({"ack": job})

        def view_bundle(self) -> dict[str, Any]:
            """What shows the widget, without a text of its own."""
            bundle: Any = self._repr_mimebundle_()
            data = bundle[0] if isinstance(bundle, tuple) else bundle
            return {mime: content for mime, content in data.items() if not mime.startswith("text/")}

        def shut(self) -> None:
            """Close the comm, and the layout's, which ipywidgets gives every widget.

            Not after a page was reloaded: JupyterLab has then forgotten the display id, so the static picture did not
            reach that page, and closing would leave nothing there. The card stays, showing the end.
            """
            if self._restored:
                return
            layout = self.layout
            self.close()
            if layout is not None:
                layout.close()

    return JobCard
