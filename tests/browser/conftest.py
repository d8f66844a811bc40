"""One Jupyter server and one Chromium for all browser tests; a page and a kernel for each notebook they open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, expect

from tests.browser.cards import Gates
from tests.browser.harness import Notebook, Server, find_chromium, open_browser

OpenNotebook = Callable[..., Notebook]

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure: the fixture that closes the notebooks takes their pictures first."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


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
    expect.set_options(timeout=60_000)
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one server; its log is printed when a test with it fails to start."""
    with Server(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def notebooks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Notebook]]:
    """The notebooks that a test has opened; they are closed after it. One that failed leaves pictures in tmp_path."""
    opened: list[Notebook] = []
    yield opened
    for number, notebook in enumerate(opened):
        if request.node.stash.get(_failed, False):
            with contextlib.suppress(Error):  # a page that the test has closed
                notebook.screenshot(tmp_path / f"page-{number}.png")
        notebook.close()


@pytest.fixture
def open_notebook(server: Server, browser: Browser, notebooks: list[Notebook]) -> OpenNotebook:
    """Open a notebook by its cells, with the arguments of :meth:`Server.open`."""

    def open_notebook(*args: object, **kwargs: object) -> Notebook:
        notebooks.append(server.open(browser, *args, **kwargs))  # type: ignore[arg-type]  # checked by Server.open
        return notebooks[-1]

    return open_notebook


@pytest.fixture
def reopen_notebook(server: Server, browser: Browser, notebooks: list[Notebook]) -> OpenNotebook:
    """Open a notebook by its file's name, with the arguments of :meth:`Server.reopen`."""

    def reopen_notebook(*args: object, **kwargs: object) -> Notebook:
        notebooks.append(server.reopen(browser, *args, **kwargs))  # type: ignore[arg-type]  # checked by Server.reopen
        return notebooks[-1]

    return reopen_notebook


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    """What lets a test decide when each task ends."""
    return Gates(tmp_path / "gates")
