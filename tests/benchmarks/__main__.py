"""``python -m tests.benchmarks``: the table of ``hivetenancy bench``, with peers and a hub over HTTP beside it."""

import argparse
import asyncio

from hivetenancy.cli import bench
from tests.benchmarks import hub_rows, names_rows, peers


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    bench.arguments(parser)
    parser.add_argument("--hub", action="store_true", help="measure the hub over HTTP alone")
    parser.add_argument("--names", action="store_true", help="measure names alone")
    options = parser.parse_args()
    rounds, seconds = (5, 0.05) if options.quick else (15, 0.3)
    print(bench.table(bench.Report(asyncio.run(bench.measure(names_rows.rows(), rounds=rounds, seconds=seconds)))))
    if options.names:
        return
    print()
    if not options.hub:
        print(bench.table(asyncio.run(bench.everything(quick=options.quick, peers=peers.rows))))
        print()
    print(bench.table(asyncio.run(hub_rows.everything(quick=options.quick))))


main()
