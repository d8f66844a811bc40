"""What is known of a loop before it runs: its parts, its names, and its effects on what is outside of it.

Pure data, made by :mod:`nbpar.notebook.loops` from the text of a cell alone (no object of the user's has been looked
at), read by :mod:`nbpar.notebook.captures` (are the objects such that this is safe?), by
:mod:`nbpar.notebook.loop_run` (run it) and by :mod:`nbpar.notebook.replay` (do the effects in the kernel).

::

    cell ── loops.read_loop ──> Loop ── captures.check ──> tasks ── recorder, in workers ──> Outcome ──┐
    (text)                      (names, sites)                (a copy of what the body reads)          │
                      the notebook's namespace  <── replay, in the loop's order, all or nothing ───────┘
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Literal

from nbpar.notebook.source import Place

__all__ = ["ITEM", "LOG", "Kind", "Loop", "Site", "value_name"]

ITEM = ".item"
"""The argument of the task's function: one element of the iterable."""

LOG = ".log"
"""The local name of a task's :class:`nbpar.worker.recorder.Recorder`. No cell can name either of them."""

Kind = Literal["append", "extend", "add", "update", "setitem", "augname", "augitem", "extreme", "touch"]
"""What an effect does.

``append`` (also deque's), ``extend``, ``add``, ``update`` (of a set or a dict) are statements that call a method;
``setitem`` is ``path[key] = value``, ``augitem`` ``path[key] op= value``, ``augname`` ``name op= value``, and
``extreme`` ``name = min(name, value)`` or ``max``, in either order of arguments. ``touch`` is ``path[key]``, looked up
before the rest of one of these is computed: see :attr:`Site.guarded`.
"""


def value_name(position: int) -> str:
    """The name that stands in :attr:`Site.statement` for the value that a worker has recorded there."""
    return f".v{position}"


@dataclass(frozen=True, slots=True)
class Site:
    """A statement of the body that changes something outside of it, which is recorded by the worker and done later.

    In the body that workers run its place is taken by ``.log.note(number, *values)``: the values of the keys and of
    what is stored, computed in the order in which Python computes them. For a site on the item (`on_item`) the worker
    also does it, to its own copy, so that the rest of the iteration sees it.

    Attributes
    ----------
    number : int
        Position in :attr:`Loop.sites`.
    kind : str
        See :data:`Kind`.
    name : str
        The outer name that the path begins with, or with `on_item` the loop's target.
    depth : int
        Number of subscripts between the name and the object that is changed: 0 for ``out.append(x)`` and ``d[k] = x``,
        1 for ``groups[key].append(x)``.
    statement : ast.stmt
        What the kernel does: the user's statement with ``.v0``, ``.v1`` ... in place of what was recorded, at the
        places of the text that it had.
    n_values : int
        How many there are.
    place : Place
        What to underline.
    text : str
        The statement as written, in one line.
    guarded : bool
        Whether a ``try`` or a ``with`` of the body might catch what the statement raises: then, if doing it in the
        kernel raises, the loop is refused, because serial would have gone on. Nor is it the same when computing what
        is stored raises: ``groups[key]`` has been looked up by then, which may have made an item, or have raised first.
        So that is a site of its own before it, a ``touch``.
    on_item : bool
        Whether it changes the item (an object reached from a target) instead of an outer object.
    own_slot : bool
        ``name[target] = ...`` or ``op=`` where the key is exactly the loop's key: other iterations have other keys
        (checked when the items are known), so the body may read ``name[target]`` as well.
    key : ast.expr or None
        Of an own slot: the key, made of names of the target.
    """

    number: int
    kind: Kind
    name: str
    depth: int
    statement: ast.stmt
    n_values: int
    place: Place
    text: str
    guarded: bool = False
    on_item: bool = False
    own_slot: bool = False
    key: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """A cell with one top-level ``for``.

    Attributes
    ----------
    before, after : list of ast.stmt
        What runs in the kernel; a loop's ``else`` is the beginning of `after`.
    target, iterable : ast.expr
        Of the ``for``.
    targets : tuple of str
        Names that the target binds.
    bound : tuple of str
        Names that the body binds, without effects and without `targets`; each iteration has its own.
    always : frozenset of str
        Those of `targets` and `bound` that are set whenever an iteration ends; of the others the last iteration that
        set them counts.
    never_kept : frozenset of str
        Those that an iteration unsets if it has set them at all (``except ... as e``, ``del``): serial would take them
        away from a namespace that had them before.
    reads : frozenset of str
        Outer names that the body reads, functions and modules too.
    slots_read : frozenset of str
        Accumulators of which the body, before it changes it, or the iterable reads what is in the iteration's own slot.
    sites : tuple of Site
        Effects, in the order of the text.
    body : list of ast.stmt
        The body that workers run.
    makes_functions : bool
        Whether the body makes functions, classes or generators that use a name of the loop's: they must not get out.
    header : str
        ``for i, x in enumerate(xs)``, in one line.
    place : Place
        Of the header.
    """

    before: list[ast.stmt]
    after: list[ast.stmt]
    target: ast.expr
    iterable: ast.expr
    targets: tuple[str, ...]
    bound: tuple[str, ...]
    always: frozenset[str]
    never_kept: frozenset[str]
    reads: frozenset[str]
    sites: tuple[Site, ...]
    body: list[ast.stmt]
    makes_functions: bool
    header: str
    place: Place
    slots_read: frozenset[str] = frozenset()

    @property
    def accumulators(self) -> frozenset[str]:
        """Outer names whose objects the loop changes, or that it binds anew by ``+=`` and the like."""
        return frozenset(site.name for site in self.sites if not site.on_item)
