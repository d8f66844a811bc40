"""What the terminal behind a stream can show: how much, whether it may change, and whether more than ASCII.

Asked by the text views anew for each picture: a terminal is resized while a job runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import IO, Any

__all__ = ["Pace", "can_encode", "can_move", "in_ascii", "is_ascii", "is_live", "is_prompting", "size"]

_IN_ASCII = str.maketrans(
    {
        "\N{MIDDLE DOT}": "|",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{MICRO SIGN}": "u",
    }
)
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")  # what Python itself sets LC_CTYPE to where the locale is C (PEP 538)


class Pace:
    """How often a picture of several lines is drawn: ten times a second, and for a twentieth of the time at most.

    64 rows take 10 ms.
    """

    LEAST_S = 0.09
    SHARE = 0.05

    def __init__(self) -> None:
        self._due_s = 0.0

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return perf_counter() >= self._due_s

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Around the drawing."""
        begin_s = perf_counter()
        yield
        took_s = perf_counter() - begin_s
        self._due_s = begin_s + max(self.LEAST_S, took_s / self.SHARE)


def is_live(file: IO[str] | None) -> bool:
    """Whether a picture there may change: a terminal, and not one whose text ends up in the log of a CI run."""
    if os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no"):
        return False
    return _is_terminal(file)


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # none, no such method, closed
        return False


def can_move() -> bool:
    """Whether the terminal knows more than the end and the beginning of a line."""
    return os.environ.get("TERM", "") not in ("dumb", "unknown")


def is_prompting() -> bool:
    """Whether IPython's prompt has the terminal: below a cell that has ended, lines are fine, and pictures are not."""
    return type(sys.stderr).__module__.partition(".")[0] == "prompt_toolkit"


def size(file: IO[str] | None) -> tuple[int, int]:
    """Columns and rows to draw in: one less than there are, for some terminals go on in the next when one is full."""
    try:
        columns, rows = os.get_terminal_size(file.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # no terminal, no file
        columns = rows = 0
    # 0 is what terminals say in some containers.
    return (columns - 1 if columns > 1 else 100), (rows - 1 if rows > 1 else 24)


def is_ascii(file: Any) -> bool:
    """Whether only ASCII can be trusted to be shown: by the stream's encoding, or by a terminal's locale, ``C``."""
    if not can_encode("\N{MIDDLE DOT}\N{MULTIPLICATION SIGN}\N{HORIZONTAL ELLIPSIS}\N{FULL BLOCK}", file):
        return True
    if not _is_terminal(file):  # a notebook, a file
        return False
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = os.environ.get(name, "")
        if value and not (name == "LC_CTYPE" and value in _COERCED):
            return value in ("C", "POSIX")
    return False


def can_encode(text: str, file: Any) -> bool:
    """Whether a stream can write a text as it is."""
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def in_ascii(text: str) -> str:
    r"""The same in ASCII.

    Examples
    --------
    >>> in_ascii("12 of 40 · 3.8\xd7 serial · caf\xe9…")
    '12 of 40 | 3.8x serial | caf\\xe9...'
    """
    return text.translate(_IN_ASCII).encode("ascii", "backslashreplace").decode("ascii")
