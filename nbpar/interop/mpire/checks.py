"""Checks of single values, with the types of exception that MPIRE raises.

Called by the other modules of this package. What is not allowed raises :class:`~nbpar.errors.OptionsError`, which is a
ValueError; where MPIRE raises another type it is that as well, so that ``except`` clauses written for MPIRE go on.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from nbpar.errors import OptionsError

__all__ = [
    "LEAST_TIMEOUT_S",
    "OptionsTypeError",
    "UnknownOptionError",
    "check_number",
    "check_timeouts",
    "unknown_option",
]

LEAST_TIMEOUT_S = 1e-8


class OptionsTypeError(OptionsError, TypeError):
    """An argument of the wrong type: an OptionsError, as all of nbpar's, and the TypeError that MPIRE raises.

    Examples
    --------
    >>> issubclass(OptionsTypeError, TypeError), issubclass(OptionsTypeError, ValueError)
    (True, True)
    """


class UnknownOptionError(OptionsError, KeyError):
    """A name that no option has: an OptionsError, and a KeyError; where tqdm is there, its TqdmKeyError as well.

    Examples
    --------
    >>> str(UnknownOptionError("progress_bar_options", {"width": 3}, "keyword arguments of tqdm"))
    "progress_bar_options={'width': 3} is not allowed; allowed: keyword arguments of tqdm"
    """


def unknown_option(option: str, value: object, allowed: str) -> UnknownOptionError:
    """The exception to raise; tqdm is loaded for it alone."""
    kinds: tuple[type[BaseException], ...] = (UnknownOptionError,)
    with contextlib.suppress(ImportError):
        from tqdm import TqdmKeyError

        kinds += (TqdmKeyError,)
    kind = type("UnknownOptionError", kinds, {"__module__": __name__})
    return kind(option, value, allowed)  # type: ignore[no-any-return]


def check_number(
    var: Any, var_name: str, allowed_types: tuple[type, ...], none_allowed: bool, min_: float | None = None
) -> None:
    """Check the type of a number, and that it is `min_` or more; numpy's numbers pass, booleans do not.

    Raises
    ------
    OptionsTypeError
        For another type.
    OptionsError
        For less than `min_`, infinity and NaN.

    Examples
    --------
    >>> check_number(0, "n_splits", (int,), none_allowed=True, min_=1)
    Traceback (most recent call last):
    ...
    nbpar.errors.OptionsError: n_splits=0 is not allowed; allowed: a whole number, 1 or more, or None
    """
    if none_allowed and var is None:
        return
    allowed = "a number" if float in allowed_types else "a whole number"
    if min_ is not None:
        allowed += f", {min_:g} or more"
    if none_allowed:
        allowed += ", or None"
    is_whole = hasattr(type(var), "__index__") and not isinstance(var, bool)
    if not (is_whole and int in allowed_types) and not (isinstance(var, float) and float in allowed_types):
        raise OptionsTypeError(var_name, var, allowed)
    if not math.isfinite(var) or (min_ is not None and var < min_):
        raise OptionsError(var_name, var, allowed)


def check_timeouts(
    task_timeout: float | None, worker_init_timeout: float | None, worker_exit_timeout: float | None
) -> None:
    """Check the three timeouts that `apply` takes: seconds above 0, or None."""
    for name, value in (
        ("task_timeout", task_timeout),
        ("worker_init_timeout", worker_init_timeout),
        ("worker_exit_timeout", worker_exit_timeout),
    ):
        check_number(value, name, allowed_types=(int, float), none_allowed=True, min_=LEAST_TIMEOUT_S)
