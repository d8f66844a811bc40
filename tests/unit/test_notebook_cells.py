"""`%%parallel each`: the header, the task made of the body, and what is refused in it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from types import FunctionType
from typing import Any

import cloudpickle
import pytest

from nbpar.notebook.cells import Task, each_task, evaluate, read_header, suggest_each
from nbpar.notebook.source import Place, Refused, Source, aligned


def task_of(header: str, body: str, namespace: dict[str, Any]) -> Task:
    source = Source(f"%%parallel each {header}\n{body}", filename="cell")
    return each_task(read_header(header, source, column=16), source.parse(body, line=2), source, namespace)


def run(header: str, body: str, namespace: dict[str, Any]) -> list[Any]:
    task = task_of(header, textwrap.dedent(body), namespace)
    iterable = read_header(header, Source("")).iterable
    return [task.function(item) for item in evaluate(iterable, Source(""), namespace)]


@pytest.mark.parametrize(
    ("header", "items", "value"),
    [
        ("x in xs", [1, 2], [1, 2]),
        ("x in 1, 2", (1, 2), [1, 2]),
        ("x in xs if xs else []", [1, 2], [1, 2]),
        ("x in xs  # all of them", [1, 2], [1, 2]),
        ("  x   in(xs)", [1, 2], [1, 2]),
        ("x in [y for y in xs if y in (1, 2)]", [1, 2], [1, 2]),
        ("x in (lambda: xs)()", [1, 2], [1, 2]),
    ],
)
def test_headers(header: str, items: Any, value: list[Any]) -> None:
    read = read_header(header, Source(""))
    assert evaluate(read.iterable, Source(""), {"xs": [1, 2]}) == items
    assert run(header, "x", {"xs": [1, 2]}) == value


@pytest.mark.parametrize(
    ("target", "item", "names"),
    [
        ("i, (a, b)", (1, (2, 3)), {"i": 1, "a": 2, "b": 3}),
        ("first, *rest", [1, 2, 3], {"first": 1, "rest": [2, 3]}),
        ("[a, b]", "xy", {"a": "x", "b": "y"}),
        ("(a)", 1, {"a": 1}),
        ("a,", [4], {"a": 4}),
    ],
)
def test_targets(target: str, item: Any, names: dict[str, Any]) -> None:
    body = "dict(" + ", ".join(f"{name}={name}" for name in names) + ")"
    assert run(f"{target} in items", body, {"items": [item]}) == [names]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("x", "write: "),
        ("x in", "write: "),
        ("in xs", "write: "),
        ("x.y in xs", "plain names"),
        ("x[0] in xs", "plain names"),
        ("x, y.z in xs", "plain names"),
        ("f(x) in xs", "not Python"),
        ("x = y in xs", "needs a target"),
        ("x; y in xs", "needs a target"),
        ("x in xs:", "not Python"),
        ("x in xs; print()", "not Python"),
        ("x in xs)\n(1", "not Python|one expression"),
        ("x in xs -j 2", "options stand before"),
        ("x in xs --retries 2", "options stand before"),
        ("None in xs", "not Python"),
    ],
)
def test_headers_refused(header: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        read_header(header, Source(header))
    assert refused.value.place is not None


def test_last_expression_is_the_result() -> None:
    assert run("x in xs", "y = x + 1\ny * k", {"xs": [1, 2], "k": 10}) == [20, 30]
    assert task_of("x in xs", "x", {}).has_result
    without = task_of("x in xs", "y = x", {})
    assert not without.has_result
    assert without.function(1) is None


BODIES = [
    "'''a docstring'''\nx",
    "'the only one'",
    "import math\nmath.floor(x + 0.5)",
    "from math import floor as down, ceil\n(down(x), ceil(x))",
    "def g(n):\n    return n if n < 2 else g(n - 1) + g(n - 2)\ng(x + 5)",
    "y = x\n[y * i for i in range(3) if i != y]",
    "class C:\n    size = 2\n    def area(self):\n        return x * C.size\nC().area()",
    "total = 0\nfor i in range(5):\n    if i == 3:\n        break\n    if i == 1: continue\n    total += i * x\ntotal",
    "while True:\n    y = x\n    break\ny",
    "n = 0\ndef up():\n    nonlocal n\n    n += 1\nup(); up()\nn",
    "def gen():\n    yield x\nlist(gen())",
    "import asyncio\nasync def co():\n    return [y async for y in g()]\nasync def g():\n  yield x\nasyncio.run(co())",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    error = str(error)\nerror if False else x",
    "match (x, 1):\n    case (a, 1) as whole:\n        b = a\nwhole, b",
    "if (m := x * 2) > 2:\n    r = m\nelse:\n    r = -m\nr",
    "with open(__import__('os').devnull) as f:\n    s = f.read()\ns, x",
    "x += 1\nx",
    "y: int = x\ny",
    "(lambda: (yield))\nx",
    "s = '''two\nlines'''\ns, x",
    "k_local = k\nk_local + x",
    "del x\n1",
]


@pytest.mark.parametrize("body", BODIES)
def test_body_means_what_the_loop_would(body: str) -> None:
    """The serial meaning: exec of the body item by item, the last expression kept."""
    tree = ast.parse(body)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    tree.body[-1] = ast.fix_missing_locations(
        ast.Assign([ast.Name("_result", ast.Store(), lineno=1, col_offset=0)], last.value, lineno=1, col_offset=0)
    )
    code = (
        f"def serial(x):\n{textwrap.indent(ast.unparse(tree), '    ')}\n    return _result"
        if "nonlocal" in body
        else ast.unparse(tree)
    )
    expected = []
    for x in (1, 2):
        space: dict[str, Any] = {"x": x, "k": 7, "__name__": "__main__"}
        exec(code, space)
        expected.append(space["serial"](x) if "nonlocal" in body else space["_result"])
    namespace: dict[str, Any] = {"xs": [1, 2], "k": 7, "__name__": "__main__", "__builtins__": __builtins__}
    before = dict(namespace)
    assert run("x in xs", body, namespace) == expected
    assert namespace == before


REFUSED = [
    ("if x:\n    return x\nx", "`return`", 3, 4, 12),
    ("y = x\nyield y", "`yield`", 3, 0, 7),
    ("y = yield from x", "`yield`", 2, 4, 16),
    ("await x\nyield x", "`yield`", 3, 0, 7),
    ("await x\nreturn x", "`return`", 3, 0, 8),
    ("async for y in x:\n    pass\nelse:\n    break", "`break`", 5, 4, 9),
    ("global x", "`global`", 2, 0, 8),
    ("def g():\n    global z\n    z = 1\ng()", "`global`", 3, 4, 12),
    ("nonlocal x", "`nonlocal`", 2, 0, 10),
    ("if x: break", "`break`", 2, 6, 11),
    ("continue", "`continue`", 2, 0, 8),
    ("for y in x:\n    pass\nelse:\n    break", "`break`", 5, 4, 9),
    ("from math import *\nx", "`import \\*`", 2, 0, 18),
    ("from __future__ import annotations\nx", "__future__", 2, 0, 34),
    ("'ü'; total += x", "`total` is not set", 2, 5, 15),
    ("get_ipython().run_line_magic('time', 'x')", "%time", 2, 0, 41),
    ("get_ipython().run_cell_magic('bash', '', 'ls')", "%%bash", 2, 0, 46),
]


@pytest.mark.parametrize(("body", "reason", "line", "start", "end"), REFUSED)
def test_bodies_refused(body: str, reason: str, line: int, start: int, end: int) -> None:
    namespace: dict[str, Any] = {"total": 0}
    with pytest.raises(Refused, match=reason) as refused:
        task_of("x in xs", body, namespace)
    place = refused.value.place
    assert place is not None
    assert (place.line, place.column) == (line, start)
    assert place.end_line > line or place.end_column == end
    assert namespace == {"total": 0}


AWAITED = [
    ("await wait(x)", 3),
    ("y = [await wait(z) for z in range(x)]\nsum(y)", 3),
    (
        "n = 0\nasync for y in count(x):\n  if y == 2: continue\n  if y > 9: break\n  n += y\nelse:\n  n += 7\nn",
        8,
    ),
    ("async with held(x) as y:\n    z = y + 1\nz", 4),
    ("[y async for y in count(x)]", [0, 1, 2]),
    ("{y: [await wait(z) async for z in count(y)] async for y in count(x)}", {0: [], 1: [0], 2: [0, 1]}),
    ("async def f(): return await wait(x)\n(await f()) + 1", 4),
    ("[*(y for y in [await wait(x)])]", [3]),
]


@pytest.mark.parametrize(("body", "value"), AWAITED)
def test_bodies_that_wait_are_coroutine_functions(body: str, value: Any) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(
        "import contextlib\n"
        "async def wait(x): return x\n"
        "async def count(n):\n    for i in range(n): yield i\n"
        "@contextlib.asynccontextmanager\nasync def held(x): yield x\n",
        namespace,
    )
    task = task_of("x in xs", body, namespace)
    assert inspect.iscoroutinefunction(task.function)
    assert task.has_result
    assert asyncio.run(task.function(3)) == value
    assert asyncio.run(cloudpickle.loads(cloudpickle.dumps(task.function))(3)) == value


def test_bodies_that_make_coroutines_and_do_not_wait_are_plain_functions() -> None:
    task = task_of("x in xs", "async def f():\n    await x\n1", {})
    assert not inspect.iscoroutinefunction(task.function)
    assert task.function(0) == 1


def test_targets_of_bodies_that_wait_are_unpacked_and_lines_are_the_cells_own() -> None:
    async def wait(x: int) -> int:
        return x

    task = task_of("i, (a, b) in xs", "y = await wait(a)\n\ny / b", {"wait": wait})
    assert asyncio.run(task.function((0, (6, 3)))) == 2
    with pytest.raises(ZeroDivisionError) as raised:
        asyncio.run(task.function((0, (6, 0))))
    assert raised.traceback[-1].lineno == 3
    assert task.function.__code__.co_name == "<module>"


@pytest.mark.parametrize(
    ("body", "line"), [("x\ny = (", 3), ("def f(:", 2), ("class C:\n    return 1", 3), ("x = 1\n  y = 2", 3)]
)
def test_what_is_not_python_is_underlined(body: str, line: int) -> None:
    with pytest.raises(Refused, match=r"not Python|`return`") as refused:
        task_of("x in xs", body, {})
    assert refused.value.place is not None
    assert refused.value.place.line == line


def test_the_whole_loop_below_each_is_refused_for_it_would_run_for_each_item() -> None:
    with pytest.raises(Refused, match=r"has the whole loop.*Leave out `each i, x in enumerate\(xs\)`") as refused:
        task_of("i, x in enumerate(xs)", "n = 0\nfor i, x in enumerate(xs):\n    n += x\n", {})
    assert refused.value.place == Place(3, 0, 3, 26)


def test_a_task_may_go_through_the_items_once_more() -> None:
    assert run("x in xs", "n = 0\nfor y in xs:\n    n += x * y\nn", {"xs": [1, 2]}) == [3, 6]


def test_empty_body() -> None:
    with pytest.raises(Refused, match="no code"):
        task_of("x in xs", "# nothing\n\n", {})


def test_lines_are_those_of_the_cell() -> None:
    task = task_of("x in xs", "y = x\n\nz = 1 / y\nz", {})
    with pytest.raises(ZeroDivisionError) as raised:
        task.function(0)
    assert raised.traceback[-1].lineno == 3  # pytest counts from 0
    assert inspect.getmodule(task.function) is None
    assert isinstance(task.function, FunctionType)
    assert task.function.__code__.co_filename == "cell"
    # With this name and first line IPython shows the lines around as it does for the cell itself.
    assert (task.function.__code__.co_name, task.function.__code__.co_firstlineno) == ("<module>", 1)


def test_globals_are_the_namespace_as_of_the_call() -> None:
    namespace: dict[str, Any] = {"k": 1, "__name__": "__main__"}
    task = task_of("x in xs", "x * k", namespace)
    namespace["k"] = 10
    assert task.function(2) == 20
    sent = cloudpickle.dumps(task.function)
    namespace["k"] = 100
    assert cloudpickle.loads(sent)(2) == 20


def test_suggestion_from_the_cells_own_loop() -> None:
    tree = ast.parse("import os\nout = []\nfor i, (a, b) in enumerate(zip(xs, ys)):\n    out.append(a)")
    assert suggest_each(tree) == "%%parallel -o results each i, (a, b) in enumerate(zip(xs, ys))"
    assert suggest_each(ast.parse("x = 1")) == "%%parallel -o results each x in xs"


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "transformed", "expected"),
    [
        ("x = 1\ny\n", "x = 1\ny\n", ["x = 1", "y"]),
        ("!ls \\\n -l\n%time x\ny", "system('ls -l')\nmagic('time')\ny", ["system('ls -l')", "", "magic('time')", "y"]),
        ("\n\n!a\nx", "system('a')\nx\n", ["", "", "system('a')", "x"]),
        ("a\n%b \\\n\\\n c\nd\n", "a\nmagic('b c')\nd\n", ["a", "magic('b c')", "", "", "d"]),
        (
            "a = 1 + \\\n  2\n!b \\\n c\nd",
            "a = 1 + \\\n  2\nsystem('b c')\nd",
            ["a = 1 + \\", "  2", "system('b c')", "", "d"],
        ),
    ],
)
def test_lines_keep_their_numbers(raw: str, transformed: str, expected: list[str]) -> None:
    assert aligned(raw, transformed).removesuffix("\n").split("\n") == expected


def test_refusal_shows_what_the_user_wrote() -> None:
    source = Source("%%parallel\nmagic('time')", written="%%parallel\n  %time x", label="Cell In[3]")
    refused = Refused("no.", Place(2, 0, 2, 5))
    assert source.describe(refused) == "no.\n  Cell In[3], line 2\n    2 |   %time x\n      |   ^^^^^^^"
