"""A strict job's function, items and results where workers share the kernel's memory: as copies, like in a process.

What the tasks of a loop change must be noticed and must not have happened, so threads and serial get what a process
would get: the function by a pickle round trip with copies of the notebook's classes, each item, and each result back.
:class:`Isolated` is one worker's copy. Called by :mod:`nbpar.backends.threads` and :mod:`nbpar.backends.serial`.
"""

from __future__ import annotations

import io
import itertools
import pickle
import threading
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from cloudpickle import cloudpickle as cp

from nbpar.backends.base import JobSpec
from nbpar.errors import SerializationError
from nbpar.wire import classes
from nbpar.wire.byvalue import ByValuePickler
from nbpar.wire.codec import CannotPickle, Codec, Encoded
from nbpar.worker.execute import Unusable, Work, unwrapped
from nbpar.worker.strict import NUMPY_RANDOM, RANDOM, States, Strict, random_states

__all__ = ["Isolated", "Packed", "pack"]

_numbers = itertools.count()


class Packed(NamedTuple):
    """What the copies of a strict job are made of.

    Attributes
    ----------
    function : Encoded
        The function as bytes.
    states : tuple
        Of the kernel's generators of random numbers, before any task has run.
    drawn : threading.Event
        Set when tasks were seen to draw from them: threads that are in the middle of theirs go on for a while.
    """

    function: Encoded
    states: States
    drawn: threading.Event


def pack(job: JobSpec) -> Packed:
    """A strict job's function and surroundings as they are now, in the thread of the user's call.

    Raises
    ------
    SerializationError
        When it cannot travel; it could not go to a process either.
    """
    __tracebackhide__ = True
    try:
        encoded = Codec().encode_function(job.function)
    except CannotPickle as error:
        raise SerializationError(f"the function cannot be sent to the workers: {error}") from None
    encoded.buffers = [memoryview(bytes(one)) for one in encoded.buffers]  # as they are now
    return Packed(encoded, random_states(), threading.Event())


class Isolated:
    """Copies for one worker.

    Attributes
    ----------
    work : Work
        The copy of the function, watched.
    strict : Strict
        Says what was changed.
    """

    def __init__(self, job: JobSpec, packed: Packed) -> None:
        self._codec = Codec()
        self._drawn = packed.drawn
        self._copies: dict[str, type] = {}  # by the id of the kernel's class
        self._originals: dict[type, tuple[str, type]] = {}
        self._suffix = f"~{next(_numbers)}"
        function = self._load(packed.function.payload, [bytearray(one) for one in packed.function.buffers])
        is_seeded = job.options.seed is not None
        keeps_items = job.options.strict == "all"
        self.strict = Strict(function, keeps_items=keeps_items, seeded=is_seeded, states=packed.states)
        self.work = Work(self.strict.function, job.star, job.seed, is_seeded)

    def take(self, items: Sequence[Any]) -> list[Any]:
        """Copies of items; :class:`Unusable` in the place of one that cannot be copied."""
        try:
            return [unwrapped(one) for one in self._copy(items)]
        except Exception:  # noqa: BLE001  # whatever pickling or unpickling an item raises: found again, one by one
            return [self._take_one(item) for item in items]

    def _take_one(self, item: Any) -> Any:
        try:
            return unwrapped(self._copy([item])[0])
        except Exception as error:  # noqa: BLE001  # as above
            refused = SerializationError(f"the argument cannot be sent to a worker: {error}")
            refused.__cause__ = error
            return Unusable(refused)

    def _copy(self, items: Sequence[Any]) -> list[Any]:
        encoded = self._codec.encode(items)
        for definition in encoded.definitions:
            if definition.key.partition(".")[0] not in self._copies:
                self._load(definition.blob, ())
        return list(self._load(encoded.payload, [bytearray(one) for one in encoded.buffers]))

    def give(self, values: list[Any], failures: list[tuple[int, BaseException]], first: int) -> None:
        """Turn results into objects of the kernel's, in place; those that cannot be, into failures."""
        for _, error in failures:
            self._give_error(error)
        try:
            values[:] = self._returned(values)
        except Exception:  # noqa: BLE001  # as above
            self._give_each(values, failures, first)

    def _give_each(self, values: list[Any], failures: list[tuple[int, BaseException]], first: int) -> None:
        failed = {index for index, _ in failures}
        indices = (i for i in itertools.count(first) if i not in failed)
        good = []
        for index, value in zip(indices, list(values), strict=False):
            try:
                good += self._returned([value])
            except Exception as error:  # noqa: BLE001  # as above
                refused = SerializationError(f"the result cannot be sent back: {error}")
                refused.__cause__ = error
                failures.append((index, refused))
        failures.sort(key=lambda failure: failure[0])
        values[:] = good

    def _returned(self, values: list[Any]) -> list[Any]:
        file = io.BytesIO()
        pickler = _Returning(file, in_worker=True, shared_types=_shared_types())
        pickler.originals = self._originals
        pickler.dump(values)
        return list(pickle.loads(file.getvalue()))

    def _give_error(self, error: BaseException | None) -> None:
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            if (original := self._originals.get(type(error))) is not None:
                error.__class__ = original[1]
            error = error.__cause__ or error.__context__

    def look(self, work_s: float, *, is_last: bool) -> tuple[str, ...]:
        """Names of what tasks have changed; the kernel's generators of random numbers are then as they were."""
        changed = self.strict.look(work_s, is_last=is_last)
        if not {RANDOM, NUMPY_RANDOM}.isdisjoint(changed):
            self._drawn.set()
        if self._drawn.is_set():
            self.strict.undo()
        return changed

    # --- classes ------------------------------------------------------------------------------------------------------

    def _load(self, payload: Any, buffers: Sequence[Any]) -> Any:
        return _Loading(io.BytesIO(payload), self, buffers).load()

    def receive_class(self, maker: Any, args: tuple[Any, ...]) -> type:
        """A copy of the kernel's class of that id."""
        identity = args[-2]
        known = self._copies.get(identity)
        if known is None:
            copied = (*args[:-2], identity + self._suffix, *args[-1:])
            classes._from_kernel.add(copied[-2])  # it counts as the notebook's, in all that looks at objects
            known = self._copies[identity] = maker(*copied)
            original = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity)
            if original is not None:
                self._originals[known] = identity, original
        return known

    def lookup_class(self, identity: str, name: str) -> type:
        """The copy of a class that came before."""
        known = self._copies.get(identity)
        return classes.lookup_class(identity, name) if known is None else known

    def close(self) -> None:
        """The job has ended: no more copies will be told from originals."""
        classes._from_kernel.difference_update(identity + self._suffix for identity in self._copies)


def _shared_types() -> tuple[type, ...]:
    kinds = Codec.shared_type
    return () if kinds is None else kinds if isinstance(kinds, tuple) else (kinds,)


class _Loading(pickle.Unpickler):
    """Makes copies of classes instead of bringing the kernel's own up to date."""

    def __init__(self, file: IO[bytes], owner: Isolated, buffers: Sequence[Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._owner = owner

    def find_class(self, module: str, name: str) -> Any:
        if module == classes.__name__ and name in ("receive_class", "lookup_class"):
            return getattr(self._owner, name)
        return super().find_class(module, name)


class _Returning(ByValuePickler):
    """Names the kernel's class in the place of its copy."""

    originals: dict[type, tuple[str, type]]

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and (known := self.originals.get(obj)) is not None:
            return classes.lookup_class, (known[0], obj.__qualname__)
        return super().reducer_override(obj)
