"""The documentation is true: every Python block of it runs, and every example can be imported."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import importlib.util
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil.example import SybilFailure

import hivetenancy
from tests.layers import sources
from tests.pages import not_run, run_page, unknown_fences
from tests.readme import ROOT, commands
from tests.tiers import TIER

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PACKAGE = Path(hivetenancy.__path__[0])
WITH_SESSIONS = [path for path in sources(PACKAGE) if ">>> " in (PACKAGE / path).read_text(encoding="utf-8")]

#: How many blocks may be shown without being run, over all pages. Each says why; raise this only with a
#: reason as good.
NOT_RUN_AT_MOST = 6

#: What an extra brings. Where one is not installed, a page or example that shows it is skipped, naming it; in
#: the deep tier everything is installed and nothing is skipped.
OF_AN_EXTRA = frozenset(
    {"aiohttp", "fastapi", "hiredis", "httpx2", "litestar", "quart", "redis", "starlette", "uvicorn"}
)


def name(path: Path) -> str:
    """The path as the repository writes it."""
    return path.relative_to(ROOT).as_posix()


@contextlib.contextmanager
def skipped_without_its_extra() -> Iterator[None]:
    """Skip where a package of an extra is missing; let any other failed import fail."""
    try:
        yield
    except ImportError as error:
        lacking = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        top = (getattr(lacking, "name", None) or "").split(".")[0]
        if TIER == "deep" or top not in OF_AN_EXTRA:
            raise
        pytest.skip(f"{top} is not installed: it belongs to an extra")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_runs(page: Path) -> None:
    """Every Python block of the page runs, in order and in one namespace, and every session prints what it
    shows."""
    with skipped_without_its_extra():
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_fence_names_its_language(page: Path) -> None:
    """No block of Python escapes being run by a fence without a language or with another spelling of it."""
    assert unknown_fences(page) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_an_example_can_be_imported(example: Path) -> None:
    """Importing an example builds what it shows and starts nothing."""
    spec = importlib.util.spec_from_file_location(f"examples_{example.stem}", example)
    assert spec is not None
    assert spec.loader is not None
    with skipped_without_its_extra():
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("path", WITH_SESSIONS)
def test_the_sessions_in_docstrings(path: str) -> None:
    """Every ``>>>`` session in a docstring of the package prints what it shows."""
    dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    with skipped_without_its_extra():
        module = importlib.import_module(f"hivetenancy.{dotted}")
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to another page or folder of the repository leads to one that is there."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_blocks_that_are_not_run_are_few() -> None:
    """The blocks that are only shown are counted, and few."""
    shown = [block for page in PAGES for block in not_run(page)]
    assert len(shown) <= NOT_RUN_AT_MOST, shown


def test_the_readme_holds_its_two_commands() -> None:
    """The README's two commands stand in one block: the demo in a new environment, then the suite."""
    demo, suite = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert demo == "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/hivetenancy demo"
    assert suite == ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest -q -n 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [("no block", "holds 0 blocks"), ("```sh\npython3 -m venv .venv\n```\n", "has 1 lines")],
    ids=["none", "one line"],
)
def test_a_readme_without_its_commands_is_refused(text: str, message: str) -> None:
    """Where the block is missing or not of two lines, nothing is run in its place."""
    with pytest.raises(ValueError, match=message):
        commands(text)


def unexplained(source: str) -> list[str]:
    """The tests in *source* that do not say, in a docstring, what holds."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tests = [node for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]
    return [node.name for node in tests if node.name.startswith("test_") and not ast.get_docstring(node)]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=name)
def test_every_test_says_what_holds(path: Path) -> None:
    """Each test has a docstring, which is the first thing to read when it fails."""
    assert unexplained(path.read_text(encoding="utf-8")) == []


def test_a_test_that_says_nothing_is_noticed() -> None:
    """A test without docstring is named, be it async, in a class, or plain."""
    source = "class X:\n    async def test_one(self): ...\ndef test_two():\n    'Holds.'\ndef helper(): ...\n"
    assert unexplained(source) == ["test_one"]


def write(folder: Path, text: str) -> Path:
    """A page of its own."""
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_blocks_share_a_namespace_and_a_loop(tmp_path: Path) -> None:
    """A later block sees what an earlier one made, awaits on the same loop, and may hold a session."""
    blocks = [
        "```python\nimport asyncio\nx = 20\n```\n",
        "```python\nawait asyncio.sleep(0)\nfirst = asyncio.get_running_loop()\n```\n",
        "1. A step.\n\n   ```python\n   second = await asyncio.sleep(0, asyncio.get_running_loop())\n   ```\n",
        "```python\n>>> x += 1\n>>> x * 2\n42\n```\n",
    ]
    page = write(tmp_path, "\n".join(blocks))
    names = run_page(page)
    assert names["first"] is names["second"]
    assert names["x"] == 21


def test_a_failing_block_shows_the_line_of_the_page(tmp_path: Path) -> None:
    """A block that raises is reported with the page's name and its own line there."""
    page = write(tmp_path, "# Title\n\n```python\nx = 1\n```\n\nText.\n\n```python\ny = 2\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(page), 11)


def test_a_failing_await_shows_the_line_of_the_page(tmp_path: Path) -> None:
    """A block that awaits is reported like any other."""
    page = write(tmp_path, "```python\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 4


def test_a_wrong_session_shows_the_line_of_the_page(tmp_path: Path) -> None:
    """A session that prints something else is reported with its own line, and what came instead."""
    page = write(tmp_path, "# Title\n\n```python\n>>> 1 + 1\n2\n>>> 2 + 2\n5\n```\n")
    with pytest.raises(SybilFailure, match=r"(?s)page\.md, line 6,.*Expected:\s+5\s+Got:\s+4"):
        run_page(page)


def test_a_block_is_spared_only_with_a_reason(tmp_path: Path) -> None:
    """A comment with a reason just above a block spares it; one without, or further up, does not."""
    spared = "<!-- not run: needs two hosts -->\n\n```python\n1 / 0\n```\n"
    page = write(tmp_path, spared)
    run_page(page)
    assert [(block.line, block.reason) for block in not_run(page)] == [(3, "needs two hosts")]
    for text in (spared.replace("needs two hosts ", ""), spared.replace("-->\n", "-->\nText.\n")):
        with pytest.raises(ZeroDivisionError):
            run_page(write(tmp_path, text))


def test_a_fence_without_a_known_language_is_refused(tmp_path: Path) -> None:
    """A block that names no language, or Python by another name, is reported; what stands in a block is
    not."""
    page = write(tmp_path, "```\nx\n```\n```py\nx\n```\n```python\n# ```\n```\n~~~text\n```\n~~~\n")
    assert [line.split(":", 1)[1] for line in unknown_fences(page)] == [
        "1: a fence without a language",
        "4: py",
    ]


def test_the_loop_of_a_page_is_closed(tmp_path: Path) -> None:
    """A page leaves no event loop open behind it."""
    page = write(
        tmp_path,
        "```python\nimport asyncio\nawait asyncio.sleep(0)\nloop = asyncio.get_running_loop()\n```\n",
    )
    loop = run_page(page)["loop"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert loop.is_closed()
