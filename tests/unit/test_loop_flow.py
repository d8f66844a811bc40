"""What is set on each path through one iteration, and what would come from an earlier one."""

from __future__ import annotations

import ast
import re
import sys
import textwrap

import pytest

from tests.unit.loop_cells import read, refused, underlined


def loop_of(body: str, header: str = "for x in xs") -> str:
    return f"{header}:\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")


# What the body binds: `name` is set in every iteration, `name?` in some, `name!` is unset again.
KEPT = {
    "y = x": "x y",
    "if x: y = 1": "x y?",
    "if x: y = 1\nelse: y = 2": "x y",
    "if x: y = 1\nelif f(x): y = 2\nelse: raise E": "x y",
    "if x: continue\ny = 1": "x y?",
    "y = 1\nif x: continue\nz = 1": "x y z?",
    "for j in x: y = 1": "x j? y?",
    "for j in range(3): y = 1": "x j y",
    "for j in (1, 2):\n    if x: break\n    y = 1": "x j y?",
    "for j in x: y = 1\nelse: y = 2": "x j? y",
    "for j in x:\n    if j: break\nelse: y = 2": "x j? y?",
    "while f(): y = 1": "x y?",
    "while True:\n    y = 1\n    if f(): break": "x y",
    "while True:\n    if f(): break\n    y = 1": "x y?",
    "while (y := f()): z = y": "x y z?",
    "try: y = 1\nexcept E: pass": "x y?",
    "try: y = 1\nexcept E: y = 2": "x y",
    "try: y = 1\nexcept E: continue": "x y?",
    "try: y = 1\nexcept E: raise": "x y",
    "try: pass\nexcept E: pass\nelse: y = 1": "x y?",
    "try: f()\nfinally: y = 1": "x y",
    "try:\n    y = 1\nexcept E as e: y = 2": "x y e!",
    "try:\n    y = 1\nexcept E as e: continue": "x y? e!",
    "try:\n    if x: continue\nfinally: y = 1": "x y",
    "with a as b: y = 1": "x b? y?",
    "with open(x) as b: y = 1": "x b y",
    "with suppress(E): y = 1": "x y?",
    "y = 0\nwith suppress(E): y = 1": "x y",
    "y = 1\ndel y": "x y!",
    "del x": "x!",
    "y = 1\nif f(): raise E\ndel y": "x y!",
    "import a.b, c as d\nfrom e import f as g, h": "x a d g h",
    "def y(): pass\nclass Z: w = 1\nasync def v(): await w": "x y Z v",
    "match x:\n    case 1: y = 1\n    case _: y = 2": "x y",
    "match x:\n    case 1: y = 1\n    case [z, *rest]: y = 2": "x y? z? rest?",
    "match x:\n    case {'k': v, **rest}: pass\n    case A(w=u) | [u]: pass": "x v? rest? u?",
    "match x:\n    case int() as n if n: y = 1\n    case other: y = other": "x n? other? y",
    "y = z = (w := 1)": "x y z w",
    "y, (z, *w) = x": "x y z w",
    "f() and (y := 1)": "x y?",
    "(y := 1) and f()": "x y",
    "(y := f()) and (z := y)": "x y z?",
    "if (y := f()) and (z := y): w = z\n": "x y z? w?",
    "if not (f() and (y := 1)): continue\nz = y": "x y? z?",
    "v = (y := 1) if f() else (y := 2)": "x v y",
    "v = 1 < f() < (y := 2)": "x v y?",
    "v = [y := j for j in x]": "x v y?",
    "v = [j for j in x if (y := j)]": "x v y?",
    "if any((y := j) for j in x): z = y\n": "x y? z?",
    "y: int = 1\nz: int": "x y z?",
    "y = 1\ny += 1": "x y",
    "assert (y := f())": "x y",
    "while True: pass\n": "x",
    "raise E": "x",
    "y = 1\nfor j in x:\n    try: continue\n    finally: y = 2": "x y j?",
}


@pytest.mark.parametrize("body", KEPT)
def test_names_that_are_set_when_an_iteration_ends(body: str) -> None:
    loop = read(loop_of(body))
    ends = {True: "", False: "?"}
    found = [
        name + ("!" if name in loop.never_kept else ends[name in loop.always]) for name in (*loop.targets, *loop.bound)
    ]
    assert sorted(found) == sorted(KEPT[body].split())


# Reads before the same iteration has surely set the name, which is marked by a prime at the read.
CARRIED = [
    "out.append(y')\ny = x",
    "y = y' + 1",
    "if x: y = 1\nout.append(y')",
    "if x: y = 1\nelif f(): z = 2\nelse: y = 3\nout.append(y')",
    "for j in x: y = 1\nout.append(y')",
    "for j in x: pass\nout.append(j')",
    "for j in x:\n    if j: out.append(y')\n    y = j",
    "while f(): y = 1\nout.append(y')",
    "while y':\n    y = f()",
    "while True:\n    if f(): break\n    y = 1\nout.append(y')",
    "for j in x:\n    if j: break\n    y = 1\nelse: y = 2\nout.append(y')",
    "try: y = 1\nexcept E: pass\nout.append(y')",
    "try:\n    y = f()\nexcept E: out.append(y')",
    "try:\n    f()\n    y = 1\nfinally: out.append(y')",
    "try: f()\nexcept E as e: pass\nout.append(e')",
    "try: f()\nexcept E: y = 1\nout.append(y')",
    "with suppress(E): y = 1\nout.append(y')",
    "with a:\n    with b: y = 1\n    out.append(y')",
    "with a:\n    with b: y = 1\n    try: out.append(y')\n    except E: pass",
    "y = 1\ndel y\nout.append(y')",
    "if f(): del x\nout.append(x')",
    "match x:\n    case [y]: pass\nout.append(y')",
    "match x:\n    case 1: y = 1\n    case 2: y = 2\nout.append(y')",
    "f() and (y := 1)\nout.append(y')",
    "f() or (y := 1)\nout.append(y')",
    "if f() or (y := 1): out.append(y')",
    "if not (f() and (y := 1)): out.append(y')",
    "[y := j for j in x]\nout.append(y')",
    "if all((y := j) for j in x): out.append(y')",
    "v = f() < 2 < (y := 2)\nout.append(y')",
    "v = [y' for j in x]\ny = 1",
    "v = [j for j in y']\ny = 1",
    "out.append(lambda: y')\ny = 1",
    "def g(): return y\nout.append(g'())\ny = 1",
    "def g(): return h()\ng'()\ndef h(): pass",
    "def g(a=y'): pass\ny = 1",
    "class A: b = y'\ny = 1",
    "class A:\n    def m(self): return y'\ny = 1",
    "g = (y' for j in x)\ny = 1",
    "y += 1'\ny = 2",
    "y: int\nout.append(y')",
    "d[y'] = 1\ny = x",
    "d[x] = y'\ny = x",
    "d[x] += y'\ny = x",
    "n += y'\ny = x",
    "best = max(best, y')\ny = x",
    "best = 1 if x else best'",
    'out.append(f"{y\'}")\ny = x',
    "print(*y')\ny = x",
    "raise y'\ny = x",
    "assert x, y'\ny = x",
    "with y' as z: pass\ny = x",
    "for y in y': pass",
    "v = (y := y' + 1)",
    "class A: b = A'",
]


@pytest.mark.parametrize("marked", CARRIED)
def test_a_value_of_an_earlier_iteration_is_refused_at_the_read(marked: str) -> None:
    at = marked.index("'")
    line = marked[:at].count("\n") + 2
    cell = loop_of(marked[:at] + marked[at + 1 :])
    found = refused(cell)
    assert found.place is not None
    name = underlined(cell)
    assert f"`{name}`" in found.reason or "y += 1" in marked or "g'" in marked
    assert any(word in found.reason for word in ("carried from one iteration", "may be deleted", "ended an exception"))
    if "y += 1" not in marked:
        assert found.place.line == line
        if sys.version_info >= (3, 12) or 'f"' not in marked:  # before, the places in f-strings are those of the string
            column = at - (marked[:at].rfind("\n") + 1) + 4
            assert found.place.end_column == column


# Nothing is carried here.
FINE = [
    "y = 1\nout.append(y)",
    "if x: y = 1\nelse: continue\nout.append(y)",
    "if x: y = 1\nelse: raise E\nout.append(y)",
    "while True:\n    y = f()\n    if y: break\nout.append(y)",
    "try: y = f()\nexcept E: y = None\nout.append(y)",
    "try: y = f()\nexcept E:\n    continue\nout.append(y)",
    "try: y = f()\nexcept E: raise\nelse: z = y\nout.append(z)",
    "y = None\ntry: y = f()\nfinally: out.append(y)",
    "with a as b:\n    y = f(b)\nout.append(y)",
    "with open(x) as b: y = b.read()\ntry: out.append(y)\nexcept E: pass",
    "try: f()\nexcept E as e: out.append(e)",
    "if (y := f()) and y > 1: out.append(y)",
    "if f() and (y := 1): out.append(y)",
    "if not (y := f()): continue\nout.append(y)",
    "if not f() or not (y := x): continue\nout.append(y)",
    "if any((y := j) for j in x): out.append(y)",
    "while not (y := f()): pass\nout.append(y)",
    "def g(n): return g(n - 1) if n else y\ny = 1\nout.append(g(x))",
    "def g(): return h()\ndef h(): return g()\nout.append(g())",
    "y = 1\nout.append(lambda z: y + z)",
    "@f\ndef g(n): return g(n - 1)",
    "async def g(): return y\ny = 1",
    "@f\nclass A:\n    def m(self): return A()",
    "y = 1\nclass A:\n    b = y\n    def m(self): return self.b + y + A.b\nout.append(A().m())",
    "match x:\n    case [y]: pass\n    case y: pass\nout.append(y)",
    "match x:\n    case {'k': y} if y: out.append(y)",
    "[y for y in x]\n{y: z for y, z in x}",
    "v = [(y := j, y) for j in x]",
    "for j in (1, 2): y = j\nout.append((j, y))",
    "for j in x: y = j\nelse: y = 0\nout.append(y)",
    "y = 1 if x else 2\nout.append(y)",
    "y, z = x\ny, z = z, y\nout.append(y)",
    "s = 0\nfor j in x: s += j\nout.append(s)",
    "prev = None\nfor j in x:\n    out.append(prev)\n    prev = j",
    "x = f(x)\nout.append(x)",
    "for x in x: pass",
    "def g(y, *a, z=1, **k):\n    w = y\n    return w + z\nout.append(g(x))",
    "def g():\n    c = 0\n    def h():\n        nonlocal c\n        c += 1\n    h()\n    return c\nout.append(g())",
    "raise E\nout.append(y)\ny = 1",
    "while True: pass\nout.append(y)\ny = 1",
    "if False:\n    out.append(y)\ny = 1",
    "return_ = 1\nimport a\na.b(return_)",
]


@pytest.mark.parametrize("body", FINE)
def test_what_is_set_in_the_same_iteration_may_be_read(body: str) -> None:
    assert read(loop_of(body)).targets == ("x",)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="except* came with Python 3.11")
def test_groups_of_exceptions() -> None:
    body = "try: y = 1\nexcept* E as e: y = 2\nexcept* F: pass"
    loop = read(loop_of(body))
    assert loop.always == {"x"} and loop.never_kept == {"e"}


def test_a_name_of_a_with_is_looked_at_before_another_one_can_end_its_error() -> None:
    body = read(loop_of("with a: y = 1\nfor j in x:\n    with b: f(y)\ntry: f(y)\nexcept E: pass\nf(y)")).body
    assert [ast.unparse(statement) for statement in body] == [
        "with a:\n    y = 1",
        "for j in x:\n    .t0 = (y,)\n    with b:\n        f(y)",
        ".t1 = (y,)",
        "try:\n    f(y)\nexcept E:\n    pass",
        "f(y)",
    ]
    body = read(loop_of("with a: y = 1\ndef g(): return y\nwith b: g()")).body
    assert ast.unparse(body[1]) == ".t0 = (y,)"
    body = read(loop_of("with a: y = 1\nclass A:\n    def m(self): return y\nz = lambda: y")).body
    assert [ast.unparse(body[at]) for at in (1, 3)] == [".t0 = (y,)", ".t1 = (y,)"]
    assert len(read(loop_of("with open(x) as file: y = 1\ntry: f(y)\nexcept E: pass")).body) == 2


ADVICE = {
    "if x > best: best = x": r"`best = max\(best, x\)`",
    "if best > f(x): best = f(x)": r"`best = min\(best, f\(x\)\)`",
    "s = f(x)\nif s < best:\n    best = s\n    where = x": r"`best = min\(best, \(s, x\)\)`",
    "total = total + f(x)": r"`total \+= f\(x\)`",
    "out = out + [x]": r"`out\.append\(x\)`",
    "out.append(x - prev)\nprev = x": r"`for prev, x in zip\(xs, xs\[1:\]\)`",
    "longest = max(longest, x, key=len)": r"`longest = max\(longest, \(len\(x\), x\)\)`",
    "y = f(y)": "Set it first in each iteration",
    "if x not in seen:\n    seen.add(x)\n    out.append(x)": r"dict\.fromkeys",
    "if x not in seen: seen.add(x)": r"`seen\.add\(x\)` alone does the same",
    "if x not in d: d[x] = []\nd[x].append(1)": r"`collections\.defaultdict\(list\)`",
    "if x not in d: d[x] = 0\nd[x] += 1": r"`collections\.Counter`",
    "c[x] = c.get(x, 0) + 1": r"`collections\.Counter`",
    "i += 1\nout.append(i)": "enumerate",
    "out.append(len(out))": "enumerate",
    "df[x + '2'] = df[x] * 2": r"`new\[x \+ '2'\] = \.\.\.`",
    "out.append(out)": "look at it after the loop",
    "a[i] = a[i - 1]": "would need what those before have done",
}


@pytest.mark.parametrize("body", ADVICE)
def test_a_refusal_says_what_people_write_instead(body: str) -> None:
    assert re.search(ADVICE[body], refused(loop_of(body)).reason), refused(loop_of(body)).reason


READS_CHANGED = {
    "out.append(len(out))": "out",
    "out.append(x)\nif out: pass": "out",
    "n += 1\nd[n] = x": "n",
    "d[x + 1] = d[x]": "d",
    "d[x] += 1\ny = d.keys()": "d",
    "out.append(x)\ny = [out for j in x]": "out",
    "out.append(x)\ndef g(): return len(out)": "out",
    "out.append(x)\ny = lambda: out": "out",
    "out.append(x)\nclass A: y = out": "out",
    "out.append(x)\ny = f'{out}'": "out",
    "best = max(best, x)\nif x == best: pass": "best",
    "out.append(x)\nother.append(out)": "out",
    "out.append(x)\nout[0][1] = out": "out",
    "n += n": "n",
    "out.append(x)\nprint(out)": "out",
}


@pytest.mark.parametrize("body", READS_CHANGED)
def test_what_the_loop_changes_cannot_be_read_in_it(body: str) -> None:
    found = refused(loop_of(body))
    assert f"`{READS_CHANGED[body]}` is changed by this loop and read here" in found.reason
    assert underlined(loop_of(body)).startswith(READS_CHANGED[body])


def test_other_slots_and_own_ones_after_a_change_are_refused() -> None:
    header = "for i in range(9)"
    assert "Only `a[i]` itself may be read" in refused(loop_of("a[i] = a[i - 1]", header)).reason
    assert "read after the same iteration has changed" in refused(loop_of("a[i] = 1\nout.append(a[i])", header)).reason
    assert "read after" in refused(loop_of("for j in x:\n    y = a[i]\n    a[i] = j", header)).reason
    assert "`a`" in refused(loop_of("g = (a[i] for j in x)\na[i] = 1\nout.append(sum(g))", header)).reason
    assert "`a`" in refused(loop_of("g = lambda: a[i]\na[i] = 1", header)).reason
    assert read(loop_of("y = [a[i] for j in x]\na[i] = y", header)).slots_read == {"a"}


def test_reads_are_the_outer_names() -> None:
    loop = read(
        loop_of(
            """
            y = f(x, k=a.b[c])
            def g(z, w=e): return z + y + h
            out[i].append([v for v in p if v + q])
            n += g(r)
            """
        )
    )
    assert loop.reads == {"f", "a", "c", "e", "h", "i", "p", "q", "r"}
    assert loop.accumulators == {"out", "n"}


def test_functions_that_can_get_out_are_known() -> None:
    def makes(body: str) -> bool:
        return read(loop_of(body)).makes_functions

    assert makes("def g(): pass")
    assert makes("class A: pass")
    assert makes("g = lambda: x")
    assert makes("g = (j for j in x)")
    assert makes("out.append(dict(k=lambda: x))")
    assert not makes("y = sum(j for j in x)\nz = sorted(x, key=lambda v: v)\nw = ', '.join(str(j) for j in x)")
    assert not makes("out.extend(j + y for j in x)\nout.append(x)")
