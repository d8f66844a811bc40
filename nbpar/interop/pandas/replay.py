"""Pandas does the splitting and the combining; in between, nbpar computes what the user's function gives.

:func:`settle` runs a method of pandas with a stand-in for the function. The stand-in first notes what pandas asks of
it; a job computes the answers; then the method runs again, and gets them in the same order. What comes out is what
pandas makes of these values: shapes, dtypes, names and errors are its own. Where pandas asks on because of an answer
(it tries a function in two ways, or a second one after an error), there is one more round.

Called by :mod:`nbpar.interop.pandas.base`; :func:`call` is what workers run.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nbpar.errors import NbparError, TaskError
from nbpar.inputs import name_of
from nbpar.interop.pandas.pieces import Item, PackedSeries
from nbpar.pool import WorkerPool

__all__ = ["Asked", "Blank", "Settings", "call", "first_asked", "settle"]

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
        results = pool.map(task, items, **options)
        return [one.unpacked() if type(one) is PackedSeries else one for one in results]


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], item: Any) -> Any:
    """Run the user's function in a worker."""
    if type(item) is not Item:
        return function(item, *args, **kwargs)
    return item.packed(function(item.take(), *args, **kwargs))


@dataclass(frozen=True, slots=True)
class _Raised:
    """The answer was an exception."""

    error: BaseException


class _Enough(BaseException):
    """Pandas need not go on: what it would ask next depends on the answers."""


class _Known(list[Any]):
    """Answers in the order of the calls, and in `shapes` what was asked: of what kind and how large, if that is known.

    What pandas asks may depend on what it was answered. Answers to what it does not ask in the end are let go.
    """

    def __init__(self, answers: Iterable[Any] = (), shapes: Sequence[Any] | None = None) -> None:
        super().__init__(answers)
        self.shapes: list[Any] = list(shapes) if shapes is not None else [None] * len(self)

    def add(self, answers: list[Any], arguments: list[Any]) -> None:
        """Answers to the first of the arguments."""
        self.extend(answers)
        self.shapes += [_shape(one) for one in arguments[: len(answers)]]

    def and_then(self, answer: Any) -> _Known:
        """A copy with one more."""
        return _Known([*self, answer], [*self.shapes, None])

    def is_open(self, decides: type | None) -> bool:
        """Whether the answer that decides how pandas goes on is not among them."""
        return decides is not None and not any(shape is not None and shape[0] is decides for shape in self.shapes)

    def cut(self, place: int) -> None:
        """Keep those before a place."""
        del self[place:], self.shapes[place:]


def _shape(argument: Any) -> Any:
    return (type(argument), argument.shape) if isinstance(argument, pd.DataFrame | pd.Series) else None


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
        self._place = 0

    @property
    def is_first(self) -> bool:
        """Whether no answer was given before."""
        return self._place == 0

    def stand_in(
        self,
        function: Callable[..., Any],
        known: _Known,
        blank: Blank,
        decides: type | None = None,
    ) -> Callable[..., Any]:
        """A function that gives out the answers and then notes what it is asked."""

        @functools.wraps(function, updated=())
        def stand_in(argument: Any, *args: Any, **kwargs: Any) -> Any:
            place = self._place
            if place < len(known) and not self.arguments:
                shape = known.shapes[place]
                if shape is None or shape == _shape(argument):
                    self._place += 1
                    if type(answer := known[place]) is _Raised:
                        raise answer.error
                    return answer
                known.cut(place)
            if not self.arguments:
                self.args, self.kwargs = args, kwargs
            self.arguments.append(argument)
            if decides is not None and isinstance(argument, decides) and known.is_open(decides):
                raise _Enough
            return blank(argument)

        return stand_in


def first_asked(method: Callable[[Any], Any], function: Callable[..., Any]) -> Asked | None:
    """What pandas asks of a function when it knows no answer; None when that is nothing."""
    asked = Asked()
    with contextlib.suppress(Exception), unheard():  # for the blank, or for the arguments: then pandas says so again
        method(asked.stand_in(function, _Known(), lambda _: None))
    return asked if asked.arguments else None


def settle(
    method: Callable[[Callable[..., Any]], Any],
    function: Callable[..., Any],
    run: Run,
    *,
    blank: Blank,
    decides: type | None = None,
    answers: Sequence[Any] = (),
) -> Any:
    """What ``method(function)`` gives, with the calls of the function made by `run`.

    Parameters
    ----------
    method : callable
        A method of pandas; called a few times, each time with another stand-in.
    decides : type, optional
        Of the first argument whose answer decides how pandas goes on: a round ends there.
    answers : sequence
        Those to the first calls, where they are known already.
    """
    __tracebackhide__ = True
    known = _Known(answers)
    while True:
        asked = Asked()
        result = None
        with unheard() as last:
            try:
                result = method(asked.stand_in(function, known, blank, decides))
            except _Enough:
                pass
            except Exception:
                if not asked.arguments:
                    raise
                # Else it may be for the blanks: with the answers it comes again, or does not.
            if not asked.arguments:
                last()
                return result
        known.add(_answers(method, function, run, asked, known, decides), asked.arguments)


def _answers(
    method: Callable[[Callable[..., Any]], Any],
    function: Callable[..., Any],
    run: Run,
    asked: Asked,
    known: _Known,
    decides: type | None,
) -> list[Any]:
    """Compute what was asked; the last answer may be an exception, if pandas goes on after it."""
    __tracebackhide__ = True
    if not known.is_open(decides):
        try:
            return run(asked, "raise")
        except NbparError:
            raise
        except Exception as error:  # noqa: BLE001  # any that the function may raise
            _raise_unless_caught(method, function, known.and_then(_Raised(error)))
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
    method: Callable[[Callable[..., Any]], Any], function: Callable[..., Any], known: _Known
) -> None:
    """Raise what pandas makes of an exception of the function, unless it catches it and goes on."""
    __tracebackhide__ = True
    asked = Asked()
    with unheard():
        try:
            method(asked.stand_in(function, known, lambda _: None, object))
        except _Enough:
            pass
        except Exception:
            if not asked.arguments:
                raise


@contextlib.contextmanager
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
