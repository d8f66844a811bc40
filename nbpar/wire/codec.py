"""Objects to bytes and back: all that crosses between the kernel and a worker goes through a :class:`Codec`.

On the engine's side a dispatcher encodes functions and chunks of arguments and decodes results; in a worker
:mod:`nbpar.worker.main` decodes those and encodes the results. Data goes through the C pickler, large buffers out of
band; what a receiver cannot import goes by value (:mod:`nbpar.wire.byvalue`), classes keep their identity
(:mod:`nbpar.wire.classes`), and what cannot travel is named with the path to it (:mod:`nbpar.wire.diagnose`).

A codec may be used from several threads: each call has a pickler of its own.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Literal

from nbpar.wire.arrays import LARGE_BYTES
from nbpar.wire.byvalue import ByValuePickler, set_shared_resolver, shared_lookup
from nbpar.wire.classes import ClassDeletedError, Definition, Snapshot, class_id, definition_key
from nbpar.wire.diagnose import find_culprit, is_interrupt
from nbpar.wire.exceptions import release_memory
from nbpar.wire.salvage import DecodeFailure, load_each

__all__ = [
    "OUT_OF_BAND_BYTES",
    "CannotPickle",
    "ClassDeletedError",
    "Codec",
    "DecodeFailure",
    "Definition",
    "Encoded",
    "set_shared_resolver",
    "shared_lookup",
]

Buffer = memoryview | bytes | bytearray

OUT_OF_BAND_BYTES = LARGE_BYTES
"""Buffers of at least this size travel beside the pickle."""


_PLAIN = frozenset((int, float, str, bool, type(None)))
_FEW = 32


@dataclass(slots=True)
class Encoded:
    """An object as bytes.

    Attributes
    ----------
    payload : bytes
        Pickle, protocol 5.
    buffers : list of memoryview
        What travels out of band, in the order the payload needs them; contiguous, format ``B``.
    definitions : tuple of Definition
        Classes the payload names by id; the receiver must have got each of them before.
    shared_ids : tuple of int
        Handles on shared memory that were met.
    """

    payload: bytes
    buffers: list[memoryview]
    definitions: tuple[Definition, ...] = ()
    shared_ids: tuple[int, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of payload and buffers."""
        return len(self.payload) + sum(buffer.nbytes for buffer in self.buffers)


class CannotPickle(Exception):  # noqa: N818  # a verdict for the engine, which raises SerializationError from it
    """An object cannot travel; the message is one line that names it, where it is and what to do.

    Attributes
    ----------
    path : str
        Where it was found, as in ``args['models'][2].lock`` or ``global 'conn' used by 'f'``.
    type_name : str
        Its type.
    problem : str
        Why it cannot travel, and what to do.
    index : int or None
        Its index in the outermost list, where the encoded object was a list.
    """

    def __init__(self, path: str, type_name: str, problem: str, index: int | None = None) -> None:
        super().__init__(path, type_name, problem, index)
        self.path = path
        self.type_name = type_name
        self.problem = problem
        self.index = index

    def __str__(self) -> str:
        return f"{self.path} ({self.type_name}) cannot be sent: {self.problem}"


class Codec:
    """Turns objects into bytes and back.

    Parameters
    ----------
    serializer : {"auto", "dill"}
        "dill" has all that goes by value, but classes and arrays, pickled by dill.
    in_worker : bool
        Whether this codec is a worker's, so that its receiver is the kernel.

    Notes
    -----
    In the kernel a codec holds the notebook classes it has sent (:meth:`kept`), so that results find them; they are let
    go with the codec. The definition of a class is made once and again when one of its attributes is assigned, and anew
    from each :meth:`encode_function` on, that is for each job.
    """

    shared_type: ClassVar[type | tuple[type, ...] | None] = None
    """Objects of exactly this type (or these types) travel as their `shared_id`; set by :mod:`nbpar.wire.shared`."""

    def __init__(self, serializer: Literal["auto", "dill"] = "auto", *, in_worker: bool = False) -> None:
        self.serializer = serializer
        self.in_worker = in_worker
        self._dill_dispatch: dict[type, Any] | None = None
        self._kept: dict[str, type] = {}  # by class id; ends with the codec
        self._definitions: dict[type, tuple[Snapshot, Definition, tuple[int, ...]]] = {}  # until the next job
        self._defined: dict[str, Any] = {}  # the receiver's classes by id; ends with the codec

    # --- objects to bytes ---------------------------------------------------------------------------------------------

    def encode(self, obj: object, *, name: str = "") -> Encoded:
        """Encode data.

        Parameters
        ----------
        obj : object
            What to send, usually a list of arguments or results.
        name : str, optional
            What to call it in an error's path; "args", or "result" in a worker.

        Returns
        -------
        Encoded

        Raises
        ------
        CannotPickle
            Part of it cannot travel, whatever its own methods raised.
        """
        # A pickler of our own takes 10 us to make; a few plain values need none.
        if type(obj) is range or (type(obj) is list and len(obj) <= _FEW and _PLAIN.issuperset(map(type, obj))):
            return Encoded(pickle.dumps(obj, 5), [])
        return self._encode(obj, name or ("result" if self.in_worker else "args"), whole_classes=False)

    def refusal(self, item: object, *, name: str = "") -> CannotPickle | None:
        """Why one of several items cannot travel with the others; None when it can.

        Parameters
        ----------
        item, name
            As for :meth:`encode`.
        """
        try:
            self.encode([item])  # as deep as it is among the others
        except CannotPickle as error:
            try:
                self.encode(item, name=name)
            except CannotPickle as plainer:
                return plainer
            return error
        return None

    def begin_job(self) -> None:
        """Make definitions of classes anew: mutable attributes and globals may have changed unseen."""
        self._definitions = {}

    def encode_function(self, function: object) -> Encoded:
        """Encode a function with everything it needs in one blob, classes included.

        The same bytes come out for an unchanged function, in one process; so their hash tells whether a worker has it.

        Raises
        ------
        CannotPickle
            The function, or something it refers to, cannot travel.
        """
        self.begin_job()
        return self._encode(function, "function", whole_classes=True)

    def _encode(self, obj: object, name: str, *, whole_classes: bool) -> Encoded:
        try:
            return self._dump(obj, whole_classes=whole_classes)
        except BaseException as error:  # user code in pickling may raise anything, SystemExit too
            if is_interrupt(error):
                raise
            failure: BaseException = error
        if isinstance(failure, MemoryError):  # to look for a part that is to blame would take more
            release_memory(failure)
            raise CannotPickle(name, type(obj).__name__, "there is no memory left for it (MemoryError)") from failure
        if self.serializer == "auto" and self._dill_dispatch is None and not isinstance(failure, RecursionError):
            import dill  # lazily: slow to import, and needed only for what neither pickle nor cloudpickle carries

            self._dill_dispatch = dict(dill.Pickler.dispatch)
            try:
                return self._dump(obj, whole_classes=whole_classes)
            except BaseException as error:  # as above
                if is_interrupt(error):
                    raise
                failure = error
        culprit = find_culprit(obj, name, failure, self._make_pickler)
        raise CannotPickle(culprit.path, culprit.type_name, culprit.problem, culprit.index) from failure

    def _make_pickler(self, file: IO[bytes], base: type[ByValuePickler] = ByValuePickler, **options: Any) -> Any:
        shared_types = self.shared_type
        if shared_types is None:
            shared_types = ()
        elif isinstance(shared_types, type):
            shared_types = (shared_types,)
        return base(
            file, in_worker=self.in_worker, shared_types=shared_types, dill_dispatch=self._dill_dispatch, **options
        )

    def _dump(self, obj: object, *, whole_classes: bool) -> Encoded:
        if self.serializer != "dill":
            return self._dump_by(None, obj, whole_classes=whole_classes)
        from nbpar.wire.dillmode import NamesOnlyPickler, dump_with_dill

        try:
            return self._dump_by(None, obj, whole_classes=whole_classes, base=NamesOnlyPickler)
        except Exception:  # noqa: BLE001  # something that goes by value, or that only dill can pickle
            return self._dump_by(dump_with_dill, obj, whole_classes=whole_classes)

    def _dump_by(
        self,
        dump: Callable[..., None] | None,
        obj: object,
        *,
        whole_classes: bool,
        base: type[ByValuePickler] = ByValuePickler,
    ) -> Encoded:
        buffers: list[memoryview] = []

        def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < OUT_OF_BAND_BYTES:
                return True
            buffers.append(raw)
            return False

        file = io.BytesIO()
        pickler = self._make_pickler(file, base=base, buffer_callback=keep_in_band, whole_classes=whole_classes)
        if dump is None:
            pickler.dump(obj)
        else:
            dump(obj, file, pickler, keep_in_band)
        definitions: tuple[Definition, ...] = ()
        shared_ids = pickler.shared_ids
        if pickler.met_classes and not self.in_worker:
            self._kept.update((class_id(cls), cls) for cls in pickler.met_classes)
            if not whole_classes:
                found = [self._definition(cls) for cls in pickler.met_classes]
                definitions = tuple(definition for definition, _ in found)
                shared_ids = shared_ids + [shared_id for _, ids in found for shared_id in ids]
        return Encoded(file.getvalue(), buffers, definitions, tuple(dict.fromkeys(shared_ids)))

    def _definition(self, cls: type) -> tuple[Definition, tuple[int, ...]]:
        known = self._definitions.get(cls)
        if known is not None and known[0].still_holds():
            return known[1:]
        snapshot = Snapshot(cls)
        file = io.BytesIO()
        pickler = self._make_pickler(file, whole_classes=True)
        pickler.dump(cls)
        self._kept.update((class_id(met), met) for met in pickler.met_classes)
        blob = file.getvalue()
        known = snapshot, Definition(definition_key(cls, blob), blob), tuple(pickler.shared_ids)
        self._definitions[cls] = known
        return known[1:]

    def kept(self) -> tuple[type, ...]:
        """The notebook classes that this codec sent and keeps alive.

        A result names its class by id, so the class must live at least until the last result is decoded. Whoever owns
        the codec drops them by dropping it, or by :meth:`drop_kept` when no result is under way.
        """
        return tuple(self._kept.values())

    def drop_kept(self) -> None:
        """Let go of the classes in :meth:`kept`; only when no result is under way."""
        self._kept.clear()
        self._definitions = {}

    # --- bytes to objects ---------------------------------------------------------------------------------------------

    def decode(self, payload: Buffer, buffers: Iterable[Any] = ()) -> Any:
        """Rebuild an object, at the speed of ``pickle.loads``.

        Raises
        ------
        BaseException
            Whatever unpickling raised, also from code of the user's.
        """
        return pickle.loads(payload, buffers=buffers)

    def decode_each(self, payload: Buffer, buffers: Iterable[Any], n: int) -> list[Any]:
        """Rebuild what can be rebuilt of a pickled list whose :meth:`decode` failed. Slow.

        Parameters
        ----------
        payload, buffers
            As for :meth:`decode`.
        n : int
            Length of the list.

        Returns
        -------
        list
            The n values, with a :class:`DecodeFailure` in the place of each that cannot be rebuilt.
        """
        return load_each(payload, buffers, n)

    def define(self, definition: Definition) -> None:
        """Take over a class that later data will name by id; kept as long as the codec.

        Raises
        ------
        BaseException
            Whatever unpickling raised.
        """
        self._defined[definition.key.partition(".")[0]] = pickle.loads(definition.blob)

    def forget(self, definition_keys: Sequence[str]) -> None:
        """Let go of classes that no data will name any more."""
        for key in definition_keys:
            self._defined.pop(key.partition(".")[0], None)
