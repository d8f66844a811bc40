"""Counting the beginnings of words, with counts that a worker keeps: MPIRE's stateful workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "FREQUENT",
    "Counts",
    "begin_counting",
    "begin_state",
    "count",
    "count_here",
    "count_in_run",
    "count_in_run_and_state",
    "count_in_state",
    "frequent",
    "frequent_in_state",
]

FREQUENT = 3
"""Beginnings that occur more often than this are wanted."""

Counts = dict[bytes, int]

_counts: Counts = {}
_run: int | None = None


def count(counts: Counts, document: Sequence[bytes]) -> list[bytes]:
    """Count a document's beginnings of words; returns those that have just become frequent."""
    risen = []
    for word in document:
        for end in range(1, len(word) + 1):
            beginning = word[:end]
            n = counts.get(beginning, 0) + 1
            counts[beginning] = n
            if n == FREQUENT + 1:
                risen.append(beginning)
    return risen


def frequent(counts: Counts, more_than: int = FREQUENT) -> list[bytes]:
    """Beginnings that occur often."""
    return [beginning for beginning, n in counts.items() if n > more_than]


def begin_counting() -> None:
    """Initializer of pools: empty counts as a global of the worker."""
    global _counts
    _counts = {}


def count_here(document: Sequence[bytes]) -> list[bytes]:
    """`count` with the worker's global counts."""
    return count(_counts, document)


def count_in_run(run: int, document: Sequence[bytes]) -> list[bytes]:
    """`count_here` for workers that know no initializer: another run begins with empty counts."""
    global _run
    if run != _run:
        _run = run
        begin_counting()
    return count_here(document)


def begin_state(state: dict[str, Any]) -> None:
    """MPIRE's worker_init."""
    state["counts"] = {}


def count_in_state(state: dict[str, Any], document: Sequence[bytes]) -> None:
    """MPIRE's task: nothing comes back before the worker's end."""
    count(state["counts"], document)


def count_in_run_and_state(state: dict[str, Any], run: int, document: Sequence[bytes]) -> list[bytes]:
    """MPIRE's task with workers that are kept: another run begins with empty counts."""
    if state.get("run") != run:
        state.update(run=run, counts={})
    return count(state["counts"], document)


def frequent_in_state(state: dict[str, Any]) -> list[bytes]:
    """MPIRE's worker_exit, whose results are collected."""
    return frequent(state["counts"])
