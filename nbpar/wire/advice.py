"""What to say of an object that cannot travel: one line, with what to do instead.

Used by :mod:`nbpar.wire.diagnose`. Types are known by name, so that nothing is imported for them.
"""

from __future__ import annotations

import pickle

__all__ = ["problem_of", "short", "short_repr"]

_MAX_TEXT = 200
_MAX_REPR = 40

_INSIDE = "open it inside the function, or once in each worker with nbpar.per_worker"
_CONNECTION = f"a connection belongs to the process that opened it; {_INSIDE}"
_COROUTINE = "a coroutine stays where it was made; await it first, or map the `async def` function itself"
_STACK = "it is part of this process's call stack; send what you need of it, as with traceback.format_exc()"

_BY_TYPE: dict[str, str] = {
    "builtins.generator": "a generator stays where it runs; make a list of it, or make it inside the function",
    "builtins.coroutine": _COROUTINE,
    "builtins.async_generator": _COROUTINE,
    "_asyncio.Task": _COROUTINE,
    "_asyncio.Future": _COROUTINE,
    "builtins.frame": _STACK,
    "builtins.traceback": _STACK,
    "_thread._local": "its values belong to the threads of this process; make it inside the function",
    "_contextvars.ContextVar": "a context variable is known in this process only; send its value: variable.get()",
    "_contextvars.Context": "a context is known in this process only; send the values that are needed",
    "_contextvars.Token": "a token of a context variable is of use in this process only",
    "socket.socket": _CONNECTION,
    "_socket.socket": _CONNECTION,
    "ssl.SSLSocket": _CONNECTION,
    "ssl.SSLContext": f"it cannot be copied; {_INSIDE}",
    "sqlite3.Connection": _CONNECTION,
    "sqlite3.Cursor": _CONNECTION,
    "mmap.mmap": f"mapped memory stays in its process; {_INSIDE}, or use nbpar.share for an array",
    "subprocess.Popen": "a child process belongs to the process that started it; start it inside the function",
    "zipfile.ZipFile": f"an open archive cannot be copied; {_INSIDE}",
    "h5py._hl.files.File": f"an open file cannot be copied; {_INSIDE}",
    "builtins.module": "a module that was made by hand cannot be copied as it is",
    "concurrent.futures.thread.ThreadPoolExecutor": "threads stay in their process; make it inside the function",
    "concurrent.futures.process.ProcessPoolExecutor": "a pool stays in its process; make it inside the function",
}


def problem_of(kind: type, error: BaseException, *, too_deep: bool = False) -> str:
    """Why an object cannot be sent, and what to do.

    Parameters
    ----------
    kind : type
        Of the part that is to blame.
    error : BaseException
        What pickling it raised.
    too_deep : bool
        The recursion limit was reached.

    Returns
    -------
    str
        One line, without a full stop.
    """
    if too_deep:
        return "it is nested too deeply for pickle; flatten it (links between objects as indices, for example)"
    for base in kind.__mro__:
        advice = _BY_TYPE.get(f"{base.__module__}.{base.__qualname__}")
        if advice:
            return advice
    text = _message(error)
    if text.startswith(("cannot pickle", "Can't pickle", "can't pickle")):
        return f"{text}; make it inside the function, or once in each worker with nbpar.per_worker"
    if isinstance(error, pickle.PicklingError):
        return text
    return f"pickling it raised {type(error).__name__}" + (f": {text}" if text else "")


def short(text: str, length: int = _MAX_REPR) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 3] + "..."


def short_repr(obj: object) -> str:
    """A short repr, whatever the object's own raises."""
    try:
        return short(repr(obj))
    except BaseException:  # noqa: BLE001  # user code
        return f"<{type(obj).__name__}>"


def _message(error: BaseException) -> str:
    try:
        return short(str(error), _MAX_TEXT)
    except BaseException:  # noqa: BLE001  # user code
        return ""
