"""Small PNG files: the colours of a page fit into a palette."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

__all__ = ["MOST_BYTES", "shrink", "write"]

MOST_BYTES = 150_000
"""A page with a few pictures shall load on a train."""

N_COLOURS = 128


def shrink(data: bytes) -> bytes:
    """The same picture with a palette; no dithering, which costs more bytes than the colours save.

    Parameters
    ----------
    data : bytes
        A PNG.
    """
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


def write(path: Path, data: bytes) -> int:
    """Shrink and write; the bytes that it takes.

    Raises
    ------
    ValueError
        It takes more than :data:`MOST_BYTES`.
    """
    small = shrink(data)
    if len(small) > MOST_BYTES:
        raise ValueError(f"{path.name} takes {len(small):,} bytes, more than {MOST_BYTES:,}: show less, or smaller")
    path.write_bytes(small)
    return len(small)
