"""``hivetenancy lint PATH...``: where a server's source may forget its tenants; see `hivetenancy.lint`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files, and folders with all that is below them")
    parser.add_argument("--scoped", action="store_true", help="look at modules too that do not import hivetenancy")
    parser.add_argument("--driver", action="append", default=[], help="one more package that only façades may import")
    parser.add_argument("--rules", action="store_true", help="print the rules, and look at nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code: 1 where something was found."""
    from hivetenancy.lint import DRIVERS, RULES
    from hivetenancy.testing.lint import findings, sources

    if options.rules:
        if options.paths:
            return _wrong("--rules looks at no PATH")
        print(json.dumps(dict(RULES)) if options.json else "\n".join(f"{rule}: {text}" for rule, text in RULES.items()))
        return 0
    if not options.paths:
        return _wrong("name at least one PATH")
    try:
        files = [file for path in options.paths for file in sources(Path(path))]
        if not files:
            return _wrong("there is no Python file in what was named")
        found = findings(files, scoped=options.scoped, drivers={*DRIVERS, *options.driver})
    except OSError as error:
        return _wrong(str(error))
    if options.json:
        print(json.dumps({"files": len(files), "findings": [asdict(each) for each in found]}, indent=2))
    else:
        for each in found:
            print(each)
        of = _counted(len(files), "file")
        print(f"{_counted(len(found), 'finding')} in {of}" if found else f"{of}, nothing found")
    return 1 if found else 0


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wrong(message: str) -> int:
    print(f"hivetenancy lint: {message}", file=sys.stderr)
    return 2
