"""`PerWorker`: what a worker builds once and keeps, a model or a connection, until the kernel replaces it.

Made by :func:`nbpar.per_worker` in the kernel, called in tasks. The kernel's handle has a version; what travels with a
job is a copy of the handle as of the call. A worker keeps one object for each handle, that of the newest version it has
met::

    kernel     model, version 1 ------ replace() ------> version 2
                   |                                         |
    worker     job A: copy of version 1                  job B: copy of version 2
               builds, keeps                             lets the kept one go, builds, keeps
                                                         (while A runs beside it: A goes on with the former one)

No copy holds what was built: the copy, its factory and their globals refer to each other, and live until the garbage
collector comes.
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
        if known is not None and known[0] > version and context is not None:  # its job began before the replacement
            mine = self._key, version
            if mine not in context.former:
                context.former[mine] = factory()
            former: T = context.former[mine]
            return former
        if known is None or known[0] < version:
            if known is not None and context is not None and context.n_jobs > 1:
                context.former[self._key, known[0]] = known[1]
            known = None
            values.pop(self._key, None)  # first: there may be room for one only
            known = values[self._key] = version, factory()
        return known[1]

    def __repr__(self) -> str:
        later = f", version {self._version}" if self._version > 1 else ""
        return f"per_worker({getattr(self._factory, '__qualname__', self._factory)!s}{later})"


def _checked(factory: Any) -> Any:
    if not callable(factory):
        raise OptionsError("factory", factory, "a function without arguments")
    return factory


_kernel_values: dict[str, Any] = {}  # what per_worker objects built when called outside a task; ends with the process
