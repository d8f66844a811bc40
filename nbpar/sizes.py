"""Sizes in words: ``"2 GB"`` to bytes and back.

Read by :mod:`nbpar.options`, written by everything that tells the user how large something is. A GB is a thousand
million bytes, a GiB is 2**30.
"""

from __future__ import annotations

import re

__all__ = ["in_words", "parse_size"]

_FACTORS = {"": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?b?)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size in words.

    Parameters
    ----------
    text : str
        A number and a unit in either case: B, kB, MB, GB, TB of a thousand, KiB to TiB of 1024.

    Raises
    ------
    ValueError
        When it is no size.

    Examples
    --------
    >>> parse_size("1.5 GiB"), parse_size("500MB")
    (1610612736, 500000000)
    """
    found = _SIZE.fullmatch(text)
    factor = None if found is None else {**_FACTORS, "b": 1}.get(found[2].lower())
    if found is None or factor is None:
        raise ValueError(f"{text!r} is no size")
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def in_words(n_bytes: int) -> str:
    """A size with two or three figures.

    Examples
    --------
    >>> in_words(2_000_000_000), in_words(2_345_000_000), in_words(12_345_678), in_words(999)
    ('2 GB', '2.3 GB', '12 MB', '999 bytes')
    """
    size, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    text = f"{size:.0f}" if unit == "bytes" or size >= 9.95 else f"{size:.1f}".removesuffix(".0")
    return f"{text} {unit}"
