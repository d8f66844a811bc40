"""What a task of a loop notes of its effects, and what of that goes back to the kernel as a name."""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nbpar.notebook.loop_task import look_after, task_of
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Source
from nbpar.worker.origins import ITEM_ORIGIN, Known, Origin, are_plain, parts_of, resolved, with_origins
from nbpar.worker.recorder import UNSET, CannotTell, Escaped, Outcome, Recorders
from nbpar.worker.views import View


def task(cell: str, last_index: int = -1, **names: Any) -> Callable[[Any], Any]:
    """The function of the tasks of a cell's loop."""
    source = Source(cell, filename="cell")
    made = task_of(read_loop(source.parse(cell), source, namespace=names), source, {"__name__": "__main__", **names})
    made.recorders.last_index = last_index
    look_after(made.recorders, read_loop(source.parse(cell), source, namespace=names), names)
    return made.function


def test_an_outcome_is_numbers_and_values_in_the_order_of_the_statements() -> None:
    run = task(
        "for x in xs:\n    n += x\n    if x > 1:\n        out.append(x * 2)\n    d[x, 0] = 'a'", n=0, out=[], d={}
    )
    assert run(1) == (0, 1, 2, 1)
    assert run(2) == (0, 2, 1, 4, 2, 2)
    assert type(run(2)) is tuple


def test_continue_ends_the_iteration_with_what_was_noted() -> None:
    run = task("for x in xs:\n    out.append(x)\n    if x: continue\n    out.append(-1)", out=[])
    assert [run(0), run(5)] == [(0, 0, 1, -1), (0, 5)]


def test_names_that_are_always_set_are_told_by_the_last_task_only() -> None:
    cell = "for x in xs:\n    y = x * 2\n    out.append(y)"
    assert task(cell, out=[])(3) == ({"y": 6}, 0, 6)  # outside of a job, or with a checkpoint: each tells
    import nbpar

    with nbpar.WorkerPool(start_method="serial") as pool:
        assert pool.map(task(cell, last_index=2, out=[]), [1, 2, 3]) == [(0, 2), (0, 4), ({"y": 6}, 0, 6)]


def test_names_that_are_set_sometimes_are_told_whenever_they_are() -> None:
    run = task("for x in xs:\n    if x: y = x", last_index=99)
    assert [run(0), run(4)] == [(), ({"y": 4},)]


def test_names_that_are_unset_in_the_end_are_told_to_be() -> None:
    run = task("for x in xs:\n    try:\n        1 / x\n    except ZeroDivisionError as error:\n        pass")
    told = run(0)[0]
    assert told["error"] is UNSET
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert run(1) == ()


def test_a_last_value_that_cannot_travel_is_told_with_the_reason() -> None:
    told = task("for x in xs:\n    g = (i for i in [x])\n    def f(v): return v + x\n    y = 1")(2)[0]
    assert {name: type(value) for name, value in told.items()} == {"g": CannotTell, "f": CannotTell, "y": int}
    assert "a function (`f`)" in told["f"].reason


def test_a_large_value_of_a_name_that_is_set_sometimes_is_told_by_the_last_task_only() -> None:
    import nbpar

    cell = "for x in xs:\n  with guard:\n    y = [x] * 50_000\n    z = str(x) * 100_000\n    w = [x]\n    k = big"
    run = task(cell, last_index=1, guard=contextlib.nullcontext(), big=list(range(50_000)))
    with nbpar.WorkerPool(start_method="serial") as pool:
        (first,), (last,) = pool.map(run, [1, 2])
    assert [type(first[name]) for name in "yzwk"] == [CannotTell, CannotTell, list, Origin]
    assert "64 KB" in first["y"].reason
    assert (last["y"], last["z"], last["w"]) == ([2] * 50_000, "2" * 100_000, [2])


def test_what_is_used_at_once_is_noted_as_it_was_then() -> None:
    run = task("for x in xs:\n    b = [x]\n    acc += b\n    b.append(9)\n    keep.append(b)", acc=[], keep=[])
    assert run(1)[1:] == (0, [1], 1, [1, 9])


def test_what_is_used_at_once_and_not_changed_is_noted_as_the_same_object() -> None:
    run = task("for x in xs:\n    b = [x]\n    acc += b\n    keep.append(b)", acc=[], keep=[])
    _, _, added, _, kept = run(1)
    assert added is kept


def test_arrays_take_the_content_that_a_value_has_then() -> None:
    cell = "for i in xs:\n    row = np.ones(2)\n    grid[i] = row\n    row += 1"
    run = task(cell, np=np, grid=np.zeros((3, 2)))
    assert run(0)[2].tolist() == [1, 1]
    rows: list[Any] = [None] * 3
    assert task(cell, np=np, grid=rows)(0)[2].tolist() == [2, 2]


def test_a_value_whose_use_is_not_known_must_not_change_afterwards() -> None:
    cell = "for k in xs:\n    row = [k]\n    table[k][0] = row\n    row.append(1)"
    with pytest.raises(Escaped, match="is changed after it was stored"):
        task(cell, table=[[0]])(0)


def test_what_is_gone_through_is_noted_up_to_the_error() -> None:
    run = task("for x in xs:\n    d.update(x)", d={})
    assert run({"a": 1}) == (0, {"a": 1})
    assert run(iter(["ab"])) == (0, ["ab"])

    def lines() -> Iterator[str]:
        yield "ab"
        raise OSError

    noted: list[Any] = Recorders(n_values=(1,), collected={0: (0,)})(None)
    with pytest.raises(OSError):  # noqa: PT011  # it has no message
        noted.note(0, lines())  # type: ignore[attr-defined]  # a recorder is the list of what was noted
    assert noted == [0, ["ab"]]


@pytest.mark.parametrize(
    ("made", "what"),
    [("lambda: x", "a lambda"), ("f", "a function"), ("[{'k': (f,)}]", "a function"), ("(x for _ in [1])", "a gener")],
)
def test_what_the_body_makes_and_would_see_its_names_does_not_get_out(made: str, what: str) -> None:
    with pytest.raises(Escaped, match=what) as caught:
        task(f"for x in xs:\n    n += 1\n    def f(): return x\n    out.append({made})", out=[], n=0)(1)
    assert caught.value.number == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_recorders_pickle_to_the_same_bytes_whatever_they_have_seen() -> None:
    recorders = Recorders(named=("rows",))
    before = pickle.dumps(recorders)
    recorders.known_by_name({"rows": [[1]]})
    assert pickle.dumps(recorders) == before


# --- origins ----------------------------------------------------------------------------------------------------------


def test_the_item_and_its_parts_go_back_as_origins() -> None:
    run = task("for i, row in pairs:\n    out.append(row)\n    out.append([row['tags'], i])", out=[])
    outcome = run((3, {"tags": [1]}))
    assert type(outcome) is Outcome
    assert outcome == (0, Origin("", 1), 1, [Origin("", 2), 3])


def test_what_the_function_brought_goes_back_as_an_origin() -> None:
    table = {"a": [1]}
    namespace: dict[str, Any] = {"table": table, "__name__": "__main__"}
    exec("def look(k): return table[k]", namespace)
    run = task("for k in ks:\n    out.append(look(k))\n    out.append(5)", out=[], **namespace)
    assert run("a")[1] == Origin("look", parts_of(namespace["look"]).index(table["a"]))
    assert run("a")[1].name == "look"


def test_plain_values_have_no_origin() -> None:
    run = task("for x in xs:\n    out.append(x)\n    out.append(consts[0])", out=[], consts=["long text", 2])
    assert run("item") == (0, "item", 1, "long text")
    assert are_plain([1.5, "a", None, np.float64(2), int.__add__]) is False
    assert are_plain([1.5, "a", None, np.float64(2)])


def test_what_is_one_object_stays_one_object() -> None:
    shared: list[Any] = [1]
    item = {"a": shared, "b": []}
    made = [shared, shared]
    values = with_origins((made, made, (made, item)), [Known({ITEM_ORIGIN: item})])
    first, second, (third, _) = values
    assert first is second is third is not made
    theirs = {"a": [1], "b": []}
    back = resolved(values, lambda _: parts_of(theirs))
    assert back[0] is back[1] is back[2][0]
    assert back[0][0] is theirs["a"]
    assert back[2][1] is theirs


def test_values_without_origins_are_left_as_they_are() -> None:
    values = ([[1], {"k": [2]}],)
    assert with_origins(values, [Known({ITEM_ORIGIN: [[1]]})]) is values


def test_values_that_hold_themselves() -> None:
    item: list[Any] = []
    knot: list[Any] = [item]
    knot.append((knot, knot))
    (made,) = with_origins((knot,), [Known({ITEM_ORIGIN: item})])
    assert made[1][0] is made[1][1] is made
    assert made[0] == Origin("", 0)


class Plain:
    """Its instances are what is in their ``__dict__``."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Own(Plain):
    def __reduce__(self) -> Any:
        return Own, (self.inner,)


def test_instances_are_looked_into_where_a_copy_is_made_of_their_attributes() -> None:
    item = [1]
    (made,) = with_origins((Plain(item),), [Known({ITEM_ORIGIN: item})])
    assert type(made) is Plain
    assert made.inner == Origin("", 0)
    mine = Own(item)
    assert with_origins((mine,), [Known({ITEM_ORIGIN: item})]) == (mine,)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_copy_has_the_same_parts_in_the_same_order(kind: Any) -> None:
    inner: list[Any] = [[], {"x": [1]}]
    value = kind([inner, defaultdict(list, {"k": inner}), Plain(inner), np.zeros(2), 1, "s"])
    copied = pickle.loads(pickle.dumps(value))
    assert [type(part) for part in parts_of(copied)] == [type(part) for part in parts_of(value)]
    assert sum(part is inner for part in parts_of(value)) == 1


@pytest.mark.parametrize("part", ["m[1]", "m[:, 2]", "m[::-1, 1:]", "m.T[0]", "m[1].view('int64')", "m[0, 1:2]"])
def test_a_part_of_an_array_comes_back_as_a_part_of_the_kernels(part: str) -> None:
    theirs = np.arange(12.0).reshape(3, 4)
    copied = theirs.copy()
    (view,) = with_origins((eval(part, {"m": copied}),), [Known({"m": copied})])
    assert type(view) is View
    (made,) = resolved((pickle.loads(pickle.dumps(view)),), lambda _: parts_of(theirs))
    expected = eval(part, {"m": theirs})
    assert np.shares_memory(made, theirs)
    assert (made.dtype, made.strides, made.tolist()) == (expected.dtype, expected.strides, expected.tolist())


def test_a_part_of_an_array_that_lies_otherwise_in_the_kernel_is_a_copy_with_the_same_content() -> None:
    theirs = np.arange(24.0).reshape(3, 8)[:, ::2]
    copied = theirs.copy()
    (made,) = resolved(with_origins((copied[1:],), [Known({"m": copied})]), lambda _: parts_of(theirs))
    assert made.tolist() == theirs[1:].tolist()


def test_arrays_that_the_task_made_are_no_parts() -> None:
    m = np.arange(12.0).reshape(3, 4)
    values = (m[[0, 1]], m + 1, np.empty(0))
    assert with_origins(values, [Known({"m": m})]) is values


def test_what_is_written_in_a_class_of_the_notebook_is_its_own() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "class Model:\n    names = ['a']\n    def __init__(self): self.w = [1]\n    def predict(self): return 1",
        namespace,
    )
    model = namespace["Model"]()
    known = [Known({"Model": namespace["Model"], "model": model})]
    names, predict, bound, made, push = with_origins(
        (
            model.names,
            namespace["Model"].predict,
            model.predict,
            functools.partial(model.predict, model.w),
            model.w.count,
        ),
        known,
    )
    values = pickle.loads(pickle.dumps((names, predict, bound, made, push)))
    back = resolved(values, lambda name: parts_of(namespace.get(name, model)))
    assert back[0] is model.names
    assert back[1] is namespace["Model"].predict
    assert back[2].__self__ is model
    assert back[3].args[0] is model.w
    assert back[4].__self__ is model.w
