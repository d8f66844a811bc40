"""When a count was painted, as the page says it, and how long after what it counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["latencies_s", "observe", "paints", "percentile"]

# The frame after the one that drew begins when that one has been painted: up to 17 ms are counted too many.
_OBSERVE = r"""(node) => {
    const paints = (window.nbparPaints = []);
    const look = () => {
        const found = /([\d,]+)(?: of |\/)/.exec(node.textContent);
        if (!found) return;
        const count = Number(found[1].replaceAll(",", ""));
        requestAnimationFrame(() => paints.push([Date.now() / 1000, count]));
    };
    new MutationObserver(look).observe(node, {childList: true, characterData: true, subtree: true});
}"""


def observe(place: Locator) -> None:
    """From now on the page notes when the count in this place is painted, "12 of 50" or "12/50"."""
    place.evaluate(_OBSERVE)


def paints(place: Locator) -> list[tuple[float, int]]:
    """What was noted: wall time, and the count that was there to see."""
    return [(at_s, count) for at_s, count in place.page.evaluate("() => window.nbparPaints")]


def latencies_s(reached: Sequence[tuple[float, int]], painted: Sequence[tuple[float, int]]) -> list[float]:
    """For each event the time until a paint that counts it.

    Parameters
    ----------
    reached, painted : sequence of (float, int)
        Wall time and count, in order: what had happened, what was to be seen.

    Returns
    -------
    list of float
        In seconds, one per event; those before the first paint and after the last one's count are left out.

    Examples
    --------
    >>> latencies_s([(0.0, 1), (1.0, 2), (1.1, 4), (3.0, 5)], [(0.5, 1), (1.25, 3), (2.0, 4)])
    [0.25, 0.15, 0.9]
    """
    found: list[float] = []
    if not painted:
        return found
    count, at = painted[0][1], 0
    for event_s, upto in reached:
        for number in range(count + 1, upto + 1):
            while at < len(painted) and painted[at][1] < number:
                at += 1
            if at == len(painted):
                return found
            found.append(round(painted[at][0] - event_s, 6))
        count = max(count, upto)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of the others do not exceed; NaN without values.

    Examples
    --------
    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5)
    2.0
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
