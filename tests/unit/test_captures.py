"""What tasks of a loop have in common with what it changes: found before they run. Nothing runs here."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from nbpar.errors import LostUpdateError
from nbpar.notebook import reach
from nbpar.notebook.capture_words import refused_at_run_time
from nbpar.notebook.captures import Captures
from nbpar.notebook.cells import evaluate
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.loop_task import task_of
from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Refused, Source

SETUP = """
import collections, enum, functools, io, itertools
import numpy as np
out, seen, total, table, xs = [], set(), 0, {}, [1, 2, 3]
alias = out
"""


def read(cell: str, names: dict[str, Any]) -> tuple[Loop, Source]:
    source = Source(f"%%parallel\n{cell}")
    return read_loop(source.parse(cell, line=2), source, namespace=names), source


def names_of(setup: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SETUP + setup, names)
    return names


def look(setup: str, cell: str) -> None:
    names = names_of(setup)
    loop, source = read(cell, names)
    captures = Captures(loop, source, names)
    value = evaluate(loop.iterable, source, names)
    try:
        captures.check_iterable(value, task_of(loop, source, names).function)
        captures.check(value if type(value) is range else list(captures.watched(value)))
    finally:
        if isinstance(names.get("f"), io.IOBase):
            names["f"].close()


def refusal(setup: str, cell: str) -> tuple[str, str]:
    """The reason, and what is underlined."""
    with pytest.raises(Refused) as caught:
        look(setup, cell)
    place = caught.value.place
    assert place is not None
    line = f"%%parallel\n{cell}".split("\n")[place.line - 1]
    return caught.value.reason, line[place.column : place.end_column]


APPEND = "for x in xs:\n    out.append({})"

IN_COMMON = {
    "another name": ("", APPEND.format("len(alias)"), "`alias` is the same list as `out`", "alias"),
    "in a dict": ("held = {'a': out}", APPEND.format("len(held)"), "`held` holds `out`", "held"),
    "deep in containers": ("held = [{'a': ({1: out},)}]", APPEND.format("held"), "`held` holds `out`", "held"),
    "in an object": (
        "class Sim:\n    def __init__(self, kept): self.kept = kept\nsim = Sim(out)",
        APPEND.format("sim.kept"),
        "`sim` holds `out`",
        "sim",
    ),
    "in slots": (
        "class Sim:\n    __slots__ = ('kept',)\nsim = Sim()\nsim.kept = out",
        APPEND.format("sim.kept"),
        "`sim` holds `out`",
        "sim",
    ),
    "in a class": ("class Sim:\n    kept = out", APPEND.format("Sim.kept"), "`Sim` leads to `out`", "Sim"),
    "in a closure": (
        "def make(kept):\n    return lambda: len(kept)\nf = make(out)",
        APPEND.format("f()"),
        "`f` leads to `out`",
        "f",
    ),
    "in a default": ("def f(x, kept=out): return x", APPEND.format("f(x)"), "`f` leads to `out`", "f"),
    "in a default by name": ("def f(x, *, kept=out): return x", APPEND.format("f(x)"), "`f` leads to `out`", "f"),
    "in a function's attribute": ("def f(x): return x\nf.kept = out", APPEND.format("f(x)"), "`f` leads to", "f"),
    "in a partial": ("f = functools.partial(len, out)", APPEND.format("f()"), "`f` leads to `out`", "f"),
    "its own method": ("push = out.append", APPEND.format("push"), "`push` leads to `out`", "push"),
    "a method of what holds it": (
        "class Sim:\n    def __init__(self): self.kept = out\n    def n(self): return len(self.kept)\nn = Sim().n",
        APPEND.format("n()"),
        "`n` leads to `out`",
        "n",
    ),
    "an inner container": (
        "groups = {'a': []}\ng = groups['a']",
        "for x in xs:\n    groups['a'].append(len(g))",
        "`g` is a part of `groups`",
        "g",
    ),
    "what is outside of a nested one": (
        "groups = {'a': {}}\nall_of_them = [groups]",
        "for x in xs:\n    groups['a'][x] = len(all_of_them)",
        "`all_of_them` holds `groups`",
        "all_of_them",
    ),
    "a view": (
        "grid = np.zeros((3, 3))\nrow = grid[1]",
        "for i in range(3):\n    grid[i, 0] = row.sum()",
        "`row` is a part of `grid`, or a view of it",
        "row",
    ),
    "what it is a view of": (
        "big = np.zeros(9)\npart = big[::2]",
        "for i in range(3):\n    part[i] = big.sum()",
        "`big` is a part of `part`, or a view of it",
        "big",
    ),
    "memory": (
        "grid = np.zeros(3)\nmemory = memoryview(grid)",
        "for i in range(3):\n    grid[i] = len(memory)",
        "`memory` is a part of `grid`, or a view of it",
        "memory",
    ),
    "an array of objects": ("held = np.array([out, None], dtype=object)", APPEND.format("held"), "`held`", "held"),
    "an object of a library": (
        "import fractions, argparse\nheld = argparse.Namespace(kept=out)",
        APPEND.format("held"),
        "`held` holds `out`",
        "held",
    ),
    "of +=": (
        "total = [0]\nother = total",
        "for x in xs:\n    total += [len(other)]",
        "`other` is the same list",
        "other",
    ),
    "a cached function's results": (
        "@functools.lru_cache\ndef f(): return out\nf()\ndel f.__wrapped__.__globals__['alias']\ng = {'f': f}",
        APPEND.format("g"),
        "`out`",
        "g",
    ),
}


@pytest.mark.parametrize(("setup", "cell", "reason", "underlined"), IN_COMMON.values(), ids=IN_COMMON)
def test_what_leads_to_a_changed_object_is_refused_where_it_is_read(
    setup: str, cell: str, reason: str, underlined: str
) -> None:
    said, marked = refusal(setup, cell)
    assert reason in said and marked == underlined


READS = {
    "the accumulator": ("def f(x): return len(out)", APPEND.format("f(x)"), "`f` reads the notebook's `out`"),
    "two calls deep": (
        "def f(x): return len(out)\ndef g(x): return f(x)",
        APPEND.format("g(x)"),
        "`f` reads the notebook's `out`, which the loop changes",
    ),
    "in a nested function": (
        "def f(x):\n    def inner(): return out\n    return inner()",
        APPEND.format("f(x)"),
        "`f` reads the notebook's `out`",
    ),
    "a number that is added to": (
        "def f(x): return total",
        "for x in xs:\n    total += f(x)",
        "`f` reads the notebook's `total`, which the loop changes",
    ),
    "the loop's variable": ("x = 0\ndef f(): return x", APPEND.format("f()"), "`x`, which the loop sets"),
    "one that is not there yet": ("def f(): return y", "for x in xs:\n    y = x\n    out.append(f())", "`y`, which"),
    "a method": (
        "class Sim:\n    def look(self): return len(out)\nsim = Sim()",
        APPEND.format("sim.look()"),
        "`look` reads the notebook's `out`",
    ),
    "a method of a base": (
        "class Base:\n    def look(self): return len(out)\nclass Sim(Base): pass",
        APPEND.format("Sim().look()"),
        "`look` reads the notebook's `out`",
    ),
    "a property": (
        "class Sim:\n    @property\n    def n(self): return len(out)\nsim = Sim()",
        APPEND.format("sim.n"),
        "`n` reads the notebook's `out`",
    ),
    "a static method": (
        "class Sim:\n    @staticmethod\n    def n(): return len(out)",
        APPEND.format("Sim.n()"),
        "`n` reads the notebook's `out`",
    ),
    "decorated": (
        """
def twice(f):
    @functools.wraps(f)
    def inner(x): return f(f(x))
    return inner
@twice
def f(x): return len(out)
""",
        APPEND.format("f(x)"),
        "`f` reads the notebook's `out`",
    ),
    "cached": ("@functools.cache\ndef f(x): return len(out)", APPEND.format("f(x)"), "`f` reads the notebook's"),
    "in a table of functions": (
        "fs = {'a': lambda: out}",
        APPEND.format("fs['a']()"),
        "a function that the loop calls",
    ),
    "by globals": ("def f(): return globals()['out']", APPEND.format("f()"), "`f` calls `globals`"),
    "by eval": ("def f(): return eval('len(out)')", APPEND.format("f()"), "`f` calls `eval`"),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), READS.values(), ids=READS)
def test_a_called_function_that_reads_what_the_loop_sets_is_refused(setup: str, cell: str, reason: str) -> None:
    said, marked = refusal(setup.replace("alias = out", ""), f"{cell}")
    assert reason in said and marked in setup


ITERATORS = {
    "a list's": ("it = iter([1, 2, 3])\ndef f(): return next(it)", APPEND.format("f()"), "`f` leads to an iterator"),
    "zip": ("it = zip(xs, xs)\nheld = [it]", APPEND.format("held"), "`held` leads to an iterator (zip)"),
    "a generator": ("it = (x for x in xs)\nheld = {'a': it}", APPEND.format("held"), "an iterator (generator)"),
    "count": ("c = itertools.count()\ndef f(): return c", APPEND.format("f()"), "an iterator (count)"),
    "a file": ("f = open('/dev/null')", APPEND.format("f"), "`f` is an open file"),
    "a file in memory": ("f = io.StringIO()\ndef g(): return f", APPEND.format("g()"), "`g` leads to an open file"),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), ITERATORS.values(), ids=ITERATORS)
def test_what_has_a_place_in_it_that_moves_is_refused(setup: str, cell: str, reason: str) -> None:
    said, _ = refusal(setup, cell)
    assert reason in said


ITERABLES = {
    "itself by another name": ("", "for x in alias:\n    out.append(x)", "goes through `out`"),
    "zip": ("", "for x, y in zip(xs, alias):\n    out.append(x)", "goes through `out`"),
    "a generator over it": ("g = (x for x in alias)", "for x in g:\n    out.append(x)", "goes through `out`"),
    "a generator function that reads it": (
        "def g():\n    yield len(out)",
        "for x in g():\n    out.append(x)",
        "`g` reads the notebook's `out`",
    ),
    "map with a function that reads it": (
        "def f(x): return len(out)",
        "for x in map(f, xs):\n    out.append(x)",
        "`f` reads the notebook's `out`",
    ),
    "values of it": ("groups = {'a': []}\nh = groups", "for g in h.values():\n    groups['a'].append(1)", "`groups`"),
    "items in it": (
        "groups = {'a': []}\nhs = list(groups.values())",
        "for g in hs:\n    groups['a'].append(len(g))",
        "`groups`",
    ),
    "rows of it": ("grid = np.zeros((2, 2))\nh = grid", "for row in h:\n    grid[0, 0] = row.sum()", "`grid`"),
    "groups of groupby": (
        "",
        "for key, group in itertools.groupby(xs):\n    out.append(list(group))",
        "the items are iterators (_grouper)",
    ),
    "what the generator changes": (
        "todo = [1, 2]\ndef g():\n    while todo: yield todo.pop()",
        "for x in g():\n    out.append(len(todo))",
        "going through the iterable changes `todo`",
    ),
    "one list that is filled again": (
        "def g():\n    row = []\n    for x in xs:\n        row.append(x)\n        yield row",
        "for row in g():\n    out.append(sum(row))",
        "changes them after it has given them out",
    ),
    "one that is changed by the next step": (
        "def g():\n    last = []\n    for x in xs:\n        last.append(x)\n        last = [x]\n        yield x, last",
        "for x, row in g():\n    out.append(sum(row))",
        "changes them after it has given them out",
    ),
    "a number that the generator sets": (
        "n = 0\ndef g():\n    global n\n    for n in xs: yield n",
        "for x in g():\n    out.append(n)",
        "going through the iterable changes `n`",
    ),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), ITERABLES.values(), ids=ITERABLES)
def test_an_iterable_that_sees_what_the_loop_changes_is_refused(setup: str, cell: str, reason: str) -> None:
    said, _ = refusal(setup, cell)
    assert reason in said


TYPES = {
    "a subclass": ("class Bag(list): pass\nbag = Bag()", "for x in xs:\n    bag.append(x)", "type Bag"),
    "a foreign append": (
        "class Log:\n    def append(self, x): print(x)\nlog = Log()",
        "for x in xs:\n    log.append(x)",
        "type Log",
    ),
    "setitem of its own": ("class D(dict): pass\nd = D()", "for x in xs:\n    d[x] = 1", "type D"),
    "nested": ("class Bag(list): pass\ngroups = {1: Bag()}", "for x in xs:\n    groups[1].append(x)", "type Bag"),
    "in place": (
        "class Sum:\n    def __iadd__(self, x): return self\ns = Sum()",
        "for x in xs:\n    s += x",
        "changes an object of type Sum in place",
    ),
    "a masked array": ("m = np.ma.zeros(4)", "for i in range(4):\n    m[i] = i", "type MaskedArray"),
    "what a default_factory hands out": (
        "kept = []\ngroups = collections.defaultdict(lambda: kept)",
        "for x in xs:\n    groups[x].append(x)",
        "an object that is there already",
    ),
    "min of the user's": ("def min(a, b): return a\nbest = 1", "for x in xs:\n    best = min(best, x)", "`min` is not"),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), TYPES.values(), ids=TYPES)
def test_an_effect_on_what_is_not_known_is_refused(setup: str, cell: str, reason: str) -> None:
    said, _ = refusal(setup, cell)
    assert reason in said


SLOTS = {
    "twice the same key": ("d = {1: 2}", "for k in [1, 1]:\n    d[k] = d[k] + 1", "the same `d[k]`"),
    "from the end": ("a = [1, 2]", "for i in [1, -1]:\n    a[i] = a[i] + 1", "whole numbers from 0 on"),
    "a row": ("g = np.zeros((2, 2))", "for i in range(2):\n    g[i] = g[i] * 2", "is a view of the array"),
    "lists that are added to": (
        "d = dict.fromkeys([1, 2], [])",
        "for k in d:\n    d[k] += [len(d[k])]",
        "changes a list in place",
    ),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), SLOTS.values(), ids=SLOTS)
def test_slots_that_are_not_the_iterations_own_are_refused(setup: str, cell: str, reason: str) -> None:
    said, _ = refusal(setup, cell)
    assert reason in said


ITEMS = {
    "the same one twice": ("r = {}\nrows = [r, r]", "for row in rows:\n    row['y'] = 1", "the same dict"),
    "the same part": (
        "t = []\nrows = [{'t': t}, {'t': t}]",
        "for row in rows:\n    row['t'].append(1)",
        "two items are, or hold, the same",
    ),
    "views that overlap": (
        "a = np.zeros(6)\nviews = [a[:4], a[2:]]",
        "for v in views:\n    v[0] = 1",
        "the same ndarray",
    ),
    "one that the body reads": (
        "rows = [{}, {}]\nfirst = rows[0]",
        "for row in rows:\n    row['y'] = len(first)",
        "`first` leads to the items",
    ),
    "one in another": ("a = {}\nrows = [a, {'before': a}]", "for row in rows:\n    row['y'] = 1", "an item holds"),
    "of a type of its own": ("class R(dict): pass\nrows = [R()]", "for row in rows:\n    row['y'] = 1", "type R"),
}


@pytest.mark.parametrize(("setup", "cell", "reason"), ITEMS.values(), ids=ITEMS)
def test_items_that_are_not_apart_are_refused_when_the_loop_changes_them(setup: str, cell: str, reason: str) -> None:
    said, _ = refusal(setup, cell)
    assert reason in said


def test_a_name_that_the_loop_would_delete_is_refused() -> None:
    cell = """for x in xs:
    try:
        out.append(1 / x)
    except ZeroDivisionError as e:
        out.append(str(e))"""
    look("", cell)
    said, marked = refusal("e = 1", cell)
    assert "`e` is a name of the notebook's, and the loop would delete it" in said and marked == "e"


RUNS = {
    "a list": ("", APPEND.format("x * x")),
    "another list": ("other = [1]", APPEND.format("len(other)")),
    "an alias that nobody reads": ("", APPEND.format("x")),
    "a copy": ("copy = list(out)", APPEND.format("len(copy)")),
    "a local of the same name": ("def f(x):\n    out = [x]\n    return out", APPEND.format("f(x)")),
    "an argument of the same name": ("def f(out): return out", APPEND.format("f(x)")),
    "an attribute of the same name": ("class A: pass\na = A()\na.out = 1\ndef f(): return a.out", APPEND.format("f()")),
    "a function that nobody calls": ("def f(): return out", APPEND.format("x")),
    "a method of another class": (
        "class A:\n    def look(self): return 1\nclass B:\n    def look(self): return out",
        APPEND.format("A().look()"),
    ),
    "a cached function": ("@functools.lru_cache\ndef f(x): return x", APPEND.format("f(x)")),
    "library functions": ("import json, logging\nlog = logging.getLogger('x')", APPEND.format("json.dumps(log.name)")),
    "the streams": ("import sys", "for x in xs:\n    print(x, file=sys.stderr)\n    out.append(x)"),
    "a closed file": ("f = open('/dev/null')\nf.close()", APPEND.format("f.name")),
    "an iterator gone through": ("", "for x, y in zip(xs, iter(xs)):\n    out.append(x)"),
    "a generator": ("def g():\n    yield from xs", "for x in g():\n    out.append(x)"),
    "a generator that gives the same out again": (
        "settings = {}\ndef g():\n    for x in xs: yield x, settings",
        "for x, s in g():\n    out.append(len(s))",
    ),
    "a generator that changes its own": (
        "todo = [1]\ndef g():\n    yield todo.pop()",
        "for x in g():\n    out.append(x)",
    ),
    "a copy of itself": ("", "for x in list(out):\n    out.append(x)"),
    "its length": ("", "for i in range(len(alias)):\n    out.append(i)"),
    "nested": ("groups = {}", "for x in xs:\n    groups[x % 2].append(x)"),
    "defaultdict": ("g = collections.defaultdict(lambda: [])", "for x in xs:\n    g[x].append(x)"),
    "defaultdict of dicts": (
        "g = collections.defaultdict(functools.partial(collections.defaultdict, list))",
        "for x in xs:\n    g[x][x].append(x)",
    ),
    "all kinds": (
        "c, d, q = collections.Counter(), collections.OrderedDict(), collections.deque()",
        "for x in xs:\n    c[x] += 1\n    d[x] = x\n    q.append(x)\n    seen.add(x)\n    total += x",
    ),
    "min": ("best = 9", "for x in xs:\n    best = min(best, x)"),
    "every other number of an array": (
        "big = np.zeros(8)\na, b = big[::2], big[1::2]",
        "for i in range(4):\n    a[i] = b.sum()",
    ),
    "an array": ("a = np.zeros(9)", "for i in range(9):\n    a[i] = i"),
    "another array": ("a, b = np.zeros((2, 9))", "for i in range(9):\n    a[i] = b.sum()"),
    "an own slot": ("d = {1: 2}", "for k in d:\n    d[k] = d[k] + 1"),
    "own slots of items": ("d = {1: 2}", "for k, v in d.items():\n    d[k] = v + 1"),
    "own slots of enumerate": ("a = [1, 2]", "for i, v in enumerate(a):\n    a[i] = v + 1"),
    "own slots of an array": ("a = np.zeros(3)", "for i in range(3):\n    a[i] = a[i] + 1"),
    "own slots with lists": ("d = {1: [2], 2: [1]}", "for k in d:\n    d[k] = sorted(d[k])"),
    "keys more than once that nobody reads": ("d = {}", "for k in [1, 1]:\n    d[k] = k"),
    "items": ("rows = [{}, {}]", "for row in rows:\n    row['y'] = len(row)"),
    "items with numbers": ("rows = [{}, {}]", "for i, row in enumerate(rows):\n    row['y'] = i"),
    "rows of an array": ("a = np.zeros((3, 2))", "for row in a:\n    row[0] = row.sum()"),
    "what is not there": ("", "for x in xs:\n    missing.append(x)"),
    "an enum": ("class Colour(enum.Enum):\n    RED = 1", APPEND.format("Colour.RED.value")),
    "an outer min that is Python's": ("from builtins import min\nbest = 9", "for x in xs:\n    best = min(best, x)"),
}


@pytest.mark.parametrize(("setup", "cell"), RUNS.values(), ids=RUNS)
def test_what_has_nothing_in_common_runs(setup: str, cell: str) -> None:
    look(setup, cell)


def test_a_module_of_the_users_own_that_has_the_accumulator_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_the_users.py").write_text("kept = []\ndef look(): return len(kept)\ndef apart(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "of_the_users", raising=False)
    setup = "from of_the_users import kept, look, apart\nimport of_the_users"
    said, marked = refusal(setup, "for x in xs:\n    kept.append(look())")
    assert "`look` leads to `kept`" in said and marked == "look"
    said, marked = refusal(setup, "for x in xs:\n    kept.append(of_the_users.apart())")
    assert "`of_the_users` leads to `kept`" in said and marked == "of_the_users"
    look(setup, "for x in xs:\n    kept.append(apart())")
    monkeypatch.delitem(sys.modules, "of_the_users")


def test_large_data_is_not_gone_through_when_nobody_else_has_what_is_changed() -> None:
    names = names_of("del alias\nrows = [{'a': [n]} for n in range(200_000)]")
    loop, source = read("for x in xs:\n    out.append(len(rows))", names)
    gone_through: list[int] = []

    class Counted(reach.Search):
        def _parts(self, value: Any) -> Any:
            gone_through.append(1)
            return super()._parts(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbpar.notebook.captures.Search", Counted)
        Captures(loop, source, names).check([1, 2])
    assert len(gone_through) < 20


def test_an_alias_in_large_data_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = refusal(
        "rows = [{} for n in range(5_000)]\nrows[4_000]['a'] = out\ndel alias", APPEND.format("len(rows)")
    )
    assert "`rows` holds `out`" in said


def test_a_plain_dict_among_many_is_found_when_the_loop_changes_it() -> None:
    cell = "for x in xs:\n    table[x] = len(rows)"
    said, _ = refusal("rows = [{'n': n} for n in range(5_000)]\nrows[4_000] = table", cell)
    assert "`rows` holds `table`" in said
    look("rows, kept = [{'n': n} for n in range(5_000)], [table]", cell)


def test_what_cannot_be_looked_through_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "BUDGET_S", 0.0)
    said, marked = refusal("rows, kept = [[[]] for n in range(5_000)], [out]", APPEND.format("len(rows)"))
    assert "`out` is held by more than its name, and `rows` has too much in it" in said and marked == "rows"


def test_copies_of_the_namespace_do_not_count_as_other_holders() -> None:
    names = names_of("del alias")
    copies = dict(names), dict(names)
    changed = reach.Changed(names, *copies)
    changed.add_root("out")
    assert not changed.is_held_elsewhere
    elsewhere = [names["out"]]
    again = reach.Changed(names, *copies)
    again.add_root("out")
    assert again.is_held_elsewhere and elsewhere


def test_parts_count_as_held_elsewhere_only_when_they_are() -> None:
    names: dict[str, Any] = {"groups": {key: [] for key in range(5)}}
    changed = reach.Changed(names)
    changed.add_parts("groups", names["groups"].values())
    assert not changed.is_held_elsewhere
    names["g"] = names["groups"][3]
    again = reach.Changed(names)
    again.add_parts("groups", names["groups"].values())
    assert again.is_held_elsewhere


@pytest.mark.parametrize(
    ("changed", "reason", "underlined"),
    [
        ("cache", "`cache` is changed by a call in the loop", "cache"),
        ("Sim.n", "`Sim.n` is changed by a call in the loop", "Sim"),
        ("the item", "an iteration changes its item by a call", "x"),
        ("the state of random", "Give --seed S", "random"),
        ("the state of numpy.random", "`nbpar.current_task().rng`", "for x in xs"),
    ],
)
def test_what_was_changed_in_a_worker_is_said_where_the_body_names_it(
    changed: str, reason: str, underlined: str
) -> None:
    names = names_of("cache = {}\nclass Sim: pass\nimport random")
    cell = "for x in xs:\n    y = (x, cache, Sim, random)\n    out.append(len(y))"
    loop, source = read(cell, names)
    refused = refused_at_run_time(LostUpdateError((changed,)), loop, source)
    assert refused.place is not None
    line = f"%%parallel\n{cell}".split("\n")[refused.place.line - 1]
    assert reason in refused.reason and line[refused.place.column : refused.place.end_column] == underlined


@pytest.mark.parametrize("made", ["random.Random(1)", "np.random.default_rng(1)", "np.random.RandomState(1)"])
def test_a_generator_that_was_drawn_from_is_to_be_made_for_each_item(made: str) -> None:
    names = names_of(f"import random\nimport numpy as np\nrng = {made}")
    loop, source = read("for x in xs:\n    out.append(rng.random())", names)
    refused = refused_at_run_time(LostUpdateError(("rng",)), loop, source, names)
    assert "Make one for each item in the body" in refused.reason


def test_what_only_a_function_names_is_said_where_the_body_calls_that() -> None:
    names = names_of("cache = {}\ndef cached(x): return cache.setdefault(x, x)\n")
    loop, source = read("for x in xs:\n    y = abs(x) + cached(x)", names)
    place = refused_at_run_time(LostUpdateError(("cache",)), loop, source, names).place
    assert place is not None and (place.line, place.column, place.end_column) == (3, 17, 23)
