"""Which statement of a cell is the loop, what is around it, and what cannot stand in it at all."""

from __future__ import annotations

import ast
import dataclasses
import re
import textwrap
from typing import Any

import pytest

from nbpar.notebook.loop_model import Loop
from nbpar.notebook.source import Source, define, function_of
from tests.unit.loop_cells import read, refused, task, underlined


def test_the_parts_of_a_cell() -> None:
    loop = read(
        """
        out = []
        for i, (a, *b) in enumerate(
            xs
        ):
            out.append(a)
        else:
            done = True
        print(out)
        """
    )
    assert [ast.unparse(statement) for statement in loop.before] == ["out = []"]
    assert [ast.unparse(statement) for statement in loop.after] == ["done = True", "print(out)"]
    assert loop.targets == ("i", "a", "b")
    assert loop.header == "for i, (a, *b) in enumerate(xs)"
    assert (loop.place.line, loop.place.column, loop.place.end_line) == (2, 0, 4)
    assert ast.unparse(loop.iterable) == "enumerate(xs)"
    assert isinstance(loop, Loop)


def test_other_loops_may_stand_before_and_after_in_other_statements() -> None:
    loop = read(
        """
        def f(v):
            for j in v:
                return j
        while not ready():
            pass
        if a:
            for q in r: pass
        for x in xs:
            out.append(f(x))
        ys = [x for x in out]
        """
    )
    assert loop.header == "for x in xs" and len(loop.before) == 3 and len(loop.after) == 1


NOT_ONE_LOOP = {
    "for x in xs: pass\nfor y in ys: pass": ("2 loops (lines 1 and 2)", "for y in ys: pass"),
    "while x:\n    x -= 1": ("`while`", "while x:"),
    "async for x in xs: pass": ("`async for`", "async for x in xs: pass"),
    "ys = [f(x) for x in xs]": ("`ys = %parallel [f(x) for x in xs]`", "[f(x) for x in xs]"),
    "total = sum(f(x) for x in xs)": ("%parallel", "(f(x) for x in xs)"),
    "def g():\n    for x in xs: pass": ("in a function", "for x in xs: pass"),
    "with a:\n    for x in xs: pass": ("in a `with`", "for x in xs: pass"),
    "if a:\n    for x in xs: pass": ("in an `if`", "for x in xs: pass"),
    "try:\n    for x in xs: pass\nfinally: pass": ("in another statement", "for x in xs: pass"),
    "f(x)": ("`%%parallel -o results each x in xs`", "f(x)"),
}


@pytest.mark.parametrize("cell", NOT_ONE_LOOP)
def test_a_cell_without_exactly_one_loop_is_told_what_to_write(cell: str) -> None:
    reason, where = NOT_ONE_LOOP[cell]
    assert reason in refused(cell).reason
    assert underlined(cell) == where


def test_an_empty_cell_is_refused() -> None:
    assert refused("").place is None
    assert "no `for` loop" in refused("# nothing").reason


HEADERS = {
    "for d['k'] in xs": ("d['k']", "plain names"),
    "for obj.n in xs": ("obj.n", "plain names"),
    "for a, b[0] in xs": ("b[0]", "plain names"),
    "for x in (ys := f())": ("ys := f()", "in a line before the loop"),
    "for x in await get()": ("await get()", r"`xs = await \.\.\.`"),
    "for x in [y async for y in ys]": ("y async for", r"`xs = await \.\.\.`"),
    "for x in out": ("out", r"`list\(out\)`"),
    "for x in (v for v in out)": ("out", r"`list\(out\)`"),
    "for x in zip(xs, out)": ("out", r"`list\(out\)`"),
    "for x in reversed(out)": ("out", r"`list\(out\)`"),
    "for x in map(f, out)": ("out", r"`list\(out\)`"),
    "for x in [out, xs]": ("out", r"`list\(out\)`"),
    "for x in gen(out)": ("out", r"`list\(out\)`"),
    "for x in out[1:]": ("out", r"`list\(out\)`"),
    "for x in (y * k for k in ks)": ("y", r"`xs = list\(\.\.\.\)`"),
    "for x in map(lambda v: v + y, xs)": ("y", r"`xs = list\(\.\.\.\)`"),
}


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_refused(header: str) -> None:
    where, reason = HEADERS[header]
    cell = f"{header}:\n    y = 1\n    out.append(x)"
    assert re.search(reason, refused(cell).reason), refused(cell).reason
    assert where in underlined(cell)


@pytest.mark.parametrize(
    "header",
    [
        "for x in xs",
        "for x in list(out)",
        "for x in sorted(out, key=len)",
        "for x in range(len(out))",
        "for x in out.copy()",
        "for x in range(out.shape[0])",
        "for x in [v for v in out]",
        "for x in list(v for v in out)",
        "for x in (y for y in xs)",
        "for x in (lambda y: y)(xs)",
        "for x in range(y)",
    ],
)
def test_headers_that_are_through_with_what_the_loop_changes(header: str) -> None:
    assert read(f"{header}:\n    y = 1\n    out.append(x)").accumulators == {"out"}


@pytest.mark.parametrize(
    ("header", "key", "runs"),
    [
        ("for i, v in enumerate(a)", "i", True),
        ("for i, v in enumerate(a, 1)", "i", False),
        ("for i, v in enumerate(a)", "v", False),
        ("for i, v in zip(reversed(range(3)), a)", "i", False),
        ("for k, v in a.items()", "k", True),
        ("for k in a.keys()", "k", True),
        ("for k in a", "k", True),  # right for a dict, which is looked at later
        ("for k in a.values()", "k", False),
        ("for k, k in a.items()", "k", False),
    ],
)
def test_going_over_what_is_changed_in_step(header: str, key: str, runs: bool) -> None:
    cell = f"{header}:\n    a[{key}] = 1"
    if runs:
        assert read(cell).slots_read == {"a"}
    else:
        assert "`list(a)`" in refused(cell).reason


BANS = {
    "if x: break": ("break", "Keep the loop serial"),
    "for j in x: pass\nelse:\n    break": ("break", "Keep the loop serial"),
    "return x": ("return x", "write `continue`"),
    "yield x": ("yield x", r"out\.append"),
    "y = yield from x": ("yield from x", r"out\.append"),
    "await f(x)": ("await f(x)", r"asyncio\.run"),
    "async with a: pass": ("async with a: pass", r"asyncio\.run"),
    "async for y in x: pass": ("async for y in x: pass", r"asyncio\.run"),
    "z = [y async for y in x]": ("y", r"asyncio\.run"),
    "global q": ("global q", "leave it away"),
    "def f():\n    global q, r\n    q = 1": ("global q, r", "Let the function return the value"),
    "nonlocal q": ("nonlocal q", "leave it away"),
    "from math import *": ("from math import *", "Name what you need"),
    "from __future__ import annotations": ("from __future__ import annotations", "cell of its own"),
    "class A:\n    def m(self): return __k": ("__k", "fewer underscores"),
    "class A:\n    x = x": ("x", "another name"),
    "class A:\n    x = 1\n    y = x": ("x", "another name"),
    "def f():\n    nonlocal q": ("nonlocal q", "not Python"),
    "def f():\n    break": ("break", "not Python"),
    "continue = 1": ("=", "not Python"),
}


@pytest.mark.parametrize("body", BANS)
def test_what_cannot_stand_in_a_loop(body: str) -> None:
    where, reason = BANS[body]
    cell = "for x in xs:\n" + textwrap.indent(body, "    ")
    assert re.search(reason, refused(cell).reason), refused(cell).reason
    assert underlined(cell) == where


@pytest.mark.parametrize(
    "body",
    [
        "for j in x:\n    if j: break",
        "while True: break",
        "def f():\n    for j in x:\n        if j: break\n    return 1",
        "def f(): yield x",
        "async def f():\n    async with a: await b\n    return [y async for y in c]",
        "f = lambda: (yield)",
        "class A:\n    __k = 1\n    def __init__(self): self.__k = 2",
        "class A:\n    for j in range(2):\n        if j: break",
        "if x: continue",
    ],
)
def test_what_may_stand_in_a_loop(body: str) -> None:
    assert read("for x in xs:\n" + textwrap.indent(body, "    ")).targets == ("x",)


def test_shell_commands_know_the_names_around_and_magics_are_refused() -> None:
    cell = "before = 1\nfor x in xs:\n    y = 2\n    get_ipython().system('ls {x} {y} $before {space} {unknown}')"
    loop = read(cell, namespace={"space": 1})
    call = ast.unparse(loop.body[-1])
    assert all(f"'{name}': {name}" in call for name in ("x", "y", "before", "space"))
    assert "unknown'" not in call.split(",", 1)[1]
    assert loop.bound == ("y",) and loop.always == {"x", "y"}
    assert {"before", "space"} <= loop.reads
    assert "%time" in refused("for x in xs:\n    get_ipython().run_line_magic('time', 'f()')").reason
    assert "carried" in refused("for x in xs:\n    get_ipython().system('ls {y}')\n    y = 1").reason


def test_what_a_task_defines_is_named_as_in_the_cell() -> None:
    loop = read(
        """
        for x in xs:
            class A:
                class B:
                    def m(self): pass
            def f():
                def g(): return [h for h in (lambda: 1,)]
                return g
            names = [A.__qualname__, A.B.__qualname__, A.B.m.__qualname__, f.__qualname__, f().__qualname__]
            names += [f()()[0].__qualname__, '<loop>.<locals>.A']
        """
    )
    _, values = task(loop, 0, {})
    assert values["names"][:5] == ["A", "A.B", "A.B.m", "f", "f.<locals>.g"]
    assert values["names"][5].startswith("f.<locals>.g.<locals>.")
    assert values["names"][6] == "<loop>.<locals>.A"


def test_dataclasses_made_in_a_task_are_shown_as_in_the_cell() -> None:
    body = ast.parse("@dataclass\nclass P:\n    a: int = 1\nreturn repr(P())".replace("return ", "result = ")).body
    body.append(ast.Return(ast.Name("result", ast.Load())))
    definition: Any = define("<task>", None, body, body[0])
    shown = function_of(ast.fix_missing_locations(definition), Source(""), {"dataclass": dataclasses.dataclass})()
    assert shown == "P(a=1)"


def test_a_refusal_shows_the_line() -> None:
    source = Source("%%parallel\nfor x in xs:\n    y = y + 1", label="Cell In[3]")
    from nbpar.notebook.loops import read_loop
    from nbpar.notebook.source import Refused

    with pytest.raises(Refused) as caught:
        read_loop(source.parse("for x in xs:\n    y = y + 1", line=2), source)
    lines = source.describe(caught.value).split("\n")
    assert lines[1:] == ["  Cell In[3], line 3", "    3 |     y = y + 1", "      |         ^"]
    assert "`y += 1`" in lines[0]
