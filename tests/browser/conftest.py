"""One Jupyter server and one Chromium for all browser tests; a page and a kernel for each notebook they open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.harness import Notebook, Server, find_chromium, open_browser

OpenNotebook = Callable[..., Notebook]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The Chromium's path. Without one the tests are skipped, and fail where ``CI`` is set."""
    path = find_chromium()
    if path is None:
        message = "no Chromium: install the system's (apt-get install chromium) or set NBPAR_CHROMIUM to one"
        if os.environ.get("CI", "").lower() in ("", "0", "false"):
            pytest.skip(message)
        pytest.fail(message)
    return path


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """The one browser."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one server; its log is printed when a test with it fails to start."""
    with Server(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def open_notebook(server: Server, browser: Browser) -> Iterator[OpenNotebook]:
    """Open a notebook by its cells, with the arguments of :meth:`Server.open`; it is closed after the test."""
    opened: list[Notebook] = []

    def open_notebook(*args: object, **kwargs: object) -> Notebook:
        notebook = server.open(browser, *args, **kwargs)  # type: ignore[arg-type]  # checked by Server.open's callers
        opened.append(notebook)
        return notebook

    yield open_notebook
    for notebook in opened:
        notebook.close()
