"""``python -m benchmarks`` (``make bench``). Guarded: workers that start by spawn import this module again."""

from __future__ import annotations

import sys

from benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main())
