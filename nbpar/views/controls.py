"""What a view's buttons may do to the job they belong to.

Made by the job, handed to :func:`nbpar.views.choose`, called by the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Controls"]


class Controls(NamedTuple):
    """Callables behind a view's buttons.

    They may be called from any thread (a subshell's, the kernel's main one) and while a cell blocks, so they must only
    set an event or enqueue a request, and return at once. Calling one for a job that has ended must do nothing.
    """

    cancel: Callable[[], None]
    pause: Callable[[], None]
    resume: Callable[[], None]
    is_waited_for: Callable[[], bool] = lambda: True
    """Whether the kernel does nothing but wait for the job, as far as the job knows: may it be interrupted for it?"""
