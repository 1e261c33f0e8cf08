"""The rules about wheel and sdist notice what is missing and what slipped in."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.distributions import judge

WHEEL = (
    "hivetenancy/__init__.py",
    "hivetenancy/py.typed",
    "hivetenancy/gate.py",
    "hivetenancy/testing/contracts/quota.py",
    "hivetenancy-0.1.0.dist-info/entry_points.txt",
    "hivetenancy-0.1.0.dist-info/licenses/LICENSE",
)
SDIST = (
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "noxfile.py",
    "PKG-INFO",
    ".gitignore",
    "hivetenancy/py.typed",
    "tests/conftest.py",
    "tests/typing/accepted.py",
    "docs/glossary.md",
    "docs/how-to/add-a-host.md",
    "examples/resp_server.py",
)


def pack(folder: Path, wheel: tuple[str, ...], sdist: tuple[str, ...]) -> Path:
    """Archives that hold empty files of these names."""
    with zipfile.ZipFile(folder / "hivetenancy-0.1.0-py3-none-any.whl", "w") as archive:
        for name in wheel:
            archive.writestr(name, "")
    with tarfile.open(folder / "hivetenancy-0.1.0.tar.gz", "w:gz") as archive:
        for name in sdist:
            archive.addfile(tarfile.TarInfo(f"hivetenancy-0.1.0/{name}"), io.BytesIO())
    return folder


def test_good_archives_pass(tmp_path: Path) -> None:
    """Archives with what they should hold are left alone."""
    assert judge(pack(tmp_path, WHEEL, SDIST)) == []


@pytest.mark.parametrize("missing", WHEEL)
def test_a_wheel_that_lacks_something(tmp_path: Path, missing: str) -> None:
    """Each file that a wheel needs is missed."""
    found = judge(pack(tmp_path, tuple(name for name in WHEEL if name != missing), SDIST))
    assert len(found) == 1
    assert "nothing matches" in found[0]


@pytest.mark.parametrize("extra", ["tests/__init__.py", "hivetenancy/notes.txt", "hivetenancy/_core.so"])
def test_a_wheel_with_something_more(tmp_path: Path, extra: str) -> None:
    """A file that a wheel should not hold is named."""
    found = judge(pack(tmp_path, (*WHEEL, extra), SDIST))
    assert found == [f"hivetenancy-0.1.0-py3-none-any.whl: {extra} has no business here"]


@pytest.mark.parametrize("extra", [".venv/bin/python", "build/lib/x.py", ".coverage", ".ci/run", "docs/a b.md"])
def test_an_sdist_with_something_more(tmp_path: Path, extra: str) -> None:
    """An sdist that swallowed an environment or a leftover says which file."""
    assert judge(pack(tmp_path, WHEEL, (*SDIST, extra))) == [f"hivetenancy-0.1.0.tar.gz: {extra} has no business here"]


def test_a_folder_without_archives(tmp_path: Path) -> None:
    """An empty folder is a fault, not a success."""
    assert judge(tmp_path) == [f"{tmp_path} holds 0 wheels and 0 sdists, and needs one of each"]
