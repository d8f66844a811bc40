"""What a study is: something that runs and writes a section of the report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks.targets import Verdict

__all__ = ["Section", "Study", "markdown_table"]


@dataclass(slots=True)
class Section:
    """Part of the report."""

    lines: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


class Study(ABC):
    """Runs in the main process, with libraries of its own."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, *, n_workers: int, is_quick: bool) -> None:
        self.n_workers = n_workers
        self.is_quick = is_quick

    @abstractmethod
    def run(self, peers: Sequence[str]) -> Section:
        """Measure with those of `peers` that take part."""


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, n_texts: int = 1) -> list[str]:
    """A table whose first columns are text and whose others are figures.

    Examples
    --------
    >>> markdown_table(["library", "ms"], [["Pool", "3.1"]])
    ['| library | ms |', '|---|---:|', '| Pool | 3.1 |']
    """
    rule = "|" + "---|" * n_texts + "---:|" * (len(head) - n_texts)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]
