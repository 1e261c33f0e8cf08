"""Every public name can be imported, says what it is, and stands in the reference."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest

import hivetenancy
import hivetenancy.testing
from hivetenancy import errors
from tests.layers import sources
from tests.readme import ROOT

PACKAGE = Path(hivetenancy.__path__[0])
FRONT_DOORS = {"hivetenancy": hivetenancy, "hivetenancy.testing": hivetenancy.testing}
# A front door without a list fails below, in a test that says so.
PUBLIC = [
    (door, name)
    for door, module in FRONT_DOORS.items()
    for name in getattr(module, "__all__", ())
    if name != "__version__"
]


def subclasses(error: type[BaseException]) -> set[type[BaseException]]:
    """The error and everything below it."""
    return {error}.union(*(subclasses(below) for below in error.__subclasses__()))


ERRORS = sorted(error.__name__ for error in subclasses(errors.TenancyError) if error.__module__ == errors.__name__)


def documented(name: str, value: object) -> bool:
    """Whether a name has a docstring of its own, not one that a base class or `dataclass` lent it."""
    if isinstance(value, type) and value.__name__ == name:  # an alias explains itself where it is assigned
        text = vars(value).get("__doc__") or ""
        lent = text.startswith(f"{value.__name__}(") or (issubclass(value, Enum) and text == Enum.__doc__)
        return bool(text.strip()) and not lent
    if inspect.isroutine(value) or isinstance(value, ModuleType):
        return bool((value.__doc__ or "").strip())
    return any(_explained(name, ast.parse(text)) for text in texts() if re.search(rf"^{name}\b", text, re.MULTILINE))


@functools.cache
def texts() -> tuple[str, ...]:
    """Every file of the package, read once."""
    return tuple((PACKAGE / path).read_text(encoding="utf-8") for path in sources(PACKAGE))


def _explained(name: str, module: ast.Module) -> bool:
    """Whether *module* assigns *name* at its top level and says in a string just below what it is."""
    for statement, below in zip(module.body, module.body[1:], strict=False):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    return False


def mentioned(name: str, text: str) -> bool:
    """Whether *text* shows *name* as code: alone, qualified, or with its arguments."""
    return re.search(rf"`(?:[\w.]+\.)?{re.escape(name)}(?![\w])[^`\n]*`", text) is not None


@pytest.fixture(scope="module")
def reference() -> str:
    """The text of all pages of the reference."""
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/reference").glob("*.md")))


@pytest.mark.parametrize(("door", "name"), PUBLIC, ids=lambda part: part)
def test_a_public_name(door: str, name: str, reference: str) -> None:
    """The name can be imported from its front door, has a docstring, and stands in the reference."""
    value = getattr(importlib.import_module(door), name)
    assert documented(name, value), f"{door}.{name} has no docstring of its own"
    assert mentioned(name, reference), f"{door}.{name} stands on no page of docs/reference"


@pytest.mark.parametrize("name", ERRORS)
def test_an_error(name: str, reference: str) -> None:
    """Every error that can reach a user is public, has a docstring, and stands in the reference."""
    assert name in hivetenancy.__all__
    assert documented(name, getattr(errors, name))
    assert mentioned(name, reference)


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_a_front_door_lists_what_it_has(door: str) -> None:
    """`dir()` shows the public names and no others, each of them once."""
    module = FRONT_DOORS[door]
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    public = [name for name in dir(module) if not name.startswith("_")]
    assert public == sorted(name for name in module.__all__ if not name.startswith("_"))


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_a_name_that_is_not_there(door: str) -> None:
    """A wrong name is an `AttributeError` that says whose it was."""
    with pytest.raises(AttributeError, match=r"hivetenancy.*no_such_name"):
        _ = FRONT_DOORS[door].no_such_name


def test_what_counts_as_documented() -> None:
    """A docstring that a base class or a generator of code lent does not count."""

    class Bare(errors.TenancyError):
        pass

    class Own(errors.TenancyError):
        """Says what it is."""

    Lent = type("Lent", (), {"__doc__": "Lent(x: int)"})
    assert [documented(kind.__name__, kind) for kind in (Bare, Own, Lent)] == [False, True, False]
    assert not documented("nowhere", 3)
    assert _explained("LIMIT", ast.parse('LIMIT: int = 3\n"""How many."""\n'))
    assert not _explained("LIMIT", ast.parse("LIMIT = 3\nOTHER = 4\n"))


def test_what_counts_as_mentioned() -> None:
    """A name counts as part of the reference where it is shown as code, whole."""
    text = "### `Tenancy.standalone()`\nand `hivetenancy.Clock`, `reserve(amounts)`; Ticket"
    assert [mentioned(name, text) for name in ("Tenancy", "Clock", "reserve")] == [True, True, True]
    assert [mentioned(name, text) for name in ("Ticket", "Ten", "reserv", "Loc")] == [False] * 4
