"""``python -m benchmarks`` (``make bench``): all benchmarks, their tables on standard output."""

from __future__ import annotations

from benchmarks import first_steps

if __name__ == "__main__":
    first_steps.main()
