"""What all tests share."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import pytest
from tqdm import tqdm

_BROWSER = Path(__file__).parent / "browser"

# A shell that starts the tests in the background has Ctrl-C ignored, and all that they start would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A bar made in this process would leave a thread of tqdm's own, of which every later pool that forks warns.
tqdm.monitor_interval = 0


@pytest.hookimpl(trylast=True)  # after pytest-randomly has shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put back into order what must be.

    Tests marked ``in_order`` go on from the one before them. Browser tests come last: Playwright's event loop keeps
    ``asyncio.run`` from working.
    """
    places = [i for i, item in enumerate(items) if item.get_closest_marker("in_order")]
    ordered = sorted((items[i] for i in places), key=_place)
    for i, item in zip(places, ordered, strict=True):
        items[i] = item
    items.sort(key=lambda item: _BROWSER in item.path.parents)


def _place(item: pytest.Item) -> tuple[str, str, int]:
    _, line, _ = item.reportinfo()
    parameters = item.nodeid.partition("[")[2]
    return str(item.path), parameters, line or 0


def pytest_collection_finish() -> None:
    """Take what is loaded by now off the garbage collector's hands: many tests have it look for what they left."""
    gc.collect()
    gc.freeze()
