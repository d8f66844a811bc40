"""What the tests of the codec share: cells of a notebook, a worker's end of the wire, what a refusal looks like."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from nbpar.wire.codec import CannotPickle, Codec
from nbpar.wire.exceptions import decode_exception


def cell(source: str, **names: Any) -> types.SimpleNamespace:
    """Run source as a notebook cell; what it defines belongs to ``__main__``."""
    namespace = {"__name__": "__main__", **names}
    exec(textwrap.dedent(source), namespace)
    return types.SimpleNamespace(**namespace)


def endless() -> Iterator[int]:
    yield 1


def round_trip(obj: Any, codec: Codec | None = None) -> Any:
    codec = codec or Codec()
    encoded = codec.encode(obj)
    return codec.decode(encoded.payload, [bytearray(buffer) for buffer in encoded.buffers])


def refusal(obj: Any, codec: Codec | None = None) -> CannotPickle:
    with pytest.raises(CannotPickle) as caught:
        (codec or Codec()).encode(obj)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.path in message
    return caught.value


class Holder:
    """An importable class with one attribute."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock


class BadState:
    """Cannot be unpickled."""

    def __init__(self, x: int = 0) -> None:
        self.x = x

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"bad state {state['x']}")


CLASSES = """
    import abc, dataclasses, enum
    from typing import NamedTuple

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.by_meta = True
            return made

    class WithMeta(metaclass=Meta):
        pass

    @dataclasses.dataclass(slots=True)
    class Point:
        x: int
        y: list = dataclasses.field(default_factory=list)

    @dataclasses.dataclass
    class Base:
        x: int = 0
        def partner(self): return Partner(self)

    class Derived(Base):
        def name(self): return super().__repr__()

    class Partner:
        def __init__(self, of): self.of = of
        def back(self): return isinstance(self.of, Base)

    class Color(enum.Enum):
        RED = 1
        BLUE = "b"
        def twice(self): return self.value * 2

    class Flags(enum.Flag):
        A = enum.auto()
        B = enum.auto()

    class Planet(enum.Enum):
        EARTH = (5.9e24, 6.3e6)
        def __init__(self, mass, radius):
            self.mass = mass
            self.radius = radius

    class Pair(NamedTuple):
        a: int
        b: int

    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

    class Square(Shape):
        def area(self): return 4

    class Outer:
        class Inner:
            pass

    class Oops(Exception):
        def __init__(self, code, text):
            super().__init__(f"{code}: {text}")
            self.code = code
"""

HELPER = """
import pickle, sys
from nbpar.wire.codec import Codec, Definition
from nbpar.wire.exceptions import encode_exception
from tests.unit.cells import cell, endless, refusal, round_trip
if sys.argv[1] == "dill first":
    import dill
codec = Codec(sys.argv[2], in_worker=True)
source, sink = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr
while True:
    try:
        definitions, function, payload, buffers = pickle.load(source)
    except EOFError:
        break
    try:
        for key, blob in definitions:
            codec.define(Definition(key, blob))
        function = codec.decode(*function)
        result = codec.encode(function(*codec.decode(payload, [bytearray(b) for b in buffers])))
        answer = True, result.payload, [bytes(b) for b in result.buffers], result.definitions
    except BaseException as error:
        answer = False, encode_exception(error), [], ()
    function = result = None
    pickle.dump(answer, sink)
    sink.flush()
"""


class Worker:
    """The helper process; call it with a function and its arguments."""

    def __init__(self, *, import_dill: bool = False, serializer: Literal["auto", "dill"] = "auto") -> None:
        order = "dill first" if import_dill else "no dill"
        command = [sys.executable, "-c", HELPER, order, serializer]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.codec = Codec(serializer)
        self.known: set[str] = set()
        self.n_definitions = 0

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        shipped = self.codec.encode_function(function)
        return self.call_encoded((shipped.payload, [bytes(buffer) for buffer in shipped.buffers]), *args)

    def call_encoded(self, function: tuple[bytes, list[bytes]], *args: Any) -> Any:
        encoded = self.codec.encode(args)
        new = [(each.key, each.blob) for each in encoded.definitions if each.key not in self.known]
        self.known.update(key for key, _ in new)
        self.n_definitions += len(new)
        message = new, function, encoded.payload, [bytes(buffer) for buffer in encoded.buffers]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump(message, self.process.stdin)
        self.process.stdin.flush()
        good, payload, buffers, definitions = pickle.load(self.process.stdout)
        assert definitions == ()
        if not good:
            raise decode_exception(payload)[0]
        return self.codec.decode(payload, buffers)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
