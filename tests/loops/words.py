"""What generated cells are made of: iterables, accumulators and expressions.

Owns the tables. In a text, ``$i`` stands for an integer expression, ``$f`` a float, ``$s`` a string, ``$b`` a truth
value, ``$k`` a hashable key, ``$l`` a list, ``$v`` any value, ``ACC`` the accumulator and ``KEY`` the loop's own index.
Used by :mod:`tests.loops.strategy`; the wrong neighbours are in ``traps.txt``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ACCUMULATORS", "EXPRESSIONS", "ITERABLES", "NAMES", "Accumulator", "Iterable"]

NAMES = ["out", "total", "res", "größe", "sum", "ﬁle", "_", "__y", "результат", "max", "hist", "id", "seen", "input"]
"""For accumulators: unicode, what Python brings along, and a ligature that Python reads as two letters."""

TARGETS = ["x", "i", "n", "row", "größter", "id", "_", "item", "__x", "type", "é"]

EXPRESSIONS: dict[str, list[str]] = {
    "i": [
        "1",
        "k",
        "$i + $i",
        "$i * 2",
        "-$i",
        "$i % 3",
        "len($s)",
        "square($i)",
        "plus_k($i)",
        "abs($i)",
        "$i - k",
        "fib(abs($i) % 6)",
        "add5($i)",
        "opt($i, q=2)",
        "power(abs($i) % 5)",
        "model.predict($i)",
        "model.twice + $i",
        "Model.sign($i)",
        "cached($i)",
        "wrapped($i)",
        "table['abc'[$i % 3]]",
        "table.get($s, 0)",
        "cfg['depth'] + $i",
        "limits[$i % 2]",
        "sum(q for q in range($i % 4))",
        "sum([q * $i for q in range(3)])",
        "sum(upto($i % 4))",
        "len($l)",
        "($i if $b else $i)",
        "max($i, k)",
        "int($b)",
        "(lambda q: q + 1)($i)",
        "(lambda q, r=k: q + r)($i)",
        "len({q: q for q in range($i % 3)})",
        "collect($i)[-1] if $i % 4 else 0",
        "Point($i).x",
        "foretell($i)",
        "int(matrix[$i % 4, 0])",
        "$i // (k + 1)",
        "xs[$i % 5]",
        "functools.reduce(operator.add, range($i % 5), 0)",
        "next(iter($l), 0) if not $l else len($l)",
        "type($i)(4)",
    ],
    "f": [
        "0.1",
        "scale",
        "$i / 7",
        "$f * 0.1",
        "$f + $f",
        "-$f",
        "half($i)",
        "math.sqrt(abs($i))",
        "math.sin($f)",
        "float($i)",
        "np.float64($f)",
        "float(weights[$i % 3])",
        "weights[$i % 3] * $i",
        "Point($i).y",
        "float('nan')",
        "-0.0",
        "sum(fs)",
        "float(matrix[$i % 4].sum())",
        "np.float32($i) / 3",
        "round($f, 2) if math.isfinite($f) else 0.0",
        "max([$f, 0.5])",
        "Shape($i % 4).area()",
    ],
    "s": [
        "'a'",
        "prefix",
        "str($i)",
        "f'{$i}-{$i:>3}'",
        "prefix + $s",
        "$s.upper()",
        "'ab'[$i % 2]",
        "words[$i % 4]",
        "cfg['names'][$i % 2]",
        "repr($k)",
        "''.join(sorted($s))",
        "'%d' % $i",
        "type($i).__name__",
    ],
    "b": [
        "True",
        "$i % 2 == 0",
        "$i > 1",
        "$s == 'a'",
        "not $b",
        "$b and $b",
        "$b or $b",
        "$i in limits",
        "$s in table",
        "0 < $i < 4",
        "bool($l)",
        "isinstance($i, int)",
        "any(q == $i for q in xs)",
    ],
    "k": [
        "$i",
        "$s",
        "$i % 2",
        "($i, $s)",
        "$i",
        "$s",
        "None",
        "$b",
        "frozenset([$i])",
        "0.5",
        "Pair($i, $s)",
        "1.0",
        "True",
    ],
    "l": [
        "[]",
        "[$i]",
        "[$i, $f]",
        "[q * $i for q in range(2)]",
        "list(range($i % 4))",
        "sorted([$i, k])",
        "list($s)",
        "collect($i)",
        "[$l, $l]",
        "[[$i], ($s,)]",
    ],
    "v": [
        "$i",
        "$f",
        "$s",
        "$l",
        "$k",
        "($i, $s)",
        "{'n': $i, 's': $s}",
        "{$k: $v}",
        "{$k, $k}",
        "None",
        "$b",
        "np.array([$f, $i])",
        "np.full(2, $f)",
        "np.zeros((2, 2), dtype='i1') + ($i % 9)",
        "np.int64($i)",
        "Point($i, $f)",
        "Fraction($i, 7)",
        "Decimal($i) / 8",
        "Pair($i, $v)",
        "Shape($i)",
        "deque([$i])",
        "Counter($s)",
        "defaultdict(list, {$k: [$v]})",
        "OrderedDict(a=$v)",
        "bytes([$i % 256])",
        "bytearray(b'x')",
        "slice($i, None)",
        "matrix[$i % 4]",
        "same($v)",
        "type($v)",
        "math.floor",
        "square",
        "cfg",
        "[cfg, $i]",
        "cfg['names']",
        "xs",
        "model",
        "...",
        "complex($i, $f)",
        "range($i % 4)",
    ],
}
"""By kind; the first of each is the plainest."""


@dataclass(frozen=True, slots=True)
class Iterable:
    """What a loop goes over: its expression, targets with the kinds of what they get, whether one is an own index."""

    text: str
    target: str
    kinds: dict[str, str]
    index: str = ""
    is_plain: bool = True


ITERABLES = [
    Iterable("range(5)", "x", {"x": "i"}, "x"),
    Iterable("range(1, 9, 2)", "x", {"x": "i"}, "x"),
    Iterable("range(0)", "x", {"x": "i"}, "x"),
    Iterable("range(1)", "x", {"x": "i"}, "x"),
    Iterable("range(8, 0, -3)", "x", {"x": "i"}, "x"),
    Iterable("xs", "x", {"x": "i"}),
    Iterable("fs", "x", {"x": "f"}),
    Iterable("words", "x", {"x": "s"}),
    Iterable("enumerate(xs)", "x, y", {"x": "i", "y": "i"}, "x"),
    Iterable("enumerate(words)", "x, y", {"x": "i", "y": "s"}, "x"),
    Iterable("enumerate(pairs)", "x, (y, z)", {"x": "i", "y": "i", "z": "f"}, "x"),
    Iterable("zip(xs, fs)", "x, y", {"x": "i", "y": "f"}),
    Iterable("zip(xs, words)", "(x, y)", {"x": "i", "y": "s"}),
    Iterable("pairs", "x, y", {"x": "i", "y": "f"}),
    Iterable("pairs", "x", {"x": "v"}),
    Iterable("nested", "x, (y, z)", {"x": "i", "y": "s", "z": "f"}),
    Iterable("triples", "x, *y", {"x": "i", "y": "l"}),
    Iterable("triples", "[x, y, *_]", {"x": "i", "y": "s"}),
    Iterable("table", "x", {"x": "s"}),
    Iterable("table.items()", "x, y", {"x": "s", "y": "i"}),
    Iterable("table.values()", "x", {"x": "i"}),
    Iterable("sorted(table)", "x", {"x": "s"}),
    Iterable("[q * 2 for q in xs]", "x", {"x": "i"}),
    Iterable("(q - 1 for q in xs)", "x", {"x": "i"}),
    Iterable("upto(4)", "x", {"x": "i"}, "x"),
    Iterable("np.arange(4)", "x", {"x": "i"}, "x"),
    Iterable("samples", "x", {"x": "f"}),
    Iterable("matrix", "x", {"x": "v"}),
    Iterable("'abca'", "x", {"x": "s"}),
    Iterable("(1, 2, 2)", "x", {"x": "i"}),
    Iterable("{3, 1, 2}", "x", {"x": "i"}),
    Iterable("rows", "x", {"x": "l"}),
    Iterable("enumerate(rows)", "x, y", {"x": "i", "y": "l"}, "x"),
    Iterable("records", "x", {"x": "v"}),
    Iterable("shapes", "x", {"x": "v"}),
    Iterable("points", "x", {"x": "v"}),
    Iterable("reversed(xs)", "x", {"x": "i"}),
    Iterable("map(square, xs)", "x", {"x": "i"}),
    Iterable("itertools.product(xs[:2], words)", "x, y", {"x": "i", "y": "s"}),
    Iterable("queue", "x", {"x": "i"}),
    Iterable("[]", "x", {"x": "i"}),
    Iterable("letters.items()", "x, y", {"x": "s", "y": "l"}),
    Iterable("[xs, xs]", "x", {"x": "l"}),
    Iterable("[square, abs]", "x", {"x": "v"}),
    Iterable("feed", "x", {"x": "i"}, is_plain=False),
    Iterable("made", "x", {"x": "i"}, is_plain=False),
    Iterable("zip(feed, feed)", "x, y", {"x": "i", "y": "i"}, is_plain=False),
    Iterable("[1, 2, 0]", "x", {"x": "i"}, "x"),
    Iterable("[None, 1]", "x", {"x": "v"}),
    Iterable("k", "x", {"x": "i"}, is_plain=False),
    Iterable("triples", "x, y", {"x": "i", "y": "s"}, is_plain=False),
]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Something outer that a loop changes: what makes it, and the statements that change it."""

    inits: list[str]
    effects: list[str]
    is_plain: bool = True


ACCUMULATORS = [
    Accumulator(
        ["[]", "[1, 'a']"],
        [
            "ACC.append($v)",
            "ACC.append($v)",
            "ACC.extend([$v, $v])",
            "ACC += [$v]",
            "ACC += ($v, $v)",
            "ACC.extend($l)",
        ],
    ),
    Accumulator(["0", "5", "True"], ["ACC += $i", "ACC -= $i", "ACC += $i", "ACC *= 2", "ACC ^= $i", "ACC |= $i"]),
    Accumulator(["0.0", "1e16", "0"], ["ACC += $f", "ACC -= $f", "ACC += $i / 3", "ACC *= 1.1", "ACC /= 3"]),
    Accumulator(
        ["{}", "{'a': 1, 0: 2}"], ["ACC[$k] = $v", "ACC.update({$k: $v})", "ACC |= {$k: $v}", "ACC.update(a=$v)"]
    ),
    Accumulator(["dict.fromkeys(range(9), 0)"], ["ACC[$i % 9] += $i", "ACC[$i % 9] = $v"]),
    Accumulator(["[0] * 9", "[0.0] * 9"], ["ACC[KEY] = $v", "ACC[KEY] = $f", "ACC[$i % 9] = $f", "ACC[-1] = $v"]),
    Accumulator(["[0] * 9", "[0.5] * 9"], ["ACC[KEY] += $i", "ACC[$i % 9] += $f", "ACC[0] += $i"]),
    Accumulator(
        ["set()", "{1, 'a'}"], ["ACC.add($k)", "ACC.update([$k, $k])", "ACC |= {$k}", "ACC.update({$k}, [$k])"]
    ),
    Accumulator(["defaultdict(list)"], ["ACC[$k].append($v)", "ACC[$k] += [$v]", "ACC[$k].extend($l)"]),
    Accumulator(["defaultdict(int)", "Counter()", "Counter('aab')"], ["ACC[$k] += $i", "ACC[$k] += 1"]),
    Accumulator(["Counter()", "Counter('aab')"], ["ACC.update([$k, $k])", "ACC.update($s)", "ACC += Counter([$k])"]),
    Accumulator(["defaultdict(lambda: [0, 0])"], ["ACC[$k][$i % 2] += $i", "ACC[$k][0] = $v"]),
    Accumulator(["defaultdict(set)"], ["ACC[$k].add($k)", "ACC[$k] |= {$k}", "ACC[$k].update([$k])"]),
    Accumulator(["defaultdict(dict)", "defaultdict(OrderedDict)"], ["ACC[$k][$k] = $v", "ACC[$k].update({$k: $v})"]),
    Accumulator(
        ["{0: [], 1: [], 2: [7]}"], ["ACC[$i % 3].append($v)", "ACC[$i % 3] += [$v]", "ACC[$i % 3].extend($l)"]
    ),
    Accumulator(["{'a': {}, 'b': {1: 2}}"], ["ACC['ab'[$i % 2]][$k] = $v", "ACC['a'].update({$k: $v})"]),
    Accumulator(["{'a': {'n': [0, 0]}}"], ["ACC['a']['n'][$i % 2] += $i", "ACC['a']['n'].append($v)"]),
    Accumulator(
        ["[[0, 0], [0, 0], [0, 0]]"], ["ACC[$i % 3][$i % 2] = $v", "ACC[$i % 3][1] += $i", "ACC[$i % 3].append($v)"]
    ),
    Accumulator(["OrderedDict()", "OrderedDict(a=1)"], ["ACC[$k] = $v", "ACC.update({$k: $v})"]),
    Accumulator(["deque()", "deque([1, 2], maxlen=3)"], ["ACC.append($v)", "ACC.extend([$v, $v])", "ACC += [$v]"]),
    Accumulator(
        ["np.zeros(9)", "np.zeros(9, dtype=np.float32)", "np.zeros(9, dtype=complex)", "np.ones(9)[::-1]"],
        ["ACC[KEY] = $f", "ACC[KEY] += $f", "ACC[$i % 9] += $f", "ACC += $f", "ACC[2:4] += $f", "ACC[$i % 3:] = $f"],
    ),
    Accumulator(
        ["np.zeros(9, int)", "np.zeros(9, 'i1')", "np.zeros(9, dtype=object)"],
        ["ACC[KEY] = $i % 100", "ACC[$i % 9] += 1", "ACC[[0, 0, 1]] += 1", "ACC += 1", "ACC[...] += $i % 3"],
    ),
    Accumulator(
        ["np.zeros((9, 2))", "np.zeros((9, 2), order='F')", "np.zeros((2, 9)).T"],
        [
            "ACC[KEY, :] += np.array([$f, $f])",
            "ACC[KEY] = $f, $f",
            "ACC[KEY, $i % 2] = $f",
            "ACC[:, 0] += $f",
            "ACC[KEY] += $f",
        ],
    ),
    Accumulator(["np.zeros(9, bool)", "np.full(9, True)"], ["ACC[KEY] = $b", "ACC |= $b", "ACC[$i % 9] ^= $b"]),
    Accumulator(["np.zeros(9, 'U3')", "np.empty(9, object)"], ["ACC[KEY] = $s", "ACC[$i % 9] = $s"]),
    Accumulator(["''"], ["ACC += $s", "ACC += str($v)[:5]"]),
    Accumulator(["()", "(1, 'a')"], ["ACC += ($v,)", "ACC += ($i, $s)"]),
    Accumulator(["Fraction(0)", "Decimal(0)", "0j"], ["ACC += $i", "ACC -= $i", "ACC *= 3"]),
    Accumulator(["timedelta(0)"], ["ACC += timedelta(seconds=$i)"]),
    Accumulator(
        ["-math.inf", "0", "0.5"],
        ["ACC = max(ACC, $i)", "ACC = min(ACC, $f)", "ACC = max($f, ACC)", "ACC = min($i, ACC)"],
    ),
    Accumulator(["(0, '')", "(0,)"], ["ACC = max(ACC, ($i, $s))", "ACC = min(($i, $s), ACC)"]),
    Accumulator(["np.float32(0)", "np.float64(1)", "np.int64(0)"], ["ACC += $i", "ACC += $f", "ACC *= 2"]),
    Accumulator(["np.array(0.0)", "np.array([0.5])"], ["ACC += $f", "ACC[...] = $f", "ACC -= $i"]),
    Accumulator(
        ["bytearray()", "bytearray(b'ab')"], ["ACC += b'x'", "ACC.append($i % 256)", "ACC.extend(b'yz')"], False
    ),
    Accumulator(["b''", "frozenset()"], ["ACC += b'x'", "ACC |= {$k}"], False),
    Accumulator(
        ["array('d')", "array('d', [0.5])"], ["ACC.append($f)", "ACC.extend([$f])", "ACC += array('d', [$f])"], False
    ),
    Accumulator(["np.arange(9)", "np.broadcast_to(0.0, (9,))"], ["ACC[KEY] = $f", "ACC += $f", "ACC[KEY] += 1"], False),
    Accumulator(["None", "[]", "{}"], ["ACC += $i", "ACC[$i] = $v", "ACC[0].append($v)", "ACC = max(ACC, $i)"], False),
]
