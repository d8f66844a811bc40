"""One call of `delayed` on its way to a worker and back, and what joblib holds of a batch of them.

joblib hands out batches. Here each call of a batch is a task of its own, so that the dashboard counts calls, a failure
names its call and nbpar chooses what travels together; the batch is whole when its last call has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbpar.backends.base import short_repr
from nbpar.inputs import name_of
from nbpar.interop.joblib.arguments import opened

__all__ = ["Batch", "Call", "Runner"]


class Call:
    """A function with its arguments; its repr is what errors and the dashboard name."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def __call__(self) -> Any:
        """Call it, in the worker."""
        return self.function(*map(opened, self.args), **{name: opened(value) for name, value in self.kwargs.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (self.function, self.args, self.kwargs)

    def __repr__(self) -> str:
        given = [short_repr(value) for value in self.args]
        given += [f"{name}={short_repr(value)}" for name, value in self.kwargs.items()]
        return f"{function_name(self.function)}({', '.join(given)})"


def function_name(function: Any) -> str:
    """What a call's function is called; scikit-learn wraps it once more."""
    inner = getattr(function, "function", function)
    return name_of(inner if callable(inner) else function)


class Runner:
    """What a worker calls with each :class:`Call`: with joblib's backend for calls of `Parallel` inside of it.

    Parameters
    ----------
    name : str
        Of the function: nbpar expects tasks of the same function to take as long as before.
    backend, n_jobs
        As joblib's ``get_nested_backend`` has them.
    """

    def __init__(self, name: str, backend: Any, n_jobs: int | None) -> None:
        self.name = name
        self.backend = backend
        self.n_jobs = n_jobs

    def __call__(self, call: Call) -> Any:
        """Run one."""
        from joblib.parallel import BACKENDS, parallel_config

        BACKENDS.setdefault("nbpar", _backend)  # a worker's joblib does not know of it yet
        with parallel_config(backend=self.backend, n_jobs=self.n_jobs):
            return call()


def _backend(**options: Any) -> Any:
    """A backend for a call within a task that asks for it by name; few do, and its modules take time to load."""
    from nbpar.interop.joblib.backend import NbparBackend

    return NbparBackend(**options)


class Batch:
    """What joblib holds of the calls that it has handed out together; called back with when all have ended.

    Parameters
    ----------
    n_calls : int
    callback : callable
        joblib's; called with this, once.
    is_single : bool
        Whether the result is one value and not the list of them.
    """

    def __init__(self, n_calls: int, callback: Callable[[Any], Any] | None, *, is_single: bool = False) -> None:
        self._values: list[Any] = [None] * n_calls
        self._n_left = n_calls
        self._error: BaseException | None = None
        self._callback = callback
        self._is_single = is_single

    def put(self, position: int, value: Any) -> None:
        """One call has returned."""
        self._values[position] = value
        self._n_left -= 1
        if self._n_left == 0:
            self._end()

    def fail(self, error: BaseException) -> None:
        """One call has failed, or none will be made any more: so has the batch."""
        self._error = self._error or error
        self._end()

    def _end(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)

    def result(self) -> Any:
        """What the calls returned, in their order, or raise what the first of them raised."""
        if self._error is not None:
            raise self._error
        values, self._values = self._values, []  # joblib has them from now on
        return values[0] if self._is_single else values
