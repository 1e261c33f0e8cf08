"""What a wheel and an sdist must hold, and must not.

``python3 tests/distributions.py DIST`` judges the archives in a folder and lists what is wrong. It needs nothing but
the standard library.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Patterns of which a name in the archive must match at least one, for each.
WHEEL_NEEDS: Final = (
    r"hivetenancy/__init__\.py",
    r"hivetenancy/py\.typed",
    r"hivetenancy/gate\.py",
    r"hivetenancy/testing/contracts/\w+\.py",
    r"hivetenancy-[^/]+\.dist-info/entry_points\.txt",
    r"hivetenancy-[^/]+\.dist-info/licenses/LICENSE",
)
SDIST_NEEDS: Final = (
    r"pyproject\.toml",
    r"README\.md",
    r"CHANGELOG\.md",
    r"LICENSE",
    r"noxfile\.py",
    r"PKG-INFO",
    r"hivetenancy/py\.typed",
    r"tests/conftest\.py",
    r"docs/glossary\.md",
    r"examples/\w+\.py",
)

#: Patterns of which every name must match one: a file that nobody thought of is a fault until it is named here.
WHEEL_MAY: Final = (r"hivetenancy/(?:\w+/)*(?:\w+\.py|py\.typed|\w+\.lua)", r"hivetenancy-[^/]+\.dist-info/.+")
SDIST_MAY: Final = (
    r"hivetenancy/(?:\w+/)*(?:\w+\.py|py\.typed|\w+\.lua)",
    r"tests/(?:\w+/)*\w+\.(?:py|md|json|toml|txt)",
    r"tests/interop/rust_sdk/(?:src/\w+\.rs|\.gitignore)",
    r"docs/(?:[\w-]+/)*[\w-]+\.(?:md|svg|png)",
    r"examples/(?:\w+/)*\w+\.(?:py|md|toml)",
    r"pyproject\.toml|README\.md|CHANGELOG\.md|LICENSE|noxfile\.py|PKG-INFO|\.gitignore",
)

#: An archive of sources alone is small; one that swallowed an environment is not.
AT_MOST_BYTES: Final = 3_000_000


def faults(names: Iterable[str], needs: Iterable[str], may: Iterable[str]) -> list[str]:
    """What is missing from *names*, and what has no business among them."""
    names = list(names)
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in may))
    missing = [pattern for pattern in needs if not any(re.fullmatch(pattern, name) for name in names)]
    return [f"nothing matches {pattern}" for pattern in missing] + [
        f"{name} has no business here" for name in names if not allowed.fullmatch(name)
    ]


def wheel_names(wheel: Path) -> list[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def sdist_names(sdist: Path) -> list[str]:
    """The files in an sdist, below its one top folder."""
    with tarfile.open(sdist) as archive:
        return [member.name.split("/", 1)[-1] for member in archive.getmembers() if not member.isdir()]


def judge(folder: Path) -> list[str]:
    """Everything that is wrong with the wheel and the sdist in *folder*."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        return [f"{folder} holds {len(wheels)} wheels and {len(sdists)} sdists, and needs one of each"]
    found = [f"{wheels[0].name}: {what}" for what in faults(wheel_names(wheels[0]), WHEEL_NEEDS, WHEEL_MAY)]
    found += [f"{sdists[0].name}: {what}" for what in faults(sdist_names(sdists[0]), SDIST_NEEDS, SDIST_MAY)]
    large = [path for path in (*wheels, *sdists) if path.stat().st_size > AT_MOST_BYTES]
    return found + [f"{path.name}: larger than {AT_MOST_BYTES} bytes" for path in large]


if __name__ == "__main__":
    wrong = judge(Path(sys.argv[1]))
    print("\n".join(wrong) or "wheel and sdist hold what they should, and nothing else")
    sys.exit(bool(wrong))
