"""``python -m benchmarks.install``: the peers into this environment, one by one if they do not come together.

Run by ``make bench``. What does not install, for want of a wheel for this Python or this machine, is noted in the
environment with pip's reason, and the report says so; the others are compared all the same.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

__all__ = ["main", "missing"]

_NOTES = Path(sys.prefix, "benchmarks-missing.json")


def missing() -> dict[str, str]:
    """Peers that could not be installed here, with pip's reason."""
    if not _NOTES.exists():
        return {}
    notes: dict[str, str] = json.loads(_NOTES.read_text(encoding="utf-8"))
    return notes


def main() -> None:
    """Install what the extra ``bench`` of nbpar names."""
    wanted = [line for line in metadata.requires("nbpar") or [] if re.search(r"extra == ['\"]bench['\"]", line)]
    requirements = [line.partition(";")[0].strip() for line in wanted]
    notes: dict[str, str] = {}
    if _pip(requirements) is not None:
        for requirement in requirements:
            reason = _pip([requirement])
            if reason is not None:
                name = re.split(r"[^\w.-]", requirement)[0]
                notes["dask" if name == "distributed" else name] = f"could not be installed: {reason}"
                print(f"{requirement} could not be installed: {reason}", file=sys.stderr)
    _NOTES.write_text(json.dumps(notes, indent=1), encoding="utf-8")


def _pip(requirements: list[str]) -> str | None:
    """Install; returns the reason when it fails."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return (errors or ["pip gave no reason"])[0].removeprefix("ERROR:").strip()[:160]


if __name__ == "__main__":
    main()
