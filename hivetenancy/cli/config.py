"""``hivetenancy config check | show | schema``: what an operator's settings are, before a server starts with them.

Reads what the server would read, with the same rules, and shows no secret.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hivetenancy.settings import Settings, Shown


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "action",
        choices=("check", "show", "schema"),
        help="check the settings, show each with its origin, or print the JSON schema of the file",
    )
    parser.add_argument("--file", help="the settings file; by default the one that HIVETENANCY_FILE names, or none")
    parser.add_argument("--json", action="store_true", help="with show: print one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code: 1 where the settings are wrong."""
    if options.action == "schema" and options.file is not None:
        return _wrong("--file goes with check and show: the schema is that of every file")
    if options.action != "show" and options.json:
        return _wrong("--json goes with show")
    if options.action == "schema":
        return _schema()
    return _with_settings(options)


def _wrong(message: str) -> int:
    """Say what is wrong with the call, where it does not mix with what is printed, and return the exit code for it."""
    print(f"hivetenancy config: {message}", file=sys.stderr)
    return 2


def _schema() -> int:
    from hivetenancy.settings import file_schema  # only here: pydantic is slow to load, and other commands need none

    print(json.dumps(file_schema(), indent=2))
    return 0


def _with_settings(options: argparse.Namespace) -> int:
    from hivetenancy.errors import ConfigurationError
    from hivetenancy.settings import load, shown

    try:
        settings = load(options.file)
    except ConfigurationError as error:
        print(f"hivetenancy config: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        return _wrong(str(error))
    rows = shown(settings)
    if options.action == "check":
        print(_verdict(settings))
    else:
        print(json.dumps(_as_json(rows)) if options.json else _table(rows))
    return 0


def _verdict(settings: Settings) -> str:
    return f"the settings are right: {settings.mode} mode ({settings.origin_of('mode')})"


def _as_json(rows: Sequence[Shown]) -> dict[str, Any]:
    return {
        row.key: {"value": row.value, "origin": {"kind": row.origin.kind, "name": row.origin.name or None}}
        for row in rows
    }


def _table(rows: Sequence[Shown]) -> str:
    keys = max(len(row.key) for row in rows)
    values = max(len(_word(row.value)) for row in rows)
    return "\n".join(f"{row.key:{keys}}  {_word(row.value):{values}}  {row.origin}" for row in rows)


def _word(value: object) -> str:
    if value is None:
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
