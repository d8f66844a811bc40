"""A plain `tqdm` in a task shows as the progress of the task's item, and draws nothing.

A bar is made for a terminal; in a task it would be one half-drawn line of output after another. So bars that are made
while a task runs are made disabled, as with ``disable=True``, which the notebook's and other flavours of tqdm honour
too, and what they count goes to the board, as :func:`nbpar.track` does. What the user wants otherwise stays: bars with
a file of their own, bars that are disabled, and all that is done with tqdm outside of tasks.

Called by the backends when a worker begins (or a job, where workers live in the kernel). tqdm is not imported here: it
is changed when the user's code has loaded it or loads it, and costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from nbpar.wire.board import TRACK_DONE
from nbpar.worker.context import Context, current_context

__all__ = ["catch_bars"]

_TQDM = "tqdm.std"  # where the class is that all flavours derive from


class _Teller(NamedTuple):
    """What a bar of a task tells its progress by; `mine` is None where a loop around it does."""

    context: Context
    mine: tuple[int, int] | None


def catch_bars(*, own_process: bool) -> None:
    """Have bars in tasks tell their progress instead of drawing; nothing, where that is so already.

    Parameters
    ----------
    own_process : bool
        This process is a worker and nothing else.
    """
    module: Any = sys.modules.get(_TQDM)
    if module is None:
        if not any(type(finder) is _Awaiting for finder in sys.meta_path):
            sys.meta_path.insert(0, _Awaiting(own_process=own_process))
    elif hasattr(module, "trange"):  # the last name in it: a thread may be loading it at the moment
        _change(module, own_process=own_process)


class _Awaiting:
    """First among the finders of modules until tqdm is loaded."""

    def __init__(self, *, own_process: bool) -> None:
        self._own_process = own_process

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if name != _TQDM:
            return None
        with contextlib.suppress(ValueError):  # another thread has loaded it meanwhile
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                self._follow(spec.loader)
                return spec
        return None

    def _follow(self, loader: Any) -> None:
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            if module.__name__ == _TQDM:
                del loader.exec_module  # a loader may serve other modules as well, that of an archive does
                _change(module, own_process=self._own_process)

        loader.exec_module = exec_module


def _change(module: Any, *, own_process: bool) -> None:
    bar = module.tqdm
    if own_process:
        # Those that came with a fork: the lock may be held by a thread that is not here, the bars are the kernel's.
        bar.set_lock(threading.RLock())
        getattr(bar, "_instances", set()).clear()
        bar.monitor_interval = 0  # no thread of tqdm's own
    if "_nbpar" in vars(bar):
        return
    bar._nbpar = None  # by default a bar is not ours; an instance that is has a `_Teller`
    bar.__init__ = _made(bar.__init__)
    bar.__iter__ = _iterated(bar.__iter__)
    bar.update = _updated(bar.update)
    for name in ("refresh", "reset"):
        setattr(bar, name, _then(getattr(bar, name), _tell))
    for name in ("close", "__exit__", "__del__"):  # the notebook's `close` goes no further when disabled
        setattr(bar, name, _then(getattr(bar, name), _end))


def _made(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        context = current_context()
        if context is None or context.index is None:
            original(self, *args, **kwargs)
            return
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            given = {"disable": True}  # the original says what is wrong
        if given.get("disable") or given.get("kwargs") or not _is_screen(given.get("file")):
            original(self, *args, **kwargs)
            return
        initial = given.get("initial", 0)
        original(self, given.get("iterable"), total=given.get("total"), initial=initial, disable=True)
        # What a disabled bar lacks, and code that asks its bar has.
        self.desc, self.postfix, self.unit_scale = given.get("desc") or "", None, given.get("unit_scale", False)
        self.start_t = self.last_print_t = time.time()
        self.last_print_n = initial
        self.display = _display  # of this bar, whatever its flavour
        self._nbpar = _Teller(context, context.begin_tracking())
        _tell(self)

    return init


def _display(*_args: Any, **_kwargs: Any) -> bool:
    return False


def _is_screen(file: Any) -> bool:
    return file is None or any(file is one for one in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))


def _iterated(original: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    @functools.wraps(original)
    def iterate(self: Any) -> Iterator[Any]:
        return original(self) if self._nbpar is None else _steps(self, self._nbpar)

    return iterate


def _steps(bar: Any, teller: _Teller) -> Iterator[Any]:
    context, mine = teller
    words = context.slot.words
    n = bar.n
    is_plain = type(n) is int and _in_words(n, bar.total)[0] == n
    try:
        for item in bar.iterable:
            yield item
            n += 1
            bar.n = n
            if mine is not None and context.tracking is mine:
                if is_plain:
                    words[TRACK_DONE] = n
                else:
                    _tell(bar)
    finally:
        bar.n = n
        bar.close()
        if bar._nbpar is not None:
            _end(bar)


def _updated(original: Callable[..., bool | None]) -> Callable[..., bool | None]:
    @functools.wraps(original)
    def update(self: Any, n: float | None = 1) -> bool | None:
        if self._nbpar is None:
            return original(self, n)
        self.n += n
        _tell(self)
        return None

    return update


def _then(original: Callable[..., Any], follow: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            if self._nbpar is not None:
                follow(self)

    return method


def _tell(bar: Any) -> None:
    teller: _Teller = bar._nbpar
    if teller.mine is not None and teller.context.tracking is teller.mine:
        teller.context.slot.track(*_in_words(bar.n, bar.total))


def _end(bar: Any) -> None:
    teller: _Teller = bar._nbpar
    _tell(bar)
    teller.context.end_tracking(teller.mine)
    bar._nbpar = None


def _in_words(n: Any, total: Any) -> tuple[int, int | None]:
    """Done and total as whole numbers; a percentage where they are none."""
    try:
        if total is None or not (total > 0 and math.isfinite(total)):
            return max(0, int(n)), None
        if total == int(total) and n == int(n):
            return max(0, int(n)), int(total)
        return max(0, min(100, int(100 * n / total))), 100
    except (TypeError, ValueError, OverflowError):  # they are the user's, and may be anything
        return 0, None
