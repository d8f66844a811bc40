"""`--dry-run`: what would run is shown, and nothing of it runs."""

from __future__ import annotations

import ast
import builtins
import math
import textwrap
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbpar.notebook.baggage import pack
from nbpar.notebook.dry_run import n_items, plan_of_comprehension, plan_of_each, plan_of_loop
from nbpar.notebook.loop_model import Loop, Site
from nbpar.notebook.loops import read_loop
from nbpar.notebook.plan import Effect, Line, Plan
from nbpar.notebook.source import Place, Refused, Source


class Untouchable:
    """Something that nobody may look into."""

    def __len__(self) -> int:
        raise AssertionError("it was asked for its length")

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("it was gone through")

    def __repr__(self) -> str:
        raise AssertionError("it was shown")


def notebook(code: str = "") -> dict[str, Any]:
    """A namespace with what some code makes in it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(code), namespace)
    return namespace


def each(form: str, body: str, namespace: dict[str, Any]) -> Plan:
    body = textwrap.dedent(body)
    source = Source(f"%%parallel --dry-run each {form}\n{body}", filename="cell")
    return plan_of_each(form, source.parse(body, line=2), source, namespace, column=27, n_workers=2)


# --- how many ---------------------------------------------------------------------------------------------------------

KNOWN: dict[str, Any] = {
    "xs": [1, 2, 3],
    "n": 4,
    "d": {1: 2},
    "array": np.zeros((5, 2)),
    "column": pd.Series([1, 2]),
    "frame": pd.DataFrame({"a": [1, 2, 3, 4], "b": 0}),
    "own": Untouchable(),
    "one": np.float64(1.0),
    "scalar": np.array(1.0),
}


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("xs", 3),
        ("[1, 2]", 2),
        ("(1, 2, 3)", 3),
        ("'abc'", 3),
        ("range(10)", 10),
        ("range(2, 10, 3)", 3),
        ("range(n)", 4),
        ("range(len(xs) - 1)", 2),
        ("range(-n, 2 * n)", 12),
        ("range(10, 0, -1)", 10),
        ("enumerate(xs)", 3),
        ("enumerate(xs, 1)", 3),
        ("zip(xs, range(2))", 2),
        ("list(reversed(xs))", 3),
        ("sorted(d)", 1),
        ("d", 1),
        ("d.items()", 1),
        ("d.values()", 1),
        ("xs[:2]", 2),
        ("xs[1:]", 2),
        ("xs[::n]", 1),
        ("array", 5),
        ("array[1:]", 4),
        ("column", 2),
        ("frame", 2),
        ("frame.itertuples()", 4),
        ("frame.iterrows()", 4),
        # Not without running something:
        ("own", None),
        ("enumerate(own)", None),
        ("zip(xs, own)", None),
        ("range(len(own))", None),
        ("load()", None),
        ("unknown", None),
        ("[*xs]", None),
        ("range(own)", None),
        ("range(1.5)", None),
        ("range(0, 1, 0)", None),
        ("range(n / 2)", None),
        ("xs[::0]", None),
        ("xs[own:]", None),
        ("xs[0]", None),
        ("xs.items()", None),
        ("own.itertuples()", None),
        ("(x for x in xs)", None),
        ("one", None),
        ("scalar", None),
    ],
)
def test_items_are_counted_where_nothing_has_to_run(text: str, n: int | None) -> None:
    assert n_items(ast.parse(text, mode="eval").body, KNOWN) == n


@pytest.mark.parametrize("name", ["range", "enumerate", "len"])
def test_a_name_that_the_notebook_has_made_its_own_is_not_pythons(name: str) -> None:
    text = "range(len(xs))" if name != "enumerate" else "enumerate(xs)"
    assert n_items(ast.parse(text, mode="eval").body, {**KNOWN, name: Untouchable()}) is None


# --- what a task brings -----------------------------------------------------------------------------------------------


def test_data_is_named_with_its_type_and_size_the_largest_first() -> None:
    known = {"a": 1, "table": np.zeros((1000, 100)), "rows": list(range(1000)), "text": "abc"}
    table, rows, *small = pack(known, known).pieces
    assert (table.name, table.kind, table.size_bytes) == ("table", "ndarray float64 (1,000, 100)", table.size_bytes)
    assert table.size_bytes is not None and 800_000 < table.size_bytes < 801_000
    assert table.shared_bytes == 800_000
    assert (rows.name, rows.kind, rows.shared_bytes) == ("rows", "list of 1,000", 0)
    assert {piece.name for piece in small} == {"a", "text"}


def test_helpers_are_followed_and_what_they_bring_is_counted_once() -> None:
    known = notebook(
        """
        import math
        import numpy as np
        big = np.zeros(100_000)
        def helper(x):
            return big.sum() + math.floor(x) + len(names.values) + undefined
        class Model:
            def score(self, x):
                return helper(x)
        """
    )
    found = pack(["Model", "big"], known, vars(builtins))
    by_name = {piece.name: piece for piece in found.pieces}
    assert set(by_name) == {"Model", "helper", "big"}
    assert by_name["helper"].used_by == "Model" and by_name["big"].used_by == ""
    assert sum(piece.size_bytes or 0 for piece in found.pieces) < 900_000
    assert found.imported == ("math",)
    assert found.missing == ("names", "undefined")


def test_objects_are_measured_without_being_shown_or_asked() -> None:
    [piece] = pack(["own"], {"own": Untouchable()}).pieces
    assert piece.kind == "Untouchable" and piece.size_bytes


def test_what_cannot_travel_comes_first_with_the_reason() -> None:
    first, second = pack(["xs", "generator"], {"xs": list(range(1000)), "generator": (x for x in "abc")}).pieces
    assert first.name == "generator" and "cannot be sent" in first.problem
    assert second.name == "xs" and not second.problem


def test_what_only_dill_carries_has_a_size() -> None:
    [piece] = pack(["lock"], {"lock": threading.Lock()}).pieces
    assert piece.size_bytes and not piece.problem


def test_modules_and_their_functions_are_imported() -> None:
    found = pack(["math", "join", "length"], {"math": math, "join": textwrap.dedent, "length": len})
    assert found.pieces == () and found.imported == ("math", "join", "length")


def test_measuring_ends_with_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbpar.notebook.baggage.BUDGET_S", 0.0)
    first, second = pack(["a", "b"], {"a": [1] * 100, "b": [2]}).pieces
    assert first.is_least and second.size_bytes is None
    plan = Plan("each x in xs", None, 2, baggage=pack(["a", "b"], {"a": [1] * 100, "b": [2]}))
    assert "at least" in repr(plan) and "over " in repr(plan) and "?" in repr(plan)


# --- the each form ----------------------------------------------------------------------------------------------------


def test_the_each_form_is_shown_and_does_not_run() -> None:
    namespace = notebook("import numpy as np\ntable = np.zeros(1000)\ndef load(): raise AssertionError\n")
    before = dict(namespace)
    plan = each("i, x in enumerate(load())", "y = table[i]  # the row\n\nif y:\n    y = 1\ny + x\n", namespace)
    assert namespace == before
    assert plan.header == "each i, x in enumerate(load())" and plan.n_items is None
    assert plan.lines == (
        Line(2, "y = table[i]  # the row"),
        Line(3, ""),
        Line(4, "if y:"),
        Line(5, "    y = 1"),
        Line(6, "y + x"),
    )
    assert plan.result == "The result of an item: y + x"
    assert [piece.name for piece in plan.baggage.pieces] == ["table"]
    assert plan.refusals == ()


def test_a_cell_without_a_last_expression_is_said_to_have_no_result() -> None:
    plan = each("x in [1, 2]", "y = x", {})
    assert plan.n_items == 2 and "no result" in plan.result


@pytest.mark.parametrize(
    ("form", "body", "reason"),
    [
        ("x in xs", "return x", "`return` cannot stand here"),
        ("x.y in xs", "x", "plain names"),
        ("x in xs", "", "no code"),
    ],
)
def test_what_would_be_refused_is_shown_with_its_line(form: str, body: str, reason: str) -> None:
    plan = each(form, body, {"xs": []})
    [refusal] = plan.refusals
    assert reason in refusal
    assert reason in repr(plan).replace("\n  ", " ") and "would be refused" in plan._repr_html_()


# --- the line form ----------------------------------------------------------------------------------------------------


def line(text: str, namespace: dict[str, Any], scope: dict[str, Any] | None = None) -> Plan:
    return plan_of_comprehension(Source(text, first_line=3), namespace, scope, n_workers=2)


def test_a_comprehension_is_shown_in_its_parts() -> None:
    namespace = notebook("xs = [1, 2, 3]\ndef f(x): raise AssertionError\n")
    plan = line("sum(f(x) * y for x in xs[1:] if f(x) for y in range(x))", namespace)
    assert plan.n_items == 2
    assert plan.lines == (Line(3, "f(x) * y"), Line(3, "if f(x)"), Line(3, "for y in range(x)"))
    assert "`xs[1:]`" in plan.result
    assert [piece.name for piece in plan.baggage.pieces] == ["f"]


def test_a_comprehension_in_a_function_brings_the_functions_names() -> None:
    plan = line("[x + offset for x in items]", {"offset": "of the notebook"}, {"offset": 1, "items": [1]})
    assert plan.n_items == 1
    assert [(piece.name, piece.kind) for piece in plan.baggage.pieces] == [("offset", "int")]


def test_a_refused_comprehension_is_shown_with_the_reason() -> None:
    assert "takes a comprehension" in repr(line("f(x)", {}))
    assert "would be set in a worker and lost" in repr(line("[(y := x) for x in xs]", {}))


# --- the loop form ----------------------------------------------------------------------------------------------------

CELL = """\
%%parallel --dry-run
out = []
total = 0
for i, x in enumerate(xs):
    y = f(x)  # slow

    out.append(y)
    if y > 3:
        total += y
print(total)
"""


def site(number: int, kind: Any, name: str, text: str, line_: int) -> Site:
    return Site(number, kind, name, 0, ast.Pass(), 1, Place(line_, 4, line_, 9), text)


def loop_of(body: ast.Module) -> Loop:
    made = body.body[2]
    assert isinstance(made, ast.For)
    return Loop(
        before=body.body[:2],
        after=body.body[3:],
        target=made.target,
        iterable=made.iter,
        targets=("i", "x"),
        bound=("y", "error"),
        always=frozenset({"i", "x", "y"}),
        never_kept=frozenset({"error"}),
        reads=frozenset({"f"}),
        sites=(site(0, "append", "out", "out.append(y)", 7), site(1, "augname", "total", "total += y", 9)),
        body=made.body,
        makes_functions=False,
        header="for i, x in enumerate(xs)",
        place=Place(4, 0, 4, 26),
    )


def loop(namespace: dict[str, Any], **options: Any) -> Plan:
    source = Source(CELL, filename="cell")
    body = source.parse(CELL.partition("\n")[2], line=2)
    read = options.pop("read", lambda: loop_of(body))
    return plan_of_loop(read, body, source, namespace, n_workers=2, **options)


def test_a_loop_is_shown_with_its_effects_and_what_runs_in_the_notebook() -> None:
    namespace = notebook("xs = [1, 2]\ntotal = 7\ndef f(x): raise AssertionError\n")
    plan = loop(namespace)
    assert (plan.header, plan.n_items) == ("for i, x in enumerate(xs)", 2)
    assert [line_.number for line_ in plan.lines if line_.is_effect] == [7, 9]
    assert plan.lines[0].text == "y = f(x)  # slow" and plan.lines[-1].text == "    total += y"
    assert plan.effects == (Effect(7, "out.append(y)", "out: list"), Effect(9, "total += y", "total: int"))
    assert plan.kept == ("i", "x", "y")
    assert plan.serial == ((2, 3), (10, 10))
    assert plan.made == ()
    assert namespace["total"] == 7


def test_the_text_of_a_loop_marks_effects_in_the_margin() -> None:
    text = repr(loop(notebook("xs = [1, 2]\ndef f(x): return x\n")))
    assert text.startswith("dry run, nothing has run: for i, x in enumerate(xs)\n  2 items, 2 workers\n")
    assert "\n  5   y = f(x)  # slow\n  6\n  7 * out.append(y)\n" in text
    assert "\n  line 9   total += y   (total: int)\n" in text
    assert "In the notebook, as ever: lines 2 to 3 and line 10." in text
    assert "Set afterwards, as by the serial loop: i, x, y (the last values)." in text


REAL = """\
%%parallel --dry-run
n, xs, table = 100, [1, 2], load()
xs.append(3)
for x in range(HOW_MANY):
    y = table[x] + limit
    total += y
"""


@pytest.mark.parametrize(
    ("how_many", "n"), [("n", 100), ("n - 1", 99), ("len(xs)", None), ("len(table)", None), ("k", 7)]
)
def test_a_cell_is_looked_at_as_it_is_read(how_many: str, n: int | None) -> None:
    text = REAL.replace("HOW_MANY", how_many)
    source = Source(text, filename="cell")
    body = source.parse(text.partition("\n")[2], line=2)
    namespace = notebook("k, total, limit, table = 7, 0, 1.5, 'an older one'\ndef load(): raise AssertionError\n")
    before = dict(namespace)
    plan = plan_of_loop(lambda: read_loop(body, source), body, source, namespace, n_workers=2)
    assert plan.n_items == n and plan.refusals == ()
    assert plan.effects == (Effect(6, "total += y", "total: int"),)
    assert plan.kept == ("x", "y")
    assert "table" in plan.made and "total" not in plan.made
    assert [piece.name for piece in plan.baggage.pieces] == ["limit"]
    assert namespace == before


def look(cell: str, namespace: dict[str, Any]) -> Plan:
    source = Source(f"%%parallel --dry-run\n{cell}", filename="cell")
    body = source.parse(cell, line=2)
    return plan_of_loop(lambda: read_loop(body, source), body, source, namespace, n_workers=2)


def test_what_the_objects_refuse_is_shown_beside_what_would_run() -> None:
    namespace = notebook("xs, out = [1, 2], []\ndef n_out(): return len(out)\n")
    plan = look("for x in xs:\n    out.append(n_out())\n", namespace)
    [refusal] = plan.refusals
    assert "`n_out` reads the notebook's `out`" in refusal
    assert "out.append(n_out())" in repr(plan) and plan.n_items == 2


def test_objects_that_the_code_before_the_loop_makes_anew_are_not_judged_by_those_of_before() -> None:
    namespace = notebook("out = []\nolder = out\n")
    assert look("for x in range(3):\n    out.append(len(older))\n", namespace).refusals
    assert not look("out = []\nfor x in range(3):\n    out.append(len(older))\n", namespace).refusals


def test_a_loop_that_is_refused_shows_its_body_and_the_reason() -> None:
    def read() -> Loop:
        raise Refused("no.", Place(9, 8, 9, 13))

    plan = loop({}, read=read)
    assert plan.header == "for i, x in enumerate(xs)"
    assert len(plan.lines) == 5 and plan.effects == ()
    assert "would be refused: no.\n" in repr(plan) and "^^^^^" in repr(plan)


# --- as HTML ----------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Fails where tags are not closed in order; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_html_is_sound_and_says_what_the_text_says() -> None:
    namespace = notebook("import math\nxs = ['<b>&']\nlimit = 3\ndef f(x): return x + limit + math.pi\n")
    plan = loop(namespace)
    page = Balanced()
    page.feed(plan._repr_html_())
    assert page.open == []
    for words in ("for i, x in enumerate(xs)", "total += y", "y = f(x)  # slow", "limit", "used by f", "1 item, 2"):
        assert words in page.text, words


def test_markup_in_the_users_text_is_text() -> None:
    plan = each("x in ['<script>alert(1)</script>']", "f'<img src=x>{x}'", {"xs": []})
    page = plan._repr_html_()
    assert "<script" not in page and "<img" not in page


def test_a_long_task_and_much_baggage_are_cut() -> None:
    body = "\n".join(f"y{i} = name{i}" for i in range(300))
    plan = each("x in [1]", body, {f"name{i}": i for i in range(300)})
    for shown in (repr(plan), plan._repr_html_()):
        assert "and 100 more lines" in shown and "and 260 smaller ones" in shown
        assert len(shown) < 60_000
    assert all(len(line_) <= 160 for line_ in repr(plan).split("\n"))
