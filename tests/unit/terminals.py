"""A terminal to look at: a real pseudo terminal, and what it shows."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import threading
from itertools import groupby
from typing import IO

import pyte

from tests.helpers import until

__all__ = ["Terminal"]


class Terminal:
    """A pseudo terminal whose other end is read all the time.

    Attributes
    ----------
    file : file
        What a program that runs in it has as its stderr.
    raw : bytearray
        All that was ever written.
    """

    def __init__(self, columns: int = 100, n_rows: int = 24, *, encoding: str = "utf-8") -> None:
        self.master, self.slave = os.openpty()
        self.screen = pyte.Screen(columns, n_rows)
        self.resize(columns, n_rows)
        self.raw = bytearray()
        self.file: IO[str] = open(self.slave, "w", encoding=encoding, errors="strict", closefd=False)  # noqa: SIM115
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()  # guards the screen
        self._n_looks = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int, n_rows: int) -> None:
        """What happens when its window is dragged."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", n_rows, columns, 0, 0))
        self.screen.resize(n_rows, columns)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:  # the last program in it has ended
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    def look(self) -> list[str]:
        """The lines on it now, without the empty ones at the end."""
        with self._lock:
            lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def styled(self) -> list[list[tuple[str, str, bool]]]:
        """The same lines as runs of text with their colour, ``"default"`` or a name or six digits, and whether bold."""
        n_lines = len(self.look())
        with self._lock:
            rows = [[self.screen.buffer[y][x] for x in range(self.screen.columns)] for y in range(n_lines)]
        return [
            [
                ("".join(char.data for char in run), *style)
                for style, run in groupby(row, lambda char: (char.fg, char.bold))
            ]
            for row in rows
        ]

    def shown(self) -> list[str]:
        """The lines on it once all that was written to `file` has arrived."""
        self.file.flush()
        self._n_looks += 1
        title = f"look {self._n_looks}"
        os.write(self.slave, f"\x1b]0;{title}\x07".encode())  # in order with all that came before
        until(lambda: self.screen.title == title)
        return self.look()

    def close(self) -> None:
        """Let go of it."""
        self.file.close()
        os.close(self.slave)
        self._reader.join(5)
        os.close(self.master)
