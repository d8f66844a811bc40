"""What an item's result is filed under: a key made of the item's value, and of seed and index where there is a seed.

Called by :mod:`nbpar.resume` in the thread that reads the input.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from nbpar.store.canonical import Canonical
from nbpar.store.fingerprint import fingerprint

__all__ = ["KEY_BYTES", "NO_KEY", "ItemKeys"]

KEY_BYTES = 16

NO_KEY = bytes(KEY_BYTES)
"""Of an item that cannot be written down: its result is not kept."""


MAX_FINGERPRINTS = 1000
"""Functions and classes in items of which it is kept what they do."""


class ItemKeys:
    """Keys of one job's items, asked for in the order of the input.

    An item that stands in the input several times has several keys: a function may give something else each time, as
    in ``map(lambda _: random.random(), [None] * 100)``.

    Parameters
    ----------
    seed : int, optional
        The job's, where the user gave one: a result then depends on it and on the item's index.

    Examples
    --------
    >>> keys = ItemKeys()
    >>> first, second, third = [keys.of(index, item) for index, item in enumerate(["a", "b", "a"])]
    >>> first == ItemKeys().of(7, "a")
    True
    >>> first == third
    False
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._canonical = Canonical(self._reference)
        self._n_same: dict[bytes, int] = {}
        self._fingerprints: dict[int, tuple[Any, bytes]] = {}  # by id, with the object, so that the id stays its own

    def of(self, index: int, item: Any) -> bytes:
        """The key of the next item; `NO_KEY` when it cannot be written down."""
        try:
            written = self._canonical.encode(item)
        except Exception:  # noqa: BLE001  # nested too deeply, or its own methods fail in ways of their own
            return NO_KEY
        if self._seed is not None:
            return _key(written, b"%d %d" % (self._seed, index))
        key = _key(written)
        n_same = self._n_same.get(key, 0)
        self._n_same[key] = n_same + 1
        return key if not n_same else _key(written, b"%d" % n_same)

    def forget(self) -> None:
        """The input has been read: what was kept to number equal items may go."""
        self._n_same.clear()

    def _reference(self, obj: Any) -> bytes:
        """A function or class in an item counts by all that it does, as the mapped function does."""
        known = self._fingerprints.get(id(obj))
        if known is None:
            if len(self._fingerprints) >= MAX_FINGERPRINTS:
                self._fingerprints.clear()
            known = self._fingerprints[id(obj)] = obj, fingerprint(obj).digest
        return known[1]


def _key(written: bytes, more: bytes = b"") -> bytes:
    return blake2b(written, digest_size=KEY_BYTES, person=b"nbpar item", salt=more[:16] and _salt(more)).digest()


def _salt(more: bytes) -> bytes:
    return blake2b(more, digest_size=16).digest()
