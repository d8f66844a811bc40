"""The codec: what travels, what keeps its identity, and what is said of the rest. No pool is started.

A class "of the notebook" is made by `exec` with ``__name__ == "__main__"``, as in a cell. The other side of the wire
is one long-lived helper process with a worker's codec.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import io
import json
import logging
import operator
import pickle
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.errors import RemoteError
from nbpar.wire.codec import (
    OUT_OF_BAND_BYTES,
    CannotPickle,
    ClassDeletedError,
    Codec,
    DecodeFailure,
    set_shared_resolver,
)
from nbpar.wire.exceptions import decode_exception, encode_exception

LARGE = OUT_OF_BAND_BYTES


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


HELPER = """
import pickle, sys
from nbpar.wire.codec import Codec, Definition
from nbpar.wire.exceptions import encode_exception
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


@pytest.fixture(scope="module")
def helper() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def worker(helper: Worker) -> Worker:
    helper.codec = Codec()  # what one test sent must not keep another one's classes alive
    return helper


# --- data -------------------------------------------------------------------------------------------------------------

numbers = st.booleans() | st.integers() | st.floats(allow_nan=False)
scalars = st.none() | numbers | st.text(max_size=8) | st.binary(max_size=8)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.frozensets(scalars, max_size=4)
    ),
    max_leaves=12,
)
dtypes = st.one_of(npst.scalar_dtypes(), npst.array_dtypes(max_size=3), npst.unicode_string_dtypes(max_len=5))


def shape_of(data: Any) -> Any:
    """The data with the types, since 1, 1.0 and True are equal."""
    if isinstance(data, list | tuple):
        return type(data), [shape_of(part) for part in data]
    if isinstance(data, dict):
        return [(key, shape_of(value)) for key, value in data.items()]
    if isinstance(data, frozenset):
        return {(type(part), part) for part in data}
    return type(data), data


@given(nested)
@settings(max_examples=60, deadline=None)
def test_builtin_data_comes_back(data: Any) -> None:
    assert shape_of(round_trip(data)) == shape_of(data)


@given(
    npst.arrays(dtypes, npst.array_shapes(max_dims=3, max_side=5)),
    st.integers(1, 3),
    st.sampled_from("CFT"),
)
@settings(max_examples=80, deadline=None)
def test_arrays_and_views_come_back(array: np.ndarray[Any, Any], step: int, order: str) -> None:
    view = array.T if order == "T" else np.asfortranarray(array) if order == "F" else array
    view = view[::step]
    back = round_trip(view)
    expected = pickle.loads(pickle.dumps(view, 5))  # numpy 2.4 itself loses the byte order of '>U1' with gaps
    assert back.dtype == expected.dtype
    assert back.shape == view.shape
    assert back.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "dtype", ["i8", "f4", "c16", "M8[ns]", "m8[s]", "S9", "U5", "?", ">i4", [("a", "i4"), ("b", "f8")]]
)
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed"])
def test_large_arrays_travel_out_of_band(dtype: Any, layout: str) -> None:
    array = np.arange(90_000, dtype="i8").astype("i4").reshape(300, 300)
    array = array.astype(dtype) if not isinstance(dtype, list) else np.zeros((300, 300), dtype=dtype)
    array = {"C": array, "F": np.asfortranarray(array), "strided": array[::2, ::1], "reversed": array[::-1]}[layout]
    encoded = Codec().encode({"a": array})
    if np.dtype(dtype).kind not in "Mm" and array.nbytes >= LARGE:  # M and m have no buffer
        assert len(encoded.payload) < 1000
    assert all(b.contiguous and b.format == "B" and b.ndim == 1 and b.nbytes >= LARGE for b in encoded.buffers)
    assert encoded.n_bytes >= array.nbytes or array.nbytes < LARGE
    back = Codec().decode(encoded.payload, encoded.buffers)["a"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


def test_small_buffers_stay_in_the_payload_and_arrays_stay_writable() -> None:
    encoded = Codec().encode(np.zeros(LARGE // 8 - 1))
    assert encoded.buffers == []
    assert Codec().decode(encoded.payload, []).flags.writeable


def test_object_arrays_and_shared_parts() -> None:
    inner = [1]
    array = np.array([inner, {"k": inner}, None], dtype=object)
    back = round_trip([array, inner])
    assert back[0][1]["k"] is back[0][0] is back[1]


def test_range_is_sent_as_such() -> None:
    encoded = Codec().encode(range(10**9))
    assert encoded.n_bytes < 100
    assert Codec().decode(encoded.payload) == range(10**9)


def test_a_list_of_ints_costs_what_pickle_costs() -> None:
    data = list(range(10_000))
    codec = Codec()

    def best_s(function: Callable[[], object]) -> float:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best_s(lambda: codec.encode(data)) < 2 * best_s(lambda: pickle.dumps(data, 5)) + 50e-6


def test_encoding_keeps_nothing_alive() -> None:
    class Thing:
        pass

    codec = Codec()
    gc.disable()
    try:
        things = [Thing()]
        alive = weakref.ref(things[0])
        codec.encode(things)
        things.clear()
        assert alive() is None
    finally:
        gc.enable()


# --- functions --------------------------------------------------------------------------------------------------------


def test_functions_travel_by_value(worker: Worker) -> None:
    ns = cell(
        """
        import math
        factor = 3
        def helper(x): return x * factor
        def outer(n):
            def inner(x): return helper(x) + n + math.floor(0.5)
            return inner
        """
    )
    assert worker(ns.outer(1), 2) == 7
    assert worker(lambda f, x: f(x), lambda x: x + 1, 2) == 3


def test_an_unchanged_function_gives_the_same_bytes_and_a_changed_global_others() -> None:
    source = """
        import dataclasses, enum
        @dataclasses.dataclass
        class Point:
            x: int = 0
            def double(self): return Point(self.x * factor)
        class Color(enum.Enum):
            RED = 1
        names = {'a', 'b', 'c'}
        factor = 2
        def f(x, *, y=Color.RED) -> Point: return [Point(x * factor).double(), names, y]
        """
    ns = cell(source)
    codec = Codec()
    first = codec.encode_function(ns.f)
    assert first.definitions == ()
    codec.encode([ns.Point(1), ns.Color.RED])
    assert codec.encode_function(ns.f).payload == first.payload
    assert Codec().encode_function(ns.f).payload == first.payload
    ns.f.__globals__["factor"] = 5
    assert codec.encode_function(ns.f).payload != first.payload


def test_functions_and_classes_of_a_module_made_by_hand_travel_by_value(worker: Worker) -> None:
    module = types.ModuleType("made_by_hand")
    exec("class Thing:\n    pass\ndef f(x): return Thing, x", module.__dict__)
    sys.modules["made_by_hand"] = module
    try:
        assert worker(module.f, 1) == (module.Thing, 1)
        assert isinstance(worker(lambda x: x, module.Thing()), module.Thing)
    finally:
        del sys.modules["made_by_hand"]


def test_importable_things_travel_by_name() -> None:
    encoded = Codec().encode([json.dumps, OrderedDict, operator.itemgetter(1), np.add, len, textwrap])
    assert len(encoded.payload) < 300
    assert encoded.definitions == ()


def test_lru_cached_functions(worker: Worker) -> None:
    ns = cell(
        """
        import functools
        @functools.lru_cache(maxsize=7, typed=True)
        def fib(n):
            "Fibonacci"
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        class Square:
            @functools.lru_cache
            def area(self): return 9
            @functools.cached_property
            def side(self): return 3
        """
    )
    ns.fib(5)
    assert worker(lambda f: (f(30), f.cache_parameters(), f.__doc__, f.__name__), ns.fib) == (
        832040,
        {"maxsize": 7, "typed": True},
        "Fibonacci",
        "fib",
    )
    assert worker(ns.fib, 20) == 6765
    assert worker(lambda s: (s.area(), s.side), ns.Square()) == (9, 3)


def test_singledispatch_functions(worker: Worker) -> None:
    ns = cell(
        """
        import functools
        @functools.singledispatch
        def show(x): return "object"
        @show.register
        def _(x: int): return "int"
        """
    )
    assert worker(lambda f: (f(1), f("")), ns.show) == ("int", "object")


def test_new_types_and_type_variables(worker: Worker) -> None:
    ns = cell(
        """
        from typing import Generic, NewType, TypeVar
        T = TypeVar("T")
        UserId = NewType("UserId", int)
        class Box(Generic[T]):
            def __init__(self, x: T): self.x = x
        """
    )
    assert worker(lambda box: (type(box)[int], box.x), ns.Box(2)) == (ns.Box[int], 2)
    assert worker(lambda new: new(3), ns.UserId) == 3


# --- what pickle and cloudpickle refuse -------------------------------------------------------------------------------


def make_locked() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock


@pytest.mark.parametrize("import_dill", [False, True])
def test_locks_and_their_like_arrive_ready_for_use(worker: Worker, import_dill: bool) -> None:
    if import_dill:
        import dill  # noqa: F401
    handler = logging.StreamHandler(sys.stderr)
    ns = cell(
        """
        def use(lock, rlock, event, condition, semaphore, handler, locked):
            with lock, rlock, rlock, condition, semaphore, locked:
                pass
            assert event.is_set()
            return type(handler).__name__, handler.stream.name
        """
    )
    event = threading.Event()
    event.set()
    things = (threading.Lock(), threading.RLock(), event, threading.Condition(), threading.Semaphore(2), handler)
    assert worker(ns.use, *things, make_locked()) == ("StreamHandler", "<stderr>")


def test_one_lock_stays_one_lock() -> None:
    lock = threading.Lock()
    a, b = round_trip([lock, {"same": lock}])
    assert b["same"] is a


def test_weak_references_keep_their_target_where_it_travels_too() -> None:
    class Node:
        pass

    node = Node()
    child = Node()
    child.parent = weakref.ref(node)  # type: ignore[attr-defined]
    node.child = child  # type: ignore[attr-defined]
    values = weakref.WeakValueDictionary({"n": node})
    keys = weakref.WeakKeyDictionary({node: 1})
    node_back, values_back, keys_back, dead = round_trip([node, values, keys, weakref.ref(Node())])
    assert node_back.child.parent() is node_back
    assert values_back["n"] is node_back
    assert keys_back[node_back] == 1
    assert dead() is None


def test_standard_streams_are_the_receivers_own(worker: Worker) -> None:
    class OutStream(io.StringIO):  # as ipykernel's: cannot be pickled by itself
        name = "stderr"

        def __reduce__(self) -> Any:
            raise TypeError

    assert worker(lambda out, err, old: [s.name for s in (out, err, old)], sys.stdout, sys.stderr, OutStream()) == [
        "<stderr>",  # the helper prints to stderr
        "<stderr>",
        "<stderr>",
    ]


def test_loggers_travel_by_name() -> None:
    logger = logging.getLogger("a.b")
    assert round_trip([logger, logging.getLogger()]) == [logger, logging.getLogger()]


def test_files_are_opened_again_and_never_truncated(tmp_path: Path, worker: Worker) -> None:
    path = tmp_path / "log.txt"
    with path.open("w") as file, path.open("rb") as reader:
        file.write("kernel\n")
        file.flush()
        reader.read(3)
        worker(lambda f: (f.write("worker\n"), f.close()), file)
        file.write("kernel again\n")
        assert worker(lambda r: (r.read(3), r.close())[0], reader) == b"nel"
    assert path.read_text().startswith("kernel\n")
    assert "worker" in path.read_text() or "kernel again" in path.read_text()
    with path.open() as text:
        assert worker(lambda f: f.read(), text).startswith("kernel")


def test_what_only_dill_carries_travels_inside_the_same_pickle(worker: Worker) -> None:
    ns = cell("class Thing:\n    pass")
    thing = ns.Thing()
    bound = super(ns.Thing, thing)  # neither pickle nor cloudpickle knows `super` objects
    back_thing, back_super = worker(lambda pair: pair, [thing, bound])
    assert type(back_thing) is ns.Thing
    assert back_super.__self__ is back_thing


# --- classes of the notebook ------------------------------------------------------------------------------------------

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


@pytest.fixture
def ns() -> types.SimpleNamespace:
    return cell(CLASSES)


def test_instances_come_back_as_the_kernels_own_class(ns: types.SimpleNamespace, worker: Worker) -> None:
    things = [
        ns.Point(1), ns.Base(2), ns.Derived(3), ns.Base(4).partner(), ns.WithMeta(), ns.Pair(1, 2), ns.Square(),
        ns.Outer.Inner(),
    ]  # fmt: skip
    back = worker(lambda xs: xs, things)
    assert [type(thing) for thing in back] == [type(thing) for thing in things]
    assert back[0] == ns.Point(1)
    assert back[3].back()
    derived = ns.Derived(1)
    assert worker(lambda x: [type(x)(5), x.partner().back(), x.name()], derived) == [ns.Derived(5), True, repr(derived)]


def test_enum_members_are_identical(ns: types.SimpleNamespace, worker: Worker) -> None:
    members = [ns.Color.RED, ns.Color.BLUE, ns.Flags.A | ns.Flags.B, ns.Planet.EARTH]
    back = worker(lambda xs: [*xs, xs[0].twice(), xs[3].mass], members)
    assert all(a is b for a, b in zip(back, members, strict=False))
    assert back[4:] == [2, 5.9e24]
    assert worker(lambda name: ns.Color[name], "RED") is ns.Color.RED


def test_a_class_made_by_a_function_that_was_shipped(ns: types.SimpleNamespace, worker: Worker) -> None:
    made = worker(lambda x: [ns.Derived(x), ns.Derived, lambda: ns.Derived(x)], 3)
    assert type(made[0]) is made[1] is ns.Derived
    assert type(made[2]()) is ns.Derived


def test_a_definition_is_sent_once_and_again_after_a_change(ns: types.SimpleNamespace, worker: Worker) -> None:
    before = worker.n_definitions
    function = worker.codec.encode_function(lambda x: type(x).factor if hasattr(type(x), "factor") else None)
    call = functools.partial(worker.call_encoded, (function.payload, []))
    for _ in range(3):
        assert call(ns.Base(1)) is None
    assert worker.n_definitions == before + 1
    ns.Base.factor = 1
    assert call(ns.Base(1)) == 1
    ns.Base.factor = 2
    assert call(ns.Base(1)) == 2
    ns.Base.factor = 1  # as it was before: the worker must not be taken to know it
    assert call(ns.Base(1)) == 1
    ns.Base.factor = 8
    assert call(ns.Derived(1)) == 8
    assert worker.n_definitions == before + 5


def test_mutable_class_attributes_are_current_in_each_job(worker: Worker) -> None:
    ns = cell("class Config:\n    values = [1]")
    assert worker(lambda c: c.values, ns.Config()) == [1]
    ns.Config.values.append(2)
    assert worker(lambda c: c.values, ns.Config()) == [1, 2]


def test_a_worker_never_overwrites_the_kernels_class(worker: Worker) -> None:
    ns = cell(
        """
        class Counter:
            n = 0
            def bump(self):
                type(self).n += 1
                type(self).extra = "worker"
                return self
        def work(c):
            c.bump()
            return [c, Counter, lambda: Counter, Counter.bump]
        """
    )
    method = ns.Counter.bump
    back = worker(ns.work, ns.Counter())
    assert type(back[0]) is back[1] is back[2]() is ns.Counter
    assert ns.Counter.n == 0
    assert not hasattr(ns.Counter, "extra")
    assert ns.Counter.bump is method


def test_a_class_made_in_the_worker_is_one_class_and_stays_as_the_kernel_changes_it(worker: Worker) -> None:
    ns = cell(
        """
        def make(x):
            class Made:
                n = 0
                def __init__(self, x): self.x = x
            return Made(x)
        """
    )
    first = worker(ns.make, 1)
    kind = type(first)
    kind.n = 5
    back = worker(lambda thing: [thing, type(thing)(2)], first)
    assert [type(thing) for thing in back] == [kind, kind]
    assert kind.n == 5


def test_a_class_made_in_the_worker_twice_sent_is_not_overwritten(worker: Worker) -> None:
    worker(lambda: setattr(__import__("builtins"), "made_there", type("Made", (), {"n": 0})))
    try:
        first = worker(lambda: __import__("builtins").made_there())
        type(first).n = 7
        second = worker(lambda: __import__("builtins").made_there())
        assert type(second) is type(first)
        assert second.n == 7
    finally:
        worker(lambda: delattr(__import__("builtins"), "made_there"))


def test_a_redefined_class_is_a_new_class(worker: Worker) -> None:
    old = cell("class Thing:\n    version = 1").Thing
    new = cell("class Thing:\n    version = 2").Thing
    back = worker(lambda xs: [*xs, *[x.version for x in xs]], [old(), new()])
    assert [type(back[0]), type(back[1])] == [old, new]
    assert back[2:] == [1, 2]


def test_a_deleted_class_gives_a_clear_error(worker: Worker) -> None:
    ns = cell("class Gone:\n    pass")
    kernel, in_worker = Codec(), Codec(in_worker=True)
    shipped = kernel.encode([ns.Gone()])
    assert kernel.kept() == (ns.Gone,)
    result = in_worker.encode([1])
    assert kernel.decode(result.payload) == [1]
    del ns.Gone
    gc.collect()
    assert len(kernel.kept()) == 1  # so results still find it
    assert type(kernel.decode(shipped.payload)[0]).__name__ == "Gone"
    kernel.drop_kept()
    gc.collect()
    with pytest.raises(ClassDeletedError, match="'Gone' of the notebook is gone"):
        kernel.decode(shipped.payload)


def test_an_exception_class_of_the_notebook(ns: types.SimpleNamespace, worker: Worker) -> None:
    def fail(kind: Any) -> None:
        raise kind(7, "text")

    with pytest.raises(ns.Oops, match="7: text") as caught:
        worker(fail, ns.Oops)
    assert caught.value.code == 7


# --- what cannot travel -----------------------------------------------------------------------------------------------


class Holder:
    def __init__(self, lock: Any) -> None:
        self.lock = lock


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class Hostile:
    """Everything about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)

    def __repr__(self) -> str:
        raise ValueError("repr")


@pytest.fixture
def endpoint() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def test_the_path_leads_to_the_culprit(endpoint: socket.socket) -> None:
    error = refusal([0, {"models": [1, 2, Holder(endpoint)]}])
    assert error.path == "args[1]['models'][2].lock"
    assert (error.type_name, error.index) == ("socket", 1)
    assert "inside the function" in error.problem
    assert isinstance(error.__cause__, TypeError)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.path, copied.index) == (str(error), error.path, 1)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("conn = bad\ndef f(): return conn", "global 'conn' used by 'f'"),
        ("conn = bad\ndef g(): return conn\ndef f(): return g()", "global 'conn' used by 'g'"),
        (
            "def make(handle):\n    def f(): return handle\n    return f\nf = make(bad)",
            "closure variable 'handle' of function 'f'",
        ),
        ("def f(x, y=bad): pass", "default of 'y' in function 'f'"),
        ("class C:\n    attr = bad\ndef f(): return C", "attribute 'attr' of class 'C'"),
        ("class C:\n    pass\nc = C()\nc.x = [bad]\ndef f(): return c", "global 'c' used by 'f'.x[0]"),
        ("def f(): pass\nf.handle = bad", "attribute 'handle' of function 'f'"),
    ],
)
def test_the_path_into_a_function(source: str, path: str) -> None:
    function = cell(source, bad=endless()).f
    with pytest.raises(CannotPickle) as caught:
        Codec().encode_function(function)
    assert caught.value.path == path
    assert caught.value.type_name == "generator"
    error = refusal([function])
    assert error.path == f"{path}, at args[0]"
    assert error.index == 0


def test_a_class_that_cannot_travel_is_found_from_its_instance() -> None:
    ns = cell("class C:\n    handle = bad", bad=endless())
    assert refusal([ns.C()]).path == "attribute 'handle' of class 'C', at args[0] (its class)"


async def sleepless() -> None:
    pass


def make_frame() -> types.FrameType:
    return sys._getframe()


def make_traceback() -> Any:
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (endless, "make a list of it"),
        (make_frame, "call stack"),
        (make_traceback, "call stack"),
        (threading.local, "threads of this process"),
        (lambda: contextvars.ContextVar("v"), "variable.get()"),
        (lambda: np.frompyfunc(abs, 1, 1), "make it inside the function"),
    ],
    ids=["generator", "frame", "traceback", "local", "contextvar", "ufunc"],
)
def test_each_kind_has_its_own_message(make: Callable[[], Any], words: str) -> None:
    thing = make()
    assert words in str(refusal([thing]))
    assert refusal([thing]).path == "args[0]"


def test_connections_coroutines_and_temporary_files() -> None:
    connection = sqlite3.connect(":memory:")
    assert "belongs to the process" in str(refusal([connection]))
    connection.close()
    coroutine = sleepless()
    assert "await it" in str(refusal([coroutine]))
    coroutine.close()
    with tempfile.NamedTemporaryFile() as file:
        assert ".name" in str(refusal([file]))


def test_an_object_that_names_itself_in_the_notebook_is_refused_at_once() -> None:
    sentinel = cell(
        """
        class Sentinel:
            def __reduce__(self): return "MISSING"
        MISSING = Sentinel()
        """
    ).MISSING
    assert "known in the notebook only" in str(refusal([sentinel]))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, RecursionError, pickle.PicklingError])
def test_whatever_user_code_raises_is_a_refusal(kind: type[BaseException]) -> None:
    error = kind("no")
    refused = refusal([1, Raises(error)])
    assert refused.path == "args[1]"
    assert refused.index == 1
    assert refused.__cause__ is error or isinstance(error, RecursionError)


def test_a_real_interrupt_is_not_swallowed() -> None:
    class Slow:
        def __reduce__(self) -> Any:
            signal.raise_signal(signal.SIGINT)
            return Slow, ()

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Codec().encode([Slow()])

        class Cancelled(BaseException):
            pass

        def handler(_signum: int, _frame: object) -> None:
            raise Cancelled

        signal.signal(signal.SIGINT, handler)
        with pytest.raises(Cancelled):
            Codec().encode([Slow()])
    finally:
        signal.signal(signal.SIGINT, previous)


def test_hostile_and_endless_objects_are_survived() -> None:
    assert refusal([1, Hostile()]).index == 1
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in str(refusal([1, deep]))
    while deep:  # its own deallocation would recurse
        deep = deep[0]
    own: list[Any] = []
    own.append(own)
    own.append({"own": own, "bad": endless()})
    assert refusal(own).path == "args[1]['bad']"
    a, b = Holder(None), Holder(None)
    a.lock, b.lock = b, [a, threading.local()]
    assert refusal([a]).path == "args[0].lock.lock[1]"


def test_the_search_ends_soon(endpoint: socket.socket) -> None:
    big = [list(range(1000)) for _ in range(300)]
    big[177] = [1, endpoint]  # type: ignore[list-item]
    assert refusal([0, {"rows": big}]).path == "args[1]['rows'][177][1]"
    wide: Any = endpoint
    for _ in range(12):
        wide = [list(range(100_000)), wide]
    start = time.perf_counter()
    refusal([wide])
    assert time.perf_counter() - start < 5  # 0.2 s of search; the rest is pickling, twice, on a busy machine


def test_results_are_called_results(endpoint: socket.socket) -> None:
    assert refusal([endpoint], Codec(in_worker=True)).path == "result[0]"


# --- a damaged list ---------------------------------------------------------------------------------------------------


class BadState:
    def __init__(self, x: int = 0) -> None:
        self.x = x

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"bad state {state['x']}")


def refuse(*args: Any) -> Any:
    raise SystemExit(f"refused {args}")


class BadConstructor:
    def __reduce__(self) -> Any:
        return refuse, (1, [2])


class BadNew:
    def __new__(cls, *args: Any) -> BadNew:
        if args:
            raise KeyError("new")
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[int]:
        return (1,)


class BadHash:
    def __init__(self) -> None:
        self.ready = True

    def __hash__(self) -> int:
        return hash(self.ready)  # not set yet while a set is unpickled


class BadSetter:
    def __reduce__(self) -> Any:
        return BadSetter, (), {"a": 1}, None, None, refuse


def missing_attribute() -> Any:
    module = types.ModuleType("fleeting")
    module.__spec__ = sys.__spec__
    exec("class Fleeting: pass", module.__dict__)
    return module


def salvage(data: list[Any], n: int | None = None) -> list[Any]:
    encoded = Codec().encode(data)
    buffers = [bytes(buffer) for buffer in encoded.buffers]
    with pytest.raises(BaseException):  # noqa: B017, PT011
        Codec().decode(encoded.payload, buffers)
    return Codec().decode_each(encoded.payload, buffers, len(data) if n is None else n)


def bad_places(values: list[Any]) -> list[int]:
    return [i for i, value in enumerate(values) if type(value) is DecodeFailure]


@pytest.mark.parametrize("bad", [BadState, BadConstructor, BadNew, BadSetter], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"deep": [1, (2, {"er": [x]})]},
        lambda x: (x,),
        Holder,
        lambda x: OrderedDict(a=x),
        lambda x: functools.partial(print, x),
        lambda x: [0, 1, x, 3],
        lambda x: (1, 2, 3, x),
    ],
    ids=["plain", "deep", "tuple", "object", "odict", "partial", "list", "tuple4"],
)
def test_the_bad_value_is_found_and_the_others_come_back(bad: Any, wrap: Any) -> None:
    array = np.arange(20_000.0)
    values = salvage(["a", array, wrap(bad()), {"k": 1}, (1, 2, 3, 4), {5}, frozenset({6}), Holder(7), []])
    assert bad_places(values) == [2]
    assert isinstance(values[2].error, ValueError | SystemExit | KeyError)
    np.testing.assert_array_equal(values[1], array)
    assert [values[0], *values[3:7], values[8]] == ["a", {"k": 1}, (1, 2, 3, 4), {5}, frozenset({6}), []]
    assert values[7].lock == 7


def test_a_missing_attribute_of_a_module() -> None:
    module = missing_attribute()
    sys.modules["fleeting"] = module
    try:
        encoded = Codec().encode([1, module.Fleeting(), [module.Fleeting], 2])
        del module.Fleeting
        values = Codec().decode_each(encoded.payload, [], 4)
    finally:
        del sys.modules["fleeting"]
    assert bad_places(values) == [1, 2]
    assert isinstance(values[1].error, AttributeError)
    assert [values[0], values[3]] == [1, 2]


def test_a_shared_bad_object_fails_all_that_hold_it() -> None:
    bad = BadState(5)
    box = {"bad": bad}
    values = salvage([bad, 1, [bad], 2, box, {"box": box}, 3])
    assert bad_places(values) == [0, 2, 4, 5]
    assert {str(values[i].error) for i in (0, 2, 4, 5)} == {"bad state 5"}


def test_many_items_and_one_item() -> None:
    data: list[Any] = [{"i": i} for i in range(3500)]
    data[999], data[1000], data[2222], data[3499] = BadState(), BadConstructor(), [BadNew()], BadState()
    values = salvage(data)
    assert bad_places(values) == [999, 1000, 2222, 3499]
    assert values[3498] == {"i": 3498}
    assert bad_places(salvage([BadState()])) == [0]


def test_a_hash_that_fails() -> None:
    thing = BadHash()
    cyclic = {thing}
    thing.me = cyclic  # type: ignore[attr-defined]
    assert bad_places(salvage([1, thing, 2])) == [1]


def test_a_torn_payload_or_a_wrong_length_fails_as_a_whole() -> None:
    encoded = Codec().encode([1, 2, np.zeros(20_000)])
    for payload, buffers, n in (
        (encoded.payload[:-5], encoded.buffers, 3),
        (encoded.payload, [], 3),
        (encoded.payload, encoded.buffers, 4),
        (b"", [], 1),
    ):
        values = Codec().decode_each(payload, buffers, n)
        assert bad_places(values) == list(range(n))


@given(st.lists(st.tuples(nested, st.booleans()), min_size=1, max_size=8), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_salvage_agrees_with_pickle(items: list[tuple[Any, bool]], depth: int) -> None:
    def wrap(x: Any) -> Any:
        for _ in range(depth):
            x = Holder([x, {"k": x}])
        return x

    data = [wrap(BadState()) if bad else value for value, bad in items]
    values = Codec().decode_each(Codec().encode(data).payload, [], len(data))
    assert bad_places(values) == [i for i, (_, bad) in enumerate(items) if bad]
    assert all(value == data[i] for i, value in enumerate(values) if not items[i][1])


# --- handles on shared memory -----------------------------------------------------------------------------------------


class Handle:
    def __init__(self, shared_id: int) -> None:
        self.shared_id = shared_id


def test_handles_travel_as_their_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbpar.wire import byvalue

    monkeypatch.setattr(byvalue, "_resolver", byvalue._resolver)
    monkeypatch.setattr(Codec, "shared_type", Handle)
    set_shared_resolver(lambda shared_id: f"object {shared_id}")
    handle = Handle(7)
    encoded = Codec().encode([handle, {"again": handle}, Handle(8)])
    assert encoded.shared_ids == (7, 8)
    assert Codec().decode(encoded.payload) == ["object 7", {"again": "object 7"}, "object 8"]
    shipped = Codec().encode_function(lambda: handle)
    assert shipped.shared_ids == (7,)
    in_class = Codec().encode([cell("class C:\n    attr = handle", handle=handle).C()])
    assert in_class.shared_ids == (7,)


# --- dill -------------------------------------------------------------------------------------------------------------


def test_dill_on_request() -> None:
    worker = Worker(import_dill=True, serializer="dill")
    ns = cell(CLASSES + "\n    k = 2\n    def f(x): return [x, k, type(x)]\n")
    try:
        assert worker(ns.f, 3) == [3, 2, int]
        back = worker(lambda x: [x, ns.Base(1)], ns.Base(2))
        assert [type(thing) for thing in back] == [ns.Base, ns.Base]
        assert worker(lambda x: x, ns.Color.RED) is ns.Color.RED
        array = np.arange(20_000)
        encoded = worker.codec.encode([lambda: 1, array])
        assert len(encoded.payload) < 2000
        assert [buffer.nbytes for buffer in encoded.buffers] == [array.nbytes]
        assert worker(lambda f, a: f() + a.sum(), lambda: 1, array) == array.sum() + 1
        assert "generator" in str(refusal([endless()], worker.codec))
    finally:
        worker.close()


def test_importing_dill_first_changes_nothing() -> None:
    worker = Worker(import_dill=True)
    ns = cell(CLASSES)
    try:
        assert type(worker(lambda x: x, ns.Point(1))) is ns.Point
        assert worker(lambda x: lambda: x, 2)() == 2
    finally:
        worker.close()


# --- exceptions -------------------------------------------------------------------------------------------------------


class TwoArguments(Exception):  # noqa: N818
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Unpicklable(Exception):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("what happened")
        self.handle = endless()


class NastyException(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no text")

    def __reduce__(self) -> Any:
        raise SystemExit


class Frozen(Exception):  # noqa: N818
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("did not raise")


def raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def travel(error: BaseException) -> BaseException:
    return decode_exception(encode_exception(error))[0]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("k"),
        SystemExit(3),
        OSError(2, "no", "file"),
        TwoArguments(7, "t"),
        Frozen("f"),
        StopIteration(1),
        UnicodeDecodeError("utf8", b"x", 0, 1, "bad"),
        CannotPickle("p", "t", "why", 3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back_as_themselves(error: BaseException) -> None:
    back = travel(caught(raiser(error)))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))
    trace = back.__traceback__
    assert trace is not None
    names = [frame.f_code.co_name for frame, _ in __import__("traceback").walk_tb(trace)]
    assert names == ["caught", "fail"]


def test_what_cannot_travel_becomes_a_remote_error() -> None:
    for error, name, message in (
        (Unpicklable(), "Unpicklable", "what happened"),
        (NastyException(), "NastyException", "__str__ raised ValueError"),
    ):
        back, text = decode_exception(encode_exception(caught(raiser(error))))
        assert type(back) is RemoteError
        assert back.type_name.endswith(name)
        assert message in str(back)
        assert "in fail" in back.remote_traceback == text
        assert back.__traceback__ is not None


def test_chains_notes_and_suppressed_contexts() -> None:
    def chain() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as error:
                error.add_note("see the manual")
                raise Unpicklable from error
        except Unpicklable:
            raise ValueError("last") from None

    back = travel(caught(chain))
    assert back.__suppress_context__
    assert back.__cause__ is None
    middle = back.__context__
    assert type(middle) is RemoteError
    assert type(middle.__cause__) is KeyError
    assert middle.__cause__ is middle.__context__
    assert middle.__cause__.__notes__ == ["see the manual"]
    assert middle.__cause__.__traceback__ is not None


def test_long_and_cyclic_chains_end() -> None:
    error: BaseException = ValueError(0)
    for i in range(2000):
        following = ValueError(i)
        following.__cause__ = following.__context__ = error
        error = following
    start = time.perf_counter()
    back = travel(error)
    assert time.perf_counter() - start < 5
    assert back.args == (1999,)
    a, b = ValueError("a"), ValueError("b")
    a.__context__, b.__context__ = b, a
    back = travel(a)
    assert back.__context__ is not None
    assert back.__context__.__context__ is back


def test_groups_keep_their_parts() -> None:
    parts = [caught(raiser(ValueError(1))), caught(raiser(Unpicklable())), ExceptionGroup("inner", [KeyError(2)])]
    back = travel(caught(raiser(ExceptionGroup("outer", parts))))  # type: ignore[type-var]
    assert isinstance(back, ExceptionGroup)
    assert back.message == "outer"
    assert [type(part) for part in back.exceptions] == [ValueError, RemoteError, ExceptionGroup]
    assert back.exceptions[0].__traceback__ is not None
    assert travel(BaseExceptionGroup("g", [SystemExit(1)])).exceptions[0].args == (1,)  # type: ignore[attr-defined]


def test_the_traceback_shows_the_cells_own_lines_and_none_of_nbpars() -> None:
    import linecache
    import traceback

    source = "def f(x):\n    return 1 + g(x)\n\ndef g(x):\n    return [1 / x for _ in 'a'][0]\n"
    linecache.cache["<cell 3>"] = (len(source), None, source.splitlines(keepends=True), "<cell 3>")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell 3>", "exec"), names)
    failing = Codec().encode([0])

    def run() -> None:
        names["f"](*Codec().decode(failing.payload))

    back, text = decode_exception(encode_exception(caught(run)))
    shown = "".join(traceback.format_exception(back))
    assert "return 1 + g(x)\n               ^^^^" in shown
    assert "1 / x" in shown
    assert shown.replace(__file__, "") == text.replace(__file__, "")
    inside = caught(lambda: Codec().decode(Codec().encode([BadState()]).payload))
    step = inside.__traceback__
    assert step is not None
    inside.__traceback__ = step.tb_next.tb_next  # type: ignore[union-attr]  # begins in nbpar, as in a worker
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(travel(inside).__traceback__)]
    assert files == [__file__]
    linecache.cache.pop("<cell 3>")


def test_a_runaway_recursion_travels() -> None:
    def run(n: int) -> int:
        return run(n + 1)

    data = encode_exception(caught(lambda: run(0)))
    back, text = decode_exception(data)
    assert type(back) is RecursionError
    assert len(data) < 50_000
    assert "Previous line repeated" in text


def test_garbage_never_raises() -> None:
    for data in (b"", b"garbage", pickle.dumps(3), pickle.dumps(([], "")), encode_exception(ValueError())[:-3]):
        back, text = decode_exception(data)
        assert isinstance(back, RemoteError)
        assert isinstance(text, str)


def test_an_exception_whose_class_is_gone_becomes_a_remote_error() -> None:
    ns = cell("class Local(Exception):\n    pass")
    kernel = Codec()
    kernel.decode(kernel.encode_function(lambda: ns.Local).payload)  # as a worker receives it
    data = encode_exception(ns.Local("text"))
    assert type(decode_exception(data)[0]) is ns.Local
    kernel.drop_kept()
    del ns.Local
    gc.collect()
    back, _ = decode_exception(data)
    assert type(back) is RemoteError
    assert "Local: text" in str(back)
