"""What the calls of a pool return: results to wait for, and errors by the names that multiprocessing has for them.

:class:`ApplyResult` stands for one call, :class:`MapResult` for a job, :class:`IMapIterator` for a
stream. The user's threads wait, the dispatcher's thread calls back.
"""

from __future__ import annotations

import itertools
import multiprocessing.pool
import pickle
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing import TimeoutError as WaitTimeoutError
from typing import Any, Generic, Protocol, TypeVar

from nbpar.backends.base import Wait
from nbpar.eager import EagerStream, NotYetError
from nbpar.errors import JobCancelledError, NbparError, SerializationError
from nbpar.future import HELP_S
from nbpar.job import Job
from nbpar.raising import as_raised, as_raised_inside, carry_results
from nbpar.waiting import Latch

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "MapResult",
    "MaybeEncodingError",
    "PicklingError",
    "as_theirs",
]

R = TypeVar("R")

_theirs: Any = multiprocessing.pool  # the stubs leave its errors out

Callback = Callable[[Any], object] | None


class PicklingError(SerializationError, pickle.PicklingError):
    """A function or an argument cannot travel; the message names the object, the path to it and what to do."""


class MaybeEncodingError(SerializationError, _theirs.MaybeEncodingError):  # type: ignore[misc]  # it is there
    """A result cannot travel; the message names the object, the path to it and what to do.

    Attributes
    ----------
    exc : str
        The repr of what pickling it raised.
    value : str
        What cannot travel; its repr stayed in the worker.
    """

    exc: str = ""
    value: str = ""


def as_theirs(error: BaseException, *, is_remote: bool) -> BaseException:
    """An error as multiprocessing would raise it: of a type that its users catch, with the worker's traceback."""
    if isinstance(error, SerializationError):
        kind = MaybeEncodingError if error.of_result else PicklingError
        named = kind.__new__(kind, error.message)
        named.__dict__.update(error.__dict__)
        named.__cause__ = error.__cause__
        if isinstance(named, MaybeEncodingError):
            named.exc, named.value = repr(error.__cause__), error.message
        return named
    if is_remote and not isinstance(error, NbparError) and error.__cause__ is None and error.__traceback__ is not None:
        text = "".join(traceback.format_exception(error))
        error.__cause__ = _theirs.RemoteTraceback(f'\n"""\n{text}"""')
    return error


class _Result(Generic[R]):
    """Ready when the outcome is there and has been called back with."""

    def __init__(self, callback: Callback, error_callback: Callback, *, is_remote: bool) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._is_remote = is_remote
        self._ready = Latch()
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._ready.is_set()

    def successful(self) -> bool:
        """Whether the call has ended without an exception.

        Raises
        ------
        ValueError
            When it has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._look() is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, at most `timeout` seconds."""
        end_s = None if timeout is None else time.perf_counter() + timeout
        if not self.ready() and self._wait(timeout):
            self._ready.wait(None if end_s is None else max(0.0, end_s - time.perf_counter()))

    def get(self, timeout: float | None = None) -> R:
        """The value; waits for it.

        Raises
        ------
        multiprocessing.TimeoutError
            When `timeout` seconds have passed first; the call goes on.
        Exception
            What the function raised, the first one of a map.
        """
        __tracebackhide__ = True
        self.wait(timeout)
        if not self.ready():
            raise WaitTimeoutError
        error = self._look()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback would keep what its frame refers to
        value: R = self._value
        return value

    def refuse(self, error: BaseException) -> None:
        """It could not even begin."""
        self._error = as_theirs(error, is_remote=False)
        self._call_back()

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the core; whether it has ended."""
        raise NotImplementedError

    def _look(self) -> BaseException | None:
        """Take over the outcome from the core that has ended; the error, if it is one."""
        return self._error

    def _call_back(self) -> None:
        try:
            if self._callback is not None or self._error_callback is not None:
                error = self._look()
                if error is None and self._callback is not None:
                    self._callback(self._value)
                # Of a pool that is terminated nobody is told, as with multiprocessing.
                elif not (error is None or self._error_callback is None or isinstance(error, JobCancelledError)):
                    self._error_callback(error)
        finally:
            self._callback = self._error_callback = None
            self._ready.set()


class _Helped(Protocol):
    def help(self, wait: Wait) -> None:
        """Do the backend's work while the caller waits."""


class ApplyResult(_Result[R]):
    """What `Pool.apply_async` returns."""

    _job: _Helped | None = None

    def follow(self, job: _Helped) -> None:
        """Its call is one of this job, which will settle it."""
        self._job = job

    def settle(self, value: Any, error: BaseException | None) -> None:
        """The call has ended."""
        self._value = value
        if error is not None:
            self._error = as_theirs(error, is_remote=self._is_remote)
        self._job = None
        self._call_back()

    def settle_by(self, future: Any) -> None:
        """The call has ended, and was this future's."""
        error = future.exception()
        self.settle(None if error is not None else future.result(), error)

    def _wait(self, timeout: float | None) -> bool:
        job = self._job
        if job is not None:
            job.help(Wait(self._ready.is_set, HELP_S if timeout is None else min(timeout, HELP_S)))
        return True


AsyncResult = ApplyResult
"""multiprocessing's other name for it."""


class MapResult(_Result[list[R]]):
    """What `Pool.map_async` and `Pool.starmap_async` return.

    Parameters
    ----------
    is_flat : bool
        Values are lists of values.
    """

    _job: Job[Any] | None = None

    def __init__(
        self, callback: Callback = None, error_callback: Callback = None, *, is_remote: bool, is_flat: bool = False
    ) -> None:
        super().__init__(callback, error_callback, is_remote=is_remote)
        self._is_flat = is_flat

    def follow(self, job: Job[Any]) -> None:
        """Have the outcome of this one."""
        self._job = job
        job.add_done_callback(self._end)

    def finish(self) -> list[R]:
        """The values for a caller that only waits: an interrupt ends the job, and the job's results are not kept."""
        __tracebackhide__ = True
        job = self._job
        if job is not None:
            job.is_held = False
            try:
                job.finish()
            except KeyboardInterrupt as interrupt:
                job.interrupt(interrupt)
            except Exception:  # noqa: BLE001  # it is raised below
                pass
            except BaseException:
                job.cancel()
                raise
        return self.get()

    def _end(self, _job: Any) -> None:
        self._call_back()

    def _wait(self, timeout: float | None) -> bool:
        return self._job is None or self._job.wait(timeout)

    def _look(self) -> BaseException | None:
        job, self._job = self._job, None
        if job is None:
            return self._error
        error = job.exception(0)
        if error is None and (errors := job.errors):
            error = as_raised(errors[0])
            carry_results(error, job.results)
        if error is not None:
            self._error = as_theirs(error, is_remote=self._is_remote)
        else:
            values = job.result(0)
            self._value = list(itertools.chain.from_iterable(values)) if self._is_flat else values
        return self._error


class IMapIterator(Generic[R]):
    """What `Pool.imap` and `Pool.imap_unordered` return: an iterator that can wait for a limited time."""

    def __init__(self, stream: EagerStream[Any], *, is_remote: bool, is_flat: bool) -> None:
        self._stream = stream
        self._is_remote = is_remote
        self._is_flat = is_flat
        self._values: deque[R] = deque()

    def __iter__(self) -> IMapIterator[R]:
        return self

    def next(self, timeout: float | None = None) -> R:
        """The next value.

        Raises
        ------
        StopIteration
            When there are no more.
        multiprocessing.TimeoutError
            When `timeout` seconds have passed first; it may be asked again.
        Exception
            What the task raised; the others can still be asked for.
        """
        __tracebackhide__ = True
        while not self._values:
            try:
                value, failure = self._stream.take(timeout)
            except NotYetError:
                raise WaitTimeoutError from None
            if failure is not None:
                raise as_theirs(as_raised_inside(failure), is_remote=self._is_remote)
            if self._is_flat:
                self._values.extend(value or ())
            else:
                self._values.append(value)  # type: ignore[arg-type]  # a value that is None is one
        return self._values.popleft()

    __next__ = next  # noqa: A003  # its name there
