"""The oracle finds runners that are wrong, finds nothing in one that is right, and the cells are worth their name."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from tests.loops.mutants import MUTANTS, faithful
from tests.loops.oracle import Case, Refusal, judge
from tests.loops.picture import differences, picture
from tests.loops.strategy import case_of, cases


@pytest.mark.parametrize("name", MUTANTS)
def test_each_wrong_runner_is_found(name: str) -> None:
    for seed in range(600):
        case = case_of(seed)
        if judge(case, MUTANTS[name](case)).is_wrong:
            return
    pytest.fail("600 cells, and no difference")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_a_right_runner_is_found_right(case: Case) -> None:
    verdict = judge(case, faithful(case))
    assert not verdict.is_wrong, f"{verdict.reason}\n{case}"


def test_half_of_the_cells_are_plain_most_of_these_succeed_and_no_two_are_alike() -> None:
    seen = [case_of(seed) for seed in range(400)]
    assert len({str(case) for case in seen}) > 390
    plain = [case for case in seen if case.is_plain]
    assert len(plain) >= 200
    kinds = Counter(judge(case, faithful(case)).serial_raised for case in plain[:100])
    assert kinds[""] >= 80, kinds


def _touching(cell: str, names: dict[str, object], _: object) -> None:
    names["x"] = 5
    raise Refusal("no")


def test_a_refusal_that_has_touched_a_name_is_wrong_and_one_that_has_not_is_none() -> None:
    case = Case("x = 1\nout = []", "for x in range(3):\n    out.append(x)")
    assert judge(case, _touching).is_wrong

    def refuse(cell: str, names: dict[str, object], _: object) -> None:
        raise Refusal("no")

    assert judge(case, refuse).kind == "refused"


DIFFERENT = [
    ("x = 1", "x = 1.0"),
    ("x = 1", "x = True"),
    ("x = 0.0", "x = -0.0"),
    ("x = 0.1 + 0.2", "x = 0.3"),
    ("x = (1, 2)", "x = [1, 2]"),
    ("x = {'a': 1, 'b': 2}", "x = {'b': 2, 'a': 1}"),
    ("x = [[], []]", "x = [[]] * 2"),
    ("x = y = []", "x, y = [], []"),
    ("x = {'in': (y := [])}", "x, y = {'in': []}, []"),
    ("x = np.zeros(3)", "x = np.zeros(3, 'f4')"),
    ("x = np.zeros(3)", "x = np.zeros((3, 1))"),
    ("x = np.zeros(3); y = x[1:]", "x = np.zeros(3); y = x[1:].copy()"),
    ("x = np.zeros(3)", "x = np.zeros(3); x.setflags(write=False)"),
    ("x = np.float64(1)", "x = 1.0"),
    ("x = np.array([[], 1], object)", "x = np.array([[], 1.0], object)"),
    ("x = {1}", "x = frozenset({1})"),
    ("x = collections.defaultdict(list)", "x = collections.defaultdict(set)"),
    ("x = collections.deque([1])", "x = collections.deque([1], maxlen=3)"),
    ("x = collections.Counter('a')", "x = dict(a=1)"),
    ("x = 1", "x = 1; y = None"),
    ("x = lambda: 1", "x = lambda: 2"),
    ("def x(y=[]): pass", "def x(y=[1]): pass"),
    ("x = iter([1, 2])", "x = iter([1, 2]); next(x)"),
    ("x = (q for q in 'ab')", "x = (q for q in 'ab'); next(x)"),
    ("x = itertools.count()", "x = itertools.count(1)"),
    ("class C: n = []", "class C: n = [1]"),
    ("class C: pass\nx = C()", "class C: pass\nx = C(); x.n = 1"),
    ("class C: __slots__ = 'n'\nx = C()", "class C: __slots__ = 'n'\nx = C(); x.n = 1"),
    ("class C(list): pass\nx = C()", "class C(list): pass\nx = C([1])"),
    ("x = ValueError(1)", "x = ValueError(2)"),
    ("x = random.Random(1)", "x = random.Random(1); x.random()"),
    ("x = np.random.default_rng(1)", "x = np.random.default_rng(1); x.random()"),
    ("x = functools.partial(len, [])", "x = functools.partial(len, [1])"),
    ("x = [].append", "x = [1].append"),
    ("x = fractions.Fraction(1, 3)", "x = fractions.Fraction(1, 2)"),
    ("x = bytearray(b'a')", "x = b'a'"),
]


def _drawn(text: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    exec("import collections, fractions, functools, itertools, random\nimport numpy as np\n" + text, names)
    return picture(names)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_a_picture_tells_what_code_could_tell(one: str, other: str) -> None:
    assert differences(_drawn(one), _drawn(other))
    assert not differences(_drawn(one), _drawn(one))
    assert not differences(_drawn(other), _drawn(other))


def test_a_picture_of_things_that_hold_themselves_comes_to_an_end() -> None:
    text = "x = []; x.append(x); y = {}; y['y'] = (y, x)\nclass C: pass\nC.c = C"
    assert not differences(_drawn(text), _drawn(text))


def test_a_cell_that_does_not_end_is_no_case() -> None:
    case = Case("xs = [1]", "for x in xs:\n    xs.append(x)")
    assert judge(case, faithful(case)).kind == "endless"
