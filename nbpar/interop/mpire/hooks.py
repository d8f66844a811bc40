"""What runs in a worker: the function with its leading arguments, and around it `worker_init` and `worker_exit`.

Made by :mod:`nbpar.interop.mpire.shift` in the kernel. Each worker loads this module when it starts, so it has to load
fast: it imports nothing that a worker does not have, and its classes are plain (a dataclass takes 1 ms to be made).

::

    a worker's life     start ....... first task .............. tasks ................ last task ......... end
    what is called                    worker_init, function     function               function
                                                                 |                      |
        it was the last by `worker_lifespan`, so the worker is replaced now             + worker_exit  (same call)
        the pool ends, or a map without `keep_alive`                                                     ExitTask
        it died, the pool was terminated, another task failed                                            (not called)

`worker_init` is a part of the first task that a worker gets, not of its start: a worker that gets none calls neither.
Each of the two is a part with a time limit of its own (:func:`nbpar.worker.context.timed_part`), so it may take longer
than a task, and a worker that is stuck in C code is stopped with its name. A worker that takes the place of a dead one
begins a life of its own.

A :class:`Life` is kept with the worker, under the key of the shift. The value of a call that has more to tell than the
function's result travels as :class:`Carried`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from nbpar.wire.shared import AttachedShared, Shared, unwrap
from nbpar.worker.context import Context, current_context, timed_part

__all__ = [
    "ApplyTask",
    "Carried",
    "ExitTask",
    "Inherited",
    "Life",
    "MapTask",
    "Own",
    "Setup",
    "bequeath",
    "call_single",
    "disinherit",
    "is_in_daemon",
    "split_arguments",
]


class Life:
    """One worker from its first task to its end.

    Attributes
    ----------
    state : dict
        The user's worker state.
    is_ready : bool
        Whether `worker_init` has been called.
    n_tasks : int
        Tasks begun.
    """

    __slots__ = ("is_ready", "n_tasks", "state")

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}
        self.is_ready = False
        self.n_tasks = 0


class Inherited:
    """Stands for an object that a forked worker has from its parent, under a key; for what cannot be sent.

    Parameters
    ----------
    key : str
        See :func:`bequeath`.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    @property
    def value(self) -> Any:
        """The object."""
        return _bequeathed[self._key]


_bequeathed: dict[str, Any] = {}  # in the kernel; a shift puts things here and takes them away when it ends


def bequeath(key: str, value: object) -> Inherited:
    """Keep an object for the workers that are forked from now on."""
    _bequeathed[key] = value
    return Inherited(key)


def disinherit(key: str) -> None:
    """Forget an object."""
    _bequeathed.pop(key, None)


class Own:
    """Holds an object of this process; for threads.

    Parameters
    ----------
    value : object
        It.
    """

    def __init__(self, value: object) -> None:
        self.value = value


class Setup:
    """What all functions of a shift are called with.

    Parameters
    ----------
    key : str
        Of the shift.
    pass_worker_id, use_worker_state : bool
        Whether they come before a function's own arguments.
    shared : object
        Has the shared objects as its `value`; None for none.
    is_daemon : bool
        Whether pools with processes of their own are refused in these workers.
    tells_times : bool
        Whether insights are wanted.
    """

    def __init__(
        self,
        key: str,
        pass_worker_id: bool,
        shared: Shared[Any] | AttachedShared | Inherited | Own | None,
        use_worker_state: bool,
        is_daemon: bool,
        tells_times: bool,
    ) -> None:
        self.key = key
        self.pass_worker_id = pass_worker_id
        self.shared = shared
        self.use_worker_state = use_worker_state
        self.is_daemon = is_daemon
        self.tells_times = tells_times

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.key, self.pass_worker_id, self.shared, self.use_worker_state, self.is_daemon, self.tells_times
        return _arrived, values

    @property
    def is_plain(self) -> bool:
        """Whether functions are called with their own arguments alone."""
        return not self.pass_worker_id and self.shared is None and not self.use_worker_state

    def life(self, context: Context) -> Life:
        """The life of this worker; begun when it is first asked for."""
        if context.values is None:
            context.values = {}
        life: Life | None = context.values.get(self.key)
        if life is None:
            life = context.values[self.key] = Life()
        return life

    def leading(self, context: Context, life: Life) -> tuple[Any, ...]:
        """The arguments before a function's own: worker_id, shared objects, state."""
        found: tuple[Any, ...] = (context.worker_id,) if self.pass_worker_id else ()
        if self.shared is not None:
            found += (self.shared.value,)
        return (*found, life.state) if self.use_worker_state else found


_is_daemon = False  # whether this process is a worker of a pool with daemon=True


def _arrived(*values: Any) -> Setup:
    """A setup, in the process that it was sent to: never the kernel, nor one of its threads."""
    global _is_daemon
    setup = Setup(*values)
    _is_daemon = setup.is_daemon
    return setup


def is_in_daemon() -> bool:
    """Whether this process is a worker of a pool with ``daemon=True``, which may have no processes of its own."""
    return _is_daemon


class Carried:
    """A function's result with what else is to be told of the call.

    Parameters
    ----------
    value : object
        The result.
    worker_id : int
        Who called it.
    init_s, exit_s : float or None
        What `worker_init` and `worker_exit` took; None where they were not called.
    exit_value : object
        What `worker_exit` returned.
    work_s : float
        What the function took.
    """

    def __init__(
        self,
        value: Any,
        worker_id: int,
        init_s: float | None = None,
        work_s: float = 0.0,
        exit_s: float | None = None,
        exit_value: Any = None,
    ) -> None:
        self.value = value
        self.worker_id = worker_id
        self.init_s = init_s
        self.work_s = work_s
        self.exit_s = exit_s
        self.exit_value = exit_value


class _Hooked:
    """What maps and single tasks have in common.

    Parameters
    ----------
    setup : Setup
        Of the shift.
    init, exit : callable or None
        The user's `worker_init` and `worker_exit`.
    init_limit_s, exit_limit_s : float or None
        How long they may take.
    lifespan : int or None
        Tasks after which the pool replaces a worker.
    """

    def __init__(
        self,
        setup: Setup,
        init: Callable[..., Any] | Inherited | None = None,
        exit: Callable[..., Any] | Inherited | None = None,  # noqa: A002  # as it is called
        init_limit_s: float | None = None,
        exit_limit_s: float | None = None,
        lifespan: int | None = None,
    ) -> None:
        self.setup = setup
        self.init = init
        self.exit = exit
        self.init_limit_s = init_limit_s
        self.exit_limit_s = exit_limit_s
        self.lifespan = lifespan

    def run(self, function: Any, args: Iterable[Any], kwargs: dict[str, Any], *, tells: bool = False) -> Any:
        """Call the function, and before or after it what is due in this worker."""
        context = current_context()
        assert context is not None
        life = self.setup.life(context)
        leading = self.setup.leading(context, life)
        init_s = exit_s = exit_value = None
        if self.init is not None and not life.is_ready:
            began_s = time.perf_counter()
            with timed_part("worker_init", self.init_limit_s):
                _callable(self.init)(*leading)
            init_s = time.perf_counter() - began_s
            life.is_ready = True
        life.n_tasks += 1
        began_s = time.perf_counter()
        value = _callable(function)(*leading, *args, **kwargs)
        work_s = time.perf_counter() - began_s
        if self.exit is not None and self.lifespan is not None and life.n_tasks >= self.lifespan:
            exit_s, exit_value = _leave(self.exit, leading, self.exit_limit_s)
            life.n_tasks = 0  # else it would be called once more, by the ExitTask that comes before the worker has gone
        if exit_s is None and not (self.setup.tells_times and init_s is not None) and not tells:
            return value
        return Carried(value, context.worker_id, init_s, work_s, exit_s, exit_value)


class MapTask(_Hooked):
    """What a map calls with each item.

    Parameters
    ----------
    function : callable or Inherited
        The user's.
    is_plain : bool
        Whether there is nothing to do but to call the function with the item's arguments.
    hooks
        As above.
    """

    def __init__(self, function: Any, *, is_plain: bool, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.function = function
        self.is_plain = is_plain

    def __call__(self, item: Any) -> Any:
        """Call the function with the arguments of an item."""
        args, kwargs = split_arguments(item)
        if self.is_plain:
            return self.function(*args, **kwargs)
        return self.run(self.function, args, kwargs)


class ApplyTask(_Hooked):
    """What `apply` calls."""

    def __call__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function."""
        named = {name: unwrap(value) for name, value in kwargs.items()}
        return self.run(function, map(unwrap, args), named, tells=self.setup.tells_times)


def call_single(task: ApplyTask, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a worker calls for a single task: all else is an argument, so that a new function costs no message."""
    return task(function, args, kwargs)


class ExitTask(_Hooked):
    """Calls `worker_exit` in a worker that has had tasks; the last one that it gets."""

    def __call__(self) -> Carried:
        """Call it, or nothing."""
        context = current_context()
        assert context is not None
        life = self.setup.life(context)
        if self.exit is None or life.n_tasks == 0:
            return Carried(None, context.worker_id)
        leading = self.setup.leading(context, life)
        life.n_tasks = 0
        exit_s, exit_value = _leave(self.exit, leading, self.exit_limit_s)
        return Carried(None, context.worker_id, exit_s=exit_s, exit_value=exit_value)


def _leave(function: Any, leading: tuple[Any, ...], limit_s: float | None) -> tuple[float, Any]:
    began_s = time.perf_counter()
    with timed_part("worker_exit", limit_s):
        exit_value = _callable(function)(*leading)
    return time.perf_counter() - began_s, exit_value


def _callable(function: Any) -> Callable[..., Any]:
    return function.value if type(function) is Inherited else function  # type: ignore[no-any-return]


def split_arguments(item: Any) -> tuple[Iterable[Any], dict[str, Any]]:
    """An item of a map as arguments by position and by name.

    A dict becomes keyword arguments and any other iterable arguments by position, but strings, bytes, arrays and
    frames: these, and all that cannot be iterated, are one argument.

    Examples
    --------
    >>> split_arguments({"a": 1}), split_arguments((1, 2)), split_arguments("ab")
    (((), {'a': 1}), ((1, 2), {}), (('ab',), {}))
    """
    kind = type(item)
    if kind is tuple or kind is list:
        return item, {}
    if isinstance(item, dict):
        return (), item
    if isinstance(item, Iterable) and not _is_whole(item):
        return item, {}
    return (item,), {}


def _is_whole(item: object) -> bool:
    """Whether something that can be iterated is one argument all the same."""
    if isinstance(item, str | bytes):
        return True
    for module, names in _WHOLE.items():
        loaded = sys.modules.get(module)
        if loaded is not None and any(isinstance(item, getattr(loaded, name, ())) for name in names):
            return True
    return False


_WHOLE = {"numpy": ("ndarray",), "pandas": ("DataFrame", "Series", "Index"), "polars": ("DataFrame", "Series")}
