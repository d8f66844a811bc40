"""The codec: what travels, what keeps its identity, and what is said of the rest. No pool is started.

A class "of the notebook" is made by `exec` with ``__name__ == "__main__"``, as in a cell. The other side of the wire
is one long-lived helper process with a worker's codec.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import operator
import pickle
import sys
import textwrap
import threading
import time
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.wire.codec import (
    OUT_OF_BAND_BYTES,
    CannotPickle,
    Codec,
    set_shared_resolver,
)
from tests.unit.cells import CLASSES, Worker, cell, endless, refusal, round_trip

LARGE = OUT_OF_BAND_BYTES


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
    if array.nbytes >= LARGE:
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


def test_threads_arrive_unstarted_and_without_what_surrounds_them(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shell:
        def excepthook(self, *args: Any) -> None:
            pass

        def __reduce__(self) -> Any:
            raise TypeError

    monkeypatch.setattr(sys, "excepthook", Shell().excepthook)
    ns = cell(
        """
        import threading
        class Mine(threading.Thread):
            def run(self): self.results.append(5)
        def use(*threads):
            for thread in threads:
                thread.start()
                thread.join()
            return threads[0].name, threads[0].daemon, threads[1].results
        """
    )
    mine = ns.Mine()
    mine.results = []
    started = threading.Thread(target=len, args=("a",), name="named", daemon=True)
    waiting = threading.Thread(target=len, args=("a",), name="named", daemon=True)
    started.start()
    started.join()
    assert worker(ns.use, waiting, mine, started) == ("named", True, [5])


def test_the_shell_is_refused_by_name() -> None:
    class InteractiveShell:
        def get_ipython(self) -> Any:
            return self

    with pytest.raises(CannotPickle, match="magics") as caught:
        Codec().encode_function(cell("def f(): get_ipython()", get_ipython=InteractiveShell().get_ipython).f)
    assert caught.value.path.startswith("global 'get_ipython' used by 'f'")


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
