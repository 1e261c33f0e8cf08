"""The package keeps to its floors and rooms, and importing it loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hivetenancy
from tests.layers import CORE_FLOOR, parse, violations

PACKAGE = Path(hivetenancy.__path__[0])  # where it is installed, or the checkout

#: A small house for planted faults: two rooms of three floors, a front door, a fake and a command line.
HOUSE = """
F0 ids.py
F0 clock.py
F1 quota/protocol.py
F1 quota/__init__.py
F2 quota/ledger.py
F3 quota/local.py
F3 quota/deep/rights.py
F1 rate/protocol.py
F3 rate/memory.py
F3 gate.py
F4 web.py aiohttp
F5 compose.py
F4 testing/hub.py
F6 cli/demo.py
F6 __init__.py
"""

#: What a file of that house may hold.
GOOD = {
    "clock.py": "from hivetenancy.ids import TenantId",
    "quota/protocol.py": "from hivetenancy.ids import TenantId\nfrom hivetenancy.clock import Clock",
    "quota/__init__.py": "from .protocol import QuotaManager",
    "quota/ledger.py": "from .protocol import QuotaManager\nimport dataclasses",
    "quota/local.py": "import time\nfrom . import ledger\nfrom hivetenancy.rate.protocol import Limiter",
    "quota/deep/rights.py": "from ..local import LocalQuota\nfrom .. import QuotaManager\nimport cachetools",
    "web.py": "import aiohttp\nfrom hivetenancy.gate import Gate\nfrom hivetenancy.quota import QuotaManager",
    "cli/demo.py": "from hivetenancy.testing.hub import FakeHiveHub",
    "__init__.py": "if TYPE_CHECKING:\n    from hivetenancy.testing.hub import FakeHiveHub",
}

#: One fault at a time: the file, what it holds, and what must be said of it.
PLANTED = {
    "upwards": ("ids.py", "from hivetenancy.gate import Gate", "ids.py:1: imports gate.py, which is up"),
    "below it in its room": (
        "ids.py",
        "from hivetenancy.clock import Clock",
        "lists below it in the same room",
    ),
    "below it in its folder": (
        "quota/local.py",
        "from .deep import rights",
        "lists below it in the same room",
    ),
    "itself": ("quota/local.py", "from .local import LocalQuota", "lists below it in the same room"),
    "another room's same floor": (
        "rate/memory.py",
        "from hivetenancy.quota.local import LocalQuota",
        "imports quota/local.py, another room's file on the same floor 3",
    ),
    "an engine from the gate": (
        "gate.py",
        "from hivetenancy.rate.memory import MemoryRateLimiter",
        "imports rate/memory.py, another room's file on the same floor 3",
    ),
    "only for types": (
        "rate/memory.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hivetenancy.gate import Gate",
        "rate/memory.py:3: imports gate.py, another room's file",
    ),
    "inside a function": (
        "rate/protocol.py",
        "def late() -> None:\n    import hivetenancy.gate",
        "rate/protocol.py:2: imports gate.py, which is up",
    ),
    "the front door": ("gate.py", "import hivetenancy", "imports the front door"),
    "a name from the front door": ("gate.py", "from hivetenancy import Tenancy", "imports the front door"),
    "a file through the front door": ("gate.py", "from hivetenancy import clock", "imports the front door"),
    "the front door, relatively": ("gate.py", "from . import Tenancy", "imports the front door"),
    "relative across rooms": (
        "quota/local.py",
        "from ..rate.protocol import RateLimiter",
        "imports rate/protocol.py relatively",
    ),
    "relative in the root": ("clock.py", "from .ids import TenantId", "imports ids.py relatively"),
    "relative into the root": ("quota/local.py", "from ..ids import TenantId", "imports ids.py relatively"),
    "absolute inside a room": (
        "quota/local.py",
        "from hivetenancy.quota.ledger import decide",
        "imports quota/ledger.py absolutely",
    ),
    "a fake in the product": (
        "compose.py",
        "from hivetenancy.testing.hub import FakeHiveHub",
        "the product imports nothing of testing",
    ),
    "a clock in a core": ("quota/ledger.py", "import time", "imports time: a core does no I/O"),
    "a framework": (
        "gate.py",
        "import aiohttp.web",
        "imports aiohttp, which its line of the table does not name",
    ),
    "a base dependency on the way": ("gate.py", "from pydantic import BaseModel", "imports pydantic, which"),
    "a file of no line": ("quota/new.py", "", "quota/new.py: not in the table"),
    "a module of no file": (
        "gate.py",
        "import hivetenancy.nothing",
        "imports hivetenancy.nothing, which is not",
    ),
}


def build(folder: Path, files: dict[str, str]) -> Path:
    """Lay the small house out below *folder*, each file holding what *files* says, or nothing."""
    for path in {entry.path for entry in parse(HOUSE).values()} | set(files):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(files.get(path, "") + "\n", encoding="utf-8")
    return folder


def test_the_package_keeps_to_its_floors() -> None:
    """Every file of the package stands in the table and imports only what the table allows."""
    assert violations(PACKAGE) == []


def test_a_house_in_order_is_left_alone(tmp_path: Path) -> None:
    """No import that the rules allow is reported."""
    assert violations(build(tmp_path, GOOD), HOUSE) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_caught(tmp_path: Path, planted: str) -> None:
    """Each kind of forbidden import is reported, once, with file, line and reason."""
    path, source, message = PLANTED[planted]
    found = violations(build(tmp_path, {**GOOD, path: source}), HOUSE)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_line_without_file_is_caught(tmp_path: Path) -> None:
    """A file that is removed takes its line of the table with it."""
    build(tmp_path, GOOD)
    (tmp_path / "web.py").unlink()
    assert violations(tmp_path, HOUSE) == ["web.py: in the table, but there is no such file"]


def test_a_file_stands_in_the_table_once() -> None:
    """A second line for a file is refused rather than read instead of the first."""
    with pytest.raises(ValueError, match=r"ids\.py stands in the table twice"):
        parse("F0 ids.py\nF1 ids.py")


def test_the_names_of_modules() -> None:
    """A path gives the dotted name that an import uses, and a room's own file that of its folder."""
    entries = parse(HOUSE)
    names = [entries[path].module for path in ("gate.py", "quota/deep/rights.py", "quota/__init__.py", "__init__.py")]
    assert names == ["hivetenancy.gate", "hivetenancy.quota.deep.rights", "hivetenancy.quota", "hivetenancy"]


def loaded(imports: str, names: list[str]) -> list[str]:
    """Which of the modules *names* a new process holds after *imports*."""
    code = f"""
import json, sys
sys.path[:] = {sys.path!r}
{imports}
print(json.dumps([name for name in {names!r} if name in sys.modules]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


HEAVY = ["pydantic", "httpx", "httpx2", "starlette", "fastapi", "aiohttp", "uvicorn", "redis"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import hivetenancy` loads no model library, HTTP client, framework or store client."""
    assert loaded("import hivetenancy", HEAVY) == []


def test_a_heavy_import_would_be_seen() -> None:
    """The check above sees a library that an import brings in."""
    assert loaded("import pydantic", HEAVY) == ["pydantic"]


def test_a_protocol_loads_no_engine() -> None:
    """Reaching a room for its protocol loads no engine, of that room or another."""
    entries = parse().values()
    rooms = sorted({entry.folder for entry in entries if entry.path.endswith("/protocol.py")} - {"testing"})
    engines = [entry.module for entry in entries if entry.floor > CORE_FLOOR and entry.path != "__init__.py"]
    assert rooms
    assert loaded("\n".join(f"import hivetenancy.{room}" for room in rooms), engines) == []
