"""MPIRE's progress bars in words of nbpar's display: which view a call gets, and what its options say.

Owns the checks of `progress_bar_options` and `progress_bar_style` and what they become. Called by
:mod:`nbpar.interop.mpire.params`; drawing is :mod:`nbpar.views`' business.

======================  ================================================================================================
style                   what is drawn
======================  ================================================================================================
"std", "notebook"       in a notebook the card, in a terminal a bar, in a file or a log a line now and then
"rich"                  the same, but in a terminal a row for each worker
"dashboard"             what nbpar.map shows without being asked: the card or the bar, and nothing in a file
no progress bar at all  in a notebook the card, elsewhere nothing
======================  ================================================================================================

Of the options, `desc` names the job and `disable` leaves the picture out. The others are checked and have no effect:
colours, widths, places and intervals are those of nbpar's display.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from nbpar.errors import OptionsError
from nbpar.interop.mpire import tqdm_utils
from nbpar.interop.mpire.checks import OptionsTypeError, unknown_option
from nbpar.options import Progress
from nbpar.views.cell import Cell

__all__ = ["OPTIONS", "ProgressPlan", "check_progress_bar_options", "plan_progress"]

_Number = (int, float)

OPTIONS: dict[str, tuple[type, ...]] = {
    "ascii": (bool, str, type(None)),
    "bar_format": (str, type(None)),
    "colour": (str, type(None)),
    "delay": (*_Number, type(None)),
    "desc": (str, type(None)),
    "disable": (bool, type(None)),
    "display": (bool,),
    "dynamic_ncols": (bool, int),
    "file": (object,),
    "gui": (bool,),
    "initial": _Number,
    "iterable": (object,),
    "leave": (object,),
    "lock_args": (tuple, type(None)),
    "maxinterval": _Number,
    "mininterval": _Number,
    "miniters": (*_Number, type(None)),
    "ncols": (int, str, type(None)),
    "nrows": (int, type(None)),
    "options": (dict, type(None)),
    "position": (int, type(None)),
    "postfix": (object,),
    "progress": (object,),
    "smoothing": _Number,
    "total": (object,),
    "unit": (str,),
    "unit_divisor": _Number,
    "unit_scale": (bool, *_Number),
    "write_bytes": (object,),
}
"""Keyword arguments of tqdm's bars (its plain one, its notebook's, its rich one) and what their values may be."""


class ProgressPlan(NamedTuple):
    """What a call says to nbpar's display.

    Attributes
    ----------
    progress : bool, "detail" or None
        For the `progress` option of a job.
    name : str or None
        For its `name`.
    """

    progress: Progress
    name: str | None


def check_progress_bar_options(
    progress_bar_options: Any, n_tasks: int | None, progress_bar_style: Any
) -> dict[str, Any]:
    """Check options and style, and add MPIRE's defaults.

    Parameters
    ----------
    progress_bar_options : dict, optional
        Keyword arguments of tqdm.
    n_tasks : int, optional
        Becomes the `total`.
    progress_bar_style : {"std", "rich", "notebook", "dashboard"}, optional
        By default `mpire.tqdm_utils.PROGRESS_BAR_DEFAULT_STYLE`.

    Returns
    -------
    dict
        A new one.

    Raises
    ------
    OptionsError
        For a style that does not exist; for an option that does not exist it is a KeyError, for one of the wrong type a
        TypeError as well.
    NotImplementedError
        For a `position` with the style "rich", as in MPIRE.

    Warns
    -----
    RuntimeWarning
        For `total` and `leave`, which are overwritten.

    Examples
    --------
    >>> check_progress_bar_options({"desc": "pages"}, 10, None)["desc"]
    'pages'
    """
    given = progress_bar_options or {}
    if not isinstance(given, dict):
        raise OptionsTypeError("progress_bar_options", progress_bar_options, "a dictionary, or None")
    style = _style(progress_bar_style)
    for name, instead in (("total", "give iterable_len"), ("leave", "what was drawn always stays")):
        if name in given:
            # The stack up to the user's call: check_map_parameters, the pool's method.
            warnings.warn(f"progress_bar_options[{name!r}] has no effect: {instead}", RuntimeWarning, stacklevel=4)
    if style == "rich" and "position" in given:
        raise NotImplementedError("progress_bar_options['position'] does not exist with progress_bar_style='rich'")
    for name, value in given.items():
        if name not in OPTIONS:
            raise unknown_option("progress_bar_options", given, f"keyword arguments of tqdm, and not {name!r}")
        if not isinstance(value, OPTIONS[name]):
            types = " or ".join(sorted("None" if one is type(None) else one.__name__ for one in OPTIONS[name]))
            raise OptionsTypeError(f"progress_bar_options[{name!r}]", value, types)
    defaults = {"position": 0, "dynamic_ncols": True, "mininterval": 0.1, "maxinterval": 0.5}
    return defaults | given | {"total": n_tasks, "leave": True}


def plan_progress(progress_bar: object, progress_bar_options: Any, progress_bar_style: Any) -> ProgressPlan:
    """What a call with these arguments, which are checked, says to nbpar's display.

    Examples
    --------
    >>> plan_progress(True, {"desc": "pages"}, None)
    ProgressPlan(progress=True, name='pages')
    >>> plan_progress(True, {"disable": True}, "rich")
    ProgressPlan(progress=False, name=None)
    """
    options = progress_bar_options or {}
    name = options.get("desc") or None
    if options.get("disable"):
        return ProgressPlan(False, name)
    progress: Progress = True
    if not progress_bar:
        progress = False if Cell.current() is None else None
    elif (style := _style(progress_bar_style)) == "rich":
        progress = "detail"
    elif style == "dashboard":
        progress = None
    return ProgressPlan(progress, name)


def _style(progress_bar_style: Any) -> str:
    option, value = "progress_bar_style", progress_bar_style
    if value is None:
        option, value = "PROGRESS_BAR_DEFAULT_STYLE", tqdm_utils.PROGRESS_BAR_DEFAULT_STYLE
    if not isinstance(value, str) or value not in tqdm_utils.STYLES:
        raise OptionsError(option, value, ", ".join(repr(style) for style in tqdm_utils.STYLES))
    return value
