"""Fingerprints of functions, and the bytes that stand for values: the same elsewhere, another one after a change."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbpar
from nbpar.store import sources
from nbpar.store.canonical import Canonical
from nbpar.store.fingerprint import Fingerprint, fingerprint
from nbpar.store.keys import NO_KEY, ItemKeys

_numbers = itertools.count()


def made(source: str, name: str = "f") -> Any:
    """What a cell defines, as the notebook has it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, f"/tmp/ipykernel_{next(_numbers)}/1.py", "exec"), namespace)
    return namespace[name]


def of(source: str) -> Fingerprint:
    return fingerprint(made(source))


# --- functions of a notebook ------------------------------------------------------------------------------------------

SAME = {
    "a comment and empty lines": (
        "def f(x):\n    return x + 1",
        "\n\n# here\ndef f(x):\n\n    # more\n    return x + 1",
    ),
    "another place": ("def f(x):\n    return x", "a = 1\nb = 2\n\n\ndef f(x):\n    return x"),
    "annotations": ("def f(x):\n    return x", "def f(x: int) -> int:\n    return x"),
    "a global that is not read": ("r = 1\ndef f(x):\n    return x", "r = 2\ndef f(x):\n    return x"),
    "a helper that is not called": (
        "def g(x):\n    return 1\ndef f(x):\n    return x",
        "def g(x):\n    return 2\ndef f(x):\n    return x",
    ),
    "the order of a set": (
        "s = {'a', 'b', 'c', 'd'}\ndef f(x):\n    return x in s",
        "s = set(['d', 'c', 'b', 'a'])\ndef f(x):\n    return x in s",
    ),
    "equal strings that are two": (
        "a = 'one'\nd = [a, a]\ndef f(x):\n    return d",
        "d = ['one', ''.join('one')]\ndef f(x):\n    return d",
    ),
    "where a class stands": (
        "class P:\n    def go(self):\n        return 1\ndef f(x):\n    return P().go()",
        "\n\n\nclass P:\n    # here\n    def go(self):\n        return 1\ndef f(x):\n    return P().go()",
    ),
    "where a class in a function stands": (
        "def f(x):\n    class P:\n        a = 1\n    return P",
        "\n\n\ndef f(x):\n    class P:\n        a = 1\n    return P",
    ),
}

CHANGED = {
    "its code": ("def f(x):\n    return x + 1", "def f(x):\n    return x + 2"),
    "an attribute it asks for": ("def f(x):\n    return x.real", "def f(x):\n    return x.imag"),
    "a default": ("def f(x, k=1):\n    return x", "def f(x, k=2):\n    return x"),
    "a keyword default": ("def f(x, *, k=1):\n    return x", "def f(x, *, k=2):\n    return x"),
    "a closure": (
        "def make(k):\n    return lambda x: x + k\nf = make(1)",
        "def make(k):\n    return lambda x: x + k\nf = make(2)",
    ),
    "a global": ("r = 1\ndef f(x):\n    return r", "r = 2\ndef f(x):\n    return r"),
    "the type of a global": ("r = 1\ndef f(x):\n    return r", "r = 1.0\ndef f(x):\n    return r"),
    "the inside of a global": (
        "r = {'a': [1, {2}]}\ndef f(x):\n    return r",
        "r = {'a': [1, {3}]}\ndef f(x):\n    return r",
    ),
    "the order of a dict": (
        "r = {'a': 1, 'b': 2}\ndef f(x):\n    return list(r)",
        "r = {'b': 2, 'a': 1}\ndef f(x):\n    return list(r)",
    ),
    "a global named as a library or as a part": (
        "import numpy as np\nnumpy = 1\nPython = 1\ndef f(x):\n    return np, numpy, Python",
        "import numpy as np\nnumpy = 2\nPython = 1\ndef f(x):\n    return np, numpy, Python",
    ),
    "an element of an array": (
        "import numpy as np\na = np.arange(9)\ndef f(x):\n    return a[x]",
        "import numpy as np\na = np.arange(9); a[8] = 0\ndef f(x):\n    return a[x]",
    ),
    "a helper": (
        "def g(x):\n    return 1\ndef f(x):\n    return g(x)",
        "def g(x):\n    return 2\ndef f(x):\n    return g(x)",
    ),
    "a helper's helper": (
        "def h(x):\n    return 1\ndef g(x):\n    return h(x)\ndef f(x):\n    return g(x)",
        "def h(x):\n    return 2\ndef g(x):\n    return h(x)\ndef f(x):\n    return g(x)",
    ),
    "a helper's global": (
        "r = 1\ndef g(x):\n    return r\ndef f(x):\n    return g(x)",
        "r = 2\ndef g(x):\n    return r\ndef f(x):\n    return g(x)",
    ),
    "a function in a container": (
        "d = {'g': lambda x: 1}\ndef f(x):\n    return d['g'](x)",
        "d = {'g': lambda x: 2}\ndef f(x):\n    return d['g'](x)",
    ),
    "a global of an inner function": (
        "r = 1\ndef f(x):\n    return [r for _ in range(x)]",
        "r = 2\ndef f(x):\n    return [r for _ in range(x)]",
    ),
    "a method": (
        "class P:\n    def go(self):\n        return 1\ndef f(x):\n    return P().go()",
        "class P:\n    def go(self):\n        return 2\ndef f(x):\n    return P().go()",
    ),
    "a property": (
        "class P:\n    @property\n    def go(self):\n        return 1\np = P()\ndef f(x):\n    return p.go",
        "class P:\n    @property\n    def go(self):\n        return 2\np = P()\ndef f(x):\n    return p.go",
    ),
    "a base class": (
        "class B:\n    a = 1\nclass P(B):\n    pass\ndef f(x):\n    return P.a",
        "class B:\n    a = 2\nclass P(B):\n    pass\ndef f(x):\n    return P.a",
    ),
    "a member of an Enum": (
        "import enum\nclass C(enum.Enum):\n    A = 1\ndef f(x):\n    return C.A",
        "import enum\nclass C(enum.Enum):\n    A = 2\ndef f(x):\n    return C.A",
    ),
    "a field of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = 1\ndef f(x):\n    return C()",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = 2\ndef f(x):\n    return C()",
    ),
    "what a partial holds": (
        "import functools\nf = functools.partial(pow, 2)",
        "import functools\nf = functools.partial(pow, 3)",
    ),
    "a cached function": (
        "import functools\n@functools.lru_cache\ndef f(x):\n    return 1",
        "import functools\n@functools.lru_cache\ndef f(x):\n    return 2",
    ),
    "a decorated function": (
        "import contextlib\n@contextlib.contextmanager\ndef f(x):\n    yield 1",
        "import contextlib\n@contextlib.contextmanager\ndef f(x):\n    yield 2",
    ),
    "the object of a bound method": (
        "class P:\n    def __init__(self, a): self.a = a\n    def go(self, x): return self.a\nf = P(1).go",
        "class P:\n    def __init__(self, a): self.a = a\n    def go(self, x): return self.a\nf = P(2).go",
    ),
    "an object that can be called": (
        "class P:\n    def __call__(self, x): return 1\nf = P()",
        "class P:\n    def __call__(self, x): return 2\nf = P()",
    ),
    "a helper that calls back": (
        "def g(x):\n    return f(x - 1) if x else 1\ndef f(x):\n    return g(x)",
        "def g(x):\n    return f(x - 1) if x else 2\ndef f(x):\n    return g(x)",
    ),
    "one of two lambdas": (
        "a = lambda: 1\nb = lambda: 2\ndef f(x):\n    return a(), b()",
        "a = lambda: 1\nb = lambda: 3\ndef f(x):\n    return a(), b()",
    ),
    "what a worker builds": (
        "import nbpar\nm = nbpar.per_worker(lambda: 1)\ndef f(x):\n    return m()",
        "import nbpar\nm = nbpar.per_worker(lambda: 2)\ndef f(x):\n    return m()",
    ),
    "a name that shadows a builtin": ("def f(x):\n    return len(x)", "len = sum\ndef f(x):\n    return len(x)"),
    "a name that came to be": ("def f(x):\n    return r", "r = 1\ndef f(x):\n    return r"),
}


@pytest.mark.parametrize("sources", SAME.values(), ids=SAME)
def test_a_fingerprint_stays_when_nothing_that_counts_has_changed(sources: tuple[str, str]) -> None:
    before, after = sources
    assert of(before) == of(before)
    assert of(before) == of(after)


@pytest.mark.parametrize("sources", CHANGED.values(), ids=CHANGED)
def test_a_fingerprint_changes_with_what_the_function_does(sources: tuple[str, str]) -> None:
    before, after = sources
    assert of(before) == of(before)
    assert of(before).digest != of(after).digest


def test_what_has_changed_is_named() -> None:
    source = "rate = 1\nclass P:\n    a = 1\ndef g(x):\n    return rate\ndef f(x):\n    return g(x), P"
    before, after = of(source), of(source.replace("rate = 1", "rate = 2").replace("a = 1", "a = 2"))
    assert [name for name, part in after.parts.items() if before.parts[name] != part] == ["class P", "rate"]


def test_code_that_has_run_hot_has_the_same_fingerprint() -> None:
    function = made("def f(x):\n    return sum(i * x for i in range(x)) + len(str(x))")
    before = fingerprint(function)
    for _ in range(200):
        function(50)
    assert fingerprint(function) == before


def test_what_cannot_be_pickled_counts_by_its_type() -> None:
    source = (
        "import threading\nlock = threading.Lock()\nlines = (i for i in range(3))\ndef f(x):\n    return lock, lines"
    )
    assert of(source) == of(source)
    assert of(source) != of(source.replace("Lock()", "Event()"))


def test_a_list_that_contains_itself_is_no_trouble() -> None:
    source = "r = [1]\nr.append(r)\ndef f(x):\n    return r"
    assert of(source) == of(source)
    assert of(source) != of(source.replace("[1]", "[2]"))


def test_a_shared_array_counts_by_its_content() -> None:
    source = "import nbpar, numpy as np\ns = nbpar.share(np.arange(9))\ndef f(x):\n    return s.value[x]"
    assert of(source) == of(source)
    assert of(source) != of(source.replace("arange(9)", "arange(8)"))


def test_the_version_of_a_library_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    function = made("import numpy as np\ndef f(x):\n    return np.linalg.norm(x)")
    before = fingerprint(function)
    monkeypatch.setattr(np, "__version__", "99.0")
    sources.version_of.cache_clear()
    after = fingerprint(function)
    sources.version_of.cache_clear()
    assert [name for name, part in after.parts.items() if before.parts[name] != part] == ["numpy's version"]


def test_functions_of_libraries_are_known_by_their_names() -> None:
    found = [fingerprint(function).digest for function in (np.sum, np.add, os.path.join, len, str.upper, pow, sum)]
    assert len(set(found)) == len(found)
    assert fingerprint(functools.partial(np.sum, axis=0)) == fingerprint(functools.partial(np.sum, axis=0))


# --- modules of the user's own ----------------------------------------------------------------------------------------


class Module:
    """A module of the user's own, to be edited."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._file = folder / f"{name}.py"
        self._n_edits = 0

    def write(self, source: str) -> None:
        self._file.write_text(source)
        self._n_edits += 1
        os.utime(self._file, (self._n_edits, self._n_edits))  # one that importlib and our cache cannot overlook

    def load(self) -> Any:
        if self.name in sys.modules:
            return importlib.reload(sys.modules[self.name])
        return importlib.import_module(self.name)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Module]]:
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def make(source: str) -> Module:
        new = Module(tmp_path, f"own_module_{next(_numbers)}")
        new.write(source)
        names.append(new.name)
        return new

    yield make
    for name in names:
        sys.modules.pop(name, None)


OWN = """
# one
RATE = 2

def helper(x):
    return x * RATE

def f(x):
    return helper(x)

def other(x):
    return 1
"""

Make = Callable[[str], Module]


@pytest.mark.parametrize(
    "user", ["return {0}.f(x)", "from {0} import f\n    return f(x)", "import {0}\n    return {0}.f(x)"]
)
@pytest.mark.parametrize("is_loaded", [True, False], ids=["reloaded", "edited only"])
def test_an_edit_of_what_is_used_of_a_module_counts(module: Make, user: str, is_loaded: bool) -> None:
    own = module(OWN)
    own.load()
    function = made(f"import {own.name}\ndef f(x):\n    {user.format(own.name)}")
    before = fingerprint(function)
    assert fingerprint(function) == before
    for edit in (("x * RATE", "x + RATE"), ("RATE = 2", "RATE = 3"), ("return helper(x)", "return -helper(x)")):
        own.write(OWN.replace(*edit))
        if is_loaded:
            own.load()
        assert fingerprint(function) != before, edit
    own.write(OWN)
    own.load()
    assert fingerprint(function) == before


def test_edits_that_do_not_concern_the_function_do_not_count(module: Make) -> None:
    own = module(OWN)
    function = made(f"import {own.name}\ndef f(x):\n    return {own.name}.f(x)") if own.load() else None
    before = fingerprint(function)
    own.write("# two\n\n" + OWN.replace("return 1", "return 2") + "\nif __name__ == '__main__':\n    RATE = 9\n")
    own.load()
    assert fingerprint(function) == before


def test_a_function_of_a_module_is_mapped_itself(module: Make) -> None:
    own = module(OWN)
    before = fingerprint(own.load().f)
    own.write(OWN.replace("RATE = 2", "RATE = 3"))
    assert fingerprint(own.load().f) != before


def test_a_name_of_a_module_that_something_is_put_into_counts(module: Make) -> None:
    own = module("RATES = {}\nRATES['a'] = 1\ndef f(x):\n    return RATES\n")
    function = own.load().f
    before = fingerprint(function)
    own.write("RATES = {}\nRATES['a'] = 2\ndef f(x):\n    return RATES\n")  # not loaded: workers will
    assert fingerprint(function) != before


@pytest.mark.parametrize("is_loaded", [True, False], ids=["loaded", "not loaded"])
def test_a_module_that_a_module_imports_counts(module: Make, is_loaded: bool) -> None:
    inner = module("def g(x):\n    return 1\n")
    outer = module(f"from {inner.name} import g\ndef f(x):\n    return g(x)\n")
    if is_loaded:
        outer.load()
    function = made(f"def f(x):\n    import {outer.name}\n    return {outer.name}.f(x)")
    before = fingerprint(function)
    inner.write("def g(x):\n    return 2\n")
    assert fingerprint(function) != before


def test_a_method_of_a_module_counts(module: Make) -> None:
    source = "class P:\n    def go(self):\n        return 1\n"
    own = module(source)
    own.load()
    function = made(f"from {own.name} import P\np = P()\ndef f(x):\n    return p.go()")
    before = fingerprint(function)
    own.write(source.replace("1", "2"))
    assert fingerprint(function) != before


def test_a_module_made_by_hand_counts_by_what_is_in_memory() -> None:
    def with_helper(number: int) -> Fingerprint:
        module = types.ModuleType("by_hand")
        exec(f"def g(x):\n    return {number}", vars(module))
        function = made("def f(x):\n    return by_hand.g(x)")
        function.__globals__["by_hand"] = module
        return fingerprint(function)

    assert with_helper(1) == with_helper(1) != with_helper(2)


# --- values -----------------------------------------------------------------------------------------------------------

_atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
_values = st.recursive(
    _atoms,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(_atoms)
        | st.frozensets(_atoms)
        | st.dictionaries(_atoms, inner)
    ),
    max_leaves=20,
)


def strict(value: Any) -> Any:
    """Something that is equal for values that nothing can tell apart."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [strict(part) for part in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(strict(part)) for part in value)
    if isinstance(value, dict):
        return "dict", [(strict(key), strict(part)) for key, part in value.items()]
    return type(value).__name__, repr(value)


def encode(value: Any) -> bytes:
    return Canonical(lambda obj: obj.__name__.encode()).encode(value)


@given(_values)
def test_copies_are_written_alike(value: Any) -> None:
    assert encode(value) == encode(copy.deepcopy(value)) == encode(value)


@given(_values, _values)
def test_values_are_written_alike_exactly_when_they_are_alike(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == (strict(one) == strict(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float64(1), 1.0),
        (np.float64(1), np.float32(1)),
        (np.int64(1), np.int64(1).tobytes()),
        (np.arange(4), np.arange(4.0)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (np.ones((2, 2)), np.asfortranarray(np.ones((2, 2)))),
        (np.array([1], "M8[s]"), np.array([1], "M8[ms]")),
        (np.array([1], "<i4"), np.array([1], ">i4")),
        (np.array([(1, 2)], [("a", "i4"), ("b", "i4")]), np.array([(1, 2)], [("a", "i4"), ("c", "i4")])),
        (np.array([1, "a"], object), np.array(["1", "a"], object)),
        (np.array([], "i4"), np.array([], "i8")),
        (-0.0, 0.0),
        (True, 1),
        ([1, 2], (1, 2)),
        ({1}, frozenset({1})),
        ("ab", b"ab"),
        ([["a"], ["b"]], [["a", "b"]]),
        (range(3), [0, 1, 2]),
        (bytearray(b"a"), b"a"),
        ([10**6000], [10**6000 + 1]),
        ("x" * 10_000, "x" * 9_999 + "y"),
    ],
)
def test_what_differs_is_written_differently(one: Any, other: Any) -> None:
    assert encode(one) != encode(other)
    assert encode(one) == encode(copy.deepcopy(one))
    assert encode([one, {"a": one}]) == encode([copy.deepcopy(one), {"a": one}])


def test_an_array_with_gaps_is_written_as_its_copy() -> None:
    array = np.arange(10.0)[::2]
    assert encode(array) == encode(array.copy())


def test_shared_parts_do_not_multiply() -> None:
    value: Any = [object]
    for _ in range(200):
        value = [value, value]
    encode(value)  # 2 ** 200 steps otherwise


# --- keys of items ----------------------------------------------------------------------------------------------------

ITEMS = """
import dataclasses, datetime, decimal, enum, fractions, os, pathlib, sys, uuid
import numpy as np, pandas as pd
from nbpar.store.keys import ItemKeys
from nbpar.store.fingerprint import fingerprint

@dataclasses.dataclass
class Point:
    x: float
    tags: set = dataclasses.field(default_factory=set)

class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"

class Flag(enum.Flag):
    A = 1
    B = 2

class Slotted:
    __slots__ = ("a",)
    def __init__(self): self.a = {"x", "y", "z"}

def function(x): return Point(x), helper(x)
def helper(x): return Colour.RED

names = {"alpha", "beta", "gamma", "delta"}
items = [
    1, 2.5, "a", None, ("a", names), {"n": names, "m": frozenset(names)}, Point(1.0, names), Colour.BLUE,
    Flag.A | Flag.B, Slotted(), np.arange(6).reshape(2, 3), np.float32(2), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    pd.Series([1.5], index=["k"]), datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), decimal.Decimal("1.10"),
    fractions.Fraction(1, 3), pathlib.PurePosixPath("a/b"), uuid.UUID(int=5), range(4), slice(1, 2), function, Point,
    len, {Colour.RED: [names]}, np.array(["a", {"k": names}], dtype=object), np.dtype("f4"), os.sep, ValueError("a"),
]
keys = ItemKeys()
for index, item in enumerate(items):
    print(keys.of(index, item).hex())
print(fingerprint(function).digest.hex())
"""


def test_keys_are_the_same_in_every_process() -> None:
    found = []
    for seed in ("1", "2", "random"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", ITEMS], env=environ, capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(found[0]) > 25


def test_equal_items_have_a_key_each() -> None:
    keys, again = ItemKeys(), ItemKeys()
    found = [keys.of(index, None) for index in range(50)]
    assert len(set(found)) == 50
    assert found == [again.of(index + 7, None) for index in range(50)]


def test_with_a_seed_the_place_counts() -> None:
    seeded = ItemKeys(seed=3)
    first = seeded.of(0, "a")
    assert first == ItemKeys(seed=3).of(0, "a")
    others = [seeded.of(1, "a"), ItemKeys(seed=4).of(0, "a"), ItemKeys().of(0, "a"), ItemKeys(seed=30).of(0, "a")]
    assert first not in others


def test_an_item_of_a_class_counts_by_the_class_as_well() -> None:
    source = "class P:\n    def go(self):\n        return 1\nf = P()"
    one, same, other = made(source), made(source), made(source.replace("1", "2"))
    assert ItemKeys().of(0, one) == ItemKeys().of(0, same) != ItemKeys().of(0, other)


def test_an_item_that_is_nested_too_deeply_has_no_key() -> None:
    item: list[Any] = []
    for _ in range(100_000):
        item = [item]
    assert ItemKeys().of(0, item) == NO_KEY
    while item:  # else its end overflows the stack
        item = item.pop()


class Hostile:
    """Lies about itself, and fails in its own methods."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError

    def __call__(self) -> None: ...

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return 5


def test_an_item_whose_own_methods_fail_has_no_key() -> None:
    assert ItemKeys().of(0, [Hostile()]) == NO_KEY


def test_a_shared_object_in_each_item_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, keys = nbpar.share(np.arange(1000)), ItemKeys()
    first = keys.of(0, (shared, 1))
    monkeypatch.setattr(type(shared), "value", property(lambda _: pytest.fail("read again")))
    assert keys.of(1, (shared, 1)) != keys.of(2, (shared, 2)) != first


def test_per_worker_objects_and_locks_in_items_have_keys() -> None:
    keys = [ItemKeys().of(0, [nbpar.per_worker(list), threading.Lock()]) for _ in range(2)]
    assert keys[0] == keys[1]
