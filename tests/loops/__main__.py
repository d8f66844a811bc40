"""``python -m tests.loops --examples 20000 --seed 1``: generated loop cells, and exit code 1 when one goes wrong.

Cells have numbers: ``--seed`` is the first one's, ``--only N`` runs one. A wrong answer is shown with the smallest
notebook that still gives it, to become a named example in ``tests/loops/test_found.py``.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter

from tests.loops.oracle import Case, judge
from tests.loops.reduce import reduced
from tests.loops.runner import Parallel
from tests.loops.strategy import case_of

PROGRESS = 1000


def main() -> int:
    """Run the cells; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.loops", description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--seed", type=int, default=1_000_000, help="number of the first (1000000)")
    parser.add_argument("--only", type=int, help="run this one alone, and show it")
    parser.add_argument("--start-method", default="serial", help="of the workers (serial)")
    parser.add_argument("--wrong", type=int, default=1, help="stop after so many wrong answers (1)")
    parser.add_argument("--refusals", type=int, default=12, help="reasons shown why plain cells were refused (12)")
    options = parser.parse_args()
    if options.only is not None:
        options.seed, options.examples = options.only, 1
    kinds: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    reasons: dict[str, list[int]] = {}
    wrong: list[int] = []
    begin_s = time.perf_counter()
    with Parallel(options.start_method) as run:
        for number in range(options.seed, options.seed + options.examples):
            case = case_of(number)
            verdict = judge(case, run)
            kinds[verdict.kind] += 1
            if case.is_plain and not verdict.serial_raised:
                plain[verdict.kind] += 1
                if verdict.kind == "refused":
                    reasons.setdefault(_without_names(verdict.reason), []).append(number)
            if options.only is not None:
                print(f"{case}\n\n{verdict.kind}: {verdict.reason}")
            if verdict.is_wrong:
                wrong.append(number)
                _show(number, case, run)
                if len(wrong) >= options.wrong:
                    break
            if (n := sum(kinds.values())) % PROGRESS == 0:
                print(f"{n} cells in {time.perf_counter() - begin_s:.0f} s: {_said(kinds)}", flush=True)
    for reason, numbers in sorted(reasons.items(), key=lambda one: -len(one[1]))[: options.refusals]:
        print(f"plain, yet refused: {len(numbers)} ({', '.join(map(str, numbers[:3]))}): {reason}")
    n_plain = sum(plain.values())
    print(
        f"{sum(kinds.values())} cells on {options.start_method}, numbers {options.seed} and on, in "
        f"{time.perf_counter() - begin_s:.0f} s: {_said(kinds)}; of {n_plain} plain ones without an error "
        f"{plain['same'] / max(n_plain, 1):.1%} ran"
    )
    if wrong:
        print(f"WRONG: {', '.join(map(str, wrong))}")
    return 1 if wrong else 0


def _show(number: int, case: Case, run: Parallel) -> None:
    def is_wrong(one: Case) -> bool:
        try:
            return judge(one, run).is_wrong
        except Exception:  # noqa: BLE001  # its setup is no longer right
            return False

    smallest = reduced(case, is_wrong)
    print(f"\nWRONG, case_of({number}):\n{smallest}\n{judge(smallest, run).reason[:3000]}\n", flush=True)


def _said(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _without_names(reason: str) -> str:
    return re.sub(r"`[^`]*`", "`...`", reason.partition("\n")[0])[:160]


if __name__ == "__main__":
    sys.exit(main())
