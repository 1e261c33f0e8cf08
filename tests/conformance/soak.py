"""A million calls on the clean reference server: ``python -m tests.conformance.soak --calls 1000000``.

Prints how many calls were made, how fast, and every false alarm; there should be none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import count

from hivetenancy.testing.conformance import Options, examine

from .reference import Reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seed after seed until there are enough calls."""
    parser = argparse.ArgumentParser(description="Look for false alarms on the clean reference server.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many calls to make at least")
    parser.add_argument("--seed", type=int, default=1_000, help="the first seed")
    options = parser.parse_args(arguments)
    calls, seconds, alarms = 0, 0.0, 0
    for seed in count(options.seed):
        report = examine(Reference(), Options(seed=seed, rounds=40))
        calls, seconds = calls + report.calls, seconds + report.seconds
        if report.leaks or report.doubts:
            alarms += 1
            print(report, flush=True)
        if calls >= options.calls:
            break
    print(f"{calls:,} calls in {seconds:.0f} s ({calls / seconds:,.0f} a second), {alarms} seeds with a false alarm")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
