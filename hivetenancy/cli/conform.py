"""``hivetenancy conform module:Subject``: does anything leak between the tenants of a server?

Exit codes: 0 nothing leaks, 1 something leaks, 2 the call or the subject was wrong, 3 nothing was proven: somewhere
there was nothing to be seen, or it could not be told.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hivetenancy.testing.conformance import Report, Subject
    from hivetenancy.testing.conformance.power import PowerReport

NOTHING_PROVEN = 3
"""Exit code where no leak was found, and no absence of leaks either."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("subject", help="where the subject is: package.module:Name, a class or an object")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; 0 by default")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from that one on; 1 by default")
    parser.add_argument("--steps", type=int, default=40, help="how many calls one program has; 40 by default")
    parser.add_argument("--rounds", type=int, default=20, help="how many programs each clique of tenant ids gets")
    parser.add_argument("--leaks", type=int, default=12, help="after how many leaks to stop; 12 by default")
    parser.add_argument("--power", action="store_true", help="run the server under faulty names, too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that a person reads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a file that a program reads")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from hivetenancy.errors import ConfigurationError
    from hivetenancy.testing.conformance import Options, examine
    from hivetenancy.testing.conformance.power import power

    try:
        subject = load(options.subject)
        chosen = Options(
            seed=options.seed,
            seeds=options.seeds,
            steps=options.steps,
            rounds=options.rounds,
            most_leaks=options.leaks,
        )
        report = examine(subject, chosen)
        known = {leak.finding.place for leak in report.leaks}
        tested = power(subject, chosen, known=known) if options.power else None
    except ConfigurationError as error:
        print(f"hivetenancy conform: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - of the subject's own code; left alone it would end with the code of a leak
        traceback.print_exc()
        print(f"hivetenancy conform: the subject failed outside of a call: {error!r}", file=sys.stderr)
        return 2
    print(report)
    if tested is not None:
        print(f"\n{tested}")
    return _written(options, report, tested) or _code(report, tested)


def load(where: str) -> Subject:
    """Return the subject that *where* names.

    Raises:
        ConfigurationError: There is none, or it is no subject.
    """
    from hivetenancy.errors import ConfigurationError
    from hivetenancy.testing.conformance import Subject

    module, colon, name = where.partition(":")
    if not (module and colon and name):
        raise ConfigurationError(f"{where!r} names no subject: write package.module:Name")
    if "" not in sys.path:
        sys.path.insert(0, "")  # what stands in the folder that one is in, as with `python -m`
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigurationError(f"{module} cannot be imported: {error}") from error
    except AttributeError:
        raise ConfigurationError(f"there is no {name} in {module}") from None
    subject = found() if isinstance(found, type) and issubclass(found, Subject) else found
    if not isinstance(subject, Subject):
        raise ConfigurationError(f"{where} is no Subject but {found!r}")
    return subject


def _written(options: argparse.Namespace, report: Report, tested: PowerReport | None) -> int:
    """Write the files that were asked for; 2 where one cannot be written."""
    from hivetenancy.testing.conformance.html import as_html
    from hivetenancy.testing.conformance.jsonfile import as_json

    for path, write in ((options.html, as_html), (options.json, as_json)):
        if path is not None:
            try:
                path.write_text(write(report, tested), encoding="utf-8")
            except OSError as error:
                print(f"hivetenancy conform: cannot write {path}: {error.strerror}", file=sys.stderr)
                return 2
    return 0


def _code(report: Report, tested: PowerReport | None) -> int:
    from hivetenancy.testing.conformance import Verdict

    if report.verdict is Verdict.LEAK:
        return 1
    well = report.verdict is Verdict.PASS and (tested is None or tested.verdict is Verdict.PASS)
    return 0 if well else NOTHING_PROVEN
