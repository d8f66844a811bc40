"""`PerWorker`: what a worker builds once and keeps, a model or a connection, until the kernel replaces it.

Made by :func:`nbpar.per_worker` in the kernel, called in tasks. The kernel's handle has a version; what travels with a
job is a copy of the handle as of the call. A worker keeps one object for each handle, that of the newest version it has
met::

    kernel     model, version 1 ------ replace() ------> version 2
                   |                                         |
    worker     job A: copy of version 1                  job B: copy of version 2
               builds, keeps ----> goes on with it       lets the kept one go, builds, keeps
                                   until the job ends
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from nbpar.errors import NbparError, OptionsError
from nbpar.worker.context import current_context

__all__ = ["PerWorker"]

T = TypeVar("T")


class PerWorker(Generic[T]):
    """What `nbpar.per_worker` returns: call it inside a task for the object built in that worker.

    Parameters
    ----------
    factory : callable
        Called without arguments, once in each worker that asks.

    Raises
    ------
    OptionsError
        When `factory` cannot be called.
    """

    __fixed_parts__ = ("_factory", "_key", "_version")  # see nbpar.wire.unchanged

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = _checked(factory)
        self._key = uuid.uuid4().hex
        self._version = 1
        self._is_copy = False
        self._own: tuple[T, ...] = ()  # of a copy: what it gave last, should another version have taken its place

    @property
    def version(self) -> int:
        """How many factories it has had."""
        return self._version

    def replace(self, factory: Callable[[], T]) -> None:
        """Have each worker build it anew, by another factory, when a job that begins from now on first asks.

        What runs now goes on with the former object, and each worker lets go of that one before it builds the new one.
        Workers that are threads have it replaced for the jobs under way as well.

        Parameters
        ----------
        factory : callable
            Called without arguments.

        Raises
        ------
        OptionsError
            When `factory` cannot be called.
        NbparError
            Inside a task: the notebook replaces it, for all workers.

        Examples
        --------
        >>> import nbpar
        >>> nbpar.configure(n_workers=2, start_method="threads")
        >>> model = nbpar.per_worker(lambda: 10)
        >>> nbpar.map(lambda x: x * model(), [1, 2])
        [10, 20]
        >>> model.replace(lambda: 100)
        >>> nbpar.map(lambda x: x * model(), [1, 2])
        [100, 200]
        """
        if current_context() is not None:
            raise NbparError("replace() was called inside a task; call it in the notebook, which tells all workers")
        self._factory = _checked(factory)
        self._version += 1

    def __call__(self) -> T:
        """The object of this worker; built at the first call."""
        context = current_context()
        if context is None:
            values = _kernel_values
        else:
            if context.values is None:
                context.values = {}
            values = context.values
        factory, version = self._factory, self._version
        known: tuple[int, T] | None = values.get(self._key)
        if known is None or known[0] < version:
            known = None
            values.pop(self._key, None)  # first: there may be room for one only
            known = values[self._key] = version, factory()
        elif known[0] > version:  # asked by a job that began before the replacement
            if not self._own:
                self._own = (factory(),)
            return self._own[0]
        if self._is_copy:
            self._own = (known[1],)
        return known[1]

    def __getstate__(self) -> tuple[Callable[[], T], str, int]:
        return self._factory, self._key, self._version

    def __setstate__(self, state: tuple[Callable[[], T], str, int]) -> None:
        self._factory, self._key, self._version = state
        self._is_copy, self._own = True, ()

    def __repr__(self) -> str:
        later = f", version {self._version}" if self._version > 1 else ""
        return f"per_worker({getattr(self._factory, '__qualname__', self._factory)!s}{later})"


def _checked(factory: Any) -> Any:
    if not callable(factory):
        raise OptionsError("factory", factory, "a function without arguments")
    return factory


_kernel_values: dict[str, Any] = {}  # what per_worker objects built when called outside a task; ends with the process
