"""``python -m tests.benchmarks``: the table of ``hivetenancy bench``, with peers in the same run."""

import argparse
import asyncio

from hivetenancy.cli import bench
from tests.benchmarks import peers


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    bench.arguments(parser)
    options = parser.parse_args()
    report = asyncio.run(bench.everything(quick=options.quick, peers=peers.rows))
    print(bench.table(report))


main()
