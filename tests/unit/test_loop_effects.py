"""The effects of a loop: recognised, taken out of its body, and done again they leave what serial leaves."""

from __future__ import annotations

import ast
import copy
import random
import re
import textwrap
from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np
import pytest

from nbpar.notebook.loops import read_loop
from nbpar.notebook.source import Source
from tests.unit.loop_cells import read, refused, run, underlined


def namespace() -> dict[str, Any]:
    space: dict[str, Any] = {
        "np": np,
        "xs": [3, 1, 2, 2, 0],
        "words": ["a", "bb", "a", "ccc"],
        "pairs": [("a", 1), ("b", 2), ("a", 3)],
        "nested": [(1, (2, 3)), (4, (5, 6))],
        "rows": [{"x": 1}, {"x": 2}, {"x": 3}],
        "lists": [[1], [2, 2], []],
        "out": [],
        "more": [],
        "seen": {7},
        "d": {"a": 1, "b": 2},
        "a": list(range(10)),
        "hist": np.zeros((5, 3)),
        "grid": [[0] * 3 for _ in range(5)],
        "groups": defaultdict(list),
        "counts": Counter(),
        "queue": deque([0], maxlen=4),
        "n": 0,
        "total": 0.1,
        "text": "",
        "best": 1,
        "start": 5,
    }
    exec("def f(v):\n    return v * 2 + start", space)
    return space


# Each runs; done in two steps, it leaves the namespace that it leaves as it stands.
CELLS = {
    "append": "for x in xs:\n    out.append(f(x))",
    "append a constant": "for x in xs:\n    out.append(None)",
    "several": "for x in xs:\n    out.append(x)\n    seen.add(x)\n    n += x\n    d[x] = n_of = f(x)",
    "extend": "for x in xs:\n    out.extend([x] * x)",
    "extend by a generator": "for x in xs:\n    out.extend(f(j) for j in range(x))",
    "extend by a map": "for x in xs:\n    out.extend(map(f, range(x)))",
    "extend, then change": "for x in xs:\n    part = [x]\n    out.extend(part)\n    part.append(9)",
    "extend in a try": """
        for x in xs:
            try:
                out.extend(10 // j for j in range(x, -1, -1))
            except ZeroDivisionError as e:
                more.append(str(e))
    """,
    "a deque": "for x in xs:\n    queue.append(x)\n    queue.extend((x, x))",
    "update": "for k, v in pairs:\n    d.update({k: v}, last=v)",
    "update by zip": "for x in xs:\n    d.update(zip('abc', range(x)))",
    "update of a counter": "for w in words:\n    counts.update(w)",
    "update of a set": "for x in xs:\n    seen.update([x], (f(x),))",
    "dict items": "for w in words:\n    d[w] = len(w)",
    "list items": "for i in range(10):\n    a[i] = f(i)",
    "own slots": "for i in range(len(a)):\n    a[i] = a[i] * 2 + sum(xs)",
    "own slots by enumerate": "for i, v in enumerate(a):\n    a[i] = f(v)",
    "own slots of a dict": "for k in list(d):\n    d[k] += d[k]",
    "own slots by items": "for k, v in d.items():\n    d[k] = v + d[k]",
    "counts": "for w in words:\n    counts[w] += 1",
    "array items": "for i in range(5):\n    hist[i] = i\n    hist[i, 1] = f(i)",
    "array rows": """
        for i in range(5):
            hist[i, :] += np.arange(3) * i
            hist[:, i % 3] -= 1
            hist[i, 1:] *= 2
    """,
    "nested lists": "for i in range(5):\n    for j in range(3):\n        grid[i][j] = i * j",
    "groups": "for k, v in pairs:\n    groups[k].append(v)\n    groups[k + 'x'].extend([v, v])",
    "groups of groups": """
        groups = {k: {} for k in 'ab'}
        for k, v in pairs:
            groups[k][v] = [v]
            groups[k][v] += [k]
    """,
    "sum of floats": "for x in xs:\n    total += 0.1 * x",
    "text": "for w in words:\n    text += w.upper()",
    "list by +=": "for x in xs:\n    out += [x]\n    out += (y for y in range(x))",
    "operators": "for x in xs:\n    n |= x\n    total -= x\n    n ^= 5\n    best **= 2",
    "min": "for x in xs:\n    best = min(best, f(x))",
    "max, the other way": "for x in xs:\n    best = max(f(x), best)\n    n = max(x, n, 2)",
    "conditions": """
        for x in xs:
            if x > 2:
                out.append(x)
            elif not x:
                n += 1
                continue
            else:
                more.append(-x)
            total += x
    """,
    "inner loops": """
        for x in xs:
            s = 0
            for j in range(9):
                if j > x:
                    break
                if j == 1:
                    continue
                s += j
                out.append((x, j))
            else:
                s = -1
            while s > 0:
                s -= 2
                n += 1
            more.append(s)
    """,
    "functions": """
        for x in xs:
            def g(y, k=x):
                return y * k + x
            def even(m): return m == 0 or odd(m - 1)
            def odd(m): return m != 0 and even(m - 1)
            out.append((g(2), even(x), (lambda: x)()))
        del g, even, odd
    """,
    "classes": """
        for x in xs:
            class Pair:
                size = x
                def total(self): return self.size + x
                def __repr__(self): return type(self).__qualname__ + self.total.__qualname__
            out.append((Pair().total(), repr(Pair())))
        del Pair
    """,
    "try": """
        for x in xs:
            try:
                y = 10 // x
            except ZeroDivisionError as e:
                out.append(str(e))
                continue
            else:
                seen.add(y)
            finally:
                n += 1
            more.append(y)
    """,
    "with": """
        import contextlib
        for x in xs:
            with contextlib.nullcontext(x) as y, contextlib.nullcontext(y + 1) as z:
                out.append(y)
                w = z
            more.append(w)
    """,
    "suppress": """
        import contextlib
        for x in xs:
            y = 0
            with contextlib.suppress(ZeroDivisionError):
                out.append(x)
                y = 10 // x
            more.append(y)
    """,
    "walrus": "for x in xs:\n    if (y := f(x)) > 7 and (z := y):\n        out.append(z)\n    more.append(y)",
    "walrus in a comprehension": """
        for row in lists:
            if any((hit := v) > 1 for v in row):
                out.append(hit)
            more.append([last := 0, [last := v for v in row], last])
    """,
    "starred": "for first, *rest in words:\n    out.append((first, rest))",
    "nested targets": "for i, (j, (k, m)) in enumerate(nested):\n    d[i, j] = k + m",
    "match": """
        for item in [{'k': 1, 'z': 2}, [1, 2, 3], 4, 'x', (5, 5)]:
            match item:
                case {'k': v, **rest}:
                    out.append((v, rest))
                case [h, *tail] if len(tail) > 1:
                    out.extend(tail)
                case int() as number:
                    n += number
                case _:
                    more.append(item)
    """,
    "annotations": "for x in xs:\n    y: int = f(x)\n    d[x]: int = y\n    out.append(y)",
    "chained": "for x in xs:\n    y = d[x] = z = f(x)\n    out.append(y + z)",
    "unpacking": "for k, v in pairs:\n    d[k], y, *rest = v, v + 1, v + 2, v\n    out.append((y, rest))",
    "unpacking, keys in between": """
        for x in xs:
            i = 0
            i, d[i] = x + 1, x
            (d[i], [i, d[i + 1]]) = x, (x, x)
    """,
    "order of value and key": "for x in xs:\n    d[(k := x)] = (k := x + 1)\n    out.append(k)",
    "order of key and amount": "for w in words:\n    k = 'a'\n    counts[(k := w)] += len(k)",
    "items changed": "for row in rows:\n    row['y'] = row['x'] + 1\n    row['y'] *= 2\n    out.append(row['y'])",
    "items grown": "for row in lists:\n    row.append(len(row))\n    row.extend(j for j in row[:1])\n    n += len(row)",
    "parts of items that are new": """
        for row in rows:
            row['tags'] = []
            row['tags'].append(1)
            row['more'] = {'k': 0}
            row['more']['k'] += row['x']
            row['more']['seen'] = {j for j in range(3)}
            row['more']['seen'].add(7)
            out.append(len(row['tags']))
    """,
    "parts of items": "for i, row in enumerate(lists):\n    row.append(i)\n    row[-1] += i\n    n += row[-1]",
    "own objects": """
        for x in xs:
            record = {}
            record['x'] = x
            record.update(y=1)
            record.setdefault('z', []).append(x)
            part = sorted(xs)
            part.sort(reverse=True)
            part.pop()
            del record['y'], part[0]
            values = np.zeros(3)
            values[1:] = x
            values += 1
            out.append((record, part, values.tolist()))
    """,
    "modules": "for x in xs:\n    y = np.append(xs, x)\n    out.append(np.sort(y)[0])",
    "imports": """
        for x in xs:
            import math
            from collections import OrderedDict as O
            o = O()
            o[x] = 1
            out.append(math.sqrt(x))
    """,
    "deleted": "for x in xs:\n    y = f(x)\n    out.append(y)\n    del y, x",
    "before and after": "k = 2\nfor x in xs:\n    out.append(x * k)\nelse:\n    done = True\nout.reverse()",
    "a copy gone over": "for x in sorted(seen):\n    seen.add(x + 1)\nfor_ = 1",
    "an empty body": "for x in xs: pass",
    "bare annotation": "for x in xs:\n    y: int\n    out.append(x)",
    "conditional expressions": """
        for x in xs:
            out.append(y if (y := f(x)) else -x)
            z = (w := 1) if x else (w := 2)
            n += w
    """,
    "while true": "for x in xs:\n    while True:\n        y = f(x)\n        if y: break\n    out.append(y)",
    "a fixed inner loop": "for x in xs:\n    for j in range(3):\n        y = j * x\n    out.append((j, y))",
    "assert": "for x in xs:\n    assert (y := x + 1), 'never'\n    out.append(y)",
    "finally with a jump": """
        for x in xs:
            for j in range(3):
                try:
                    if j == x: continue
                    y = j
                    if j > x: break
                finally:
                    n += j
            out.append(j)
    """,
    "key functions": "for x in xs:\n    out.append(sorted(xs, key=lambda v: (v + x) % 3))",
    "own comprehension": "for x in xs:\n    out.append({k: [v * x for v in range(k) if v] for k in range(x)})",
    "swap": "for i, v in enumerate(xs):\n    p, q = v, f(v)\n    p, q = q, p\n    out.append(p)",
    "numbers added to": "for x in xs:\n    s = start\n    s += x\n    out.append(s)",
}


@pytest.mark.parametrize("name", CELLS)
def test_the_effects_done_in_order_leave_what_serial_leaves(name: str) -> None:
    cell = textwrap.dedent(CELLS[name])
    serial, parallel = namespace(), namespace()
    exec(cell, serial)
    run(read(cell), parallel)
    skipped = {"__builtins__", "__annotations__", "f", "np"}
    assert parallel.keys() - skipped == serial.keys() - skipped
    for key in serial.keys() - skipped:
        if isinstance(serial[key], np.ndarray):
            assert serial[key].tobytes() == parallel[key].tobytes()
        else:
            assert repr(serial[key]) == repr(parallel[key]), key


def test_nothing_of_the_body_is_changed_by_reading_it() -> None:
    cell = "for row in rows:\n    y: int = 1\n    a[0], row['y'] = y, 2"
    tree = ast.parse(cell)
    before = ast.dump(copy.deepcopy(tree))
    read_loop(tree, Source(cell))
    assert ast.dump(tree) == before


@pytest.mark.parametrize(
    ("statement", "kernel", "worker"),
    [
        ("out.append(f(x))", "out.append(.v0)", ".log.note(0, f(x))"),
        ("out[x].append(f(x))", "out[.v0].append(.v1)", ".log.note(0, x, f(x))"),
        ("out[x + 1] = f(x)", "out[.v1] = .v0", ".log.note(0, f(x), x + 1)"),
        ("out[x + 1] -= f(x)", "out[.v0] -= .v1", ".log.note(0, x + 1, f(x))"),
        ("out[x, :, 1:x] = 1", "out[.v0, :, 1:.v1] = 1", ".log.note(0, x, x)"),
        ("out[0]['a'] *= 2", "out[0]['a'] *= 2", ".log.note(0)"),
        ("out @= x", "out @= .v0", ".log.note(0, x)"),
        ("out = min(out, x)", "out = min(out, .v0)", ".log.note(0, x)"),
        ("out = max(f(x), out)", "out = max(.v0, out)", ".log.note(0, f(x))"),
        ("out.update(a=x)", "out.update(a=.v0)", ".log.note(0, x)"),
        ("out.extend(y for y in x)", "out.extend(.v0)", ".log.note(0, [y for y in x])"),
        ("out.extend(x)", "out.extend(.v0)", ".log.note(0, [*x])"),
        ("out[*x, 1] = 2", "out[*.v0, 1] = 2", ".log.note(0, (*x,))"),
    ],
)
def test_what_the_worker_notes_and_the_kernel_does(statement: str, kernel: str, worker: str) -> None:
    loop = read(f"for x in xs:\n    {statement}")
    assert ast.unparse(loop.sites[0].statement) == kernel
    assert ast.unparse(loop.body[0]) == worker
    assert loop.sites[0].text == statement
    assert loop.sites[0].name == "out"


def test_a_change_of_the_item_is_made_in_the_worker_too_each_part_computed_once() -> None:
    loop = read("for row in rows:\n    row[f()][g()] += h()")
    assert [ast.unparse(statement) for statement in loop.body] == [
        ".t0 = f()",
        ".t1 = g()",
        ".t2 = h()",
        "row[.t0][.t1] += .t2",
        ".log.note(0, .t0, .t1, .t2)",
    ]
    (site,) = loop.sites
    assert (site.on_item, site.name, site.kind, site.depth, site.n_values) == (True, "row", "augitem", 1, 3)
    assert not loop.accumulators


def test_places_stay_those_of_the_cell() -> None:
    loop = read("for x in xs:\n\n    out.append(\n        f(x))\n    d[x] = 1")
    first, second = loop.sites
    assert (first.place.line, first.place.end_line, second.place.line) == (3, 4, 5)
    assert [site.statement.lineno for site in loop.sites] == [3, 5]
    assert [statement.lineno for statement in loop.body] == [3, 5]
    assert first.text == "out.append(f(x))"
    call = loop.body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert call.value.args[1].lineno == 4


def test_sites_in_a_try_or_a_with_that_may_end_exceptions_are_guarded() -> None:
    loop = read(
        """
        for x in xs:
            try:
                a[x] = 0
            except KeyError:
                a[x] = 1
            else:
                a[x] = 2
            finally:
                a[x] = 3
            with lock():
                a[x] = 4
            with open(x) as file:
                a[x] = 5
            try:
                a[x] = 6
            finally:
                pass
            for _ in x:
                try:
                    a[x] = 7
                finally:
                    break
        """
    )
    assert [site.guarded for site in loop.sites] == [True, False, False, False, True, False, False, True]


def test_own_slots_have_the_loops_key() -> None:
    def slots(body: str, header: str = "for i, j in pairs") -> dict[str, str]:
        loop = read(f"{header}:\n" + textwrap.indent(textwrap.dedent(body), "    "))
        return {site.name: ast.unparse(site.key) for site in loop.sites if site.own_slot and site.key}

    assert slots("a[i] = 1\na[i] += 2\nb[j, i] = 1\nc[i, 0] = 1") == {"a": "i", "b": "(j, i)", "c": "(i, 0)"}
    assert slots("a[i + 1] = 1\nb[i][j] = 1\nc[i] = 1\nc[j] = 1\nd[i] = 1\nd.update(x)\ne[0] = 1\ng[i:] = 1") == {}
    assert slots("a[i] = 1\ni = 2") == {}
    assert read("for i in r:\n    a[i] = a[i] + b[i]\n    c[i] = 1").slots_read == {"a"}
    assert read("for i, v in enumerate(a):\n    a[i] = v").slots_read == {"a"}


WILL_NOT = {
    "out.insert(0, x)": ("out.insert(0, x)", "Append in the loop"),
    "out.appendleft(x)": ("out.appendleft(x)", "`out`, which is outside of the loop"),
    "out.sort()": ("out.sort()", "Sort after the loop"),
    "out.reverse()": ("out.reverse()", "after the loop"),
    "out.clear()": ("out.clear()", "before or after the loop"),
    "out.remove(x)": ("out.remove(x)", "after the loop"),
    "out.discard(x)": ("out.discard(x)", "after the loop"),
    "y = out.pop()": ("out.pop()", "take it out after the loop"),
    "y = d.popitem()": ("d.popitem()", "`d`, which is outside"),
    "y = d.setdefault(x, 1)": ("d.setdefault(x, 1)", "defaultdict"),
    "d.setdefault(x, []).append(1)": ("d.setdefault(x, []).append(1)", r"`d\[x\]\.append\(\.\.\.\)`"),
    "del d[x]": ("d[x]", "delete it after the loop"),
    "del q": ("q", "`del q` deletes a name of the notebook's"),
    "obj.n = x": ("obj.n", "sets an attribute of `obj`"),
    "obj.n += 1": ("obj.n", "sets an attribute of `obj`"),
    "del obj.n": ("obj.n", "`del obj.n`"),
    "x.done = True": ("x.done", "sets an attribute of the item"),
    "a[0], obj.n = x": ("obj.n", "sets an attribute of `obj`"),
    "obj.rows.append(x)": ("obj.rows.append(x)", "`out = obj.rows`"),
    "obj.rows[0] = x": ("obj.rows[0]", "`part = obj.rows`"),
    "get()[0].rows[x] = obj.a[0][1]\nobj.a[0][1] = 2": ("obj.a[0][1]", "`part = obj.a"),
    "df.loc[x, 'z'] = 1": ("df.loc[x, 'z']", r"`df\[column\] = values`"),
    "df.drop(x, inplace=True)": ("df.drop(x, inplace=True)", r"`new = df.drop\(\.\.\.\)`"),
    "np.add(b, x, out=buf)": ("buf", r"`buf\[\.\.\.\] = \.\.\.`"),
    "np.add.at(hist, x, 1)": ("np.add.at(hist, x, 1)", r"`hist\[\.\.\.\] \+= \.\.\.`"),
    "np.copyto(b, x)": ("np.copyto(b, x)", "Work on a copy"),
    "setattr(obj, 'n', x)": ("setattr(obj, 'n', x)", "`setattr"),
    "list.append(out, x)": ("list.append(out, x)", "changes `out`"),
    "[out.append(y) for y in x]": ("out.append(y)", "a statement of its own"),
    "x and out.append(x)": ("out.append(x)", "a statement of its own"),
    "out.append(x) if x else None": ("out.append(x)", "a statement of its own"),
    "push = out.append\npush(x)": ("out.append", "handed on"),
    "y = map(out.append, x)": ("out.append", "handed on"),
    "def g(v): out.append(v)\ng(x)": ("out.append(v)", "by a function or a class"),
    "def g(v):\n    d[v] = 1\ng(x)": ("d[v]", "by a function or a class"),
    "class A:\n    d['k'] = x": ("d['k']", "by a function or a class"),
    "g = lambda v: out.append(v)": ("out.append(v)", "by a function or a class"),
    "g = groups[x]\ng.append(1)": ("g.append(1)", r"`groups\[key\]\.append\(\.\.\.\)`"),
    "g = groups.get(x)\ng[0] = 1": ("g[0]", "may be `groups` or a part of it"),
    "for g in groups.values():\n    g.append(x)": ("g.append(x)", "may be `groups`"),
    "for k, g in zip(x, groups):\n    g.append(x)": ("g.append(x)", "may be `groups`"),
    "g = (groups if x else [])\ng.append(1)": ("g.append(1)", "may be `groups`"),
    "g = x or groups\ng.append(1)": ("g.append(1)", "may be `groups`"),
    "g, h = groups, []\nh.append(1)\ng.append(1)": ("g.append(1)", "may be `groups`"),
    "g = [groups]\ng[0].append(1)": ("g[0].append(1)", "`g`, which may be `groups`"),
    "g = list(groups)\ng.append(1)\ng[0].append(1)": ("g[0].append(1)", "may be `groups`"),
    "g = [y for y in groups]\ng[0][1] = 2": ("g[0][1]", "may be `groups`"),
    "g = arr[1:]\ng[:] = 0": ("g[:]", "may be `arr`"),
    "g = x\ng['y'] = 1": ("g['y']", r"may be the item \(`x`\)"),
    "x = x['sub']\nx['y'] = 1": ("x['y']", "the item"),
    "if c: x = {}\nx['y'] = 1": ("x['y']", "on some paths"),
    "if c: x = []\nx.append(1)": ("x.append(1)", "on some paths"),
    "for j in range(2):\n    x['y'] = 1\n    x = {}": ("x['y']", "on some paths"),
    "x.sort()": ("x.sort()", "changes the item"),
    "y = x.pop('k')": ("x.pop('k')", "changes the item"),
    "y = x\ny += [1]": ("y += [1]", r"`y = y \+ \[\.\.\.\]`"),
    "x += [1]": ("x += [1]", r"`x\.extend\(\.\.\.\)`"),
    "y = next(it)": ("next(it)", "iterator outside of the loop"),
    "it2 = it\ny = next(it2, None)": ("next(it2, None)", "iterator outside"),
    "y = random.random()": ("random.random()", r"nbpar\.current_task\(\)\.rng`.*--seed"),
    "y = np.random.normal(size=3)": ("np.random.normal(size=3)", "--seed"),
    "import random as r\ny = r.choice(x)": ("r.choice(x)", "--seed"),
    "from random import choice\ny = choice(x)": ("choice(x)", "--seed"),
    "g = lambda: random.random()": ("random.random()", "--seed"),
    "exec('y = 1')": ("exec('y = 1')", r"`exec\(\)`"),
    "y = eval(x)": ("eval(x)", r"`eval\(\)`"),
    "y = globals()['z']": ("globals()", r"`globals\(\)`"),
    "y = locals()": ("locals()", r"`locals\(\)`"),
    "y = vars()": ("vars()", r"`vars\(\)`"),
    "z, y = [x], groups[x]\ny.append(1)": ("y.append(1)", "may be `groups`"),
    "y, *z = [], groups[x]\ny.append(1)": ("y.append(1)", "may be `groups`"),
    "out.append(1, 2)": ("out.append(1, 2)", "exactly one argument"),
    "out.append(*x)": ("*x", "without its `\\*`"),
    "d.update(**x)": ("x", "without its `\\*`"),
    "for d['k'] in x: pass": ("d['k']", "is set by a `for`"),
    "with open(x) as d['f']: pass": ("d['f']", "is set by a `with`"),
    "y = [0 for d['k'] in x]": ("d['k']", "set by a comprehension"),
    "sys.path.append(x)": ("sys.path.append(x)", "`out = sys.path`"),
    "import os\nos.name = x": ("os.name", "the module `os`"),
    "import os\nos.environ.update(x)": ("os.environ.update(x)", "the module `os`"),
    "with timer():\n    d.update(zip(x, x))\n": ("zip(x, x)", "make it a list first"),
}


@pytest.mark.parametrize("body", WILL_NOT)
def test_a_change_that_would_be_lost_is_refused_with_what_to_write(body: str) -> None:
    where, reason = WILL_NOT[body]
    cell = "for x in xs:\n" + textwrap.indent(body, "    ")
    found = refused(cell)
    assert underlined(cell) == where
    assert re.search(reason, found.reason), found.reason
    assert found.reason.endswith(".")


@pytest.mark.parametrize(
    "body",
    [
        "y = np.append(a, x)",
        "y = df.sort_values('a')",
        "y = frame.sort('a')",  # gives a new one, as polars does
        "os.remove(x)",
        "y = random.Random(x).random()",
        "rng = np.random.default_rng(x)\ny = rng.normal()",
        "y = next(iter(x))",
        "y = next(v for v in x if v)",
        "y = d.get(x)",
        "y = vars(x)",
        "y = [a]\ny.append(x)",
        "y = list(a)\ny.sort()",
        "y = a.copy()\ny[0] = 1",
        "import copy\ny = copy.deepcopy(d)\ny['a']['b'] = 1",
        "y = a + b\ny[0] = 1",
        "y = load(x)\ny['z'] = 1\ny.drop('q', inplace=True)\ny.columns = x",
        "y = np.zeros(3)\nnp.add(y, 1, out=y)",
        "def g(v):\n    w = []\n    w.append(v)\n    v[0] = 1\n    return w\ny = g([x])",
        "from dataclasses import dataclass\ny = dataclass(x)",
        "y = groups[x].copy()\ny.append(1)",
        "y, z = groups[x], [x]\nz.append(1)",
        "y = defaultdict(list)\ny[x].append(x)\ny[x][0] = 1",
        "y = collections.defaultdict(lambda: [0])\ny[x][0] += 1",
        "y = sorted(load(x), key=f)\ny[0].append(1)",
    ],
)
def test_what_an_iteration_has_made_itself_it_may_change(body: str) -> None:
    assert read("for x in xs:\n" + textwrap.indent(body, "    ")).sites == ()


@pytest.mark.parametrize(
    ("body", "is_fine"),
    [
        ("l = []\ng[x] = l\ng[x].append(1)\nout.append(len(l))", False),
        ("l = []\ng[x] = l\ng[x] += [1]\ny = l", False),
        ("l = []\nm = l\ng[x] = m\ng[x].append(1)\ny = l", False),
        ("l = []\nm = [l]\ng[x] = l\ng[x].append(1)\nprint(m)", False),
        ("l = []\nout.append(l)\nout[-1].append(1)\ny = l", False),
        ("l = []\nout.append([l])\nout[-1][0].append(1)\ny = l", False),
        ("l = []\nout.extend([l])\nout[-1].append(1)\ny = l", False),
        ("l = []\ng[x] = l\nfor j in x:\n    out.append(len(l))\n    g[x].append(j)", False),
        ("l = []\ng[x] = l\ng[x].append(1)\nf = lambda: l", False),
        ("l = []\ng[x] = l\ng[x].append(1)\nl = []\nout.append(l)", True),
        ("l = []\nout.append(len(l))\ng[x] = l\ng[x].append(1)", True),
        ("l = []\nl.append(1)\ng[x].append(l)\ng[x].append(2)\nout.append(len(l))", True),
        ("l = []\nout.append([l])\nout[-1].append(1)\ny = l", True),
        ("l = f(x)\nout.append(l)\nother.append(l)\nn += len(l)", True),
        ("for v in x:\n    g[v].append(v)\n    total += v", True),
        ("v = f(x)\ng[v] += v\nh[v] = v\nout.append(v)", True),
    ],
)
def test_what_is_stored_and_then_changed_where_it_is_stored_cannot_be_read(body: str, is_fine: bool) -> None:
    cell = "for x in xs:\n" + textwrap.indent(body, "    ")
    if is_fine:
        assert read(cell).sites
    else:
        assert "may be changed there by now" in refused(cell).reason


def test_random_numbers_are_allowed_with_a_seed() -> None:
    assert read("for x in xs:\n    out.append(random.random())", seeded=True).sites


def test_modules_and_random_functions_of_the_notebook_are_known() -> None:
    space = {"numpy": np, "rnd": random, "pick": random.choice, "np": []}
    assert "rnd.random" in refused("for x in xs:\n    y = rnd.random()", namespace=space).reason
    assert "`pick`" in refused("for x in xs:\n    y = pick(x)", namespace=space).reason
    assert read("for x in xs:\n    numpy.append(x, 1)", namespace=space).sites == ()
    assert read("for x in xs:\n    np.append(x)", namespace=space).accumulators == {"np"}
    assert "`draw`" in refused("from random import random as draw\nfor x in xs:\n    y = draw()").reason
    assert read("random = make()\nfor x in xs:\n    y = random.random()").reads == {"random"}
