"""What can be written behind ``%%parallel`` and ``%parallel``: the options, their checks, and where they end.

Owns one table of the options, from which the help, the parser, the splitting of a line and the Tab key are made. Called
by :mod:`nbpar.notebook.magics` and :mod:`nbpar.notebook.completer`; needs no IPython until a magic is made.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from nbpar.errors import OptionsError
from nbpar.options import OnError

__all__ = [
    "OPTIONS",
    "PARALLEL",
    "Option",
    "map_options",
    "parse",
    "said_in_options",
    "split_options",
    "with_arguments",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Option:
    """One option; a flag when it has no `metavar`."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    convert: Callable[[str], Any] | None = None

    @property
    def argument(self) -> Argument:
        """For the parser."""
        if self.metavar is None:
            return self.names, {"action": "store_true", "help": self.help}
        return self.names, {"metavar": self.metavar, "type": self.convert, "help": self.help}


def _allowed(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")


def _whole(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            raise _allowed(text, f"a whole number, {least} or more")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _allowed(text, "seconds as a number above 0")
    return value


def _name(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise _allowed(text, "a name as in an assignment")
    return text


def _on_error(text: str) -> str:
    choices = get_args(OnError)
    if text not in choices:
        raise _allowed(text, ", ".join(choices))
    return text


OPTIONS = (
    Option(
        ("-j", "--workers"), "Use N workers instead of the notebook's pool; they stay for the next N.", "N", _whole(1)
    ),
    Option(("-o", "--output"), "Store the results under NAME instead of showing them.", "NAME", _name),
    Option(("--background",), "End the cell at once; NAME, or what is shown, is the Job."),
    Option(("--timeout",), "Seconds that one task may run.", "S", _seconds),
    Option(("--retries",), "How often a failed task is run again.", "R", _whole(0)),
    Option(("--seed",), "Seed the random generators of each task by this and its index.", "S", _whole(0)),
    Option(
        ("--on-error",),
        "raise the first failure (default), return failures in their items' places, or skip those items.",
        "WHAT",
        _on_error,
    ),
    Option(("--chunk-size",), "Tasks that travel together; chosen while the job runs by default.", "N", _whole(1)),
    Option(("--name",), "What the dashboard calls the job.", "TEXT", str),
    Option(("--checkpoint",), "Keep results in the file PATH; what it has already is not computed again.", "PATH", str),
    Option(("--profile",), "Show which lines the tasks' time went to; needs nbpar[profile]."),
    Option(("--no-progress",), "Show no dashboard."),
    Option(
        ("--check",),
        "Run the first K items serially as well, on copies, and compare; a difference is an error.",
        "K",
        _whole(1),
    ),
    Option(("--dry-run",), "Run nothing; show the task, its effects, what it brings to workers, and what is refused."),
)

Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What IPython's ``argument`` takes."""

PARALLEL: tuple[Argument, ...] = (
    *(option.argument for option in OPTIONS),
    (
        ("form",),
        {"nargs": "*", "help": "`each TARGET in ITERABLE` for a cell, a comprehension for a line; after the options."},
    ),
)

_BY_NAME = {name: option for option in OPTIONS for name in option.names}
_WORD = re.compile(r"""\s*("[^"]*"|'[^']*'|[^\s=]+="[^"]*"|[^\s=]+='[^']*'|\S+)""")


def with_arguments(*arguments: Argument) -> Callable[[_Function], _Function]:
    """Give a magic its arguments: a parser for :func:`parse`, and help for ``%magic?``."""
    ipython: Any = importlib.import_module("IPython.core.magic_arguments")  # it has no types

    def decorate(function: _Function) -> _Function:
        for names, settings in reversed(arguments):
            function = ipython.argument(*names, **settings)(function)
        magic: _Function = ipython.magic_arguments()(function)
        return magic

    return decorate


def parse(magics: object, name: str, words: str | list[str]) -> argparse.Namespace:
    """The arguments of the magic `name`, made with :func:`with_arguments`, from a line or from its words.

    Raises
    ------
    UsageError
        When one is not allowed; names it, the value and what is allowed.
    """
    parser = getattr(magics, name).parser
    namespace: argparse.Namespace
    namespace = parser.parse_argstring(words) if isinstance(words, str) else parser.parse_args(words)
    return namespace


def split_options(line: str) -> tuple[list[str], int]:
    """The options at the beginning of a line as a list of arguments, and where the rest of the line begins.

    Raises
    ------
    UsageError
        For an option that does not exist or lacks its value.

    Examples
    --------
    >>> line = "-j 2 --name 'a b' each x in xs"
    >>> arguments, rest = split_options(line)
    >>> arguments, line[rest:]
    (['-j', '2', '--name', 'a b'], 'each x in xs')
    """
    from IPython.core.error import UsageError

    arguments: list[str] = []
    at = 0
    while (match := _WORD.match(line, at)) and match[1].startswith("-"):
        word, at = match[1], match.end()
        name, equals, value = word.partition("=")
        if name not in _BY_NAME and not name.startswith("--") and name[:2] in _BY_NAME:  # -j4
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        if name not in _BY_NAME:
            known = ", ".join(option.names[0] for option in OPTIONS)
            raise UsageError(f"{word} is no option of %parallel; there are: {known}")
        arguments.append(name)
        if _BY_NAME[name].metavar is None:
            if equals:
                raise UsageError(f"{name} takes no value")
            continue
        if not equals:
            match = _WORD.match(line, at)
            if match is None:
                raise UsageError(f"{name} needs a value: {name} {_BY_NAME[name].metavar}")
            value, at = match[1], match.end()
        arguments.append(_unquoted(value))
    return arguments, at + len(line[at:]) - len(line[at:].lstrip())


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def map_options(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """The options of ``pool.map``; `name` is the job's unless the user gave one."""
    return {
        "timeout": arguments.timeout,
        "retries": arguments.retries or 0,
        "seed": arguments.seed,
        "on_error": arguments.on_error or "raise",
        "chunk_size": arguments.chunk_size,
        "checkpoint": arguments.checkpoint,
        "profile": arguments.profile,
        "name": arguments.name or (name if len(name) <= 40 else name[:39] + "…"),
        "progress": False if arguments.no_progress else None,
    }


def said_in_options(error: OptionsError) -> str:
    """The engine's message about an argument, in the words of the magic's options."""
    names = {"n_workers": "-j", "iterable": "the iterable"}
    option = error.option.replace("_", "-")
    written = names.get(error.option) or (f"--{option}" if f"--{option}" in _BY_NAME else error.option)
    value = repr(error.value)
    value = value if len(value) <= 80 else value[:77] + "..."
    return f"{written} {value} is not allowed; allowed: {error.allowed}"
