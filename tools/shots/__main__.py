"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.harness import Server, find_chromium, open_browser
from tools.shots import png
from tools.shots.lab import SHOTS, Studio

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Take the pictures; 0 when all were."""
    parser = argparse.ArgumentParser(prog="python -m tools.shots", description="Take the pictures of the docs.")
    parser.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(SHOTS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    args = parser.parse_args()
    names = list(SHOTS) if args.only is None else args.only.split(",")
    unknown = [name for name in names if name not in SHOTS]
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is not known; it may be {', '.join(SHOTS)}")
    if find_chromium() is None:
        print("No Chromium: install the system's (make chromium) or set NBPAR_CHROMIUM to one.", file=sys.stderr)
        return 1
    os.environ.pop("NBPAR_UI", None)
    args.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=30_000)
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser, Server(Path(folder, "jupyter")) as server:
        studio = Studio(server, browser)
        for name in names:
            for shot, data in SHOTS[name](studio):
                n_bytes = png.write(args.out / f"{shot}.png", data)
                print(f"{shot}.png  {n_bytes / 1000:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
