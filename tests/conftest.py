"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

_BROWSER = Path(__file__).parent / "browser"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the browser tests last, after the shuffling: Playwright's event loop keeps ``asyncio.run`` from working."""
    items.sort(key=lambda item: _BROWSER in item.path.parents)
