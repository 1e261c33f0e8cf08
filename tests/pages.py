"""Runs the Python blocks of a Markdown page, from top to bottom in one namespace.

Sybil finds the blocks, keeps the page's line numbers and compares ``>>>`` sessions. Two things are ours: a
block may use ``await`` at its top level (the blocks of a page share one event loop), and a block that cannot
run is marked by a comment just above it that says why: ``<!-- not run: needs two hosts -->``.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sybil import Document, Example, Region
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser

NOT_RUN: Final = re.compile(r"<!-- not run: (?P<reason>[^>]*\S) -->\s*\Z")

#: What may stand after a fence. ``python`` is run; the others hold none. Any other word, or none, is refused,
#: so that no block escapes by a spelling (``py``, ``pycon``, ``Python``).
LANGUAGES: Final = frozenset({"python", "console", "text", "json", "http", "toml", "ini", "yaml", "sh", "html"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """A block of Python that is shown and not run."""

    page: str
    line: int
    reason: str


class PythonBlocks:
    """A Sybil parser: the page's Python blocks, each to be run as it is written."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.not_run: list[NotRun] = []
        self._runner = runner
        self._blocks = CodeBlockParser(language="python", evaluator=self._evaluate)
        self._sessions = DocTestStringParser()

    def __call__(self, document: Document) -> Iterator[Region]:
        for region in self._blocks(document):
            marked = NOT_RUN.search(document.text[: region.start])
            if marked:
                line = document.text.count("\n", 0, region.start) + 1
                self.not_run.append(NotRun(page=document.path, line=line, reason=marked["reason"]))
            elif region.parsed.startswith(">>>"):
                for session in self._sessions(region.parsed, document.path):
                    session.adjust(region, region.parsed)
                    yield session
            else:
                yield region

    def _evaluate(self, example: Example) -> None:
        """Run one block: compiled under the page's name, padded so that a traceback shows the page's own
        line."""
        source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
        pending = eval(code, example.namespace)
        if pending is not None:  # the block holds an `await`: what came back is its coroutine
            self._runner.run(pending)


def _open(page: Path, runner: asyncio.Runner) -> tuple[Document, list[NotRun]]:
    blocks = PythonBlocks(runner)
    document = Document.parse(str(page), blocks)
    document.namespace["__name__"] = "__page__"  # dataclasses and type hints look their module up by it
    return document, blocks.not_run


def run_page(page: Path) -> dict[str, Any]:
    """Run every block of *page* and return the names it leaves behind."""
    with asyncio.Runner() as runner:
        document, _ = _open(page, runner)
        for example in document.examples():
            example.evaluate()
        return document.namespace


def not_run(page: Path) -> list[NotRun]:
    """The blocks of *page* that are shown and not run, with their reasons."""
    with asyncio.Runner() as runner:
        return _open(page, runner)[1]


def unknown_fences(page: Path) -> list[str]:
    """The fences of *page* that name no language of `LANGUAGES`, each as ``path:line: what``."""
    found, fence = [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        mark = re.match(r"[ \t>]*(?:[-*+]|\d+[.)])?[ \t]*(?P<fence>```+|~~~+)(?P<language>.*)", line)
        if mark is None:
            continue
        if not fence:
            fence = mark["fence"]
            if mark["language"].strip() not in LANGUAGES:
                found.append(f"{page}:{number}: {mark['language'].strip() or 'a fence without a language'}")
        elif mark["fence"].startswith(fence) and not mark["language"].strip():
            fence = ""
    return found
