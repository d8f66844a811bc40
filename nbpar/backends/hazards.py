"""What a fork of this process would copy that cannot work in the copy: CUDA, and locks that other threads hold.

Asked before a pool of ``start_method="fork"`` is made and before each of its workers is started
(:mod:`nbpar.backends.start`). CUDA is refused. Threads are common, in a Jupyter kernel always, and mostly harmless:
they are told of once for each pool.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

from nbpar.errors import OptionsError

__all__ = ["refuse_fork_with_cuda", "warn_of_fork_with_threads"]

_OPENMP = re.compile(r"/(lib(?:gomp|iomp5|omp)\b[^/]*\.so)")
_MAX_NAMES = 4


def refuse_fork_with_cuda() -> None:
    """Raise when CUDA is in use here: a forked process cannot use it, nor anything that tries to.

    Raises
    ------
    OptionsError
        With what uses it, and what to do.
    """
    user = _cuda_user()
    if user is not None:
        raise OptionsError(
            "start_method",
            "fork",
            f"'forkserver' (the default) or 'spawn' in this process, where CUDA is initialised ({user}): "
            f"it does not work in a forked worker, which fails or hangs when it comes to use it",
        )


def _cuda_user() -> str | None:
    """Who has initialised CUDA in this process; None when nobody has."""
    with contextlib.suppress(Exception):  # any module by that name, perhaps half imported
        if sys.modules["torch"].cuda.is_initialized():
            return "torch.cuda.is_initialized()"
    # cupy, numba, jax, tensorflow and all others come by the driver, which keeps its devices open.
    with contextlib.suppress(OSError):
        devices = sorted({one for one in _open_files() if one.startswith("/dev/nvidia")})
        if devices and "/libcuda.so" in _maps():
            return f"the driver has {devices[0]} open"
    return None


def _open_files() -> Iterator[str]:
    folder = Path("/proc/self/fd")
    for name in os.listdir(folder):  # noqa: PTH208  # a file for each: names are all that is needed
        with contextlib.suppress(OSError):  # the one that lists the folder is gone
            yield os.readlink(folder / name)  # noqa: PTH115  # as above


def _maps() -> str:
    """What this process has mapped."""
    return Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")


def warn_of_fork_with_threads() -> None:
    """Warn, in the name of the user's line, when other threads than nbpar's run here."""
    threads = [one for one in threading.enumerate() if one is not threading.current_thread()]
    names = [one.name for one in threads if not one.name.startswith("nbpar") and one is not threading.main_thread()]
    if threading.current_thread() is not threading.main_thread():
        names.append(threading.main_thread().name)
    risks = []
    if names:
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        risks.append(f"{len(names)} other threads run here ({', '.join(names[:_MAX_NAMES])}{more})")
    if (library := _warm_openmp()) is not None:
        risks.append(f"OpenMP may have threads here ({library})")
    if risks:
        warnings.warn(
            f'start_method="fork": {" and ".join(risks)}. A lock that one of them holds while a worker is forked stays '
            f'held in the worker for ever, which then hangs. "forkserver", the default, has no such risk',
            RuntimeWarning,
            stacklevel=_n_frames_of_ours(),
        )


def _warm_openmp() -> str | None:
    """An OpenMP library with threads of its own; those of BLAS alone are made anew after a fork by OpenBLAS itself."""
    with contextlib.suppress(OSError):
        n_tasks = len(os.listdir("/proc/self/task"))  # noqa: PTH208  # names are all that is needed
        if n_tasks > len(threading.enumerate()):
            found = _OPENMP.search(_maps())
            return None if found is None else found[1]
    return None


def _n_frames_of_ours() -> int:
    """The `stacklevel` of the caller's warning that makes it one of the first frame that is not nbpar's."""
    own = str(Path(__file__).parents[1]) + os.sep
    frame: types.FrameType | None = sys._getframe(1)
    n_frames = 1
    while frame is not None and frame.f_code.co_filename.startswith(own):
        frame, n_frames = frame.f_back, n_frames + 1
    return n_frames
