"""The Tab key behind ``%%parallel`` and ``%nbpar``: names of options and of subcommands.

Owns one matcher in IPython's completer. Called by the extension's load and unload functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nbpar.notebook.options import OPTIONS

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["SUBCOMMANDS", "add_completer", "complete", "remove_completer"]

SUBCOMMANDS = ("status", "restart", "shutdown", "debug")

_PARALLEL = re.compile(r"(?:^|[=\s])%%?parallel\s")
_NBPAR = re.compile(r"^\s*%nbpar\s+\w*$")


def complete(line: str, token: str) -> list[str]:
    """What may stand at the end of a line.

    Parameters
    ----------
    line : str
        Up to the cursor.
    token : str
        The word that the cursor ends.

    Examples
    --------
    >>> complete("%%parallel -j 2 --ti", "--ti")
    ['--timeout']
    >>> complete("%nbpar re", "re")
    ['restart']
    """
    if _NBPAR.search(line):
        return [word for word in SUBCOMMANDS if word.startswith(token)]
    if token.startswith("-") and _PARALLEL.search(line) and not re.search(r"\seach\s", line):
        names = [name for option in OPTIONS for name in option.names]
        return [name for name in names if name.startswith(token)]
    if token and "each".startswith(token) and re.match(r"\s*%%parallel\s", line):
        return ["each"]
    return []


@context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
def _matcher(context: CompletionContext) -> SimpleMatcherResult:
    found = complete(context.text_until_cursor, context.token)
    return {"completions": [SimpleCompletion(text, type="param") for text in found], "suppress": bool(found)}


def add_completer(ip: InteractiveShell) -> None:
    """Let the shell's completer ask here as well."""
    if _matcher not in ip.Completer.custom_matchers:
        ip.Completer.custom_matchers.append(_matcher)


def remove_completer(ip: InteractiveShell) -> None:
    """Undo `add_completer`."""
    if _matcher in ip.Completer.custom_matchers:
        ip.Completer.custom_matchers.remove(_matcher)
