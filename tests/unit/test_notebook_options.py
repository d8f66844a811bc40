"""What can be written behind the magics, and what is said about what cannot."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbpar.errors import OptionsError
from nbpar.notebook.completer import complete
from nbpar.notebook.options import OPTIONS, PARALLEL, map_options, parse, said_in_options, split_options, with_arguments


class Magics:
    @with_arguments(*PARALLEL)
    def parallel(self) -> None:
        """Docs."""


def read(line: str) -> argparse.Namespace:
    return parse(Magics(), "parallel", split_options(line)[0])


@pytest.mark.parametrize(
    ("line", "words", "rest"),
    [
        ("each x in xs", [], "each x in xs"),
        ("-j 4  each x in -xs", ["-j", "4"], "each x in -xs"),
        ("-j4 [x for x in xs]", ["-j", "4"], "[x for x in xs]"),
        ("--timeout=1.5 -o ys each x in xs", ["--timeout", "1.5", "-o", "ys"], "each x in xs"),
        ("--name 'a b' --name=\"c d\" x", ["--name", "a b", "--name", "c d"], "x"),
        ("--background --seed -1 {x: 'y -o z'}", ["--background", "--seed", "-1"], "{x: 'y -o z'}"),
        ("", [], ""),
    ],
)
def test_options_end_where_the_rest_begins(line: str, words: list[str], rest: str) -> None:
    found, at = split_options(line)
    assert (found, line[at:]) == (words, rest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-j 0", "-j/--workers: '0' is not allowed; allowed: a whole number, 1 or more"),
        ("-j two", "'two' is not allowed"),
        ("--timeout 0", "--timeout: '0' is not allowed; allowed: seconds as a number above 0"),
        ("--timeout inf", "above 0"),
        ("--retries -1", "0 or more"),
        ("--seed 1.5", "a whole number"),
        ("--on-error stop", "allowed: raise, return, skip"),
        ("-o a.b", "a name as in an assignment"),
        ("-o class", "a name as in an assignment"),
        ("-o", "-o needs a value: -o NAME"),
        ("--frob 1", "--frob is no option"),
        ("--time 1", "--time is no option"),
        ("--background=yes", "--background takes no value"),
    ],
)
def test_a_message_names_option_value_and_what_is_allowed(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(line)
    assert message in str(raised.value)
    assert type(raised.value) is UsageError  # IPython shows no other class as one line


def test_options_of_the_map() -> None:
    default: dict[str, Any] = map_options(read(""), "each " + "x" * 50)
    assert default == {
        "timeout": None,
        "retries": 0,
        "seed": None,
        "on_error": "raise",
        "chunk_size": None,
        "checkpoint": None,
        "profile": False,
        "name": "each " + "x" * 34 + "…",
        "progress": None,
    }
    line = (
        "--timeout 2 --retries 3 --seed 4 --on-error skip --chunk-size 5 --checkpoint 'a b.db' --profile --name n "
        "--no-progress"
    )
    assert map_options(read(line), "other") == {
        "timeout": 2.0,
        "retries": 3,
        "seed": 4,
        "on_error": "skip",
        "chunk_size": 5,
        "checkpoint": "a b.db",
        "profile": True,
        "name": "n",
        "progress": False,
    }


def test_engine_messages_in_the_words_of_the_options() -> None:
    assert said_in_options(OptionsError("n_workers", 2, "1")) == "-j 2 is not allowed; allowed: 1"
    assert said_in_options(OptionsError("chunk_size", 0, "more")).startswith("--chunk-size 0 ")
    assert said_in_options(OptionsError("iterable", 5, "items")).startswith("the iterable 5 ")
    assert len(said_in_options(OptionsError("iterable", "x" * 999, "items"))) < 140


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%%parallel --ti", ["--timeout"]),
        ("%%parallel -j 2 --ch", ["--chunk-size", "--checkpoint", "--check"]),
        ("ys = %parallel --se", ["--seed"]),
        ("%%parallel e", ["each"]),
        ("%nbpar s", ["status", "shutdown"]),
        ("%%parallel each x in xs --ti", []),
        ("print(--ti", []),
        ("e", []),
    ],
)
def test_completions(line: str, found: list[str]) -> None:
    assert complete(line, line.rsplit(maxsplit=1)[-1]) == found


def test_every_option_is_completed() -> None:
    assert set(complete("%%parallel -", "-")) == {name for option in OPTIONS for name in option.names}
