"""Classes of the notebook: one identity on both sides of the wire.

A class that workers cannot import is known by an id, cloudpickle's tracker id. Data names it by that id alone
(:func:`lookup_class`); the class itself travels once, whole, in a definition or in a function. So an instance that goes
to a worker and back is an instance of the kernel's own class.

* From kernel to worker a class that is already known is brought up to date: what changed in the notebook is seen.
* From worker to kernel a class that came from the kernel goes by id, and one made in the worker goes whole, but never
  over a class that the kernel already has.

Used by :mod:`nbpar.wire.byvalue` while pickling; the functions `lookup_class` to `set_class_state_once` are named
inside pickles and run while unpickling.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from operator import is_
from typing import Any

from cloudpickle import cloudpickle as cp

from nbpar.wire import homes

__all__ = ["ClassDeletedError", "Definition", "came_from_kernel", "class_id", "definition_key"]

_MEMBER_OWN = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})

_from_kernel: set[str] = set()  # ids of classes the kernel sent to this process; as long-lived as the worker
_incomplete: set[str] = set()  # ids of classes being received from a worker, until their state is set
_generations: weakref.WeakKeyDictionary[type, tuple[str, int]] = weakref.WeakKeyDictionary()  # last hash, its number
_lock = threading.Lock()  # guards _generations: jobs may be encoded from several threads


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that is not there in the child may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class ClassDeletedError(LookupError):
    """A pickle names a class of the notebook that is not there any more."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A class by value, to be known to a receiver before the data that names it.

    Attributes
    ----------
    key : str
        Changes whenever the blob does, and is never used twice for the same class.
    blob : bytes
        The class and all that it needs, for :meth:`nbpar.wire.codec.Codec.define`.
    """

    key: str
    blob: bytes


def class_id(cls: type) -> str:
    """The id of a class, made on first use."""
    return cp._get_or_create_tracker_id(cls)  # type: ignore[no-any-return]


def came_from_kernel(cls: type) -> bool:
    """Whether this process got the class from its kernel, which therefore has it."""
    return cp._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(cls) in _from_kernel


def definition_key(cls: type, blob: bytes) -> str:
    """A key for a definition: content and generation.

    The content alone would not do: a class changed and changed back would be taken for known, while the worker holds
    the state in between.
    """
    digest = hashlib.blake2b(blob, digest_size=16).hexdigest()
    with _lock:
        last, generation = _generations.get(cls, ("", 0))
        if last != digest:
            generation += 1
            _generations[cls] = digest, generation
    return f"{class_id(cls)}.{generation}.{digest}"


class Snapshot:
    """What the attributes of a class and its bases are bound to, to notice an assignment cheaply."""

    __slots__ = ("_attributes",)

    def __init__(self, cls: type) -> None:
        self._attributes = [(base, tuple(vars(base).values())) for base in cls.__mro__[:-1]]

    def still_holds(self) -> bool:
        """Whether every attribute is still bound to the same object."""
        return all(
            len(values) == len(vars(base)) and all(map(is_, values, vars(base).values()))
            for base, values in self._attributes
        )


# --- while pickling ---------------------------------------------------------------------------------------------------


def reduce_whole(cls: type, *, to_kernel: bool) -> tuple[Any, ...]:
    """The reduce value that carries the class itself."""
    maker, args, (state, more), *_ = cp._dynamic_class_reduce(cls)
    state.pop("__slotnames__", None)  # copyreg's cache, there or not
    if not issubclass(cls, Enum):
        # cloudpickle makes a class without slots; its instances would have another state than the kernel's.
        if "__slots__" in vars(cls) and not issubclass(cls, tuple):  # NamedTuple sets its own
            kind, name, bases, attributes, *others = args
            args = kind, name, bases, {**attributes, "__slots__": state["__slots__"]}, *others
    else:
        # cloudpickle makes the members before `__init__` is there; what it set on them has to be brought along.
        own = {name: _member_attributes(member) for name, member in cls.__members__.items()}
        more = {**more, "members": {name: attributes for name, attributes in own.items() if attributes}}
    if to_kernel:
        return receive_once, (maker, args), (state, more), None, None, set_class_state_once
    return receive_class, (maker, args), (state, more), None, None, set_class_state


def reduce_by_id(cls: type) -> tuple[Any, ...]:
    """The reduce value that names a class the receiver has."""
    return lookup_class, (class_id(cls), cls.__qualname__)


def _member_attributes(member: Enum) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _MEMBER_OWN}


# --- while unpickling -------------------------------------------------------------------------------------------------


def lookup_class(identity: str, name: str) -> type:
    """The class of that id in this process.

    Raises
    ------
    ClassDeletedError
        There is none.
    """
    cls = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity)
    if cls is None:
        raise ClassDeletedError(f"the class {name!r} of the notebook is gone: it was deleted or redefined")
    return cls  # type: ignore[no-any-return]


def receive_class(maker: Callable[..., type], args: tuple[Any, ...]) -> type:
    """In a worker: the kernel's class of that id, made now unless it is known."""
    identity = args[-2]
    cls: type = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity) or maker(*args)
    _from_kernel.add(identity)
    return cls


def set_class_state(cls: type, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Fill a class, or bring it up to date."""
    attributes, more = state
    if homes.are_kept() and not issubclass(cls, Enum):
        data = {name: value for name, value in attributes.items() if _is_data(name, value)}
        taken = homes.news(("class", class_id(cls)), vars(cls), data)
        attributes = {name: value for name, value in attributes.items() if name not in data or name in taken}
    cp._class_setstate(cls, (attributes, {}))
    for name, values in more.get("members", {}).items():
        vars(cls.__members__[name]).update(values)  # type: ignore[attr-defined]


def _is_data(name: str, value: object) -> bool:
    """Whether tasks may keep something in an attribute: neither a method nor what Python has for itself."""
    return not (name.startswith("__") and name.endswith("__")) and not hasattr(type(value), "__get__")


def receive_once(maker: Callable[..., type], args: tuple[Any, ...]) -> type:
    """In the kernel: a class made in a worker; one that is already here stays as it is."""
    identity = args[-2]
    cls: type | None = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity)
    if cls is None:
        cls = maker(*args)
        _incomplete.add(identity)
    return cls


def set_class_state_once(cls: type, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Fill a class that `receive_once` made; leave others alone."""
    identity = cp._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(cls)
    if identity in _incomplete:
        set_class_state(cls, state)
        _incomplete.discard(identity)
