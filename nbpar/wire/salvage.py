"""The good part of a damaged list: unpickles a list of values, of which some fail, and says which.

Owns an unpickler in pure Python in which a step that fails leaves a placeholder, and everything built from a
placeholder is tainted: at the end the items that are tainted are the ones that failed, also when several share one bad
object. Called by :meth:`nbpar.wire.codec.Codec.decode_each`, after ``pickle.loads`` failed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["DecodeFailure", "load_each"]


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """In the place of a value that could not be rebuilt.

    Attributes
    ----------
    error : BaseException
        What unpickling it raised.
    """

    error: BaseException


class _Hole:
    """In the place of an object that could not be made. `setter_of` is the object whose state setter failed."""

    __slots__ = ("error", "setter_of")

    def __init__(self, error: BaseException, setter_of: Any = None) -> None:
        self.error = error
        self.setter_of = setter_of


def load_each(payload: memoryview | bytes | bytearray, buffers: Iterable[Any], n: int) -> list[Any]:
    """The `n` values of a pickled list, with a :class:`DecodeFailure` for each that failed.

    Never raises; a payload that is not the pickle of a list of that length fails as a whole.
    """
    unpickler = _Unpickler(io.BytesIO(payload), buffers=buffers)
    try:
        values = unpickler.load()
    except BaseException as error:  # noqa: BLE001  # a stream that ends early, a missing buffer
        return [DecodeFailure(error)] * n
    if type(values) is not list or len(values) != n:
        failure = unpickler.error_in(values) or pickle.UnpicklingError(f"expected the pickle of a list of {n} values")
        return [DecodeFailure(failure)] * n
    failures = map(unpickler.error_in, values)
    return [value if bad is None else DecodeFailure(bad) for value, bad in zip(values, failures, strict=True)]


_Base: Any = pickle._Unpickler  # the one in pure Python; its steps are absent from typeshed


class _Unpickler(_Base):  # type: ignore[misc]  # typed as Any, see above
    """Goes on where pickle gives up."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Base.dispatch)

    def __init__(self, file: io.BytesIO, *, buffers: Iterable[Any]) -> None:
        super().__init__(file, buffers=buffers)
        self.tainted: dict[int, tuple[Any, BaseException]] = {}  # by id, with the object so that the id stays its own

    def error_in(self, *objects: Any) -> BaseException | None:
        """Why one of the objects cannot be used."""
        for obj in objects:
            if type(obj) is _Hole:
                return obj.error
            if (found := self.tainted.get(id(obj))) is not None:
                return found[1]
        return None

    def taint(self, obj: Any, error: BaseException) -> None:
        """Remember that an object has a bad part."""
        if type(obj) is not _Hole:
            self.tainted[id(obj)] = obj, error

    def make(self, function: Callable[..., Any], *args: Any, parts: Iterable[Any] = (), setter_of: Any = None) -> Any:
        """Call `function`, unless a part is bad."""
        error = self.error_in(*parts)
        if error is None:
            try:
                return function(*args)
            except BaseException as raised:  # noqa: BLE001  # user code
                error = raised
        return _Hole(error, setter_of)

    # Each of these is pickle's own step of that name, with the call in a try.

    def load_reduce(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        tuple_args = args if type(args) is tuple else ()
        # A state setter: the object, still on the stack below, is what is bad, not only the value that is dropped next.
        below = self.stack[-2] if len(self.stack) > 1 else None
        setter_of = below if len(tuple_args) == 2 and tuple_args[0] is below else None
        self.stack[-1] = self.make(lambda: function(*args), parts=(function, args, *tuple_args), setter_of=setter_of)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        cls = self.stack.pop()
        self.append(self.make(lambda: cls.__new__(cls, *args), parts=(cls, args)))

    def load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        cls = self.stack.pop()
        self.append(self.make(lambda: cls.__new__(cls, *args, **kwargs), parts=(cls, args, kwargs)))

    def load_stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        self.append(self.make(self.find_class, module, name, parts=(module, name)))

    def load_build(self) -> None:
        obj, state = self.stack[-2:]
        error = self.error_in(obj, state)
        if error is None:
            try:
                super().load_build()  # which takes the state from the stack before anything can fail
            except BaseException as raised:  # noqa: BLE001  # user code
                error = raised
        else:
            self.stack.pop()
        if error is not None:
            self.taint(obj, error)

    def load_pop(self) -> None:
        top = self.stack[-1] if self.stack else None
        super().load_pop()
        if type(top) is _Hole and top.setter_of is not None:
            self.taint(top.setter_of, top.error)

    def load_append(self) -> None:
        value = self.stack.pop()
        self.fill(self.stack[-1], "append", [(value,)])

    def load_appends(self) -> None:
        values = self.pop_mark()
        self.fill(self.stack[-1], "append", [(value,) for value in values])

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.fill(self.stack[-1], "__setitem__", [(key, value)])

    def load_setitems(self) -> None:
        flat = self.pop_mark()
        self.fill(self.stack[-1], "__setitem__", list(zip(flat[::2], flat[1::2], strict=True)))

    def load_additems(self) -> None:
        values = self.pop_mark()
        self.fill(self.stack[-1], "add", [(value,) for value in values])

    def fill(self, container: Any, method: str, calls: list[tuple[Any, ...]]) -> None:
        """Put parts into a container; one bad part taints it."""
        container_error = self.error_in(container)
        for parts in calls:
            error = container_error or self.error_in(*parts)
            # A bad value keeps its place in a list, so that the list of all items has its length.
            if error is None or type(container) is list:
                try:
                    getattr(container, method)(*parts)
                except BaseException as raised:  # noqa: BLE001  # user code
                    error = raised
            if error is not None:
                self.taint(container, error)

    def load_tuple(self) -> None:
        self.collect(tuple, self.pop_mark())

    def load_tuple1(self) -> None:
        self.collect(tuple, self.take(1))

    def load_tuple2(self) -> None:
        self.collect(tuple, self.take(2))

    def load_tuple3(self) -> None:
        self.collect(tuple, self.take(3))

    def load_frozenset(self) -> None:
        self.collect(frozenset, self.pop_mark())

    def take(self, n: int) -> list[Any]:
        """Pop `n` objects."""
        taken = self.stack[-n:]
        del self.stack[-n:]
        return list(taken)

    def collect(self, kind: type, parts: list[Any]) -> None:
        """Push a container of the parts."""
        error = self.error_in(*parts)
        if error is not None and kind is tuple:
            made: Any = tuple(parts)  # kept as it is: a state setter's arguments hold its object
            self.taint(made, error)
        else:
            made = self.make(kind, parts, parts=parts)
        self.append(made)


_STEPS = {
    pickle.REDUCE: _Unpickler.load_reduce,
    pickle.NEWOBJ: _Unpickler.load_newobj,
    pickle.NEWOBJ_EX: _Unpickler.load_newobj_ex,
    pickle.STACK_GLOBAL: _Unpickler.load_stack_global,
    pickle.BUILD: _Unpickler.load_build,
    pickle.POP: _Unpickler.load_pop,
    pickle.APPEND: _Unpickler.load_append,
    pickle.APPENDS: _Unpickler.load_appends,
    pickle.SETITEM: _Unpickler.load_setitem,
    pickle.SETITEMS: _Unpickler.load_setitems,
    pickle.ADDITEMS: _Unpickler.load_additems,
    pickle.TUPLE: _Unpickler.load_tuple,
    pickle.TUPLE1: _Unpickler.load_tuple1,
    pickle.TUPLE2: _Unpickler.load_tuple2,
    pickle.TUPLE3: _Unpickler.load_tuple3,
    pickle.FROZENSET: _Unpickler.load_frozenset,
}
_Unpickler.dispatch.update({opcode[0]: step for opcode, step in _STEPS.items()})
