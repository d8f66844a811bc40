"""Classes of the notebook keep their identity, whichever way they travel."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Iterator
from typing import Any

import pytest

from nbpar.wire.codec import (
    ClassDeletedError,
    Codec,
)
from tests.unit.cells import CLASSES, Worker, cell


@pytest.fixture(scope="module")
def helper() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def worker(helper: Worker) -> Worker:
    helper.codec = Codec()  # what one test sent must not keep another one's classes alive
    return helper


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


def test_names_that_the_body_of_an_inner_class_uses_travel(worker: Worker) -> None:
    names = cell("""
        base, step = 2, 3
        def make(n):
            class Made:
                size = base + n
                sizes = [step * q for q in range(size)]
                def next(self):
                    return self.size + step
            return Made.size, Made.sizes, Made().next()
    """)
    assert worker(names.make, 1) == (3, [0, 3, 6], 6)
