"""Sessions that need more than one environment: `nox -l` lists them, `nox -s lint` runs one.

The suite runs against the built wheel, in a folder that holds no copy of the package, so that what is tested is what is
shipped.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nox

nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
SUITE = ["tests", "docs", "examples", "README.md", "CHANGELOG.md", "pyproject.toml", "noxfile.py"]

OLDEST, NEWEST = 11, max(14, sys.version_info.minor)
PYTHONS = [f"3.{minor}" for minor in range(OLDEST, NEWEST + 1)]

#: What runs tests and brings none of the optional packages along.
RUNNER = [
    "pytest>=8.4",
    "pytest-randomly>=3.16",
    "pytest-timeout>=2.3",
    "coverage>=7.10",
    "hypothesis>=6.100",
    "sybil>=9.0",
    "anyio>=4.6",
]

#: The extras that the suite is run with, one at a time; then all of them and everything else the suite can use.
EXTRAS = ["nothing", "starlette", "aiohttp", "demo", "hosts", "all"]


def wheel(session: nox.Session) -> Path:
    """Build the wheel and return its path."""
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT), silent=True)
    return next(folder.glob("*.whl"))


def in_a_copy(session: nox.Session) -> None:
    """Go to a fresh folder that holds the suite and not the package."""
    folder = Path(session.create_tmp()) / "suite"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SUITE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    session.chdir(folder)


@nox.session(python=PYTHONS)
@nox.parametrize("extra", EXTRAS)
def tests(session: nox.Session, extra: str) -> None:
    """The suite, fast tier, on each Python, with nothing optional, each extra alone, and all."""
    built = wheel(session)
    if extra == "nothing":
        session.install(str(built), *RUNNER)
    elif extra == "all":
        session.install(f"{built}[all,test]")
    else:
        session.install(f"{built}[{extra}]", *RUNNER)
    in_a_copy(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, order of imports, docstrings; the floors."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy, strict, over the package and what it must accept; then what it must refuse."""
    session.install("-e", ".[all,test,dev]")
    session.run("mypy")
    session.run("python", "-m", "pytest", "tests/typing", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Every block of the documentation and every example, with every host installed."""
    session.install("-e", ".[all,test]")
    session.run("python", "-m", "pytest", "tests/test_docs.py", "tests/test_public_api.py", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build wheel and sdist and check what they hold."""
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(folder), str(ROOT), silent=True)
    session.run("python", "tests/distributions.py", str(folder))


def covered(session: nox.Session, *args: str) -> None:
    """Run the deep tier under coverage, and ask 95 % of lines and branches."""
    session.install(f"{wheel(session)}[all,test]")
    in_a_copy(session)
    session.env["HIVETENANCY_TIER"] = "deep"
    session.run("coverage", "run", "-m", "pytest", "--timeout=1200", *args, *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def deep(session: nox.Session) -> None:
    """The deep tier: every host installed, many more examples, coverage of lines and branches at least 95 %."""
    covered(session)


@nox.session
def soak(session: nox.Session) -> None:
    """The deep tier's random tests again and again under new seeds, for as many rounds as given (default 10)."""
    rounds = int(session.posargs[0]) if session.posargs else 10
    session.install(f"{wheel(session)}[all,test]")
    in_a_copy(session)
    session.env["HIVETENANCY_TIER"] = "deep"
    for _ in range(rounds):
        session.run("python", "-m", "pytest", "-q", "-m", "deep", "--timeout=3600")


@nox.session
def bench(session: nox.Session) -> None:
    """The table of benchmarks, with peers beside our rows. Measures; never passes or fails a build."""
    session.install("-e", ".[all,test,bench]")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def revocation(session: nox.Session) -> None:
    """1,000 keys revoked in real time over HTTP: how long each is accepted at most, with the feed and without."""
    session.install("-e", ".[all,test]")
    session.run("python", "-m", "tests.soak.revocation", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """The mutation score of the codec and of the context: how many single changes to them no test notices."""
    session.install("-e", ".[all,test]", "mutmut>=3.8")
    session.run("mutmut", "run", silent=True)
    session.run("mutmut", "export-cicd-stats", silent=True)
    stats = json.loads((ROOT / "mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    session.run("mutmut", "results")
    noticed = stats["killed"] + stats["timeout"]
    session.log(f"{noticed} of {stats['total']} changes noticed: {100 * noticed / stats['total']:.1f} %")
    if noticed < 0.9 * stats["total"]:
        session.error("the score is below 90 %")


@nox.session
def isolation(session: nox.Session) -> None:
    """The conformance suite at length: each mutant on five seeds, a million calls of the clean server, a crowd."""
    session.install("-e", ".[all,test]")
    session.run("python", "-m", "tests.conformance.mutants", "--seeds", "5")
    session.run("python", "-m", "tests.conformance.soak", "--calls", "1000000")
    session.run("python", "-m", "tests.conformance.crowd")
