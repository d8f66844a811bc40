"""JupyterLab and Notebook 7 in a headless Chromium: one server and one browser for all tests, one notebook for each.

::

    with Server(base_dir) as server, open_browser() as browser:
        notebook = server.open(browser, ["print(1)", "..."], app="lab")
        notebook.run_cell(0)
        notebook.wait_cell(0)
        assert notebook.text(0) == "1\\n"

What keeps it steady: the server has settings, workspaces and kernels of its own and nothing of the user's; cells are
run through the application's commands, and outputs are read from its model rather than from the page; every wait is on
a state (kernel idle, cell executed, a condition of the page), none on the clock.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.notebook.kernels import ipykernels, kernelspec

__all__ = ["App", "Notebook", "Server", "find_chromium", "open_browser"]

App = Literal["lab", "notebook"]

_CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # it refuses to run as root otherwise, as in containers
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # a container's /dev/shm has 64 MB
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]

# Every plugin's own file in the settings folder; nothing is fetched and nothing is saved unasked.
_SETTINGS: dict[str, Mapping[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}

_TIMEOUT_S = 60.0


def find_chromium() -> str | None:
    """The Chromium to drive: ``NBPAR_CHROMIUM``, or the system's."""
    names = (os.environ.get("NBPAR_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium.

    Playwright leaves an event loop running in the calling thread until it ends: ``asyncio.run`` fails there meanwhile.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, were it by SIGKILL; set in the child, kept through exec."""
    _libc().prctl(1, signal.SIGTERM)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Server:
    """A Jupyter server that serves both applications.

    Parameters
    ----------
    base_dir : Path
        Where its notebooks, settings, kernels and log live.
    settings : mapping, optional
        JupyterLab settings by plugin, beside those of the harness.
    """

    def __init__(self, base_dir: Path, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.base_dir = base_dir
        self.notebook_dir = base_dir / "notebooks"
        self.log_path = base_dir / "server.log"
        self.kernels = list(ipykernels())
        self.url = ""
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._write_files()
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        if sys.platform == "linux":
            _libc()  # loaded before the fork: the child may only call it
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *self._options(port)],
                env={**os.environ, **self._environment()},
                cwd=self.notebook_dir,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # one C call, loaded
            )
        atexit.register(self.close)
        self._wait_until_it_answers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and its kernels; harmless when it has ended."""
        process, self._process = self._process, None
        atexit.unregister(self.close)
        if process is None:
            return
        with contextlib.suppress(OSError):
            for session in self.api("GET", "/api/sessions"):
                self.api("DELETE", f"/api/sessions/{session['id']}")
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def api(self, method: str, path: str) -> Any:
        """Call the server's REST interface; the decoded answer, or None when it is empty."""
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            body = response.read()
        return json.loads(body) if body else None

    def open(
        self,
        browser: Browser,
        cells: Sequence[str],
        *,
        app: App = "lab",
        kernel: str | None = None,
        size: tuple[int, int] = (1200, 900),
        scale: float = 1.0,
    ) -> Notebook:
        """Open a new notebook with these code cells, and wait until its kernel is idle.

        ``kernel`` is a name of :func:`tests.notebook.kernels.ipykernels`; the default is the installed one.
        """
        name = f"{uuid.uuid4().hex[:8]}.ipynb"
        self.write(name, cells, kernel)
        return self.reopen(browser, name, app=app, size=size, scale=scale)

    def write(self, name: str, cells: Sequence[str], kernel: str | None = None) -> None:
        """Write a notebook file without opening it."""
        kernel = kernel or self.kernels[0]
        content = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"cell-{index}",
                    "metadata": {},
                    "execution_count": None,
                    "outputs": [],
                    "source": source,
                }
                for index, source in enumerate(cells)
            ],
        }
        (self.notebook_dir / name).write_text(json.dumps(content))

    def reopen(
        self,
        browser: Browser,
        name: str,
        *,
        app: App = "lab",
        size: tuple[int, int] = (1200, 900),
        scale: float = 1.0,
    ) -> Notebook:
        """Open a notebook that exists, in a page of its own and a fresh workspace; `scale` device pixels for each."""
        path = {"lab": f"/lab/tree/{name}?reset", "notebook": f"/notebooks/{name}"}[app]
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale)
        page.set_default_timeout(_TIMEOUT_S * 1000)
        return Notebook(self, page, name, self.url + path)

    def _write_files(self) -> None:
        for name in ("config", "runtime", "workspaces", "notebooks"):
            (self.base_dir / name).mkdir(parents=True)
        for name, pythonpath in ipykernels().items():
            directory = self.base_dir / "data" / "kernels" / name
            directory.mkdir(parents=True)
            (directory / "kernel.json").write_text(json.dumps({**kernelspec(pythonpath), "display_name": name}))
        for plugin, values in self._settings.items():
            package, name = plugin.split(":")
            directory = self.base_dir / "settings" / package
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{name}.jupyterlab-settings").write_text(json.dumps(values))

    def _environment(self) -> dict[str, str]:
        return {
            "IPYTHONDIR": str(self.base_dir / "ipython"),
            "JUPYTER_CONFIG_DIR": str(self.base_dir / "config"),
            "JUPYTER_DATA_DIR": str(self.base_dir / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.base_dir / "runtime"),
        }

    def _options(self, port: int) -> list[str]:
        return [
            "--no-browser",
            "--allow-root",
            f"--ServerApp.root_dir={self.notebook_dir}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.disable_check_xsrf=True",
            "--ServerApp.terminals_enabled=False",
            "--IdentityProvider.token=",
            # A kernel that does not end when asked gets half of this before it is killed, with all of its processes.
            "--KernelManager.shutdown_wait_time=1.0",
            f"--LabServerApp.user_settings_dir={self.base_dir / 'settings'}",
            f"--LabServerApp.workspaces_dir={self.base_dir / 'workspaces'}",
            f"--LabApp.user_settings_dir={self.base_dir / 'settings'}",
            f"--LabApp.workspaces_dir={self.base_dir / 'workspaces'}",
            # Puts the application at window.jupyterapp, through which Notebook drives it.
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
        ]

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                self.api("GET", "/api/status")
            except OSError:  # not listening yet
                # The wait is for the process to end, which it does not when all is well.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.1)
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    log = self.log_path.read_text(errors="replace")[-3000:]
                    self.close()
                    raise RuntimeError(f"the Jupyter server did not start:\n{log}") from None
            else:
                return


_READY = """() => {
    const widget = window.jupyterapp?.shell.currentWidget;
    return Boolean(widget?.content?.model && widget.content.widgets
        && widget.sessionContext?.session?.kernel?.status === 'idle');
}"""

_RUN_CELL = """(index) => {
    const {commands, shell} = window.jupyterapp;
    const notebook = shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    notebook.mode = 'command';
    commands.execute('notebook:run-cell');
    return null;  // not the promise, which is settled only when the cell has ended
}"""

_CELL_ENDED = """(index) => {
    const {model} = window.jupyterapp.shell.currentWidget.content.widgets[index];
    return model.executionCount !== null && model.executionState === 'idle';
}"""

_OUTPUTS = """(index) => {
    const {model} = window.jupyterapp.shell.currentWidget.content.widgets[index];
    return model.type === 'code' ? model.outputs.toJSON() : [];
}"""


class Notebook:
    """An open notebook in a page of its own.

    ``page`` is Playwright's; ``console`` collects what the page logged, as ``(type, text)``.
    """

    def __init__(self, server: Server, page: Page, name: str, url: str) -> None:
        self.server = server
        self.page = page
        self.name = name
        self.console: list[tuple[str, str]] = []
        page.on("console", lambda message: self.console.append((message.type, message.text)))
        page.on("pageerror", lambda error: self.console.append(("pageerror", str(error))))
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function(_READY)

    def run_cell(self, index: int) -> None:
        """Start a cell, as Ctrl-Enter does; returns at once."""
        self.page.evaluate(_RUN_CELL, index)

    def run(self, index: int, timeout_s: float = _TIMEOUT_S) -> str:
        """Run a cell to its end; its :meth:`text`."""
        self.run_cell(index)
        self.wait_cell(index, timeout_s)
        return self.text(index)

    def command(self, name: str) -> None:
        """Execute one of the application's commands, without waiting for its end."""
        self.page.evaluate("(name) => { window.jupyterapp.commands.execute(name); return null; }", name)

    def interrupt(self) -> None:
        """Interrupt the kernel, as the stop button does."""
        self.command("notebook:interrupt-kernel")

    def wait_cell(self, index: int, timeout_s: float = _TIMEOUT_S) -> None:
        """Wait until a cell that was started has ended."""
        self.page.wait_for_function(_CELL_ENDED, arg=index, timeout=timeout_s * 1000)

    def wait_text(self, index: int, text: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Wait until ``text`` is among what a cell's output area shows."""
        self.page.wait_for_function(
            "([index, text]) => window.jupyterapp.shell.currentWidget.content.widgets[index]"
            ".outputArea.node.innerText.includes(text)",
            arg=[index, text],
            timeout=timeout_s * 1000,
        )

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """A cell's outputs in nbformat's form."""
        found: list[dict[str, Any]] = self.page.evaluate(_OUTPUTS, index)
        return found

    def text(self, index: int) -> str:
        """A cell's outputs as text: streams, plain-text displays, and errors as ``Name: value``."""
        parts = []
        for output in self.outputs(index):
            match output["output_type"]:
                case "stream":
                    text = output["text"]
                case "error":
                    text = f"{output['ename']}: {output['evalue']}"
                case _:
                    text = output["data"].get("text/plain", "")
            parts.append(text if isinstance(text, str) else "".join(text))
        return "".join(parts)

    def output_area(self, index: int) -> Locator:
        """The place where a cell's outputs are drawn; look for buttons in here, not in the whole page."""
        # JupyterLab takes cells out of the page that are far out of sight: bring it back first.
        self.page.evaluate(
            "(index) => { const {content} = window.jupyterapp.shell.currentWidget;"
            " return content.scrollToItem(index); }",
            index,
        )
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-Cell-outputArea')

    def screenshot(self, path: Path, index: int | None = None) -> None:
        """Take a picture of the page, or of one cell's outputs."""
        target = self.page if index is None else self.output_area(index)
        target.screenshot(path=path)

    def save(self) -> dict[str, Any]:
        """Save, and return the file's content."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        content: dict[str, Any] = json.loads((self.server.notebook_dir / self.name).read_text())
        return content

    def close(self) -> None:
        """Close the page and end its kernel."""
        for session in self.server.api("GET", "/api/sessions"):
            if session["path"] == self.name:
                with contextlib.suppress(urllib.error.HTTPError):
                    self.server.api("DELETE", f"/api/sessions/{session['id']}")
        self.page.close()
