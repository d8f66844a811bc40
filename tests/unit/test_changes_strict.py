"""The strict detector of lost updates: what it sees that the sampling one does not, and what is no change to it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbpar.wire.codec import Codec
from nbpar.worker import strict
from nbpar.worker.contents import MAX_BYTES, are_equal, written
from nbpar.worker.strict import ITEM, NUMPY_RANDOM, RANDOM, Strict

CELL = """
import collections, dataclasses, datetime, decimal, fractions, functools, json, logging, operator, pathlib, random, re
import threading, types, weakref
import numpy as np
import pandas as pd

cache, out, pair, n = {}, [], ([1], [2]), 0
grid, big, holed = np.zeros((3, 4)), np.zeros((300, 400)), np.zeros((300, 400))[::2, ::3]
objects, masked = np.array([[1], None], dtype=object), np.ma.masked_array(np.zeros(3), [0, 0, 1])
dates, records = np.zeros(400, "M8[s]"), np.zeros(400, [("a", "i4"), ("b", "f8")])
rng, npr, state, bits = random.Random(1), np.random.default_rng(1), np.random.RandomState(1), np.random.PCG64(1)
lock, log, pattern = threading.Lock(), logging.getLogger("x"), re.compile("a+")
frame = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz"), "c": [0.5, 1.5, 2.5]})
series, index = pd.Series([3, 1, 2], name="s"), pd.Index([1, 2, 3])
path, day, third = pathlib.Path("/a/b"), datetime.datetime(2026, 1, 1), fractions.Fraction(1, 3)
queue, counts, order = collections.deque([1]), collections.Counter("aab"), collections.OrderedDict(a=1, b=2)
view, raw = memoryview(bytearray(5)), bytearray(5)
limits = types.SimpleNamespace(a=[1])
chain = collections.ChainMap({}, {"a": 1})

class Sim:
    n = 0
    kept = []
    @classmethod
    def count(cls): cls.n += 1
    @staticmethod
    def keep(x): Sim.kept.append(x)
    @property
    def touched(self):
        cache["touched"] = 1
    def step(self, x):
        self.x = x
        return self
    @functools.cached_property
    def twice(self):
        return 2
    def fresh(self):
        type(self).new = 1

class Held:
    def __init__(self):
        self.sim, self.notes = Sim(), {"deep": [Sim()]}

class Sub(Sim): pass

@dataclasses.dataclass
class Point:
    x: float = 1.0

sim, held, sub, point = Sim(), Held(), Sub(), Point()
hooks = {"a": lambda x: cache.update(a=x), "b": [lambda x: x]}

@functools.lru_cache
def cached(x): return x
@functools.lru_cache
def cached_and_counting(x):
    counts[x] += 1
    return x
def default(x, kept=[], *, also={}):
    also[x] = 1
def plain(x): return x
def with_new_attribute(x): with_new_attribute.seen = x
def makes(kept):
    def inner(x): kept.append(x)
    return inner
closed, push, partial = makes([]), out.append, functools.partial(operator.setitem, {})
"""


def _legacy() -> Any:
    return np.random


@pytest.fixture
def cell() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, names)
    return names


def rebuilt(cell: dict[str, Any], body: str) -> Callable[..., Any]:
    exec("def task(x):\n    " + body.replace("\n", "\n    "), cell)
    codec = Codec()
    encoded = codec.encode_function(cell["task"])
    made: Callable[..., Any] = codec.decode(encoded.payload, [bytearray(one) for one in encoded.buffers])
    return made


def changed_by(cell: dict[str, Any], body: str, item: Any = 5, *, seeded: bool = False) -> tuple[str, ...]:
    watch = Strict(rebuilt(cell, body), keeps_items=True, seeded=seeded)
    watch.function(item)
    return watch.look(1e-6)


CHANGES = {
    "cache[x] = 1": "cache",
    "pair[0].append(x)": "pair",
    "grid[1, 2] = x": "grid",
    "big[299, 399] = x": "big",
    "big[0, 0] = -0.0": "big",
    "holed[3, 3] = x": "holed",
    "objects[0].append(x)": "objects",
    "masked[2] = x": "masked",
    "dates[7] = 'now'": "dates",
    "records['b'][9] = x": "records",
    "rng.random()": "rng",
    "npr.random()": "npr",
    "npr.bit_generator.random_raw()": "npr",
    "state.rand()": "state",
    "bits.random_raw()": "bits",
    "frame.loc[1, 'a'] = 9": "frame",
    "frame['d'] = x": "frame",
    "frame.insert(0, 'z', x)": "frame",
    "frame.index.name = 'i'": "frame",
    "series[0] = x": "series",
    "queue.append(x)": "queue",
    "order.move_to_end('a')": "order",
    "cache['b'] = 1; cache['a'] = cache.pop('b', 2)": "cache",
    "view[2] = 7": "view",
    "raw[2] = 7": "raw",
    "limits.a.append(x)": "limits",
    "chain['b'] = x": "chain",
    "sim.step(x)": "sim",
    "held.sim.step(x)": "held",
    "held.notes['deep'][0].x = x": "held",
    "Sim.count()": "Sim.n",
    "sub.count()": "the attributes of Sub",
    "Sim.keep(x)": "Sim.kept",
    "sim.touched": "cache",
    "held.notes['deep'][0].touched": "cache",
    "sim.fresh()": "the attributes of Sim",
    "point.x = 2": "point",
    "hooks['a'](x)": "hooks",
    "cached_and_counting(x)": "counts",
    "default(x)": "also",
    "with_new_attribute(x)": "the attributes of with_new_attribute",
    "closed(x)": "kept",
    "push(x)": "push",
    "partial(x, x)": "the dict object",
    "global n; n += 1": "n",
    "x.append(1)": ITEM,
    "random.random()": RANDOM,
    "np.random.rand()": NUMPY_RANDOM,
    "random.shuffle([1, 2])": RANDOM,
}


@pytest.mark.parametrize(("body", "name"), CHANGES.items(), ids=CHANGES)
def test_a_change_is_seen(cell: dict[str, Any], body: str, name: str) -> None:
    random_before, numpy_before = random.getstate(), _legacy().get_state()
    try:
        assert name in changed_by(cell, body, [5] if body.startswith("x.") else 5)
    finally:
        random.setstate(random_before)
        _legacy().set_state(numpy_before)


NO_CHANGE = [
    "cache.get(x); len(out); pair[0]; sum(grid[0]); big.mean(); big.T @ big; big[::2].sum(); holed.max()",
    "grid[:] = grid.copy(); big.sort(axis=0); grid.reshape(-1)",
    "masked.mean(); dates.max(); records['a'].sum(); objects[0]",
    "frame['a']; frame.a.sum(); frame.describe(); frame.groupby('b').c.mean(); frame.values; frame.to_numpy()",
    "frame.loc[1]; list(frame.itertuples()); [r for r in frame.iterrows()]; frame.T; frame.copy(); str(frame)",
    "frame.index.get_loc(1); index.get_loc(2); index.is_unique; series.is_unique; series.map(str)",
    "series.sort_values(); series.rolling(2).mean(); series.to_frame()",
    "frame.merge(frame, on='a'); frame.query('a > 1'); frame.memory_usage(deep=True); frame.dtypes",
    "with lock: pass\nlog.debug('x'); pattern.match('aa')",
    "str(path / 'c'); path.name; hash(path); day.isoformat(); +third",
    "sim.twice; sim.step; held.sim.twice; point == Point(); repr(point); Sim.kept; isinstance(sim, Sim)",
    "hooks['b'][0](x); cached(x); cached(x); cached.cache_info(); plain(x)",
    "out.append(x); out.pop(); cache[x] = 1; del cache[x]; queue.rotate(1); queue.rotate(-1)",
    "counts['z']; chain['a']; chain.get('z'); list(order); bytes(view); limits.a",
    "random.Random(1).random(); np.random.default_rng(1).random(); frame.sample(2, random_state=1)",
    "Sim().step(x); Held().notes.clear(); Point(2.0).x; sub2 = Sub(); sub2.step(x)",
    "global n; n += 0",
    "json.dumps(cache); json.loads('[1]'); re.sub('a', 'b', 'abc'); decimal.Decimal(1) / 3",
    "weakref.ref(sim)(); functools.partial(plain, 1)()",
]


@pytest.mark.parametrize("body", NO_CHANGE)
def test_what_only_reads_or_restores_is_no_change(cell: dict[str, Any], body: str) -> None:
    assert changed_by(cell, body) == ()


@pytest.mark.parametrize(
    ("item", "body"),
    [
        ([1, 2], "x.append(1); x.pop()"),
        ({"a": 1}, "sorted(x); x.get('b'); dict(x, b=1)"),
        (np.zeros((50, 50)), "x.sum(); x @ x; x[::2]; x.copy()"),
        ((1, [2]), "x[1][0]"),
    ],
)
def test_an_item_that_is_read_is_no_change(cell: dict[str, Any], item: Any, body: str) -> None:
    assert changed_by(cell, body, item) == ()


@pytest.mark.parametrize(
    ("item", "body"),
    [
        ([1, 2], "x.append(1)"),
        ({"a": [1]}, "x['a'].append(1)"),
        ((1, [2]), "x[1][0] = 5"),
        (np.zeros((50, 50)), "x[9, 9] = 5"),
        ({1, 2}, "x.add(3)"),
        ([1, 2], "x.append(1); raise KeyError"),
    ],
)
def test_an_item_that_is_changed_is_seen(cell: dict[str, Any], item: Any, body: str) -> None:
    watch = Strict(rebuilt(cell, body), keeps_items=True, seeded=False)
    try:
        watch.function(item)
    except KeyError:
        assert "raise" in body
    assert watch.look(1e-6) == (ITEM,)


def test_an_item_may_be_changed_where_the_loop_says_so(cell: dict[str, Any]) -> None:
    watch = Strict(rebuilt(cell, "x.append(1)"), keeps_items=False, seeded=False)
    watch.function([1])
    assert watch.look(1e-6) == ()


def test_seeded_tasks_may_draw_from_the_global_generators(cell: dict[str, Any]) -> None:
    random_before, numpy_before = random.getstate(), _legacy().get_state()
    assert changed_by(cell, "random.random(); np.random.rand()", seeded=True) == ()
    assert changed_by(cell, "rng.random()", seeded=True) == ("rng",)
    random.setstate(random_before)
    _legacy().set_state(numpy_before)


def test_the_global_generators_are_set_back(cell: dict[str, Any]) -> None:
    before = random.getstate(), _legacy().get_state()
    watch = Strict(rebuilt(cell, "random.random(); np.random.randn()"), keeps_items=True, seeded=False)
    watch.function(1)
    assert watch.look(1e-6) == (NUMPY_RANDOM, RANDOM)
    watch.undo()
    assert random.getstate() == before[0]
    assert [str(one) for one in _legacy().get_state()] == [str(one) for one in before[1]]


def test_numpys_generator_that_a_task_has_loaded_is_seen_when_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fresh:
        keys = np.zeros(624, np.uint32)
        at = 624

        @classmethod
        def get_state(cls) -> Any:
            return "MT19937", cls.keys, cls.at, 0, 0.0

    monkeypatch.delitem(sys.modules, "numpy.random")
    watch = Strict(lambda x: x, keeps_items=True, seeded=False)
    monkeypatch.setitem(sys.modules, "numpy.random", Fresh)
    assert watch.look(1e-6) == ()
    Fresh.at = 3
    assert watch.look(1e-6, is_last=True) == (NUMPY_RANDOM,)


def test_looks_are_as_many_as_they_are_worth_and_one_at_the_end(
    cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Strict(rebuilt(cell, "out.append(x)"), keeps_items=True, seeded=False)
    watch._cost_s = 1.0
    looks: list[Strict] = []

    def drawn(one: Strict) -> tuple[str, ...]:
        looks.append(one)
        return ()

    monkeypatch.setattr(Strict, "_drawn", drawn)
    watch.look(0.001)
    assert len(looks) == 1
    for _ in range(10):
        watch._cost_s = 1.0
        watch.look(0.1)
    assert len(looks) == 1
    watch.look(0.0, is_last=True)
    assert len(looks) == 2
    watch.look(0.0, is_last=True)
    assert len(looks) == 2, "nothing has run since"
    watch._cost_s = 1.0
    watch.look(1.01 / strict.SHARE)
    assert len(looks) == 3


def test_comparing_items_stops_when_it_takes_too_long(cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Strict(rebuilt(cell, "x.append(1) if len(x) > 1 else 0"), keeps_items=True, seeded=False)
    watch._items_s = 1.0
    watch.function([1, 2])
    assert watch.look(1e-6) == ()
    watch.look(2.0 / strict.SHARE)
    watch.function([1, 2])
    assert watch.look(1e-6) == (ITEM,)


def test_each_change_is_told_once(cell: dict[str, Any]) -> None:
    watch = Strict(rebuilt(cell, "out.append(x)\nif x > 1: cache[x] = 1"), keeps_items=True, seeded=False)
    told = []
    for x in range(4):
        watch.function(x)
        told.append(watch.look(1e-6, is_last=True))
    assert told == [("out",), (), ("cache",), ()]


def test_of_what_is_very_large_length_and_samples_count() -> None:
    rows: list[Any] = [{} for _ in range(60_000)]
    before = written([*rows, object()] * 2)
    assert are_equal(before, written([*rows, object()] * 2))
    many = [[object()] for _ in range(60_000)]
    before = written(many)
    assert are_equal(before, written(many))
    many.append([])
    assert not are_equal(before, written(many))
    large = np.zeros(4_000_000, "u1")
    before = written(large, 1_000)
    large[-1] = 1
    assert not are_equal(before, written(large, 1_000))
    assert are_equal(written(large), written(large.copy())) and large.nbytes < MAX_BYTES


def test_equal_content_is_equal_whatever_is_one_object_in_it() -> None:
    one = [1, 2]
    assert are_equal(written([one, one]), written([[1, 2], [1, 2]]))
    assert are_equal(written({"b", "a"}), written({"a", "b"}))
    assert are_equal(written([float("nan")]), written([float("nan")]))
    assert not are_equal(written([1]), written([True]))
    assert not are_equal(written([1.0]), written([1]))
    assert not are_equal(written({"a": 1, "b": 2}), written({"b": 2, "a": 1}))
    loop: list[Any] = []
    loop.append(loop)
    assert are_equal(written(loop), written(loop))
    assert not are_equal(written([loop, 1]), written([loop, 2]))
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert are_equal(written(deep), written(deep))


def test_what_a_librarys_object_keeps_for_itself_is_no_change() -> None:
    import argparse

    kept = argparse.Namespace(a=1, _cache=None)
    before = written(kept)
    kept._cache, kept._more = {1: 2}, 3
    assert are_equal(before, written(kept))
    kept.a = 2
    assert not are_equal(before, written(kept))
    fitted = argparse.Namespace(a=1)
    before = written(fitted)
    fitted.coef_ = 3
    assert not are_equal(before, written(fitted))


def test_state_of_a_module_of_the_users_own_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counts_calls.py").write_text(
        "calls, seen = 0, []\ndef f(x):\n    global calls\n    calls += 1\n"
        "def g(x): seen.append(x)\ndef h(x): return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "counts_calls", raising=False)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("import counts_calls\nfrom counts_calls import f, g, h", names)
    assert changed_by(names, "h(x)") == ()
    assert changed_by(names, "f(x)") == ("counts_calls.calls",)
    assert changed_by(names, "g(x)") == ("counts_calls.seen",)
    assert changed_by(names, "counts_calls.g(x)") == ("counts_calls.seen",)
    monkeypatch.delitem(sys.modules, "counts_calls")
