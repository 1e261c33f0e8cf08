"""The command line: ``hivetenancy`` and ``python -m hivetenancy``.

Exit codes: 0 well, 1 a check failed, 2 the call was wrong. Each command is one file of this folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "Watch a multi-tenant key-value server serve, limit, refuse and settle real clients.",
    "config": "Check an operator's settings, show where each comes from, or print their schema.",
    "hub": "Serve a fake HiveHub for tests, print the document of its wire, or check the hub of the settings.",
    "conform": "Look for leaks between the tenants of a server of yours, and show how to see each.",
    "bench": "Measure what tenancy costs on this machine.",
    "lint": "Find where a server's source may forget its tenants.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program's name; ``None``: those of the process.
    """
    parser = argparse.ArgumentParser(prog="hivetenancy", description="Multi-tenancy for Python data servers.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    given = sys.argv[1:] if argv is None else argv
    for name, summary in COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, description=summary)
        if name in given:  # to read them all would double the time that most take to start
            importlib.import_module(f".{name}", __name__).arguments(command)
    options = parser.parse_args(argv)
    chosen = importlib.import_module(f".{options.command}", __name__)
    try:
        code: int = chosen.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain at its end
        return 0
    return code
