"""Cards on a bare page: dashboard.js on a model of the page's own, fed with scenes of snapshots made by hand.

No Jupyter, no kernel. For tests of what the card draws and says, and for pictures of any state of a job::

    with open_browser() as browser:
        gallery = Gallery(browser, theme="dark", width=900)
        card = gallery.show(snapshot)
        card.update(later)
        card.root.screenshot(path="card.png")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Locator

import nbpar.views
from nbpar.engine.events import OutputLine
from nbpar.engine.snapshot import Snapshot
from nbpar.views.scene import Scene, packed

__all__ = ["Gallery", "LiveCard", "Theme"]

Theme = Literal["light", "dark"]

_PAGE = """<!doctype html><meta charset="utf-8"><title>nbpar</title>
<body style="margin: 0; padding: 12px; background: var(--page)"><main></main></body>"""

# A stand-in for anywidget's model: what the card sends is kept, what the test sends arrives like a message. Its buffers
# are not aligned, as in one that came over a socket.
_STUB = """async (source) => {
  const { default: widget, Job } = await import("data:text/javascript;base64," + source);
  window.cards = [];
  const views = (buffers) => buffers.map((bytes) => {
    const whole = new Uint8Array(bytes.length + 3);
    whole.set(bytes, 3);
    return new DataView(whole.buffer, 3);
  });
  window.show = (scene, canCancel) => {
    const listeners = {}, sent = [];
    const model = {
      get: (name) => ({ scene, can_cancel: canCancel })[name],
      on: (events, listener) => {
        for (const event of events.split(" ")) (listeners[event] = listeners[event] || []).push(listener);
      },
      off: () => {},
      send: (content) => sent.push(content),
    };
    const el = document.createElement("div");
    document.querySelector("main").append(el);
    if (widget.initialize) widget.initialize({ model });
    const close = widget.render({ model, el });
    const tell = (content, buffers) => {
      for (const listener of listeners["msg:custom"] || []) listener(content, views(buffers));
    };
    window.cards.push({ el, sent, tell, close, model });
    return window.cards.length - 1;
  };
  window.again = (i) => { // a second view of a card's job
    const el = document.createElement("div");
    widget.render({ model: window.cards[i].model, el }); // it is drawn before it is in the page
    document.querySelector("main").append(el);
  };
  window.replay = ([first, ...messages]) => { // what a front end knows after these
    const job = new Job({ get: () => first, on: () => {}, send: () => {} });
    for (const [content, buffers] of messages) job.hear({ scene: content }, views(buffers));
    return { lanes: job.lanes, failures: job.failures, lines: job.lines };
  };
}"""


class Gallery:
    """A page with cards on it.

    Parameters
    ----------
    browser : Browser
        Opens the page.
    theme : {"light", "dark"}
        As JupyterLab marks its pages.
    width : int
        Of the page, in CSS pixels; a card has 24 less.
    scale : float
        Device pixels for each.
    reduced_motion : bool
        Whether the user's system asks for it.
    """

    def __init__(
        self,
        browser: Browser,
        *,
        theme: Theme = "light",
        width: int = 900,
        scale: float = 1.0,
        reduced_motion: bool = False,
    ) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": 800},
            device_scale_factor=scale,
            reduced_motion="reduce" if reduced_motion else "no-preference",
        )
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.set_content(_PAGE)
        self.set_theme(theme)
        source = Path(nbpar.views.__file__).with_name("dashboard.js").read_bytes()
        self.page.evaluate(_STUB, _base64(source))

    def set_theme(self, theme: Theme) -> None:
        """Switch the page, as the notebook's user does in the settings."""
        self.page.evaluate(
            """(theme) => {
                document.body.dataset.jpThemeLight = String(theme === "light");
                document.body.style.setProperty("--page", theme === "light" ? "#ffffff" : "#111418");
            }""",
            theme,
        )

    def show(
        self,
        snapshot: Snapshot,
        *,
        lines: Sequence[OutputLine] = (),
        cell_is_running: bool = True,
        can_cancel: bool = True,
    ) -> LiveCard:
        """Draw a job on the page, below the others."""
        return LiveCard(self, snapshot, lines, cell_is_running=cell_is_running, can_cancel=can_cancel)

    def close(self) -> None:
        """Close the page."""
        self.page.close()


class LiveCard:
    """One card; :meth:`Gallery.show` makes it.

    ``root`` is its place in the page, ``scene`` what the kernel would keep of it.
    """

    def __init__(
        self,
        gallery: Gallery,
        snapshot: Snapshot,
        lines: Sequence[OutputLine],
        *,
        cell_is_running: bool,
        can_cancel: bool,
    ) -> None:
        self.page = gallery.page
        self.scene = Scene()
        self._cell_is_running = cell_is_running
        self.scene.write(list(lines))
        self.scene.change(snapshot, cell_is_running=cell_is_running)
        full = json.loads(json.dumps(self.scene.full()))
        self._index: int = self.page.evaluate("([scene, can]) => window.show(scene, can)", [full, can_cancel])
        self.root: Locator = self.page.locator(".nbpar-card").nth(self._index)
        self.drawn()

    def update(self, snapshot: Snapshot, *, cell_is_running: bool | None = None) -> None:
        """Send what changed, as a tick does."""
        if cell_is_running is not None:
            self._cell_is_running = cell_is_running
        content, buffers = packed(self.scene.change(snapshot, cell_is_running=self._cell_is_running))
        self.tell({"scene": content}, buffers)

    def tell(self, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Let a message of the kernel arrive, and wait until it is drawn."""
        message = [self._index, json.loads(json.dumps(content)), [list(one) for one in buffers]]
        self.page.evaluate("([i, content, buffers]) => window.cards[i].tell(content, buffers)", message)
        self.drawn()

    def drawn(self) -> None:
        """Wait until everything that has arrived is on the screen: two frames."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    @property
    def sent(self) -> list[dict[str, Any]]:
        """What the card has sent to the kernel so far."""
        sent: list[dict[str, Any]] = self.page.evaluate("(i) => window.cards[i].sent", self._index)
        return sent


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode()
