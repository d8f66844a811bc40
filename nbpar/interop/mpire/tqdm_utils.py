"""MPIRE's ``mpire.tqdm_utils``, as far as programs use it: the style of a progress bar that a call does not name.

Read by :mod:`nbpar.interop.mpire.progress` at each call.
"""

from __future__ import annotations

__all__ = ["PROGRESS_BAR_DEFAULT_STYLE", "STYLES"]

STYLES = ("std", "rich", "notebook", "dashboard")

PROGRESS_BAR_DEFAULT_STYLE = "std"
"""What ``progress_bar_style=None`` means; a program may set it to another one of `STYLES`."""
