"""Loop cells as text, by chance: most plainly data-parallel, others with a trap or two among their statements.

Owns the grammar: which iterable, targets, accumulators, statements, nesting and aliases come together, with the words
of :mod:`tests.loops.words` and the traps of ``traps.txt`` and ``whole.txt``. All choices go through one function, so
that hypothesis can make them (and shrink), or a random generator, which is quicker. Used by the tests here and by
``python -m tests.loops``.
"""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

from tests.loops.oracle import Case
from tests.loops.texts import Block, complete, read
from tests.loops.words import ACCUMULATORS, EXPRESSIONS, ITERABLES, NAMES, TARGETS, Accumulator

__all__ = ["case_of", "cases"]

T = TypeVar("T")
Choose = Callable[[int], int]
"""Gives a number from 0 to below its argument."""

_MOST_DEPTH = 2
_LOCALS = ["a", "b", "val", "tmp", "y2", "größe2", "pow"]
_TRAPS = read("traps.txt")
_WHOLE = read("whole.txt")
_WORD = re.compile(r"(?<![\w.'\"])[^\W\d]\w*")


@st.composite
def cases(draw: st.DrawFn, *, traps: bool | None = None) -> Case:
    """Cells, with traps, without, or either."""
    return _Maker(lambda n: draw(st.integers(0, n - 1))).case(traps)


def case_of(seed: int, *, traps: bool | None = None) -> Case:
    """The cell of a number, always the same."""
    return _Maker(random.Random(seed).randrange).case(traps)


class _Maker:
    """Makes one case."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._scope: dict[str, str] = {}
        self._accumulators: list[tuple[str, Accumulator]] = []
        self._key = ""
        self._nesting = 0
        self._n_made = 0

    # --- chance -------------------------------------------------------------------------------------------------------

    def _one(self, options: Sequence[T]) -> T:
        return options[self._choose(len(options))]

    def _maybe(self, percent: int) -> bool:
        return self._choose(100) >= 100 - percent

    # --- the whole ----------------------------------------------------------------------------------------------------

    def case(self, traps: bool | None) -> Case:
        if traps is None:
            traps = self._maybe(40)
        if traps and self._maybe(30):
            return self._whole()
        found = self._one([one for one in ITERABLES if one.is_plain or traps])
        self._scope = dict(found.kinds)
        self._key = found.index
        setup, before = self._make_accumulators(traps)
        body = self._block(1 + self._choose(4))
        if traps:
            for _ in range(1 + self._choose(2)):
                more, body = self._trapped(self._one(_TRAPS), body)
                setup += more
        after = self._after(found.kinds)
        header = f"for {found.target} in {found.text}:"
        cell = "\n".join([*before, header, *_indented(body), *after])
        return self._finished("\n".join(setup), cell, found.target, is_plain=not traps)

    def _whole(self) -> Case:
        """A cell that is a trap itself, with other statements about."""
        block = self._one(_WHOLE)
        self._scope = dict(re.findall(r"(\w+): (\w)", block.name))
        setup, cell = block.setup, self._filled(block.cell)
        if self._maybe(40):
            more, before = self._make_accumulators(True)
            more = [line for line in more if line]
            setup = "\n".join([*more, setup])
            lines = cell.split("\n")
            at = next((i for i, line in enumerate(lines) if line.startswith("for ")), 0)
            lines[at + 1 : at + 1] = _indented(self._block(1 + self._choose(2)))
            cell = "\n".join([*before, *lines])
        if self._maybe(25):
            more, body = self._trapped(self._one(_TRAPS), [])
            setup = "\n".join([setup, *more])
            cell_lines = cell.split("\n")
            at = max(i for i, line in enumerate(cell_lines) if line.startswith("    ")) if "\n    " in cell else 0
            cell_lines[at + 1 : at + 1] = _indented(body) if at else []
            cell = "\n".join(cell_lines)
        return self._finished(setup, cell, "", is_plain=False)

    def _finished(self, setup: str, cell: str, target: str, *, is_plain: bool) -> Case:
        renames: dict[str, str] = {}
        words = set(_WORD.findall(f"{setup}\n{cell}"))
        for name, pool, percent in (
            *((name, NAMES, 35) for name, _ in self._accumulators),
            *((name, TARGETS, 25) for name in dict.fromkeys(_WORD.findall(target))),
        ):
            if self._maybe(percent):
                new = self._one(pool)
                if new not in {*renames.values(), *words} or (not is_plain and self._maybe(20)):
                    renames[name] = new
        setup, cell = (_WORD.sub(lambda found: renames.get(found[0], found[0]), text) for text in (setup, cell))
        if self._maybe(30):  # a name of the loop's that stands for something else before
            name = self._one([*(_WORD.findall(target) or ["x"]), *_LOCALS])
            name = renames.get(name, name)
            if name not in set(_WORD.findall(setup)) | {"sum", "max", "id", "type", "input", "pow"}:
                setup = f"{name} = {self._one(['100', '[100]', 'None'])}\n{setup}"
        return Case(complete(setup, cell), cell + "\n", is_plain)

    # --- accumulators -------------------------------------------------------------------------------------------------

    def _make_accumulators(self, traps: bool) -> tuple[list[str], list[str]]:
        """Lines for the cells before, and for the beginning of this one."""
        setup: list[str] = []
        before: list[str] = []
        for number in range(1 + self._choose(3)):
            made = self._one([one for one in ACCUMULATORS if one.is_plain or traps])
            name = f"acc{number}"
            line = f"{name} = {self._one(made.inits)}"
            (before if self._maybe(50) else setup).append(line)
            self._accumulators.append((name, made))
            if self._maybe(12):  # a second name, or a place inside of something, that the loop leaves alone
                alias = self._one(
                    [f"alias{number} = {name}", f"held{number} = {{'in': [{name}]}}", f"box{number} = Box({name})"]
                )
                (before or setup).append(alias)
        return setup, before

    def _effect(self) -> list[str]:
        name, made = self._one(self._accumulators)
        effects = [one for one in made.effects if self._key or "KEY" not in one]
        if not effects:
            return ["pass"]
        text = self._one(effects).replace("KEY", self._key).replace("ACC", name)
        if made.effects and "max(ACC" in made.effects[0] and self._n_made:  # one extreme of each
            return ["pass"]
        return [self._filled(text)]

    # --- expressions --------------------------------------------------------------------------------------------------

    def _filled(self, text: str, depth: int = 0) -> str:
        return re.sub(r"\$([a-z])\b", lambda found: self._expression(found[1], depth), text)

    def _expression(self, kind: str, depth: int = 0) -> str:
        known = [name for name, one in self._scope.items() if kind in (one, "v")]
        if known and self._maybe(60 if depth else 40):
            return self._one(known)
        options = EXPRESSIONS[kind]
        if depth > _MOST_DEPTH or self._maybe(10):
            leaf = self._one([one for one in options if "$" not in one])
            return known[0] if known else leaf
        text = self._filled(self._one(options), depth + 1)
        return f"({text})" if " " in text and text[0] not in "([{'" else text

    # --- statements ---------------------------------------------------------------------------------------------------

    def _block(self, n: int) -> list[str]:
        lines: list[str] = []
        for _ in range(n):
            lines += self._statement()
        return lines or ["pass"]

    def _branch(self, n: int = 1, **names: str) -> list[str]:
        """A block that may not be run, so that what it sets is not known behind it."""
        scope = dict(self._scope)
        self._scope.update(names)
        self._nesting += 1
        lines = self._block(n)
        self._nesting -= 1
        self._scope = scope
        return _indented(lines)

    def _statement(self) -> list[str]:
        if self._nesting >= _MOST_DEPTH or self._maybe(55):
            return self._effect()
        return self._one(
            [
                self._assign,
                self._assign,
                self._assign,
                self._if,
                self._if,
                self._continue,
                self._for,
                self._while,
                self._try,
                self._with,
                self._match,
                self._function,
                self._class,
                self._fresh,
                self._fresh,
                self._misc,
            ]
        )()

    def _local(self) -> str:
        return self._one(_LOCALS)

    def _assign(self) -> list[str]:
        kind = self._one(["i", "f", "s", "l", "v", "k"])
        name, text = self._local(), self._expression(kind)
        form = self._choose(6)
        if form == 1:
            other = self._local()
            lines = [f"{name} = {other} = {text}"]
            self._scope[other] = kind
        elif form == 2:
            lines = [f"{name}: object = {text}"]
        elif form == 3 and kind == "i":
            lines = [f"{name} = ({name} := {text}) + 1"]
        elif form == 4:
            lines = [f"{name}, *rest = {text}, 1, 2"]
            self._scope["rest"] = "l"
        else:
            lines = [f"{name} = {text}"]
        self._scope[name] = kind
        return lines

    def _if(self) -> list[str]:
        test = self._expression("b")
        lines = [f"if {test}:", *self._branch()]
        if self._maybe(20):
            lines += [f"elif {self._expression('b')}:", *self._branch()]
        if self._maybe(40):
            lines += ["else:", *self._branch()]
        elif self._maybe(30):
            name = self._local()
            lines += [f"    {name} = {self._expression('i')}", "else:", f"    {name} = {self._expression('i')}"]
            self._scope[name] = "i"
        return lines

    def _continue(self) -> list[str]:
        return [f"if {self._expression('b')}:", *(self._branch() if self._maybe(30) else []), "    continue"]

    def _for(self) -> list[str]:
        self._n_made += 1
        name = f"j{self._nesting}"
        lines = [self._filled(f"for {name} in {self._one(['range(2)', 'range($i % 3)', '(1, 2)'])}:")]
        lines += self._branch(1 + self._choose(2), **{name: "i"})
        if self._maybe(30):
            lines += [f"    if {name} == 1:", f"        {self._one(['break', 'continue'])}"]
        if self._maybe(20):
            lines += ["else:", *self._branch()]
        return lines

    def _while(self) -> list[str]:
        name = self._local()
        lines = [f"{name} = 0", f"while {name} < {self._one(['2', '3'])}:", f"    {name} += 1"]
        lines += self._branch()
        self._scope.pop(name, None)
        if any(f"{name} =" in line or f"{name}:" in line for line in lines[3:]):  # it would go on for ever
            return [lines[0]]
        self._scope[name] = "i"
        return lines

    def _try(self) -> list[str]:
        risky = self._one(["int($s)", "1 / ($i % 2)", "table[$s]", "boom($i)", "$l[0]"])
        name = self._local()
        lines = ["try:", f"    {name} = {self._filled(risky)}", *(self._branch() if self._maybe(40) else [])]
        kind = self._one(["except Exception:", "except (ValueError, KeyError) as error:", "except ArithmeticError:"])
        lines += [kind, f"    {name} = {self._expression('i')}", *(self._branch() if self._maybe(40) else [])]
        if self._maybe(25):
            lines += ["else:", *self._branch()]
        if self._maybe(25):
            lines += ["finally:", *self._branch()]
        self._scope[name] = "v"
        return lines

    def _with(self) -> list[str]:
        head = self._one(
            [
                "contextlib.nullcontext($i) as ctx",
                "contextlib.suppress(KeyError)",
                "Quiet() as ctx",
                "contextlib.nullcontext()",
            ]
        )
        names = {"ctx": "i"} if " as " in head else {}
        return [f"with {self._filled(head)}:", *self._branch(1 + self._choose(2), **names)]

    def _match(self) -> list[str]:
        lines = [f"match {self._expression('i')} % 4:", "    case 0 | 1:", *_indented(self._branch())]
        lines += ["    case got if got > 2:", *_indented(self._branch(1, got="i"))]
        return lines + (["    case _:", *_indented(self._branch())] if self._maybe(50) else [])

    def _function(self) -> list[str]:
        name = self._local()
        outer = dict(self._scope)
        self._scope = {**self._scope, "arg": "i"}
        text = self._expression("i")
        self._scope = outer
        used = self._one([f"helper({self._expression('i')})", f"helper({self._expression('i')}) + 1"])
        self._scope[name] = "i"
        if self._maybe(50):
            return [f"helper = lambda arg: {text}", f"{name} = {used}"]
        return ["def helper(arg, q=2):", f"    return {text}", f"{name} = {used}"]

    def _class(self) -> list[str]:
        name = self._local()
        text = self._expression("i")
        self._scope[name] = "i"
        return [
            "class Local:",
            f"    size = {text}",
            "    def area(self):",
            "        return self.size * 2",
            f"{name} = Local().area()",
        ]

    def _fresh(self) -> list[str]:
        """Something made in the iteration, which may be changed."""
        name = self._local()
        init, changes = self._one(
            [
                ("[]", ["V.append($v)", "V.extend([$v])", "V += [$v]", "V.insert(0, $i)"]),
                ("[$i, $f]", ["V[0] = $v", "V.append($v)", "V.sort(key=lambda q: type(q).__name__)", "V.reverse()"]),
                ("{}", ["V[$k] = $v", "V.update({$k: $v})", "V.setdefault($k, []).append($i)"]),
                ("set()", ["V.add($k)", "V |= {$k}"]),
                ("np.zeros(3)", ["V[$i % 3] = $f", "V += $f", "V[:2] *= 2"]),
                ("defaultdict(list)", ["V[$k].append($v)"]),
                ("[q for q in range(3)]", ["V.append($i)", "V.pop()"]),
                ("0", ["V += $i", "V -= $i"]),
            ]
        )
        lines = [f"{name} = {self._filled(init)}"]
        self._scope.pop(name, None)
        n = 1 + self._choose(2)
        lines += [self._filled(self._one(changes)).replace("V", name, 1) for _ in range(n)]
        self._scope[name] = {"0": "i", "[]": "l", "[$i, $f]": "l", "[q for q in range(3)]": "l"}.get(init, "v")
        return lines

    def _misc(self) -> list[str]:
        return [
            self._filled(
                self._one(
                    [
                        "print($i, $s)",
                        "pass",
                        "'a docstring'",
                        "assert $i == $i or True",
                        "square($i)",
                        "import math",
                        "from math import floor as down, pi",
                        "if (seen_here := $i) > 2:\n    pass",
                        "$v",
                        "squares = [seen_q := q * 2 for q in range(1, 3)]",
                        "a = b = 0; a += $i; b = a",
                        "tmp = None\ndel tmp",
                        "a: int",
                    ]
                )
            )
        ]

    def _trapped(self, trap: Block, body: list[str]) -> tuple[list[str], list[str]]:
        """The body with a trap in it; one that stands in a branch of the body stays whole."""
        first, _, last = self._filled(trap.cell).partition("\n---\n")
        at = self._choose(len(body) + 1)
        while at < len(body) and body[at].startswith((" ", "else", "elif", "except", "finally")):
            at += 1
        body = [*body[:at], *first.split("\n"), *body[at:], *(last.split("\n") if last else [])]
        return [self._filled(trap.setup)], body

    def _after(self, kinds: dict[str, str]) -> list[str]:
        if not self._maybe(35):
            return []
        name, _ = self._one(self._accumulators)
        return [
            self._one(
                [
                    f"result = {name}",
                    f"final = ({name}, 1)",
                    f"last = {next(iter(kinds))}",
                    f"n_results = len({name})",
                    f"{name} = None",
                    "1 / 0",
                    f"print({name})",
                ]
            )
        ]


def _indented(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").split("\n") if lines else []
