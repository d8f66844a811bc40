"""What tasks change of what their function brought along, and what is no change. Real workers: tests/backends."""

from __future__ import annotations

import math
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.wire.codec import Codec
from nbpar.worker import changes, marks
from nbpar.worker.changes import captured_by
from nbpar.worker.marks import MAX_BYTES, TooLarge, are_same, mark

CELL = """
import array, collections, dataclasses, enum, functools, logging, random, threading
import numpy as np

cache, out, seen, raw = {}, [], {"a", "b"}, bytearray(3)
queue, counts, groups = collections.deque(), collections.Counter(), collections.defaultdict(list)
grid, table = np.zeros((3, 4)), array.array("d", [0.0])
n, model, label = 0, None, "x"
rng, npr, lock, log = random.Random(1), np.random.default_rng(1), threading.Lock(), logging.getLogger("x")

class Sim:
    def __init__(self):
        self.x, self.rng, self.lock, self.me = 0, random.Random(1), threading.Lock(), self
    def step(self, x):
        self.x += x
    def look(self, x):
        self.rng.random()
        with self.lock:
            return self.x + self.twice
    def __call__(self, x):
        self.x += x
    def __eq__(self, other):
        raise AssertionError("nothing of the user's is called")
    __hash__ = None
    @functools.cached_property
    def twice(self):
        return 2 * self.x

class Slots:
    __slots__ = ("x", "y")

class Bag(dict): pass
class Row(list): pass
class Dice(random.Random): pass
class Colour(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Point:
    x: float = math.nan

sim, slots, bag, row, dice, point = Sim(), Slots(), Bag(), Row(), Dice(), Point()
space, nested = types.SimpleNamespace(a=1), {"deep": [{"er": [Point()]}], Colour.RED: {1j, 2.5}}

def helper(x):
    counts[x] += 1

def counted(function):
    calls = 0
    def inner(x):
        nonlocal calls
        calls += 1
        return function(x)
    return inner

def with_default(x, kept=[], *, also={}):
    kept.append(x)

def with_attribute(x):
    with_attribute.calls += 1
with_attribute.calls = 0
"""


@pytest.fixture(autouse=True)
def cell_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all classes are the kernel's own: those of the cell count as if they had come from one."""
    for module in (marks, changes):
        if hasattr(module, "came_from_kernel"):
            monkeypatch.setattr(module, "came_from_kernel", lambda cls: cls.__module__ == "__main__")


@pytest.fixture
def cell() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__", "math": math, "types": types}
    exec(CELL, names)
    return names


def rebuilt(cell: dict[str, Any], body: str) -> Callable[..., Any]:
    """A function with this body in the cell, or the one that an expression gives, as a worker has it."""
    if body.startswith("= "):
        function = eval(body[2:], cell)
    else:
        exec("def task(x):\n    " + body.replace("\n", "\n    "), cell)
        function = cell["task"]
    codec = Codec()
    encoded = codec.encode_function(function)
    made: Callable[..., Any] = codec.decode(encoded.payload, [bytearray(one) for one in encoded.buffers])
    return made


def changed_by(cell: dict[str, Any], body: str) -> tuple[str, ...]:
    function = rebuilt(cell, body)
    captured = captured_by(function)
    assert captured is None or captured.look(0.0) == ()
    function(5)
    return () if captured is None else captured.look(1e9)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("cache[x] = 1", ("cache",)),
        ("out.append(x)", ("out",)),
        ("seen.add(x)", ("seen",)),
        ("raw[0] = x", ("raw",)),
        ("queue.append(x); counts[x] += 1", ("queue", "counts")),
        ("groups[x]", ("groups",)),
        ("grid[1, 2] = x", ("grid",)),
        ("table[0] = float(x)", ("table",)),
        ("global n; n += x", ("n",)),
        ("global model\nif model is None: model = threading.Lock()", ("model",)),
        ("global fresh; fresh = x", ("fresh",)),
        ("nested['deep'][0]['er'][0].x = x", ("nested",)),
        ("sim.step(x)", ("sim",)),
        ("slots.y = x", ("slots",)),
        ("bag[x] = 1; row.append(x)", ("bag", "row")),
        ("point.x = 1", ("point",)),
        ("space.b = 2", ("space",)),
        ("[(lambda: out.append(y))() for y in range(x)]", ("out",)),
        ("helper(x)", ("counts",)),
        ("counted(helper)(x)", ("counts",)),
        ("= with_default", ("kept",)),
        ("= with_attribute", ("with_attribute.calls",)),
        ("= sim.step", ("the Sim object",)),
        ("= sim", ("the Sim object",)),
        ("= functools.partial(sim.step)", ("the Sim object",)),
        ("= functools.partial(lambda kept, x: kept.add(x), {1})", ("the set object",)),
    ],
)
def test_a_change_is_noticed_by_name(cell: dict[str, Any], body: str, names: tuple[str, ...]) -> None:
    assert changed_by(cell, body) == names


def test_a_name_of_the_closure_that_is_bound_anew_is_noticed(cell: dict[str, Any]) -> None:
    cell["wrapped"] = cell["counted"](cell["helper"])
    assert sorted(changed_by(cell, "= wrapped")) == ["calls", "counts"]


@pytest.mark.parametrize(
    "body",
    [
        "x + 1",
        "cache.get(x); len(out); list(seen); grid.sum(); nested['deep']; counts[x]; bag.get(x); str(space)",
        "rng.random(); npr.random(); dice.random(); lock.acquire(); log.warning",
        "sim.look(x)",
        "out.append(x); out.pop()",
        "seen.add(x); seen.discard(x); seen.add('a')",
        "cache[x] = 1; del cache[x]",
        "grid[:] = grid.copy()",
        "point.x = math.nan",
        "global n, label; n = 0; label = 'xx'[:1]",
        "n = 5; out = []; out.append(n)",
        "def inner(y): return y\n[inner(y) for y in range(x)]",
        "= functools.partial(int)",
    ],
)
def test_what_only_reads_or_restores_is_no_change(cell: dict[str, Any], body: str) -> None:
    assert changed_by(cell, body) == ()


def test_a_function_that_can_change_nothing_is_not_looked_at(cell: dict[str, Any]) -> None:
    assert captured_by(rebuilt(cell, "x + n + len(label)")) is None
    assert captured_by(pickle.dumps) is None
    assert captured_by(math.nan) is None


def test_what_workers_import_by_name_is_not_looked_at() -> None:
    assert captured_by(test_what_workers_import_by_name_is_not_looked_at) is None


def test_each_change_is_told_once(cell: dict[str, Any]) -> None:
    function = rebuilt(cell, "out.append(x)\nif x > 1: cache[x] = 1")
    captured = captured_by(function)
    assert captured is not None
    told = []
    for x in range(4):
        function(x)
        told.append(captured.look(1e9))
    assert told == [("out",), (), ("cache",), ()]


def test_looks_become_rare_when_they_cost_more_than_the_tasks_are_worth(
    cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = captured_by(rebuilt(cell, "out.append(x)"))
    assert captured is not None
    looks = 0

    def look(*_: object) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(changes, "_has_changed", look)
    after: list[int] = []
    for n_reports in range(1, 101):
        before = looks
        captured.look(0.0)
        after += [n_reports] * (looks - before)
    assert after == [1, 2, 4, 8, 16, 32, 64]
    for _ in range(3):
        captured.look(60.0)
    assert looks == len(after) + 3


@pytest.mark.parametrize("value", [list(range(100_000)), {"x": "y" * MAX_BYTES}, [[b"z" * 40_000], [b"z" * 40_001]]])
def test_what_is_large_is_not_looked_at(cell: dict[str, Any], value: object) -> None:
    cell["cache"] = value
    assert captured_by(rebuilt(cell, "cache.clear()")) is None
    with pytest.raises(TooLarge):
        mark(value, MAX_BYTES)


def test_what_grows_beyond_the_limit_has_changed(cell: dict[str, Any]) -> None:
    assert changed_by(cell, "out.append('y' * 200_000)") == ("out",)
    assert changed_by(cell, "out.extend(range(100_000))") == ("out",)


def test_nothing_is_said_of_what_a_thread_changes_meanwhile(
    cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = captured_by(rebuilt(cell, "cache.update(a=1)"))
    assert captured is not None

    def raising(*_: object) -> bytes:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(changes, "mark", raising)
    assert captured.look(1e9) == ()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_a_copy_is_the_same_and_one_with_more_in_it_is_not(value: Any) -> None:
    copied = pickle.loads(pickle.dumps([value]))
    before = mark([value], MAX_BYTES)
    assert are_same(before, mark(copied, MAX_BYTES))
    assert not are_same(before, mark([value, 1], MAX_BYTES))


@given(st.lists(st.integers() | st.text(max_size=2), min_size=1, unique=True))
def test_the_order_of_a_set_is_no_change(values: list[Any]) -> None:
    def in_order(order: Iterator[Any]) -> set[Any]:
        made: set[Any] = set()
        for one in order:
            made.add(one)
        return made

    forth, back = in_order(iter(values)), in_order(reversed(values))
    assert are_same(mark(forth, MAX_BYTES), mark(back, MAX_BYTES))
    assert not are_same(mark(forth, MAX_BYTES), mark(set(values[1:]), MAX_BYTES))


def test_arrays_of_objects_and_numbers_of_numpy_are_compared_by_value() -> None:
    def of(*values: Any) -> bytes:
        return mark([np.array(values, dtype=object), np.float64(values[0])], MAX_BYTES)

    assert are_same(of(1, [2]), of(1, [2]))
    assert not are_same(of(1, [2]), of(1, [3]))
    assert not are_same(of(1, [2]), of(2, [2]))
