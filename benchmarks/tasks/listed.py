"""A task on an item of a list that lives elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["of_listed"]


def of_listed(function: Callable[[Any], Any], listed: Sequence[Any], index: int) -> Any:
    """Fetch an item from a manager's list, and call."""
    return function(listed[index])
