"""Pandas does the splitting and the combining; in between, nbpar computes what the user's function gives.

:func:`settle` runs a method of pandas with a stand-in for the function. The stand-in first notes what pandas asks of
it; a job computes the answers; then the method runs again, and gets them in the same order. What comes out is what
pandas makes of these values: shapes, dtypes, names and errors are its own. Where pandas asks on because of an answer
(it tries a function in two ways, or a second one after an error), there is one more round.

Called by :mod:`nbpar.interop.pandas.accessors`; :func:`call` is what workers run.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nbpar.errors import NbparError, TaskError
from nbpar.inputs import name_of
from nbpar.interop.pandas.pieces import Item
from nbpar.pool import WorkerPool

__all__ = ["Asked", "Blank", "Settings", "call", "settle", "unheard"]

Blank = Callable[[Any], Any]
"""What the stand-in answers while it only notes: something that pandas can go on with."""

Run = Callable[["Asked", str], list[Any]]
"""Computes the answers to what was asked; the text is the job's ``on_error``."""

_PACKAGE = str(Path(__file__).parents[2])
_PANDAS = str(Path(pd.__file__).parent)


@dataclass(frozen=True, slots=True)
class Settings:
    """The pool and the options for the jobs of one accessor."""

    pool: WorkerPool | None = None
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        items: Any,
        *,
        on_error: str = "raise",
    ) -> list[Any]:
        """One job: ``function(item, *args, **kwargs)`` for each item, which may be an :class:`Item`."""
        __tracebackhide__ = True
        from nbpar.api import default_pool

        pool = self.pool or default_pool()
        task: Any = functools.partial(call, function, tuple(args), kwargs)
        options = {**self.options, "name": self.name or name_of(function), "on_error": on_error}
        return pool.map(task, items, **options)


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], item: Any) -> Any:
    """Run the user's function in a worker."""
    if type(item) is not Item:
        return function(item, *args, **kwargs)
    value = function(item.take(), *args, **kwargs)
    # What is given back may be the very Series that pandas puts the next row into.
    return value.copy(deep=False) if isinstance(value, pd.Series) else value


@dataclass(frozen=True, slots=True)
class _Raised:
    """The answer was an exception."""

    error: BaseException


class _Enough(BaseException):
    """Pandas need not go on: what it would ask next depends on the answers."""


class Asked:
    """What pandas has asked of the function, beyond the answers that there were.

    Attributes
    ----------
    arguments : list
        The first argument of each call, in order.
    args, kwargs : tuple, dict
        The others, which are the same in all.
    """

    def __init__(self) -> None:
        self.arguments: list[Any] = []
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def stand_in(
        self, function: Callable[..., Any], answers: Iterable[Any], blank: Blank, enough: Callable[[Any], bool] | None
    ) -> Callable[..., Any]:
        """A function that gives out the answers and then notes what it is asked."""
        rest = iter(answers)

        @functools.wraps(function, updated=())
        def stand_in(argument: Any, *args: Any, **kwargs: Any) -> Any:
            for answer in rest:
                if type(answer) is _Raised:
                    raise answer.error
                return answer
            if not self.arguments:
                self.args, self.kwargs = args, kwargs
            self.arguments.append(argument)
            if enough is not None and enough(argument):
                raise _Enough
            return blank(argument)

        return stand_in


def settle(
    method: Callable[[Callable[..., Any]], Any],
    function: Callable[..., Any],
    run: Run,
    *,
    blank: Blank,
    enough: Callable[[Any], bool] | None = None,
    answers: Sequence[Any] = (),
) -> Any:
    """What ``method(function)`` gives, with the calls of the function made by `run`.

    Parameters
    ----------
    method : callable
        A method of pandas; called a few times, each time with another stand-in.
    enough : callable, optional
        Whether the first round ends with the argument that was asked for.
    answers : sequence
        Those to the first calls, where they are known already.
    """
    __tracebackhide__ = True
    known = list(answers)
    while True:
        asked = Asked()
        result = None
        with unheard() as last:
            try:
                result = method(asked.stand_in(function, known, blank, None if known else enough))
            except _Enough:
                pass
            except Exception:
                if not asked.arguments:
                    raise
                # Else it may be for the blanks: with the answers it comes again, or does not.
            if not asked.arguments:
                last()
                return result
        known += _answers(method, function, run, asked, known, is_probe=enough is not None and not known)


def _answers(
    method: Callable[[Callable[..., Any]], Any],
    function: Callable[..., Any],
    run: Run,
    asked: Asked,
    known: list[Any],
    *,
    is_probe: bool,
) -> list[Any]:
    """Compute what was asked; the last answer may be an exception, if pandas goes on after it."""
    __tracebackhide__ = True
    if not is_probe:
        try:
            return run(asked, "raise")
        except NbparError:
            raise
        except Exception as error:  # noqa: BLE001  # any that the function may raise
            _raise_unless_caught(method, function, [*known, _Raised(error)])
    # Pandas tries something else after an exception: which answers there are before it matters.
    answers: list[Any] = []
    for value in run(asked, "return"):
        if isinstance(value, TaskError):
            if type(value) is not TaskError or value.__cause__ is None:
                raise value
            return [*answers, _Raised(value.__cause__)]
        answers.append(value)
    return answers


def _raise_unless_caught(
    method: Callable[[Callable[..., Any]], Any], function: Callable[..., Any], answers: list[Any]
) -> None:
    """Raise what pandas makes of an exception of the function, unless it catches it and goes on."""
    __tracebackhide__ = True
    asked = Asked()
    with unheard():
        try:
            method(asked.stand_in(function, answers, lambda _: None, lambda _: True))
        except _Enough:
            pass
        except Exception:
            if not asked.arguments:
                raise


@contextmanager
def unheard() -> Iterator[Callable[[], None]]:
    """Keep warnings of a round to itself, unless it turns out to be the last one: then they name the user's line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_last: list[bool] = []
        yield lambda: is_last.append(True)
    if is_last:
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and _is_inside(frame.f_code.co_filename):
            level, frame = level + 1, frame.f_back
        for one in caught:
            warnings.warn(one.message, one.category, stacklevel=level)


def _is_inside(file_name: str) -> bool:
    return file_name.startswith((_PACKAGE, _PANDAS)) or file_name.endswith("contextlib.py")
