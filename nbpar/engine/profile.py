"""What the workers' profilers saw of a job, put together: lines, call tree, stacks.

Owns :class:`Merged`, which :mod:`nbpar.engine.state` has for a job that is profiled: it takes what
:mod:`nbpar.worker.profile` tells (the format is said there) and makes the :class:`~nbpar.engine.snapshot.Profile` once
the job has ended. Pure: nothing of pyinstrument is needed here.

Bounds: `MAX_STACKS` different stacks; beyond it those that took least lose their innermost frames.
"""

from __future__ import annotations

import json
import linecache
import os
import sysconfig
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nbpar.engine.snapshot import HotLine, Profile

__all__ = ["Merged", "to_speedscope"]

MAX_STACKS = 20_000
MAX_LINES = 20
MAX_TREE_BYTES = 20_000
LEAST_SHARE = 0.01
"""Branches and lines below are not shown."""

MAX_NAME = 60

Frame = tuple[str, str, int]
"""Function, file, first line."""

Stack = tuple[int, ...]
"""Places (a frame at a line), by number, from the task's function inwards."""


class _Spent(NamedTuple):
    """Time on a stack: where its lines are sure, and where its functions are; how often it was seen from outside."""

    sure_s: float
    unsure_s: float
    n_samples: int
    n_looks: int

    @property
    def seconds(self) -> float:
        return self.sure_s + self.unsure_s


class Merged:
    """What was seen so far, of all workers.

    Parameters
    ----------
    name_cell : callable
        What people call the cell that a file name stands for (``"cell 12"``); None for a file that is none.

    Examples
    --------
    >>> merged = Merged(lambda file: None)
    >>> merged.add(0, zlib.compress(b'["", [["f", "/home/me/model.py", 3]], [[500000, 0, 480, 40, 0, 4]], []]'))
    ''
    >>> print(merged.profile().tree)
    0.50 s  100%  f  model.py:3
    """

    def __init__(self, name_cell: Callable[[str], str | None]) -> None:
        self._name_cell = name_cell
        self._frames: dict[Frame, int] = {}
        self._places: dict[tuple[int, int], int] = {}  # (frame, line)
        self._stacks: dict[Stack, _Spent] = {}
        self._pending: dict[int, dict[Stack, _Spent]] = {}  # by worker: replaced by what it tells next
        self._profile: Profile | None = None

    def add(self, worker_id: int, data: bytes) -> str:
        """Take in what a worker tells; why it could not look, if so."""
        note, frames, found, pending = json.loads(zlib.decompress(data))
        numbers = [self._frames.setdefault((name, file, first), len(self._frames)) for name, file, first in frames]
        for stack, spent in self._read(numbers, found):
            _add(self._stacks, stack, spent)
        self._pending[worker_id] = dict(self._read(numbers, pending))
        if len(self._stacks) > MAX_STACKS:
            self._stacks = _cut(self._stacks)
        return str(note)

    def worker_ended(self, worker_id: int) -> None:
        """What was pending there is all that will be known of it."""
        for stack, spent in self._pending.pop(worker_id, {}).items():
            _add(self._stacks, stack, spent)

    def profile(self) -> Profile:
        """All of it; to be called when the job has ended."""
        if self._profile is None:
            for worker_id in list(self._pending):
                self.worker_ended(worker_id)
            self._profile = self._make()
        return self._profile

    def _read(self, numbers: list[int], rows: Iterable[list[int]]) -> Iterable[tuple[Stack, _Spent]]:
        for sure_us, unsure_us, n_samples, n_looks, *parts in rows:
            places = ((numbers[frame], line) for frame, line in zip(parts[::2], parts[1::2], strict=True))
            stack = tuple(self._places.setdefault(place, len(self._places)) for place in places)
            yield stack, _Spent(sure_us / 1e6, unsure_us / 1e6, n_samples, n_looks)

    def _make(self) -> Profile:
        frames, places = list(self._frames), list(self._places)
        files = {file: _File.of(file, self._name_cell(file)) for _, file, _ in frames}
        total_s = sum(spent.seconds for spent in self._stacks.values())
        by_functions: dict[tuple[int, ...], list[tuple[Stack, _Spent]]] = {}
        for stack, spent in self._stacks.items():
            by_functions.setdefault(tuple(places[number][0] for number in stack), []).append((stack, spent))
        by_frames = {functions: sum(one.seconds for _, one in same) for functions, same in by_functions.items()}
        by_line: dict[tuple[str, int], float] = {}
        for same in by_functions.values():
            for stack, seconds in _with_lines(same):
                at = {places[number] for number in stack}
                for key in {(frames[frame][1], line) for frame, line in at}:  # once, however often it recurs
                    if files[key[0]].is_own and key[1]:
                        by_line[key] = by_line.get(key, 0.0) + seconds
        lines = [
            HotLine(files[file].name, line, linecache.getline(file, line).strip()[:200], seconds / total_s)
            for (file, line), seconds in by_line.items()
            if total_s and seconds >= LEAST_SHARE * total_s
        ]
        lines.sort(key=lambda one: -one.share)
        lines = lines[:MAX_LINES]
        cells = {one.name for one in files.values() if one.is_cell}
        lines.sort(key=lambda one: one.place not in cells)  # stable: the hottest stay first
        return Profile(
            duration_s=total_s,
            n_samples=sum(spent.n_samples for spent in self._stacks.values()),
            lines=tuple(lines),
            tree=_draw(_Node.of(by_frames), frames, files, total_s),
            frames=tuple(frames),
            stacks=tuple((seconds, functions) for functions, seconds in by_frames.items()),
        )


def to_speedscope(profile: Profile) -> str:
    """The stacks in the format of https://www.speedscope.app/file-format-schema.json.

    Examples
    --------
    >>> profile = Profile(1.5, 3, (), "", (("f", "a.py", 1), ("g", "a.py", 5)), ((0.5, (0,)), (1.0, (0, 1))))
    >>> json.loads(to_speedscope(profile))["profiles"][0]["samples"]
    [[0], [0, 1]]
    """
    said: dict[str, Any] = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "nbpar",
        "shared": {"frames": [{"name": name, "file": file, "line": first} for name, file, first in profile.frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": "tasks of all workers",
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(seconds for seconds, _ in profile.stacks),
                "samples": [list(stack) for _, stack in profile.stacks],
                "weights": [seconds for seconds, _ in profile.stacks],
            }
        ],
    }
    return json.dumps(said)


# --- files ------------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    name: str
    is_own: bool  # the user's
    is_cell: bool

    @classmethod
    def of(cls, file: str, cell: str | None) -> _File:
        if cell is not None:
            return cls(cell, is_own=True, is_cell=True)
        if file.startswith("<"):
            is_own = file.startswith(("<stdin", "<ipython-input", "<cell", "<doctest"))
            return cls(file, is_own=is_own, is_cell=is_own)
        name = os.path.relpath(file) if file.startswith(f"{Path.cwd()}{os.sep}") else Path(file).name
        return cls(name, is_own=not _is_installed(file), is_cell=False)


def _is_installed(file: str) -> bool:
    path = Path(file)
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    paths = sysconfig.get_paths()
    return any(path.is_relative_to(folder) for folder in (paths["stdlib"], paths["platstdlib"], _OWN_FOLDER))


_OWN_FOLDER = str(Path(__file__).parents[1])


# --- stacks -----------------------------------------------------------------------------------------------------------


def _add(stacks: dict[Stack, _Spent], stack: Stack, spent: _Spent) -> None:
    known = stacks.get(stack)
    if known is not None:
        sure_s, unsure_s = known.sure_s + spent.sure_s, known.unsure_s + spent.unsure_s
        spent = _Spent(sure_s, unsure_s, known.n_samples + spent.n_samples, known.n_looks + spent.n_looks)
    stacks[stack] = spent


def _with_lines(same: list[tuple[Stack, _Spent]]) -> Iterable[tuple[Stack, float]]:
    """Stacks of the same functions that differ in their lines: what is not sure goes to the lines as they were seen."""
    n_looks = sum(spent.n_looks for _, spent in same)
    unsure_s = sum(spent.unsure_s for _, spent in same)
    for stack, spent in same:
        yield stack, spent.sure_s + (unsure_s * spent.n_looks / n_looks if n_looks else spent.unsure_s)


def _cut(stacks: dict[Stack, _Spent]) -> dict[Stack, _Spent]:
    """Half as many at most, unless they differ in their outermost frame; no time is lost."""
    ordered = sorted(stacks.items(), key=lambda item: -item[1].seconds)
    kept = dict(ordered[: MAX_STACKS // 2])
    for stack, spent in ordered[MAX_STACKS // 2 :]:
        _add(kept, stack[: max(1, len(stack) // 2)], spent)
    return kept


# --- the call tree ----------------------------------------------------------------------------------------------------


class _Node:
    """A function as it was called from those above it."""

    __slots__ = ("children", "frame", "own_s", "seconds")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.seconds = self.own_s = 0.0
        self.children: dict[int, _Node] = {}

    @classmethod
    def of(cls, by_frames: dict[tuple[int, ...], float]) -> _Node:
        root = cls(-1)
        for functions, seconds in by_frames.items():
            node = root
            node.seconds += seconds
            for frame in functions:
                node = node.children.setdefault(frame, cls(frame))
                node.seconds += seconds
            node.own_s += seconds
        return root


def _draw(root: _Node, frames: list[Frame], files: dict[str, _File], total_s: float) -> str:
    """The tree as text; what libraries call among themselves is left out, unless it comes back to the user's code."""
    rows: list[str] = []
    n_bytes = 0

    def is_own(node: _Node) -> bool:
        return files[frames[node.frame][1]].is_own

    def shown_below(node: _Node) -> list[_Node]:
        if node.frame < 0 or is_own(node):
            found = list(node.children.values())
        else:  # of what a library calls, only the user's own code
            found, todo = [], list(node.children.values())
            while todo:
                one = todo.pop()
                if is_own(one):
                    found.append(one)
                else:
                    todo += one.children.values()
        return sorted((one for one in found if one.seconds >= LEAST_SHARE * total_s), key=lambda one: -one.seconds)

    # Not recursive: the user's code may be.
    todo = [(node, "", "") for node in reversed(shown_below(root))]
    while todo:
        node, head, below = todo.pop()
        name, file, first = frames[node.frame]
        place = "" if file == "<built-in>" else f"  {files[file].name}:{first}"
        seconds, share = f"{node.seconds:.2f} s", f"{100 * node.seconds / total_s:.0f}%"
        row = f"{head}{seconds}  {share}  {name[:MAX_NAME]}{place}"
        n_bytes += len(row.encode("utf-8", "replace")) + 1
        if n_bytes > MAX_TREE_BYTES - 10:
            rows.append("...")
            break
        rows.append(row)
        children = shown_below(node)
        for i, child in reversed(list(enumerate(children))):
            is_last = i == len(children) - 1
            todo.append((child, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  ")))
    return "\n".join(rows)
