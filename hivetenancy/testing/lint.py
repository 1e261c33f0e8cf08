"""`assert_scoped`: a test that fails when a module of a server forgets its tenants; see `hivetenancy.lint`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Final

from hivetenancy.errors import ConfigurationError
from hivetenancy.lint import DRIVERS, Finding, check

_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def sources(path: Path) -> Iterator[Path]:
    """Yield *path* itself, or the Python files below it, in order; hidden folders and environments are left out.

    Raises:
        FileNotFoundError: There is no such file or folder.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        yield path
        return
    for found in sorted(path.rglob("*.py")):
        parts = found.relative_to(path).parts[:-1]
        # A pipe that is called like a module would be waited for without end.
        if found.is_file() and not any(part in _SKIPPED or part.startswith(".") for part in parts):
            yield found


def findings(paths: Iterable[Path], *, scoped: bool = False, drivers: Iterable[str] = DRIVERS) -> list[Finding]:
    """Return what the rules find in the files at and below *paths*; the other arguments are those of `check`.

    Raises:
        OSError: A file cannot be read.
    """
    found: list[Finding] = []
    for path in paths:
        for each in sources(path):
            text = each.read_bytes().decode("utf-8-sig", "replace")
            found += check(text, str(each), scoped=scoped, drivers=drivers)
    return found


def assert_scoped(target: str | PathLike[str], *, scoped: bool = True, drivers: Iterable[str] = DRIVERS) -> None:
    """Fail unless the modules of *target* keep to the rules of `hivetenancy.lint`.

    Args:
        target: A package or module by its dotted name, which is not imported but for the packages that it lies in; or
            the path of a file or folder.
        scoped: Look at modules too that neither import hivetenancy nor say that they are scoped.
        drivers: Packages that only façades may import.

    Raises:
        AssertionError: Something was found; the message lists it with places.
        ConfigurationError: There is nothing to look at, so that the assertion would hold of nothing.

    Example:
        >>> assert_scoped("hivetenancy.cache")
    """
    files = [path for root in _roots(target) for path in sources(root)]
    if not files:
        raise ConfigurationError(f"there is no Python file in {target!r}; name a package, a module, or a path")
    found = findings(files, scoped=scoped, drivers=drivers)
    if found:
        raise AssertionError("\n".join([f"{len(found)} places where a tenant may be forgotten:", *map(str, found)]))


def _roots(target: str | PathLike[str]) -> list[Path]:
    path = Path(target)
    if path.exists():
        return [path]
    try:
        spec = importlib.util.find_spec(str(target))
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []
