"""One study's part of a report that is there: replaced, and all else left as it was.

A study that is run alone on another day would otherwise take the place of everything that twenty minutes have measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.base import Section, Study

__all__ = ["merged"]

_TABLE = "| workload | asked | measured |"
_AFTER = ("## Not run, or not to the end", "## How it was measured")


def merged(page: str, sections: Sequence[tuple[type[Study], Section]], verdict_rows: Sequence[str]) -> str:
    """The page with these sections and these rows of the table "asked and measured" in place of the studies' old ones.

    Parameters
    ----------
    page : str
        ``RESULTS.md`` as it is.
    sections : sequence
        The studies that ran.
    verdict_rows : sequence of str
        Their lines of the table, without its head.

    Raises
    ------
    ValueError
        The page is no report.
    """
    lines = page.splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith(_TABLE)]
    if not heads:
        raise ValueError("the page has no table of what was asked and measured: it is not one of these reports")
    titles = [study.title for study, _ in sections]
    end = heads[0]
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    kept = [line for line in lines[heads[0] : end] if not any(line.startswith(f"| {title} |") for title in titles)]
    lines[heads[0] : end] = [*kept, *verdict_rows]
    for study, section in sections:
        lines = _with_section(lines, f"## {study.title}", ["", *section.lines, ""])
    return "\n".join(lines).rstrip() + "\n"


def _with_section(lines: list[str], head: str, body: list[str]) -> list[str]:
    if head in lines:
        begin = lines.index(head)
        end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith("## ")), len(lines))
    else:
        begin = end = next((at for at, line in enumerate(lines) if line in _AFTER), len(lines))
    return [*lines[:begin], head, *body, *lines[end:]]
